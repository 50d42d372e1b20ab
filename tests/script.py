"""
Scripts: tests that read like the sequence diagram of what they test.

A L{Script} is what happens, C{>>}, and what is done about it, C{<<}, all of
it and in this order::

    script >> AgentSays(Hello(...)) << Asks("office", "secret")
    script >> stay.known(rights) << LetsIn(15.0) << RelaySays(Welcome(...))

What is done is recorded by the fake doors below, which stand where the
machines of relay and agent meet the world.  What happens is a message
(L{AgentSays}, L{RelaySays}) or a L{Cue}.
"""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from itertools import count
from typing import Any

import msgspec

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.agent.servers import OwnServer
from relaytunnel.config.hosts import RelayNames
from relaytunnel.config.limits import Limits
from relaytunnel.config.names import PortRange, Reach
from relaytunnel.errors import Code, Failing, ProtocolError, Rejection
from relaytunnel.relay.agents import Reception
from relaytunnel.relay.publishing import Publisher
from relaytunnel.relay.registry import Registry
from relaytunnel.relay.visits import Visit, Visits
from relaytunnel.relay.waiting import Place, WaitingRoom
from relaytunnel.wire.messages import Message, Notify

__all__ = [
    "Accepts",
    "AgentSays",
    "Asks",
    "Begins",
    "Blank",
    "Breaks",
    "CallsOff",
    "ClosesPort",
    "Cue",
    "Cues",
    "DialsData",
    "DialsServer",
    "Drops",
    "Fails",
    "FakeAgentDoor",
    "FakeAgentVisit",
    "FakeClientDoor",
    "FakePorts",
    "FakeRelayDoor",
    "FakeVisitDoors",
    "Forgets",
    "HangsUp",
    "IsDenied",
    "IsIn",
    "Joins",
    "LetsIn",
    "NotPublished",
    "OpensPort",
    "Pauses",
    "Published",
    "Refuses",
    "RelaySays",
    "Script",
    "ScriptedTestCase",
    "Splices",
    "Tells",
    "relay_core",
    "ticket",
]


# The script


class Blank:
    """
    A blank in a script: what first stands in its place fills it, and is all
    that it equals from then on.  Calling it gives what it was filled with.
    """

    def __init__(self, kind: type = object) -> None:
        """
        @param kind: the only type of thing that may fill it.
        """
        self._kind = kind
        self._filled = False
        self._value: Any = None

    def __call__(self) -> Any:
        assert self._filled, "nothing has filled this blank yet"
        return self._value

    def __eq__(self, other: object) -> bool:
        if not self._filled and isinstance(other, self._kind):
            self._filled = True
            self._value = other
        return bool(self._filled and self._value == other)

    __hash__ = None  # type: ignore[assignment]  # it changes when it is filled

    def __repr__(self) -> str:
        return repr(self._value) if self._filled else f"<any {self._kind.__name__}>"


@dataclass(frozen=True)
class Cue:
    """
    Something that happens to somebody.

    @ivar text: what, as it is shown.
    """

    text: str
    happen: Callable[[], object]

    def __repr__(self) -> str:
        return self.text


class Cues:
    """
    Somebody to whom things happen: C{Cues("visit", machine).accepted()} is
    the L{Cue} that calls C{machine.accepted()} when its turn has come.
    """

    def __init__(self, name: str, actor: object) -> None:
        self._name = name
        self._actor = actor

    def __getattr__(self, event: str) -> Callable[..., Cue]:
        def cue(*arguments: object, **options: object) -> Cue:
            shown = [repr(argument) for argument in arguments]
            shown += [f"{key}={value!r}" for key, value in options.items()]
            return Cue(
                f"{self._name}.{event}({', '.join(shown)})",
                lambda: getattr(self._actor, event)(*arguments, **options),
            )

        return cue


class Script:
    """
    A script that is played while it is read.

    After C{script >> event} everything that was done about it has to be read
    with C{<<} before the next event and before the test ends; so an event
    that stands alone says that nothing was done.
    """

    def __init__(
        self, test: SynchronousTestCase, settle: Callable[[], object] = lambda: None
    ) -> None:
        """
        @param settle: called behind each event, to let happen what follows
            from it elsewhere.
        """
        self._test = test
        self._settle = settle
        self._ears: dict[tuple[type, str], Callable[[Any], object]] = {}
        self._done: deque[object] = deque()
        self._told: list[str] = []
        self._failed = False
        test.addCleanup(self._end)

    def on(self, kind: type, agent: str, hear: Callable[[Any], object]) -> None:
        """
        Give the messages of this kind, from or to this agent, to somebody.

        @param kind: L{AgentSays} or L{RelaySays}.
        """
        self._ears[kind, agent] = hear

    def record(self, command: object) -> None:
        """
        Something was done.
        """
        self._done.append(command)

    def __rshift__(self, event: Cue | AgentSays | RelaySays) -> Script:
        self._nothing_unread(f"before >> {event!r}")
        self._told.append(f">> {event!r}")
        try:
            if isinstance(event, Cue):
                event.happen()
            else:
                self._ears[type(event), event.agent](event.message)
        except ProtocolError as fault:
            self.record(Breaks(str(fault)))
        self._settle()
        return self

    def __lshift__(self, command: object) -> Script:
        if not self._done or command != self._done[0]:
            self._fail("the script and what was done part ways", [command])
        self._told.append(f"<< {self._done.popleft()!r}")
        return self

    def _nothing_unread(self, where: str) -> None:
        if self._done:
            self._fail(f"more was done than the script says, {where}", [])

    def _end(self) -> None:
        if not self._failed:
            self._nothing_unread("at the end")

    def _fail(self, why: str, expected: list[object]) -> None:
        self._failed = True
        difference = difflib.ndiff(
            [line for command in expected for line in _lines(command, "<< ")],
            [line for command in self._done for line in _lines(command, "<< ")],
        )
        story = [f"  {line}" for line in self._told]
        legend = "(- stands in the script, + was done)"
        self._test.fail("\n".join([f"{why} {legend}:", *story, *difference]))


def _lines(value: object, label: str = "", depth: int = 0) -> Iterator[str]:
    """
    Spread a value over lines, one for each thing in it, so that a difference
    shows where it is.
    """
    indent = "    " * depth
    if isinstance(value, msgspec.Struct):
        names = value.__struct_fields__
    elif is_dataclass(value):
        names = tuple(field.name for field in fields(value))
    else:
        yield f"{indent}{label}{value!r}"
        return
    yield f"{indent}{label}{type(value).__name__}"
    for name in names:
        yield from _lines(getattr(value, name), f"{name} = ", depth + 1)


# What the two say to each other.  Where one of them is tested, what the other
# says happens to it, and what it says itself is what it does.


@dataclass(frozen=True)
class AgentSays:
    """
    A message from an agent to the relay.

    @ivar agent: which, if there are several.
    """

    message: Message
    agent: str = ""


@dataclass(frozen=True)
class RelaySays:
    """
    A message from the relay to an agent.
    """

    message: Message
    agent: str = ""


@dataclass(frozen=True)
class Breaks:
    """
    The protocol was broken, and this is said about it.
    """

    fault: str


@dataclass(frozen=True)
class HangsUp:
    """
    A control channel is closed behind what was sent.

    @ivar agent: whose.
    """

    why: str
    agent: str = ""


# What the relay does.


@dataclass(frozen=True)
class Asks:
    """
    The accounts are asked whether they know this agent.
    """

    agent: str
    secret: str


@dataclass(frozen=True)
class LetsIn:
    """
    The relay lets an agent in.
    """

    ping: float
    agent: str = ""


@dataclass(frozen=True)
class OpensPort:
    """
    The relay listens on a port of a server's own.
    """

    port: int


@dataclass(frozen=True)
class ClosesPort:
    """
    The relay listens there no more.
    """

    port: int


@dataclass(frozen=True)
class Tells:
    """
    A client is told why it is not served.
    """

    client: str
    failing: Failing


@dataclass(frozen=True)
class Pauses:
    """
    A client is read no more for a while, or again.
    """

    client: str
    paused: bool


@dataclass(frozen=True)
class Joins:
    """
    A client channel and a data channel are joined.
    """

    client: str
    stream: object


class FakeAgentDoor:
    """
    The relay's end of a control channel.
    """

    def __init__(self, script: Script, name: str = "", peer: str = "198.51.100.7:40000") -> None:
        """
        @param name: which agent is at the other end, if there are several.
        """
        self.peer = peer
        self._script = script
        self._name = name

    def send(self, message: Message) -> None:
        self._script.record(RelaySays(message, self._name))

    def close(self, why: str) -> None:
        self._script.record(HangsUp(why, self._name))

    def authenticate(self, agent: str, secret: str) -> None:
        self._script.record(Asks(agent, secret))

    def authenticated(self, ping: float) -> None:
        self._script.record(LetsIn(ping, self._name))


class FakeClientDoor:
    """
    A client, as its visit reaches it.
    """

    def __init__(self, script: Script, client: str = "203.0.113.9:50000") -> None:
        self.client = client
        self.host = self.source = client.rpartition(":")[0]
        self.came_to = ""
        self.many = False
        self.held = 0
        self._script = script

    def hold(self, paused: bool) -> None:
        self._script.record(Pauses(self.client, paused))

    def tell(self, failing: Failing) -> None:
        self._script.record(Tells(self.client, failing))

    def fail(self) -> None:
        self._script.record(Fails())

    def splice(self, stream: object, place: Place[Visit]) -> None:
        self._script.record(Joins(self.client, stream))


class FakePorts:
    """
    The ports of a relay.

    @ivar open_now: those that it listens on.
    @ivar taken: those that some other program has.
    """

    def __init__(self, script: Script) -> None:
        self.open_now: set[int] = set()
        self.taken: set[int] = set()
        self._script = script

    def open(self, port: int) -> None:
        if port in self.taken:
            raise Rejection(Code.PORT_TAKEN, f"the port {port} is in use")
        if port not in self.open_now:
            self.open_now.add(port)
            self._script.record(OpensPort(port))

    def close(self, port: int) -> None:
        self.open_now.remove(port)
        self._script.record(ClosesPort(port))


def ticket(number: int) -> bytes:
    """
    @return: the ticket that a relay of L{relay_core} gives out as its
        C{number}th.
    """
    return b"ticket %d" % number + b"." * (32 - len(b"ticket %d" % number))


def relay_core(script: Script, clock: IReactorTime, limits: Limits, ports: FakePorts) -> Reception:
    """
    @return: a relay without agents and clients, which has the ports 20000 to
        20003 for servers, numbers its sessions from 1, and gives out the
        tickets of L{ticket}.
    """
    numbers = count(1)
    registry = Registry(RelayNames(["relay.example"]))
    room: WaitingRoom[Visit] = WaitingRoom(limits, clock.seconds, lambda: ticket(next(numbers)))

    def addresses(connection_id: str, way: Reach) -> tuple[str, ...]:
        return (f"{connection_id} by {way}",)

    return Reception(
        "relay.example",
        "north",
        registry,
        Publisher(registry, limits, PortRange(20000, 20003), ports, addresses),
        Visits(room, limits, clock),
        limits,
        clock,
    )


# What the agent does.


@dataclass(frozen=True)
class IsIn:
    """
    The agent was let in.
    """

    relay: str
    ping: float
    agent: str = ""


@dataclass(frozen=True)
class IsDenied:
    """
    The agent was not let in.
    """

    code: str
    reason: str
    agent: str = ""


@dataclass(frozen=True)
class Published:
    """
    A server is reached by clients now.
    """

    connection_id: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class NotPublished:
    """
    A server is not reached by clients.
    """

    connection_id: str
    code: str
    reason: str


@dataclass(frozen=True)
class Compares:
    """
    A client's password is being looked at (S8).
    """

    user: str
    password: str


@dataclass(frozen=True)
class StopsComparing:
    """
    Nobody waits any more for the answer to that.
    """

    session: int


@dataclass(frozen=True)
class Begins:
    """
    The agent begins to serve a client.
    """

    session: int
    connection_id: str


@dataclass(frozen=True)
class CallsOff:
    """
    The agent stops serving a client.
    """

    session: int


@dataclass(frozen=True)
class Accepts:
    """
    The relay is told that the agent is on its way.
    """


@dataclass(frozen=True)
class Refuses:
    """
    The relay is told that the client cannot be served.
    """

    failing: Failing


@dataclass(frozen=True)
class DialsServer:
    """
    The server channel is dialled.
    """


@dataclass(frozen=True)
class DialsData:
    """
    The data channel is dialled, unless there is one.
    """


@dataclass(frozen=True)
class Splices:
    """
    The ticket is presented, and the two channels are joined.
    """


@dataclass(frozen=True)
class Drops:
    """
    Both channels are let go of.
    """


@dataclass(frozen=True)
class Fails:
    """
    All is let go of, by a fault of the program's own.
    """


@dataclass(frozen=True)
class Forgets:
    """
    A visit is over.
    """


class FakeAgentVisit:
    """
    A visit at the agent, of which only the beginning and the calling off are
    of interest.
    """

    def __init__(self, script: Script, notify: Notify) -> None:
        self._script = script
        self._notify = notify

    def begin(self) -> None:
        self._script.record(Begins(self._notify.session, self._notify.connection_id))

    def cancelled(self) -> None:
        self._script.record(CallsOff(self._notify.session))


class FakeRelayDoor:
    """
    The agent's end of a control channel, and the world around it.
    """

    def __init__(self, script: Script, name: str = "") -> None:
        self._script = script
        self._name = name
        self._ping = 0.0

    def send(self, message: Message) -> None:
        self._script.record(AgentSays(message, self._name))

    def close(self, why: str) -> None:
        self._script.record(HangsUp(why, self._name))

    def authenticated(self, ping: float) -> None:
        self._ping = ping

    def welcomed(self, relay: str, releases: bool) -> None:
        self._script.record(IsIn(relay, self._ping, self._name))

    def denied(self, code: str, reason: str) -> None:
        self._script.record(IsDenied(code, reason, self._name))

    def published(self, server: OwnServer) -> None:
        self._script.record(Published(server.config.id, server.addresses))

    def not_published(self, connection_id: str, code: str, reason: str) -> None:
        self._script.record(NotPublished(connection_id, code, reason))

    def compare(
        self, notify: Notify, server: OwnServer, done: Callable[[Rejection | None], None]
    ) -> None:
        self._script.record(Compares(notify.user, notify.password))
        self.compared = done

    def stop_comparing(self, session: int) -> None:
        self._script.record(StopsComparing(session))

    def visit(self, notify: Notify, server: OwnServer) -> Any:
        return FakeAgentVisit(self._script, notify)

    def relay_leaves(self) -> None:
        """
        Nothing is kept here.
        """


class FakeVisitDoors:
    """
    What a visit at the agent does to the world.
    """

    def __init__(self, script: Script) -> None:
        self._script = script

    def dial_server(self) -> None:
        self._script.record(DialsServer())

    def dial_data(self) -> None:
        self._script.record(DialsData())

    def accept(self) -> None:
        self._script.record(Accepts())

    def refuse(self, failing: Failing) -> None:
        self._script.record(Refuses(failing))

    def splice(self) -> None:
        self._script.record(Splices())

    def drop(self) -> None:
        self._script.record(Drops())

    def forget(self) -> None:
        self._script.record(Forgets())

    def fail(self) -> None:
        self._script.record(Fails())


class ScriptedTestCase(SynchronousTestCase):
    """
    A test with a script and a clock, which has nothing to do when it ends.

    @ivar passes: cues for the clock: C{passes.advance(10.0)}.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.passes = Cues("time", self.clock)
        self.script = Script(self)
        self.addCleanup(self._nothing_pending)

    def _nothing_pending(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

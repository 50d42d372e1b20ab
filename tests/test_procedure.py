"""
The procedure, S1 to S20, as a script of messages without a socket.

The relay and the agents are the real ones from the inside to the edge: what
they say to each other is encoded, cut into pieces and decoded again, and what
they join is joined by the real splice.  Only the connections are fakes.  Each
test is named after the step that it shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import TestResult

from zope.interface.verify import verifyObject

from relaytunnel.accounts.model import Rights
from relaytunnel.accounts.passwords import Passwords
from relaytunnel.agent.backoff import Backoff
from relaytunnel.agent.servers import OwnServer, Servers, registration
from relaytunnel.agent.session import AgentState, RelaySession
from relaytunnel.agent.visit import AgentVisit, new_visit
from relaytunnel.config.access import networks
from relaytunnel.config.limits import Limits
from relaytunnel.config.names import Reach
from relaytunnel.config.server import ServerConfig
from relaytunnel.deadlines import Deadlines
from relaytunnel.errors import Code, Failing, ProtocolError
from relaytunnel.interfaces import IChannel, Lost
from relaytunnel.relay.agents import AgentSession
from relaytunnel.relay.choices import Choices
from relaytunnel.relay.client import ClientVisit
from relaytunnel.relay.clients import Clients
from relaytunnel.relay.finding import Finder
from relaytunnel.splice import PairedEngine, SpliceReport
from relaytunnel.splice.paired import PairedSplice
from relaytunnel.wire.control import MAX_BODY, MessageReader, frame
from relaytunnel.wire.data import FrameReader, Kind, join_frame
from relaytunnel.wire.messages import (
    Accept,
    Cancel,
    Denied,
    Goodbye,
    Hello,
    Message,
    Notify,
    Refuse,
    Register,
    Registered,
    Rejected,
    StandingRequest,
    Welcome,
    Withdraw,
    Withdrawn,
)
from tests.channels import (
    Closes,
    Ends,
    FakeChannel,
    Finishes,
    Network,
    Pauses,
    Resets,
    Resumes,
    Writes,
    connect,
)
from tests.script import (
    AgentSays,
    Asks,
    Blank,
    ClosesPort,
    Cue,
    Cues,
    DialsData,
    DialsServer,
    Drops,
    FakeAgentDoor,
    FakePorts,
    FakeRelayDoor,
    FakeVisitDoors,
    Forgets,
    HangsUp,
    IsDenied,
    IsIn,
    LetsIn,
    NotPublished,
    OpensPort,
    Published,
    RelaySays,
    Script,
    ScriptedTestCase,
    relay_core,
    ticket,
)

RIGHTS = Rights(("*",), ((20000, 20003),))
WELCOME = Welcome(relay="relay.example", node="north", sessions=4096, ping=15.0, releases=True)
REQUEST = b"GET / HTTP/1.1\r\nHost: web.relay.example\r\n\r\n"
CLIENT = "203.0.113.9:50000"
REFUSED = Failing(Code.REFUSED_BY_TARGET, "the target refused the connection")

_PIECE = 7
"""So many bytes of a control channel come in at once."""


@dataclass(frozen=True)
class Presents:
    """
    A ticket is presented on a new data channel.
    """

    ticket: bytes


@dataclass(frozen=True)
class Joins:
    """
    Two channels are joined.
    """

    first: str
    second: str


@dataclass(frozen=True)
class Reports:
    """
    A splice is over.
    """

    reason: str


class RecordingEngine(PairedEngine):
    """
    The engine, of which the script says when it joins.
    """

    def __init__(self, record: Callable[[object], object]) -> None:
        super().__init__()
        self._record = record

    def join(self, first: Any, second: Any, limits: Any, clock: Any) -> PairedSplice:
        self._record(Joins(first.name, second.name))
        return super().join(first, second, limits, clock)


class ControlEnd:
    """
    One end of a control channel whose bytes go over a L{Network}.

    @ivar open: whether anything can be sent or received still.
    """

    def __init__(self, network: Network) -> None:
        self.open = True
        self._network = network
        self._reader = MessageReader()
        self._gone = False

    def meet(self, other: ControlEnd, session: Any) -> None:
        """
        @param session: who gets the messages, and hears when all is over.
        """
        self._other = other
        self._session = session

    def send(self, message: Message) -> None:
        self._network.post(self._other.arrive, frame(message))

    def close(self, why: str) -> None:
        self.open = False
        self._network.post(self._other.cut, "closed by the other end")
        self._network.post(self.cut, why)

    def authenticated(self) -> None:
        self._reader.max_body = MAX_BODY

    def arrive(self, data: bytes) -> None:
        """
        Bytes come in, a few at a time.
        """
        for start in range(0, len(data), _PIECE):
            for message in self._reader.feed(data[start : start + _PIECE]):
                if self.open:
                    self._take(message)

    def _take(self, message: Message) -> None:
        try:
            self._session.received(message)
        except ProtocolError as fault:
            self.door.send(Goodbye(code="protocol-error", reason=str(fault)))
            self.door.close(f"protocol error: {fault}")

    door: Any

    def cut(self, why: str) -> None:
        """
        The connection is gone.
        """
        self.open = False
        if not self._gone:
            self._gone = True
            self._session.lost(why)


class RelayEnd(FakeAgentDoor):
    """
    The relay's end of a control channel.
    """

    def __init__(self, end: ControlEnd, script: Script, name: str, peer: str) -> None:
        super().__init__(script, name, peer)
        self._end = end
        end.door = self

    def send(self, message: Message) -> None:
        if self._end.open:
            super().send(message)
            self._end.send(message)

    def close(self, why: str) -> None:
        if self._end.open:
            super().close(why)
            self._end.close(why)

    def authenticated(self, ping: float) -> None:
        super().authenticated(ping)
        self._end.authenticated()


class AgentEnd(FakeRelayDoor):
    """
    The agent's end of a control channel.
    """

    def __init__(self, end: ControlEnd, agent: Agent, script: Script, name: str) -> None:
        super().__init__(script, name)
        self._end = end
        self._agent = agent
        end.door = self

    def send(self, message: Message) -> None:
        if self._end.open:
            super().send(message)
            self._end.send(message)

    def close(self, why: str) -> None:
        if self._end.open:
            super().close(why)
            self._end.close(why)

    def authenticated(self, ping: float) -> None:
        super().authenticated(ping)
        self._end.authenticated()

    def visit(self, notify: Notify, server: OwnServer) -> AgentVisit:
        return self._agent.visit(notify)


class Agent:
    """
    An agent, and what happens around it.

    @ivar stay: the relay's stay of it, when it has dialled.
    @ivar visits: its visits, by session number.
    """

    def __init__(
        self, world: ProcedureTestCase, agent_id: str, epoch: int, servers: list[ServerConfig]
    ) -> None:
        self.name = agent_id if agent_id != "office" else ""
        self.visits: dict[int, Visit] = {}
        self.state = AgentState(
            agent_id,
            "s3cret",
            epoch,
            "",
            Servers(servers),
            Backoff(world.clock.seconds, lambda: 1.0),
        )
        self._world = world

    def dial(self, name: str | None = None, port: int = 40000) -> None:
        """
        S1: a control channel stands.

        @param name: what the script calls its ends.
        """
        world = self._world
        name = self.name if name is None else name
        here, there = ControlEnd(world.network), ControlEnd(world.network)
        self.door = AgentEnd(here, self, world.script, name)
        session = RelaySession(self.state, self.door)
        relay_door = RelayEnd(there, world.script, name, f"198.51.100.7:{port}")
        relay_session = AgentSession(world.relay, relay_door)
        here.meet(there, session)
        there.meet(here, relay_session)
        self.here, self.there, self.stay = here, there, relay_session.stay
        session.connected()

    def lose_channel(self) -> None:
        """
        The control channel breaks.
        """
        self.here.cut("broken")
        self.there.cut("broken")

    def lose_channel_unnoticed(self) -> None:
        """
        The control channel breaks, and only the agent sees it.
        """
        self.here.cut("broken")

    def publish(self, config: ServerConfig) -> None:
        """
        A server asks to be published.
        """
        self.state.servers.add(config)
        self.door.send(registration(config))

    def withdraw(self, connection_id: str) -> None:
        """
        A server asks to be published no more.
        """
        self.state.servers.remove(connection_id)
        self.door.send(Withdraw(connection_id=connection_id))

    def forget_server(self, connection_id: str) -> None:
        """
        A server is published no more, and the relay does not know it yet.
        """
        self.state.servers.remove(connection_id)

    def stop(self) -> None:
        """
        The agent stops.
        """
        self.door.send(Goodbye(code="shutdown", reason="the agent stops"))
        self.door.close("the agent stops")

    def visit(self, notify: Notify) -> AgentVisit:
        """
        S8
        """
        visit = self.visits[notify.session] = Visit(self._world, self, notify)
        return visit.machine

    # What is dialled stands, or does not.

    def server_stands(self, session: int = 1) -> None:
        """
        S9: a server channel stands.
        """
        self.visits[session].server_stands()

    def server_fails(self, failing: Failing, session: int = 1) -> None:
        """
        S9: it does not.
        """
        self.visits[session].machine.server_failed(failing)

    def data_stands(self, session: int = 1) -> None:
        """
        S10: a data channel stands.
        """
        self.visits[session].data_stands()


class Visit(FakeVisitDoors):
    """
    A client's visit at the agent, with channels that are fakes.
    """

    server: FakeChannel | None = None
    data: FakeChannel | None = None

    def __init__(self, world: ProcedureTestCase, agent: Agent, notify: Notify) -> None:
        super().__init__(world.script)
        self._world = world
        self._agent = agent
        self._notify = notify
        self.machine = new_visit(self, Deadlines(world.clock), notify)

    def server_stands(self) -> None:
        self.server = self._world.channel("to server", "127.0.0.1:8080")
        self.machine.server_up()

    def data_stands(self) -> None:
        world = self._world
        self.data = world.channel("to relay", "192.0.2.1:7000")
        self._far = world.channel("to agent", f"198.51.100.7:{world.next_port()}")
        connect(self.data, self._far, world.network)
        self.machine.data_up()

    def accept(self) -> None:
        self._agent.door.send(Accept(session=self._notify.session))

    def refuse(self, failing: Failing) -> None:
        self._agent.door.send(
            Refuse(session=self._notify.session, code=failing.code.value, reason=failing.reason)
        )

    def splice(self) -> None:
        assert self.server is not None and self.data is not None
        world = self._world
        world.script.record(Presents(self._notify.ticket))
        world.network.post(world.presented, join_frame(self._notify.ticket), self._far)
        splice = world.engine.join(self.server, self.data, world.limits, world.clock)
        splice.done.addCallback(self._over)

    def _over(self, report: SpliceReport) -> None:
        self._world.script.record(Reports(report.reason))
        self.machine.over()

    def drop(self) -> None:
        super().drop()
        for channel in (self.server, self.data):
            if channel is not None:
                channel.reset()

    def fail(self) -> None:
        raise NotImplementedError  # and whoever looks at the log finds out

    def forget(self) -> None:
        super().forget()
        del self._agent.state.visits[self._notify.session]


WEB = ServerConfig(id="web", target="tcp:127.0.0.1:8080", http="raw")
SSH = ServerConfig(id="ssh", target="tcp:127.0.0.1:22", reach=(Reach("port", "20000"),))


class ProcedureTestCase(ScriptedTestCase):
    """
    A relay, an agent called C{office} with the server C{web}, and a client.

    Channels are named by where they lead: the relay holds the ones C{to
    client} and C{to agent}, the agent those C{to relay} and C{to server}.
    """

    limits = Limits(held=64)
    servers = (WEB,)

    def setUp(self) -> None:
        super().setUp()
        self.network = Network()
        self.script = Script(self, self.network.run)
        self.ports = FakePorts(self.script)
        self.relay = relay_core(self.script, self.clock, self.limits, self.ports)
        self.engine = RecordingEngine(self.script.record)
        self.clients = Clients(
            self.clock,
            self.limits,
            None,  # type: ignore[arg-type]  # no channel here has a descriptor
            self.relay.registry,
            self.relay.visits,
            self.engine,
            Finder(self.relay.registry, Choices(b"key")),
            Passwords(None, self.clock),  # type: ignore[arg-type]  # nobody needs one
        )
        self.addCleanup(self.clients.journal.close)
        self.channels: list[FakeChannel] = []
        self._port = 40100
        self.office = Agent(self, "office", 5, list(self.servers))
        self.agent = Cues("agent", self.office)

    # Channels

    def channel(self, name: str, peer: str) -> FakeChannel:
        """
        A channel of this world, watched by the script.
        """
        channel = FakeChannel(name, self.script.record, peer, self.limits.held, self.network.post)
        self.channels.append(channel)
        return channel

    def next_port(self) -> int:
        """
        @return: a port of the agent's machine that nobody had before.
        """
        self._port += 1
        return self._port

    def open_channels(self) -> list[str]:
        """
        @return: the names of the channels that nobody has let go of.
        """
        return [channel.name for channel in self.channels if not channel.over]

    def client(self, peer: str = CLIENT, port: int = 0) -> Cues:
        """
        S5: a client connects.

        @param port: to a port of a server's own; else to the shared one.
        @return: what it may do: C{connect()}, C{says(data)}, C{ends()},
            C{resets()}, C{stops_reading()}, C{reads_again()}.
        """
        channel: Any = self.channel("to client", peer)

        def arrive() -> None:
            visit = ClientVisit(self.clients, channel)
            if port:
                visit.arrive_at_port(port)
            else:
                visit.arrive()

        channel.connect = arrive
        return Cues("client", channel)

    @property
    def server(self) -> Cues:
        """
        The server of the first client, once it was dialled.
        """
        channel = self.office.visits[1].server
        assert channel is not None
        return Cues("server", channel)

    def presented(self, data: bytes, channel: FakeChannel) -> None:
        """
        S10: the relay's end of a data channel gets its first bytes.
        """
        for kind, payload in FrameReader().feed(data):
            self.assertIs(kind, Kind.JOIN)
            place = self.relay.visits.redeem(payload)
            if place is None:
                channel.reset()
            else:
                place.visit.joined(place, channel)

    # The steps, for those tests that begin behind them.

    def relay_of(self, agent: Agent) -> Cues:
        """
        What the accounts may say of an agent that has dialled.
        """
        return Cues("accounts", agent.stay)

    def hello(self, agent: Agent | None = None, epoch: int = 5) -> Hello:
        """
        What an agent says first.
        """
        agent_id = (agent or self.office).state.agent
        return Hello(version=1, agent=agent_id, secret="s3cret", epoch=epoch)

    def up_to_s2(self, agent: Agent | None = None) -> Script:
        """
        S1 and S2 of an agent, without what it registers behind them.
        """
        agent = agent or self.office
        return (
            self.script
            >> Cues("agent", agent).dial()
            << AgentSays(self.hello(agent, agent.state.epoch), agent.name)
            << Asks(agent.state.agent, "s3cret")
            >> self.relay_of(agent).known(RIGHTS)
            << LetsIn(15.0, agent.name)
            << RelaySays(WELCOME, agent.name)
            << IsIn("relay.example", 15.0, agent.name)
        )

    def up_to_s4(self) -> Script:
        """
        S1 to S4: C{web} is published.
        """
        return (
            self.up_to_s2()
            << AgentSays(Register(connection_id="web", http="raw"))
            << RelaySays(Registered(connection_id="web", reach=("web by name",)))
            << RelaySays(StandingRequest(connection_id="web"))
            << Published("web", ("web by name",))
        )

    def notify(self, session: int = 1, client: str = CLIENT) -> RelaySays:
        """
        S7
        """
        return RelaySays(
            Notify(
                session=session,
                connection_id="web",
                ticket=ticket(session),
                client=client,
                arrived="host:web.relay.example",
                deadline=10.0,
            )
        )

    def up_to_s8(self) -> Cues:
        """
        S1 to S8, with both channels being dialled.

        @return: the client.
        """
        self.up_to_s4()
        client = self.client()
        (
            self.script
            >> client.connect()
            >> client.says(REQUEST)
            << self.notify()
            << DialsData()
            << DialsServer()
            << AgentSays(Accept(session=1))
        )
        return client

    def up_to_s12(self) -> Cues:
        """
        S1 to S12: the server has the client's request.

        @return: the client.
        """
        client = self.up_to_s8()
        (
            self.script
            >> self.agent.server_stands()
            >> self.agent.data_stands()
            << Presents(ticket(1))
            << Joins("to server", "to relay")
            << Joins("to client", "to agent")
            << Writes("to agent", REQUEST)
            << Writes("to server", REQUEST)
        )
        return client

    def nothing_left(self) -> None:
        """
        Assert that a session has left nothing behind, at the relay or at the
        agent: no channel, no place, no timer.
        """
        self.assertEqual(self.open_channels(), [])
        self.assertEqual(self.clients.splices, {})
        self.assertEqual(self.clients.present, set())
        self.assertEqual(self.relay.visits.sessions, {})
        room = self.relay.visits.room
        self.assertEqual((room.waiting, room.served), (0, 0))
        self.assertEqual(self.office.state.visits, {})
        self.clients.journal.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class AgentStepsTests(ProcedureTestCase):
    """
    S1 to S4: the agent and its servers become known.
    """

    def test_S1_control_channel(self) -> None:
        """
        The agent opens the control channel and says who it is.
        """
        (
            self.script
            >> self.agent.dial()
            << AgentSays(Hello(version=1, agent="office", secret="s3cret", epoch=5))
            << Asks("office", "s3cret")
        )

    def test_S1_reopened(self) -> None:
        """
        A control channel that was lost is opened again, and everything that
        was published is published again.
        """
        self.up_to_s4()
        self.script >> self.agent.lose_channel()
        self.assertEqual(self.relay.registry.servers, {})
        self.up_to_s4()
        self.assertEqual(list(self.relay.registry.servers), ["web"])

    def test_S2_confirmed(self) -> None:
        """
        The relay checks the agent, stores it, and confirms that.
        """
        (
            self.script
            >> self.agent.dial()
            << AgentSays(self.hello())
            << Asks("office", "s3cret")
            >> self.relay_of(self.office).known(RIGHTS)
            << LetsIn(15.0)
            << RelaySays(WELCOME)
            << IsIn("relay.example", 15.0)
            << AgentSays(Register(connection_id="web", http="raw"))
            << RelaySays(Registered(connection_id="web", reach=("web by name",)))
            << RelaySays(StandingRequest(connection_id="web"))
            << Published("web", ("web by name",))
        )
        self.assertEqual(list(self.relay.registry.agents), ["office"])

    def test_S2_denied(self) -> None:
        """
        An agent that the accounts do not know is told so, and both sides hang
        up.
        """
        (
            self.script
            >> self.agent.dial()
            << AgentSays(self.hello())
            << Asks("office", "s3cret")
            >> self.relay_of(self.office).unknown(Code.AUTH, "nobody invited it", 60.0)
            << RelaySays(Denied(code="auth", reason="nobody invited it", retry_after=60.0))
            << HangsUp("denied: auth")
            << IsDenied("auth", "nobody invited it")
            << HangsUp("denied: auth")
        )
        self.assertEqual(self.relay.registry.agents, {})
        self.assertEqual(self.office.state.backoff.delay(), 120.0)

    def test_S2_stale_epoch(self) -> None:
        """
        An agent that was started before the one that is here is denied; the
        one that is here keeps its servers.
        """
        self.up_to_s4()
        old = Agent(self, "office", 4, [WEB])
        reason = "an agent office that was started later is connected from 198.51.100.7:40000"
        (
            self.script
            >> Cues("old agent", old).dial("old", 40001)
            << AgentSays(self.hello(epoch=4), "old")
            << Asks("office", "s3cret")
            >> self.relay_of(old).known(RIGHTS)
            << RelaySays(Denied(code="stale-epoch", reason=reason, retry_after=60.0), "old")
            << HangsUp("denied: stale-epoch", "old")
            << IsDenied("stale-epoch", reason, "old")
            << HangsUp("denied: stale-epoch", "old")
        )
        self.assertEqual(self.relay.registry.agents["office"].epoch, 5)
        self.assertEqual(list(self.relay.registry.servers), ["web"])

    def test_S2_takeover(self) -> None:
        """
        An agent whose channel broke unnoticed by the relay comes back and
        takes its servers over from its own ghost at once.
        """
        self.up_to_s4()
        self.script >> self.agent.lose_channel_unnoticed()
        ghost = self.office.there
        superseded = "the agent is back, from 198.51.100.7:40001"
        (
            self.script
            >> self.agent.dial("again", 40001)
            << AgentSays(self.hello(), "again")
            << Asks("office", "s3cret")
            >> self.relay_of(self.office).known(RIGHTS)
            << RelaySays(Goodbye(code="superseded", reason=superseded))
            << HangsUp(f"superseded: {superseded}")
            << LetsIn(15.0, "again")
            << RelaySays(WELCOME, "again")
            << IsIn("relay.example", 15.0, "again")
            << AgentSays(Register(connection_id="web", http="raw"), "again")
            << RelaySays(Registered(connection_id="web", reach=("web by name",)), "again")
            << RelaySays(StandingRequest(connection_id="web"), "again")
            << Published("web", ("web by name",))
        )
        self.assertFalse(ghost.open)
        self.assertEqual(list(self.relay.registry.servers), ["web"])

    def test_S3_registers(self) -> None:
        """
        The agent registers the servers of its configuration, each under its
        connection ID.
        """
        self.office.state.servers.add(SSH)
        (
            self.up_to_s2()
            << AgentSays(Register(connection_id="web", http="raw"))
            << AgentSays(Register(connection_id="ssh", reach=("port:20000",)))
            << RelaySays(Registered(connection_id="web", reach=("web by name",)))
            << RelaySays(StandingRequest(connection_id="web"))
            << OpensPort(20000)
            << RelaySays(Registered(connection_id="ssh", reach=("ssh by port:20000",)))
            << RelaySays(StandingRequest(connection_id="ssh"))
            << Published("web", ("web by name",))
            << Published("ssh", ("ssh by port:20000",))
        )

    def test_S3_while_running(self) -> None:
        """
        A server asks an agent that is running to publish it, and later to
        publish it no more.
        """
        self.up_to_s4()
        (
            self.script
            >> self.agent.publish(SSH)
            << AgentSays(Register(connection_id="ssh", reach=("port:20000",)))
            << OpensPort(20000)
            << RelaySays(Registered(connection_id="ssh", reach=("ssh by port:20000",)))
            << RelaySays(StandingRequest(connection_id="ssh"))
            << Published("ssh", ("ssh by port:20000",))
            >> self.agent.withdraw("ssh")
            << AgentSays(Withdraw(connection_id="ssh"))
            << ClosesPort(20000)
            << RelaySays(Withdrawn(connection_id="ssh"))
        )
        self.assertEqual(list(self.relay.registry.servers), ["web"])

    def test_S4_stands(self) -> None:
        """
        The relay stores the server, confirms it and sends the standing
        request; then both wait, without a word and with nothing open.
        """
        (
            self.up_to_s2()
            << AgentSays(Register(connection_id="web", http="raw"))
            << RelaySays(Registered(connection_id="web", reach=("web by name",)))
            << RelaySays(StandingRequest(connection_id="web", endpoints=("same",)))
            << Published("web", ("web by name",))
            >> self.passes.advance(86400.0)
        )
        self.nothing_left()

    def test_S4_conflict(self) -> None:
        """
        A connection ID that another agent has is rejected; the second agent
        stays, with what else it registers.
        """
        self.up_to_s4()
        home = Agent(self, "home", 1, [WEB, SSH])
        taken = "another agent publishes web"
        (
            self.up_to_s2(home)
            << AgentSays(Register(connection_id="web", http="raw"), "home")
            << AgentSays(Register(connection_id="ssh", reach=("port:20000",)), "home")
            << RelaySays(Rejected(connection_id="web", code="conflict", reason=taken), "home")
            << OpensPort(20000)
            << RelaySays(Registered(connection_id="ssh", reach=("ssh by port:20000",)), "home")
            << RelaySays(StandingRequest(connection_id="ssh"), "home")
            << NotPublished("web", "conflict", taken)
            << Published("ssh", ("ssh by port:20000",))
        )
        self.assertEqual(self.relay.registry.servers["web"].agent.agent_id, "office")
        self.assertEqual(self.relay.registry.servers["ssh"].agent.agent_id, "home")

    def test_S4_withdrawn(self) -> None:
        """
        When the account allows a server no more, the relay withdraws it.
        """
        self.up_to_s4()
        reason = "the account office may not publish web"
        (
            self.script
            >> self.relay_of(self.office).rights_changed(Rights(("mail",)))
            << RelaySays(Withdrawn(connection_id="web", code="not-allowed", reason=reason))
            << NotPublished("web", "not-allowed", reason)
        )


class ClientStepsTests(ProcedureTestCase):
    """
    S5 to S8: a client comes, and the agent is told.
    """

    def test_S5_says(self) -> None:
        """
        A client connects and says which server it wants, in as many pieces as
        it likes.
        """
        self.up_to_s4()
        client = self.client()
        (
            self.script
            >> client.connect()
            >> client.says(REQUEST[:21])
            >> client.says(REQUEST[21:-1])
            >> client.says(REQUEST[-1:])
            << self.notify()
            << DialsData()
            << DialsServer()
            << AgentSays(Accept(session=1))
            >> client.resets()
            << RelaySays(Cancel(session=1))
            << Drops()
            << Forgets()
        )

    def test_S5_by_its_port(self) -> None:
        """
        A client that comes to a port of the server's own has said enough by
        that.
        """
        self.office.state.servers = Servers([SSH])
        (
            self.up_to_s2()
            << AgentSays(Register(connection_id="ssh", reach=("port:20000",)))
            << OpensPort(20000)
            << RelaySays(Registered(connection_id="ssh", reach=("ssh by port:20000",)))
            << RelaySays(StandingRequest(connection_id="ssh"))
            << Published("ssh", ("ssh by port:20000",))
        )
        client = self.client(port=20000)
        (
            self.script
            >> client.connect()
            << RelaySays(
                Notify(
                    session=1,
                    connection_id="ssh",
                    ticket=ticket(1),
                    client=CLIENT,
                    arrived="port:20000",
                )
            )
            << DialsData()
            << DialsServer()
            << AgentSays(Accept(session=1))
            >> client.resets()
            << RelaySays(Cancel(session=1))
            << Drops()
            << Forgets()
        )

    def test_S5_asked(self) -> None:
        """
        A client whose request names no server is asked for one, in its own
        protocol.
        """
        self.up_to_s4()
        client, question = self.client(), Blank(bytes)
        (
            self.script
            >> client.connect()
            >> client.says(b"GET / HTTP/1.0\r\n\r\n")
            << Writes("to client", question)  # type: ignore[arg-type]
            << Finishes("to client")
        )
        self.assertEqual(question().partition(b" ")[0], b"HTTP/1.1")
        self.nothing_left()

    def test_S5_silent(self) -> None:
        """
        A client that says nothing is asked in text after a while, as if it
        were a person; it has another while to answer, and no more.
        """
        self.up_to_s4()
        client = self.client()
        (
            self.script
            >> client.connect()
            >> self.passes.advance(2.0)
            << Writes(
                "to client",
                b"This relay lists no servers; type the name of yours.\r\nwhich server? ",
            )
            >> self.passes.advance(59.9)
            >> self.passes.advance(0.1)
            << Writes("to client", b"\r\nrelaytunnel: timeout: no server was named in time\r\n")
            << Finishes("to client")
        )
        self.nothing_left()

    def test_S5_answers(self) -> None:
        """
        A client that was asked in text names its server in a line, which is
        the relay's own; what comes behind it is held for the server.
        """
        self.up_to_s4()
        client = self.client()
        (
            self.script
            >> client.connect()
            >> self.passes.advance(2.0)
            << Writes(
                "to client",
                b"This relay lists no servers; type the name of yours.\r\nwhich server? ",
            )
            >> client.says(b"web\r\nhello")
            << RelaySays(
                Notify(
                    session=1,
                    connection_id="web",
                    ticket=ticket(1),
                    client=CLIENT,
                    arrived="name:web",
                )
            )
            << DialsData()
            << DialsServer()
            << AgentSays(Accept(session=1))
        )
        self.assertEqual(self.channels[0].holding.held, b"hello")
        (self.script >> client.resets() << RelaySays(Cancel(session=1)) << Drops() << Forgets())
        self.nothing_left()

    def test_S6_held(self) -> None:
        """
        What a client says while it waits is held, up to a bound: then it has
        to wait with the rest.
        """
        client = self.up_to_s8()
        (
            self.script
            >> client.says(b"a" * 32)
            << Pauses("to client")
            >> client.says(b"b" * 1000)
            >> client.says(b"c")
        )
        channel = self.channels[0]
        self.assertEqual((channel.pauses, channel.resumes), (1, 0))
        self.assertEqual(len(channel.holding.held), len(REQUEST) + 32)
        (self.script >> client.resets() << RelaySays(Cancel(session=1)) << Drops() << Forgets())
        self.nothing_left()

    def test_S6_no_such_server(self) -> None:
        """
        A client of a server that does not exist is told so, in its own
        protocol, and no agent hears of it.
        """
        self.up_to_s4()
        client, answer = self.client(), Blank(bytes)
        (
            self.script
            >> client.connect()
            >> client.says(REQUEST.replace(b"web", b"mail"))
            << Writes("to client", answer)  # type: ignore[arg-type]
            << Finishes("to client")
        )
        self.assertIn(b"mail.relay.example", answer())
        self.assertEqual(self.relay.visits.refusals, {"no-such-server": 1})
        self.nothing_left()

    def test_S6_agent_away(self) -> None:
        """
        A client of a server whose agent is away is told that.
        """
        self.up_to_s4()
        client = self.client()
        (
            self.script
            >> self.agent.lose_channel()
            >> client.connect()
            >> client.says(REQUEST)
            << Writes("to client", Blank(bytes))  # type: ignore[arg-type]
            << Finishes("to client")
        )
        self.assertEqual(self.relay.visits.refusals, {"agent-away": 1})
        self.nothing_left()

    def test_S6_not_allowed(self) -> None:
        """
        A client from a network that the server is not open to is told so, and
        no agent hears of it.
        """
        self.office.state.servers = Servers(
            [
                ServerConfig(
                    id="web",
                    target="tcp:127.0.0.1:8080",
                    http="raw",
                    allow=networks(["192.0.2.0/24"]),
                )
            ]
        )
        client = self.client()
        (
            self.up_to_s2()
            << AgentSays(Register(connection_id="web", http="raw", allow=("192.0.2.0/24",)))
            << RelaySays(Registered(connection_id="web", reach=("web by name",)))
            << RelaySays(StandingRequest(connection_id="web"))
            << Published("web", ("web by name",))
            >> client.connect()
            >> client.says(REQUEST)
            << Writes("to client", Blank(bytes))  # type: ignore[arg-type]
            << Finishes("to client")
        )
        self.assertEqual(self.relay.visits.refusals, {"not-allowed": 1})
        self.nothing_left()

    def test_S7_notified(self) -> None:
        """
        The agent is notified of the client: for which server, from where, how
        it came, where to dial back, with which ticket, and until when.
        """
        self.up_to_s4()
        client = self.client()
        (
            self.script
            >> client.connect()
            >> client.says(REQUEST)
            << RelaySays(
                Notify(
                    session=1,
                    connection_id="web",
                    ticket=ticket(1),
                    client="203.0.113.9:50000",
                    arrived="host:web.relay.example",
                    endpoint="same",
                    deadline=10.0,
                )
            )
            << DialsData()
            << DialsServer()
            << AgentSays(Accept(session=1))
            >> client.resets()
            << RelaySays(Cancel(session=1))
            << Drops()
            << Forgets()
        )

    def test_S7_cancelled(self) -> None:
        """
        When the client goes before it is served, the agent is told, and lets
        go of what it has dialled.
        """
        client = self.up_to_s8()
        (
            self.script
            >> self.agent.server_stands()
            >> client.resets()
            << RelaySays(Cancel(session=1))
            << Drops()
            << Resets("to server")
            << Forgets()
        )
        self.nothing_left()

    def test_S7_agent_lost(self) -> None:
        """
        When the control channel is lost, a client whose session was accepted
        is served nevertheless.
        """
        client = self.up_to_s8()
        (
            self.script
            >> self.agent.server_stands()
            >> self.agent.lose_channel()
            >> self.agent.data_stands()
            << Presents(ticket(1))
            << Joins("to server", "to relay")
            << Joins("to client", "to agent")
            << Writes("to agent", REQUEST)
            << Writes("to server", REQUEST)
            >> client.resets()
            << Resets("to agent")
            << Resets("to server")
            << Reports("second reset")
            << Forgets()
        )
        self.nothing_left()

    def test_S7_superseded(self) -> None:
        """
        A client whose session the ghost has accepted goes on waiting for it
        when the agent comes back, as long as its ticket is good.
        """
        told = Blank(bytes)
        self.up_to_s8()
        superseded = "the agent is back, from 198.51.100.7:40001"
        (
            self.script
            >> self.agent.lose_channel_unnoticed()
            >> self.agent.dial("again", 40001)
            << AgentSays(self.hello(), "again")
            << Asks("office", "s3cret")
            >> self.relay_of(self.office).known(RIGHTS)
            << RelaySays(Goodbye(code="superseded", reason=superseded))
            << HangsUp(f"superseded: {superseded}")
            << LetsIn(15.0, "again")
            << RelaySays(WELCOME, "again")
            << IsIn("relay.example", 15.0, "again")
            << AgentSays(Register(connection_id="web", http="raw"), "again")
            << RelaySays(Registered(connection_id="web", reach=("web by name",)), "again")
            << RelaySays(StandingRequest(connection_id="web"), "again")
            << Published("web", ("web by name",))
            >> self.passes.advance(10.0)
            << Writes("to client", told)  # type: ignore[arg-type]
            << Finishes("to client")
            << Drops()
            << AgentSays(
                Refuse(
                    session=1,
                    code="timeout",
                    reason="the agent had no channels ready within 10 s",
                ),
                "again",
            )
            << Forgets()
        )
        self.assertIn(b"timeout", told())
        self.nothing_left()

    def test_S8_accepted(self) -> None:
        """
        The agent sees that the connection ID is one that it registered, says
        that it is on its way, and dials on both sides.
        """
        self.up_to_s4()
        client = self.client()
        (
            self.script
            >> client.connect()
            >> client.says(REQUEST)
            << self.notify()
            << DialsData()
            << DialsServer()
            << AgentSays(Accept(session=1, channel=0))
        )
        self.assertEqual(list(self.office.state.visits), [1])
        (self.script >> client.resets() << RelaySays(Cancel(session=1)) << Drops() << Forgets())

    def test_S8_refused(self) -> None:
        """
        A connection ID that the agent has not registered, or has no more, is
        refused with the reason, which the client learns.
        """
        self.up_to_s4()
        client, told = self.client(), Blank(bytes)
        (
            self.script
            >> self.agent.forget_server("web")
            >> client.connect()
            >> client.says(REQUEST)
            << self.notify()
            << AgentSays(
                Refuse(session=1, code="unknown-id", reason="this agent has not registered web")
            )
            << Writes("to client", told)  # type: ignore[arg-type]
            << Finishes("to client")
        )
        self.assertIn(b"unknown-id", told())
        self.nothing_left()

    def test_S8_meddling(self) -> None:
        """
        An agent that answers for another's client breaks the protocol: it is
        told so and hung up on, and the client waits on.
        """
        client = self.up_to_s8()
        home = Agent(self, "home", 1, [])
        self.up_to_s2(home)
        fault = "session 1 is not this agent's"
        (
            self.script
            >> Cues("home", home.door).send(Accept(session=1))
            << AgentSays(Accept(session=1), "home")
            << RelaySays(Goodbye(code="protocol-error", reason=fault), "home")
            << HangsUp(f"protocol error: {fault}", "home")
            << HangsUp("the relay said protocol-error", "home")
        )
        self.assertEqual(list(self.relay.registry.agents), ["office"])
        (self.script >> client.resets() << RelaySays(Cancel(session=1)) << Drops() << Forgets())


class ChannelStepsTests(ProcedureTestCase):
    """
    S9 to S13: the channels stand and are joined.
    """

    def reset_by(self, client: Cues) -> None:
        """
        End a session that is joined, roughly.
        """
        (
            self.script
            >> client.resets()
            << Resets("to agent")
            << Resets("to server")
            << Reports("second reset")
            << Forgets()
        )
        self.nothing_left()

    def test_S9_server_channel(self) -> None:
        """
        The agent opens the server channel; without a data channel nothing is
        presented and nothing is said to the server.
        """
        client = self.up_to_s8()
        self.script >> self.agent.server_stands()
        self.assertEqual(self.open_channels(), ["to client", "to server"])
        self.assertEqual(self.channels[1].taken, b"")
        (
            self.script
            >> client.resets()
            << RelaySays(Cancel(session=1))
            << Drops()
            << Resets("to server")
            << Forgets()
        )

    def test_S9_dead_target(self) -> None:
        """
        A target that is dead becomes a refusal with the true reason, though
        the data channel stands; the client is told in its own protocol.
        """
        self.up_to_s8()
        told = Blank(bytes)
        (
            self.script
            >> self.agent.data_stands()
            >> self.agent.server_fails(REFUSED)
            << Drops()
            << Resets("to relay")
            << AgentSays(
                Refuse(
                    session=1,
                    code="refused-by-target",
                    reason="the target refused the connection",
                )
            )
            << Forgets()
            << Writes("to client", told)  # type: ignore[arg-type]
            << Finishes("to client")
        )
        self.assertIn(b"refused-by-target", told())
        self.assertIn(b"the target refused the connection", told())
        # Nobody was there yet to let go of the relay's end: it was never joined.
        self.assertEqual(self.channels[-1].over, "lost")
        self.nothing_left()

    def test_S9_slow_target(self) -> None:
        """
        A target that does not answer is given up in time, on both sides.
        """
        self.up_to_s8()
        silent = Blank(bytes)
        (
            self.script
            >> self.agent.data_stands()
            >> self.passes.advance(10.0)
            << RelaySays(Cancel(session=1))
            << Writes("to client", silent)  # type: ignore[arg-type]
            << Finishes("to client")
            << Drops()
            << Resets("to relay")
            << AgentSays(
                Refuse(
                    session=1,
                    code="timeout",
                    reason="the agent had no channels ready within 10 s",
                )
            )
            << Forgets()
        )
        self.assertIn(b"the agent opened no data channel for 10 s", silent())
        self.nothing_left()

    def test_S10_data_channel(self) -> None:
        """
        The agent opens a data channel from a port that exists for this
        session only, presents the ticket, and joins it with the server
        channel; only now, as the server channel stood first.
        """
        client = self.up_to_s8()
        (
            self.script
            >> self.agent.server_stands()
            >> self.agent.data_stands()
            << Presents(ticket(1))
            << Joins("to server", "to relay")
            << Joins("to client", "to agent")
            << Writes("to agent", REQUEST)
            << Writes("to server", REQUEST)
        )
        self.assertEqual(self.channels[-1].peer, "198.51.100.7:40101")
        self.reset_by(client)

    def test_S10_server_last(self) -> None:
        """
        A data channel that stands first waits for the server channel.
        """
        client = self.up_to_s8()
        (
            self.script
            >> self.agent.data_stands()
            >> self.agent.server_stands()
            << Presents(ticket(1))
            << Joins("to server", "to relay")
            << Joins("to client", "to agent")
            << Writes("to agent", REQUEST)
            << Writes("to server", REQUEST)
        )
        self.reset_by(client)

    def test_S11_held_bytes(self) -> None:
        """
        The relay joins client and data channel: the bytes that it held flow
        to the agent, the client may go on, and what it had to keep follows.
        """
        client = self.up_to_s8()
        (
            self.script
            >> client.says(b"a" * 32)
            << Pauses("to client")
            >> client.says(b"the rest")
            >> self.agent.data_stands()
            >> self.agent.server_stands()
            << Presents(ticket(1))
            << Joins("to server", "to relay")
            << Joins("to client", "to agent")
            << Resumes("to client")
            << Writes("to agent", REQUEST + b"a" * 32)
            << Writes("to agent", b"the rest")
            << Writes("to server", REQUEST + b"a" * 32)
            << Writes("to server", b"the rest")
        )
        channel = self.channels[0]
        self.assertEqual((channel.pauses, channel.resumes), (1, 1))
        self.reset_by(client)

    def test_S11_held_end(self) -> None:
        """
        A client that has ended its direction while it waited is served, and
        its end is passed on behind its bytes.
        """
        client = self.up_to_s8()
        (
            self.script
            >> client.ends()
            >> self.agent.server_stands()
            >> self.agent.data_stands()
            << Presents(ticket(1))
            << Joins("to server", "to relay")
            << Joins("to client", "to agent")
            << Writes("to agent", REQUEST)
            << Ends("to agent")
            << Writes("to server", REQUEST)
            << Ends("to server")
            >> self.server.says(b"the answer")
            << Writes("to relay", b"the answer")
            << Writes("to client", b"the answer")
            >> self.server.ends()
            << Ends("to relay")
            << Closes("to server")
            << Closes("to relay")
            << Reports("clean")
            << Forgets()
            << Ends("to client")
            << Closes("to client")
            << Closes("to agent")
        )
        self.nothing_left()

    def test_S11_late_ticket(self) -> None:
        """
        A client may go while its ticket is on the way: it joins nothing then,
        the data channel is reset, and the agent lets go of the server.
        """
        self.up_to_s8()

        def leave() -> None:
            self.channels[0].resets()
            self.office.data_stands()

        (
            self.script
            >> self.agent.server_stands()
            >> Cue("the client leaves as the data channel stands", leave)
            << RelaySays(Cancel(session=1))
            << Presents(ticket(1))
            << Joins("to server", "to relay")
            << Resets("to agent")
            << Resets("to server")
            << Reports("second reset")
            << Forgets()
        )
        self.nothing_left()

    def test_S12_to_the_server(self) -> None:
        """
        The agent passes the client's bytes to the server, as they are.
        """
        client = self.up_to_s12()
        server = self.office.visits[1].server
        assert server is not None
        (
            self.script
            >> client.says(b"\x00\xff more")
            << Writes("to agent", b"\x00\xff more")
            << Writes("to server", b"\x00\xff more")
        )
        self.assertEqual(server.taken, REQUEST + b"\x00\xff more")
        self.reset_by(client)

    def test_S13_both_ways(self) -> None:
        """
        Client and server say what they like, when they like.
        """
        client = self.up_to_s12()
        (
            self.script
            >> self.server.says(b"who are you?")
            << Writes("to relay", b"who are you?")
            << Writes("to client", b"who are you?")
            >> client.says(b"it is me")
            << Writes("to agent", b"it is me")
            << Writes("to server", b"it is me")
            >> self.server.says(b"welcome")
            << Writes("to relay", b"welcome")
            << Writes("to client", b"welcome")
        )
        ((_, _, splice),) = self.clients.splices.values()
        self.assertEqual((splice.forward, splice.backward), (len(REQUEST) + 8, 19))
        self.reset_by(client)

    def test_S13_slow_client(self) -> None:
        """
        While the client does not read, the server has to wait: each channel
        on the way is paused once, resumed once, and nothing is lost.
        """
        client = self.up_to_s12()
        (
            self.script
            >> client.stops_reading()
            >> self.server.says(b"first")
            << Writes("to relay", b"first")
            << Writes("to client", b"first")
            << Pauses("to agent")
            >> self.server.says(b"second")
            << Writes("to relay", b"second")
            << Pauses("to server")
            >> self.server.says(b"third")
            >> client.reads_again()
            << Resumes("to agent")
            << Resumes("to server")
            << Writes("to client", b"second")
            << Writes("to relay", b"third")
            << Writes("to client", b"third")
        )
        by_name = {channel.name: channel for channel in self.channels}
        counts = {name: (one.pauses, one.resumes) for name, one in by_name.items()}
        self.assertEqual(
            counts,
            {"to client": (0, 0), "to agent": (1, 1), "to relay": (0, 0), "to server": (1, 1)},
        )
        self.assertEqual(by_name["to client"].taken, b"firstsecondthird")
        self.reset_by(client)

    def test_S13_slow_server(self) -> None:
        """
        While the server does not read, the client has to wait, and what the
        server says goes on.
        """
        client = self.up_to_s12()
        (
            self.script
            >> self.server.stops_reading()
            >> client.says(b"first")
            << Writes("to agent", b"first")
            << Writes("to server", b"first")
            << Pauses("to relay")
            >> client.says(b"second")
            << Writes("to agent", b"second")
            << Pauses("to client")
            >> client.says(b"third")
            >> self.server.says(b"patience")
            << Writes("to relay", b"patience")
            << Writes("to client", b"patience")
            >> self.server.reads_again()
            << Resumes("to relay")
            << Resumes("to client")
            << Writes("to server", b"second")
            << Writes("to agent", b"third")
            << Writes("to server", b"third")
        )
        self.assertFalse(any(channel.paused for channel in self.channels))
        self.reset_by(client)

    def test_S13_outlives_the_control_channel(self) -> None:
        """
        A session goes on when the control channel is lost, and when the agent
        comes back.
        """
        client = self.up_to_s12()
        self.script >> self.agent.lose_channel()
        self.up_to_s4()
        (
            self.script
            >> client.says(b"still here")
            << Writes("to agent", b"still here")
            << Writes("to server", b"still here")
        )
        self.reset_by(client)

    def test_S13_idle(self) -> None:
        """
        A session in which nothing moves for an hour, seen at the next look,
        is ended by both sides.
        """
        self.up_to_s12()
        for _ in range(4):
            self.script >> self.passes.advance(900.0)
        (
            self.script
            >> self.passes.advance(900.0)
            << Resets("to server")
            << Resets("to relay")
            << Reports("idle")
            << Forgets()
            << Resets("to client")
            << Resets("to agent")
        )
        self.nothing_left()


class ServerClosesTests(ProcedureTestCase):
    """
    S14 to S17: a close from the server.
    """

    def setUp(self) -> None:
        super().setUp()
        self.visitor = self.up_to_s12()

    def up_to_s17(self) -> None:
        """
        The server has closed.
        """
        (
            self.script
            >> self.visitor.says(b"QUIT\r\n")
            << Writes("to agent", b"QUIT\r\n")
            << Writes("to server", b"QUIT\r\n")
            >> self.server.says(b"BYE\r\n")
            << Writes("to relay", b"BYE\r\n")
            << Writes("to client", b"BYE\r\n")
            >> self.server.ends()
            << Ends("to relay")
            << Ends("to client")
        )

    def client_goes(self) -> None:
        """
        The client closes its side too, and all is over.
        """
        (
            self.script
            >> self.visitor.ends()
            << Ends("to agent")
            << Closes("to client")
            << Closes("to agent")
            << Ends("to server")
            << Closes("to server")
            << Closes("to relay")
            << Reports("clean")
            << Forgets()
        )
        self.nothing_left()

    def test_S14_client_asks(self) -> None:
        """
        The client asks the server to close; to relay and agent that is bytes
        like any others.
        """
        (
            self.script
            >> self.visitor.says(b"QUIT\r\n")
            << Writes("to agent", b"QUIT\r\n")
            << Writes("to server", b"QUIT\r\n")
            >> self.server.ends()
            << Ends("to relay")
            << Ends("to client")
        )
        self.client_goes()

    def test_S15_server_closes(self) -> None:
        """
        The server closes behind its last words, and none of them is lost.
        """
        self.up_to_s17()
        self.assertEqual(self.channels[0].taken, b"BYE\r\n")
        self.client_goes()

    def test_S16_agent_closes_data_channel(self) -> None:
        """
        The agent sees that and closes the data channel, behind the last bytes.
        """
        (
            self.script
            >> self.server.says(b"BYE\r\n")
            << Writes("to relay", b"BYE\r\n")
            << Writes("to client", b"BYE\r\n")
            >> self.server.ends()
            << Ends("to relay")
            << Ends("to client")
        )
        data = self.office.visits[1].data
        assert data is not None
        self.assertEqual((data.taken, data.ended), (b"BYE\r\n", True))
        self.client_goes()

    def test_S17_relay_closes_client_channel(self) -> None:
        """
        The relay sees that and closes the client channel; when the client has
        closed its side too, nothing is left anywhere.
        """
        self.up_to_s17()
        self.assertTrue(self.channels[0].ended)
        self.client_goes()

    def test_S17_last_words_of_the_client(self) -> None:
        """
        What the client has still to say reaches the server after its close.
        """
        self.up_to_s17()
        (
            self.script
            >> self.visitor.says(b"thanks")
            << Writes("to agent", b"thanks")
            << Writes("to server", b"thanks")
        )
        self.client_goes()

    def test_S14_after_long_thought(self) -> None:
        """
        A client that has said all, its end included, gets an answer that takes
        half an hour.
        """
        (
            self.script
            >> self.visitor.says(b"SUM\r\n")
            << Writes("to agent", b"SUM\r\n")
            << Writes("to server", b"SUM\r\n")
            >> self.visitor.ends()
            << Ends("to agent")
            << Ends("to server")
            >> self.passes.advance(900.0)
            >> self.passes.advance(900.0)
            >> self.server.says(b"42\r\n")
            << Writes("to relay", b"42\r\n")
            << Writes("to client", b"42\r\n")
            >> self.server.ends()
            << Ends("to relay")
            << Closes("to server")
            << Closes("to relay")
            << Reports("clean")
            << Forgets()
            << Ends("to client")
            << Closes("to client")
            << Closes("to agent")
        )
        self.nothing_left()

    def test_S17_client_stays(self) -> None:
        """
        A client that does not close its side is given an hour, and then cut
        off at the next look.
        """
        self.up_to_s17()
        for _ in range(4):
            self.script >> self.passes.advance(900.0)
        (
            self.script
            >> self.passes.advance(900.0)
            << Resets("to server")
            << Resets("to relay")
            << Reports("half-closed idle")
            << Forgets()
            << Resets("to client")
            << Resets("to agent")
        )
        self.nothing_left()

    def test_S15_server_resets(self) -> None:
        """
        A server that aborts is seen as that by the client, never as a clean
        end.
        """
        (
            self.script
            >> self.server.resets()
            << Resets("to relay")
            << Reports("first reset")
            << Forgets()
            << Resets("to client")
        )
        self.nothing_left()

    def test_S16_data_channel_is_cut(self) -> None:
        """
        A data channel that is cut without an end is an abort on both sides.
        """
        data = self.office.visits[1].data
        assert data is not None
        (
            self.script
            >> Cues("data channel", data).resets(Lost.TRUNCATED)
            << Resets("to server")
            << Reports("second truncated")
            << Forgets()
            >> Cues("data channel", self.channels[-1]).resets(Lost.TRUNCATED)
            << Resets("to client")
        )
        self.nothing_left()


class ClientClosesTests(ProcedureTestCase):
    """
    S18 to S20: a close from the client.
    """

    def setUp(self) -> None:
        super().setUp()
        self.visitor = self.up_to_s12()

    def server_goes(self) -> None:
        """
        The server closes its side too, and all is over.
        """
        (
            self.script
            >> self.server.ends()
            << Ends("to relay")
            << Closes("to server")
            << Closes("to relay")
            << Reports("clean")
            << Forgets()
            << Ends("to client")
            << Closes("to client")
            << Closes("to agent")
        )
        self.nothing_left()

    def test_S18_client_closes(self) -> None:
        """
        The client closes its direction, and the other one goes on: a request
        may be ended and its answer still be long.
        """
        (
            self.script
            >> self.visitor.ends()
            << Ends("to agent")
            << Ends("to server")
            >> self.server.says(b"a long answer")
            << Writes("to relay", b"a long answer")
            << Writes("to client", b"a long answer")
        )
        self.server_goes()

    def test_S19_relay_closes_data_channel(self) -> None:
        """
        The relay closes the data channel, behind the client's last bytes.
        """
        far = self.channels[-1]
        (
            self.script
            >> self.visitor.says(b"bye")
            << Writes("to agent", b"bye")
            << Writes("to server", b"bye")
            >> self.visitor.ends()
            << Ends("to agent")
            << Ends("to server")
        )
        self.assertEqual((far.taken, far.ended), (REQUEST + b"bye", True))
        self.server_goes()

    def test_S20_agent_closes_server_channel(self) -> None:
        """
        The agent closes the server channel; when the server has closed its
        side too, nothing is left anywhere.
        """
        server = self.office.visits[1].server
        assert server is not None
        (self.script >> self.visitor.ends() << Ends("to agent") << Ends("to server"))
        self.assertEqual((server.taken, server.ended), (REQUEST, True))
        self.server_goes()
        self.assertEqual([one.over for one in self.channels], ["close"] * 4)

    def test_S18_client_resets(self) -> None:
        """
        A client that aborts is seen as that by the server.
        """
        (
            self.script
            >> self.visitor.resets()
            << Resets("to agent")
            << Resets("to server")
            << Reports("second reset")
            << Forgets()
        )
        self.nothing_left()

    def test_S20_behind_what_is_stuck(self) -> None:
        """
        The end does not overtake bytes that the server has not taken yet.
        """
        server = self.office.visits[1].server
        assert server is not None
        (
            self.script
            >> self.server.stops_reading()
            >> self.visitor.says(b"bye")
            << Writes("to agent", b"bye")
            << Writes("to server", b"bye")
            << Pauses("to relay")
            >> self.visitor.ends()
            << Ends("to agent")
        )
        self.assertEqual((server.taken, server.waiting), (REQUEST, 3))
        (self.script >> self.server.reads_again() << Resumes("to relay") << Ends("to server"))
        self.assertEqual(server.taken, REQUEST + b"bye")
        self.server_goes()


class ManyTests(ProcedureTestCase):
    """
    Several clients at once, and the end of an agent.
    """

    def test_two_clients(self) -> None:
        """
        Each client has its own channels, whichever stand first.
        """
        client = self.up_to_s8()
        other = self.client("203.0.113.10:50001")
        (
            self.script
            >> other.connect()
            >> other.says(REQUEST)
            << self.notify(2, "203.0.113.10:50001")
            << DialsData()
            << DialsServer()
            << AgentSays(Accept(session=2))
            >> self.agent.server_stands(2)
            >> self.agent.server_stands(1)
            >> self.agent.data_stands(2)
            << Presents(ticket(2))
            << Joins("to server", "to relay")
            << Joins("to client", "to agent")
            << Writes("to agent", REQUEST)
            << Writes("to server", REQUEST)
            >> self.agent.data_stands(1)
            << Presents(ticket(1))
            << Joins("to server", "to relay")
            << Joins("to client", "to agent")
            << Writes("to agent", REQUEST)
            << Writes("to server", REQUEST)
            >> other.says(b"from the other")
            << Writes("to agent", b"from the other")
            << Writes("to server", b"from the other")
        )
        second = self.office.visits[2].server
        assert second is not None
        self.assertEqual(second.taken, REQUEST + b"from the other")
        for one in (client, other):
            (
                self.script
                >> one.resets()
                << Resets("to agent")
                << Resets("to server")
                << Reports("second reset")
                << Forgets()
            )
        self.nothing_left()

    def test_agent_stops(self) -> None:
        """
        An agent that stops says goodbye; its servers are away at once.
        """
        self.up_to_s4()
        (
            self.script
            >> self.agent.stop()
            << AgentSays(Goodbye(code="shutdown", reason="the agent stops"))
            << HangsUp("the agent stops")
            << HangsUp("the agent said shutdown")
        )
        self.assertEqual(self.relay.registry.servers, {})
        self.assertIs(
            self.relay.registry.missing("host", "web.relay.example").code, Code.AGENT_AWAY
        )

    def test_relay_stops(self) -> None:
        """
        A relay that stops says goodbye to its agents, which come back soon.
        """
        self.up_to_s4()
        (
            self.script
            >> self.relay_of(self.office).dismiss(Code.SHUTDOWN, "the relay stops")
            << RelaySays(Goodbye(code="shutdown", reason="the relay stops"))
            << HangsUp("shutdown: the relay stops")
            << HangsUp("the relay said shutdown")
        )
        self.assertEqual(self.office.state.backoff.delay(), 0.5)


class FakesTests(ProcedureTestCase):
    """
    The fakes themselves.
    """

    def test_channel(self) -> None:
        """
        The fake channel offers all that a channel has.
        """
        self.assertTrue(verifyObject(IChannel, FakeChannel()))

    def test_script_compares(self) -> None:
        """
        A script that says something else than what was done fails, and shows
        both.
        """
        script = Script(ScriptedTestCase())
        script.record(Ends("to client"))
        fault = self.assertRaises(self.failureException, script.__lshift__, Ends("to server"))
        self.assertIn("-     channel = 'to server'", str(fault))
        self.assertIn("+     channel = 'to client'", str(fault))

    def test_script_misses_nothing(self) -> None:
        """
        A script that goes on before everything that was done is read fails.
        """
        script = Script(ScriptedTestCase())
        script.record(Ends("to client"))
        fault = self.assertRaises(
            self.failureException, script.__rshift__, self.passes.advance(1.0)
        )
        self.assertIn("more was done than the script says, before >> time.advance", str(fault))
        self.assertEqual(self.clock.seconds(), 0.0)

    def test_script_ends(self) -> None:
        """
        So does one that ends too early.
        """

        class TooEarly(ScriptedTestCase):
            def test(self) -> None:
                self.script.record(Ends("to client"))

        result = TestResult()
        TooEarly("test").run(result)
        ((_, fault),) = result.errors
        self.assertIn("more was done than the script says, at the end", str(fault))

    def test_script_expects_too_much(self) -> None:
        """
        So does one that says what was not done.
        """
        script = Script(ScriptedTestCase())
        fault = self.assertRaises(self.failureException, script.__lshift__, Ends("to server"))
        self.assertIn("- << Ends", str(fault))

    def test_blank(self) -> None:
        """
        A blank takes what first stands in its place, if it is of its kind,
        and nothing else from then on.
        """
        blank = Blank(bytes)
        self.assertNotEqual(Writes("to client", blank), Writes("to client", "text"))  # type: ignore[arg-type]
        self.assertEqual(Writes("to client", blank), Writes("to client", b"one"))  # type: ignore[arg-type]
        self.assertEqual(blank(), b"one")
        self.assertNotEqual(Writes("to client", blank), Writes("to client", b"two"))  # type: ignore[arg-type]

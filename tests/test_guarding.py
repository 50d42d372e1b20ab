"""
Faults of our own in the midst of a session: it ends alone.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.agent.service import AgentService
from relaytunnel.agent.visit import VisitDoors, new_visit
from relaytunnel.agent.visits import ServedClient
from relaytunnel.deadlines import Deadlines
from relaytunnel.guarding import attempt_all, guarded
from relaytunnel.relay.client import ClientVisit
from relaytunnel.relay.service import RelayService
from relaytunnel.splice.choice import PumpEngine
from relaytunnel.splice.framing import FramingFlow
from relaytunnel.splice.plain import PlainEnd, PlainFlow
from relaytunnel.splice.unframing import UnframingFlow
from relaytunnel.wire.messages import Notify
from tests.running import RunningCase, echo, eventually, request, sockets
from tests.script import ticket


class OwnFaultError(Exception):
    """
    What is injected.
    """


class _Machine:
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def goes(self, what: str) -> None:
        self.heard.append(what)

    def fails(self) -> None:
        raise OwnFaultError


class GuardedTests(SynchronousTestCase):
    """
    A machine that is guarded.
    """

    def test_inputs(self) -> None:
        """
        Inputs go through; the first that raises is the last.
        """
        machine, failures = _Machine(), []
        one = guarded(_Machine, machine, lambda: failures.append("failed"))
        one.goes("one")
        one.fails()
        one.goes("two")
        one.fails()
        self.assertEqual(machine.heard, ["one"])
        self.assertEqual(failures, ["failed"])

    def test_attempt_all(self) -> None:
        """
        A step that raises keeps no other from being taken.
        """
        machine = _Machine()
        attempt_all([machine.fails, lambda: machine.goes("on"), machine.fails])
        self.assertEqual(machine.heard, ["on"])
        self.assertEqual(len(self.flushLoggedErrors(OwnFaultError)), 2)


NOTIFY = Notify(
    session=7, connection_id="web", ticket=ticket(7), client="203.0.113.9:50000", arrived="name"
)
DOORS = sorted(
    name for name, value in vars(VisitDoors).items() if callable(value) and name[0] != "_"
)


class AgentMachineTests(SynchronousTestCase):
    """
    The machine of a visit at the agent, with doors that raise.
    """

    def check(self, name: str, path: Callable[[Any, Clock], None]) -> None:
        clock = Clock()
        failed: list[str] = []

        doors: Any = SimpleNamespace(**{each: lambda *arguments: None for each in DOORS})
        doors.fail = lambda: failed.append(name)
        called: list[str] = []

        def raises(*arguments: Any) -> None:
            called.append(name)
            raise OwnFaultError

        setattr(doors, name, raises)
        path(new_visit(doors, Deadlines(clock), NOTIFY), clock)
        self.assertEqual(failed, called[:1], name)
        self.assertEqual(len(called), len(failed), name)
        self.assertEqual(clock.getDelayedCalls(), [], name)
        self.assertEqual(len(self.flushLoggedErrors(OwnFaultError)), len(called))
        self.seen.update(called)

    def test_every_door(self) -> None:
        """
        Whichever raises, and whenever: all is let go of, once, and no timer stays.
        """

        def served(visit: Any, clock: Clock) -> None:
            for cue in (visit.begin, visit.server_up, visit.data_up, visit.over):
                cue()

        def late(visit: Any, clock: Clock) -> None:
            visit.begin()
            clock.advance(NOTIFY.deadline)

        def cancelled(visit: Any, clock: Clock) -> None:
            visit.begin()
            visit.cancelled()

        def again(visit: Any, clock: Clock) -> None:
            for cue in (visit.begin, visit.server_up, visit.data_up, visit.unheard):
                cue()
            visit.cancelled()

        self.seen: set[str] = set()
        for path in (served, late, cancelled, again):
            for name in DOORS:
                if name != "fail":
                    self.check(name, path)
        self.assertEqual(self.seen, set(DOORS) - {"fail"})


AT_AGENT = [
    (ServedClient, name)
    for name in (
        "accept",
        "dial_server",
        "dial_data",
        "splice",
        "_server_connected",
        "_data_connected",
        "_hold_data",
        "_over",
    )
]
AT_RELAY = [(ClientVisit, name) for name in ("splice", "_join", "_over", "_local_address")]
BETWEEN = [
    (PumpEngine, "_join"),
    (PumpEngine, "_join_framed"),
    (PlainEnd, "begin"),
    (PlainEnd, "half_close"),
    (FramingFlow, "run"),
    (FramingFlow, "begin"),
    (UnframingFlow, "run"),
    (UnframingFlow, "take"),
    (UnframingFlow, "pass_end"),
    (PlainFlow, "run"),
]


class SessionTests(RunningCase):
    """
    A relay and an agent in which one method of one session raises.
    """

    async def check(self, owner: type, name: str, plain: bool = False) -> bool:
        """
        @return: whether the method was called at all.
        """
        relay = self.start_relay()
        target = self.target(echo)
        port = relay.config.ports.first
        agent = await self.start_agent(
            relay,
            self.server("web", target.address, proxy="v2"),
            self.server("raw", target.address, f"port:{port}", data="plain"),
        )
        other = await self.client(relay, request("web"))
        await other.hears(b"GET")
        control = agent.control
        before = sockets()
        called: list[str] = []
        method = getattr(owner, name)

        def raises(*arguments: Any, **named: Any) -> Any:
            if called:
                return method(*arguments, **named)
            called.append(name)
            raise OwnFaultError

        self.patch(owner, name, raises)
        client = await (self.dial(port) if plain else self.client(relay, request("web")))
        if plain:
            client.say(b"GET")
        if name in ("_over", "half_close", "pass_end"):
            await client.hears(b"GET")
            if name == "_over":
                client.reset()
            else:
                client.end()
        what = f"{owner.__name__}.{name}"
        if not await self.is_called(called):
            self.patch(owner, name, method)
            client.close()
        else:
            await eventually(lambda: client.ended or client.lost, f"{what}: the client is told", 3)
            client.close()
        await eventually(lambda: self.left(relay, agent) == (1,) * 5, f"{what}: all is let go of")
        await eventually(lambda: sockets() <= before, f"{what}: no descriptor is left")
        self.assertEqual(len(self.flushLoggedErrors(OwnFaultError)), len(called), what)
        other.say(b" goes on")
        await other.hears(b" goes on")
        self.assertIs(agent.control, control)
        self.patch(owner, name, method)
        other.reset()
        await eventually(lambda: self.left(relay, agent) == (0,) * 5, f"{what}: nor of the other")
        await self.stop(agent)
        await self.stop(relay)
        return bool(called)

    async def is_called(self, called: list[str]) -> bool:
        try:
            await eventually(lambda: called, "the call", 0.5)
        except self.failureException:
            return False
        return True

    def left(self, relay: RelayService, agent: AgentService) -> tuple[int, ...]:
        room = relay.clients.visits.room
        return (
            len(relay.clients.visits.sessions),
            len(relay.clients.splices),
            room.waiting + room.served,
            len(agent.state.visits),
            len(agent.splices),
        )

    async def check_all(self, *methods: tuple[type, str], plain: bool = False) -> None:
        missed = [
            f"{owner.__name__}.{name}"
            for owner, name in methods
            if not await self.check(owner, name, plain)
        ]
        self.assertEqual(missed, [])

    async def test_at_the_agent(self) -> None:
        """
        Whatever the agent does for a session.
        """
        await self.check_all(*AT_AGENT)

    async def test_at_the_relay(self) -> None:
        """
        Whatever the relay does for one.
        """
        await self.check_all(*AT_RELAY)

    async def test_in_between(self) -> None:
        """
        And whatever moves its bytes.
        """
        await self.check_all(*(each for each in BETWEEN if each[0] is not PlainFlow))

    async def test_plain(self) -> None:
        """
        Without TLS, too.
        """
        await self.check_all(
            (ServedClient, "_plain_connected"),
            (ServedClient, "_connect"),
            (PlainFlow, "run"),
            (PlainEnd, "begin"),
            plain=True,
        )

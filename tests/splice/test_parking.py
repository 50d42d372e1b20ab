"""
The life of a data channel that carries one session after the other.

Whatever becomes of a session, and wherever what it says is cut: the next one
gets exactly its own bytes, at once.
"""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.splice.choice import PumpEngine
from relaytunnel.splice.paired import PairedEngine
from tests.splice.stage import Far, Session, Stages

EXAMPLES = 40
"""How many lives are lived: enough to find each fault that was ever made here, by and by."""

SECONDS = 0.5
"""How long the next session may take, by the clocks of relay and agent."""


def check_next(stages: Stages) -> Session:
    """
    One more session is served, whatever those before do.
    """
    session = stages.begin()
    client, server = session.client, session.server
    question, answer = session.said("client", 3000), session.said("server", 5000)
    client.send(question)
    stages.settle(client, server, seconds=SECONDS)
    assert session.joined, f"session {session.number} was not joined"
    assert bytes(server.heard) == question, bytes(server.heard[:60])
    server.send(answer)
    server.end()
    stages.settle(client, server, seconds=SECONDS)
    client.end()
    stages.settle(client, server, seconds=SECONDS)
    assert bytes(client.heard) == answer, bytes(client.heard[:60])
    assert client.ended and server.ended
    assert not (client.was_reset or server.was_reset)
    return session


class ParkingModel(RuleBasedStateMachine):
    """
    Clients and servers that do what they like, in any order.
    """

    engine: ClassVar[Any] = PumpEngine
    agents: ClassVar[Any] = None

    @initialize()
    def start(self) -> None:
        self.stages = Stages(self.engine, self.agents)
        self.began = 0
        self.reset_by_us: set[int] = set()
        self.session = self.stages.begin()
        self.stages.settle()

    def pick(self, before: bool) -> Session:
        sessions = self.stages.sessions
        return sessions[-2] if before and len(sessions) > 1 else sessions[-1]

    @rule(size=st.sampled_from([1, 700, 16381, 40000, 200000]), before=st.booleans())
    def client_says(self, size: int, before: bool) -> None:
        session = self.pick(before)
        session.client.send(session.said("client", size))

    @rule(size=st.sampled_from([1, 700, 16381, 40000, 200000]), before=st.booleans())
    def server_says(self, size: int, before: bool) -> None:
        session = self.pick(before)
        session.server.send(session.said("server", size))

    @rule(before=st.booleans(), server=st.booleans())
    def ends(self, before: bool, server: bool) -> None:
        session = self.pick(before)
        (session.server if server else session.client).end()

    @rule(before=st.booleans(), server=st.booleans(), how=st.sampled_from(["reset", "close"]))
    def leaves(self, before: bool, server: bool, how: str) -> None:
        session = self.pick(before)
        far = session.server if server else session.client
        if not far.gone:
            getattr(far, how)()

    @rule(before=st.booleans(), server=st.booleans(), most=st.sampled_from([1, 5000, 1 << 20]))
    def reads(self, before: bool, server: bool, most: int) -> None:
        session = self.pick(before)
        (session.server if server else session.client).read(most)

    @rule(size=st.sampled_from([10, 16381, 33000, 70000]))
    def is_asked_and_answers(self, size: int) -> None:
        """
        A client that has asked all it wants, and an answer that is on its way.
        """
        session = self.pick(False)
        session.client.send(session.said("client", 100))
        session.client.end()
        session.server.send(session.said("server", 5))
        self.stages.settle(session.server)
        session.server.send(session.said("server", size))
        session.server.end()
        for _ in range(8):
            self.stages.agent.turn()

    @rule(records=st.sampled_from([1, 2, 3, 1000]), way=st.sampled_from(["up", "down"]))
    def carries(self, records: int, way: str) -> None:
        self.stages.accept()
        for wire in self.stages.wires:
            wire.carry(way, records)

    @rule(relay=st.booleans(), turns=st.integers(1, 3))
    def turns(self, relay: bool, turns: int) -> None:
        stage = self.stages.relay if relay else self.stages.agent
        for _ in range(turns):
            stage.turn()

    @rule()
    def settles(self) -> None:
        self.stages.settle()

    @precondition(lambda self: len(self.stages.sessions) < 6)
    @rule()
    def begins(self) -> None:
        self.stages.begin()

    @precondition(lambda self: len(self.stages.sessions) < 6)
    @rule()
    def next_is_served(self) -> None:
        self.stages.settle()
        check_next(self.stages)

    @invariant()
    def nobody_hears_others(self) -> None:
        for session in getattr(self, "stages", _NONE).sessions:
            for hears, says in (
                (session.client, session.server),
                (session.server, session.client),
            ):
                assert says.sent.startswith(hears.heard), (session.number, hears.heard[-60:])
                if hears.ended:
                    self.check_end(hears, says)

    @staticmethod
    def check_end(hears: Far, says: Far) -> None:
        assert says.said_end or says.gone
        if not hears.was_reset and not says.gone:
            assert hears.heard == says.sent

    def teardown(self) -> None:
        if not hasattr(self, "stages"):
            return
        try:
            self.stages.settle()
            check_next(self.stages)
            self.stages.settle(seconds=0.1)
            check_next(self.stages)
        finally:
            self.stages.close()


class ScriptedTests(SynchronousTestCase):
    """
    Lives in which faults were found.
    """

    def setUp(self) -> None:
        self.stages = Stages(PumpEngine)
        self.addCleanup(self.stages.close)

    def ask(self) -> Session:
        """
        @return: a session whose client has asked, and ended; the answer has begun.
        """
        session = self.stages.begin()
        self.stages.settle()
        session.client.send(session.said("client", 10))
        session.client.end()
        self.stages.settle(session.server)
        session.server.send(session.said("server", 5))
        self.stages.settle(session.client)
        return session

    def answer(self, session: Session, size: int) -> None:
        """
        The answer's last bytes, and its end, come to the relay, which has not
        looked yet.
        """
        session.server.send(session.said("server", size))
        session.server.end()
        for _ in range(20):
            self.stages.agent.turn()
            for wire in self.stages.wires:
                wire.carry("up", 1000)

    def check_reset(self, size: int) -> None:
        session = self.ask()
        self.answer(session, size)
        session.client.reset()
        self.stages.settle(session.server, seconds=0.1)
        self.assertTrue(check_next(self.stages).reused)
        self.assertEqual(session.reports["relay"].reason, "first reset")

    def test_end_behind_reset(self) -> None:
        """
        A client resets while the end of its answer is read: that end is heard.
        """
        for size in (10, 16381, 16382, 2 * 16381, 5 * 16381 - 10):
            self.check_reset(size)

    def test_end_behind_what_waits(self) -> None:
        """
        So is one that comes in one record with the last bytes.
        """
        self.stages.close()
        self.stages = Stages(PumpEngine, lambda edges: PairedEngine())
        self.check_reset(3)

    def test_slow_reader(self) -> None:
        """
        A client that does not take the rest of its answer keeps its channel,
        and the next client has another one.
        """
        slow = self.ask()
        self.answer(slow, 200_000)
        self.stages.settle(slow.server)
        self.assertEqual(slow.reports["agent"].reason, "clean")
        self.assertEqual(self.stages.channels.parked, 1)
        self.assertFalse(check_next(self.stages).reused)
        self.stages.settle(slow.client)
        self.assertTrue(slow.client.ended)
        self.assertEqual(slow.client.heard, slow.server.sent)
        self.assertTrue(check_next(self.stages).reused)

    def test_released_unread(self) -> None:
        """
        A channel that the relay has just let go of is taken, whoever looks first.
        """
        session = self.ask()
        self.answer(session, 10)
        for _ in range(4):
            self.stages.relay.turn()
            for wire in self.stages.wires:
                wire.carry("down", 1000)
        [channel] = self.stages.channels._parked
        self.assertFalse(channel.released)
        self.assertIs(self.stages.channels.take_parked(), channel)

    def test_one_word_behind_each_session(self) -> None:
        """
        Where the server ends first, EOF and STOP are one record; else STOP
        comes behind the agent's EOF.  There is one for each session.
        """
        for server_first in (True, False):
            session = self.stages.begin()
            self.stages.settle()
            first, second = session.server, session.client
            if not server_first:
                first, second = second, first
            first.end()
            self.stages.settle(session.client, session.server)
            counted = self.count_records()
            second.end()
            self.stages.settle(session.client, session.server)
            self.assertEqual(counted["down"], 1)
            self.assertEqual(session.reports["relay"].reason, "clean")
            [channel] = self.stages.channels._parked
            self.assertTrue(channel.released and channel.usable)

    def count_records(self) -> dict[str, int]:
        counted = {"up": 0, "down": 0}
        for wire in self.stages.wires:
            carry = wire.carry

            def counting(way: str, records: int, carry: Any = carry) -> bool:
                moved = False
                while carry(way, 1):
                    counted[way] += 1
                    moved = True
                return moved

            wire.carry = counting  # type: ignore[method-assign]
        return counted


class _Nothing:
    sessions: ClassVar[list[Session]] = []


_NONE = _Nothing()


class ParkingTests(SynchronousTestCase):
    """
    The channel's life, in any order of events.
    """

    def run_model(self, model: type[ParkingModel]) -> None:
        run_state_machine_as_test(
            model,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )

    def test_pump(self) -> None:
        """
        With the engine that has the connection for itself.
        """
        self.run_model(ParkingModel)

    def test_paired(self) -> None:
        """
        With the portable one.
        """

        class Paired(ParkingModel):
            engine = staticmethod(lambda edges: PairedEngine())

        self.run_model(Paired)

    def test_agent_paired(self) -> None:
        """
        With each at one end: frames are not cut as records are.
        """

        class Mixed(ParkingModel):
            agents = staticmethod(lambda edges: PairedEngine())

        self.run_model(Mixed)

"""
Who may connect to the agents' port: counts, chance, penalties.
"""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.config.limits import Limits
from relaytunnel.relay import admission as admission_module
from relaytunnel.relay.admission import Admission, Newcomer
from relaytunnel.sources import source_of

HOME = "192.0.2.1"
OTHER = "198.51.100.1"


class AdmissionCase(SynchronousTestCase):
    """
    Tests with a clock and with chance in their hands.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.chance = 0.0
        self.notified: dict[str, int] = {}
        self.use()

    def use(self, **limits: float) -> None:
        self.admission = Admission(
            Limits(**limits),  # type: ignore[arg-type]
            self.clock.seconds,
            lambda: self.chance,
            lambda agent: self.notified.get(agent, 0),
        )

    def comes(self, host: str = HOME) -> Newcomer:
        newcomer = self.admission.admit(host)
        assert newcomer is not None, dict(self.admission.turned_away)
        return newcomer

    def refused(self, host: str = HOME) -> str:
        """
        Assert that somebody is not let in.

        @return: why.
        """
        before = self.admission.turned_away.copy()
        self.assertIsNone(self.admission.admit(host))
        (reason,) = self.admission.turned_away - before
        return reason

    def enters(self, host: str = HOME, agent: str = "office") -> Newcomer:
        """
        An agent comes that has the right secret.
        """
        newcomer = self.comes(host)
        self.assertEqual(newcomer.tries(agent), 0)
        newcomer.proved()
        return newcomer

    def fails(self, host: str = HOME, agent: str = "office", times: int = 1) -> None:
        """
        An agent comes that has not.
        """
        for _ in range(times):
            newcomer = self.comes(host)
            self.assertEqual(newcomer.tries(agent), 0)
            newcomer.failed()
            newcomer.gone()

    def silent(self, host: str = HOME, times: int = 1, reason: str = "silent") -> None:
        """
        Somebody comes who shows nothing.
        """
        for _ in range(times):
            newcomer = self.comes(host)
            newcomer.turn_away(reason)
            newcomer.gone()

    def penalty(self, host: str = HOME) -> float:
        """
        @return: after how many seconds somebody from there is let in.
        """
        waited = 0.0
        while self.admission.admit(host) is None:
            self.clock.advance(0.25)
            waited += 0.25
        return waited


class StandingTests(AdmissionCase):
    """
    What is known of a source when a secret is to be checked that comes from it.
    """

    def standing(self, host: str, agent: str = "office") -> str:
        newcomer = self.comes(host)
        self.assertEqual(newcomer.tries(agent), 0)
        newcomer.unanswered()
        newcomer.gone()
        return newcomer.standing

    def test_new(self) -> None:
        """
        Of one that never came nothing is known.
        """
        self.assertEqual(self.standing(HOME), "new")

    def test_known(self) -> None:
        """
        An agent is known where it came from, also when it is gone; others that
        come from there are not.
        """
        agent = self.enters()
        self.assertEqual(self.standing(HOME), "known")
        agent.gone()
        self.assertEqual(self.standing(HOME), "known")
        self.assertEqual(self.standing(HOME, "other"), "new")
        self.assertEqual(self.standing(OTHER), "new")

    def test_charged(self) -> None:
        """
        One that was wrong is charged for as long as that counts.
        """
        self.fails(OTHER)
        self.assertEqual(self.standing(OTHER), "charged")
        self.clock.advance(5.1)
        self.assertEqual(self.standing(OTHER), "new")

    def test_charged_beside_an_agent(self) -> None:
        """
        So is one who was wrong behind the same address as an agent.
        """
        self.enters()
        self.fails(HOME, "other")
        self.assertEqual(self.standing(HOME, "other"), "charged")
        self.assertEqual(self.standing(HOME), "known")

    def test_gave_up(self) -> None:
        """
        One who leaves before the answer is charged like one who was wrong.
        """
        newcomer = self.comes(OTHER)
        newcomer.tries("office")
        newcomer.gave_up()
        newcomer.gone()
        self.assertEqual(self.standing(OTHER), "charged")
        self.assertEqual(dict(self.admission.turned_away), {"gave up": 1})


class CountTests(AdmissionCase):
    """
    How many there may be that have shown nothing.
    """

    def test_counted(self) -> None:
        """
        A connection counts until it has proved who it is, or is gone.
        """
        proves, goes = self.comes(), self.comes()
        self.assertEqual(self.admission.unauthenticated, 2)
        proves.proved()
        goes.gone()
        self.assertEqual(self.admission.unauthenticated, 0)

    def test_once(self) -> None:
        """
        Whatever is said of it and however often, it counts once.
        """
        self.comes(OTHER)
        newcomer = self.comes()
        newcomer.proved()
        for _ in range(2):
            newcomer.gone()
            newcomer.proved()
        self.assertEqual(self.admission.unauthenticated, 1)

    def test_of_one_source(self) -> None:
        """
        One source may have so many; others are not concerned, and when one
        goes another may come.
        """
        self.use(unauthenticated_per_source=2)
        newcomer, _ = self.comes(), self.comes()
        self.assertEqual(self.refused(), "too many unauthenticated from one source")
        self.comes(OTHER)
        newcomer.gone()
        self.comes()

    def test_of_one_network(self) -> None:
        """
        The addresses of one IPv6 network share what it may have.
        """
        self.use(unauthenticated_per_source=1)
        self.comes("2001:db8::1")
        self.refused("2001:db8::2")
        self.comes("2001:db8:0:1::1")

    def test_in_all(self) -> None:
        """
        All together may have so many.
        """
        self.use(unauthenticated=2)
        for number in range(2):
            self.comes(f"192.0.2.{number}")
        self.assertEqual(self.refused(OTHER), "too many unauthenticated")

    def test_turned_away(self) -> None:
        """
        Of several reasons against one connection the first counts.
        """
        newcomer = self.comes()
        for reason in ("silent", "handshake failed"):
            newcomer.turn_away(reason)
        self.assertEqual(self.admission.turned_away, {"silent": 1})


class EarlyTests(AdmissionCase):
    """
    Some are turned away by chance, the sooner the more there are.
    """

    def setUp(self) -> None:
        super().setUp()
        self.use(unauthenticated=12, unauthenticated_early=4)

    def test_few(self) -> None:
        """
        While there are few nobody is, whatever the chance.
        """
        for number in range(5):
            self.comes(f"192.0.2.{number}")
        self.assertEqual(self.refused(OTHER), "dropped early")

    def test_grows(self) -> None:
        """
        From there the chance grows by the same for each that is there.
        """
        chances = []
        for number in range(12):
            self.chance = 0.0
            while self.admission.admit(f"192.0.2.{number}") is None:
                self.chance += 1 / 64
            chances.append(self.chance)
        self.assertEqual(chances, [0] * 5 + [eighth / 8 for eighth in range(1, 8)])

    def test_no_room(self) -> None:
        """
        Where as many may be there anyway as are in all, chance has no part.
        """
        self.use(unauthenticated=3, unauthenticated_early=64)
        for number in range(3):
            self.comes(f"192.0.2.{number}")
        self.assertEqual(self.refused(OTHER), "too many unauthenticated")


class PenaltyTests(AdmissionCase):
    """
    Sources of which nothing good comes.
    """

    def test_failed(self) -> None:
        """
        Three failed authentications are forgiven; after the fourth its source
        is refused until the sum has run off so far.
        """
        self.fails(times=4)
        self.assertEqual(self.refused(), "in penalty")
        self.assertEqual(self.penalty(), 5)

    def test_nothing_offered(self) -> None:
        """
        What offers nothing costs less, whatever it is.
        """
        for reason in ("silent", "handshake failed", "neither TLS nor plain", "no such ticket"):
            self.silent(times=4, reason=reason)
        self.assertEqual(self.refused(), "in penalty")
        self.assertEqual(self.penalty(), 1)

    def test_adds_up(self) -> None:
        """
        Both kinds add up.
        """
        self.fails(times=3)
        self.silent()
        self.assertEqual(self.penalty(), 1)

    def test_runs_off(self) -> None:
        """
        An agent that tries as seldom as it is told is never refused.
        """
        for _ in range(20):
            self.fails(times=3)
            self.clock.advance(60)

    def test_most(self) -> None:
        """
        The sum does not grow beyond its bound.
        """
        self.use(penalty_none=500)
        for newcomer in [self.comes() for _ in range(4)]:
            newcomer.turn_away("silent")
        self.assertEqual(self.penalty(), 600 - 15)

    def test_others(self) -> None:
        """
        Other sources have nothing to do with it.
        """
        self.fails(times=4)
        self.comes(OTHER)

    def test_off(self) -> None:
        """
        Without a cost there is no penalty.
        """
        self.use(penalty_auth=0, penalty_none=0)
        self.fails(times=100)
        self.silent(times=100)
        self.comes()

    def test_left_without_a_word(self) -> None:
        """
        Who connects and goes costs what silence does, or it could come again at
        once; a balancer that asks each second whether the relay is there has
        paid by the next time.
        """
        for _ in range(100):
            self.comes().gone()
            self.clock.advance(1)
        for _ in range(16):
            self.comes().gone()
        self.assertEqual(self.refused(), "in penalty")
        self.assertEqual(self.admission.turned_away["nothing shown"], 116)

    def test_left_while_checked(self) -> None:
        """
        Who leaves while its secret is checked has shown something.
        """
        for _ in range(100):
            newcomer = self.comes()
            newcomer.tries("office")
            newcomer.gone()
            newcomer.unanswered()
        self.assertEqual(self.admission.turned_away["nothing shown"], 0)

    def test_counted(self) -> None:
        """
        Failed authentications are counted.
        """
        self.fails(times=2)
        self.assertEqual(self.admission.turned_away, {"authentication failed": 2})

    def test_remembered(self) -> None:
        """
        Only so many sources are remembered of each family, the latest ones.
        """
        with patch.object(admission_module, "_REMEMBERED", 2):
            for host in (HOME, "2001:db8::1", OTHER):
                self.fails(host, times=4)
            self.fails("192.0.2.99", times=4)
            self.comes(HOME)
            for host in (OTHER, "2001:db8::1", "192.0.2.99"):
                self.refused(host)

    def test_limits_change(self) -> None:
        """
        What a failure costs may change while the relay runs.
        """
        self.fails(times=2)
        self.admission.limits = Limits(penalty_auth=60)
        self.fails()
        self.assertEqual(self.penalty(), 2 * 5 + 60 - 15)


class TryTests(AdmissionCase):
    """
    How many secrets are checked at once.
    """

    def test_at_once(self) -> None:
        """
        Of one source only so many are checked at once, as if all of them were
        wrong; the next is told when to come again.
        """
        newcomers = [self.comes() for _ in range(5)]
        waits = [newcomer.tries(f"agent {n}") for n, newcomer in enumerate(newcomers)]
        self.assertEqual(waits, [0, 0, 0, 0, 5])
        self.assertEqual(self.admission.turned_away, {"in penalty": 1})

    def test_given_back(self) -> None:
        """
        What turns out to be right costs nothing.
        """
        for number in range(20):
            self.enters(agent=f"agent {number}")

    def test_unanswered(self) -> None:
        """
        Nor does what the accounts do not answer.
        """
        for _ in range(20):
            newcomer = self.comes()
            self.assertEqual(newcomer.tries("office"), 0)
            newcomer.unanswered()
            newcomer.gone()

    def test_gone_while_checked(self) -> None:
        """
        Who leaves before the answer cannot avoid what a failure costs.
        """
        for _ in range(4):
            newcomer = self.comes()
            newcomer.tries("office")
            newcomer.gone()
            newcomer.failed()
        self.refused()

    def test_right_but_gone(self) -> None:
        """
        Who leaves before the right answer is known, but not present.
        """
        newcomer = self.comes()
        newcomer.tries("office")
        newcomer.gone()
        newcomer.proved()
        self.assertTrue(self.admission.knows(HOME))
        self.clock.advance(3600)
        self.assertFalse(self.admission.knows(HOME))


class KnownTests(AdmissionCase):
    """
    Sources that agents have come from.
    """

    def test_known(self) -> None:
        """
        A source is known while an agent is there, and an hour longer.
        """
        self.assertFalse(self.admission.knows(HOME))
        first, second = self.enters(), self.enters()
        first.gone()
        self.clock.advance(100_000)
        self.assertTrue(self.admission.knows(HOME))
        second.gone()
        self.clock.advance(3599)
        self.assertTrue(self.admission.knows(HOME))
        self.clock.advance(1)
        self.assertFalse(self.admission.knows(HOME))

    def test_another_process(self) -> None:
        """
        Another process knows what one has known, those who are there for an
        hour, the others for what is left of theirs.
        """
        self.enters(OTHER, "branch")
        self.enters().gone()
        self.clock.advance(600)
        known = self.admission.known()
        self.assertEqual((known[OTHER], known[HOME]), (3600, 3000))
        self.use()
        self.admission.remember(known | {"": -1.0, "far": 1e9})
        self.assertEqual(self.admission.known(), known | {"far": 3600})
        self.assertTrue(self.admission.knows(OTHER, "branch"))
        self.assertFalse(self.admission.knows(OTHER, "office"))
        self.clock.advance(3000)
        self.assertTrue(self.admission.knows(OTHER))
        self.assertFalse(self.admission.knows(HOME))

    def test_by_a_ticket(self) -> None:
        """
        A ticket that joins makes known where the data channel came from, which
        may be another address than the agent's.
        """
        newcomer = self.comes()
        newcomer.proved()
        newcomer.gone()
        self.assertTrue(self.admission.knows(HOME))

    def test_share(self) -> None:
        """
        It may have more than a stranger, but not what the other known ones
        need: two thirds, and of what is left so have they.
        """
        self.use(unauthenticated=9, unauthenticated_per_source=1)
        self.enters()
        self.enters(OTHER)
        for _ in range(6):
            self.comes()
        self.assertEqual(self.refused(), "too many unauthenticated from one source")
        for _ in range(2):
            self.comes(OTHER)
        self.refused(OTHER)

    def test_reopened(self) -> None:
        """
        It has no more by opening again what is closed, and has a stranger's
        share for as long as it does so.
        """
        self.use(unauthenticated_per_source=2)
        self.enters()
        for _ in range(17):
            self.comes().gone()
        there = [self.comes() for _ in range(2)]
        for _ in range(100):
            self.assertEqual(self.refused(), "too many unauthenticated from one source")
            there.pop(0).gone()
            there.append(self.comes())
        self.assertEqual(self.admission.unauthenticated, 2)

    def test_counted_apart(self) -> None:
        """
        However many strangers there are, it may have them; nor do strangers
        suffer from it.
        """
        self.use(unauthenticated=3)
        self.enters()
        for number in range(3):
            self.comes(f"198.51.100.{number}")
        self.refused("198.51.100.77")
        for _ in range(2):
            self.comes()
        self.refused()
        self.assertEqual(self.admission.unauthenticated, 5)

    def test_not_early(self) -> None:
        """
        Chance does not concern it.
        """
        self.use(unauthenticated_early=1)
        self.enters()
        for _ in range(100):
            self.comes()

    def test_failures(self) -> None:
        """
        It is not refused for what fails there, with however many agents; those
        that were never let in are told to come again later, unchecked.
        """
        self.enters().gone()
        self.fails(agent="guest", times=4)
        newcomer = self.comes()
        self.assertEqual(newcomer.tries("guest"), 5)
        self.assertEqual(newcomer.tries("another"), 5)
        self.clock.advance(5)
        self.assertEqual(newcomer.tries("guest"), 0)

    def test_agent_that_was_there(self) -> None:
        """
        An agent that was let in from there is always checked, although its
        name may be what the others try.
        """
        self.enters().gone()
        self.fails(agent="office", times=100)
        self.enters()

    def test_ghost(self) -> None:
        """
        Also while the relay still takes its ghost for present, for days.
        """
        self.enters()
        self.clock.advance(100_000)
        self.fails(agent="guest", times=4)
        self.enters()

    def test_agent_of_elsewhere(self) -> None:
        """
        That it was let in from elsewhere is nothing.
        """
        self.enters(agent="guest").gone()
        self.enters(OTHER)
        self.fails(OTHER, agent="stranger", times=4)
        self.assertEqual(self.comes(OTHER).tries("guest"), 5)

    def test_silent(self) -> None:
        """
        A source that only keeps connections open is not refused either, but
        has no more than a stranger's share: others are known, too.
        """
        self.use(unauthenticated_per_source=2)
        self.enters()
        self.silent(times=16)
        for _ in range(2):
            self.comes()
        self.assertEqual(self.refused(), "too many unauthenticated from one source")

    def test_left_by_clients(self) -> None:
        """
        What clients that go away make an agent do is not held against it: one
        data channel may come to nothing for each notification.
        """
        self.use(unauthenticated_per_source=2)
        agent = self.enters()
        for reason in ("handshake failed", "no such ticket", "nothing shown"):
            for _ in range(100):
                agent.notified()
            self.silent(times=100, reason=reason)
        for _ in range(3):
            self.comes()

    def test_not_by_clients(self) -> None:
        """
        More than that is its own doing, and so is what comes much later.
        """
        self.use(unauthenticated_per_source=2)
        agent = self.enters()
        for _ in range(100):
            agent.notified()
        self.clock.advance(31)
        self.silent(times=17, reason="nothing shown")
        for _ in range(2):
            self.comes()
        self.assertEqual(self.refused(), "too many unauthenticated from one source")

    def test_served(self) -> None:
        """
        A data channel that joins has used up its notification.
        """
        self.use(unauthenticated_per_source=2)
        agent = self.enters()
        for _ in range(20):
            agent.notified()
            self.comes().proved()
        self.silent(times=17, reason="nothing shown")
        for _ in range(2):
            self.comes()
        self.refused()

    def test_expected(self) -> None:
        """
        The data channels that its agents were asked for come through, whatever
        else comes from there; their clients have the room for them.
        """
        self.use(unauthenticated=3)
        self.enters()
        self.enters(agent="branch")
        for _ in range(2):
            self.comes()
        self.refused()
        self.notified = {"office": 2, "branch": 1, "elsewhere": 50}
        expected = [self.comes() for _ in range(3)]
        self.refused()
        self.notified["branch"] = 0
        expected.pop().proved()
        self.refused()
        expected.pop().gone()
        self.comes()
        self.refused()

    def test_strangers_before(self) -> None:
        """
        What was held against its source before is not against the agent: it
        gets in when the source does, and then is known.
        """
        self.fails(agent="guest", times=4)
        self.refused()
        self.clock.advance(5)
        self.enters().gone()
        self.fails(agent="guest", times=3)
        self.enters()


HOSTS = st.sampled_from(
    [HOME, OTHER, "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8:1::1"]
)
AGENTS = st.sampled_from(["office", "home"])
REASONS = st.sampled_from(["silent", "handshake failed", "no such ticket"])
INDEX = st.integers(0, 100)


class AnythingHappens(RuleBasedStateMachine):
    """
    Connections come, show something or nothing, and go, in any order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.chance = 0.0
        self.limits = Limits(
            unauthenticated=6, unauthenticated_early=3, unauthenticated_per_source=3
        )
        self.admission = Admission(self.limits, self.clock.seconds, lambda: self.chance)
        self.there: list[Newcomer] = []
        self.counted: set[Newcomer] = set()

    @rule(host=HOSTS, chance=st.sampled_from([0.0, 0.5, 0.99]))
    def come(self, host: str, chance: float) -> None:
        self.chance = chance
        newcomer = self.admission.admit(host)
        if newcomer is not None:
            self.there.append(newcomer)
            self.counted.add(newcomer)

    def _one(self, index: int) -> Newcomer:
        return self.there[index % len(self.there)]

    @precondition(lambda self: self.there)
    @rule(index=INDEX, agent=AGENTS)
    def tries(self, index: int, agent: str) -> None:
        newcomer = self._one(index)
        penalty = self._penalty(newcomer.source)
        newcomer.unanswered()
        newcomer.tries(agent)
        assert self._penalty(newcomer.source) >= penalty - self.limits.penalty_auth

    @precondition(lambda self: self.there)
    @rule(index=INDEX)
    def fails(self, index: int) -> None:
        self._one(index).failed()

    @precondition(lambda self: self.there)
    @rule(index=INDEX)
    def unanswered(self, index: int) -> None:
        self._one(index).unanswered()

    @precondition(lambda self: self.there)
    @rule(index=INDEX)
    def proves(self, index: int) -> None:
        newcomer = self._one(index)
        newcomer.proved()
        if newcomer in self.counted:
            self.counted.discard(newcomer)
            assert self.admission.knows(newcomer.source)

    @precondition(lambda self: self.there)
    @rule(index=INDEX, reason=REASONS)
    def turned_away(self, index: int, reason: str) -> None:
        newcomer = self._one(index)
        penalty = self._penalty(newcomer.source)
        newcomer.turn_away(reason)
        assert self._penalty(newcomer.source) >= penalty

    @precondition(lambda self: self.there)
    @rule(index=INDEX, stays=st.booleans())
    def goes(self, index: int, stays: bool) -> None:
        newcomer = self._one(index)
        newcomer.gone()
        self.counted.discard(newcomer)
        if not stays:
            self.there.remove(newcomer)

    @rule(seconds=st.sampled_from([0.25, 1, 5, 600, 3600]))
    def time_passes(self, seconds: float) -> None:
        penalties = {host: self._penalty(source_of(host)) for host in (HOME, OTHER)}
        self.clock.advance(seconds)
        for host, before in penalties.items():
            assert self._penalty(source_of(host)) == max(0, before - seconds)

    def _penalty(self, source: str) -> float:
        return self.admission._penalties.left(source)

    @invariant()
    def counts_are_right(self) -> None:
        """
        Those count that have shown nothing, and no count is below nothing.
        """
        admission = self.admission
        assert admission.unauthenticated == len(self.counted)
        for pool in (admission._strangers, admission._acquainted):
            assert 0 <= pool.taken <= self.limits.unauthenticated
        assert all(count > 0 for count in admission._present.values())

    @invariant()
    def memory_is_bounded(self) -> None:
        """
        No more is remembered than may be, and no penalty is beyond its bound.
        """
        for memory in (self.admission._penalties, self.admission._known):
            for family in memory._families:
                assert len(family) <= admission_module._REMEMBERED
        for family in self.admission._penalties._families:
            for until in family.values():
                assert until - self.clock.seconds() <= self.limits.penalty_most

    def teardown(self) -> None:
        """
        When all have gone nothing is counted.
        """
        for newcomer in self.there:
            newcomer.gone()
        assert not self.admission.unauthenticated
        assert not (self.admission._present or self.admission._agents)


class ModelTests(SynchronousTestCase):
    """
    Whatever happens.
    """

    def test_anything(self) -> None:
        """
        Counts are right, penalties only grow by what is done and only shrink
        with time, and memory is bounded.
        """
        with patch.object(admission_module, "_REMEMBERED", 2):
            run_state_machine_as_test(
                AnythingHappens,
                settings=settings(deadline=None, max_examples=40, stateful_step_count=30),
            )

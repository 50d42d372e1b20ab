"""
Hashes that take long, in a fair order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from relaytunnel.accounts.fairness import Lane
from relaytunnel.accounts.hashing import Hashing, hashing_threads
from relaytunnel.errors import AccountError, Code, Rejection

reactor = cast(Any, _reactor)


class HeldThreads:
    """
    Threads that answer when they are told to.

    @ivar running: what they are at, and who waits for it.
    """

    at_most = 2

    def __init__(self) -> None:
        self.running: dict[object, Deferred[object]] = {}
        self.closed = False

    def run(self, function: Callable[..., object], argument: object) -> Deferred[object]:
        if self.closed:
            return fail(AccountError("closed"))
        answer: Deferred[object] = Deferred()
        self.running[argument] = answer
        return answer

    def done(self, argument: object) -> None:
        """
        One is computed.
        """
        self.running.pop(argument).callback(argument)

    def close(self) -> Deferred[None]:
        self.closed = True
        return succeed(None)


def lane(group: str, source: str = "s") -> Lane:
    return (group, "server", "new", source)


class TurnTests(SynchronousTestCase):
    """
    When one is begun.
    """

    def setUp(self) -> None:
        self.threads = HeldThreads()
        self.hashing = Hashing(cast(Any, self.threads))

    def hash(self, name: str, source: str = "s") -> Deferred[Any]:
        """
        Ask for one; the first letter of its name is its group.
        """
        return self.hashing.run(lane(name[0], source), str, name)

    def running(self) -> str:
        return " ".join(map(str, self.threads.running))

    def test_begun(self) -> None:
        """
        One begins at once where nothing else runs, and its answer comes back.
        """
        answer = self.hash("a1")
        self.assertEqual(self.running(), "a1")
        self.threads.done("a1")
        self.assertEqual(self.successResultOf(answer), "a1")

    def test_failure(self) -> None:
        """
        So does its failure.
        """
        answer = self.hash("a1")
        self.threads.running.pop("a1").errback(AccountError("none of ours"))
        self.failureResultOf(answer, AccountError)
        self.hash("a2")
        self.assertEqual(self.running(), "a2")

    def test_group_leaves_a_thread(self) -> None:
        """
        A group has one thread, so that there is one for another group.
        """
        self.hash("a1")
        self.hash("a2")
        self.assertEqual(self.running(), "a1")
        self.hash("b1")
        self.assertEqual(self.running(), "a1 b1")

    def test_turns(self) -> None:
        """
        Groups take turns, however many one of them has asked for.
        """
        for number in range(5):
            self.hash(f"a{number}", f"source {number}")
        for name in ("b1", "c1", "c2"):
            self.hash(name)
        self.assertEqual(self.running(), "a0 b1")
        self.threads.done("a0")
        self.assertEqual(self.running(), "b1 c1", "a had its turn in this round")
        self.threads.done("b1")
        self.assertEqual(self.running(), "c1 a1")
        self.threads.done("c1")
        self.assertEqual(self.running(), "a1 c2")

    def test_cancelled_while_it_waits(self) -> None:
        """
        One that is called off before its turn is never begun.
        """
        self.hash("a1")
        answer = self.hash("a2")
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.threads.done("a1")
        self.assertEqual(self.running(), "")

    def test_cancelled_while_it_runs(self) -> None:
        """
        One that runs keeps its thread until it is done; nobody hears of it.
        """
        answer = self.hash("a1")
        self.hash("a2")
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(self.running(), "a1")
        self.threads.done("a1")
        self.assertEqual(self.running(), "a2")

    def test_source_is_bounded(self) -> None:
        """
        Of one source as many wait as it may have, and no more.
        """
        for number in range(9):
            self.hash(f"a{number}")
        with self.assertRaises(Rejection) as caught:
            self.hash("a9")
        self.assertIs(caught.exception.code, Code.BUSY)
        self.hash("a10", "another")

    def test_room_for_others(self) -> None:
        """
        However many sources of one server there are, another source gets a
        place: the newest of the longest lane gives way, and hears of it.
        """
        answers = [
            self.hash(f"a{at}.{number}", f"{at}")
            for at in range(9)
            for number in range(8)
            if at < 8 or number == 0
        ]
        self.assertEqual([each for each in answers[:-1] if each.called], [])
        late = self.hash("a late", "another")
        self.assertFalse(late.called)
        given_way = [each for each in answers if each.called]
        self.assertEqual(len(given_way), 1)
        self.assertIs(self.failureResultOf(given_way[0], Rejection).value.code, Code.BUSY)

    def test_room_for_other_groups(self) -> None:
        """
        However many groups wait with all that they may have, another one gets
        a place.
        """
        asked = []
        for group in "abcdef":
            for server in range(4):
                for source in range(8):
                    for _ in range(8):
                        one = (group, f"{server}", "new", f"{source}")
                        try:
                            asked.append(self.hashing.run(one, str, object()))
                        except Rejection:
                            break
        self.assertGreater(len(asked), 1024)
        late = self.hash("z1")
        self.assertFalse(late.called)
        self.threads.done(next(iter(self.threads.running)))
        rounds = 0
        while "z1" not in self.threads.running:
            self.threads.done(next(iter(self.threads.running)))
            rounds += 1
        self.assertLessEqual(rounds, 6)
        for each in asked:
            each.addErrback(lambda failure: failure.trap(Rejection))

    def test_drained(self) -> None:
        """
        All that wait, or come later and would have to, are refused with a
        reason; those that run are not.
        """
        running, waiting = self.hash("a1"), self.hash("a2")
        self.hashing.drain("it stops")
        for refused in (waiting, self.hash("a3")):
            self.assertIs(self.failureResultOf(refused, Rejection).value.code, Code.SHUTDOWN)
        self.assertNoResult(self.hash("b1"))
        self.threads.done("a1")
        self.assertEqual(self.successResultOf(running), "a1")

    def test_closed(self) -> None:
        """
        After it was closed none is begun, and those that waited fail.
        """
        self.hash("a1")
        waiting = self.hash("a2")
        self.successResultOf(self.hashing.close())
        self.failureResultOf(waiting, AccountError)
        self.failureResultOf(self.hash("b1"), AccountError)


class ThreadsTests(TestCase):
    """
    With threads as they are.
    """

    async def test_side_by_side(self) -> None:
        """
        While a group computes one that takes long, another group's begins and
        ends.
        """
        hashing = Hashing(hashing_threads(reactor))
        self.addCleanup(hashing.close)
        gate = threading.Event()
        self.addCleanup(gate.set)
        long = hashing.run(lane("a"), gate.wait)
        behind = hashing.run(lane("a"), str, "behind")
        self.assertEqual(await hashing.run(lane("b"), str, "other"), "other")
        self.assertFalse(behind.called)
        gate.set()
        await long
        await behind

    async def test_stop_is_not_held_up(self) -> None:
        """
        A stop waits for a moment for one that runs, and not until it is done.
        """
        hashing = Hashing(hashing_threads(reactor))
        gate = threading.Event()
        self.addCleanup(gate.set)
        hashing.run(lane("a"), gate.wait)
        waiting = hashing.run(lane("a"), gate.wait)
        began = time.monotonic()
        closed = hashing.close()
        self.failureResultOf(waiting, AccountError)
        await closed
        self.assertLess(time.monotonic() - began, 5)
        ours = [each for each in threading.enumerate() if "passwords" in each.name]
        self.assertTrue(ours)
        self.assertTrue(all(each.daemon for each in ours), "they would hold up the process's end")
        await hashing.close()
        gate.set()
        for _ in range(500):
            if not any(each.is_alive() for each in ours):
                break
            await deferLater(reactor, 0.01)
        self.assertEqual([each for each in ours if each.is_alive()], [])

"""
Threads that begin and end.
"""

from __future__ import annotations

import threading
from typing import cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorFromThreads
from twisted.trial.unittest import TestCase

from relaytunnel.accounts.threads import Threads
from relaytunnel.errors import AccountError

reactor = cast(IReactorFromThreads, _reactor)

NAME = "threads-under-test"


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if NAME in thread.name]


class ThreadsTests(TestCase):
    """
    Calls that block are made elsewhere.
    """

    def setUp(self) -> None:
        self.threads = Threads(reactor, 2, NAME)
        self.addCleanup(self.threads.close)
        self.gate = threading.Event()
        self.addCleanup(self.gate.set)

    async def test_elsewhere(self) -> None:
        """
        A function runs in a thread, and its result comes back.
        """
        found = await self.threads.run(threading.current_thread)
        self.assertIsNot(found, threading.current_thread())

    async def test_errors_come_back(self) -> None:
        """
        What the function raises is the failure.
        """
        with self.assertRaises(ZeroDivisionError):
            await self.threads.run(divmod, 1, 0)

    async def test_no_thread_left(self) -> None:
        """
        Nothing is left when it is closed, and a second close is as well.
        """
        await self.threads.run(int)
        self.assertEqual(len(ours()), 1)
        await self.threads.close()
        self.assertEqual(ours(), [])
        await self.threads.close()

    async def test_bounded(self) -> None:
        """
        Further calls wait for a thread.
        """
        calls = [self.threads.run(self.gate.wait) for _ in range(6)]
        behind = self.threads.run(int)
        self.assertLessEqual(len(ours()), 2)
        self.gate.set()
        for call in calls:
            self.assertTrue(await call)
        await behind

    async def test_close_waits(self) -> None:
        """
        What was begun is finished before it closes, and the last call is last.
        """
        order: list[str] = []

        def slow() -> None:
            self.gate.wait()
            order.append("call")

        call = self.threads.run(slow)
        closed = self.threads.close(lambda: order.append("last"))
        again = self.threads.close()
        self.assertNoResult(closed)
        self.gate.set()
        await call
        await closed
        await again
        self.assertEqual(order, ["call", "last"])

    async def test_close_with_a_fault(self) -> None:
        """
        A fault of the last call comes out, and no thread is left all the same.
        """

        def broken() -> None:
            raise ValueError("broken")

        with self.assertRaises(ValueError):
            await self.threads.close(broken)
        self.assertEqual(ours(), [])

    async def test_cancelled(self) -> None:
        """
        Who cancels stops waiting at once; closing still waits for the thread.
        """
        call = self.threads.run(self.gate.wait)
        call.cancel()
        self.failureResultOf(call, CancelledError)
        closed = self.threads.close()
        self.assertNoResult(closed)
        self.gate.set()
        await closed

    async def test_called_off(self) -> None:
        """
        What is called off before its thread is free is not called.
        """
        called: list[str] = []
        calls = [self.threads.run(self.gate.wait) for _ in range(2)]
        waiting = self.threads.run(called.append, "waiting")
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.gate.set()
        for call in calls:
            await call
        await self.threads.run(called.append, "later")
        self.assertEqual(called, ["later"])

    async def test_closed(self) -> None:
        """
        Nothing runs after it was closed.
        """
        await self.threads.close()
        with self.assertRaises(AccountError):
            await self.threads.run(int)

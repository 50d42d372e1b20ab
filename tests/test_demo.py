"""
The demo, as a stranger runs it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from relaytunnel import demo
from relaytunnel.demo import Demo, run_demo

STEPS = [
    "S1",
    "S2",
    "S3",
    "S4",
    "S5",
    "S6",
    "S7",
    "S8",
    "S9",
    "S10",
    "S11",
    "S12",
    "S13",
    "S14-S15",
    "S16-S17",
    "S18-S19",
    "S20",
]


def processes() -> set[int]:
    """
    @return: the children of this process, from the kernel's own table.
    """
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{name}/stat", encoding="ascii") as stat,
            ):
                if int(stat.read().rpartition(")")[2].split()[1]) == os.getpid():
                    found.add(int(name))
    return found


class DemoTests(TestCase):
    timeout = 60

    def run_once(self) -> Deferred[tuple[int, str, str]]:
        def run() -> tuple[int, str, str]:
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = run_demo(once=True)
            return code, out.getvalue(), err.getvalue()

        return deferToThread(run)

    async def test_once(self) -> None:
        """
        Every step is shown, in its order, with a time; nothing is left running.
        """
        before = processes()
        code, out, err = await self.run_once()
        self.assertEqual(code, 0, err)
        shown = re.findall(r"^  (S[\d-]+S?\d*) +[\d.]+ ms  ", out, re.M)
        self.assertEqual(set(shown), set(STEPS))
        opening = [step for step in shown[4:] if STEPS.index(step) < STEPS.index("S12")]
        self.assertEqual(opening, 2 * STEPS[4:11])
        self.assertEqual(processes() - before, set())

    async def test_another_body(self) -> None:
        """
        The exit code is 1 if the client gets other bytes than the server sent.
        """
        start = Demo.start

        def deceive(self: Demo) -> str:
            address = start(self)
            self.body = b"what the server did not send"
            return address

        with mock.patch.object(Demo, "start", deceive):
            code, _, err = await self.run_once()
        self.assertEqual(code, 1)
        self.assertIn("the client received 1000000 bytes", err)

    async def test_program_that_fails(self) -> None:
        """
        The exit code is 1, with the program's last lines, if one ends too early.
        """
        with mock.patch.object(demo, "_TWISTD", "raise SystemExit('no relay today')"):
            code, _, err = await self.run_once()
        self.assertEqual(code, 1)
        self.assertIn("the relay ended with exit code 1", err)
        self.assertIn("no relay today", err)

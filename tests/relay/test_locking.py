"""
At most one relay keeps its state in a directory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.errors import StateError
from relaytunnel.relay.locking import StateLock


class LockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def acquire(self) -> StateLock:
        lock = StateLock.acquire(str(self.directory))
        self.addCleanup(lock.release)
        return lock

    def refusal(self) -> str:
        with self.assertRaises(StateError) as caught:
            self.acquire()
        return str(caught.exception)

    def test_second(self) -> None:
        """
        The second one is told which directory, which process has it, and what
        to do.
        """
        before = len(os.listdir("/proc/self/fd"))
        lock = self.acquire()
        refusal = self.refusal()
        self.assertIn(f"{self.directory} is in use by another relay", refusal)
        self.assertIn(f"process {os.getpid()};", refusal)
        self.assertIn("--state", refusal)
        lock.release()
        lock.release()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_again(self) -> None:
        """
        Once it is released the next one has it, though the file stays.
        """
        self.acquire().release()
        self.assertEqual(os.listdir(self.directory), ["lock"])
        self.acquire()

    def test_killed(self) -> None:
        """
        A process that was killed holds nothing.
        """
        held = (
            "import os, sys; from relaytunnel.relay.locking import StateLock;"
            " StateLock.acquire(sys.argv[1]); os.kill(os.getpid(), 9)"
        )
        subprocess.run([sys.executable, "-c", held, str(self.directory)], check=False)
        self.assertTrue((self.directory / "lock").read_text().strip().isdigit())
        self.acquire()

    def test_passed_on(self) -> None:
        """
        The directory stays locked while another process has the open file.
        """
        lock = self.acquire()
        passed = StateLock(os.dup(lock.descriptor))
        self.addCleanup(passed.release)
        lock.release()
        passed.sign()
        self.assertIn(f"process {os.getpid()};", self.refusal())
        passed.release()
        self.acquire()

    def test_nonsense(self) -> None:
        """
        Whatever stands in the file, it can be locked and refused.
        """
        for content in (b"", b"nobody\n", b"\xff" * 1000):
            (self.directory / "lock").write_bytes(content)
            lock = self.acquire()
            (self.directory / "lock").write_bytes(content)
            self.assertIn("by another relay; stop", self.refusal())
            lock.release()

    def test_cannot(self) -> None:
        """
        A file that cannot be opened or locked is told by its name.
        """

        def no_locks(descriptor: int, how: int) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        self.patch(fcntl, "flock", no_locks)
        self.assertIn("lock: cannot be locked: No locks available", self.refusal())
        (self.directory / "lock").unlink()
        (self.directory / "lock").mkdir()
        self.assertIn("lock: cannot be opened: Is a directory", self.refusal())

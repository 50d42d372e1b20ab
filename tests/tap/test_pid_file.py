"""
The file with the number of C{twistd}'s process.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.tap.pid_file import command_line, remove_own, remove_stale, write

OURS = 4711
_RELAY = [b"/usr/bin/python3", b"/usr/bin/twistd", b"-n", b"relay", b""]


class StaleTests(SynchronousTestCase):
    """
    Files whose process is not the one that wrote them.
    """

    def removed(self, content: bytes, words: list[bytes] | None = None) -> bool:
        """
        @param words: how the process that the file names was started.
        @return: whether the file is removed.
        """
        path = Path(self.mktemp())
        path.write_bytes(content)

        def ask(pid: int) -> list[bytes] | None:
            self.assertEqual(pid, int(content))
            return words

        removed = remove_stale(str(path), "relay", OURS, ask)
        self.assertEqual(path.exists(), not removed)
        return removed

    def test_ours(self) -> None:
        """
        In a container this process has the number of the one before it.
        """
        self.assertTrue(self.removed(b"4711", _RELAY))
        self.assertTrue(self.removed(b"4711\n"))

    def test_another_program(self) -> None:
        """
        The number was given to another program since.
        """
        self.assertTrue(self.removed(b"12", [b"/usr/sbin/sshd", b"-D", b""]))
        self.assertTrue(self.removed(b"12", [b"twistd", b"agent", b"--config", b"relay.toml"]))

    def test_running(self) -> None:
        """
        A relay that runs keeps its file.
        """
        self.assertFalse(self.removed(b"12", _RELAY))

    def test_unknown(self) -> None:
        """
        Of a process that has ended, or that the system does not tell of,
        C{twistd} decides.
        """
        self.assertFalse(self.removed(b"12", None))
        self.assertFalse(self.removed(b"12", []))

    def test_empty(self) -> None:
        """
        A full disk leaves an empty file, which C{twistd} would not pass.
        """
        self.assertTrue(self.removed(b""))
        self.assertTrue(self.removed(b"\n"))

    def test_something_else(self) -> None:
        """
        What is no such file is never removed, whoever named it.
        """
        for content in (b"[relay]\n", b"-1", "²".encode(), b"1 2", b"9" * 1000 + b"x"):
            self.assertFalse(self.removed(content))
        self.assertFalse(remove_stale(self.mktemp(), "relay", OURS))
        directory = Path(self.mktemp())
        directory.mkdir()
        self.assertFalse(remove_stale(str(directory), "relay", OURS))

    def test_system(self) -> None:
        """
        The system knows how this process was started, and of none that never
        was.
        """
        words = command_line(os.getpid())
        assert words is not None
        self.assertIn(b"twisted.trial", b" ".join(words).replace(b"/", b"."))
        self.assertIsNone(command_line(2**22 + 1))


class OwnTests(SynchronousTestCase):
    """
    The file of this process.
    """

    def test_written(self) -> None:
        """
        It holds the number, and goes with the process.
        """
        path = Path(self.mktemp())
        path.write_text("12345678")
        write(str(path))
        self.assertEqual(path.read_text(), str(os.getpid()))
        remove_own(str(path))
        self.assertFalse(path.exists())

    def test_of_another(self) -> None:
        """
        That of another process stays; none is no error.
        """
        path = Path(self.mktemp())
        remove_own(str(path))
        path.write_text("1")
        remove_own(str(path))
        self.assertTrue(path.exists())

"""
The relay's state directory.
"""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

from msgspec.structs import replace

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.errors import StateError
from relaytunnel.relay.state import Facts, StateDirectory, started

FACTS = Facts(pid=7, name="relay", pin="sha256:x", agents=7000, clients=(8000,), admin="a:1")


class StateTests(SynchronousTestCase):
    """
    What is kept, and who may read it.
    """

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute() / "state"
        self.state = StateDirectory(str(self.path))

    def mode(self, name: str = "") -> int:
        return stat.S_IMODE(os.stat(self.path / name).st_mode)

    def fault(self, function: object, *arguments: object) -> str:
        with self.assertRaises(StateError) as caught:
            function(*arguments)  # type: ignore[operator]
        return str(caught.exception)

    def test_made(self) -> None:
        """
        The directory is made for its owner alone, and is empty.
        """
        self.state.prepare()
        self.assertEqual(self.mode(), 0o700)
        self.assertEqual(os.listdir(self.path), [])

    def test_again(self) -> None:
        """
        One that is there is taken as it is.
        """
        self.state.prepare()
        (self.path / "kept").touch()
        self.state.prepare()
        self.assertEqual(os.listdir(self.path), ["kept"])

    def test_below_a_file(self) -> None:
        """
        One that cannot be made is named, with what to do.
        """
        self.path.parent.touch()
        reason = self.fault(self.state.prepare)
        self.assertIn(str(self.path), reason)
        self.assertIn("Not a directory", reason)
        self.assertIn("--state", reason)

    def test_a_file(self) -> None:
        """
        One that is a file is named.
        """
        self.path.parent.mkdir()
        self.path.touch()
        self.assertIn("File exists", self.fault(self.state.prepare))

    def test_not_writable(self) -> None:
        """
        One in which nothing can be written is named, with what to do.
        """
        reason = self.fault(StateDirectory("/proc").prepare)
        self.assertIn("/proc cannot be written", reason)
        self.assertIn("--state", reason)

    def test_token(self) -> None:
        """
        The admin's token is made once, and is its owner's alone.
        """
        self.state.prepare()
        token = self.state.admin_token()
        self.assertGreater(len(token), 40)
        self.assertEqual(StateDirectory(str(self.path)).admin_token(), token)
        self.assertEqual(self.mode("admin-token"), 0o600)

    def test_empty_token(self) -> None:
        """
        An empty token would let everybody in, so it is made anew.
        """
        self.state.prepare()
        (self.path / "admin-token").write_text("\n")
        self.assertGreater(len(self.state.admin_token()), 40)

    def test_unreadable_token(self) -> None:
        """
        A token that cannot be read is named.
        """
        self.state.prepare()
        (self.path / "admin-token").mkdir()
        self.assertIn("admin-token", self.fault(self.state.admin_token))

    def test_token_is_no_text(self) -> None:
        """
        A token that cannot stand in a header is named.
        """
        self.state.prepare()
        (self.path / "admin-token").write_bytes(b"\xff\xfe")
        self.assertIn("admin-token", self.fault(self.state.admin_token))

    def test_invitation(self) -> None:
        """
        An invitation is kept for its owner alone.
        """
        self.state.prepare()
        self.assertIs(self.state.read_invitation(), None)
        self.state.write_invitation("relaytunnel://...")
        self.assertEqual(self.state.read_invitation(), "relaytunnel://...")
        self.assertEqual(self.mode("invitation"), 0o600)

    def test_unreadable_invitation(self) -> None:
        """
        An invitation that cannot be read or written is named.
        """
        self.state.prepare()
        (self.path / "invitation").mkdir()
        self.assertIn("invitation", self.fault(self.state.read_invitation))
        self.assertIn("invitation", self.fault(self.state.write_invitation, "x"))

    def test_facts(self) -> None:
        """
        What others may know of the relay is read as it was written.
        """
        self.state.prepare()
        self.assertIs(self.state.read_facts(), None)
        self.state.write_facts(FACTS)
        self.assertEqual(self.state.read_facts(), FACTS)

    def test_stopped(self) -> None:
        """
        Of a relay that has stopped the places stay known, the process not.
        """
        self.state.prepare()
        self.state.mark_stopped()
        self.assertIs(self.state.read_facts(), None)
        self.state.write_facts(replace(FACTS, pid=os.getpid()))
        self.state.mark_stopped()
        facts = self.state.read_facts()
        assert facts is not None
        self.assertEqual((facts.pid, facts.agents, facts.admin), (0, 7000, ""))

    def test_another_runs(self) -> None:
        """
        A process that stops while another is the relay says nothing of that.
        """
        self.state.prepare()
        self.state.write_facts(FACTS)
        self.state.mark_stopped()
        self.assertEqual(self.state.read_facts(), FACTS)

    def test_damaged_facts(self) -> None:
        """
        Facts that cannot be understood are named.
        """
        self.state.prepare()
        for damaged in ("{", "[]", '{"pid": "x"}'):
            (self.path / "relay.json").write_text(damaged)
            self.assertIn("relay.json", self.fault(self.state.read_facts))


class RunningTests(SynchronousTestCase):
    """
    Whether the relay that wrote its facts is still there.
    """

    def facts(self, pid: int, since: str) -> Facts:
        return Facts(pid=pid, name="relay", pin="", agents=1, clients=(), since=since)

    def test_this_process(self) -> None:
        """
        A process that started when the facts say is the one they speak of.
        """
        since = started(os.getpid())
        self.assertRegex(since, r"^\d+$")
        self.assertTrue(self.facts(os.getpid(), since).runs)

    def test_another_with_its_number(self) -> None:
        """
        One that started at another time is not.
        """
        self.assertFalse(self.facts(os.getpid(), "1").runs)

    def test_gone(self) -> None:
        """
        Nor is one that is not there, or that has said that it stopped.
        """
        with subprocess.Popen(["true"]) as process:
            since = started(process.pid)
        self.assertEqual(started(process.pid), "")
        self.assertFalse(self.facts(process.pid, since).runs)
        self.assertFalse(self.facts(0, "").runs)

    def test_unknown(self) -> None:
        """
        Where the system does not say when, the number has to do.
        """
        self.assertTrue(self.facts(os.getpid(), "").runs)

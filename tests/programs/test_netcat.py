"""
netcat through relay and agent: one direction ends while the other goes on.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.processes import (
    Program,
    empty_directory,
    free_port,
    missing_programs,
    own_port,
    random_file,
    run,
    sha256_of,
    start_agent,
    start_relay,
)

SERVER = Path(__file__).with_name("reply_server.py")


def unusable() -> str | None:
    """
    There are several programs named C{nc}; only OpenBSD's has C{-N}.
    """
    reason = missing_programs("nc")
    if reason is None and shutil.which("nc"):
        usage = subprocess.run(["nc", "-h"], capture_output=True, timeout=10, check=False)
        if b"-N" not in usage.stderr + usage.stdout:
            return missing_programs("nc -N (netcat-openbsd)")
    return reason


class NetcatTests(TestCase):
    """
    A client that ends its direction, and a server that answers only then.
    """

    skip = unusable()

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.directory = empty_directory(self)
        self.question = self.directory / "question"
        self.answer = self.directory / "answer"
        self.asked = random_file(self.question, 1_000_000)
        self.answered = random_file(self.answer, 20_000_000)
        port = free_port()
        self.server = Program.start(self, sys.executable, SERVER, str(port), self.answer)
        await self.server.wait_for("serving")
        self.relay = await start_relay(self, self.directory / "relay")
        self.port = own_port()
        await start_agent(
            self,
            self.relay.invitation,
            [f"own=127.0.0.1:{port},port={self.port}", f"echo=127.0.0.1:{port}"],
        )

    async def asks(self, *way: str) -> None:
        """
        Ask with netcat; both sides must have got every byte of the other.
        """
        got = self.directory / "got"
        done = await run(self, "nc", "-N", *way, stdin=self.question, stdout=got)
        self.assertEqual(done.code, 0, done.err)
        heard = await self.server.wait_for(r"heard (\d+) (\w+)\n")
        self.assertEqual(heard.groups(), ("1000000", self.asked))
        self.assertEqual(got.stat().st_size, 20_000_000)
        self.assertEqual(sha256_of(got), self.answered)

    async def test_own_port(self) -> None:
        """
        The end of the question reaches the server, and the whole answer comes
        back, by a port of the server's own.
        """
        await self.asks("127.0.0.1", str(self.port))

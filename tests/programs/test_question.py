"""
The question in text: somebody at a terminal, with netcat, who has only the
relay's address.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.processes import (
    Finished,
    Program,
    empty_directory,
    free_port,
    run,
    start_relay,
)
from tests.programs.inside import publish
from tests.programs.test_netcat import unusable

SERVER = Path(__file__).with_name("reply_server.py")

AGENT = """
[[server]]
id = "{listed}"
target = "tcp:127.0.0.1:{port}"
listed = true

[[server]]
id = "quiet"
target = "tcp:127.0.0.1:{quiet}"
"""

SILENCE = 2.0
"""How long a client is silent before it is asked, in seconds."""


class Terminal:
    """
    A program that is typed to.
    """

    def __init__(self, testcase: TestCase, *command: str) -> None:
        keyboard = empty_directory(testcase) / "keyboard"
        os.mkfifo(keyboard)
        # With the reading end open as well, or each would wait for the other.
        self._keys: int | None = os.open(keyboard, os.O_RDWR)
        testcase.addCleanup(self.end)
        self.program = Program.start(testcase, *command, stdin=keyboard)

    def type(self, text: str) -> None:
        """
        Type.
        """
        assert self._keys is not None
        os.write(self._keys, text.encode())

    def end(self) -> None:
        """
        Type no more.
        """
        if self._keys is not None:
            os.close(self._keys)
            self._keys = None


class QuestionTests(TestCase):
    """
    A relay that leads to two servers, which hear a client out before they
    answer; one of them is listed.
    """

    skip = unusable()

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.directory = empty_directory(self)
        ports = {}
        for name in ("listed", "quiet"):
            answer = self.directory / name
            answer.write_text(f"this is {name}\n")
            ports[name] = free_port()
            program = Program.start(self, sys.executable, SERVER, str(ports[name]), answer)
            await program.wait_for("serving")
        relay = await start_relay(self, self.directory / "relay")
        await publish(
            self, relay, AGENT.format(listed="listed", port=ports["listed"], quiet=ports["quiet"])
        )
        self.place = (relay.host, str(relay.clients_port))

    async def asked(self) -> Terminal:
        """
        Connect, and say nothing until the question comes.
        """
        began = time.monotonic()
        terminal = Terminal(self, "nc", "-N", *self.place)
        await terminal.program.wait_for(r"which server\? \Z")
        self.assertGreaterEqual(time.monotonic() - began, SILENCE)
        return terminal

    async def says(self, text: str) -> Finished:
        """
        Pipe this into netcat.
        """
        said = self.directory / "said"
        said.write_text(text)
        return await run(self, "nc", "-N", *self.place, stdin=said)

    async def test_number(self) -> None:
        """
        Who is silent is asked, and may answer with a number of the list; what is
        typed afterwards is the server's.
        """
        terminal = await self.asked()
        self.assertEqual(
            terminal.program.output,
            "This relay leads to these servers; type a number, or a name.\r\n"
            "  1) listed\r\n"
            "which server? ",
        )
        terminal.type("1\n")
        terminal.type("hello\n")
        terminal.end()
        done = await terminal.program.finished()
        self.assertEqual(done.code, 0, done.err)
        self.assertTrue(done.out.endswith("which server? this is listed\n"), done.out)

    async def test_name(self) -> None:
        """
        A name will do as well, also one that is not on the list.
        """
        terminal = await self.asked()
        terminal.type("quiet\n")
        terminal.end()
        done = await terminal.program.finished()
        self.assertTrue(done.out.endswith("which server? this is quiet\n"), done.out)

    async def test_unasked(self) -> None:
        """
        Who begins with the name is not asked at all.
        """
        for name in ("listed", "quiet"):
            for line in (f"{name}\n", f"{name}\r\nhello\r\n"):
                self.assertEqual(await self.says(line), (0, f"this is {name}\n", ""))

    async def test_three_tries(self) -> None:
        """
        After three answers that are no server's name, it ends and says why.
        """
        terminal = await self.asked()
        for number, wrong in enumerate(("nobody", "7", "two words"), 1):
            terminal.type(f"{wrong}\n")
            if number < 3:
                await terminal.program.wait_for(rf"(?s)(which server\? .*){{{number + 1}}}\Z")
        done = await terminal.program.finished()
        self.assertEqual(done.code, 0, done.err)
        lines = done.out.splitlines()[2:]
        self.assertEqual(
            lines[0], "which server? no-such-server: no server is published as nobody"
        )
        self.assertTrue(lines[1].startswith("which server? "), lines)
        self.assertTrue(
            lines[2].startswith("which server? relaytunnel: invalid: that is no server's name"),
            lines,
        )
        self.assertEqual(len(lines), 3)

    async def test_ends_without_a_name(self) -> None:
        """
        Who ends before naming a server is let go.
        """
        terminal = await self.asked()
        terminal.end()
        done = await terminal.program.finished()
        self.assertEqual(done.code, 0, done.err)

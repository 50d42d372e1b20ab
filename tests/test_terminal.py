"""
What is written to a terminal.
"""

from __future__ import annotations

import io
import re
import unicodedata
from pathlib import Path
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

import relaytunnel
from relaytunnel.agent.local import Answer
from relaytunnel.cli import main
from relaytunnel.errors import StateError
from relaytunnel.terminal import error, safe, say

EVIL = "\x1b]0;title\x07\x1b[2J\x9b1m\u202eabc\u2066\u200f\x08\r\x7f"
PACKAGE = Path(relaytunnel.__file__).parent


class SafeTests(SynchronousTestCase):
    """
    Text that somebody else has said.
    """

    def test_harmless(self) -> None:
        """
        What can be printed stays as it is, with its lines.
        """
        text = "http://web.example:8000/\n  caf\u00e9 \u4e2d\u6587 \\x1b\n"
        self.assertEqual(safe(text), text)

    def test_escaped(self) -> None:
        """
        Control sequences and bidirectional controls are shown, not carried out.
        """
        self.assertEqual(
            safe(EVIL),
            r"\x1b]0;title\x07\x1b[2J\x9b1m\u202eabc\u2066\u200f\x08\r\x7f",
        )

    @settings(deadline=None, max_examples=200)
    @given(st.text())
    def test_anything(self, text: str) -> None:
        """
        Whatever was said, nothing but lines of characters comes out.
        """
        for character in safe(text).replace("\n", ""):
            self.assertNotIn(unicodedata.category(character), ("Cc", "Cf", "Cs", "Co", "Cn"))

    def test_streams(self) -> None:
        """
        Both streams get it so.
        """
        out, err = io.StringIO(), io.StringIO()
        with patch("sys.stdout", out), patch("sys.stderr", err):
            say(EVIL)
            say()
            error(EVIL)
        self.assertEqual(out.getvalue(), safe(EVIL) + "\n\n")
        self.assertEqual(err.getvalue(), safe(EVIL) + "\n")


class CommandTests(SynchronousTestCase):
    """
    Commands that show what a peer has said.
    """

    def test_publish(self) -> None:
        """
        Where a relay says that a server is reached, and why it is not.
        """
        out, err = io.StringIO(), io.StringIO()
        command = ["publish", "--agent", "agent.socket", "web=127.0.0.1:80"]
        with patch("sys.stdout", out), patch("sys.stderr", err):
            with patch(
                "relaytunnel.agent.local.ask_agent",
                return_value=Answer(addresses=(EVIL,), note=EVIL),
            ):
                self.assertEqual(main(command), 0)
            with patch("relaytunnel.agent.local.ask_agent", side_effect=StateError(EVIL)):
                self.assertEqual(main(command), 1)
        self.assertEqual(out.getvalue(), safe(EVIL) + "\n")
        self.assertEqual(err.getvalue().count(safe(EVIL)), 2)
        self.assertNotIn("\x1b", out.getvalue() + err.getvalue())


class WayTests(SynchronousTestCase):
    """
    The way to the terminal.
    """

    def test_only_one(self) -> None:
        """
        Nothing prints by itself.
        """
        direct = re.compile(r"(?<![\w.])print\(|std(?:out|err)(?:__)?\.write\(")
        found = {
            f"{path.relative_to(PACKAGE)}: {line.strip()}"
            for path in PACKAGE.rglob("*.py")
            if path.name != "terminal.py"
            for line in path.read_text(encoding="utf-8").splitlines()
            if direct.search(line)
        }
        self.assertEqual(
            found,
            {
                "tap/starting.py: sys.__stdout__.write(safe(text))",
                # JSON, whose escapes are its own.
                'demo.py: sys.__stdout__.write(f"{_MARK}{line}\\n")  # type: ignore[union-attr]',
            },
        )

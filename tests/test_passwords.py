"""
Passwords as people give them to the command.
"""

from __future__ import annotations

import getpass
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.errors import ConfigError
from relaytunnel.passwords import VARIABLE, new_password, password_of
from relaytunnel.wire.messages import LONGEST_GIVEN


class GivingTests(SynchronousTestCase):
    """
    What stands at the terminal, in a file and in the environment.
    """

    def setUp(self) -> None:
        self.environment("")
        self.says("")

    def environment(self, value: str) -> None:
        self.patch(os, "environ", {**os.environ, VARIABLE: value})

    def says(self, text: str) -> None:
        """
        Have standard input say this, and end.
        """
        self.patch(sys, "stdin", io.StringIO(text))

    def types(self, *answers: str | type[BaseException]) -> list[str]:
        """
        Have somebody sit at a terminal.

        @return: what is asked there.
        """
        terminal = io.StringIO()
        terminal.isatty = lambda: True  # type: ignore[method-assign]
        self.patch(sys, "stdin", terminal)
        left, asked = list(answers), []

        def typed(prompt: str) -> str:
            asked.append(prompt)
            answer = left.pop(0)
            if isinstance(answer, str):
                return answer
            raise answer

        self.patch(getpass, "getpass", typed)
        return asked

    def file(self, content: bytes) -> str:
        path = Path(self.mktemp())
        path.write_bytes(content)
        return str(path)

    def refusal(self, function: Callable[..., str], *arguments: object) -> str:
        with self.assertRaises(ConfigError) as caught:
            function(*arguments)
        return str(caught.exception)


class NewPasswordTests(GivingTests):
    def test_line(self) -> None:
        """
        A line of standard input is the password, whatever ends it.
        """
        for text in ("correct horse\r\nmore", "correct horse\n", "correct horse"):
            self.says(text)
            self.assertEqual(new_password(), "correct horse")

    def test_typed(self) -> None:
        """
        At a terminal it is asked for twice.
        """
        asked = self.types("one", "one")
        self.assertEqual(new_password(), "one")
        self.assertEqual(asked, ["Password: ", "Once more: "])

    def test_differs(self) -> None:
        """
        It has to be the same twice.
        """
        self.types("one", "two")
        self.assertIn("the two passwords differ", self.refusal(new_password))

    def test_given_up(self) -> None:
        """
        Whoever gives up gets no hash, and no traceback.
        """
        for ending in (KeyboardInterrupt, EOFError):
            self.types(ending)
            self.assertIn("no password was given", self.refusal(new_password))
            self.types("one", ending)
            self.assertIn("not repeated", self.refusal(new_password))

    def test_empty(self) -> None:
        """
        An empty password is none, and is not asked for again.
        """
        for text in ("", "\n"):
            self.says(text)
            self.assertIn("is empty", self.refusal(new_password))
        asked = self.types("")
        self.assertIn("is empty", self.refusal(new_password))
        self.assertEqual(len(asked), 1)

    def test_nothing_to_read(self) -> None:
        """
        Where there is no standard input at all, there is no password.
        """
        self.patch(sys, "stdin", None)
        self.assertIn("is empty", self.refusal(new_password))

    def test_not_text(self) -> None:
        """
        Bytes that are no text are refused, and not shown.
        """
        self.patch(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xffsecret\n"), "utf-8"))
        self.assertEqual(self.refusal(new_password), "standard input: is not UTF-8")

    def test_longest(self) -> None:
        """
        It is as long as a client can give it, and no longer.
        """
        self.says("x" * LONGEST_GIVEN)
        self.assertEqual(len(new_password()), LONGEST_GIVEN)
        self.says("x" * (LONGEST_GIVEN + 1))
        self.assertIn(f"longer than {LONGEST_GIVEN}", self.refusal(new_password))


class VisitorsPasswordTests(GivingTests):
    def test_file(self) -> None:
        """
        The first line of a file is the password, before anything else.
        """
        self.environment("another")
        self.assertEqual(password_of("me", self.file("Bär ring\r\nmore".encode())), "Bär ring")

    def test_bad_file(self) -> None:
        """
        A file without a password is named with the reason.
        """
        long = b"x" * (LONGEST_GIVEN + 1)
        for content, reason in (
            (b"\nsecret\n", "is empty"),
            (b"\xff\n", "is not UTF-8"),
            (long, f"is longer than {LONGEST_GIVEN}"),
            (long + b"\r\nmore", f"is longer than {LONGEST_GIVEN}"),
        ):
            path = self.file(content)
            self.assertIn(f"{path}: {reason}", self.refusal(password_of, "me", path))
        reason = self.refusal(password_of, "me", "/nowhere/secret")
        self.assertEqual(reason, "/nowhere/secret: No such file or directory")

    def test_longest_in_file(self) -> None:
        """
        The end of the line does not count.
        """
        path = self.file(b"x" * LONGEST_GIVEN + b"\r\nmore")
        self.assertEqual(len(password_of("me", path)), LONGEST_GIVEN)

    def test_environment(self) -> None:
        """
        The environment's is taken without asking.
        """
        self.environment("correct horse")
        asked = self.types()
        self.assertEqual(password_of("me", None), "correct horse")
        self.assertEqual(asked, [])

    def test_bad_environment(self) -> None:
        """
        What cannot be sent is refused by the variable's name.
        """
        self.environment(b"\xffsecret".decode("utf-8", "surrogateescape"))
        self.assertEqual(self.refusal(password_of, "me", None), f"{VARIABLE}: is not UTF-8")
        self.environment("x" * (LONGEST_GIVEN + 1))
        self.assertIn(f"{VARIABLE}: is longer", self.refusal(password_of, "me", None))

    def test_typed(self) -> None:
        """
        At a terminal the user is asked.
        """
        asked = self.types("one")
        self.assertEqual(password_of("me", None), "one")
        self.assertEqual(asked, ["Password of me: "])

    def test_given_up(self) -> None:
        """
        No answer is an error, not a password.
        """
        for ending in (KeyboardInterrupt, EOFError):
            self.types(ending)
            reason = self.refusal(password_of, "me", None)
            self.assertEqual(reason, "no password was given for me")

    def test_nobody_to_ask(self) -> None:
        """
        Where nobody can be asked, the error says how to give it.
        """
        for nobody in (io.StringIO(), None):
            self.patch(sys, "stdin", nobody)
            self.assertIn(
                f"set {VARIABLE}, or name a file with --password-file",
                self.refusal(password_of, "me", None),
            )

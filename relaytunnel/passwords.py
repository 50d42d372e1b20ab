"""
Passwords as people give them to the C{relaytunnel} command: typed, in a file, or
in the environment.

What is compared with them, and how, is in L{relaytunnel.accounts}.
"""

from __future__ import annotations

import getpass
import os
import sys

from relaytunnel.errors import ConfigError
from relaytunnel.wire.messages import LONGEST_GIVEN

__all__ = ["VARIABLE", "new_password", "password_of"]

VARIABLE = "RELAYTUNNEL_PASSWORD"
"""The environment variable that holds a visitor's password."""


def new_password() -> str:
    """
    Ask for a password that is to be: twice at a terminal, or else as a line of
    standard input.

    @raise ConfigError: none is given, or one that nobody could log in with.
    """
    if not _at_terminal():
        try:
            line = "" if sys.stdin is None else sys.stdin.readline()
        except (OSError, UnicodeError) as fault:
            raise ConfigError([f"standard input: {_reason(fault)}"]) from None
        return _checked("the password", line.rstrip("\r\n"))
    password = _checked("the password", _asked("Password: ", "no password was given"))
    if _asked("Once more: ", "the password was not repeated") != password:
        raise ConfigError(["the two passwords differ"])
    return password


def password_of(user: str, file: str | None) -> str:
    """
    Find a visitor's password: in a file, in the environment, or by asking.

    @param file: its first line is the password.

    @raise ConfigError: there is none, or none that can be right.
    """
    if file is not None:
        return _checked(file, _first_line(file))
    given = os.environ.get(VARIABLE)
    if given:
        return _checked(VARIABLE, given)
    if not _at_terminal():
        raise ConfigError(
            [
                f"there is no password for {user}: set {VARIABLE}, or name a file with"
                " --password-file"
            ]
        )
    typed = _asked(f"Password of {user}: ", f"no password was given for {user}")
    return _checked("the password", typed)


def _at_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _asked(prompt: str, otherwise: str) -> str:
    try:
        return getpass.getpass(prompt)
    except (KeyboardInterrupt, EOFError, UnicodeError):
        raise ConfigError([otherwise]) from None


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            # More than any password has, so that a longer one is told from it.
            return file.readline(LONGEST_GIVEN + 3).rstrip("\r\n")
    except (OSError, UnicodeError) as fault:
        raise ConfigError([f"{path}: {_reason(fault)}"]) from None


def _reason(fault: OSError | UnicodeError) -> str:
    return (isinstance(fault, OSError) and fault.strerror) or "is not UTF-8"


def _checked(place: str, password: str) -> str:
    """
    @raise ConfigError: no client could give this; the message does not quote it.
    """
    if not password:
        raise ConfigError([f"{place}: is empty; a password has 1 to {LONGEST_GIVEN} characters"])
    if len(password) > LONGEST_GIVEN:
        raise ConfigError([f"{place}: is longer than {LONGEST_GIVEN} characters"])
    try:
        password.encode("utf-8")
    except UnicodeError:
        raise ConfigError([f"{place}: is not UTF-8"]) from None
    return password

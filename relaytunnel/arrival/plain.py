"""
Plain text, for clients whose protocol is not known.

A line of text is what can be said to anybody: people see it in a terminal,
and programs put it in their logs.  Here is also the way of those who match no
other one.
"""

from __future__ import annotations

from relaytunnel.arrival.ways import (
    DEFAULT_LIMITS,
    Asked,
    Directory,
    Limits,
    Malformed,
    Named,
    Opening,
)
from relaytunnel.errors import Code, Failing

__all__ = ["UNKNOWN", "UnknownArrival", "one_line", "text_line", "too_late"]

_MAX_REASON = 256
_SPOKEN = (
    "this protocol does not say which server is wanted; TLS with a server name, HTTP/1.1,"
    " HTTP CONNECT, SOCKS5 or a line of text do"
)


def one_line(text: str) -> str:
    """
    Make any text harmless on a single line.

    @return: at most 256 characters, where everything that is not printable
        (line ends, escapes, marks that turn the writing round) is a space.
    """
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_REASON])


def text_line(failing: Failing) -> bytes:
    """
    Say why a client cannot be served, in a line that ends in CRLF.
    """
    return f"relaytunnel: {failing.code.value}: {one_line(failing.reason)}\r\n".encode()


def too_late() -> bytes:
    """
    Say to a client that it did not name its server in time.
    """
    return text_line(Failing(Code.TIMEOUT, "no server was named in time"))


class UnknownArrival:
    """
    A client whose first bytes belong to no way.  It names nobody; if nobody
    serves such clients, it is told what is spoken here.
    """

    name = "unknown"

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        """
        @param limits: of no use here; every way is begun with them.
        """

    def feed(self, buffer: bytes) -> Named | Malformed | None:
        """
        Find nothing in whatever it is; see L{Way.feed}.
        """
        return Named(self.name, None)

    def take_reply(self) -> bytes:
        """
        Nothing.
        """
        return b""

    def ask(self, directory: Directory, why: Failing | None) -> Asked | None:
        """
        There is no answer to be had, so the channel ends behind the question.
        """
        return Asked(text_line(Failing(Code.UNSUPPORTED, _SPOKEN)), over=True)

    def answer(self, failing: Failing) -> bytes:
        """
        One line of text.
        """
        return text_line(failing)

    def timed_out(self) -> bytes:
        """
        One line of text.
        """
        return too_late()


def _fits(prefix: bytes) -> bool:
    return True


UNKNOWN = Opening("unknown", _fits, UnknownArrival)

"""
Plain text, for clients whose protocol is not known.

A line of text is what can be said to anybody: people see it in a terminal,
and programs put it in their logs.  Here is also the way of those who match no
other one.
"""

from __future__ import annotations

from relaytunnel.arrival.ways import DEFAULT_LIMITS, Limits, Malformed, Named, Opening
from relaytunnel.errors import Code, Failing

__all__ = ["UNKNOWN", "UnknownArrival", "one_line", "text_line", "too_late"]

_MAX_REASON = 256


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
    A client whose first bytes belong to no way: it is told so.
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
        failing = Failing(Code.UNSUPPORTED, "this protocol is not spoken here; HTTP/1.1 is")
        return Malformed(failing.reason, text_line(failing))

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

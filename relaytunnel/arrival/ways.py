"""
What all ways of naming a server have in common.

A I{way} is one protocol in which a client that came to the shared port may
say which server it wants.  The names here are those that every way uses and
that the relay sees: what a way is, what it finds, and how one is recognised.
The ways themselves live beside this module, one module each, and the choice
among them in L{relaytunnel.arrival.detect}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from relaytunnel.errors import Failing

__all__ = [
    "DEFAULT_LIMITS",
    "Limits",
    "Malformed",
    "Named",
    "Opening",
    "Way",
]


@dataclass(frozen=True)
class Limits:
    """
    How much a client may say before it has named its server.

    @ivar max_head: bytes, from the first one to the end of the head.
    @ivar max_headers: header fields in an HTTP head.
    """

    max_head: int = 16384
    max_headers: int = 100


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Named:
    """
    The client said which server it wants.

    @ivar way: the name of the way it used, such as C{"http"}.
    @ivar host: what it named: ASCII in lower case (A-labels, RFC 5890
        2.3.2.1), without a trailing dot; an IP address in its canonical text
        form, without brackets.  L{None} if the client named nobody, as
        HTTP/1.0 allows.
    @ivar port: the port it named beside the host, if it did.
    """

    way: str
    host: str | None
    port: int | None


@dataclass(frozen=True)
class Malformed:
    """
    The client cannot be understood, and no further byte will mend it.

    @ivar reason: what is wrong, as a sentence.
    @ivar answer: the bytes that tell the client so, in its own protocol.
        After them its channel ends.
    """

    reason: str
    answer: bytes


class Way(Protocol):
    """
    One client's head in one protocol, while it is read and answered.

    A way reads, and never alters what it reads: the very bytes that the
    client sent go on to its server.  It keeps only what it needs to answer
    fittingly, because the bytes themselves are held once, elsewhere.
    """

    @property
    def name(self) -> str:
        """
        What this way is called in logs and rules, such as C{"http"}.
        """

    def feed(self, buffer: bytes) -> Named | Malformed | None:
        """
        Look at everything that the client has sent so far.

        What is found depends on the bytes alone, not on how they were cut
        into calls, and once it is found it stays.

        @param buffer: all bytes since the first; each call gets the bytes of
            the call before and possibly more.

        @return: what was found, or L{None} if it takes more bytes to tell.
        """

    def answer(self, failing: Failing) -> bytes:
        """
        Say in the client's protocol why it cannot be served.

        @return: all that is to be sent before the client channel ends.
        """

    def timed_out(self) -> bytes:
        """
        Say in the client's protocol that its head did not come in time.

        @return: all that is to be sent before the client channel ends.
        """


@dataclass(frozen=True)
class Opening:
    """
    How a way is recognised, and begun.

    @ivar name: the name of the way.
    @ivar fits: looks at the first bytes; true if they are this way's, false
        if they cannot be, L{None} if it takes more bytes to tell.  It has to
        decide within a few dozen bytes, and to stay with what it decided.
    @ivar begin: makes the way for one client.
    """

    name: str
    fits: Callable[[bytes], bool | None]
    begin: Callable[[Limits], Way]

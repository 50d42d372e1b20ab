"""
What all ways of naming a server have in common.

A I{way} is one protocol in which a client that came to the shared port may
say which server it wants.  The names here are those that every way uses and
that the relay sees: what a way is, what it finds, and how one is recognised.
The ways themselves live beside this module, one module each, and the choice
among them in L{relaytunnel.arrival.detect}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from relaytunnel.arrival.request import Request
from relaytunnel.errors import Failing

__all__ = [
    "DEFAULT_LIMITS",
    "Asked",
    "Choice",
    "Directory",
    "Limits",
    "Login",
    "Malformed",
    "Named",
    "Opening",
    "Prelude",
    "Quiet",
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
class Login:
    """
    A user name and a password, as the client gave them.
    """

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Prelude:
    """
    What the relay says to the server in the client's stead, before anything
    of the client's own reaches it, and what the server has to answer.

    @ivar says: the bytes for the server.
    @ivar hears: the very bytes that it answers; they do not reach the client,
        who has had them.
    """

    says: bytes
    hears: bytes


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
    @ivar consumed: how many of the client's first bytes were for the relay
        alone and do not go on to the server.
    @ivar instead: what goes on in their place.
    @ivar welcome: what the client is told when its server has been reached,
        before anything that the server says.
    @ivar login: who it says it is.
    @ivar remembered: what it says that it chose before, when it was asked, as
        the relay has signed it, L{Directory.remember}; of use if it named
        nobody.
    @ivar service_worker: whether it asks for the script of a service worker
        (Service Workers 6.2), which would see what all others at this name
        are told.
    @ivar prelude: what precedes the client's bytes at the server.
    @ivar request: the whole request head, where more requests may follow it.
    """

    way: str
    host: str | None
    port: int | None = None
    consumed: int = 0
    instead: bytes = b""
    welcome: bytes = b""
    login: Login | None = None
    remembered: str | None = None
    prelude: Prelude | None = None
    service_worker: bool = False
    request: Request | None = field(default=None, compare=False, repr=False)


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


@dataclass(frozen=True)
class Choice:
    """
    A server that a client may be told of.

    @ivar connection_id: its name.
    @ivar addresses: where it is found, as people type it.
    """

    connection_id: str
    addresses: tuple[str, ...] = ()


class Directory(Protocol):
    """
    What one client may know of the servers, when it is asked which it wants.
    """

    def listed(self) -> Sequence[Choice]:
        """
        @return: the servers whose owners want them listed and that this client
            may reach, in the order of their names.
        """

    def refuses(self, connection_id: str) -> Failing | None:
        """
        @return: why this client cannot have the server of this ID, listed or
            not; L{None} if it can.
        """

    def remember(self, connection_id: str) -> str | None:
        """
        @return: the choice of this server, signed for this client; L{None} if
            its ID is too long for that.
        """

    def remembered(self, token: str) -> str | None:
        """
        @return: the connection ID of a choice; L{None} if it was not signed for
            this client.
        """

    def has_names_below(self, host: str) -> bool:
        """
        @param host: the relay's, as the client has named it.
        @return: whether C{ID.HOST} leads to this relay, too.
        """


@dataclass(frozen=True)
class Asked:
    """
    The question, as it is put to the client (S5).

    @ivar data: what is to be sent.
    @ivar over: whether the client channel ends behind it; if not, the client
        goes on, and is listened to.
    """

    data: bytes
    over: bool


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

    def take_reply(self) -> bytes:
        """
        @return: what the client is to be told now, so that it goes on; once.
        """

    def ask(self, directory: Directory, why: Failing | None) -> Asked | None:
        """
        Ask the client which server it wants.

        @param why: why the one that it named cannot be had; L{None} if it
            named nobody.

        @return: the question; L{None} if this protocol has no words for it.
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


class Quiet:
    """
    A way in which only the client speaks, until it is served or turned away.
    """

    def take_reply(self) -> bytes:
        """
        Nothing.
        """
        return b""

    def ask(self, directory: Directory, why: Failing | None) -> Asked | None:
        """
        There are no words for it.
        """
        return None


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

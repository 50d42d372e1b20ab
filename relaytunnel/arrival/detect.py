"""
The choice among the ways, and one client's arrival from its first byte on.

L{WAYS} is the one place that knows which ways there are: a further one is a
module beside this and a line in that table.  No protocol is spoken here, and
there is no clock: who owns the client channel feeds what comes in, and says
when the time is up.
"""

from __future__ import annotations

from relaytunnel.arrival.http import HTTP
from relaytunnel.arrival.plain import UNKNOWN, text_line, too_late
from relaytunnel.arrival.postgres import POSTGRES
from relaytunnel.arrival.question import QUESTION
from relaytunnel.arrival.socks import SOCKS4, SOCKS5
from relaytunnel.arrival.tls import SNI
from relaytunnel.arrival.ways import (
    DEFAULT_LIMITS,
    Asked,
    Directory,
    Limits,
    Malformed,
    Named,
    Opening,
    Way,
)
from relaytunnel.errors import Failing

__all__ = ["WAYS", "WAYS_WITHOUT_QUESTION", "Arrival", "detect"]

WAYS: tuple[Opening, ...] = (SNI, SOCKS5, SOCKS4, POSTGRES, HTTP, QUESTION)
"""All ways that can be recognised, the first that fits before the later."""

WAYS_WITHOUT_QUESTION = tuple(way for way in WAYS if way is not QUESTION)
"""The same where nobody is asked, because there is a server for those who do
not say which one they want."""


def detect(prefix: bytes, ways: tuple[Opening, ...] = WAYS) -> Opening | None:
    """
    Tell by the first bytes in which way a client names its server.

    @param prefix: all bytes since the first.
    @param ways: the ways to choose from.

    @return: the way, L{UNKNOWN} if it is none of them, or L{None} if it takes
        more bytes to tell.
    """
    for opening in ways:
        fits = opening.fits(prefix)
        # A later way has to wait until an earlier one is out of the question,
        # or the choice would depend on how the bytes are cut.
        if fits is None:
            return None
        if fits:
            return opening
    return UNKNOWN


class Arrival:
    """
    One client on the shared port, until it has said which server it wants.

    @ivar way: in which way it says so; L{None} until that can be told.
    @ivar outcome: what was found; L{None} until then.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS, ways: tuple[Opening, ...] = WAYS) -> None:
        self.way: Way | None = None
        self.outcome: Named | Malformed | None = None
        self._limits = limits
        self._ways = ways
        self._held = b""

    @property
    def held(self) -> bytes:
        """
        What the client sent up to the call of L{feed} that found something:
        at most L{Limits.max_head} bytes and one chunk.  Empty after
        L{Malformed}, as nobody will get it.
        """
        return self._held

    def feed(self, data: bytes) -> Named | Malformed | None:
        """
        Take what came in from the client.

        @param data: the bytes that came since the last call.  Once something
            was found, they are not looked at and not held: they are the
            caller's.

        @return: what was found, or L{None} if it takes more bytes to tell.
        """
        if self.outcome is not None:
            return self.outcome
        self._held += data
        if self.way is None:
            opening = detect(self._held, self._ways)
            if opening is None:
                return None
            self.way = opening.begin(self._limits)
        self.outcome = self.way.feed(self._held)
        if isinstance(self.outcome, Malformed):
            self._held = b""
        return self.outcome

    def take_reply(self) -> bytes:
        """
        @return: what the client is to be told now, so that it goes on.
        """
        return b"" if self.way is None else self.way.take_reply()

    def silent(self) -> bool:
        """
        The client has been silent for so long that it may be waiting for a
        word.  If nothing tells its protocol yet, it has none of its own: the
        next L{ask} puts the question in text.

        @return: whether that is so.
        """
        if self.way is not None or (self._held and not QUESTION.fits(self._held)):
            return False
        self.way = QUESTION.begin(self._limits)
        return True

    def ask(self, directory: Directory, why: Failing | None) -> Asked | None:
        """
        Ask the client which server it wants; it named none that is known.

        @param why: why the one that it named cannot be had; L{None} if it
            named nobody.

        @return: the question; L{None} if its protocol has no words for it.
            Unless it ends the channel, the client is listened to again.
        """
        if self.way is None:
            return None
        asked = self.way.ask(directory, why)
        if asked is not None and not asked.over:
            self.outcome = None
        return asked

    def take(self) -> bytes:
        """
        Hand over what is held, untouched, and hold it no longer.

        The arrival can still L{answer} afterwards.
        """
        held, self._held = self._held, b""
        return held

    def answer(self, failing: Failing) -> bytes:
        """
        Say to the client why it cannot be served: in its own protocol, or in
        a line of text as long as that is not known.

        @return: all that is to be sent before the client channel ends.
        """
        return text_line(failing) if self.way is None else self.way.answer(failing)

    def timed_out(self) -> bytes:
        """
        Say to the client that it did not name its server in time.

        @return: all that is to be sent before the client channel ends.
        """
        return too_late() if self.way is None else self.way.timed_out()

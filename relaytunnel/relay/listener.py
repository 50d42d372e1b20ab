"""
Listening to one client that came to a shared port, until it has named its
server or cannot any more (S5).

What it says is understood by L{relaytunnel.arrival}; here are its channel and
its deadlines, and the question is put.  Which server is meant is decided
elsewhere.
"""

from __future__ import annotations

from typing import Protocol

from relaytunnel.arrival import (
    DEFAULT_LIMITS,
    LATER_HTTP,
    WAYS,
    WAYS_WITHOUT_QUESTION,
    Arrival,
    Directory,
    Malformed,
    Named,
)
from relaytunnel.channel.tcp import TCPChannel
from relaytunnel.config.limits import Limits
from relaytunnel.deadlines import Deadlines
from relaytunnel.errors import Code, Failing, Rejection
from relaytunnel.relay.finding import Unnamed

__all__ = ["Heard", "Listener"]


_ASKED_ABOUT = (Code.NO_SUCH_SERVER, Code.AGENT_AWAY, Code.NOT_ALLOWED)
"""Why a client may want to name another server."""


class Heard(Protocol):
    """
    Whoever is told what a client said.
    """

    def named(self, named: Named) -> None:
        """
        The client has named its server, or nobody.

        @raise Rejection: it cannot be had.
        """

    def not_served(self, why: Rejection, answer: bytes) -> None:
        """The client is to be told this, and not served."""


class Listener:
    """
    Hears one client out.
    """

    def __init__(
        self,
        channel: TCPChannel,
        heard: Heard,
        directory: Directory,
        deadlines: Deadlines,
        limits: Limits,
        asks: bool,
        later: bool = False,
    ) -> None:
        """
        @param directory: what the client may be told of the servers.
        @param asks: whether a client is asked that names nobody.
        @param later: whether requests came on this channel before, so that it
            speaks HTTP.
        """
        self._channel = channel
        self._heard = heard
        self._directory = directory
        self._deadlines = deadlines
        self._limits = limits
        ways = WAYS if asks else WAYS_WITHOUT_QUESTION
        self._arrival = Arrival(ways=(LATER_HTTP,) if later else ways)
        self._fed = 0
        self._asks = asks
        self._asked = False
        channel.holding.heard = self._listen
        # A whole head and a byte too many have to come in before it is paused.
        channel.holding.bound(max(limits.held, DEFAULT_LIMITS.max_head + 1))
        self._deadline = deadlines.within(limits.arrival, self._too_late)
        self._silence = deadlines.within(limits.silence, self._is_silent)

    def begin(self) -> None:
        """
        Listen to what has come already: behind a balancer's header that may be
        all there is.
        """
        holding = self._channel.holding
        if holding.held or holding.ended:
            self._listen()

    def give_up(self) -> None:
        """
        The client has had its time.
        """
        self._too_late()

    def answer(self, failing: Failing) -> bytes:
        """
        Say in the client's protocol why it is not served.
        """
        return self._arrival.answer(failing)

    def stop(self) -> None:
        """
        Listen no more.
        """
        self._channel.holding.heard = None
        self._silence.cancel()
        self._deadline.cancel()
        self._arrival.take()
        self._channel.holding.bound(self._limits.held)

    def _listen(self) -> None:
        holding, arrival = self._channel.holding, self._arrival
        while True:
            outcome = arrival.feed(holding.held[self._fed :])
            self._fed = len(holding.held)
            if arrival.way is not None:
                self._silence.cancel()
                reply = arrival.take_reply()
                if reply:
                    self._channel.write(reply)
            if isinstance(outcome, Malformed):
                self._say(Rejection(Code.INVALID, outcome.reason), outcome.answer)
            elif isinstance(outcome, Named):
                if self._ask_again(self._try(outcome)):
                    continue  # its next answer may be here already
            elif holding.ended:
                self._say(Rejection(Code.INVALID, "the client named no server and ended"), b"")
            return

    def _try(self, named: Named) -> Rejection | None:
        """
        @return: why the server that was named cannot be had.
        """
        try:
            self._heard.named(named)
        except Rejection as rejection:
            return rejection
        return None

    def _ask_again(self, why: Rejection | None) -> bool:
        """
        @return: whether the client was asked, and may answer.
        """
        if why is None:
            return False
        failing = Failing(why.code, why.reason)
        asked = None
        if self._asks and why.code in _ASKED_ABOUT:
            asked = self._arrival.ask(
                self._directory, None if isinstance(why, Unnamed) else failing
            )
        if asked is None:
            self._say(why, self._arrival.answer(failing))
        elif asked.over:
            self._say(why, asked.data)
        else:
            self._channel.write(asked.data)
            if not self._asked:
                self._asked = True
                # Whoever is asked is a person, who reads before typing.
                self._deadline.cancel()
                self._deadline = self._deadlines.within(self._limits.question, self._too_late)
            return True
        return False

    def _is_silent(self) -> None:
        if not self._arrival.silent():
            return
        if self._asks and self._fed:
            self._listen()  # what it began to say is the beginning of an answer
        else:
            self._ask_again(self._try(Named("silence", None)))

    def _too_late(self) -> None:
        limit = self._limits.question if self._asked else self._limits.arrival
        self._say(
            Rejection(Code.TIMEOUT, f"the client named no server within {limit:g} s"),
            self._arrival.timed_out(),
        )

    def _say(self, why: Rejection, answer: bytes) -> None:
        self.stop()
        self._heard.not_served(why, answer)

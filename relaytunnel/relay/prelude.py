"""
What the relay says to a server before its client's bytes, and what the server
has to answer.

Some protocols let a client begin TLS only when the server has agreed in the
clear.  The relay agrees in its stead, to hear the server's name; then the
server has to be asked as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from relaytunnel.arrival import Prelude
from relaytunnel.errors import Code, Failing
from relaytunnel.interfaces import IChannelReceiver, Lost

__all__ = ["PreludeExchange"]


@implementer(IChannelReceiver)
class PreludeExchange:
    """
    One exchange over a data channel, before it is spliced.
    """

    def __init__(
        self,
        stream: Any,
        prelude: Prelude,
        done: Callable[[Failing | None], None],
        clock: IReactorTime,
        patience: float,
    ) -> None:
        """
        @param stream: the data channel.
        @param done: called once: without a failing the data channel stands, and
            waits to be spliced; with one it is gone.
        @param patience: seconds to wait for the answer.
        """
        self._stream: Any = stream
        self._wanted = prelude.hears
        self._done: Callable[[Failing | None], None] | None = done
        self._alarm: IDelayedCall | None = clock.callLater(patience, self._too_late)
        self._patience = patience
        stream.attach(self)
        stream.write(prelude.says)

    def stop(self) -> None:
        """
        The client is gone: so is the exchange.
        """
        self._end()[1].reset()

    def _end(self) -> tuple[Callable[[Failing | None], None] | None, Any]:
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()
        done, self._done, self._alarm = self._done, None, None
        return done, self._stream

    def _fail(self, failing: Failing) -> None:
        done, stream = self._end()
        if done is not None:
            stream.reset()
            done(failing)

    def _too_late(self) -> None:
        self._fail(
            Failing(Code.TIMEOUT, f"the server did not agree to TLS within {self._patience:g} s")
        )

    def data_received(self, data: bytes) -> None:
        if not self._wanted.startswith(data):
            self._fail(Failing(Code.REFUSED_BY_TARGET, "the server does not agree to TLS"))
            return
        self._wanted = self._wanted[len(data) :]
        if not self._wanted:
            done, _ = self._end()
            if done is not None:
                done(None)

    def end_received(self) -> None:
        self._fail(Failing(Code.REFUSED_BY_TARGET, "the server ended instead of agreeing to TLS"))

    def end_sent(self) -> None:
        """
        Nothing was ended.
        """

    def channel_lost(self, why: Lost) -> None:
        self._fail(Failing(Code.REFUSED_BY_TARGET, "the server reset instead of agreeing to TLS"))

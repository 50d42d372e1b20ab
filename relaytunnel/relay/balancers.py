"""
Client channels that come by way of a balancer, which says in a header of the
PROXY protocol whose they are.

Balancers are known by their networks.  From there the header is a must; from
anywhere else it is nothing that is looked for.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from relaytunnel.channel.tcp import TCPChannel
from relaytunnel.errors import ProtocolError
from relaytunnel.interfaces import Lost
from relaytunnel.wire.proxied import Proxied, ProxyReader

__all__ = ["Balanced"]


class Balanced:
    """
    One client channel, until the balancer has said whose it is.
    """

    _log = Logger()

    def __init__(
        self,
        channel: TCPChannel,
        known: Callable[[TCPChannel, Proxied], None],
        gone: Callable[[Balanced], None],
        clock: IReactorTime,
        patience: float,
    ) -> None:
        """
        @param known: called when the header is there; what is held of the
            channel then is the client's own.
        @param gone: called in the end, whatever became of it.
        @param patience: seconds from accept until the header is there.
        """
        self._channel = channel
        self._known = known
        self._gone = gone
        self._reader = ProxyReader()
        self._fed = 0
        self._patience = patience
        self._alarm: IDelayedCall = clock.callLater(patience, self._too_late)
        channel.holding.heard = self._heard
        channel.holding.lost = self._lost

    def _heard(self) -> None:
        holding = self._channel.holding
        try:
            found = self._reader.feed(holding.held[self._fed :])
        except ProtocolError as fault:
            self._refuse(str(fault))
            return
        self._fed = len(holding.held)
        if found is not None:
            proxied, rest = found
            self._end()
            holding.replace(self._fed - len(rest), b"")
            self._known(self._channel, proxied)
        elif holding.ended:
            self._refuse("it ended before its header did")

    def _too_late(self) -> None:
        self._refuse(f"no header of the PROXY protocol came within {self._patience:g} s")

    def _refuse(self, why: str) -> None:
        self._log.warn(
            "a connection of the balancer {peer} is dropped: {why}",
            peer=self._channel.peer,
            why=why,
        )
        self._end()
        self._channel.reset()

    def _lost(self, why: Lost) -> None:
        self._end()

    def _end(self) -> None:
        if self._alarm.active():
            self._alarm.cancel()
        self._channel.holding.heard = self._channel.holding.lost = None
        self._gone(self)

    def abort(self) -> None:
        """
        Drop the channel.
        """
        self._end()
        self._channel.reset()

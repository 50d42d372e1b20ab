"""
The data channels that an agent dials, and those it has parked.

A parked channel has ended its session cleanly and may carry a later one,
which then costs no handshake.  There are as many as the clients that came
lately could use, and those that nobody wants expire.
"""

from __future__ import annotations

import math
import socket
import sys
from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from relaytunnel.channel.control import describe_loss
from relaytunnel.channel.dialling import Address, Attempt
from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.framed import DataChannel
from relaytunnel.channel.secure import TLSConnection
from relaytunnel.channel.tcp import TCPChannel
from relaytunnel.channel.tls import DATA, AgentTLS, negotiated
from relaytunnel.config.limits import Limits
from relaytunnel.errors import ProtocolError

__all__ = ["DataChannels", "Demand", "OneProtocol"]

_MOST_PARKED = 512
_ALONE = 1.2
"""A demand below this is that of one client, or of some that came far apart."""
_ALONE_SHARE = 0.2
"""The part of the time that a channel of such a client is parked."""


class Demand:
    """
    How many clients have come lately; those of long ago count for less.
    """

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        """
        @param seconds: what is lately: clients count for a third behind it.
        """
        self._clock = clock
        self._seconds = seconds
        self._count = 0.0
        self._at = clock.seconds()

    def add(self) -> None:
        """
        One more has come.
        """
        self._count = self._now() + 1

    @property
    def level(self) -> int:
        """Their number, rounded up unless next to nothing is left."""
        return math.ceil(self._now() - 0.1)

    @property
    def alone(self) -> bool:
        """Whether no other client has come shortly before the last one."""
        return self._now() < _ALONE

    def _now(self) -> float:
        now = self._clock.seconds()
        # Never upwards: somebody may have set the clock back, by much.
        self._count *= math.exp(min(0.0, self._at - now) / self._seconds)
        self._at = now
        return self._count


class OneProtocol(Factory):
    """
    A factory for a connection that is dialled once.
    """

    noisy = False

    def __init__(self, make: Callable[[], Protocol]) -> None:
        self._make = make

    def buildProtocol(self, addr: object) -> Protocol:
        return self._make()


@implementer(IHandshakeListener)
class _DialledChannel(DataChannel):
    """
    The agent's end of a data channel.

    @ivar ready: fires when the relay has proved who it is; fails with
        L{ProtocolError} if it does not.
    """

    def __init__(self, clock: IReactorTime, limits: Limits, edges: EdgeWatch) -> None:
        super().__init__(clock, limits, edges)
        self.ready: Deferred[DataChannel] = Deferred(self._given_up)
        self._asked = True
        self.attempt: Attempt | None = None

    def connectionMade(self) -> None:
        self.attempt = None
        super().connectionMade()

    def handshakeCompleted(self) -> None:
        if negotiated(self.transport) != DATA:
            self._answer(Failure(ProtocolError("what answers there takes no data channels")))
            self.abort()
        else:
            self._answer(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._answer(Failure(ProtocolError(describe_loss(reason))))

    def unreachable(self, failure: Failure) -> None:
        """
        There is no connection.
        """
        self.attempt = None
        self._gone = True
        self.lost(self)
        self._answer(failure)

    def abort(self) -> None:
        if self.attempt is not None:
            self.attempt.cancel()
            self.unreachable(Failure(ProtocolError("it was given up")))
        else:
            super().abort()

    def _given_up(self, ready: Deferred[DataChannel]) -> None:
        self._asked = False  # a Deferred that is cancelled fails by itself
        self.abort()

    def _answer(self, result: object) -> None:
        if self._asked:
            self._asked = False
            self.ready.callback(result)  # type: ignore[arg-type]  # a Failure is fine too


class DataChannels:
    """
    Where data channels come from and go to.

    @ivar demand: for them.
    @ivar releases: whether the relay says when it has let go of a session,
        L{relaytunnel.wire.messages.Welcome}.
    """

    releases = False

    def __init__(
        self,
        clock: IReactorTime,
        limits: Limits,
        edges: EdgeWatch,
        relay: IStreamClientEndpoint,
        tls: AgentTLS,
    ) -> None:
        """
        @param relay: where the relay is.
        @param tls: how it is recognised.
        """
        self._clock = clock
        self._limits = limits
        self._edges = edges
        self._relay = relay
        self._address: IAddress | None = None
        self._tls = tls
        self._parked: dict[DataChannel, IDelayedCall] = {}
        self._all: set[DataChannel] = set()
        self._most = sys.maxsize
        self._most_parked = _MOST_PARKED
        self._dialled = 0
        self.demand = Demand(clock, limits.parked / 2)

    def lead_to(self, relay: IStreamClientEndpoint, tls: AgentTLS) -> None:
        """
        This is another relay, or the same with another key.  Channels that are
        dialled or in use are left as they are.
        """
        self._relay, self._tls = relay, tls
        self._address = None
        self.forget_parked()

    def found_at(self, relay: IStreamClientEndpoint, address: IAddress) -> None:
        """
        Dial here from now on.  What is parked leads to the relay as it was
        found before: to another address, it is of no use any more.
        """
        self._relay = relay
        if address != self._address:
            self._address = address
            for channel, alarm in list(self._parked.items()):
                alarm.cancel()
                self._expire(channel)

    @property
    def address(self) -> tuple[str, int] | None:
        """Where the relay is, once the control channel has found it."""
        found: Any = self._address
        return None if found is None or "%" in found.host else (found.host, found.port)

    @property
    def parked(self) -> int:
        """How many channels wait for a later session."""
        return len(self._parked)

    def take_parked(self) -> DataChannel | None:
        """
        A client has come.

        @return: the channel that was parked last, if there is one.
        """
        self.demand.add()
        for channel in reversed(list(self._parked)):
            if channel.usable and not (channel.released and channel.silent):
                channel.read_now()
            if channel not in self._parked or (self._is_busy(channel) and channel.usable):
                continue
            self._parked.pop(channel).cancel()
            if channel.usable and channel.silent:
                return channel
            channel.close()
        return None

    def _is_busy(self, channel: DataChannel) -> bool:
        """
        Whether the relay may still be passing on what the last session said,
        to a client that is slow to take it: it would read no ticket meanwhile.
        """
        return self.releases and not channel.released

    def dial(self) -> Deferred[DataChannel]:
        """
        Open a channel; cancelling gives up.

        @return: fires when the relay has proved who it is.
        """
        if len(self._all) >= self._most:
            return fail(ProtocolError("too many data channels are closing still"))
        self._dialled += 1
        channel = _DialledChannel(self._clock, self._limits, self._edges)
        channel.number = self._dialled
        channel.idle = self.park
        channel.lost = self._lost
        if self.address is not None and self._edges.works:
            self._all.add(channel)
            self._attempt(channel, self.address)
            return channel.ready
        connecting: Deferred[Any] = wrapClientTLS(self._tls, self._relay).connect(
            OneProtocol(lambda: channel)
        )

        def connected(_: object) -> Deferred[DataChannel]:
            self._all.add(channel)
            return channel.ready

        return connecting.addCallback(connected)

    def _attempt(self, channel: _DialledChannel, address: Address) -> None:
        def secure(sock: socket.socket) -> TLSConnection:
            tls = self._tls.connection(sock)
            return TLSConnection(tls, sock, channel, self._edges, self._clock, address, True)

        channel.attempt = attempt = Attempt(
            self._edges, self._clock, address, channel, channel.unreachable, secure
        )
        attempt.begin(self._limits.dial)

    def dial_plain(self) -> Deferred[TCPChannel]:
        """
        Open a connection to the relay without TLS; cancelling gives up.
        """
        connecting: Deferred[Any] = self._relay.connect(
            OneProtocol(lambda: TCPChannel(self._clock, self._limits, self._edges))
        )
        return connecting.addCallback(lambda proxy: getattr(proxy, "wrappedProtocol", proxy))

    def bound(self, sessions: int, parked: int) -> None:
        """
        Have no more data channels than for so many sessions, and so many that
        have none: parked, or closing while the relay takes its time.
        """
        self._most = sessions + parked
        self._most_parked = min(_MOST_PARKED, parked)

    def park(self, channel: DataChannel) -> None:
        """
        A channel's session has ended cleanly, or another one never began.
        """
        if not channel.usable:
            return
        channel.lost = self._lost
        if len(self._parked) >= min(self.demand.level, self._most_parked):
            self._part(channel)
        else:
            seconds = self._limits.parked * (_ALONE_SHARE if self.demand.alone else 1)
            self._parked[channel] = self._clock.callLater(seconds, self._expire, channel)

    def give_up_parked(self) -> bool:
        """
        Let go of the channel that has been parked for the longest.

        @return: whether there was one.
        """
        for channel, alarm in self._parked.items():
            alarm.cancel()
            self._expire(channel)
            return True
        return False

    def _expire(self, channel: DataChannel) -> None:
        del self._parked[channel]
        self._part(channel)

    def _part(self, channel: DataChannel) -> None:
        """
        Let go of a channel that nobody needs.
        """
        if self.releases and channel.released:
            # Nothing is on its way.  A firewall remembers a connection that
            # was reset for seconds, and one that was closed for minutes.
            channel.abort()
        else:
            # The last client may still be reading the last bytes: the relay
            # waits for it, and so do we.
            channel.close(self._limits.half_closed)

    def _lost(self, channel: DataChannel) -> None:
        self._all.discard(channel)
        alarm = self._parked.pop(channel, None)
        if alarm is not None:
            alarm.cancel()

    def use(self, limits: Limits) -> None:
        """
        These are the limits from now on.
        """
        self._limits = limits

    def forget_parked(self) -> None:
        """
        The relay that knows the parked channels is about to go.
        """
        for channel, alarm in list(self._parked.items()):
            alarm.cancel()
            self._expire(channel)

    def close(self) -> None:
        """
        Abort every channel.
        """
        for channel in list(self._all):
            channel.abort()

"""
The port that agents dial: control channels, data channels and plain ones.

The first byte says whether it is TLS; ALPN says which channel it is.  Nothing
here is trusted before a ticket or a secret was shown, so all of it is counted,
as L{Admission} does it, and has a deadline.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from zope.interface import implementer

from twisted.internet.interfaces import IAddress, IDelayedCall, IHandshakeListener, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger, LogLevel
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from relaytunnel.channel.control import ControlChannel, describe_loss
from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.framed import DataChannel
from relaytunnel.channel.secure import TLSConnection
from relaytunnel.channel.sockets import EdgeConnection
from relaytunnel.channel.stream import FramedStream
from relaytunnel.channel.tcp import TCPChannel
from relaytunnel.channel.tls import CONTROL, DATA, RelayTLS, negotiated
from relaytunnel.config.limits import Limits
from relaytunnel.deadlines import Deadline, Deadlines
from relaytunnel.errors import ProtocolError
from relaytunnel.pools import Pool, Reclaimable
from relaytunnel.ratelimited import RateLimitedLog
from relaytunnel.relay.admission import Admission, Newcomer
from relaytunnel.relay.visits import Visits
from relaytunnel.wire.data import read_plain_preamble

__all__ = ["AgentsPort"]

_TLS_HANDSHAKE_RECORD = 0x16


class AgentsPort(Factory):
    """
    Makes the relay's end of whatever an agent dials.

    @ivar admission: who may come.
    @ivar idle: data channels whose session is over, parked or closing.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        limits: Limits,
        edges: EdgeWatch,
        tls: RelayTLS,
        visits: Visits,
        admission: Admission,
        new_control: Callable[[Newcomer, float], ControlChannel],
        idle: int = sys.maxsize,
    ) -> None:
        """
        @param new_control: makes a control channel of a connection that has to
            authenticate within so many seconds.
        @param idle: how many data channels there may be without a session.
        """
        self.admission = admission
        self.clock = clock
        self.deadlines = Deadlines(clock)
        self.limits = limits
        self.edges = edges
        self.visits = visits
        self.new_control = new_control
        self._refused = RateLimitedLog(clock, self._log)
        self.use(tls)
        self._parked: dict[DataChannel, IDelayedCall] = {}
        self._channels: dict[DataChannel, str] = {}
        self.idle: Reclaimable[DataChannel] = Reclaimable(Pool(idle))
        self._unknown: set[_Unknown] = set()

    def use(self, tls: RelayTLS) -> None:
        """
        Prove who the relay is with this from now on.
        """
        self.secure = tls
        self.tls = TLSMemoryBIOFactory(tls, False, Factory())
        self.tls.noisy = False

    @property
    def unauthenticated(self) -> int:
        """How many connections have shown nothing yet."""
        return self.admission.unauthenticated

    @property
    def turned_away(self) -> Counter[str]:
        """How many connections were refused, by reason."""
        return self.admission.turned_away

    @property
    def parked(self) -> int:
        """How many data channels wait for a later session."""
        return len(self._parked)

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        newcomer = self.admission.admit(getattr(addr, "host", ""))
        if newcomer is None:
            return None
        unknown = _Unknown(self, newcomer)
        self._unknown.add(unknown)
        return unknown

    def settle(self, unknown: _Unknown) -> None:
        """
        A connection has shown what it is, or is gone.
        """
        self._unknown.discard(unknown)

    def new_data_channel(self, before: _Unknown) -> DataChannel:
        """
        @param before: the connection as it was counted until now; it is until
            it presents a ticket that joins.
        @return: the relay's end of a data channel; it waits for a ticket.
        """
        channel = DataChannel(self.clock, self.limits, self.edges)
        newcomer = before.newcomer

        def first(channel: DataChannel, ticket: bytes) -> None:
            before.settle()
            channel.joining = partial(self._join, newcomer)
            self._join(newcomer, channel, ticket)

        def lost(channel: DataChannel) -> None:
            before.settle()
            newcomer.gone()
            self._lost(channel)

        before.wait_for_ticket()
        channel.joining = first
        channel.idle = self._park
        channel.lost = lost
        self._channels[channel] = newcomer.source
        return channel

    def close(self) -> None:
        """
        Abort every data channel, and whoever has shown nothing yet.
        """
        for channel in list(self._channels):
            channel.abort()
        for unknown in list(self._unknown):
            unknown.abort()
        self._refused.close()

    def _join(self, newcomer: Newcomer, channel: DataChannel, ticket: bytes) -> None:
        """
        S10, S11
        """
        alarm = self._parked.pop(channel, None)
        if alarm is not None:
            alarm.cancel()
        self.idle.discard(channel)
        place = self.visits.redeem(ticket)
        if place is None:
            newcomer.turn_away("no such ticket")
            self._no_such_ticket(newcomer, channel)
            channel.refuse()
        else:
            newcomer.proved()
            place.visit.joined(place, channel.begin())

    def join_plain(self, newcomer: Newcomer, channel: TCPChannel, ticket: bytes) -> None:
        """
        S10, S11 for a data channel without TLS: only for servers that were
        registered so.
        """
        place = self.visits.redeem(ticket, plain=True)
        if place is None:
            newcomer.turn_away("no such ticket")
            self._no_such_ticket(newcomer, channel)
            channel.reset()
        else:
            newcomer.proved()
            place.visit.joined(place, channel)
        newcomer.gone()  # what becomes of the channel is another's business now

    def _no_such_ticket(self, newcomer: Newcomer, channel: DataChannel | TCPChannel) -> None:
        self._refused.emit(
            LogLevel.warn,
            newcomer.source,
            "{peer} presented a ticket that joins nothing",
            peer=channel.peer,
        )

    def _park(self, channel: DataChannel) -> None:
        # The agent lets go first; this is for one that does not.
        self._parked[channel] = self.clock.callLater(2 * self.limits.parked, self._unpark, channel)

    def _unpark(self, channel: DataChannel) -> None:
        del self._parked[channel]
        channel.close()

    def session_over(self, stream: object) -> None:
        """
        A session has ended, and what carried it is of little worth now: parked
        for a later one, or about to close.
        """
        if not isinstance(stream, FramedStream):
            return
        channel = stream.channel
        source = self._channels.get(channel)
        if source is None or channel.stream is not None:
            return  # it is gone, or has a session again
        self.idle.discard(channel)
        oldest = self.idle.add(channel, source)
        if oldest is not None:
            oldest.abort()

    def _lost(self, channel: DataChannel) -> None:
        self._channels.pop(channel, None)
        self.idle.discard(channel)
        alarm = self._parked.pop(channel, None)
        if alarm is not None:
            alarm.cancel()


class _Unknown(Protocol):
    """
    A connection to the agents' port of which nothing is known yet.

    @ivar newcomer: the connection, as it is counted.
    """

    def __init__(self, port: AgentsPort, newcomer: Newcomer) -> None:
        self._port = port
        self.newcomer = newcomer
        self._seen = b""
        self._accepted = port.clock.seconds()
        self._deadline: Deadline | IDelayedCall = port.deadlines.within(
            port.limits.handshake, self._too_late
        )

    def _too_late(self) -> None:
        self.turn_away("silent")

    def turn_away(self, reason: str) -> None:
        """
        Close the connection for this reason, or for one given before.
        """
        self.newcomer.turn_away(reason)
        self.abort()

    def abort(self) -> None:
        """
        Close the connection at once, whatever has become of it.
        """
        self.transport.abortConnection()  # type: ignore[union-attr]

    def settle(self) -> None:
        """
        What this is, is known, or it is gone: others see to it.
        """
        self._port.settle(self)
        if self._deadline.active():
            self._deadline.cancel()

    def wait_for_ticket(self) -> None:
        """
        The handshake is done; what is left of the time to authenticate is for
        showing a ticket.
        """
        if self._deadline.active():
            self._deadline.cancel()
        self._deadline = self._port.clock.callLater(self.remaining(), self._too_late)

    def remaining(self) -> float:
        """
        @return: seconds that are left to authenticate.
        """
        passed = self._port.clock.seconds() - self._accepted
        return max(0.1, self._port.limits.authentication - passed)

    def starts_with(self, first: bytes) -> bool:
        """
        The first byte is there: if TLS begins with it, OpenSSL reads it.

        @return: whether it does.
        """
        if first[0] != _TLS_HANDSHAKE_RECORD:
            return False
        port, before = self._port, self.transport
        assert isinstance(before, EdgeConnection)
        sock, _ = before.surrender()
        handshake = _Handshake(port, self)
        self.transport = TLSConnection(
            port.secure.connection(sock),
            sock,
            handshake,
            port.edges,
            port.clock,
            before.peer,
            before.tuned,
        )
        handshake.makeConnection(self.transport)
        return True

    def dataReceived(self, data: bytes) -> None:
        if not self._seen and data[0] == _TLS_HANDSHAKE_RECORD:
            self._hand_over(
                self._port.tls.protocol(self._port.tls, _Handshake(self._port, self)), data
            )
            return
        self._seen += data
        try:
            found = read_plain_preamble(self._seen)
        except ProtocolError:
            self.turn_away("neither TLS nor plain")
            return
        if found is not None:
            ticket, rest = found
            self.settle()
            port = self._port
            channel = TCPChannel(port.clock, port.limits, port.edges)
            self._hand_over(channel, rest)
            port.join_plain(self.newcomer, channel, ticket)

    def _hand_over(self, protocol: Any, data: bytes) -> None:
        transport: Any = self.transport
        transport.protocol = protocol
        protocol.makeConnection(transport)
        if data:
            protocol.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.settle()
        self.newcomer.gone()


@implementer(IHandshakeListener)
class _Handshake(Protocol):
    """
    A TLS connection whose handshake is going on.
    """

    _log = Logger()

    def __init__(self, port: AgentsPort, before: _Unknown) -> None:
        self._port = port
        self._before = before

    def handshakeCompleted(self) -> None:
        transport: Any = self.transport
        chosen = negotiated(transport)
        protocol: Protocol
        if chosen == CONTROL:
            before = self._before
            protocol = self._port.new_control(before.newcomer, before.remaining())
            before.settle()
        elif chosen == DATA:
            protocol = self._port.new_data_channel(self._before)
        else:
            self._before.turn_away("no ALPN of ours")
            return
        if isinstance(transport, TLSConnection):
            transport.protocol = protocol
        else:
            transport.wrappedProtocol = protocol
        protocol.makeConnection(transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._before.settle()
        self._before.turn_away("handshake failed")
        self._before.newcomer.gone()
        self._log.debug(
            "no TLS with {peer}: {reason}",
            peer=self.transport.getPeer(),  # type: ignore[union-attr]
            reason=describe_loss(reason),
        )

"""
A relay and an agent on two stages: each moves only when a test says so.

Between client and server there is all that there is at work: engines, data
channels over TLS, real sockets.  What the two say to each other over a data
channel is carried record by record, so that a test can stop anywhere.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHandshakeListener, IReactorFDSet
from twisted.internet.task import Clock

from relaytunnel.agent.channels import DataChannels
from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.framed import DataChannel
from relaytunnel.channel.secure import TLSConnection
from relaytunnel.channel.sockets import EdgeConnection
from relaytunnel.channel.tcp import TCPChannel
from relaytunnel.channel.tls import DATA, AgentTLS, RelayTLS
from relaytunnel.config.limits import Limits
from tests.channel import identity

__all__ = ["Far", "Session", "Stage", "Stages"]

LIMITS = Limits(close=2, linger=4, linger_idle=1, half_closed=8, parked=10, dial=2)
SMALL = 8 * 1024
"""A kernel buffer that is full soon."""


@implementer(IReactorFDSet)
class Stage(Clock):
    """
    A reactor whose turns are given to it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []
        self.edges = EdgeWatch(self)

    def addReader(self, reader: Any) -> None:
        if reader not in self.readers:
            self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def addWriter(self, writer: Any) -> None:
        raise NotImplementedError

    def removeWriter(self, writer: Any) -> None:
        """
        There are none.
        """

    def removeAll(self) -> list[Any]:
        return []

    def getReaders(self) -> list[Any]:
        return list(self.readers)

    def getWriters(self) -> list[Any]:
        return []

    def turn(self) -> None:
        """
        Let everything have its turn that has something to do.
        """
        self.advance(0)
        for reader in list(self.readers):
            reader.doRead()


def loopback(near_buffer: int = 0, far_buffer: int = 0) -> tuple[socket.socket, socket.socket]:
    """
    @return: the two ends of a TCP connection.
    """
    with socket.socket() as listening:
        if near_buffer:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, near_buffer)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, near_buffer)
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        far = socket.socket()
        if far_buffer:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, far_buffer)
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, far_buffer)
        far.connect(listening.getsockname())
        near, _ = listening.accept()
    for sock in (near, far):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


class Far:
    """
    A client or a server: the far end of a connection.

    @ivar sent: what its kernel has taken.
    @ivar heard: what it has read.
    @ivar ended: whether it has read a clean end.
    @ivar was_reset: whether it has seen a reset.
    @ivar gone: whether it has let go of its socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sent = bytearray()
        self.heard = bytearray()
        self.ended = self.was_reset = self.gone = self.said_end = False

    def send(self, data: bytes) -> None:
        """
        Send as much as the kernel takes.
        """
        if self.gone or self.said_end:
            return
        try:
            self.sent += data[: self.sock.send(data)]
        except BlockingIOError:
            pass
        except OSError:
            self.was_reset = True

    def read(self, most: int = 1 << 20) -> None:
        """
        Read what there is, at most so much.
        """
        while most > 0 and not (self.gone or self.ended or self.was_reset):
            try:
                data = self.sock.recv(min(most, 65536))
            except BlockingIOError:
                return
            except OSError:
                self.was_reset = True
                return
            self.heard += data
            self.ended = not data
            most -= len(data)

    def end(self) -> None:
        """
        Half-close.
        """
        if not (self.gone or self.said_end):
            self.said_end = True
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """
        Let go, as a process does that exits.
        """
        self.gone = True
        self.sock.close()

    def reset(self) -> None:
        """
        Abort the connection.
        """
        if not self.gone:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()


class _Wire:
    """
    The network between an agent and a relay, for one data channel.
    """

    def __init__(self, agent: socket.socket, relay: socket.socket) -> None:
        self.ends = {"up": (agent, relay), "down": (relay, agent)}
        self.waiting = {"up": b"", "down": b""}
        self.ended = {"up": False, "down": False}

    def carry(self, way: str, records: int) -> bool:
        """
        Carry so many records, and an end behind the last.

        @return: whether there was anything to carry.
        """
        source, sink = self.ends[way]
        if sink.fileno() < 0 or source.fileno() < 0:
            return False
        self._take(way, source)
        moved = False
        for _ in range(records):
            waiting = self.waiting[way]
            size = 5 + int.from_bytes(waiting[3:5], "big")
            if len(waiting) < max(size, 5):
                break
            try:
                sent = sink.send(waiting[:size])
            except BlockingIOError:
                break
            except OSError:
                sent = len(waiting)
            self.waiting[way] = waiting[sent:]
            moved = True
        if self.ended[way] and not self.waiting[way]:
            self.ended[way] = False
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
            moved = True
        return moved

    def _take(self, way: str, source: socket.socket) -> None:
        try:
            while len(self.waiting[way]) < 65536:
                data = source.recv(65536)
                if not data:
                    self.ended[way] = True
                    self.ends = {**self.ends, way: (_Silent(), self.ends[way][1])}
                    return
                self.waiting[way] += data
        except BlockingIOError:
            pass
        except OSError:
            self.cut()

    def cut(self) -> None:
        """
        A reset of one side is one of the other.
        """
        for sock in {*self.ends["up"], *self.ends["down"]}:
            if sock.fileno() >= 0 and not isinstance(sock, _Silent):
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()


class _Silent(socket.socket):
    """
    What has ended, and says nothing more.
    """

    def fileno(self) -> int:
        return 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        raise BlockingIOError


@implementer(IHandshakeListener)
class _RelayChannel(DataChannel):
    def handshakeCompleted(self) -> None:
        """
        Wait for JOIN.
        """


class Session:
    """
    One client, one server, and what became of them.

    @ivar joined: whether the relay has the data channel.
    @ivar reports: of the relay's splice and of the agent's.
    """

    def __init__(self, number: int, client: Far, server: Far) -> None:
        self.number = number
        self.client = client
        self.server = server
        self.ticket = number.to_bytes(32, "big")
        self.joined = False
        self.reused = False
        self.reports: dict[str, Any] = {}

    def said(self, who: str, size: int) -> bytes:
        """
        @return: the next bytes that one of the two says: no other says these.
        """
        sent = len(self.client.sent if who == "client" else self.server.sent)
        word = f"<{who} {self.number}>".encode()
        whole = word * ((sent + size) // len(word) + 1)
        return whole[sent : sent + size]


class Stages:
    """
    The relay's stage and the agent's, with a network between.

    @ivar parked_at_relay: the channels that the relay believes to be idle.
    """

    def __init__(
        self, engine: Callable[[EdgeWatch], Any], agents: Callable[[EdgeWatch], Any] | None = None
    ) -> None:
        """
        @param agents: the agent's engine, if it is not the same.
        """
        self.relay, self.agent = Stage(), Stage()
        self.engines = {
            "relay": engine(self.relay.edges),
            "agent": (agents or engine)(self.agent.edges),
        }
        self.wires: list[_Wire] = []
        self.sessions: list[Session] = []
        self.waiting: dict[bytes, tuple[Session, TCPChannel]] = {}
        self.relay_channels: list[DataChannel] = []
        self.parked_at_relay: list[DataChannel] = []
        self._relay_tls = RelayTLS(identity())
        self._port = socket.socket()
        self._port.bind(("127.0.0.1", 0))
        self._port.listen(16)
        self._port.setblocking(False)
        address = IPv4Address("TCP", *self._port.getsockname())
        self.channels = DataChannels(
            self.agent,
            LIMITS,
            self.agent.edges,
            None,  # type: ignore[arg-type]  # the address is known
            AgentTLS("127.0.0.1", DATA, identity().pin),
        )
        self.channels.releases = True
        self.channels.found_at(None, address)  # type: ignore[arg-type]

    # What happens in between

    def accept(self) -> bool:
        """
        Connect the agent's new data channels to the relay.
        """
        moved = False
        while True:
            try:
                towards_agent, _ = self._port.accept()
            except BlockingIOError:
                return moved
            moved = True
            towards_agent.setblocking(False)
            towards_agent.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            near, far = loopback()
            self.wires.append(_Wire(towards_agent, far))
            channel = _RelayChannel(self.relay, LIMITS, self.relay.edges)
            channel.joining = self._joining
            channel.idle = self.parked_at_relay.append
            self.relay_channels.append(channel)
            peer = near.getpeername()
            channel.makeConnection(
                TLSConnection(
                    self._relay_tls.connection(near),
                    near,
                    channel,
                    self.relay.edges,
                    self.relay,
                    peer,
                )
            )

    def _joining(self, channel: DataChannel, ticket: bytes) -> None:
        session, client = self.waiting.pop(ticket, (None, None))
        if session is None:
            channel.refuse()
            return
        session.joined = True
        splice = self.engines["relay"].join(client, channel.begin(), LIMITS, self.relay)
        splice.done.addCallback(lambda report: session.reports.update(relay=report))

    def begin(self) -> Session:
        """
        A client comes for its server, with the channel that the agent has for it.
        """
        near_client, client = loopback(SMALL, SMALL)
        near_server, server = loopback()
        session = Session(len(self.sessions) + 1, Far(client), Far(server))
        self.sessions.append(session)
        at_relay, at_agent = (
            self._channel(self.relay, near_client),
            self._channel(self.agent, near_server),
        )
        self.waiting[session.ticket] = (session, at_relay)
        parked = self.channels.take_parked()
        if parked is not None:
            session.reused = True
            self._join(session, parked, at_agent)
        else:
            dialling = self.channels.dial()
            dialling.addCallback(lambda channel: self._join(session, channel, at_agent))
        return session

    def _channel(self, stage: Stage, sock: socket.socket) -> TCPChannel:
        channel = TCPChannel(stage, LIMITS, stage.edges)
        peer = sock.getpeername()
        channel.makeConnection(EdgeConnection(sock, channel, stage.edges, stage, peer))
        return channel

    def _join(self, session: Session, channel: DataChannel, server: TCPChannel) -> None:
        stream = channel.join(session.ticket)
        splice = self.engines["agent"].join(server, stream, LIMITS, self.agent)
        splice.done.addCallback(lambda report: session.reports.update(agent=report))

    def settle(self, *reading: Far, seconds: float = 0.0) -> None:
        """
        Let all happen that happens by itself, within so many seconds.

        @param reading: who reads meanwhile.
        """
        for _ in range(12):
            for _ in range(12):
                self.accept()
                for wire in self.wires:
                    wire.carry("up", 1000)
                    wire.carry("down", 1000)
                self.relay.turn()
                self.agent.turn()
                for far in reading:
                    far.read()
            if seconds:
                self.relay.advance(seconds / 12)
                self.agent.advance(seconds / 12)

    def close(self) -> None:
        """
        Let go of everything.
        """
        for session in self.sessions:
            session.client.reset()
            session.server.reset()
        for channel in self.relay_channels:
            channel.abort()
        self.channels.close()
        for wire in self.wires:
            wire.cut()
        for stage in (self.relay, self.agent):
            for _ in range(4):
                stage.turn()
            stage.edges.close()
        self._port.close()

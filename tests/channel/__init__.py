"""
Tests of L{relaytunnel.channel}, and the far ends of channels for tests.

A L{Peer} is a plain socket that nothing of Twisted moves, so that what it
observes is what the kernel says; a L{FramedPeer} speaks the frames of a data
channel over the TLS of the standard library.  They move only while a test
waits in L{until}.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable
from functools import cache
from tempfile import mkdtemp
from typing import Any

from zope.interface import implementer

from twisted.internet import reactor as _reactor
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import FailTest, TestCase

from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.identity import Identity, own_identity
from relaytunnel.channel.secure import TLSConnection
from relaytunnel.channel.tls import DATA, RelayTLS
from relaytunnel.errors import ProtocolError
from relaytunnel.interfaces import IChannelReceiver, Lost
from relaytunnel.wire.data import (
    EOF_FRAME,
    MAX_PAYLOAD,
    RESET_FRAME,
    FrameReader,
    Kind,
    data_frames,
    join_frame,
)

__all__ = [
    "TICKET",
    "FramedPeer",
    "Makes",
    "Peer",
    "Received",
    "Sockets",
    "identity",
    "pause_for",
    "until",
]

reactor: Any = _reactor

TICKET = bytes(range(32))
_CHUNK = 65536


@cache
def identity() -> Identity:
    """
    @return: a relay's own identity, the same for the whole run.
    """
    return own_identity(mkdtemp(dir=os.getcwd()), "127.0.0.1")


class Peer:
    """
    The far end of a connection.

    @ivar reading: whether it reads at the moment.
    @ivar sent: bytes that its kernel has taken.
    @ivar received: bytes that it has read.
    @ivar ended: whether it has read a clean end.
    @ivar was_reset: whether it has seen a reset.
    """

    def __init__(
        self,
        port: int,
        receive_buffer: int = 0,
        send_buffer: int = 0,
        accepted: socket.socket | None = None,
    ) -> None:
        """
        @param port: where to connect, unless the connection was C{accepted}.
        """
        sock = self.sock = accepted or socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if send_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        if accepted is None:
            sock.connect(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self.reading = True
        self.sent = self.received = 0
        self.ended = self.was_reset = False
        self.broken_pipe = False
        self._waiting = b""
        self._position = 0
        self._end_after = self._end_sent = False
        self._seen = hashlib.sha256()
        self._last = b""

    # What a test makes it do.

    def send(self, data: bytes) -> None:
        self._waiting = self._waiting[self._position :] + data
        self._position = 0

    def end(self) -> None:
        """
        Half-close behind what is being sent.
        """
        self._end_after = True

    def reset(self) -> None:
        """
        Abort the connection.
        """
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """
        Let go of the socket, as a process does that exits.
        """
        self.sock.close()

    # What it observed.

    @property
    def all_sent(self) -> bool:
        return self._position == len(self._waiting) and self._end_sent == self._end_after

    @property
    def digest(self) -> str:
        """The SHA-256 of what was received."""
        return self._seen.hexdigest()

    @property
    def over(self) -> bool:
        return self.ended or self.was_reset

    @property
    def last(self) -> bytes:
        """The last bytes that were received, at the most 64 KiB."""
        return self._last

    # How it moves.

    def move(self) -> bool:
        """
        Write and read what is possible.

        @return: whether anything was.
        """
        if self.sock.fileno() < 0:
            return False
        moved = self._write()
        return (self.reading and not self.over and self._read()) or moved

    def _write(self) -> bool:
        if self.broken_pipe:
            return False
        before = self.sent
        try:
            while self._position < len(self._waiting):
                piece = memoryview(self._waiting)[self._position :][:_CHUNK]
                count = self.sock.send(piece)
                self._position += count
                self.sent += count
            if self._end_after and not self._end_sent:
                self._end_sent = True
                self.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            self.broken_pipe = True
        return self.sent != before

    def _read(self) -> bool:
        moved = False
        try:
            for _ in range(16):
                data = self.sock.recv(_CHUNK)
                moved = True
                if not data:
                    # A reset that a send was told of first reads like an end.
                    if self.broken_pipe:
                        self.was_reset = True
                    else:
                        self.ended = True
                    break
                self._take(data)
        except BlockingIOError:
            pass
        except OSError:
            self.was_reset = True
        return moved

    def _take(self, data: bytes) -> None:
        self.received += len(data)
        self._last = (self._last + data)[-_CHUNK:]
        self._seen.update(data)


class FramedPeer(Peer):
    """
    The far end of a data channel over TLS: it joins, and speaks frames.

    @ivar reset_frame: whether RESET has come, or STOP that aborts.
    @ivar closed: whether the peer has closed TLS in order.
    """

    def __init__(self, port: int, receive_buffer: int = 0, send_buffer: int = 0) -> None:
        super().__init__(port, receive_buffer, send_buffer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols([DATA.decode()])
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._reader = FrameReader()
        self._wire = b""
        self._frames = deque([join_frame(TICKET)])
        self._shaken = False
        self._truncate = self._end_said = False
        self.reset_frame = self.closed = False

    def send(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_PAYLOAD):
            self._frames.append(data_frames(data[start : start + MAX_PAYLOAD]))

    def send_frame(self, frame: bytes) -> None:
        self._frames.append(frame)

    def end(self) -> None:
        self._end_said = True
        self._frames.append(EOF_FRAME)

    def reset(self) -> None:
        """
        Abort the session.
        """
        self._frames.append(RESET_FRAME)

    def truncate(self) -> None:
        """
        End the connection behind what is being sent, with no frame that says so.
        """
        self._truncate = True

    def new_session(self) -> None:
        """
        Forget what was observed, and join again on the same connection.
        """
        self.sent = self.received = 0
        self.ended = self.was_reset = self._end_said = False
        self._seen = hashlib.sha256()
        self._frames.append(join_frame(TICKET))

    @property
    def all_sent(self) -> bool:
        return not self._frames and not self._wire

    def _write(self) -> bool:
        moved = False
        try:
            while not self.broken_pipe:
                if not self._wire:
                    self._encrypt()
                if not self._wire:
                    break
                count = self.sock.send(self._wire[:_CHUNK])
                self._wire = self._wire[count:]
                moved = True
        except BlockingIOError:
            pass
        except OSError:
            self.broken_pipe = True
        if self._truncate and self.all_sent:
            self._truncate = False
            self.sock.shutdown(socket.SHUT_WR)
        return moved

    def _encrypt(self) -> None:
        if not self._shaken:
            try:
                self._tls.do_handshake()
                self._shaken = True
            except ssl.SSLWantReadError:
                pass
        elif self._frames:
            frame = self._frames.popleft()
            self._tls.write(frame)
            if frame[0] == Kind.DATA:
                self.sent += len(frame) - 3
        self._wire = self._outgoing.read()

    def _read(self) -> bool:
        moved = False
        try:
            for _ in range(16):
                data = self.sock.recv(_CHUNK)
                moved = True
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
                if self._decrypt() or not data:
                    break
        except BlockingIOError:
            pass
        except OSError:
            self.was_reset = True
        return moved

    def _decrypt(self) -> bool:
        try:
            while self._shaken:
                data = self._tls.read(_CHUNK)
                if not data:
                    self.closed = True
                    self.was_reset = self.was_reset or not self.ended
                    self.sock.close()
                    return True
                for kind, payload in self._reader.feed(data):
                    self._observe(kind, payload)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLEOFError:
            self.was_reset = self.was_reset or not self.ended
            self.sock.close()
            return True
        return False

    def _observe(self, kind: Kind, payload: bytes) -> None:
        if kind is Kind.DATA and not self.ended:
            self._take(payload)
        elif kind is Kind.EOF and not self.ended:
            self.ended = True
        elif kind is Kind.RESET:
            self.was_reset = self.reset_frame = True
        elif kind is Kind.STOP:
            # As an agent does: it aborts this session only if its end has come
            # and ours has not been sent.
            if self.ended and not self._end_said:
                self.was_reset = self.reset_frame = True
                self.end()
        else:
            raise ProtocolError(f"an unexpected {kind.name}")

    def move(self) -> bool:
        if self.sock.fileno() < 0:
            return False
        moved = self._write()
        return (self.reading and self._read()) or moved


async def until(
    happened: Callable[[], object], *peers: Peer, within: float = 15.0, what: str = ""
) -> None:
    """
    Let these peers move until something has happened.
    """
    deadline = reactor.seconds() + within
    while not happened():
        if reactor.seconds() > deadline:
            raise FailTest(f"not within {within:g} s: {what or 'what was waited for'}")
        moved = [peer.move() for peer in peers]
        await deferLater(reactor, 0 if any(moved) else 0.001)


async def pause_for(seconds: float, *peers: Peer) -> None:
    """
    Let these peers move for a while.
    """
    began = reactor.seconds()
    await until(lambda: reactor.seconds() - began >= seconds, *peers)


@implementer(IChannelReceiver)
class Received:
    """
    An L{relaytunnel.interfaces.IChannelReceiver} that remembers.
    """

    def __init__(self) -> None:
        self.data = b""
        self.events: list[str] = []
        self.lost: Lost | None = None

    def data_received(self, data: bytes) -> None:
        assert self.lost is None
        self.data += data

    def end_received(self) -> None:
        assert self.lost is None
        self.events.append("end received")

    def end_sent(self) -> None:
        assert self.lost is None
        self.events.append("end sent")

    def channel_lost(self, why: Lost) -> None:
        assert self.lost is None
        self.lost = why
        self.events.append(why.value)


class Makes(Factory):
    """
    A factory of whatever this callable makes.
    """

    noisy = False

    def __init__(self, make: Callable[[], Protocol]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._make()


class Sockets(TestCase):
    """
    Tests with connections over the loopback, which leave nothing behind.
    """

    timeout = 50

    async def setUp(self) -> None:  # type: ignore[override]
        identity()
        gc.collect()
        self.peers: list[Peer] = []
        self.ports: list[Any] = []
        # The reactor now runs, and has opened what it opens once for its ports.
        await reactor.listenTCP(0, Factory(), interface="127.0.0.1").stopListening()
        self._before = self._census()

    def listen(
        self,
        make: Callable[[], Protocol],
        tls: bool = False,
        buffer: int = 0,
        edges: EdgeWatch | None = None,
    ) -> int:
        """
        Accept connections for protocols made by this.

        @param edges: where there is one, TLS is that of a L{TLSConnection}.
        @param buffer: how large the kernel's buffers of these connections are.
        @return: the port's number.
        """
        factory: Any = Makes(make)
        if tls and edges is None:
            factory = TLSMemoryBIOFactory(RelayTLS(identity()), False, factory)
            factory.noisy = False
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        if tls and edges is not None:
            port.transport = lambda sock, protocol, peer, *_: TLSConnection(
                RelayTLS(identity()).connection(sock), sock, protocol, edges, reactor, peer
            )
        if buffer:
            port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        self.ports.append(port)
        return int(port.getHost().port)

    async def tearDown(self) -> None:  # type: ignore[override]
        for peer in self.peers:
            peer.close()
        for port in self.ports:
            await port.stopListening()
        with contextlib.suppress(FailTest):
            await until(lambda: self._census() == self._before, within=5)
        self.assertEqual(self._census(), self._before)

    @staticmethod
    def _census() -> tuple[int, int, int]:
        """
        @return: how many descriptors, selectables and delayed calls there are.
        """
        return (
            len(os.listdir("/proc/self/fd")),
            len(reactor.getReaders()) + len(reactor.getWriters()),
            len(reactor.getDelayedCalls()),
        )

    def peer(self, port: int, receive_buffer: int = 0, send_buffer: int = 0) -> Peer:
        peer = Peer(port, receive_buffer, send_buffer)
        self.peers.append(peer)
        return peer

    def framed_peer(self, port: int, receive_buffer: int = 0, send_buffer: int = 0) -> FramedPeer:
        peer = FramedPeer(port, receive_buffer, send_buffer)
        self.peers.append(peer)
        return peer

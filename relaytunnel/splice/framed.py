"""
The engine's end that is a session on a data channel over TLS.

OpenSSL has the socket, so a frame is put together in a buffer that all share
and leaves as one TLS record, and what comes in as one record is passed on
without being looked at twice.  Whatever is out of the ordinary is left to the
channel, which gets its connection back when the session is over.
"""

from __future__ import annotations

from collections.abc import Callable

from OpenSSL import SSL

from relaytunnel.channel.edges import HANGUP, IN, LOST, OUT, clean_end_before_reset
from relaytunnel.channel.framed import FramedStream
from relaytunnel.channel.secure import RECORD, TLSConnection
from relaytunnel.channel.tcp import Released
from relaytunnel.errors import ProtocolError
from relaytunnel.interfaces import Lost
from relaytunnel.splice.pump import End, Flow, PlainEnd, PumpSplice
from relaytunnel.wire.data import EOF_FRAME, MAX_PAYLOAD, Kind, data_frames

__all__ = ["FramedEnd", "FramingFlow", "UnframingFlow", "start"]

_HEADER = 3
_FRAME = _HEADER + MAX_PAYLOAD
_TOGETHER = 6
"""How many records are read, and passed on, at once."""
_TURNS = 2
"""How often that is done before others have their turn."""

_BUFFER = bytearray(_TOGETHER * _FRAME)
_VIEW = memoryview(_BUFFER)
_PAYLOADS = [_VIEW[at * _FRAME + _HEADER : (at + 1) * _FRAME] for at in range(_TOGETHER)]
_FIRST = _PAYLOADS[0]
_ROOM = _TOGETHER * MAX_PAYLOAD
_FULL = bytes((Kind.DATA, MAX_PAYLOAD >> 8, MAX_PAYLOAD & 0xFF))


def _frames(size: int) -> int:
    """
    Write the headers of the frames that so many bytes in the buffer make.

    @return: where the last one ends.
    """
    at = 0
    while size > MAX_PAYLOAD:
        _BUFFER[at : at + _HEADER] = _FULL
        at += _FRAME
        size -= MAX_PAYLOAD
    _BUFFER[at] = Kind.DATA
    _BUFFER[at + 1] = size >> 8
    _BUFFER[at + 2] = size & 0xFF
    return at + _HEADER + size


class FramedEnd(End):
    """
    A session on a data channel.

    @ivar rest: the end of what we said, where it found no room.
    """

    __slots__ = (
        "_back",
        "_dead",
        "_left",
        "channel",
        "recv",
        "rest",
        "send",
        "stream",
        "transport",
    )

    transport: TLSConnection
    recv: Callable[[int], bytes]
    send: Callable[[bytes | memoryview], int]
    rest: bytes
    _back: bool
    _dead: bool
    _left: bool
    inward: UnframingFlow
    outward: FramingFlow

    def __init__(self, splice: PumpSplice, name: str, stream: FramedStream) -> None:
        super().__init__(splice, name)
        self.stream = stream
        self.channel = stream.channel
        transport = self.channel.transport
        assert isinstance(transport, TLSConnection)
        self.transport = transport
        self.recv = transport.connection.recv
        self.send = transport.connection.send
        self.rest = b""
        self._dead = False
        self._back = False
        self._left = False

    def begin(self) -> None:
        # What brought the session is being read: go on behind it.
        self.stream.attach(self)
        self.splice.edges.again(self._start)

    def _start(self) -> None:
        if self.splice.running:
            self.readable = True
            self.inward.run()

    def happened(self, events: int) -> None:
        """
        Something changed at the socket.
        """
        if not self.splice.running:
            return
        if events & LOST:
            # OpenSSL reads nothing any more once it could not write, and the
            # peer may have answered before it went.
            self.deaf = True
            self.rest = b""
            self.outward.drop()
        elif events & OUT:
            if self.rest and not self._say_rest():
                return
            if self.outward.blocked:
                self.outward.run()
                if not self.splice.running:
                    return
        if events & (IN | HANGUP | LOST):
            self.readable = True
            if not self.inward.blocked:
                self.inward.run()
            elif events & LOST and clean_end_before_reset(self.transport.socket) is False:
                self.lose(Lost.RESET)
        elif self.inward.wants_write:
            self.readable = True
            self.inward.run()

    def _say_rest(self) -> bool:
        try:
            self.send(self.rest)
        except (SSL.WantWriteError, SSL.WantReadError):
            return False
        except SSL.Error:
            self.lose(Lost.TRUNCATED)
            return False
        self.rest = b""
        return True

    def lose(self, why: Lost) -> None:
        """
        The connection, or what comes over it, is of no use any more.
        """
        self._dead = True
        self.splice.lose(self, why)

    # What the channel says of its stream, when something is read or lost
    # while it has the connection.

    def data_received(self, data: bytes) -> None:
        self.inward.take(data)
        self.inward.later()

    def end_received(self) -> None:
        self.inward.take_end(self, self.inward.sink)

    def end_sent(self) -> None:
        """
        That is known here.
        """

    def channel_lost(self, why: Lost) -> None:
        self.lose(why)

    # The end

    def half_close(self) -> None:
        self.rest = EOF_FRAME
        self._say_rest()

    def _give_back(self) -> None:
        """
        The channel has its connection again, and sends what we could not.
        """
        if not self._back:
            self._back = True
            waits = self.outward.pending
            self.channel.take_back(b"".join((waits or b"", self.rest)))

    def close(self) -> None:
        self._give_back()
        self.stream.over()
        self.channel.ended()

    def reset(self) -> None:
        if self._left:
            return
        congested = self.outward.blocked or bool(self.rest)
        self._give_back()
        self.stream.over()
        if self._dead or congested:
            self.channel.stream = None
            self.channel.abort()
        else:
            self.channel.send_reset()

    def reset_received(self) -> None:
        """
        The peer has aborted the session, and waits for us to close.
        """
        self._give_back()
        self.stream.over()
        self.channel.stream = None
        self.channel.close()
        self._left = True
        self.splice.lose(self, Lost.RESET)

    def finish(self) -> None:
        said = self.outward.flushed
        self._give_back()
        self.stream.over()
        if not said:
            self.channel.transport.write(EOF_FRAME)  # type: ignore[union-attr]
        self.channel.send_rest()


class FramingFlow(Flow):
    """
    From a socket to a session.
    """

    __slots__ = ("_much", "sink", "source")

    def __init__(self, splice: PumpSplice, source: PlainEnd, sink: FramedEnd) -> None:
        super().__init__(splice)
        self.source = source
        self.sink = sink
        self._much = False

    def begin(self, unsent: bytes, held: bytes, ended: bool) -> None:
        self.count = len(held)
        self.ended = self.source.in_ended = ended
        if unsent or held:
            self.pending = unsent + data_frames(held)
            self.blocked = True
        if ended:
            self.splice.half_closed()

    def run(self) -> None:
        source, sink, send = self.source, self.sink, self.sink.send
        for _ in range(_TURNS):
            if self.blocked and not self._flush():
                return
            if self.ended:
                self.pass_end(sink)
                return
            if not source.readable:
                return
            size = self._read()
            if size <= 0:
                if not size:
                    self._take_end()
                return
            if sink.deaf:
                continue
            sent, end = 0, _frames(size)
            try:
                while sent < end:
                    sent += send(_VIEW[sent:end])  # a record at a time
            except (SSL.WantWriteError, SSL.WantReadError):
                self.blocked = True
                self.pending = bytes(_VIEW[sent:end])
                self._read_ahead()
                return
            except SSL.Error:
                sink.lose(Lost.TRUNCATED)
                return
        self.later()

    def _read(self) -> int:
        """
        Read into the payloads of the shared buffer.

        @return: how much; -1 if there is nothing at the moment, or the source
            is lost.
        """
        source, much = self.source, self._much
        try:
            size = source.sock.recvmsg_into(_PAYLOADS)[0] if much else source.recv_into(_FIRST)
        except BlockingIOError:
            source.readable = self._much = False
            return -1
        except OSError:
            self.splice.lose(source, Lost.RESET)
            return -1
        if size < MAX_PAYLOAD or (much and size < _ROOM):
            source.readable = source.hung
        self._much = size >= MAX_PAYLOAD
        self.count += size
        return size

    def _read_ahead(self) -> None:
        """
        The sink is busy: have some more ready for when it is not.
        """
        source = self.source
        if source.readable and self._much and len(self.pending or b"") <= _FRAME:
            size = self._read()
            if size > 0 and self.pending is not None:
                self.pending = b"".join((self.pending, _VIEW[: _frames(size)]))
            elif not size:  # it is told again
                source.hung = source.readable = True

    def _take_end(self) -> None:
        source = self.source
        if source.broken:
            self.splice.lose(source, Lost.RESET)
            return
        self.take_end(source, self.sink)
        if self.splice.running:
            source.was_read()

    def _flush(self) -> bool:
        """
        @return: whether nothing waits any more.
        """
        sink = self.sink
        try:
            while self.pending:
                sent = sink.send(self.pending)
                self.pending = memoryview(self.pending)[sent:]
        except (SSL.WantWriteError, SSL.WantReadError):
            return False
        except SSL.Error:
            sink.lose(Lost.TRUNCATED)
            return False
        self.pending = None
        self.blocked = False
        return True


class UnframingFlow(Flow):
    """
    From a session to a socket.

    @ivar wants_write: whether OpenSSL has to write before it can read on.
    """

    __slots__ = ("sink", "source", "wants_write")

    def __init__(self, splice: PumpSplice, source: FramedEnd, sink: PlainEnd) -> None:
        super().__init__(splice)
        self.source = source
        self.sink = sink
        self.wants_write = False

    def begin(self, unsent: bytes, held: bytes, ended: bool) -> None:
        if unsent:
            self.pending = unsent
            self.blocked = True

    def take(self, data: bytes) -> None:
        """
        These bytes came in, and go out behind what waits.
        """
        self.count += len(data)
        if not self.sink.deaf:
            self.pending = b"".join((self.pending or b"", data))
            self.blocked = True

    def run(self) -> None:
        source = self.source
        for _ in range(_TURNS):
            if self.blocked and not self._flush():
                return
            if self.ended:
                self.pass_end(self.sink)
                if not self.splice.running:
                    return
            if not source.readable:
                return
            self._read()
            if not self.splice.running:
                return
        self.later()

    def _read(self) -> None:
        """
        Read some records and pass on what is in them.
        """
        source = self.source
        reader = source.channel.reader
        recv = source.recv
        parts: list[bytes | memoryview] = []
        size = 0
        fault = False
        while len(parts) < _TOGETHER:
            try:
                data = recv(RECORD)
            except SSL.WantReadError:
                source.readable = self.wants_write = False
                break
            except SSL.WantWriteError:
                source.readable = False
                self.wants_write = True
                break
            except SSL.Error:
                fault = True
                break
            length = len(data) - _HEADER
            if (
                length > 0
                and data[0] == Kind.DATA
                and (data[1] << 8) | data[2] == length
                and reader.between
                and not self.ended
            ):
                parts.append(memoryview(data)[_HEADER:])
                size += length
                continue
            # Frames that are no records: any split is allowed.
            if parts:
                self._pass(parts, size)
                parts, size = [], 0
                if not self.splice.running:
                    return
            self._take_frames(data)
            if not self.splice.running or self.blocked:
                return
        if parts:
            self._pass(parts, size)
        if fault and self.splice.running:
            source.lose(Lost.TRUNCATED)

    def _take_frames(self, data: bytes) -> None:
        source = self.source
        frames = source.channel.reader.feed(data)
        try:
            for kind, payload in frames:
                if not self.splice.running:
                    # The next session has begun behind the end of this one.
                    source.channel.take(kind, payload)
                elif kind is Kind.DATA and not self.ended:
                    self.take(payload)
                elif kind is Kind.EOF and not self.ended:
                    if self.blocked:
                        self._flush()
                    if self.splice.running:
                        self.take_end(source, self.sink)
                elif kind is Kind.RESET:
                    source.reset_received()
                else:
                    source.lose(Lost.TRUNCATED)
        except ProtocolError:
            if self.splice.running:
                source.lose(Lost.TRUNCATED)
            else:
                source.channel.abort()

    def _pass(self, parts: list[bytes | memoryview], size: int) -> None:
        self.count += size
        sink = self.sink
        if sink.deaf:
            return
        try:
            sent = sink.send(parts[0]) if len(parts) == 1 else sink.sock.sendmsg(parts)
        except BlockingIOError:
            sent = 0
        except OSError as fault:
            sink.cannot_send(fault)
            return
        if sent < size:
            self.pending = b"".join(parts)[sent:]
            self.blocked = True

    def _flush(self) -> bool:
        """
        @return: whether nothing waits any more.
        """
        sink = self.sink
        try:
            while self.pending:
                sent = sink.send(self.pending)
                self.pending = memoryview(self.pending)[sent:]
        except BlockingIOError:
            return False
        except OSError as fault:
            sink.cannot_send(fault)
            return self.splice.running
        self.pending = None
        self.blocked = False
        return True


def start(
    splice: PumpSplice, first: Released | FramedStream, second: Released | FramedStream
) -> None:
    """
    Let the bytes flow between a socket and a session.
    """
    if isinstance(first, Released):
        assert isinstance(second, FramedStream)
        plain, framed = PlainEnd(splice, "first", first.sock), FramedEnd(splice, "second", second)
    else:
        assert isinstance(second, Released)
        plain, framed = PlainEnd(splice, "second", second.sock), FramedEnd(splice, "first", first)
    released = first if isinstance(first, Released) else second
    assert isinstance(released, Released)
    out, back = FramingFlow(splice, plain, framed), UnframingFlow(splice, framed, plain)
    unsent = framed.transport.lend(framed.happened)
    out.begin(unsent, released.held, released.ended)
    back.begin(released.unsent, b"", False)
    if isinstance(first, Released):
        splice.join(plain, framed, out, back)
    else:
        splice.join(framed, plain, back, out)

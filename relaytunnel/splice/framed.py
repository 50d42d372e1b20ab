"""
The engine's end that is a session on a data channel over TLS.

OpenSSL has the socket, so a frame is put together in a buffer that all share
and leaves as one TLS record, and what comes in as one record is passed on
without being looked at twice.  Whatever is out of the ordinary is left to the
channel, which gets its connection back when the session is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL

from relaytunnel.channel.edges import HANGUP, IN, LOST, OUT, clean_end_before_reset
from relaytunnel.channel.framed import FramedStream
from relaytunnel.channel.records import RECORD, Calls, Memory, Stopped
from relaytunnel.channel.secure import TLSConnection
from relaytunnel.channel.tcp import Released
from relaytunnel.errors import ProtocolError
from relaytunnel.interfaces import Lost
from relaytunnel.splice.pump import End, Flow, PlainEnd, PumpSplice
from relaytunnel.wire.data import EOF_FRAME, MAX_PAYLOAD, Kind, data_frames

__all__ = ["FramedEnd", "FramingFlow", "UnframingFlow", "start"]

_HEADER = 3
_TOGETHER = 6
"""How many records are read, and passed on, at once."""
_TURNS = 2
"""How often that is done before others have their turn."""

_OUT = Memory(_TOGETHER)
_OUT_AT, _VIEW = _OUT.at, _OUT.view
_PAYLOADS = [_VIEW[at * RECORD + _HEADER : (at + 1) * RECORD] for at in range(_TOGETHER)]
_FIRST = _PAYLOADS[0]
_ROOM = _TOGETHER * MAX_PAYLOAD
_FULL = bytes((Kind.DATA, MAX_PAYLOAD >> 8, MAX_PAYLOAD & 0xFF))

_IN = Memory(_TOGETHER)
_IN_AT, _CAME = _IN.at, _IN.view
_IN_FIRST = _IN_AT[0]
_DATA = int(Kind.DATA)
_NOTHING_YET = Stopped.WANT_READ


def _frames(size: int) -> int:
    """
    Write the headers of the frames that so many bytes in the buffer make.

    @return: where the last one ends.
    """
    at = 0
    while size > MAX_PAYLOAD:
        _VIEW[at : at + _HEADER] = _FULL
        at += RECORD
        size -= MAX_PAYLOAD
    _VIEW[at] = _DATA
    _VIEW[at + 1] = size >> 8
    _VIEW[at + 2] = size & 0xFF
    return at + _HEADER + size


class FramedEnd(End):
    """
    A session on a data channel.

    @ivar calls: how its records are read and written.
    @ivar handle: what these know its connection by.
    @ivar rest: the end of what we said, where it found no room.
    """

    __slots__ = (
        "_back",
        "_dead",
        "_left",
        "calls",
        "channel",
        "handle",
        "rest",
        "send",
        "stream",
        "transport",
    )

    transport: TLSConnection
    calls: Calls
    handle: Any
    send: Callable[[bytes | memoryview], int]
    rest: bytes
    _back: bool
    _dead: bool
    _left: bool
    inward: UnframingFlow
    outward: FramingFlow

    def __init__(self, splice: PumpSplice, name: str, stream: FramedStream, calls: Calls) -> None:
        super().__init__(splice, name)
        self.calls = calls
        self.stream = stream
        self.channel = stream.channel
        transport = self.channel.transport
        assert isinstance(transport, TLSConnection)
        self.transport = transport
        self.handle = calls.handle(transport.connection)
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

    __slots__ = ("_handle", "_much", "_write", "sink", "source")

    def __init__(self, splice: PumpSplice, source: PlainEnd, sink: FramedEnd) -> None:
        super().__init__(splice)
        self._handle, self._write = sink.handle, sink.calls.write
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
        source, sink = self.source, self.sink
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
            if not self._send(_frames(size)):
                return
            if not source.readable:
                return
        self.later()

    def _send(self, end: int) -> bool:
        """
        Write what is in the shared buffer, a record at a time.

        @return: whether all of it went.
        """
        handle, write = self._handle, self._write
        start = 0
        while True:
            length = RECORD if end - start > RECORD else end - start
            result = write(handle, _OUT_AT[start // RECORD], length)
            if result != length:
                return self._stalled(start, end, result)
            start += length
            if start == end:
                return True

    def _stalled(self, start: int, end: int, result: int) -> bool:
        """
        A record was not taken: keep it, and what is behind it.

        @return: whether it went after all.
        """
        sink = self.sink
        if result < 1 and sink.calls.why(sink.handle, result) is Stopped.OVER:
            sink.lose(Lost.TRUNCATED)
            return False
        self.blocked = True
        self.pending = bytes(_VIEW[start + max(result, 0) : end])
        if result > 0:  # a peer that takes smaller records only
            return self._flush()
        self._read_ahead()
        return False

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
        if source.readable and self._much and len(self.pending or b"") <= RECORD:
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

    __slots__ = ("_between", "_handle", "_read_record", "sink", "source", "wants_write")

    def __init__(self, splice: PumpSplice, source: FramedEnd, sink: PlainEnd) -> None:
        super().__init__(splice)
        self._handle, self._read_record = source.handle, source.calls.read
        self._between = source.channel.reader.between
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
            if not (source.readable and self.splice.running):
                return
        self.later()

    def _read(self) -> None:
        """
        Read some records and pass on what is in them.
        """
        read, handle = self._read_record, self._handle
        for _ in range(_TOGETHER):
            got = read(handle, _IN_FIRST, RECORD)
            if got < 1:
                self._stopped(self.source.calls.why(handle, got))
                return
            if not self._all_data(0, got):
                self._take_frames(bytes(_CAME[:got]))
            elif got < RECORD:
                self._pass_one(_CAME[_HEADER:got])
            else:
                self._read_on(read, handle)
                return
            if self.blocked or not self.splice.running:
                return

    def _read_on(self, read: Callable[[Any, Any, int], int], handle: Any) -> None:
        """
        A full record has come: read some more, and pass them on together.
        """
        parts, size = [_CAME[_HEADER:RECORD]], MAX_PAYLOAD
        stopped: Stopped | None = None
        odd = b""
        for number in range(1, _TOGETHER):
            got = read(handle, _IN_AT[number], RECORD)
            if got < 1:
                stopped = self.source.calls.why(handle, got)
                break
            start = number * RECORD
            if not self._all_data(start, got):
                odd = bytes(_CAME[start : start + got])
                break
            parts.append(_CAME[start + _HEADER : start + got])
            size += got - _HEADER
        self._pass(parts, size)
        if stopped is not None and self.splice.running:
            self._stopped(stopped)
        elif odd and self.splice.running:
            self._take_frames(odd)

    def _all_data(self, start: int, got: int) -> bool:
        """
        Whether a record is one frame of data.  Frames may be split in any way,
        but ours are not.
        """
        return (
            got > _HEADER
            and _CAME[start] == _DATA
            and (_CAME[start + 1] << 8) + _CAME[start + 2] == got - _HEADER
            and self._between
            and not self.ended
        )

    def _stopped(self, why: Stopped) -> None:
        if why is _NOTHING_YET:
            self.source.readable = self.wants_write = False
        elif why is Stopped.OVER:
            self.source.lose(Lost.TRUNCATED)
        else:
            self.source.readable, self.wants_write = False, True

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
        self._between = source.channel.reader.between

    def _pass_one(self, data: memoryview) -> None:
        sink, size = self.sink, len(data)
        self.count += size
        if sink.deaf:
            return
        try:
            sent = sink.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as fault:
            sink.cannot_send(fault)
            return
        if sent < size:
            self.pending = bytes(data[sent:])
            self.blocked = True

    def _pass(self, parts: list[memoryview], size: int) -> None:
        self.count += size
        sink = self.sink
        if sink.deaf:
            return
        try:
            sent = sink.sock.sendmsg(parts)
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
    splice: PumpSplice,
    first: Released | FramedStream,
    second: Released | FramedStream,
    calls: Calls,
) -> None:
    """
    Let the bytes flow between a socket and a session.

    @param calls: how the session's records are read and written.
    """
    if isinstance(first, Released):
        assert isinstance(second, FramedStream)
        plain = PlainEnd(splice, "first", first.sock)
        framed = FramedEnd(splice, "second", second, calls)
    else:
        assert isinstance(second, Released)
        plain = PlainEnd(splice, "second", second.sock)
        framed = FramedEnd(splice, "first", first, calls)
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

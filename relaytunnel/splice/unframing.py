"""
The flow from a session on a data channel over TLS to a socket.

OpenSSL has the session's socket.  What comes in as one record, and is one
frame, is passed on from memory that all flows share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relaytunnel.channel.records import RECORD, Memory, Stopped
from relaytunnel.errors import ProtocolError
from relaytunnel.interfaces import Lost
from relaytunnel.splice.ends import Flow, Splice
from relaytunnel.splice.framed import HEADER, TOGETHER, FramedEnd
from relaytunnel.splice.plain import PlainEnd
from relaytunnel.wire.data import MAX_PAYLOAD, Kind

__all__ = ["UnframingFlow"]

_IN = Memory(TOGETHER)
_IN_AT, _CAME = _IN.at, _IN.view
_IN_FIRST = _IN_AT[0]
_DATA = int(Kind.DATA)
_NOTHING_YET = Stopped.WANT_READ


class UnframingFlow(Flow):
    """
    From a session to a socket.

    @ivar wants_write: whether OpenSSL has to write before it can read on.
    """

    __slots__ = ("_between", "_handle", "_read_record", "sink", "source", "wants_write")

    def __init__(self, splice: Splice, source: FramedEnd, sink: PlainEnd) -> None:
        super().__init__(splice)
        self._handle, self._read_record = source.handle, source.calls.read
        self._between = False  # the reader may be in the midst of what brought the session
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
        """
        Move what some records bring; others have their turn before the next.
        """
        source = self.source
        if self.blocked and not self._flush():
            return
        if self.ended:
            self.pass_end(self.sink)
            if not self.splice.running:
                return
        if source.readable:
            self._read()
            if source.readable and self.splice.running:
                self.later()

    def _read(self) -> None:
        """
        Read some records and pass on what is in them.
        """
        read, handle = self._read_record, self._handle
        for _ in range(TOGETHER):
            got = read(handle, _IN_FIRST, RECORD)
            if got < 1:
                self._stopped(self.source.calls.why(handle, got))
                return
            if not self._all_data(0, got):
                self._take_frames(bytes(_CAME[:got]))
            elif got < RECORD:
                self._pass(self.sink.send, _CAME[HEADER:got], got - HEADER)
            else:
                self._read_on(read, handle)
                return
            if self.blocked or not self.splice.running:
                return

    def _read_on(self, read: Callable[[Any, Any, int], int], handle: Any) -> None:
        """
        A full record has come: read some more, and pass them on together.
        """
        parts, size = [_CAME[HEADER:RECORD]], MAX_PAYLOAD
        stopped: Stopped | None = None
        odd = b""
        for number in range(1, TOGETHER):
            got = read(handle, _IN_AT[number], RECORD)
            if got < 1:
                stopped = self.source.calls.why(handle, got)
                break
            start = number * RECORD
            if not self._all_data(start, got):
                odd = bytes(_CAME[start : start + got])
                break
            parts.append(_CAME[start + HEADER : start + got])
            size += got - HEADER
        self._pass(self.sink.sock.sendmsg, parts, size)
        if stopped is not None and self.splice.running:
            self._stopped(stopped)
        elif odd:
            self._take_frames(odd)

    def _all_data(self, start: int, got: int) -> bool:
        """
        Whether a record is one frame of data.  Frames may be split in any way,
        but ours are not.
        """
        return (
            got > HEADER
            and _CAME[start] == _DATA
            and (_CAME[start + 1] << 8) + _CAME[start + 2] == got - HEADER
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
                if kind is Kind.EOF and self.blocked and self.splice.running:
                    self._flush()  # which may be the end of the splice
                if not self.splice.running:
                    # The end of this session, which was over before it came,
                    # or the next session behind it.
                    source.channel.take_behind(kind, payload)
                elif kind is Kind.DATA and not self.ended:
                    self.take(payload)
                elif kind is Kind.EOF and not self.ended:
                    self.take_end(source, self.sink)
                elif kind is Kind.RESET:
                    source.reset_received()
                elif kind is Kind.STOP and source.channel.joining is None:
                    if self.ended and source.outward.flushed:
                        source.channel.released = True
                    elif self.ended:
                        source.stop_received()
                else:
                    source.lose(Lost.TRUNCATED)
        except ProtocolError:
            if self.splice.running:
                source.lose(Lost.TRUNCATED)
            else:
                source.channel.abort()
        self._between = source.channel.reader.between

    def _pass(self, send: Callable[[Any], int], data: Any, size: int) -> None:
        """
        Send so many bytes, or keep what does not go.
        """
        self.count += size
        sink = self.sink
        if sink.deaf:
            return
        try:
            sent = send(data)
        except BlockingIOError:
            sent = 0
        except OSError as fault:
            sink.cannot_send(fault)
            return
        if sent < size:
            whole = b"".join(data) if isinstance(data, list) else bytes(data)
            self.pending = whole[sent:]
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

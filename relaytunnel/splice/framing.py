"""
The flow from a socket to a session on a data channel over TLS.

OpenSSL has the session's socket.  Bytes are read behind the header of a frame,
into memory that all flows share, and the frame leaves as one TLS record.
"""

from __future__ import annotations

from OpenSSL import SSL

from relaytunnel.channel.records import RECORD, Memory, Stopped, forget_errors
from relaytunnel.interfaces import Lost
from relaytunnel.splice.ends import Flow, Splice
from relaytunnel.splice.framed import HEADER, TOGETHER, FramedEnd
from relaytunnel.splice.plain import PlainEnd
from relaytunnel.wire.data import MAX_PAYLOAD, Kind, data_frames

__all__ = ["FramingFlow"]

_OUT = Memory(TOGETHER)
_OUT_AT, _VIEW = _OUT.at, _OUT.view
_PAYLOADS = [_VIEW[at * RECORD + HEADER : (at + 1) * RECORD] for at in range(TOGETHER)]
_FIRST = _PAYLOADS[0]
_ROOM = TOGETHER * MAX_PAYLOAD
_FULL = bytes((Kind.DATA, MAX_PAYLOAD >> 8, MAX_PAYLOAD & 0xFF))
_DATA = int(Kind.DATA)


def _frames(size: int) -> int:
    """
    Write the headers of the frames that so many bytes in the buffer make.

    @return: where the last one ends.
    """
    at = 0
    while size > MAX_PAYLOAD:
        _VIEW[at : at + HEADER] = _FULL
        at += RECORD
        size -= MAX_PAYLOAD
    _VIEW[at] = _DATA
    _VIEW[at + 1] = size >> 8
    _VIEW[at + 2] = size & 0xFF
    return at + HEADER + size


class FramingFlow(Flow):
    """
    From a socket to a session.
    """

    __slots__ = ("_handle", "_much", "_write", "sink", "source")

    def __init__(self, splice: Splice, source: PlainEnd, sink: FramedEnd) -> None:
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
        """
        Move what one read brings; others have their turn before the next.
        """
        source, sink = self.source, self.sink
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
                source.end_was_read()
            return
        if not sink.deaf and not self._send(_frames(size)):
            return
        if source.readable:
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
            forget_errors()
            sink.lose(Lost.TRUNCATED)
            return False
        self.pending = None
        self.blocked = False
        return True

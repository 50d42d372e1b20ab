"""
Plain sockets as the ends of a splice, and the flow from one to another.

What comes in goes out at once through one buffer that all splices share, so a
quiet splice holds none.  A flow that fills the buffer again and again is moved
by C{splice(2)} through a pipe, and its bytes stay in the kernel; when it calms
down the pipe goes back to the others.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket

from relaytunnel.channel.edges import HANGUP, IN, LOST, OUT, clean_end_before_reset
from relaytunnel.channel.sockets import end_when_killed, unread
from relaytunnel.interfaces import Lost
from relaytunnel.splice.ends import End, Flow, Splice
from relaytunnel.splice.farewell import Farewell, abort
from relaytunnel.splice.pipes import PIPE_FLAGS, Pipe

__all__ = ["PlainEnd", "PlainFlow"]

_SIZE = 64 * 1024
_BUFFER = bytearray(_SIZE)
_VIEW = memoryview(_BUFFER)

_BULK = 4
"""So many full buffers in a row make a flow one for the pipe."""
_CHUNK = 96 * 1024
"""
As much as one C{splice(2)} takes, and as a pipe holds for a reader that stalls.
With less, bulk is slower; with more, so is everybody who shares the processor.
"""


class PlainEnd(End):
    """
    A channel that is a socket of ours.

    @ivar fin_came: whether the peer's end has come, read or not.
    @ivar hung: whether it will not come again: a short read does not mean that
        there is nothing more.
    """

    __slots__ = ("broken", "fin_came", "gone", "hung", "number", "recv_into", "send", "sock")

    def __init__(self, splice: Splice, name: str, sock: socket.socket) -> None:
        super().__init__(splice, name)
        self.sock = sock
        self.number = sock.fileno()
        self.recv_into = sock.recv_into
        self.send = sock.send
        self.hung = False
        self.gone = False
        self.broken = False
        self.fin_came = False

    def begin(self) -> None:
        self.splice.edges.watch(self.number, self._happened)

    def _happened(self, events: int) -> None:
        splice = self.splice
        if not splice.running:
            return
        if events & LOST:
            self._gone()
            return
        if events & OUT and self.outward.blocked:
            self.outward.run()
            if not splice.running:
                return
        if events & IN:
            if events & HANGUP:
                self.hung = self.fin_came = True
            self.readable = True
            self.inward.run()

    def _gone(self) -> None:
        """
        The connection is over in both directions, or reset.
        """
        self.gone = True
        if self.in_ended:
            if clean_end_before_reset(self.sock) is not None:
                self.splice.lose(self, Lost.RESET)
            return
        self.readable = self.hung = True
        if not self.inward.blocked:
            self.inward.run()
            return
        ended_first = clean_end_before_reset(self.sock)
        if ended_first is None:
            self.fin_came = True
        elif ended_first or self.fin_came:
            # Its last bytes, and its end, are still to be read.
            self.deaf = True
            self.outward.drop()
            self.splice.drain(self)
        else:
            self.splice.lose(self, Lost.RESET)

    def cannot_send(self, fault: OSError) -> None:
        """
        Let a broken pipe end the outgoing direction alone.

        A peer may have sent a last answer and gone, with our bytes unread (a
        server that turns an upload down): what it sent is still to be read.
        Whoever is told of a reset by C{send} is not told again by C{recv},
        which then reads an end: so remember which of the two it was.
        """
        self.deaf = True
        self.broken = fault.errno != errno.EPIPE and not self.fin_came
        self.outward.drop()
        if self.in_ended or (self.broken and self.inward.blocked):
            self.splice.lose(self, Lost.RESET)
        else:
            self.readable = self.hung = True
            self.inward.later()
            self.splice.drain(self)

    def end_was_read(self) -> None:
        """
        Pass the end on, unless it is no end, and see whether a reset is behind
        it.
        """
        if self.broken:
            self.splice.lose(self, Lost.RESET)
            return
        self.inward.take_end(self, self.other)
        if self.splice.running and (
            self.deaf or (self.gone and clean_end_before_reset(self.sock) is not None)
        ):
            self.splice.lose(self, Lost.RESET)

    def half_close(self) -> None:
        end_when_killed(self.sock)
        with contextlib.suppress(OSError):  # it was reset, and says so itself
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.splice.edges.closed(self.number)
        self.sock.close()

    def reset(self) -> None:
        self.splice.edges.closed(self.number)
        abort(self.sock)

    def abandon(self) -> None:
        if self.sock.fileno() >= 0:
            self.reset()

    def deliver_and_reset(self) -> None:
        if self.deaf:
            self.reset()
            return
        splice, outward = self.splice, self.outward
        pipe, piped = outward.take_pipe() if isinstance(outward, PlainFlow) else (None, 0)
        farewell = Farewell(
            self.sock,
            splice.edges,
            splice.limits,
            splice.clock,
            outward.pending,
            pipe,
            piped,
            splice.left,
        )
        splice.leaving(farewell)
        farewell.begin()

    def undelivered(self) -> int:
        return unread(self.sock) + self.inward.waits + 1


class PlainFlow(Flow):
    """
    From a socket to a socket.
    """

    __slots__ = ("_full", "_pipe", "_piped", "sink", "source")

    def __init__(self, splice: Splice, source: PlainEnd, sink: PlainEnd) -> None:
        super().__init__(splice)
        self.source = source
        self.sink = sink
        self._full = 0
        self._pipe: Pipe | None = None
        self._piped = 0

    def begin(self, unsent: bytes, held: bytes, ended: bool) -> None:
        self.count = len(held)
        self.ended = self.source.in_ended = ended
        if unsent or held:
            self.pending = unsent + held
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
        if self._full >= _BULK:
            if self._move_in_kernel():
                self.later()
            return
        try:
            size = source.recv_into(_BUFFER)
        except BlockingIOError:
            source.readable = False
            self._full = 0
            return
        except OSError:
            self.splice.lose(source, Lost.RESET)
            return
        if not size:
            self._take_end()
            return
        self.count += size
        if size == _SIZE:
            self._full += 1
        else:
            self._full = 0
            source.readable = source.hung
        if not sink.deaf:
            try:
                sent = sink.send(_VIEW[:size])
            except BlockingIOError:
                sent = 0
            except OSError as fault:
                sink.cannot_send(fault)
                if not self.splice.running:
                    return
                sent = size
            if sent < size:
                self.pending = bytes(_VIEW[sent:size])
                self.blocked = True
                return
        if source.readable:
            self.later()

    def _take_end(self) -> None:
        self._let_pipe_go()
        self.source.end_was_read()

    def _flush(self) -> bool:
        """
        @return: whether nothing waits any more.
        """
        sink = self.sink
        try:
            while self.pending:
                sent = sink.send(self.pending)
                self.pending = memoryview(self.pending)[sent:]
            self.pending = None
            while self._piped and self._pipe is not None:
                self._piped -= os.splice(
                    self._pipe.reader, sink.number, self._piped, flags=PIPE_FLAGS
                )
        except BlockingIOError:
            return False
        except OSError as fault:
            sink.cannot_send(fault)
            return self.splice.running
        self.blocked = False
        return True

    def _move_in_kernel(self) -> bool:
        """
        @return: whether to go on.
        """
        source, sink = self.source, self.sink
        try:
            if self._pipe is None:
                self._pipe = self.splice.pipes.take()
            size = os.splice(source.number, self._pipe.writer, _CHUNK, flags=PIPE_FLAGS)
        except BlockingIOError:
            source.readable = False
            self._let_pipe_go()
            return False
        except OSError as fault:
            self._let_pipe_go()
            self._full = 0
            if fault.errno in (errno.EINVAL, errno.EMFILE, errno.ENFILE):
                return True  # no pipe for us: through the buffer, then
            self.splice.lose(source, Lost.RESET)
            return False
        if not size:
            self._take_end()
            return False
        self.count += size
        if size < _SIZE:
            self._full -= 1  # it calms down
        self._piped = size
        self.blocked = True
        if sink.deaf:
            self.drop()
            return True
        return self._flush()

    @property
    def waits(self) -> int:
        return super().waits + self._piped

    def _let_pipe_go(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None and not self._piped:
            self.splice.pipes.give(pipe)

    def take_pipe(self) -> tuple[Pipe | None, int]:
        """
        @return: the pipe with what waits in it, which is the caller's now.
        """
        pipe, self._pipe = self._pipe, None
        return pipe, self._piped

    def drop(self) -> None:
        super().drop()
        if self._piped:
            self._pipe = None  # with all that is in it
            self._piped = 0

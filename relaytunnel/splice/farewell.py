"""
Leaving a peer behind a reset of the other one: deliver, end, and reset.

The other one has ended, and then answered with a reset: it is gone.  What it
said before is delivered, its end behind it.  What this peer still says is for
nobody, so it is thrown away until the peer has taken everything, within the
limits, and then it is told by a reset, as it would have been by the other one.
A reset before would overtake what was sent last.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from relaytunnel.channel.edges import LOST, OUT, EdgeWatch
from relaytunnel.channel.lingering import Lingering
from relaytunnel.channel.sockets import cut_when_killed, end_when_killed, unsent
from relaytunnel.interfaces import SpliceLimits
from relaytunnel.splice.pipes import PIPE_FLAGS, Pipe

__all__ = ["Farewell", "abort"]

_SCRATCH = bytearray(64 * 1024)
_READS_PER_TURN = 16


def abort(sock: socket.socket) -> None:
    """
    Close a socket so that the peer sees a reset.
    """
    cut_when_killed(sock)
    sock.close()


class Farewell:
    """
    The last moments of a socket.
    """

    def __init__(
        self,
        sock: socket.socket,
        edges: EdgeWatch,
        limits: SpliceLimits,
        clock: IReactorTime,
        waiting: bytes | memoryview | None,
        pipe: Pipe | None,
        piped: int,
        gone: Callable[[Farewell], None] = lambda _: None,
    ) -> None:
        """
        @param waiting: what is still to be sent.
        @param pipe: a pipe with C{piped} bytes that come behind it.
        @param gone: called when the socket is closed.
        """
        self._sock = sock
        self._edges = edges
        self._waiting = memoryview(waiting or b"")
        self._pipe = pipe
        self._piped = piped
        self._gone = gone
        self._said = False
        self._heard_end = False
        self._over = False
        self._lingering = Lingering(clock, limits, self._left, lambda taken: self._leave())

    def begin(self) -> None:
        """
        Say what is to be said.
        """
        self._edges.watch(self._sock.fileno(), self._happened)
        self._happened(OUT)
        self._lingering.look()

    def abort(self) -> None:
        """
        Leave at once, whatever waits.
        """
        if not self._over:
            self._close(True)

    def _left(self) -> int:
        """
        @return: bytes that the peer has not taken.
        """
        return len(self._waiting) + self._piped + unsent(self._sock)

    def _happened(self, events: int) -> None:
        if self._over:
            return
        try:
            if not self._said:
                try:
                    self._say()
                except BlockingIOError:
                    if events & LOST:
                        raise OSError from None
            self._discard()
        except OSError:
            self._leave()

    def failed(self) -> None:
        """
        One of our methods has raised.
        """
        if self._sock.fileno() >= 0:
            self._leave()

    def _say(self) -> None:
        while self._waiting:
            self._waiting = self._waiting[self._sock.send(self._waiting) :]
        while self._piped and self._pipe is not None:
            self._piped -= os.splice(
                self._pipe.reader, self._sock.fileno(), self._piped, flags=PIPE_FLAGS
            )
        self._pipe = None
        self._said = True
        end_when_killed(self._sock)
        self._sock.shutdown(socket.SHUT_WR)
        self._lingering.look()

    def _discard(self) -> None:
        """
        Throw away what the peer says.  One that has ended, too, need not be
        told anything.
        """
        for _ in range(_READS_PER_TURN):
            if self._over:
                return
            if self._heard_end:
                break
            try:
                self._heard_end = not self._sock.recv_into(_SCRATCH)
            except BlockingIOError:
                return
        if not self._heard_end:
            self._edges.again(lambda: self._happened(0))
        elif self._said:
            self._leave()

    def _leave(self) -> None:
        if not self._over:
            self._close(not (self._said and unsent(self._sock)))

    def _close(self, reset: bool) -> None:
        self._over = True
        self._lingering.stop()
        self._edges.closed(self._sock.fileno())
        self._pipe = None
        if reset:
            abort(self._sock)
        else:
            self._sock.close()  # the kernel delivers it yet
        self._gone(self)

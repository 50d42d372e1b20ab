"""
Leaving a peer that may still be reading, and sending: deliver, end, discard,
and at last reset.

A socket that is closed with unread input becomes a reset, which overtakes what
was sent last.  So the end is sent first, what still comes in is thrown away,
and the peer learns that nobody heard it when it has ended too or the limits
have passed.
"""

from __future__ import annotations

import os
import socket

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from relaytunnel.channel.edges import LOST, OUT, EdgeWatch
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
    ) -> None:
        """
        @param waiting: what is still to be sent.
        @param pipe: a pipe with C{piped} bytes that come behind it.
        """
        self._sock = sock
        self._edges = edges
        self._limits = limits
        self._clock = clock
        self._waiting = memoryview(waiting or b"")
        self._pipe = pipe
        self._piped = piped
        self._said = False
        now = clock.seconds()
        self._last_heard = now
        self._until = now + limits.linger
        self._alarm: IDelayedCall | None = clock.callLater(limits.linger_idle, self._look)
        edges.watch(sock.fileno(), self._happened)
        self._happened(OUT)

    def _happened(self, events: int) -> None:
        if self._alarm is None:
            return
        try:
            if not self._said and not self._say():
                return
            self._listen()
        except BlockingIOError:
            if events & LOST:
                self._leave()
        except OSError:
            self._leave()

    def failed(self) -> None:
        """
        One of our methods has raised.
        """
        if self._sock.fileno() >= 0:
            self._leave()

    def _say(self) -> bool:
        """
        @return: whether all has been said.
        """
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
        return True

    def _listen(self) -> None:
        for _ in range(_READS_PER_TURN):
            if not self._sock.recv_into(_SCRATCH):
                self._leave()
                return
            self._last_heard = self._clock.seconds()
        self._edges.again(lambda: self._happened(0))

    def _look(self) -> None:
        now = self._clock.seconds()
        quiet_at = self._last_heard + self._limits.linger_idle
        due = min(quiet_at, self._until) if self._said else self._until
        if now < due:
            self._alarm = self._clock.callLater(due - now, self._look)
        else:
            self._alarm = None
            self._leave()

    def _leave(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._edges.closed(self._sock.fileno())
        self._pipe = None
        if self._said and unsent(self._sock):
            self._sock.close()  # the kernel delivers it yet
        else:
            abort(self._sock)

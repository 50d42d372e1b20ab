"""
Pipes for C{splice(2)}, which moves bytes between sockets inside the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
from weakref import WeakSet

__all__ = ["PIPE_FLAGS", "Pipe", "Pipes", "can_splice"]

can_splice = hasattr(os, "splice") and hasattr(os, "pipe2")
"""Whether this platform has it (Linux)."""

PIPE_FLAGS: int = getattr(os, "SPLICE_F_NONBLOCK", 0) | getattr(os, "SPLICE_F_MOVE", 0)

_SIZE = 1 << 20
_KEPT = 16


class Pipe:
    """
    A pipe, which is closed when nobody has it any more.
    """

    __slots__ = ("__weakref__", "reader", "writer")

    def __init__(self) -> None:
        self.reader = self.writer = -1
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            # Over the user's share of pages a small one does, too.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, _SIZE)

    def __del__(self) -> None:
        if self.reader >= 0:
            os.close(self.reader)
            os.close(self.writer)


class Pipes:
    """
    Empty pipes, waiting to be used.
    """

    def __init__(self, most: int = sys.maxsize) -> None:
        """
        @param most: how many there may be, empty or not.
        """
        self._most = most
        self._all: WeakSet[Pipe] = WeakSet()
        self._empty: list[Pipe] = []

    def take(self) -> Pipe:
        """
        @return: an empty pipe.
        @raise OSError: no descriptor is left for one, or there are as many as
            there may be.
        """
        if self._empty:
            return self._empty.pop()
        if len(self._all) >= self._most:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        pipe = Pipe()
        self._all.add(pipe)
        return pipe

    def give(self, pipe: Pipe) -> None:
        """
        Take an empty pipe back.
        """
        if len(self._empty) < _KEPT:
            self._empty.append(pipe)

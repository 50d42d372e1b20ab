"""
The ends of sessions: sockets that follow their plans, many in one process.

What became of a session is written as a line of JSON, by each of its ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.plans import Header, Plan, meant_for, stream

__all__ = ["End", "Loop", "Record", "reset"]

_RESET = struct.pack("ii", 1, 0)
_READS = 4
_SIZE = 64 * 1024
_TICK = 0.02
_LOOK = 0.05
_LOST = select.EPOLLERR


def reset(sock: socket.socket) -> None:
    """
    Close a socket so that the peer sees a reset.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


class Record:
    """
    A file to which lines are added, each at once and as a whole.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def add(self, what: dict[str, Any]) -> None:
        """
        Write a line.
        """
        os.write(self._file, json.dumps(what).encode() + b"\n")


class Loop:
    """
    Lets the ends of this process go on.

    @ivar ends: those under way.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.ends: dict[int, Any] = {}
        self._events: dict[int, int] = {}
        self._looked = 0.0

    def add(self, end: Any) -> None:
        """
        Take one more.
        """
        number = end.sock.fileno()
        self.ends[number] = end
        self._events[number] = 0
        self._epoll.register(number, 0)
        self._go_on(number, 0)

    def turn(self) -> None:
        """
        Wait a moment at most, and let go on who can.
        """
        for number, events in self._epoll.poll(_TICK):
            self._go_on(number, events)
        now = time.monotonic()
        if now - self._looked >= _LOOK:
            self._looked = now
            for number in list(self.ends):
                self._go_on(number, 0)

    def _go_on(self, number: int, events: int) -> None:
        end = self.ends.get(number)
        if end is None:
            return
        wanted = end.go_on(events)
        if wanted is None:  # it is over, and its socket closed
            del self.ends[number], self._events[number]
        elif end.sock.fileno() == number and wanted != self._events[number]:
            self._events[number] = wanted
            self._epoll.modify(number, wanted)


class End:
    """
    One end of a session that has begun.

    @ivar got_end: whether the other one has ended cleanly.
    @ivar sent_end: how this one did: C{clean}, C{closed} (with what was still
        to come unheard), or not at all.
    """

    def __init__(
        self,
        sock: socket.socket,
        header: Header,
        side: int,
        plan: Plan,
        patience: float,
        over: Callable[[End], None],
    ) -> None:
        """
        @param patience: seconds without a byte until this end gives up.
        @param over: is told when it is.
        """
        self.sock = sock
        self.header = header
        self.side = side
        self.plan = plan
        self.patience = patience
        self._over = over
        self.sent = self.got = 0
        self.sent_end, self.got_end, self.why, self.strange = "", False, "", ""
        self._sent_hash, self._got_hash = hashlib.sha256(), hashlib.sha256()
        self.began = self._moved = time.monotonic()
        self._half = plan.size // 2
        self._silent_until = 0.0
        self._paced = max(20_000, plan.rate // 5)

    def record(self) -> dict[str, Any]:
        """
        @return: what became of it.
        """
        return {
            "session": self.header.session,
            "kind": self.header.kind,
            "side": self.side,
            "began": self.began,
            "over": time.monotonic(),
            "why": self.why,
            "sent": self.sent,
            "sent_hash": self._sent_hash.hexdigest(),
            "sent_end": self.sent_end,
            "got": self.got,
            "got_hash": self._got_hash.hexdigest(),
            "got_end": self.got_end,
            "strange": self.strange,
        }

    def go_on(self, events: int) -> int | None:
        """
        @return: the events to wait for; C{None} when it is over.
        """
        now = time.monotonic()
        if events & _LOST:
            return self._finish("reset")
        if self.plan.death and now >= self.began + self.plan.dies:
            return self.die(self.plan.death)
        wanted = 0
        try:
            reading = self._hear(now)
            writing = self._say(now)
        except OSError as fault:
            return self._finish("reset" if not isinstance(fault, TimeoutError) else "timed out")
        if self.sent_end and self.got_end:
            return self._finish("done")
        if now - self._moved > self.patience:
            return self._finish("timed out")
        if reading:
            wanted |= select.EPOLLIN
        if writing:
            wanted |= select.EPOLLOUT
        return wanted

    def take(self, data: bytes) -> None:
        """
        These bytes have come.
        """
        if not self.strange:
            wanted = stream(self.header, 1 - self.side, self.got, len(data))
            if data != wanted:
                whose = meant_for(data)
                self.strange = f"at byte {self.got} or later something else, of session {whose}"
        self._got_hash.update(data)
        self.got += len(data)
        self._moved = time.monotonic()

    def _hear(self, now: float) -> bool:
        """
        @return: whether to wait for more.
        """
        if self.got_end:
            return False
        for _ in range(_READS):
            size = _SIZE
            if self.plan.reads:
                size = min(size, int((now - self.began) * self.plan.reads) - self.got)
                if size < 1:
                    return False
            try:
                data = self.sock.recv(size)
            except BlockingIOError:
                return True
            if not data:
                self.got_end = True
                self._moved = now
                return False
            self.take(data)
        return True

    def _say(self, now: float) -> bool:
        """
        @return: whether to wait until there is room.
        """
        plan = self.plan
        if self.sent_end or self.got < plan.begin:
            return False
        while self.sent < plan.size:
            size = min(_SIZE, plan.size - self.sent)
            if plan.rate:
                size = min(size, int((now - self.began) * plan.rate) + self._paced - self.sent)
            if plan.silence:
                if self.sent >= self._half and not self._silent_until:
                    self._silent_until = now + plan.silence
                if self.sent < self._half:
                    size = min(size, self._half - self.sent)
                elif now < self._silent_until:
                    return False
            if size < 1:
                return False
            piece = stream(self.header, self.side, self.sent, size)
            try:
                count = self.sock.send(piece)
            except BlockingIOError:
                return True
            self._sent_hash.update(piece[:count])
            self.sent += count
            self._moved = now
        if not plan.last or self.got_end:
            self.sock.shutdown(socket.SHUT_WR)
            self.sent_end = "clean"
            self._moved = now
        return False

    def die(self, how: str = "reset") -> int | None:
        """
        End here and now, whatever was planned.
        """
        self.why = f"died: {how}"
        if how == "close":
            self.sent_end = self.sent_end or "closed"
            self.sock.close()
        else:
            reset(self.sock)
        self._over(self)
        return None

    def _finish(self, why: str) -> int | None:
        self.why = why
        if why == "done":
            self.sock.close()
        else:
            reset(self.sock)
        self._over(self)
        return None

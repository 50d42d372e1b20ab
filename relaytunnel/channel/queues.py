"""
Queues of the kernel's that tell, once for each change, what happened at which
descriptor: C{epoll(7)} where there is one, C{kqueue(2)} on BSD and macOS.

Both look like Python's C{select.epoll}, asked for edges.
"""

from __future__ import annotations

import contextlib
import select
from typing import Any, Protocol

__all__ = ["HANGUP", "IN", "LOST", "OUT", "EventQueue", "KernelQueue", "queue_of"]

IN: int = getattr(select, "EPOLLIN", 0x1)
"""There is something to read, an end included."""
OUT: int = getattr(select, "EPOLLOUT", 0x4)
"""There is room to write."""
LOST: int = getattr(select, "EPOLLERR", 0x8) | getattr(select, "EPOLLHUP", 0x10)
"""The connection is over in both directions, or has an error."""
HANGUP: int = getattr(select, "EPOLLRDHUP", 0x2000)
"""The peer has ended its direction."""

_READ_ENDED, _WRITE_ENDED = 1, 2


class EventQueue(Protocol):
    """
    What is asked of a queue.
    """

    @property
    def closed(self) -> bool:
        """Whether it is."""

    def fileno(self) -> int:
        """@return: a descriptor that can be read while there are events."""

    def register(self, descriptor: int, events: int, /) -> None:
        """
        Tell these events from now on, and those that there are.

        @raise FileExistsError: it does so already.
        """

    def modify(self, descriptor: int, events: int, /) -> None:
        """Tell these instead, and again those that there are."""

    def unregister(self, descriptor: int, /) -> None:
        """
        Tell no more.

        @raise OSError: nothing of that descriptor was told.
        """

    def poll(self, timeout: float, most: int, /) -> list[tuple[int, int]]:
        """
        @param timeout: seconds to wait for the first.
        @return: descriptors, each with its events.
        """

    def close(self) -> None:
        """Let go of the queue."""


class _Epoll:
    """
    Edges of C{epoll(7)}.
    """

    def __init__(self, machine: Any) -> None:
        epoll = machine.epoll(sizehint=64)
        edge = machine.EPOLLET
        self._epoll = epoll
        self.poll = epoll.poll
        self.fileno, self.close, self.unregister = epoll.fileno, epoll.close, epoll.unregister
        self.register = lambda descriptor, events: epoll.register(descriptor, events | edge)
        self.modify = lambda descriptor, events: epoll.modify(descriptor, events | edge)

    @property
    def closed(self) -> bool:
        return bool(self._epoll.closed)


class KernelQueue:
    """
    Edges of C{kqueue(2)}, where each direction of a descriptor has a filter,
    told in the words of C{epoll(7)}.

    A connection is lost when one of them has an error, or both have ended;
    that of writing ends by our own doing, too.
    """

    def __init__(self, machine: Any = select) -> None:
        """
        @param machine: what has C{kqueue}, C{kevent} and their constants.
        """
        self._queue = machine.kqueue()
        self._event = machine.kevent
        self._filters = (
            (machine.KQ_FILTER_READ, IN | HANGUP),
            (machine.KQ_FILTER_WRITE, OUT),
        )
        self._read = machine.KQ_FILTER_READ
        self._add = machine.KQ_EV_ADD | machine.KQ_EV_CLEAR
        self._delete = machine.KQ_EV_DELETE
        self._ended = machine.KQ_EV_EOF
        self._wanted: dict[int, int] = {}
        self._ends: dict[int, int] = {}

    @property
    def closed(self) -> bool:
        return bool(self._queue.closed)

    def fileno(self) -> int:
        return int(self._queue.fileno())

    def close(self) -> None:
        self._queue.close()

    def register(self, descriptor: int, events: int) -> None:
        if descriptor in self._wanted:
            raise FileExistsError(descriptor)
        self.modify(descriptor, events)

    def modify(self, descriptor: int, events: int) -> None:
        # The kernel forgets a closed descriptor by itself, so there may be
        # another of that number now, with none of the filters.
        self._ends.pop(descriptor, None)
        self._wanted.pop(descriptor, None)
        for kind, told in self._filters:
            if events & told:
                self._queue.control([self._event(descriptor, kind, self._add)], 0, 0)
            else:
                self._without(descriptor, kind)
        self._wanted[descriptor] = events

    def unregister(self, descriptor: int) -> None:
        self._ends.pop(descriptor, None)
        if self._wanted.pop(descriptor, None) is None:
            raise FileNotFoundError(descriptor)
        for kind, _ in self._filters:
            self._without(descriptor, kind)

    def _without(self, descriptor: int, kind: int) -> None:
        with contextlib.suppress(OSError):  # there is none
            self._queue.control([self._event(descriptor, kind, self._delete)], 0, 0)

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        told: dict[int, int] = {}
        for event in self._queue.control(None, most, timeout):
            found = self._in_words(event)
            if found:
                told[event.ident] = told.get(event.ident, 0) | found
        return list(told.items())

    def _in_words(self, event: Any) -> int:
        reads = event.filter == self._read
        found = IN if reads else OUT
        if event.flags & self._ended:
            ends = self._ends.get(event.ident, 0) | (_READ_ENDED if reads else _WRITE_ENDED)
            self._ends[event.ident] = ends
            found |= HANGUP if reads else 0
            if event.fflags or ends == _READ_ENDED | _WRITE_ENDED:
                found |= LOST
        return found & (self._wanted.get(event.ident, 0) | LOST)


def queue_of(machine: Any = select) -> EventQueue | None:
    """
    @return: a queue of this machine's kernel; C{None} if it has none.
    """
    if hasattr(machine, "epoll"):
        return _Epoll(machine)
    return KernelQueue(machine) if hasattr(machine, "kqueue") else None

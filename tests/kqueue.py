"""
C{kqueue(2)} as far as it is used here, on C{epoll(7)}, and Twisted's reactor on
top of it.

The BSDs' manual says what each call does; this module stands in for Python's
C{select} where there is no BSD.
"""

from __future__ import annotations

import errno
import select
import sys

__all__ = ["EmulatedKQueueReactor", "KQueueReactor"]

KQ_FILTER_READ, KQ_FILTER_WRITE = -1, -2
KQ_EV_ADD, KQ_EV_DELETE, KQ_EV_CLEAR, KQ_EV_EOF = 0x1, 0x2, 0x20, 0x8000

_OVER = select.EPOLLHUP | select.EPOLLERR
_ASKED = {KQ_FILTER_READ: select.EPOLLIN | select.EPOLLRDHUP, KQ_FILTER_WRITE: select.EPOLLOUT}
_ENDED = {KQ_FILTER_READ: select.EPOLLRDHUP | _OVER, KQ_FILTER_WRITE: _OVER}


class _Event:
    """
    A change that is asked for, or an event.
    """

    def __init__(self, ident: int, kind: int, flags: int = KQ_EV_ADD, fflags: int = 0) -> None:
        self.ident = ident
        self.filter = kind
        self.flags = flags
        self.fflags = fflags


class _Queue:
    """
    One epoll for each of the two filters, and one for both.
    """

    closed = False

    def __init__(self) -> None:
        self._both = select.epoll()
        self._of = {kind: select.epoll() for kind in _ASKED}
        for one in self._of.values():
            self._both.register(one.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        return self._both.fileno()

    def close(self) -> None:
        self.closed = True
        for one in (*self._of.values(), self._both):
            one.close()

    def control(
        self, changes: list[_Event] | None, most: int, timeout: float | None = None
    ) -> list[_Event]:
        for change in changes or ():
            self._change(change)
        if not most:
            return []
        self._both.poll(timeout)
        told: list[_Event] = []
        for kind, one in self._of.items():
            room = most - len(told)
            told += [_told(kind, *found) for found in (one.poll(0, room) if room else ())]
        return told

    def _change(self, change: _Event) -> None:
        one = self._of[change.filter]
        if change.flags & KQ_EV_DELETE:
            one.unregister(change.ident)
            return
        asked = _ASKED[change.filter]
        if change.flags & KQ_EV_CLEAR:
            asked |= select.EPOLLET
        try:
            one.register(change.ident, asked)
        except FileExistsError:
            one.modify(change.ident, asked)


kevent, kqueue = _Event, _Queue
"""As Python names them."""


def _told(kind: int, descriptor: int, events: int) -> _Event:
    ended = KQ_EV_EOF if events & _ENDED[kind] else 0
    return _Event(descriptor, kind, ended, errno.ECONNRESET if events & select.EPOLLERR else 0)


_NAMES = ("KQ_EV_ADD", "KQ_EV_DELETE", "KQ_EV_EOF", "KQ_FILTER_READ", "KQ_FILTER_WRITE")
_lent = [name for name in _NAMES if not hasattr(select, name)]
for _name in _lent:
    setattr(select, _name, globals()[_name])
try:
    from twisted.internet.kqreactor import KQueueReactor
finally:
    for _name in _lent:
        delattr(select, _name)


def EmulatedKQueueReactor() -> KQueueReactor:
    """
    @return: a reactor on this module's kqueue.
    """
    return KQueueReactor(sys.modules[__name__])

"""
Noticing that a peer is gone while nobody reads from it.

A reactor watches a paused or half-closed descriptor for nothing, so a reset
goes unseen until somebody reads or writes again.  Here such descriptors wait
in an epoll of their own, edge-triggered and for no input at all, and that
epoll's descriptor is one more reader of the reactor.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Callable

from zope.interface import implementer

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure

__all__ = ["HangupWatch", "clean_end_before_reset"]

_EVENTS_PER_TURN = 256


def clean_end_before_reset(sock: socket.socket) -> bool | None:
    """
    Say in which order a dead peer's end and reset came.

    Linux reports EPIPE for a reset behind a FIN and ECONNRESET, or what made
    the connection time out, for any other.  Asking clears the error.

    @return: C{None} if there was no reset at all; whether a FIN came before it
        otherwise.
    """
    fault = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if not fault:
        return None
    return fault == errno.EPIPE


@implementer(IReadDescriptor)
class HangupWatch:
    """
    Calls back when a watched descriptor's peer has hung up.

    Where there is no epoll it watches nothing: the peer's end is then noticed
    at the next read or write.
    """

    def __init__(self, reactor: object) -> None:
        self._watched: dict[int, Callable[[], None]] = {}
        self._reactor: IReactorFDSet | None = None
        if hasattr(select, "epoll") and IReactorFDSet.providedBy(reactor):
            self._reactor = IReactorFDSet(reactor)
            self._epoll = select.epoll(sizehint=64)
            self._reactor.addReader(self)

    def watch(self, descriptor: int, hung_up: Callable[[], None]) -> None:
        """
        Call C{hung_up} when the peer resets or half-closes the connection, at
        once if it already has.  Watching a descriptor again arms it anew.
        """
        if self._reactor is None:
            return
        events = select.EPOLLRDHUP | select.EPOLLET
        if descriptor in self._watched:
            self._epoll.modify(descriptor, events)
        else:
            self._epoll.register(descriptor, events)
        self._watched[descriptor] = hung_up

    def forget(self, descriptor: int) -> None:
        """
        Stop watching, before or right after the descriptor was closed.
        """
        if self._watched.pop(descriptor, None) is not None:
            with contextlib.suppress(OSError):  # the kernel has taken a closed one out
                self._epoll.unregister(descriptor)

    def close(self) -> None:
        """
        Watch nothing any more and let go of the epoll.
        """
        if self._reactor is not None:
            self._reactor.removeReader(self)
            self.connectionLost(None)

    def fileno(self) -> int:
        return -1 if self._epoll.closed else self._epoll.fileno()

    def logPrefix(self) -> str:
        return "hangup watch"

    def doRead(self) -> None:
        for descriptor, _ in self._epoll.poll(0, _EVENTS_PER_TURN):
            hung_up = self._watched.get(descriptor)
            if hung_up is not None:
                hung_up()
            if self._reactor is None:
                return

    def connectionLost(self, reason: Failure | None) -> None:
        self._watched.clear()
        if self._reactor is not None:
            self._reactor = None
            self._epoll.close()

"""
Edge-triggered events of many descriptors, behind one descriptor of the reactor.

A reactor tells again and again that a descriptor is ready, so whoever does not
want to read has to take it out and put it back, and a paused or half-closed
descriptor is watched for nothing: a reset goes unseen until somebody reads or
writes.  Here descriptors wait in a queue of their own, edge-triggered: each is
put in once, is told once of each change, and pausing costs nothing.  That
queue's descriptor is one more reader of the reactor.

While much happens here, the next event is waited for here, too: a turn of the
reactor costs as much as passing some bytes on.  The reactor's own readers are
guests in this queue then, so that none of them, and no delayed call, waits
longer than it would have.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure

from relaytunnel.channel.queues import HANGUP, IN, LOST, OUT, queue_of

__all__ = ["EVERYTHING", "HANGUP", "IN", "LOST", "OUT", "EdgeWatch", "clean_end_before_reset"]

EVERYTHING = IN | OUT | HANGUP
"""All of them; LOST is told whether one asks for it or not."""

_EVENTS_PER_TURN = 256
_WAIT = 0.001
"""Seconds to wait for another event; no less can be asked for."""
_STAY = 0.005
"""Seconds until the reactor has a turn, whatever happens here."""
_MOST_GUESTS = 32
_SOON = 0.0001
"""Seconds within which an event comes soon."""
_others_first: Callable[[], None] | None = getattr(os, "sched_yield", None)


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
class EdgeWatch:
    """
    Calls back when something changes at a watched descriptor.

    Where there is neither epoll nor kqueue, or the reactor takes no descriptors,
    it watches nothing.

    @ivar works: whether it does.
    """

    _log = Logger()

    def __init__(self, reactor: Any, machine: Any = select) -> None:
        """
        @param machine: what has C{epoll} or C{kqueue}.
        """
        self._watched: dict[int, Callable[[int], None]] = {}
        self._again: list[Callable[[], None]] = []
        self._next_turn: IDelayedCall | None = None
        self._guests: dict[Any, int] = {}
        self._inside = False
        self._awake = False
        self._reactor: Any = None
        queue = queue_of(machine) if IReactorFDSet.providedBy(reactor) else None
        self.works = queue is not None
        if queue is not None:
            self._reactor = reactor
            self._queue = queue
            if not hasattr(reactor, "timeout"):
                self._have_guests = lambda: False  # type: ignore[method-assign]
            self._reactor.addReader(self)

    def watch(
        self, descriptor: int, happened: Callable[[int], None], events: int = EVERYTHING
    ) -> None:
        """
        Call C{happened} with the events there are, whenever they change; at
        once if there are some.  Watching a descriptor again arms it anew.
        """
        if self._reactor is None:
            return
        if descriptor in self._watched:
            self._queue.modify(descriptor, events)
        else:
            try:
                self._queue.register(descriptor, events)
            except FileExistsError:
                self._no_guest(descriptor)
                self._queue.modify(descriptor, events)
        self._watched[descriptor] = happened

    def _no_guest(self, descriptor: int) -> None:
        for guest, number in list(self._guests.items()):
            if number == descriptor:
                del self._guests[guest]

    def forget(self, descriptor: int) -> None:
        """
        Stop watching, before or right after the descriptor was closed.
        """
        if self._watched.pop(descriptor, None) is not None:
            with contextlib.suppress(OSError):  # the kernel has taken a closed one out
                self._queue.unregister(descriptor)

    def hand(self, descriptor: int, happened: Callable[[int], None]) -> None:
        """
        Tell somebody else what happens from now on.  What has happened is known
        to whoever was told before.
        """
        if descriptor in self._watched:
            self._watched[descriptor] = happened

    def closed(self, descriptor: int) -> None:
        """
        The descriptor is about to be closed, and nobody else has a copy: the
        kernel takes it out by itself.
        """
        self._watched.pop(descriptor, None)

    def again(self, go_on: Callable[[], None]) -> None:
        """
        Call this in the reactor's next turn: others come first.
        """
        if self._reactor is not None:
            self._again.append(go_on)
            if self._next_turn is None and not self._inside:
                self._next_turn = self._reactor.callLater(0, self._turn)

    def _turn(self) -> None:
        self._next_turn = None
        self.doRead()

    def _go_on(self) -> None:
        waiting, self._again = self._again, []
        for go_on in waiting:
            try:
                go_on()
            except Exception:
                self._log.failure("going on failed by our own fault")
                self._tell_failed(go_on)

    def close(self) -> None:
        """
        Watch nothing any more and let go of the queue.
        """
        if self._reactor is not None:
            self._reactor.removeReader(self)
            self.connectionLost(None)

    def fileno(self) -> int:
        return -1 if self._queue.closed else self._queue.fileno()

    def logPrefix(self) -> str:
        return "edges"

    def doRead(self) -> None:
        self._inside = True
        try:
            if self._tell(self._queue.poll(0, _EVENTS_PER_TURN)) and self._have_guests():
                self._stay()
        finally:
            self._inside = False
            if self._again and self._next_turn is None and self._reactor is not None:
                self._next_turn = self._reactor.callLater(0, self._turn)

    def _stay(self) -> None:
        poll, timeout, now = self._queue.poll, self._reactor.timeout, time.monotonic
        until = now() + _STAY
        alone = True
        while now() < until:
            due = timeout()
            if due is not None and due < _WAIT:
                return
            if self._again:
                events = poll(0, _EVENTS_PER_TURN)
            elif alone:
                events = self._await()
            else:
                events = poll(_WAIT, _EVENTS_PER_TURN)
            if not (events or self._again) or not self._tell(events):
                return
            alone = len(events) == 1

    def _await(self) -> list[tuple[int, int]]:
        """
        Wait for an event; wide awake, if the last one came soon.

        To be woken takes a processor that has gone to sleep longer than to
        pass a message on: a round trip through relay and agent takes half as
        long when they do not sleep in the midst of it.  Whoever else wants the
        processor meanwhile has it.
        """
        poll, now = self._queue.poll, time.monotonic
        until = now() + _SOON
        if self._awake and _others_first is not None:
            while True:
                events = poll(0, _EVENTS_PER_TURN)
                if events:
                    return events
                if now() > until:
                    break
                _others_first()
        events = poll(_WAIT, _EVENTS_PER_TURN)
        self._awake = now() < until
        return events

    def _tell(self, events: list[tuple[int, int]]) -> bool:
        """
        Call who is to be called, then who wants to go on.

        @return: whether all of that was ours, and we are still there.
        """
        watched = self._watched
        ours = True
        for descriptor, event in events:
            happened = watched.get(descriptor)
            if happened is None:
                ours = False
                continue
            try:
                happened(event)
            except Exception:
                # One descriptor's fault must not take the others along.
                self._log.failure("an event was lost by our own fault")
                self._tell_failed(happened)
            if self._reactor is None:
                return False
        if self._again:
            self._go_on()
        return ours and self._reactor is not None

    def _tell_failed(self, called: Any) -> None:
        """
        Let the owner of a method that has raised end what it was for, by its
        method C{failed}, if it has one.
        """
        failed = getattr(getattr(called, "__self__", None), "failed", None)
        if failed is not None:
            try:
                failed()
            except Exception:
                self._log.failure("what has failed could not end")

    def _have_guests(self) -> bool:
        """
        See that whatever the reactor waits for wakes us, too.

        @return: whether that is so.
        """
        reactor = self._reactor
        if self._next_turn is not None or reactor.getWriters():
            return False
        readers = set(reactor.getReaders())
        readers.discard(self)
        if readers == self._guests.keys():
            return True
        for gone in self._guests.keys() - readers:
            descriptor = self._guests.pop(gone)
            if descriptor not in self._watched:
                with contextlib.suppress(OSError):  # it is closed
                    self._queue.unregister(descriptor)
        if len(readers) > _MOST_GUESTS:
            return False
        for reader in readers - self._guests.keys():
            descriptor = reader.fileno()
            try:
                self._queue.register(descriptor, IN)
            except OSError:
                return False
            self._guests[reader] = descriptor
        return True

    def connectionLost(self, reason: Failure | None) -> None:
        self._watched.clear()
        self._guests.clear()
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        self._again.clear()
        if self._reactor is not None:
            self._reactor = None
            self._queue.close()

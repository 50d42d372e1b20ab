"""
What engines that own their sockets are made of: ends, and flows between them.

A splice has two ends and two flows.  An end is a channel: it knows what happens
at its descriptor, and how it is half-closed, closed, reset and left.  A flow
moves what comes in at one end to the other.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.interfaces import Lost, SpliceLimits
from relaytunnel.splice.pipes import Pipes
from relaytunnel.splice.running import Leaving
from relaytunnel.steps import happened

__all__ = ["End", "Flow", "Splice"]


class Splice(Protocol):
    """
    What ends and flows know of the splice that they are of.

    @ivar running: whether it is not over yet.
    """

    running: bool
    limits: SpliceLimits
    clock: IReactorTime
    edges: EdgeWatch
    pipes: Pipes

    def half_closed(self) -> None:
        """One direction has ended: less patience from now on."""

    def end_if_all_did(self) -> None:
        """It is over, if both directions have ended and were passed on."""

    def lose(self, end: End, why: Lost) -> None:
        """One channel is gone."""

    def fail(self) -> None:
        """By our own fault nothing can be said of either channel: let go of both."""

    def drain(self, end: End) -> None:
        """The peer there is gone, but not all that it said was taken."""

    def leaving(self, channel: Leaving) -> None:
        """This channel lingers when the splice is over."""

    def left(self, channel: Leaving) -> None:
        """It is gone."""


class End:
    """
    One channel of a splice.

    @ivar inward: the flow of what comes in here.
    @ivar outward: the flow of what goes out here.
    @ivar readable: whether there may be something to read.
    @ivar in_ended: whether the peer's end was read.
    @ivar deaf: whether the peer takes nothing more, and what is for it is
        dropped.
    """

    __slots__ = ("deaf", "in_ended", "inward", "name", "other", "outward", "readable", "splice")

    inward: Flow
    outward: Flow
    other: End

    def __init__(self, splice: Splice, name: str) -> None:
        self.splice = splice
        self.name = name
        self.readable = False
        self.in_ended = False
        self.deaf = False

    def failed(self) -> None:
        """
        One of our methods has raised.
        """
        self.splice.fail()

    def abandon(self) -> None:
        """
        Let go of the channel, whatever state it is in.
        """
        raise NotImplementedError

    def let_go(self) -> None:
        """
        The splice is over.
        """
        del self.inward, self.outward, self.other

    def begin(self) -> None:
        """
        Both ends and both flows are there: wait for events.
        """
        raise NotImplementedError

    def half_close(self) -> None:
        """
        Send the end, behind all that was sent.
        """
        raise NotImplementedError

    def close(self) -> None:
        """
        Both directions have ended: let go.
        """
        raise NotImplementedError

    def reset(self) -> None:
        """
        Abort both directions; what waits to be sent is dropped.
        """
        raise NotImplementedError

    def deliver_and_reset(self) -> None:
        """
        The other end is gone, behind its end: deliver what waits, end, and
        reset; the splice is told when that is done.
        """
        raise NotImplementedError

    def undelivered(self) -> int:
        """
        @return: how much of what came in here waits, its end counts as one.
        """
        raise NotImplementedError


class Flow:
    """
    What goes from one end to the other.

    @ivar count: bytes taken from the source.
    @ivar pending: bytes that the sink did not take.
    @ivar blocked: whether something waits for the sink.
    @ivar ended: whether the source's end was read.
    @ivar flushed: whether it was passed on.
    """

    __slots__ = ("_queued", "blocked", "count", "ended", "flushed", "pending", "splice")

    def __init__(self, splice: Splice) -> None:
        self.splice = splice
        self.count = 0
        self.pending: bytes | memoryview | None = None
        self.blocked = False
        self.ended = False
        self.flushed = False
        self._queued = False

    def run(self) -> None:
        """
        Move what can be moved, for one turn.
        """
        raise NotImplementedError

    def drop(self) -> None:
        """
        What waits is for nobody.
        """
        self.pending = None
        self.blocked = False

    @property
    def waits(self) -> int:
        """How many bytes the sink has not taken."""
        return len(self.pending or b"")

    def begin(self, unsent: bytes, held: bytes, ended: bool) -> None:
        """
        Something had come, or gone, before the engine took over.

        @param unsent: what the sink's channel had not sent yet.
        @param held: what the source's channel had held.
        @param ended: whether the source's end came behind it.
        """
        raise NotImplementedError

    def later(self) -> None:
        """
        There is more to move than one turn may: others come first.
        """
        if not self._queued:
            self._queued = True
            self.splice.edges.again(self._go_on)

    def failed(self) -> None:
        """
        One of our methods has raised.
        """
        self.splice.fail()

    def _go_on(self) -> None:
        self._queued = False
        if self.splice.running:
            self.run()

    def take_end(self, source: End, sink: End) -> None:
        """
        The source has ended.
        """
        self.ended = source.in_ended = True
        happened("end", source.name)
        self.splice.half_closed()
        self.pass_end(sink)

    def pass_end(self, sink: End) -> None:
        """
        Pass the end on, if nothing waits before it and it was not yet.
        """
        if self.ended and not self.flushed and not self.blocked and not sink.deaf:
            sink.half_close()
            self.flushed = True
            self.splice.end_if_all_did()

"""
The splice whose descriptors are its own, and which moves the bytes itself.

Events are edge-triggered, so each end remembers whether it can be read and
written, and nobody has to tell the kernel that a flow is paused.
"""

from __future__ import annotations

from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.lingering import Lingering
from relaytunnel.guarding import attempt_all
from relaytunnel.interfaces import Lost
from relaytunnel.splice.ends import End, Flow
from relaytunnel.splice.pipes import Pipes
from relaytunnel.splice.report import CLEAN, FAILED
from relaytunnel.splice.running import Round, RunningSplice, Total

__all__ = ["PumpSplice"]


class PumpSplice(RunningSplice):
    """
    Two channels whose descriptors are ours.
    """

    __slots__ = ("_draining", "_ends", "clock", "edges", "limits", "pipes")

    first: Flow | Total
    second: Flow | Total
    _ends: tuple[End, ...]

    def __init__(self, round_: Round, edges: EdgeWatch, pipes: Pipes) -> None:
        super().__init__(round_)
        self._ends = ()
        self.first = self.second = Total(0)
        self.limits = round_.limits
        self.clock = round_.clock
        self.edges = edges
        self.pipes = pipes
        self._draining: Lingering | None = None

    def join(self, one: End, two: End, there: Flow, back: Flow) -> None:
        """
        Let these flows between these ends run.
        """
        self._ends = (one, two)
        self.first, self.second = there, back
        one.other, two.other = two, one
        one.inward = two.outward = there
        two.inward = one.outward = back
        one.begin()
        two.begin()
        there.run()
        if self.running:
            back.run()

    def end_if_all_did(self) -> None:
        """
        Both directions have ended and were passed on: let go of the channels.
        """
        ends = self._ends
        if all(end.inward.flushed for end in ends):
            for end in ends:
                end.close()
            self.over(CLEAN)

    def lose(self, end: End, why: Lost) -> None:
        """
        One channel is gone; the other is told in the way that fits.
        """
        if not self.running:
            return
        survivor = end.other
        end.reset()
        if end.in_ended:
            survivor.deliver_and_reset()
        else:
            survivor.reset()
        self.over(f"{end.name} {why.value}")

    def fail(self) -> None:
        if self.running:
            attempt_all([end.abandon for end in self._ends])
            self.over(FAILED)

    def drain(self, end: End) -> None:
        """
        The peer there is gone, and what it said last is still to be taken: wait
        for that no longer than for one that is being left.
        """

        def over(taken: bool) -> None:
            self.lose(end, Lost.RESET)

        if self.running and self._draining is None:
            self._draining = Lingering(self.clock, self.limits, end.undelivered, over)
            self._draining.look()

    def over(self, reason: str) -> None:
        if self._draining is not None:
            self._draining.stop()
            self._draining = None
        if self.running:
            # Take the rings apart, so that all of it goes at once and not when
            # the collector comes by.
            ends, self._ends = self._ends, ()
            self.first, self.second = Total(self.first.count), Total(self.second.count)
            for end in ends:
                end.let_go()
        super().over(reason)

    def _end_both(self) -> None:
        for end in self._ends:
            end.reset()

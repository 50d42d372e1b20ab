"""
What is known of a splice when it is over.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CLEAN", "CLOSED", "FAILED", "HALF_CLOSED_IDLE", "IDLE", "SpliceReport"]

CLEAN = "clean"
"""Both directions ended with everything delivered."""
IDLE = "idle"
"""No byte moved for the idle limit."""
HALF_CLOSED_IDLE = "half-closed idle"
"""One direction had ended and the other moved no byte for its limit."""
CLOSED = "closed"
"""It was ended from outside."""
FAILED = "failed"
"""It ended by our own fault, which is in the log."""


@dataclass(frozen=True)
class SpliceReport:
    """
    One splice, in retrospect.

    @ivar forward: bytes from the first channel to the second.
    @ivar backward: bytes from the second channel to the first.
    @ivar reason: C{"clean"}, one of this module's other words, or who ended it
        and how: C{"first reset"}, C{"second truncated"}.
    @ivar duration: seconds.
    """

    forward: int
    backward: int
    reason: str
    duration: float

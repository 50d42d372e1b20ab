"""
What the parts of relaytunnel ask of each other.

Only names live here: channels and their receivers (floor 3), splice engines
(floor 3) and the accounts (floor 3).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from zope.interface import Attribute, Interface

from twisted.internet.interfaces import IPushProducer, IReactorTime

__all__ = [
    "IChannel",
    "IChannelReceiver",
    "IRunningSplice",
    "ISpliceEngine",
    "Lost",
    "SpliceLimits",
]


class Lost(str, Enum):
    """
    How a channel ended, other than by a clean end in both directions.
    """

    RESET = "reset"
    """The peer aborted (TCP RST, or a RESET frame)."""
    TRUNCATED = "truncated"
    """The transport of a framed channel ended without an EOF frame."""
    REROUTED = "rerouted"
    """The channel goes on, with another session: its next request is for another server."""


class IChannelReceiver(Interface):
    """
    Whoever gets what comes in on a channel.
    """

    def data_received(data: bytes) -> None:
        """
        Bytes came in.
        """

    def end_received() -> None:
        """
        The peer will send nothing more (FIN, or an EOF frame).  The other
        direction is open still.
        """

    def end_sent() -> None:
        """
        All that was written, and the end behind it, has left this process.
        """

    def channel_lost(why: Lost) -> None:
        """
        The channel is gone in both directions, not by C{close()}.  Nothing
        comes after this.
        """


class IChannel(IPushProducer):
    """
    A byte stream in two directions that end independently of each other.

    It is a push producer of what comes in, and takes a push producer of what
    goes out.  After C{reset}, C{finish}, C{close} or C{channel_lost} every
    method but C{abort} does nothing.
    """

    peer: str = Attribute("str: the address of the other end, for logs")

    def attach(receiver: object) -> None:
        """
        Give what comes in to this L{IChannelReceiver} from now on.
        """

    def write(data: bytes) -> None:
        """
        Send bytes, in order, when the peer takes them.
        """

    def end() -> None:
        """
        Send nothing more: half-close behind what was written.
        """

    def reset() -> None:
        """
        Abort both directions: what is buffered is dropped, and the peer sees
        a reset, never a clean end.
        """

    def finish() -> None:
        """
        Nobody listens here any more: deliver what was written, end, discard
        what still comes in, and close, all within the linger limits.
        """

    def deliver_and_reset(gone: Callable[[], None]) -> None:
        """
        The session is aborted behind the end of what is sent here: deliver
        what was written, end, and reset as soon as the peer has taken it, all
        within the linger limits; discard what comes in meanwhile.

        @param gone: called once, when nothing of the session is left here.
        """

    def abort() -> None:
        """
        Do not wait any more for what C{deliver_and_reset} waits for.
        """

    def close() -> None:
        """
        Both directions have ended: let go of the transport.
        """

    def registerProducer(producer: object, streaming: bool) -> None:
        """
        Pause and resume this push producer as the peer takes the bytes.
        """

    def unregisterProducer() -> None:
        """
        Forget the producer.
        """


class IRunningSplice(Interface):
    """
    Two channels that are joined, while they are.
    """

    forward: int = Attribute("int: bytes from the first channel to the second, live")
    backward: int = Attribute("int: bytes from the second channel to the first, live")
    done: Any = Attribute("Deferred[SpliceReport]: fires once, when both channels are gone")

    def close() -> None:
        """
        End it from outside: both channels are reset, also one that lingers.
        """


class SpliceLimits(Protocol):
    """
    How long a splice may be quiet, and what is left of it may take, in seconds.
    """

    @property
    def idle(self) -> float:
        """While both directions are open."""

    @property
    def half_closed(self) -> float:
        """After one direction has ended."""

    @property
    def linger(self) -> float:
        """All the time a peer that is being left may take."""

    @property
    def linger_idle(self) -> float:
        """Without a byte that such a peer takes."""


class ISpliceEngine(Interface):
    """
    A way to join two channels.
    """

    name: str = Attribute("str: what the engine is called in logs and reports")

    def join(
        first: object, second: object, limits: SpliceLimits, clock: IReactorTime
    ) -> IRunningSplice:
        """
        Join two L{IChannel}s until both have ended.
        """

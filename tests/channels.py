"""
Channels in memory, for tests: who holds one end can be watched, and the test
plays the other end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from zope.interface import implementer

from relaytunnel.channel.holding import Holding
from relaytunnel.interfaces import IChannel, Lost

__all__ = [
    "Closes",
    "Ends",
    "FakeChannel",
    "Finishes",
    "Network",
    "Pauses",
    "Resets",
    "Resumes",
    "Writes",
    "connect",
]


# What is done to a channel.  Each names the channel.


@dataclass(frozen=True)
class Writes:
    """
    Bytes are sent.
    """

    channel: str
    data: bytes


@dataclass(frozen=True)
class Ends:
    """
    Nothing more will be sent: half-close.
    """

    channel: str


@dataclass(frozen=True)
class Resets:
    """
    Both directions are aborted.
    """

    channel: str


@dataclass(frozen=True)
class Finishes:
    """
    What was written is delivered, the rest is discarded.
    """

    channel: str


@dataclass(frozen=True)
class Closes:
    """
    Both directions have ended, and the channel is let go of.
    """

    channel: str


@dataclass(frozen=True)
class Pauses:
    """
    What comes in shall wait.
    """

    channel: str


@dataclass(frozen=True)
class Resumes:
    """
    What comes in may come again.
    """

    channel: str


class Network:
    """
    What is on its way from one end of something to the other.  It arrives
    when the network is run, in the order in which it was sent, and never
    while the sender is still at work.
    """

    def __init__(self) -> None:
        self._on_its_way: deque[Callable[[], object]] = deque()

    def post(self, arrive: Callable[..., object], *arguments: object) -> None:
        """
        Let something arrive later.
        """
        self._on_its_way.append(partial(arrive, *arguments))

    def run(self) -> None:
        """
        Let everything arrive, and what that sends too.
        """
        while self._on_its_way:
            self._on_its_way.popleft()()


@implementer(IChannel)
class FakeChannel:
    """
    One end of a byte stream, as its holder sees it.

    Until somebody is attached it holds what comes in, as a real one does.

    @ivar name: what it is called where things are recorded.
    @ivar peer: the C{host:port} of the other end.
    @ivar host: its address alone.
    @ivar taken: the bytes that the other end has taken.
    @ivar ended: whether this side has ended its direction.
    @ivar over: how it was let go of: C{"reset"}, C{"finish"}, C{"close"},
        C{"lost"}; empty while it is in use.
    @ivar pauses: how often C{pauseProducing} was called.
    @ivar resumes: how often C{resumeProducing} was called.
    @ivar paused: whether what comes in has to wait now.
    @ivar producer: who feeds this channel, if it wants to be paused.
    """

    def __init__(
        self,
        name: str = "channel",
        record: Callable[[object], object] = lambda command: None,
        peer: str = "192.0.2.1:1024",
        held: int = 32768,
        later: Callable[[Callable[[], None]], object] = lambda call: call(),
    ) -> None:
        """
        @param record: called with what is done to the channel.
        @param held: how many bytes it holds before it pauses itself.
        @param later: calls something in the reactor's next turn: what has
            waited comes in then, after C{resumeProducing} has returned.
        """
        self.name = name
        self.peer = peer
        self.host = peer.rpartition(":")[0]
        self.taken = b""
        self.ended = False
        self.over = ""
        self.pauses = self.resumes = 0
        self.paused = False
        self.producer: Any = None
        self.holding = Holding(self, held)
        self._receiver: Any = self.holding
        self._record = record
        self._later = later
        self._coming: deque[Callable[[], None]] = deque()
        self._stuck: bytes | None = None
        self._end_is_stuck = False
        self._end_is_sent = False
        self._told_to_pause = False
        self._other: FakeChannel | None = None
        self._network: Network | None = None

    # The other end, as the test plays it.

    def says(self, data: bytes) -> None:
        """
        The peer sends bytes; they wait while this channel is paused.
        """
        self._come(lambda: self._receiver.data_received(data))

    def ends(self) -> None:
        """
        The peer ends its direction, behind what it has said.
        """
        self._come(lambda: self._receiver.end_received())

    def resets(self, why: Lost = Lost.RESET) -> None:
        """
        The channel is lost: the peer aborted it, or why else.  What it said
        and was not taken in is lost too.
        """
        if not self.over:
            self.over = "lost"
            self._coming.clear()
            self._receiver.channel_lost(why)

    def stops_reading(self) -> None:
        """
        The peer takes nothing for the time being.
        """
        if self._stuck is None:
            self._stuck = b""

    def reads_again(self) -> None:
        """
        The peer takes everything that has piled up.
        """
        stuck, self._stuck = self._stuck, None
        if self.over not in ("", "finish"):
            return
        if stuck:
            self._deliver(stuck)
        if self._told_to_pause:
            self._told_to_pause = False
            self.producer.resumeProducing()
        if self._end_is_stuck:
            self._end_is_stuck = False
            self._deliver_end()

    @property
    def waiting(self) -> int:
        """How many bytes wait until the peer reads again."""
        return len(self._stuck or b"")

    def _come(self, arrive: Callable[[], None]) -> None:
        if not self.over:
            self._coming.append(arrive)
            self._take_in()

    def _take_in(self) -> None:
        while self._coming and not self.paused and not self.over:
            self._coming.popleft()()

    # Two of them, with a network between.

    def _meet(self, other: FakeChannel, network: Network) -> None:
        self._other = other
        self._network = network

    def _deliver(self, data: bytes) -> None:
        self.taken += data
        if self._other is not None and self._network is not None:
            self._network.post(self._other.says, data)

    def _deliver_end(self) -> None:
        if self._other is not None and self._network is not None:
            self._network.post(self._other.ends)
        self._end_is_sent = True
        if not self.over:
            self._receiver.end_sent()

    # IChannel

    def attach(self, receiver: object) -> None:
        previous, self._receiver = self._receiver, receiver
        if previous is self.holding:
            self.holding.pour(self._receiver)
        if self._end_is_sent and not self.over:
            self._receiver.end_sent()

    def write(self, data: bytes) -> None:
        if self.over or self.ended:
            return
        self._record(Writes(self.name, data))
        if self._stuck is None:
            self._deliver(data)
        else:
            self._stuck += data
            self._tell_to_pause()

    def _tell_to_pause(self) -> None:
        if self._stuck and self.producer is not None and not self._told_to_pause:
            self._told_to_pause = True
            self.producer.pauseProducing()

    def end(self) -> None:
        if self.over or self.ended:
            return
        self._record(Ends(self.name))
        self._send_end()

    def _send_end(self) -> None:
        self.ended = True
        if self._stuck:
            self._end_is_stuck = True
        else:
            self._deliver_end()

    def reset(self) -> None:
        if self.over:
            return
        self._leave("reset", Resets(self.name))
        if self._other is not None and self._network is not None:
            self._network.post(self._other.resets)

    def deliver_and_reset(self, gone: Callable[[], None]) -> None:
        """
        Deliver, and then reset; here that is at once.
        """
        self.finish()
        gone()

    def abort(self) -> None:
        """
        Nothing lingers here.
        """

    def finish(self) -> None:
        if self.over:
            return
        self._leave("finish", Finishes(self.name))
        if not self.ended:
            self._send_end()
        if self._other is not None and self._network is not None:
            # Nobody takes what the other end still sends.
            self._network.post(self._other.resets)

    def close(self) -> None:
        if not self.over:
            self._leave("close", Closes(self.name))

    def _leave(self, how: str, command: object) -> None:
        self.over = how
        self.producer = None
        self._told_to_pause = False
        self._coming.clear()
        self._record(command)

    def registerProducer(self, producer: object, streaming: bool) -> None:
        if self.over:
            return
        if self.producer is not None:
            raise RuntimeError(f"{self.name} has a producer already")
        if not streaming:
            raise RuntimeError(f"{self.name} takes push producers only")
        self.producer = producer
        self._told_to_pause = False
        self._tell_to_pause()

    def unregisterProducer(self) -> None:
        self.producer = None
        self._told_to_pause = False

    # IPushProducer

    def pauseProducing(self) -> None:
        if self.over:
            return
        self.pauses += 1
        self.paused = True
        self._record(Pauses(self.name))
        if self._other is not None:
            self._other.stops_reading()

    def resumeProducing(self) -> None:
        if self.over:
            return
        self.resumes += 1
        self.paused = False
        self._record(Resumes(self.name))
        self._later(self._take_in)
        if self._other is not None and not self.paused:
            self._other.reads_again()

    def stopProducing(self) -> None:
        """
        Whom this channel feeds is gone; that has its own way to say so.
        """


def connect(one: FakeChannel, other: FakeChannel, network: Network) -> None:
    """
    Make two channels the two ends of one: what is done to one of them comes
    in at the other.  The network itself holds no more than is on its way.
    """
    one._meet(other, network)
    other._meet(one, network)

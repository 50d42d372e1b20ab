"""
A session on a data channel over TLS, as the end of a splice.

Whatever is out of the ordinary is left to the channel, which gets its
connection back when the session is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL

from relaytunnel.channel.edges import HANGUP, IN, LOST, OUT, clean_end_before_reset
from relaytunnel.channel.records import Calls, forget_errors
from relaytunnel.channel.secure import TLSConnection
from relaytunnel.channel.sockets import unread
from relaytunnel.channel.stream import FramedStream
from relaytunnel.interfaces import Lost
from relaytunnel.splice.ends import End, Splice
from relaytunnel.wire.data import EOF_FRAME

if TYPE_CHECKING:
    from relaytunnel.splice.framing import FramingFlow
    from relaytunnel.splice.unframing import UnframingFlow

__all__ = ["HEADER", "TOGETHER", "FramedEnd"]

HEADER = 3
"""The bytes of a frame before its payload."""
TOGETHER = 6
"""How many records are read, and passed on, before others have their turn."""


class FramedEnd(End):
    """
    A session on a data channel.

    @ivar calls: how its records are read and written.
    @ivar handle: what these know its connection by.
    @ivar rest: the end of what we said, where it found no room.
    """

    __slots__ = (
        "_back",
        "_dead",
        "_left",
        "calls",
        "channel",
        "handle",
        "rest",
        "send",
        "stream",
        "transport",
    )

    transport: TLSConnection
    calls: Calls
    handle: Any
    send: Callable[[bytes | memoryview], int]
    rest: bytes
    _back: bool
    _dead: bool
    _left: bool
    inward: UnframingFlow
    outward: FramingFlow

    def __init__(self, splice: Splice, name: str, stream: FramedStream, calls: Calls) -> None:
        super().__init__(splice, name)
        self.calls = calls
        self.stream = stream
        self.channel = stream.channel
        transport = self.channel.transport
        assert isinstance(transport, TLSConnection)
        self.transport = transport
        self.handle = calls.handle(transport.connection)
        self.send = transport.send_record
        self.rest = b""
        self._dead = False
        self._back = False
        self._left = False

    def begin(self) -> None:
        # What brought the session is being read: go on behind it.
        self.stream.attach(self)
        self.splice.edges.again(self._start)

    def _start(self) -> None:
        if self.splice.running:
            self.readable = True
            self.inward.run()

    def happened(self, events: int) -> None:
        """
        Something changed at the socket.
        """
        if not self.splice.running:
            return
        if events & LOST:
            # OpenSSL reads nothing any more once it could not write, and the
            # peer may have answered before it went.
            self.deaf = True
            self.rest = b""
            self.outward.drop()
        elif events & OUT:
            if self.rest:
                self._say_rest()
                if not self.splice.running:
                    return
            if self.outward.blocked:
                self.outward.run()
                if not self.splice.running:
                    return
        if events & (IN | HANGUP | LOST):
            self.readable = True
            if not self.inward.blocked:
                self.inward.run()
            elif events & LOST:
                if clean_end_before_reset(self.transport.socket) is False:
                    self.lose(Lost.RESET)
                else:
                    self.splice.drain(self)
        elif self.inward.wants_write:
            self.readable = True
            self.inward.run()

    def _say_rest(self) -> bool:
        try:
            self.send(self.rest)
        except (SSL.WantWriteError, SSL.WantReadError):
            return False
        except SSL.Error:
            forget_errors()
            self.lose(Lost.TRUNCATED)
            return False
        self.rest = b""
        return True

    def lose(self, why: Lost) -> None:
        """
        The connection, or what comes over it, is of no use any more.
        """
        self._dead = True
        self.splice.lose(self, why)

    # What the channel says of its stream, when something is read or lost
    # while it has the connection.

    def data_received(self, data: bytes) -> None:
        self.inward.take(data)
        self.inward.later()

    def end_received(self) -> None:
        self.inward.take_end(self, self.inward.sink)

    def end_sent(self) -> None:
        """
        That is known here.
        """

    def channel_lost(self, why: Lost) -> None:
        self.lose(why)

    # The end

    def half_close(self) -> None:
        # Where the other direction is done, nothing is left of the session.
        self.rest = self.channel.last_words if self.inward.flushed else EOF_FRAME
        self._say_rest()

    def abandon(self) -> None:
        self._back = True
        self.stream.over()
        self.channel.stream = None
        self.channel.abort()

    def _give_back(self) -> None:
        """
        The channel has its connection again, and sends what we could not.
        """
        if not self._back:
            self._back = True
            waits = self.outward.pending
            self.channel.take_back(b"".join((waits or b"", self.rest)))

    def close(self) -> None:
        self._give_back()
        self.stream.over()
        self.channel.ended()

    def reset(self) -> None:
        if self._left:
            return
        congested = self.outward.blocked or bool(self.rest)
        said = self.outward.flushed
        self._give_back()
        self.stream.over()
        if self._dead or congested:
            self.channel.stream = None
            self.channel.abort()
        elif said and self.in_ended:
            self.channel.ended()  # the session is over there
        elif said:
            self.channel.send_stop()
        else:
            self.channel.send_reset()

    def reset_received(self) -> None:
        """
        The peer has aborted the session, and waits for us to close.
        """
        self._give_back()
        self.stream.over()
        self.channel.stream = None
        self.channel.close()
        self._left = True
        self.splice.lose(self, Lost.RESET)

    def stop_received(self) -> None:
        """
        The relay has aborted the session, after its end: end it, too, and keep
        the channel.
        """
        said = self.outward.flushed
        self._give_back()
        self.stream.over()
        self.channel.stream = None
        self._left = True
        self.channel.answer_stop(said)
        self.splice.lose(self, Lost.RESET)

    def deliver_and_reset(self) -> None:
        if self._left:
            return
        said = self.outward.flushed
        self._give_back()
        self.stream.over()
        if not said:
            self.channel.transport.write(EOF_FRAME)  # type: ignore[union-attr]
        if self.in_ended:
            self.channel.ended()  # the session is over there
        else:
            splice = self.splice
            splice.leaving(self)
            self.channel.send_rest(lambda: splice.left(self))

    def abort(self) -> None:
        """
        Wait for the peer no more.
        """
        self.channel.abort()

    def undelivered(self) -> int:
        return unread(self.transport.socket) + self.inward.waits + 1

"""
Frames of the control channel: C{flags:u8 length:u16be body}.

What the bodies mean is in L{relaytunnel.wire.messages}.
"""

from __future__ import annotations

from collections.abc import Iterator

from relaytunnel.errors import ProtocolError
from relaytunnel.wire.messages import Message, decode, encode

__all__ = ["IGNORABLE", "MAX_BODY", "MAX_BODY_UNAUTHENTICATED", "MessageReader", "frame"]

IGNORABLE = 0x01
"""A receiver that does not know this message skips it."""

MAX_BODY = 16 * 1024
MAX_BODY_UNAUTHENTICATED = 1024

_HEADER = 3


def frame(message: Message, flags: int = 0) -> bytes:
    """
    @return: the message as it goes onto the control channel.
    @raise ProtocolError: it is larger than a frame may be.
    """
    body = encode(message)
    if len(body) > MAX_BODY:
        raise ProtocolError(f"a message of {len(body)} bytes; at most {MAX_BODY} fit a frame")
    return bytes((flags,)) + len(body).to_bytes(2, "big") + body


class MessageReader:
    """
    Turns the bytes of a control channel into messages, whatever their chunks.

    @ivar max_body: the largest body allowed, in bytes; may be raised between
        two messages.  An announced length above it is refused before a byte of
        the body is kept.
    """

    def __init__(self, max_body: int = MAX_BODY_UNAUTHENTICATED) -> None:
        self.max_body = max_body
        self._buffer = bytearray()

    def add(self, data: bytes) -> None:
        """
        Have these bytes be read, too, by who reads L{feed} just now.
        """
        self._buffer += data

    def feed(self, data: bytes) -> Iterator[Message]:
        """
        Yield the messages that are complete with these bytes.

        It is a generator so that what one message changes, C{max_body} say, is
        in force for the next.  It must be exhausted.

        @raise ProtocolError: the bytes are no frame, the frame holds no
            message, or the message is unknown and may not be ignored.
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _HEADER:
            flags = buffer[0]
            length = int.from_bytes(buffer[1:_HEADER], "big")
            if flags & ~IGNORABLE:
                raise ProtocolError(f"a frame with unknown flags {flags:#04x}")
            if length > self.max_body:
                raise ProtocolError(
                    f"a frame of {length} bytes; at most {self.max_body} are allowed now"
                )
            if len(buffer) < _HEADER + length:
                return
            body = bytes(buffer[_HEADER : _HEADER + length])
            del buffer[: _HEADER + length]
            message = decode(body)
            if message is not None:
                yield message
            elif not flags & IGNORABLE:
                raise ProtocolError("a message of an unknown kind that may not be ignored")

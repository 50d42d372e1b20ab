"""
Frames of the data channel over TLS: C{type:u8 length:u16be payload}.

Also the preamble of a plain data channel, which has no frames at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from relaytunnel.errors import ProtocolError
from relaytunnel.wire.messages import TICKET_BYTES

__all__ = [
    "EOF_FRAME",
    "MAX_PAYLOAD",
    "PLAIN_MAGIC",
    "PLAIN_PREAMBLE_BYTES",
    "RESET_FRAME",
    "STOP_FRAME",
    "FrameReader",
    "Kind",
    "data_frames",
    "join_frame",
    "plain_preamble",
    "read_plain_preamble",
]


class Kind(IntEnum):
    """
    What a frame of the data channel says.
    """

    JOIN = 1
    """agent to relay, S10: this channel is for the session of this ticket."""
    DATA = 2
    """bytes of the session."""
    EOF = 3
    """nothing more will come in this direction: half-close."""
    RESET = 4
    """the session is aborted, and the channel with it."""
    STOP = 5
    """
    relay to agent: I have let go of the session whose EOF I have sent.  If your
    EOF has not been sent, it is aborted.  If it has, the channel may carry the
    next session now: before, I might not have read its JOIN.
    """


_HEADER = 3

MAX_PAYLOAD = 16 * 1024 - _HEADER
"""The largest payload: a frame fills one TLS record at the most."""

EOF_FRAME = bytes((Kind.EOF, 0, 0))
RESET_FRAME = bytes((Kind.RESET, 0, 0))
STOP_FRAME = bytes((Kind.STOP, 0, 0))

_KINDS: dict[int, tuple[Kind, int, int]] = {
    Kind.JOIN: (Kind.JOIN, TICKET_BYTES, TICKET_BYTES),
    Kind.DATA: (Kind.DATA, 1, MAX_PAYLOAD),
    Kind.EOF: (Kind.EOF, 0, 0),
    Kind.RESET: (Kind.RESET, 0, 0),
    Kind.STOP: (Kind.STOP, 0, 0),
}
"""What each type is, and how long its payload may be."""

PLAIN_MAGIC = b"RTplain1"
"""The first bytes of a plain data channel; no TLS record starts like this."""

PLAIN_PREAMBLE_BYTES = len(PLAIN_MAGIC) + TICKET_BYTES


def join_frame(ticket: bytes) -> bytes:
    """
    @return: the JOIN frame that presents this ticket.
    """
    return bytes((Kind.JOIN, 0, len(ticket))) + ticket


def data_frames(data: bytes) -> bytes:
    """
    @return: the bytes as DATA frames, each as large as a frame may be.
    """
    length = len(data)
    if length <= MAX_PAYLOAD:
        return b"\x02%c%c%b" % (length >> 8, length & 0xFF, data) if length else b""
    parts: list[bytes] = []
    view = memoryview(data)
    for start in range(0, length, MAX_PAYLOAD):
        piece = view[start : start + MAX_PAYLOAD]
        parts.append(b"\x02" + len(piece).to_bytes(2, "big"))
        parts.append(piece)  # type: ignore[arg-type]  # join() takes any buffer
    return b"".join(parts)


class FrameReader:
    """
    Turns the bytes of a data channel into frames, whatever their chunks.
    """

    def __init__(self) -> None:
        self._buffer = b""

    @property
    def between(self) -> bool:
        """Whether the next byte is the first of a frame."""
        return not self._buffer

    def feed(self, data: bytes) -> Iterator[tuple[Kind, bytes]]:
        """
        Yield the frames that are complete with these bytes; at most one frame
        less one byte is kept.  It must be exhausted.

        @raise ProtocolError: a frame of an unknown type or a wrong length,
            known from its header alone.
        """
        if self._buffer:
            data = self._buffer + data
        position = 0
        end = len(data)
        try:
            while end - position >= _HEADER:
                length = (data[position + 1] << 8) | data[position + 2]
                known = _KINDS.get(data[position])
                if known is None:
                    raise ProtocolError(f"a data frame of the unknown type {data[position]}")
                kind, least, most = known
                if not least <= length <= most:
                    raise ProtocolError(f"a {kind.name} frame of {length} bytes")
                start = position + _HEADER
                if end - start < length:
                    break
                position = start + length
                yield kind, data[start:position]
        finally:
            self._buffer = data[position:]


def plain_preamble(ticket: bytes) -> bytes:
    """
    @return: what a plain data channel starts with.
    """
    return PLAIN_MAGIC + ticket


def read_plain_preamble(data: bytes) -> tuple[bytes, bytes] | None:
    """
    Read the start of a plain data channel.

    @return: the ticket and the bytes behind it, or C{None} while more bytes
        are needed.
    @raise ProtocolError: this is no plain data channel.
    """
    if not PLAIN_MAGIC.startswith(data[: len(PLAIN_MAGIC)]):
        raise ProtocolError("neither TLS nor a plain data channel")
    if len(data) < PLAIN_PREAMBLE_BYTES:
        return None
    return data[len(PLAIN_MAGIC) : PLAIN_PREAMBLE_BYTES], data[PLAIN_PREAMBLE_BYTES:]

"""
Tests of the frames of the data channel, and of the plain one's preamble.
"""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.errors import ProtocolError
from relaytunnel.wire.data import (
    EOF_FRAME,
    MAX_PAYLOAD,
    PLAIN_MAGIC,
    PLAIN_PREAMBLE_BYTES,
    RESET_FRAME,
    FrameReader,
    Kind,
    data_frames,
    join_frame,
    plain_preamble,
    read_plain_preamble,
)
from relaytunnel.wire.messages import TICKET_BYTES
from tests.wire.test_control import in_chunks

modest = settings(deadline=None, max_examples=100)

TICKET = bytes(range(TICKET_BYTES))
HEADER = 3

tickets = st.binary(min_size=TICKET_BYTES, max_size=TICKET_BYTES)
frames = st.one_of(
    tickets.map(lambda ticket: (Kind.JOIN, ticket)),
    st.binary(min_size=1, max_size=40).map(lambda data: (Kind.DATA, data)),
    st.sampled_from([(Kind.EOF, b""), (Kind.RESET, b"")]),
)


def written(kind: Kind, payload: bytes) -> bytes:
    """
    Write a frame with the functions that are there for it.
    """
    if kind is Kind.JOIN:
        return join_frame(payload)
    if kind is Kind.DATA:
        return data_frames(payload)
    return EOF_FRAME if kind is Kind.EOF else RESET_FRAME


class DataFramesTests(SynchronousTestCase):
    """
    Bytes of a session as frames.
    """

    def read(self, data: bytes) -> list[tuple[Kind, bytes]]:
        return list(FrameReader().feed(data))

    def test_layout(self) -> None:
        """
        A frame is its type, the length of the payload in two bytes, and that.
        """
        self.assertEqual(data_frames(b"abc"), b"\x02\x00\x03abc")

    def test_nothing(self) -> None:
        """
        No bytes make no frame.
        """
        self.assertEqual(data_frames(b""), b"")

    def test_largest(self) -> None:
        """
        As many bytes as a frame can hold make one frame, which fills one TLS
        record.
        """
        data = bytes(MAX_PAYLOAD)
        self.assertEqual(self.read(data_frames(data)), [(Kind.DATA, data)])
        self.assertEqual(len(data_frames(data)), 16 * 1024)

    def test_one_more(self) -> None:
        """
        One byte more makes two frames.
        """
        data = bytes(MAX_PAYLOAD) + b"x"
        self.assertEqual(self.read(data_frames(data)), [(Kind.DATA, data[:-1]), (Kind.DATA, b"x")])

    @settings(deadline=None, max_examples=30)
    @given(st.integers(0, 4 * MAX_PAYLOAD), st.integers(0, 255))
    @example(2 * MAX_PAYLOAD, 0)
    @example(2 * MAX_PAYLOAD + 1, 0)
    def test_any_number(self, length: int, seed: int) -> None:
        """
        Any number of bytes comes through in as few frames as possible.
        """
        data = bytes((seed + place * 7) & 0xFF for place in range(251)) * (length // 251 + 1)
        data = data[:length]
        found = self.read(data_frames(data))
        self.assertEqual(b"".join(payload for _, payload in found), data)
        self.assertEqual(len(found), -(-length // MAX_PAYLOAD))

    def test_other_buffers(self) -> None:
        """
        Bytes may be given in another buffer.
        """
        for length in (5, MAX_PAYLOAD + 5):
            data: Any = bytearray(length)
            self.assertEqual(data_frames(data), data_frames(bytes(length)))


class FrameReaderTests(SynchronousTestCase):
    """
    What comes from a data channel.
    """

    def refused(self, data: bytes) -> str:
        """
        Assert that bytes are refused.

        @return: why.
        """
        return str(self.assertRaises(ProtocolError, lambda: list(FrameReader().feed(data))))

    @modest
    @given(st.lists(frames, max_size=8), st.lists(st.integers(0, 200), max_size=8))
    def test_chunks(self, sent: list[tuple[Kind, bytes]], cuts: list[int]) -> None:
        """
        Frames come out as they went in, however their bytes were cut.
        """
        reader = FrameReader()
        data = b"".join(written(*frame) for frame in sent)
        found = [frame for chunk in in_chunks(data, cuts) for frame in reader.feed(chunk)]
        self.assertEqual(found, sent)

    @modest
    @given(frames)
    def test_byte_by_byte(self, sent: tuple[Kind, bytes]) -> None:
        """
        A frame comes with its last byte, not before.
        """
        reader = FrameReader()
        *before, last = [list(reader.feed(bytes((byte,)))) for byte in written(*sent)]
        self.assertEqual((before, last), ([[]] * len(before), [sent]))

    @modest
    @given(st.lists(st.binary(max_size=60), max_size=6))
    def test_garbage(self, chunks: list[bytes]) -> None:
        """
        Arbitrary bytes raise nothing but protocol errors.
        """
        reader = FrameReader()
        with contextlib.suppress(ProtocolError):
            for chunk in chunks:
                list(reader.feed(chunk))

    @modest
    @given(st.integers(0, 255).filter(lambda kind: kind not in set(Kind)))
    def test_unknown_type(self, kind: int) -> None:
        """
        A frame of an unknown type is refused from its header alone.
        """
        self.assertIn(f"unknown type {kind}", self.refused(bytes((kind, 0, 1))))

    def test_wrong_lengths(self) -> None:
        """
        A frame whose length does not fit its type is refused from its header
        alone, and called by its type.
        """
        for kind, length in (
            (Kind.JOIN, 0),
            (Kind.JOIN, TICKET_BYTES - 1),
            (Kind.JOIN, TICKET_BYTES + 1),
            (Kind.DATA, 0),
            (Kind.DATA, MAX_PAYLOAD + 1),
            (Kind.DATA, 0xFFFF),
            (Kind.EOF, 1),
            (Kind.RESET, 1),
        ):
            header = bytes((kind,)) + length.to_bytes(2, "big")
            self.assertEqual(self.refused(header), f"a {kind.name} frame of {length} bytes")

    def test_frames_before_a_fault(self) -> None:
        """
        What came before a fault is read.
        """
        found = FrameReader().feed(EOF_FRAME + b"\x09\0\0")
        self.assertEqual(next(found), (Kind.EOF, b""))
        self.assertRaises(ProtocolError, next, found)

    @modest
    @given(st.lists(frames, max_size=8), st.lists(st.integers(0, 200), max_size=8))
    def test_kept(self, sent: list[tuple[Kind, bytes]], cuts: list[int]) -> None:
        """
        Between two chunks nothing of a complete frame is kept.
        """
        reader = FrameReader()
        data = b"".join(written(*frame) for frame in sent)
        fed = read = 0
        for chunk in in_chunks(data, cuts):
            fed += len(chunk)
            read += sum(HEADER + len(payload) for _, payload in reader.feed(chunk))
            self.assertEqual(len(reader._buffer), fed - read)

    def test_most_kept(self) -> None:
        """
        At most one frame less one byte is kept.
        """
        reader = FrameReader()
        self.assertEqual(list(reader.feed(data_frames(bytes(MAX_PAYLOAD))[:-1])), [])
        self.assertEqual(len(reader._buffer), HEADER + MAX_PAYLOAD - 1)
        self.assertEqual(len(list(reader.feed(b"\0"))), 1)
        self.assertEqual(reader._buffer, b"")


class PlainTests(SynchronousTestCase):
    """
    How a plain data channel starts.
    """

    def test_length(self) -> None:
        """
        The preamble is the magic and the ticket.
        """
        self.assertEqual(plain_preamble(TICKET), PLAIN_MAGIC + TICKET)
        self.assertEqual(len(plain_preamble(TICKET)), PLAIN_PREAMBLE_BYTES)

    @modest
    @given(tickets, st.binary(max_size=50))
    def test_read(self, ticket: bytes, rest: bytes) -> None:
        """
        The ticket is read, and what stands behind it is left.
        """
        self.assertEqual(read_plain_preamble(plain_preamble(ticket) + rest), (ticket, rest))

    def test_incomplete(self) -> None:
        """
        More bytes are awaited until the preamble is complete.
        """
        for length in range(PLAIN_PREAMBLE_BYTES):
            self.assertIsNone(read_plain_preamble(plain_preamble(TICKET)[:length]))

    def test_first_wrong_byte(self) -> None:
        """
        What does not start like a preamble is refused with the first byte
        that differs.
        """
        for place in range(len(PLAIN_MAGIC)):
            self.assertRaises(ProtocolError, read_plain_preamble, PLAIN_MAGIC[:place] + b"\xff")

    def test_tls(self) -> None:
        """
        No TLS record could start so.
        """
        self.assertNotEqual(PLAIN_MAGIC[0], 0x16)
        self.assertRaises(ProtocolError, read_plain_preamble, b"\x16\x03\x01")

    @modest
    @given(st.binary(max_size=80))
    def test_garbage(self, data: bytes) -> None:
        """
        Arbitrary bytes raise nothing but protocol errors.
        """
        with contextlib.suppress(ProtocolError):
            read_plain_preamble(data)

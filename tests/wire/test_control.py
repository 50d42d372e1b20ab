"""
Tests of the frames of the control channel.
"""

from __future__ import annotations

import contextlib
from itertools import pairwise

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.errors import ProtocolError
from relaytunnel.wire.control import (
    IGNORABLE,
    MAX_BODY,
    MAX_BODY_UNAUTHENTICATED,
    MessageReader,
    frame,
)
from relaytunnel.wire.messages import Goodbye, Message, Ping, Pong, Register, encode
from tests.wire.test_messages import messages

modest = settings(deadline=None, max_examples=100)

UNKNOWN = msgspec.msgpack.encode({"t": "wave", "hands": 2})
LARGE = Register(connection_id="web", allow=("x" * 200,) * 10)


def framed(body: bytes, flags: int = 0) -> bytes:
    """
    Frame what may be no message.
    """
    return bytes((flags,)) + len(body).to_bytes(2, "big") + body


def in_chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    """
    Cut bytes at these places, wherever they lie.
    """
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


class FrameTests(SynchronousTestCase):
    """
    What goes onto the channel.
    """

    def test_layout(self) -> None:
        """
        A frame is its flags, the length of the body in two bytes, and the body.
        """
        body = encode(Ping(number=7))
        self.assertEqual(frame(Ping(number=7)), bytes((0, 0, len(body))) + body)

    def test_flags(self) -> None:
        """
        Flags stand in the first byte.
        """
        self.assertEqual(frame(Ping(number=7), IGNORABLE)[0], IGNORABLE)

    def test_too_large(self) -> None:
        """
        A message that is larger than a frame may be is not sent.
        """
        message = Register(connection_id="web", allow=("\N{BLACK STAR}" * 256,) * 64)
        fault = self.assertRaises(ProtocolError, frame, message)
        self.assertIn(f"at most {MAX_BODY} fit", str(fault))


class MessageReaderTests(SynchronousTestCase):
    """
    What comes from the channel.
    """

    def refused(self, data: bytes, reader: MessageReader | None = None) -> str:
        """
        Assert that bytes are refused.

        @return: why.
        """
        reader = MessageReader() if reader is None else reader
        return str(self.assertRaises(ProtocolError, lambda: list(reader.feed(data))))

    @modest
    @given(st.lists(messages, max_size=4), st.lists(st.integers(0, 600), max_size=8))
    def test_chunks(self, said: list[Message], cuts: list[int]) -> None:
        """
        Messages come out as they went in, however their bytes were cut.
        """
        reader = MessageReader(MAX_BODY)
        data = b"".join(map(frame, said))
        heard = [found for chunk in in_chunks(data, cuts) for found in reader.feed(chunk)]
        self.assertEqual(heard, said)

    @modest
    @given(messages)
    def test_byte_by_byte(self, said: Message) -> None:
        """
        A message comes with its last byte, not before.
        """
        reader = MessageReader(MAX_BODY)
        *before, last = [list(reader.feed(bytes((byte,)))) for byte in frame(said)]
        self.assertEqual((before, last), ([[]] * len(before), [said]))

    @modest
    @given(st.lists(st.binary(max_size=60), max_size=6))
    def test_garbage(self, chunks: list[bytes]) -> None:
        """
        Arbitrary bytes raise nothing but protocol errors.
        """
        reader = MessageReader()
        with contextlib.suppress(ProtocolError):
            for chunk in chunks:
                list(reader.feed(chunk))

    @modest
    @given(st.lists(st.binary(max_size=60), max_size=4))
    def test_framed_garbage(self, bodies: list[bytes]) -> None:
        """
        Arbitrary bytes in well-formed frames raise nothing but protocol errors.
        """
        with contextlib.suppress(ProtocolError):
            list(MessageReader().feed(b"".join(map(framed, bodies))))

    @modest
    @given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
    def test_garbage_in_chunks(self, data: bytes, cuts: list[int]) -> None:
        """
        What is wrong is wrong at the same place and for the same reason,
        however the bytes were cut.
        """

        def outcome(chunks: list[bytes]) -> tuple[list[Message], str]:
            reader = MessageReader()
            heard: list[Message] = []
            try:
                for chunk in chunks:
                    heard.extend(reader.feed(chunk))
            except ProtocolError as fault:
                return heard, str(fault)
            return heard, ""

        self.assertEqual(outcome(in_chunks(data, cuts)), outcome([data]))

    def test_empty_frame(self) -> None:
        """
        A frame without a body holds no message.
        """
        self.assertIn("holds no message", self.refused(framed(b"")))

    def test_header_too_large(self) -> None:
        """
        A frame that announces too much is refused from its header alone.
        """
        header = b"\0" + (MAX_BODY_UNAUTHENTICATED + 1).to_bytes(2, "big")
        self.assertIn(f"at most {MAX_BODY_UNAUTHENTICATED} are allowed now", self.refused(header))

    def test_largest(self) -> None:
        """
        A body of exactly the allowed size is read.
        """
        bare = len(encode(Goodbye(code="x", reason="r" * 200)))
        message = Goodbye(code="x", reason="r" * 200)
        self.assertEqual(list(MessageReader(bare).feed(frame(message))), [message])

    def test_one_byte_too_large(self) -> None:
        """
        A body of one byte more than that is not.
        """
        body = encode(Ping(number=7))
        self.refused(framed(body), MessageReader(len(body) - 1))

    def test_starts_small(self) -> None:
        """
        A reader begins with what somebody unauthenticated may say.
        """
        self.refused(frame(LARGE))

    def test_raised_between_messages(self) -> None:
        """
        A bound that is raised upon one message is in force for the next, even
        if both came in one chunk.
        """
        reader = MessageReader()
        heard = []
        for message in reader.feed(frame(Ping(number=7)) + frame(LARGE)):
            heard.append(message)
            reader.max_body = MAX_BODY
        self.assertEqual(heard, [Ping(number=7), LARGE])

    def test_lowered_between_messages(self) -> None:
        """
        So is one that is lowered.
        """
        reader = MessageReader(MAX_BODY)
        found = reader.feed(frame(LARGE) * 2)
        self.assertEqual(next(found), LARGE)
        reader.max_body = MAX_BODY_UNAUTHENTICATED
        self.assertRaises(ProtocolError, next, found)

    def test_messages_before_a_fault(self) -> None:
        """
        What was said before a fault is heard.
        """
        found = MessageReader().feed(frame(Ping(number=7)) + b"\x80\0\0")
        self.assertEqual(next(found), Ping(number=7))
        self.assertRaises(ProtocolError, next, found)

    @given(st.integers(0, 255).filter(lambda flags: flags & ~IGNORABLE))
    def test_unknown_flags(self, flags: int) -> None:
        """
        A frame with a flag that nobody knows is refused from its header alone.
        """
        self.assertIn(f"unknown flags {flags:#04x}", self.refused(bytes((flags, 0, 9))))

    def test_unknown(self) -> None:
        """
        A message of an unknown kind is a protocol error.
        """
        self.assertIn("may not be ignored", self.refused(framed(UNKNOWN)))

    def test_unknown_ignorable(self) -> None:
        """
        Unless it may be ignored; what follows is read.
        """
        data = framed(UNKNOWN, IGNORABLE) + frame(Pong(number=8))
        self.assertEqual(list(MessageReader().feed(data)), [Pong(number=8)])

    def test_known_ignorable(self) -> None:
        """
        A message that may be ignored is not, if it is known.
        """
        data = frame(Ping(number=7), IGNORABLE)
        self.assertEqual(list(MessageReader().feed(data)), [Ping(number=7)])

    def test_malformed_ignorable(self) -> None:
        """
        What is malformed is refused even if it may be ignored.
        """
        self.assertIn("holds no message", self.refused(framed(b"\xc1", IGNORABLE)))

    def test_malformed_known(self) -> None:
        """
        A malformed message of a known kind is called by it.
        """
        body = msgspec.msgpack.encode({"t": "ping", "number": "seven"})
        self.assertIn("a malformed ping message", self.refused(framed(body)))

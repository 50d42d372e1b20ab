"""
Tests of the messages of the control channel and their encoding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.errors import ProtocolError
from relaytunnel.wire.messages import (
    PROTOCOL_VERSION,
    TICKET_BYTES,
    Accept,
    Denied,
    Hello,
    Message,
    Notify,
    Ping,
    Refuse,
    Register,
    decode,
    encode,
)

modest = settings(deadline=None, max_examples=100)

KINDS: tuple[type[Message], ...] = Message.__args__

_LONG = 24

_STRATEGIES: dict[type, Callable[[Any], st.SearchStrategy[Any]]] = {
    msgspec.inspect.StrType: lambda kind: (
        st.from_regex(kind.pattern)
        if kind.pattern
        else st.text(min_size=kind.min_length or 0, max_size=min(kind.max_length, _LONG))
    ),
    msgspec.inspect.BytesType: lambda kind: st.binary(
        min_size=kind.min_length, max_size=kind.max_length
    ),
    msgspec.inspect.IntType: lambda kind: st.integers(kind.ge, kind.le),
    msgspec.inspect.FloatType: lambda kind: st.floats(kind.ge, kind.le),
    msgspec.inspect.BoolType: lambda kind: st.booleans(),
    msgspec.inspect.TupleType: lambda kind: st.tuples(*map(values, kind.item_types)),
    msgspec.inspect.VarTupleType: lambda kind: st.lists(
        values(kind.item_type), max_size=min(kind.max_length, 3)
    ).map(tuple),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """
    Make values of one field, within the bounds that its type declares.
    """
    return _STRATEGIES[type(kind)](kind)


def of_kind(kind: type[Message]) -> st.SearchStrategy[Message]:
    """
    Make messages of one kind.
    """
    info: Any = msgspec.inspect.type_info(kind)
    return st.builds(kind, **{field.name: values(field.type) for field in info.fields})


messages = st.one_of([of_kind(kind) for kind in KINDS])


def pack(**fields: object) -> bytes:
    """
    Encode what may be no message.
    """
    return msgspec.msgpack.encode(fields)


class RoundTripTests(SynchronousTestCase):
    """
    What is said is what is understood.
    """

    @modest
    @given(st.tuples(*map(of_kind, KINDS)))
    def test_every_kind(self, said: tuple[Message, ...]) -> None:
        """
        A message of any kind comes out as it went in.
        """
        self.assertEqual(tuple(decode(encode(message)) for message in said), said)

    def test_tag(self) -> None:
        """
        A message is a map that is tagged with its kind.
        """
        self.assertEqual(
            msgspec.msgpack.decode(encode(Ping(number=7))), {"t": "ping", "number": 7}
        )

    def test_defaults_stay_home(self) -> None:
        """
        A field that has its default is not sent.
        """
        self.assertEqual(encode(Accept(session=1, channel=0)), pack(t="accept", session=1))

    def test_later_fields(self) -> None:
        """
        A field of a later version is skipped, whatever it holds.
        """
        body = pack(t="ping", number=7, colour={"of": ["the", 1, None]})
        self.assertEqual(decode(body), Ping(number=7))

    def test_unknown_kind(self) -> None:
        """
        A well-formed message of an unknown kind is no message, and no error.
        """
        self.assertIsNone(decode(pack(t="wave", hands=2)))


class FaultTests(SynchronousTestCase):
    """
    What is not understood.
    """

    def fault(self, body: bytes) -> str:
        """
        Assert that a body is refused.

        @return: what is said about it.
        """
        return str(self.assertRaises(ProtocolError, decode, body))

    @modest
    @given(st.binary(max_size=200))
    def test_garbage(self, body: bytes) -> None:
        """
        Arbitrary bytes are a message, an unknown one, or a protocol error.
        """
        with contextlib.suppress(ProtocolError):
            decode(body)

    @modest
    @given(messages, st.data())
    def test_damaged(self, message: Message, data: st.DataObject) -> None:
        """
        A message that was damaged somewhere, and perhaps cut, raises nothing
        but protocol errors.
        """
        body = bytearray(encode(message))
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        with contextlib.suppress(ProtocolError):
            decode(bytes(body[: data.draw(st.integers(1, len(body)))]))

    @modest
    @given(messages, st.data())
    def test_cut(self, message: Message, data: st.DataObject) -> None:
        """
        A message that lacks its end is refused.
        """
        body = encode(message)
        self.fault(body[: data.draw(st.integers(0, len(body) - 1))])

    @modest
    @given(messages, st.binary(min_size=1, max_size=5))
    def test_more_behind(self, message: Message, more: bytes) -> None:
        """
        A message with anything behind it is refused.
        """
        self.fault(encode(message) + more)

    @modest
    @given(st.sampled_from(KINDS))
    def test_names_the_kind(self, kind: type[Message]) -> None:
        """
        A malformed message of a known kind is called by it.
        """
        tag = kind.__name__.lower()
        self.assertIn(f"a malformed {tag} message", self.fault(pack(t=tag)))

    def test_names_the_field(self) -> None:
        """
        A field of the wrong type is named.
        """
        self.assertIn("$.number", self.fault(pack(t="ping", number="7")))

    def test_no_tag(self) -> None:
        """
        A map without a tag is no message.
        """
        self.assertIn("holds no message", self.fault(pack(number=7)))

    def test_no_map(self) -> None:
        """
        Something else than a map is no message.
        """
        self.assertIn("holds no message", self.fault(msgspec.msgpack.encode(["ping", 7])))

    def test_strict(self) -> None:
        """
        A truth value is no number.
        """
        self.fault(pack(t="ping", number=True))

    def test_not_a_number(self) -> None:
        """
        Seconds that are not a number are refused.
        """
        self.fault(pack(t="denied", code="auth", reason="", retry_after=float("nan")))

    def test_too_many_seconds(self) -> None:
        """
        Nobody is told to wait for longer than a day.
        """
        self.fault(pack(t="denied", code="auth", reason="", retry_after=86401.0))

    def test_negative(self) -> None:
        """
        Sessions are not counted below nothing.
        """
        self.fault(pack(t="cancel", session=-1))

    def test_short_ticket(self) -> None:
        """
        A ticket that is a byte too short is refused.
        """
        self.fault(
            pack(
                t="notify",
                session=1,
                connection_id="web",
                ticket=bytes(TICKET_BYTES - 1),
                client="192.0.2.1:1",
                arrived="host:web",
            )
        )

    def test_too_many(self) -> None:
        """
        More ways to a server than a registration may name are refused.
        """
        self.fault(pack(t="register", connection_id="web", reach=["name"] * 17))

    def test_announced_too_many(self) -> None:
        """
        A list that announces four thousand million entries is refused before
        room is made for them.
        """
        start = pack(t="register", connection_id="web", reach=[])[:-1]
        self.fault(start + b"\xdd\xff\xff\xff\xff")

    def test_deep(self) -> None:
        """
        A message that is nested without end is refused.
        """
        self.fault(b"\x82\xa1t\xa4wave\xa1a" + b"\x91" * 15_000)

    def test_not_utf8(self) -> None:
        """
        Text that is not UTF-8 is refused.
        """
        self.fault(pack(t="withdraw", connection_id="web").replace(b"web", b"w\xffb"))


class PeerTests(SynchronousTestCase):
    """
    Whose connection it is, as a relay says it.
    """

    def notified(self, client: str) -> bytes:
        return encode(
            Notify(
                session=1,
                connection_id="web",
                ticket=bytes(TICKET_BYTES),
                client=client,
                arrived="name",
                came_to=client,
            )
        )

    def test_forms(self) -> None:
        """
        An IP address and a port, or none.
        """
        for client in (
            "",
            "unix",
            "203.0.113.9:0",
            "203.0.113.9:65535",
            "2001:db8::7:5000",
            "[2001:db8::7]:5000",
            "fe80::1%eth0:1",
            "::ffff:203.0.113.9:1",
        ):
            self.assertIsInstance(decode(self.notified(client)), Notify, client)

    def test_faults(self) -> None:
        """
        Anything else is malformed: digits of other scripts, ports that are
        none, names, controls, lines, what is too long.
        """
        for client in (
            "1.2.3.4:\u00b2",
            "1.2.3.4:\u0662",
            "1.2.3.4:65536",
            "1.2.3.4:99999",
            "1.2.3.4:-1",
            "1.2.3.4:",
            "1.2.3.4:1\n",
            "\x1b[2J:1",
            "host.example:1",
            "1.2.3.4",
            "1" * 97 + ":1",
        ):
            with self.assertRaises(ProtocolError):
                decode(self.notified(client))


class SecrecyTests(SynchronousTestCase):
    """
    What logs may show.
    """

    def test_hello(self) -> None:
        """
        What a Hello looks like does not give the secret away.
        """
        hello = Hello(version=PROTOCOL_VERSION, agent="office", secret="c4nary", epoch=3)
        self.assertEqual(repr(hello), "Hello(version=1, agent='office', epoch=3, ...)")

    def test_notify(self) -> None:
        """
        What a Notify looks like does not give the ticket away.
        """
        notify = Notify(
            session=5,
            connection_id="web",
            ticket=b"c4nary".ljust(TICKET_BYTES),
            client="192.0.2.1:1",
            arrived="host:web",
        )
        self.assertEqual(repr(notify), "Notify(session=5, connection_id='web', ...)")

    def test_text(self) -> None:
        """
        Nor does it as text.
        """
        hello = Hello(version=PROTOCOL_VERSION, agent="office", secret="c4nary", epoch=3)
        self.assertNotIn("c4nary", f"{hello} {[hello]}")

    def test_fault(self) -> None:
        """
        The fault of a malformed Hello does not quote its secret.
        """
        body = pack(t="hello", version=1, agent="office", secret="c4nary" * 50, epoch=3)
        fault = self.assertRaises(ProtocolError, decode, body)
        self.assertNotIn("c4nary", str(fault))

    def test_others(self) -> None:
        """
        Messages without secrets are shown in full.
        """
        for message in (
            Refuse(session=1, code="busy", reason="later"),
            Denied(code="auth", reason="no"),
            Register(connection_id="web"),
        ):
            for field in message.__struct_fields__:
                self.assertIn(repr(getattr(message, field)), repr(message))

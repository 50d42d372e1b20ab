"""
What both ends of a control channel share.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.channel.control import ControlChannel, describe_loss
from relaytunnel.channel.tls import CONTROL, AgentTLS
from relaytunnel.config.limits import Limits
from relaytunnel.errors import Code, ProtocolError
from relaytunnel.wire.control import MAX_BODY, MAX_BODY_UNAUTHENTICATED, MessageReader, frame
from relaytunnel.wire.messages import (
    Cancel,
    Denied,
    Goodbye,
    Hello,
    Message,
    Ping,
    Pong,
    Register,
    Withdrawn,
)
from tests.channel import Makes, Sockets, identity, pause_for, reactor, until


class _Session:
    def __init__(self) -> None:
        self.received_: list[Message] = []
        self.lost_: list[str] = []

    def received(self, message: Message) -> None:
        if isinstance(message, Denied):
            raise ProtocolError("it may not say this now")
        self.received_.append(message)

    def lost(self, reason: str) -> None:
        self.lost_.append(reason)


class _Far(Protocol):
    """
    The other end: it says what a test wants, and answers nothing by itself.
    """

    def __init__(self) -> None:
        self.reader = MessageReader(MAX_BODY)
        self.messages: list[Message] = []
        self.gone = False

    def dataReceived(self, data: bytes) -> None:
        self.messages.extend(self.reader.feed(data))

    def connectionLost(self, reason: object = None) -> None:
        self.gone = True

    def say(self, *messages: Message) -> None:
        self.say_bytes(b"".join(map(frame, messages)))

    def say_bytes(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class ControlChannelTests(Sockets):
    """
    A control channel over TLS, and the other end.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.limits = Limits(ping=0.1, dead=0.4, close=0.3, send_queue=20_000)
        self.clock: Any = reactor
        self.session = _Session()

    async def tearDown(self) -> None:  # type: ignore[override]
        self.channel.abort("the test is over")
        if not self.far.gone:
            self.far.transport.abortConnection()
        await super().tearDown()

    async def connect(self) -> _Far:
        made: list[ControlChannel] = []

        def make() -> ControlChannel:
            channel = ControlChannel(self.clock, self.limits)
            channel.serve(self.session)
            made.append(channel)
            return channel

        port = self.listen(make, tls=True, buffer=16384)
        tls = AgentTLS("127.0.0.1", CONTROL, identity().pin)
        endpoint = wrapClientTLS(tls, TCP4ClientEndpoint(reactor, "127.0.0.1", port))
        far: Any = await endpoint.connect(Makes(_Far))
        self.far = far
        await until(lambda: made)
        self.channel = made[0]
        self.channel.send(Cancel(session=0))
        await until(lambda: far.messages, what="the handshake")
        far.messages.clear()
        return far  # type: ignore[no-any-return]

    async def test_messages(self) -> None:
        """
        Messages go both ways in order.
        """
        far = await self.connect()
        sent: list[Message] = [Cancel(session=number) for number in range(50)]
        for message in sent:
            self.channel.send(message)
        far.say(*sent)
        await until(lambda: len(far.messages) == len(self.session.received_) == 50)
        self.assertEqual(far.messages, sent)
        self.assertEqual(self.session.received_, sent)

    async def flooded(self) -> tuple[_Far, list[Message]]:
        """
        The other end says more than the allowance, and much more than is read
        at a time.

        @return: it, and what it says.
        """
        far = await self.connect()
        sent: list[Message] = [Withdrawn(connection_id=f"{number}") for number in range(30_000)]
        far.say(*sent)
        await until(lambda: self.channel._unread is not None, what="it has more than it takes")
        return far, sent

    async def test_flood(self) -> None:
        """
        What is more than the allowance is taken in order, in later turns, and
        no more is read meanwhile.
        """
        _, sent = await self.flooded()
        self.assertLess(len(self.session.received_), 1000)
        most = 0
        for _ in range(50):
            most = max(most, len(self.channel._reader._buffer))
            await pause_for(0.001)
        self.assertGreater(sum(map(len, map(frame, sent))), 2 * most)
        await until(lambda: len(self.session.received_) == len(sent), what="all is taken")
        self.assertEqual(self.session.received_, sent)
        self.assertIsNone(self.channel._unread)

    async def test_flood_of_others(self) -> None:
        """
        Where others have used up what all may do at once, one waits for the
        next turn, too, and is served in it.
        """
        far = await self.connect()
        waiting: list[object] = []
        workload = self.channel._workload
        self.patch(workload, "add", waiting.append)
        workload.allowance.spend(1_000_000)
        far.say(Withdrawn(connection_id="web"))
        await until(lambda: waiting, what="it waits")
        self.assertEqual((waiting, self.session.received_), ([self.channel], []))
        self.assertEqual(self.channel.work(8), (1, False))
        self.assertEqual(self.session.received_, [Withdrawn(connection_id="web")])

    async def test_flood_ends_in_a_fault(self) -> None:
        """
        What breaks the protocol does so when its turn has come.
        """
        far = await self.connect()
        sent: list[Message] = [Withdrawn(connection_id=f"{number}") for number in range(1000)]
        far.say(*sent, Denied(code="x", reason="", retry_after=1.0), *sent)
        await until(lambda: far.gone)
        self.assertEqual(self.session.received_, sent)
        goodbye = far.messages[-1]
        assert isinstance(goodbye, Goodbye)
        self.assertEqual(goodbye.code, Code.PROTOCOL_ERROR.value)

    async def test_closed_while_flooded(self) -> None:
        """
        A channel that is closed takes no more, and the other end notices.
        """
        far, _ = await self.flooded()
        self.channel.close("enough")
        taken = len(self.session.received_)
        await until(lambda: far.gone and self.session.lost_)
        self.assertEqual(self.session.lost_, ["enough"])
        self.assertEqual(len(self.session.received_), taken)

    async def test_lost_while_flooded(self) -> None:
        """
        Of a channel that is lost nothing more is taken.
        """
        await self.flooded()
        self.channel.abort("enough")
        taken = len(self.session.received_)
        await until(lambda: self.session.lost_)
        await pause_for(0.01)
        self.assertEqual(len(self.session.received_), taken)
        self.assertEqual(len(self.channel._workload._workers), 0)

    async def test_peer(self) -> None:
        """
        It knows the other end's address.
        """
        far = await self.connect()
        address: Any = far.transport.getHost()  # type: ignore[union-attr]
        self.assertEqual(self.channel.peer, f"{address.host}:{address.port}")

    async def test_answers_pings(self) -> None:
        """
        A ping is answered with its number, and is no business of the session.
        """
        far = await self.connect()
        far.say(Ping(number=41), Ping(number=42))
        await until(lambda: far.messages)
        self.assertEqual(far.messages, [Pong(number=41), Pong(number=42)])
        self.assertEqual(self.session.received_, [])

    async def test_pings(self) -> None:
        """
        Once authenticated it pings, and goes on while anything is heard.
        """
        far = await self.connect()
        await pause_for(0.2)
        self.assertEqual(far.messages, [])
        self.channel.authenticated(0.1)
        for number in range(1, 8):  # for longer than a silent peer is kept
            await until(lambda: far.messages, within=1)
            self.assertEqual(far.messages.pop(), Ping(number=number))
            far.say(Pong(number=number))
        self.assertEqual(self.session.lost_, [])

    async def test_dead_peer(self) -> None:
        """
        A peer that says nothing for the limit is lost, and the session told so.
        """
        far = await self.connect()
        self.channel.authenticated(0.1)
        await until(lambda: self.session.lost_, within=1.5)
        self.assertEqual(self.session.lost_, ["nothing was heard for 0 s"])
        self.assertEqual(self.channel.why_lost, self.session.lost_[0])
        await until(lambda: far.gone)

    async def test_dead_peer_in_time(self) -> None:
        """
        It is lost at the first ping after the limit, not before.
        """
        self.clock = Clock()
        self.limits = Limits()
        await self.connect()
        self.channel.authenticated(15)
        self.clock.pump([5] * 8)
        await pause_for(0.05)
        self.assertEqual(self.session.lost_, [])
        self.clock.advance(5)
        await until(lambda: self.session.lost_)
        self.assertEqual(self.session.lost_, ["nothing was heard for 45 s"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_false_pong(self) -> None:
        """
        A pong that answers no ping breaks the protocol.
        """
        far = await self.connect()
        far.say(Pong(number=1))
        await until(lambda: self.session.lost_)
        assert isinstance(far.messages[0], Goodbye)
        self.assertEqual(far.messages[0].code, Code.PROTOCOL_ERROR.value)

    async def test_send_queue(self) -> None:
        """
        A peer that does not read is dropped when the send queue is full.
        """
        far = await self.connect()
        far.transport.pauseProducing()  # type: ignore[union-attr]
        message = Withdrawn(connection_id="web", reason="r" * 250)
        for sent in range(20_000):
            self.channel.send(message)
            if not sent % 20:
                await pause_for(0.001)
            if self.session.lost_:
                break
        else:
            self.fail("everything was taken")
        self.assertEqual(self.session.lost_, ["the other end does not read"])

    async def test_send_queue_drains(self) -> None:
        """
        What a slow peer has taken counts no more.
        """
        far = await self.connect()
        message = Withdrawn(connection_id="web", reason="r" * 250)
        sent = 0
        for _ in range(12):
            far.transport.pauseProducing()  # type: ignore[union-attr]
            while not self.channel._congested:
                self.channel.send(message)
                sent += 1
            for _ in range(30):
                self.channel.send(message)
            sent += 30
            far.transport.resumeProducing()  # type: ignore[union-attr]
            await until(lambda: not self.channel._congested)
        await until(lambda: len(far.messages) == sent)
        self.assertEqual(self.session.lost_, [])

    async def test_oversized_before_authentication(self) -> None:
        """
        Before the peer is known a frame may not even announce more than 1 KiB.
        """
        far = await self.connect()
        far.say_bytes(b"\x00" + (MAX_BODY_UNAUTHENTICATED + 1).to_bytes(2, "big"))
        await until(lambda: self.session.lost_ and far.gone)
        (goodbye,) = far.messages
        assert isinstance(goodbye, Goodbye)
        self.assertEqual(goodbye.code, Code.PROTOCOL_ERROR.value)
        self.assertIn("1025 bytes", goodbye.reason)
        self.assertIn("protocol error", self.session.lost_[0])

    async def test_large_after_authentication(self) -> None:
        """
        Once it is, frames may be larger.
        """
        far = await self.connect()
        self.channel.authenticated(10)
        message = Register(connection_id="web", reach=("x" * 200,) * 16)
        far.say(message)
        await until(lambda: self.session.received_)
        self.assertEqual(self.session.received_, [message])

    async def test_garbage(self) -> None:
        """
        What is no message is answered with Goodbye, and the channel closes.
        """
        far = await self.connect()
        far.say_bytes(b"\x00\x00\x04" + os.urandom(2) + b"\xc1\xc1")
        await until(lambda: self.session.lost_ and far.gone)
        assert isinstance(far.messages[0], Goodbye)

    async def test_session_objects(self) -> None:
        """
        So is a message that the session does not allow; what comes behind it
        is not read.
        """
        far = await self.connect()
        far.say(Denied(code="auth", reason="you"), Cancel(session=1))
        await until(lambda: self.session.lost_ and far.gone)
        self.assertEqual(self.session.received_, [])
        self.assertEqual(
            far.messages,
            [Goodbye(code=Code.PROTOCOL_ERROR.value, reason="it may not say this now")],
        )

    async def test_close_delivers(self) -> None:
        """
        Closing delivers what was sent before, and nothing after.
        """
        far = await self.connect()
        for number in range(200):
            self.channel.send(Cancel(session=number))
        self.channel.close("enough")
        self.channel.close("again")
        self.channel.send(Cancel(session=1))
        await until(lambda: far.gone and self.session.lost_)
        self.assertEqual(len(far.messages), 200)
        self.assertEqual(self.session.lost_, ["enough"])

    async def test_close_not_answered(self) -> None:
        """
        When the peer never closes, the close is an abort after its limit.
        """
        far = await self.connect()
        far.transport.pauseProducing()  # type: ignore[union-attr]
        self.channel.close("enough")
        began = reactor.seconds()
        await until(lambda: self.session.lost_, within=2)
        self.assertTrue(0.2 < reactor.seconds() - began < 1)
        self.assertEqual(self.session.lost_, ["enough"])
        far.transport.resumeProducing()  # type: ignore[union-attr]
        await until(lambda: far.gone)

    async def test_lost_once(self) -> None:
        """
        However it ends, the session is told once, with the first reason.
        """
        await self.connect()
        self.channel.abort("first")
        self.channel.abort("second")
        await until(lambda: self.session.lost_)
        self.channel.abort("third")
        self.channel.close("fourth")
        self.channel.send(Cancel(session=1))
        self.assertEqual(self.session.lost_, ["first"])

    async def test_peer_leaves(self) -> None:
        """
        When the peer goes, the session is told why in words.
        """
        far = await self.connect()
        far.transport.loseConnection()  # type: ignore[union-attr]
        await until(lambda: self.session.lost_)
        self.assertIn("closed cleanly", self.session.lost_[0])

    async def test_without_session(self) -> None:
        """
        Until there is a session, messages are dropped.
        """
        far = await self.connect()
        self.channel._session = None
        far.say(Hello(version=1, agent="a", secret="s", epoch=1))
        far.say(Ping(number=1))
        await until(lambda: far.messages)


class DescribeLossTests(SynchronousTestCase):
    """
    Why a connection was lost, for a log line.
    """

    def test_words(self) -> None:
        """
        Twisted's reasons are taken as they are.
        """
        self.assertIn("cleanly", describe_loss(Failure(ConnectionDone())))
        self.assertIn("non-clean", describe_loss(Failure(ConnectionLost())))

    def test_openssl(self) -> None:
        """
        Of OpenSSL's error queue only the words are told.
        """
        queue = [("SSL routines", "", "certificate verify failed"), ("x", "y", "bad")]
        self.assertEqual(
            describe_loss(Failure(Exception(queue))), "certificate verify failed; bad"
        )
        self.assertEqual(describe_loss(Failure(Exception([]))), "TLS failure")

"""
TLS over a socket of OpenSSL's own, with peers that make it hard.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import ssl
import subprocess
import time
from typing import Any

from OpenSSL._util import lib
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.framed import DataChannel
from relaytunnel.channel.tls import DATA
from relaytunnel.config.limits import Limits
from tests.channel import Peer, Sockets, pause_for, reactor, until
from tests.processes import missing_programs

_SMALL = 8 * 1024


@implementer(IHandshakeListener, IHalfCloseableProtocol)
class _Ours(Protocol):
    """
    Our end, which remembers.
    """

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.events: list[str] = []
        self.lost: BaseException | None = None

    def handshakeCompleted(self) -> None:
        self.events.append("handshake")

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def readConnectionLost(self) -> None:
        self.events.append("end")

    def writeConnectionLost(self) -> None:
        self.events.append("said end")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason.value

    def is_lost(self) -> bool:
        return self.lost is not None


class _Theirs(Peer):
    """
    A peer that speaks TLS with the standard library, at the pace of a test.

    @ivar plain: what it was sent.
    @ivar piece: the most bytes that it sends at once; 0 for any number.
    @ivar closed: whether our close_notify has come.
    """

    piece = 0
    closed = False

    def __init__(self, port: int, receive_buffer: int = 0) -> None:
        super().__init__(port, receive_buffer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols([DATA.decode()])
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out)
        self.plain = hashlib.sha256()
        self.count = 0
        self.shaken = False

    def say(self, data: bytes, record: int = 16_384) -> None:
        """
        Have this sent, in records of this size.
        """
        for start in range(0, len(data), record):
            self.tls.write(data[start : start + record])
        self._flush()

    def close_tls(self) -> None:
        """
        Send close_notify.
        """
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        self._flush()

    def _flush(self) -> None:
        self.send(self._out.read())

    def _write(self) -> bool:
        if not self.piece:
            return super()._write()
        waiting = self._waiting[self._position : self._position + self.piece]
        if not waiting:
            return False
        self._position += self.sock.send(waiting)
        return True

    def _take(self, data: bytes) -> None:
        self._in.write(data)
        try:
            if not self.shaken:
                self.tls.do_handshake()
                self.shaken = True
            while data := self.tls.read(1 << 16):
                self.plain.update(data)
                self.count += len(data)
            self.closed = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.closed = True
        if not self.closed:
            self._flush()

    def begin(self) -> None:
        """
        Send the first message of the handshake.
        """
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()


class _Secure(Sockets):
    """
    One of ours, accepted from one of theirs.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.edges = EdgeWatch(reactor)
        self.made: list[_Ours] = []

    async def tearDown(self) -> None:  # type: ignore[override]
        for peer in self.peers:
            peer.close()
        for each in self.made:
            if each.lost is None:
                each.transport.abortConnection()
        await until(lambda: all(each.lost for each in self.made), what="ours to end")
        self.edges.close()
        # What is left there would count as an error of another connection.
        self.assertEqual(lib.ERR_peek_error(), 0, "OpenSSL's queue of errors")
        await super().tearDown()

    def _make(self) -> _Ours:
        self.made.append(_Ours())
        return self.made[-1]

    def port(self, buffer: int = 0) -> int:
        return self.listen(self._make, tls=True, buffer=buffer, edges=self.edges)

    async def both(
        self, buffer: int = 0, piece: int = 0, receive: int = 0
    ) -> tuple[_Ours, _Theirs]:
        theirs = _Theirs(self.port(buffer), receive)
        theirs.piece = piece
        self.peers.append(theirs)
        theirs.begin()
        await until(
            lambda: self.made and "handshake" in self.made[0].events and theirs.shaken,
            theirs,
            what="the handshake",
        )
        return self.made[0], theirs


class TLSConnectionTests(_Secure):
    """
    What comes, what goes, and how it ends.
    """

    async def test_writes_to_a_reset(self) -> None:
        """
        A write to a peer that has reset, and a farewell, fail for themselves:
        OpenSSL keeps no error that another connection would be blamed for.
        """
        for act in ("write", "part"):
            ours, theirs = await self.both()
            self.made.remove(ours)
            theirs.reset()
            time.sleep(0.02)  # in this turn nobody has heard of it
            if act == "write":
                ours.transport.write(b"to nobody")
                ours.transport.doWrite()
            else:
                ours.transport.loseConnection()
                ours.transport.doWrite()
            self.assertEqual(lib.ERR_peek_error(), 0, act)
            await until(ours.is_lost, what="its end")

    async def test_interfaces(self) -> None:
        """
        It is all that a TCP transport of Twisted is, and knows its ALPN.
        """
        ours, _ = await self.both()
        for interface in (ITCPTransport, IConsumer, IPushProducer, IHalfCloseableDescriptor):
            self.assertTrue(verifyObject(interface, ours.transport))
        self.assertEqual(ours.transport.negotiatedProtocol, DATA)
        self.assertEqual(ours.transport.connection.get_protocol_version_name(), "TLSv1.3")
        self.assertIsNone(ours.transport.getPeerCertificate())
        self.assertEqual(ours.transport.getPeer().host, "127.0.0.1")

    async def test_records_in_bits(self) -> None:
        """
        Handshake and records that come byte by byte, or many at once, are the
        same bytes in the end.
        """
        ours, theirs = await self.both(piece=1)
        data = random.Random(1).randbytes(3000)
        theirs.say(data, record=100)
        await until(lambda: len(ours.received) == len(data), theirs, what="all bytes")
        theirs.piece = 0
        more = random.Random(2).randbytes(300_000)
        theirs.say(more[:1000], record=1)
        theirs.say(more[1000:], record=777)
        await until(
            lambda: len(ours.received) == len(data) + len(more), theirs, what="many records"
        )
        self.assertEqual(ours.received, data + more)

    async def test_partial_writes(self) -> None:
        """
        Where the peer takes a little at a time, what is written waits, and
        arrives whole.  Somebody who writes is paused meanwhile.
        """
        ours, theirs = await self.both(buffer=_SMALL, receive=_SMALL)
        paused: list[str] = []

        @implementer(IPushProducer)
        class Producer:
            def pauseProducing(self) -> None:
                paused.append("pause")

            def resumeProducing(self) -> None:
                paused.append("resume")

            def stopProducing(self) -> None:
                paused.append("stop")

        ours.transport.registerProducer(Producer(), True)
        data = random.Random(3).randbytes(1 << 20)
        theirs.reading = False
        for start in range(0, len(data), 5000):
            ours.transport.write(data[start : start + 5000])
        await pause_for(0.1, theirs)
        self.assertEqual(set(paused), {"pause"})
        theirs.reading = True
        await until(lambda: theirs.count == len(data), theirs, what="all of it")
        self.assertEqual(theirs.plain.hexdigest(), hashlib.sha256(data).hexdigest())
        await until(lambda: paused[-1] == "resume", theirs)
        ours.transport.unregisterProducer()

    async def test_read_while_blocked(self) -> None:
        """
        A peer that reads nothing may still say something.
        """
        ours, theirs = await self.both(buffer=_SMALL, receive=_SMALL)
        theirs.reading = False
        ours.transport.write(bytes(1 << 20))
        await pause_for(0.05, theirs)
        theirs.say(b"hello" * 100)
        await until(lambda: len(ours.received) == 500, theirs, what="what it says")
        theirs.reading = True
        await until(lambda: theirs.count == 1 << 20, theirs, what="what it is told")

    async def test_ends_apart(self) -> None:
        """
        Each direction ends with a close_notify of its own, and the other one
        goes on (RFC 8446, section 6.1).
        """
        ours, theirs = await self.both()
        ours.transport.write(b"first")
        ours.transport.loseWriteConnection()
        await until(lambda: theirs.closed, theirs, what="our end")
        self.assertEqual(theirs.count, 5)
        self.assertEqual(ours.events, ["handshake", "said end"])
        self.assertIsNone(ours.lost)

    async def test_their_end(self) -> None:
        """
        The peer's close_notify is an end, and not that of the connection.
        """
        ours, theirs = await self.both()
        theirs.say(b"last")
        theirs.close_tls()
        await until(lambda: "end" in ours.events, theirs, what="their end")
        self.assertEqual(ours.received, b"last")
        ours.transport.write(b"still here")
        await pause_for(0.05, theirs)
        self.assertIsNone(ours.lost)
        ours.transport.loseConnection()
        await until(lambda: ours.lost, theirs)
        self.assertIsInstance(ours.lost, ConnectionDone)

    async def test_truncated(self) -> None:
        """
        An end of TCP without a close_notify is no clean end.
        """
        ours, theirs = await self.both()
        theirs.close()
        await until(lambda: ours.lost, what="the loss")
        self.assertNotIsInstance(ours.lost, ConnectionDone)
        self.assertNotIn("end", ours.events)

    async def test_reset(self) -> None:
        """
        A reset loses the connection.
        """
        ours, theirs = await self.both()
        theirs.reset()
        await until(lambda: ours.lost, what="the loss")
        self.assertIsInstance(ours.lost, ConnectionLost)

    async def test_no_tls(self) -> None:
        """
        A peer that speaks something else is lost, with the reason.
        """
        peer = self.peer(self.port())
        peer.send(b"GET / HTTP/1.1\r\nHost: somebody\r\n\r\n")
        await until(lambda: self.made and self.made[0].lost, peer, what="the loss")
        self.assertEqual(self.made[0].events, [])
        self.assertIn("http request", str(self.made[0].lost))

    async def test_close_not_answered(self) -> None:
        """
        A peer that never answers close_notify is waited for, until somebody
        has had enough: a data channel has after its close limit.
        """
        ours, theirs = await self.both()
        ours.transport.loseConnection()
        await until(lambda: theirs.closed, theirs, what="our close_notify")
        await pause_for(0.2, theirs)
        self.assertIsNone(ours.lost)
        ours.transport.abortConnection()
        await until(lambda: ours.lost, theirs)

    async def test_close_answered(self) -> None:
        """
        What the peer says before it answers is read and thrown away.
        """
        ours, theirs = await self.both()
        ours.transport.loseConnection()
        theirs.say(bytes(500_000))
        await until(lambda: theirs.closed and theirs.all_sent, theirs, what="our close_notify")
        theirs.close_tls()
        await until(lambda: ours.lost, theirs, what="the end")
        self.assertIsInstance(ours.lost, ConnectionDone)
        self.assertEqual(ours.received, b"")


class CloseLimitTests(_Secure):
    """
    A data channel over TLS.
    """

    async def test_close_limit(self) -> None:
        """
        It is aborted when the peer does not answer its close in time.
        """
        made: list[DataChannel] = []
        lost: list[DataChannel] = []

        def make() -> DataChannel:
            made.append(DataChannel(reactor, Limits(close=0.2), self.edges))
            made[0].lost = lost.append
            return made[0]

        theirs = _Theirs(self.listen(make, tls=True, edges=self.edges))
        self.peers.append(theirs)
        theirs.begin()
        await until(lambda: theirs.shaken, theirs, what="the handshake")
        await pause_for(0.05, theirs)
        made[0].close()
        await until(lambda: lost, theirs, within=5, what="the end")
        self.assertTrue(theirs.closed)


class OpenSSLTests(_Secure):
    """
    With the program of OpenSSL as the peer.
    """

    skip = missing_programs("openssl")

    async def client(self, *options: str, say: bytes = b"") -> str:
        """
        Run C{openssl s_client} against us, and say this, a line a while.

        @return: all that it printed.
        """
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{self.port()}", *options]
        process = subprocess.Popen(
            [*command, "-alpn", DATA.decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            await until(
                lambda: self.made and (self.made[0].events or self.made[0].lost),
                what="the handshake",
            )
            # One that was turned away may be gone before it is told anything.
            with contextlib.suppress(BrokenPipeError):
                for line in say.splitlines(keepends=True):
                    process.stdin.write(line)
                    await pause_for(0.2)
            process.stdin.close()
            await until(lambda: process.poll() is not None, what="its end")
            return process.stdout.read().decode(errors="replace")
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()

    async def test_key_update(self) -> None:
        """
        A peer that changes its keys, and asks for ours to change, in the midst
        of what it says (RFC 8446, section 4.6.3) is understood.
        """
        said = await self.client(say=b"before\nK\nbetween\nk\nafter\n")
        self.assertIn("KEYUPDATE", said)
        self.assertEqual(self.made[0].received, b"before\nbetween\nafter\n")

    async def test_no_resumption(self) -> None:
        """
        Who comes again with a session gets a new one, and there is no early
        data (0-RTT), which somebody could send twice.
        """
        kept = os.path.abspath(self.mktemp())
        said = await self.client("-sess_out", kept, say=b"x\n")
        self.assertIn("Max Early Data: 0", said)
        self.made.pop().transport.abortConnection()
        said = await self.client("-sess_in", kept, say=b"y\n")
        self.assertIn("New, TLSv1.3", said)
        self.assertNotIn("Reused", said)
        self.assertIn("Early data was not sent", said)

    async def test_no_old_version(self) -> None:
        """
        TLS 1.2, in which there is renegotiation, is refused.
        """
        said = await self.client("-tls1_2", say=b"R\n")
        self.assertIn("alert protocol version", said)
        self.assertEqual(self.made[0].events, [])

"""
TLS for the port that agents dial, with real handshakes.
"""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.internet.protocol import Protocol
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory

from relaytunnel.channel.control import describe_loss
from relaytunnel.channel.identity import Identity, pin_of
from relaytunnel.channel.tls import CONTROL, DATA, AgentTLS, RelayTLS, negotiated
from relaytunnel.errors import StateError
from tests.channel import Makes, Sockets, identity, pause_for, reactor, until

_Key = ec.EllipticCurvePrivateKey


def _key() -> _Key:
    return ec.generate_private_key(ec.SECP256R1())


def certify(
    key: _Key,
    name: str,
    issuer: tuple[_Key, x509.Certificate] | None = None,
    days: tuple[int, int] = (-10, 10),
    authority: bool = False,
) -> x509.Certificate:
    """
    @param issuer: who signs it; C{None} for the key itself.
    @param days: from when until when it is valid, from today.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    try:
        san: x509.GeneralName = x509.IPAddress(ip_address(name))
    except ValueError:
        san = x509.DNSName(name)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[1].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName([san]), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(issuer[0] if issuer else key, hashes.SHA256())
    )


@implementer(IHandshakeListener)
class _End(Protocol):
    """
    One end: what came of its handshake.
    """

    def __init__(self) -> None:
        self.alpn: bytes | None = None
        self.lost = ""
        self.received = b""

    def handshakeCompleted(self) -> None:
        self.alpn = negotiated(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = describe_loss(reason)


class TLSTests(Sockets):
    """
    A relay that listens, and agents that dial it.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.relay_ends: list[_End] = []
        self.agent_ends: list[_End] = []

    async def tearDown(self) -> None:  # type: ignore[override]
        for end in self.relay_ends + self.agent_ends:
            if not end.lost:
                end.transport.abortConnection()  # type: ignore[union-attr]
        await super().tearDown()

    def relay(self, ident: Identity | None = None) -> int:
        def make() -> _End:
            self.relay_ends.append(_End())
            return self.relay_ends[-1]

        factory = TLSMemoryBIOFactory(RelayTLS(ident or identity()), False, Makes(make))
        factory.noisy = False
        return self.listen(lambda: factory.buildProtocol(None))

    async def dial(self, port: int, tls: Any) -> _End:
        """
        @return: the agent's end, when the handshake is over in one way or the other.
        """
        endpoint = wrapClientTLS(tls, TCP4ClientEndpoint(reactor, "127.0.0.1", port))
        end: Any = await endpoint.connect(Makes(_End))
        self.agent_ends.append(end)
        await until(lambda: end.alpn is not None or end.lost)
        return end  # type: ignore[no-any-return]

    async def refused(self, tls: AgentTLS, ident: Identity) -> str:
        """
        @return: the fault that the agent finds in this relay.
        """
        end = await self.dial(self.relay(ident), tls)
        self.assertIsNone(end.alpn)
        self.assertIn("verify failed", end.lost)
        await until(lambda: self.relay_ends[0].lost)
        self.assertIsNone(self.relay_ends[0].alpn)
        assert tls.fault is not None
        return tls.fault

    def authority(self) -> tuple[_Key, x509.Certificate, str]:
        key = _key()
        certificate = certify(key, "authority", authority=True)
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(certificate.public_bytes(serialization.Encoding.PEM))
        return key, certificate, path

    async def test_interfaces(self) -> None:
        """
        They make connections as Twisted asks for them.
        """
        self.assertTrue(verifyObject(IOpenSSLServerConnectionCreator, RelayTLS(identity())))
        agent = AgentTLS("127.0.0.1", DATA, identity().pin)
        self.assertTrue(verifyObject(IOpenSSLClientConnectionCreator, agent))

    # The relay's end

    async def test_pin(self) -> None:
        """
        With the right pin the agent gets in, and both know which channel it is.
        """
        for alpn in (CONTROL, DATA):
            self.relay_ends.clear()
            tls = AgentTLS("127.0.0.1", alpn, identity().pin)
            end = await self.dial(self.relay(), tls)
            await until(lambda: self.relay_ends[0].alpn is not None)
            self.assertEqual((end.alpn, self.relay_ends[0].alpn), (alpn, alpn))
            self.assertIsNone(tls.fault)

    async def test_version(self) -> None:
        """
        What is spoken is TLS 1.3.
        """
        end = await self.dial(self.relay(), AgentTLS("127.0.0.1", DATA, identity().pin))
        handle = end.transport.getHandle()  # type: ignore[union-attr]
        self.assertEqual(handle.get_protocol_version_name(), "TLSv1.3")

    async def test_old_client(self) -> None:
        """
        A client that speaks TLS 1.2 at the most is refused.
        """
        port = self.relay()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols([DATA.decode()])
        peer = self.peer(port)
        peer.sock.settimeout(5)

        def shake() -> None:
            context.wrap_socket(peer.sock).close()

        refused: Any = self.assertFailure(deferToThread(shake), ssl.SSLError)
        self.assertIn("protocol version", str(await refused).lower().replace("_", " "))
        await until(lambda: self.relay_ends[0].lost)
        self.assertIsNone(self.relay_ends[0].alpn)

    async def _test_no_common_protocol(self, offered: list[str]) -> None:
        port = self.relay()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if offered:
            context.set_alpn_protocols(offered)
        peer = self.peer(port)
        peer.sock.settimeout(5)
        tls = await deferToThread(context.wrap_socket, peer.sock)
        peer.sock = tls
        await until(lambda: self.relay_ends[0].alpn is not None)
        self.assertIsNone(tls.selected_alpn_protocol())
        self.assertEqual(self.relay_ends[0].alpn, b"")
        await deferToThread(tls.sendall, b"hello")
        await until(lambda: self.relay_ends[0].received == b"hello")

    async def test_foreign_protocol(self) -> None:
        """
        Who offers only protocols that are not ours gets through the handshake,
        without a protocol, and is not killed by OpenSSL.
        """
        await self._test_no_common_protocol(["h2", "http/1.1"])

    async def test_no_protocol(self) -> None:
        """
        So does who offers none.
        """
        await self._test_no_common_protocol([])

    async def test_key_of_another(self) -> None:
        """
        A relay does not start with a key that is not its certificate's.
        """
        self.assertRaises(StateError, RelayTLS, Identity(_key(), identity().chain, True))

    # How the agent checks the relay

    async def test_wrong_pin(self) -> None:
        """
        Another key than that of the invitation is refused.
        """
        tls = AgentTLS("127.0.0.1", CONTROL, pin_of(_key().public_key()))
        self.assertEqual(
            await self.refused(tls, identity()),
            "the relay's key does not match the pin of the invitation",
        )

    async def test_pin_says_all(self) -> None:
        """
        With the right pin neither name nor authority matter.
        """
        key = _key()
        ident = Identity(key, [certify(key, "elsewhere.example")], True)
        end = await self.dial(self.relay(ident), AgentTLS("relay.example", CONTROL, ident.pin))
        self.assertEqual(end.alpn, CONTROL)

    async def test_expired(self) -> None:
        """
        An expired certificate is refused, also with the right pin.
        """
        key = _key()
        expired = certify(key, "127.0.0.1", days=(-10, -2))
        tls = AgentTLS("127.0.0.1", CONTROL, pin_of(key.public_key()))
        day = f"{datetime.now(UTC) - timedelta(days=2):%Y-%m-%d}"
        self.assertEqual(
            await self.refused(tls, Identity(key, [expired], True)),
            f"the relay's certificate expired on {day}",
        )

    async def test_authority(self) -> None:
        """
        Without a pin the right name and a trusted authority are enough.
        """
        key, certificate, path = self.authority()
        own = _key()
        for name in ("relay.example", "127.0.0.1"):
            ident = Identity(own, [certify(own, name, (key, certificate))], False)
            end = await self.dial(self.relay(ident), AgentTLS(name, DATA, None, path))
            self.assertEqual(end.alpn, DATA)

    async def test_intermediate(self) -> None:
        """
        The relay sends its whole chain.
        """
        key, certificate, path = self.authority()
        between = _key()
        middle = certify(between, "middle", (key, certificate), authority=True)
        own = _key()
        leaf = certify(own, "relay.example", (between, middle))
        ident = Identity(own, [leaf, middle], False)
        end = await self.dial(self.relay(ident), AgentTLS("relay.example", DATA, None, path))
        self.assertEqual(end.alpn, DATA)

    async def test_wrong_name(self) -> None:
        """
        A trusted certificate for another name is refused.
        """
        key, certificate, path = self.authority()
        own = _key()
        ident = Identity(own, [certify(own, "other.example", (key, certificate))], False)
        tls = AgentTLS("relay.example", CONTROL, None, path)
        self.assertEqual(
            await self.refused(tls, ident),
            "the relay's certificate is not for relay.example",
        )

    async def test_wrong_address(self) -> None:
        """
        So is one for another address.
        """
        key, certificate, path = self.authority()
        own = _key()
        ident = Identity(own, [certify(own, "192.0.2.1", (key, certificate))], False)
        self.assertEqual(
            await self.refused(AgentTLS("127.0.0.1", CONTROL, None, path), ident),
            "the relay's certificate is not for 127.0.0.1",
        )

    async def test_untrusted_authority(self) -> None:
        """
        An authority that the agent does not know is refused.
        """
        _, _, path = self.authority()
        key, _, _ = self.authority()
        other = certify(key, "another authority", authority=True)
        own = _key()
        ident = Identity(own, [certify(own, "relay.example", (key, other))], False)
        self.assertIn(
            "the relay's certificate is not trusted: ",
            await self.refused(AgentTLS("relay.example", CONTROL, None, path), ident),
        )

    async def test_self_signed(self) -> None:
        """
        A self-signed relay without a pin is refused, and the fault says what to do.
        """
        _, _, path = self.authority()
        fault = await self.refused(AgentTLS("127.0.0.1", CONTROL, None, path), identity())
        self.assertIn("self-signed; join with an invitation that has a pin", fault)

    async def test_not_yet_valid(self) -> None:
        """
        So is a certificate of the future.
        """
        key, certificate, path = self.authority()
        own = _key()
        future = certify(own, "relay.example", (key, certificate), days=(2, 5))
        fault = await self.refused(
            AgentTLS("relay.example", CONTROL, None, path), Identity(own, [future], False)
        )
        self.assertIn("not valid yet", fault)

    async def test_fault_of_the_last_time(self) -> None:
        """
        A relay that has been put right leaves no fault.
        """
        wrong = _key()
        tls = AgentTLS("127.0.0.1", CONTROL, identity().pin)
        await self.refused(tls, Identity(wrong, [certify(wrong, "127.0.0.1")], True))
        self.relay_ends.clear()
        end = await self.dial(self.relay(), tls)
        self.assertEqual(end.alpn, CONTROL)
        self.assertIsNone(tls.fault)

    async def test_system_authorities(self) -> None:
        """
        Without a file the system's authorities are asked.
        """
        self.assertIn("trusted", await self.refused(AgentTLS("localhost", DATA, None), identity()))

    def test_bad_authorities(self) -> None:
        """
        A file of authorities that is none is named.
        """
        path = self.mktemp()
        missing = self.assertRaises(StateError, AgentTLS, "relay.example", DATA, None, path)
        self.assertIn(path, str(missing))
        with open(path, "wb") as file:
            file.write(os.urandom(100))
        garbage = self.assertRaises(StateError, AgentTLS, "relay.example", DATA, None, path)
        self.assertIn(path, str(garbage))

    async def test_name_is_told(self) -> None:
        """
        The agent tells the relay the name it dials (SNI), but no address.
        """
        told = []
        for name in ("relay.example", "127.0.0.1"):
            tls = AgentTLS(name, DATA, identity().pin)
            await self.dial(self.relay(), tls)
            await pause_for(0.02)
            told.append(self.relay_ends[-1].transport.getHandle().get_servername())  # type: ignore
        self.assertEqual(told, [b"relay.example", None])

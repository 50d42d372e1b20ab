"""
TLS for the port that agents dial: 1.3 only, and ALPN says which channel it is.

The relay proves who it is with its certificate; the agent checks it, by the
pin of its invitation or by name and chain.  There is no way not to check.
"""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from typing import Any

from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from zope.interface import implementer

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)

from relaytunnel.channel.identity import Identity, pin_of
from relaytunnel.errors import StateError

__all__ = ["CONTROL", "DATA", "AgentTLS", "RelayTLS", "negotiated"]

CONTROL = b"relaytunnel-control/1"
DATA = b"relaytunnel-data/1"

_ACCEPT_MOVING_WRITE_BUFFER = 2
"""OpenSSL's SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER; not all versions of pyOpenSSL set it."""


def _context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_options(
        SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_SINGLE_ECDH_USE | SSL.OP_NO_TICKET
    )
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # What found no room is sent again from wherever it lies by then.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS | _ACCEPT_MOVING_WRITE_BUFFER)
    return context


def negotiated(transport: Any) -> bytes:
    """
    @return: the ALPN protocol of a TLS transport whose handshake is done;
        nothing if there was none in common.
    """
    return transport.negotiatedProtocol or b""


@implementer(IOpenSSLServerConnectionCreator)
class RelayTLS:
    """
    Makes the relay's end of TLS connections.
    """

    def __init__(self, identity: Identity) -> None:
        context = self._context = _context()
        context.use_privatekey(identity.key)
        leaf, *others = identity.chain
        context.use_certificate(leaf)
        for certificate in others:
            context.add_extra_chain_cert(certificate)
        try:
            context.check_privatekey()
        except SSL.Error:
            raise StateError("the relay's key is not that of its certificate") from None
        # Also those who offer nothing we know get through the handshake, and
        # are turned away behind it: a server that says nothing here makes
        # OpenSSL kill them with an internal_error alert.
        context.set_alpn_select_callback(_choose)

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        return self.connection(None)

    def connection(self, sock: socket.socket | None) -> SSL.Connection:
        """
        @param sock: what OpenSSL is to read and write; nothing if it is given
            the bytes.
        """
        connection = SSL.Connection(self._context, sock)
        connection.set_accept_state()
        return connection


def _choose(connection: SSL.Connection, offered: list[bytes]) -> Any:
    for ours in (CONTROL, DATA):
        if ours in offered:
            return ours
    return SSL.NO_OVERLAPPING_PROTOCOLS


@implementer(IOpenSSLClientConnectionCreator)
class AgentTLS:
    """
    Makes the agent's end of TLS connections to the relay, and checks the relay.

    @param alpn: L{CONTROL} or L{DATA}.
    @param pin: the pin of the relay's key; C{None} to check name and chain.
    @param ca: a PEM file of authorities to trust instead of the system's.
    @raise StateError: the file of authorities cannot be used.

    @ivar fault: what was wrong with the relay's certificate the last time.
    """

    def __init__(
        self,
        host: str,
        alpn: bytes,
        pin: str | None,
        ca: str | None = None,
    ) -> None:
        self._host = host
        self._literal = isIPAddress(host) or isIPv6Address(host)
        self._identity = IPAddress_ID(host) if self._literal else DNS_ID(host)
        self._pin = pin
        self.fault: str | None = None
        context = self._context = _context()
        context.set_alpn_protos([alpn])
        if pin is None and ca is not None:
            try:
                context.load_verify_locations(ca)
            except SSL.Error:
                raise StateError(f"{ca}: holds no PEM certificates of authorities") from None
        elif pin is None:
            context.set_default_verify_paths()
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._verify)

    def clientConnectionForTLS(self, protocol: object) -> SSL.Connection:
        return self.connection(None)

    def connection(self, sock: socket.socket | None) -> SSL.Connection:
        """
        @param sock: what OpenSSL is to read and write; nothing if it is given
            the bytes.
        """
        self.fault = None
        connection = SSL.Connection(self._context, sock)
        if not self._literal:
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        connection.set_connect_state()
        return connection

    def _verify(
        self, connection: SSL.Connection, x509: crypto.X509, error: int, depth: int, ok: int
    ) -> bool:
        """
        Called for each certificate of the chain, the leaf last.
        """
        certificate = x509.to_cryptography()
        expires = certificate.not_valid_after_utc
        if expires <= datetime.now(UTC) and (depth == 0 or self._pin is None):
            self.fault = f"the relay's certificate expired on {expires:%Y-%m-%d}"
            return False
        if self._pin is not None:
            # The pin says all about the key; who else has signed it says nothing.
            if depth == 0 and pin_of(certificate.public_key()) != self._pin:
                self.fault = "the relay's key does not match the pin of the invitation"
                return False
            return True
        if not ok:
            why = _TRUST_FAULTS.get(error, f"OpenSSL error {error}")
            self.fault = f"the relay's certificate is not trusted: {why}"
            return False
        if depth == 0:
            try:
                verify_service_identity(extract_patterns(certificate), [self._identity], [])
            except (VerificationError, CertificateError):
                self.fault = f"the relay's certificate is not for {self._host}"
                return False
        return True


_TRUST_FAULTS = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed; join with an invitation that has a pin",
    19: "an unknown authority is in its chain",
    20: "its issuer is unknown",
    21: "its issuer is unknown",
}
"""OpenSSL's X509_V_ERR codes that people meet."""

"""
Who a relay is: its key and certificate, and the pin that agents know it by.

Without files of its own a relay makes a key and a self-signed certificate in
its state directory.  The certificate is made anew when it is about to expire;
the key, and with it the pin, stays.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from relaytunnel.errors import StateError

__all__ = ["Identity", "load_identity", "own_identity", "pin_of"]

_Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

_VALID = timedelta(days=3650)
_RENEW_BEFORE = timedelta(days=30)


@dataclass(frozen=True)
class Identity:
    """
    A key and the certificate chain that belongs to it, the leaf first.

    @ivar self_signed: whether agents can only know it by its pin.
    """

    key: _Key
    chain: Sequence[x509.Certificate]
    self_signed: bool

    @property
    def pin(self) -> str:
        """The pin of the public key, C{sha256:...}."""
        return pin_of(self.chain[0].public_key())


def pin_of(key: CertificatePublicKeyTypes) -> str:
    """
    @return: C{sha256:} and the base64url SHA-256 of the key's
        SubjectPublicKeyInfo (RFC 7469, 2.4), without padding.
    """
    spki = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    digest = base64.urlsafe_b64encode(hashlib.sha256(spki).digest())
    return "sha256:" + digest.rstrip(b"=").decode("ascii")


def load_identity(certificate: str, key: str, now: datetime | None = None) -> Identity:
    """
    Read a PEM certificate chain and its PEM key.

    @raise StateError: a file cannot be read or understood, the two do not
        belong together, or the certificate has expired.
    """
    try:
        chain = x509.load_pem_x509_certificates(_read(certificate))
    except ValueError as fault:
        raise StateError(f"{certificate}: holds no PEM certificate: {fault}") from None
    try:
        private = serialization.load_pem_private_key(_read(key), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as fault:
        raise StateError(f"{key}: holds no PEM key without a password: {fault}") from None
    leaf = chain[0]
    if not isinstance(private, _Key):
        raise StateError(f"{key}: is no ECDSA, Ed25519 or RSA key, which TLS 1.3 needs")
    if private.public_key() != leaf.public_key():
        raise StateError(f"{key}: is not the key of the certificate in {certificate}")
    expires = leaf.not_valid_after_utc
    if expires <= (now or datetime.now(UTC)):
        raise StateError(f"{certificate}: expired on {expires:%Y-%m-%d}; renew it")
    return Identity(
        private,
        chain,
        leaf.issuer == leaf.subject,
    )


def own_identity(directory: str, name: str, now: datetime | None = None) -> Identity:
    """
    The relay's own key and self-signed certificate, made where they are
    missing.

    @param directory: the state directory.
    @param name: the relay's public name or address, which the certificate is
        for.
    @raise StateError: the files cannot be read, understood or written.
    """
    now = now or datetime.now(UTC)
    key_file = os.path.join(directory, "key.pem")
    certificate_file = os.path.join(directory, "certificate.pem")
    if not os.path.exists(key_file):
        made = ec.generate_private_key(ec.SECP256R1())
        write_private(
            key_file,
            made.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
    try:
        identity = load_identity(certificate_file, key_file, now + _RENEW_BEFORE)
        if _names(identity.chain[0]) == [name]:
            return identity
    except StateError:
        if os.path.exists(certificate_file) and not _is_stale(certificate_file, key_file, now):
            raise
    try:
        key = serialization.load_pem_private_key(_read(key_file), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as fault:
        raise StateError(f"{key_file}: holds no PEM key without a password: {fault}") from None
    if not isinstance(key, _Key):
        raise StateError(f"{key_file}: is no ECDSA, Ed25519 or RSA key, which TLS 1.3 needs")
    certificate = _self_signed(key, name, now)
    write_private(certificate_file, certificate.public_bytes(serialization.Encoding.PEM))
    return Identity(key, [certificate], True)


def _is_stale(certificate: str, key: str, now: datetime) -> bool:
    """
    Whether all that is wrong with these files is that time has passed.
    """
    try:
        load_identity(certificate, key, datetime.min.replace(tzinfo=UTC))
    except StateError:
        return False
    return True


def _self_signed(key: _Key, name: str, now: datetime) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    alternative: x509.GeneralName
    try:
        alternative = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        alternative = x509.DNSName(name)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1024 * 1024)
    except OSError as fault:
        raise StateError(f"{path}: cannot be read: {fault.strerror}") from None


def write_private(path: str, content: bytes) -> None:
    """
    Write a file that only its owner may read, all of it or nothing.

    @raise StateError: it cannot be written.
    """
    beside = f"{path}.new"
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(beside, path)
    except OSError as fault:
        raise StateError(f"{path}: cannot be written: {fault.strerror}") from None

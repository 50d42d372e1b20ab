"""
A relay's key, certificate and pin.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.channel.identity import (
    Identity,
    load_identity,
    own_identity,
    pin_of,
    write_private,
)
from relaytunnel.errors import StateError

_PRIVATE = (
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)


class OwnIdentityTests(SynchronousTestCase):
    """
    What a relay makes for itself in its state directory.
    """

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.key = os.path.join(self.directory, "key.pem")
        self.certificate = os.path.join(self.directory, "certificate.pem")
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def own(self, name: str = "relay.example", days: float = 0) -> Identity:
        return own_identity(self.directory, name, self.now + timedelta(days=days))

    def write(self, path: str, content: bytes) -> None:
        with open(path, "wb") as file:
            file.write(content)

    def failing(self, path: str) -> str:
        """
        @return: what is said about this file, which cannot be used.
        """
        fault = str(self.assertRaises(StateError, self.own))
        self.assertTrue(fault.startswith(f"{path}: "), fault)
        return fault

    def test_made(self) -> None:
        """
        It makes a key and a certificate for its name, and says so in the pin.
        """
        identity = self.own()
        self.assertTrue(identity.self_signed)
        self.assertTrue(identity.pin.startswith("sha256:"))
        self.assertEqual(identity.key.public_key(), identity.chain[0].public_key())

    def test_private(self) -> None:
        """
        Only the owner may read the files, whatever the umask, and nothing else
        is left beside them.
        """
        before = os.umask(0)
        try:
            self.own()
        finally:
            os.umask(before)
        for path in (self.key, self.certificate):
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.assertEqual(sorted(os.listdir(self.directory)), ["certificate.pem", "key.pem"])

    def test_kept(self) -> None:
        """
        At the next start it is the same.
        """
        first = self.own()
        second = self.own(days=300)
        self.assertEqual((first.pin, first.chain), (second.pin, second.chain))

    def test_renewed(self) -> None:
        """
        Shortly before it expires the certificate is made anew; the pin stays.
        """
        first = self.own()
        self.assertEqual(first.chain, self.own(days=3600).chain)
        for days in (3640, 8000):
            later = self.own(days=days)
            self.assertNotEqual(later.chain, first.chain)
            self.assertEqual(later.pin, first.pin)
            expires = later.chain[0].not_valid_after_utc
            self.assertGreater(expires, self.now + timedelta(days=days + 3000))
            first = later

    def test_renamed(self) -> None:
        """
        For another name the certificate is made anew; the pin stays.
        """
        first = self.own()
        for name in ("other.example", "192.0.2.1", "2001:db8::1"):
            other = self.own(name)
            self.assertNotEqual(first.chain, other.chain)
            self.assertEqual(first.pin, other.pin)
            self.assertEqual(self.own(name).chain, other.chain)

    def test_certificate_missing(self) -> None:
        """
        A certificate that is gone is made anew; the pin stays.
        """
        pin = self.own().pin
        os.unlink(self.certificate)
        self.assertEqual(self.own().pin, pin)

    def test_key_of_another(self) -> None:
        """
        A key that is not the certificate's is named, and nothing overwritten.
        """
        self.own()
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(*_PRIVATE)
        self.write(self.key, key)
        self.assertIn("not the key of the certificate", self.failing(self.key))
        with open(self.key, "rb") as file:
            self.assertEqual(file.read(), key)

    def test_key_missing(self) -> None:
        """
        A certificate without its key is no identity; its owner must decide.
        """
        self.own()
        os.unlink(self.key)
        self.assertRaises(StateError, self.own)

    def test_garbage_key(self) -> None:
        """
        A key that is none is named, with or without a certificate.
        """
        self.own()
        self.write(self.key, b"-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n")
        self.failing(self.key)
        os.unlink(self.certificate)
        self.failing(self.key)

    def test_garbage_certificate(self) -> None:
        """
        So is a certificate that is none.
        """
        self.own()
        self.write(self.certificate, os.urandom(100))
        self.failing(self.certificate)

    def test_unreadable(self) -> None:
        """
        So is a file that cannot be read.
        """
        self.own()
        for path in (self.certificate, self.key):
            os.rename(path, path + ".away")
            os.mkdir(path)
            self.assertIn("cannot be read", self.failing(path))
            os.rmdir(path)
            os.rename(path + ".away", path)

    def test_unwritable(self) -> None:
        """
        And one that cannot be written.
        """
        os.rmdir(self.directory)
        self.assertIn("cannot be written", self.failing(self.key))

    def test_other_kind_of_key(self) -> None:
        """
        A key of a kind that it would not have made works too.
        """
        key = rsa.generate_private_key(65537, 2048)
        self.write(self.key, key.private_bytes(*_PRIVATE))
        self.assertEqual(self.own().pin, pin_of(key.public_key()))
        self.assertEqual(self.own("other.example").pin, pin_of(key.public_key()))

    def test_unusable_kind_of_key(self) -> None:
        """
        One that cannot sign is named.
        """
        key = x25519.X25519PrivateKey.generate()
        self.write(self.key, key.private_bytes(*_PRIVATE))
        self.failing(self.key)

    def test_key_with_a_password(self) -> None:
        """
        So is one that is locked.
        """
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            *_PRIVATE[:2], serialization.BestAvailableEncryption(b"secret")
        )
        self.write(self.key, key)
        self.assertIn("without a password", self.failing(self.key))


class LoadIdentityTests(SynchronousTestCase):
    """
    Files that the operator gives.
    """

    def setUp(self) -> None:
        directory = self.mktemp()
        os.mkdir(directory)
        self.identity = own_identity(directory, "relay.example")
        self.key = os.path.join(directory, "key.pem")
        self.certificate = os.path.join(directory, "certificate.pem")

    def test_loaded(self) -> None:
        """
        They make an identity.
        """
        loaded = load_identity(self.certificate, self.key)
        self.assertEqual((loaded.pin, loaded.chain), (self.identity.pin, self.identity.chain))

    def test_expired(self) -> None:
        """
        An expired certificate is named, with the day.
        """
        later = datetime.now(UTC) + timedelta(days=4000)
        fault = self.assertRaises(StateError, load_identity, self.certificate, self.key, later)
        expires = self.identity.chain[0].not_valid_after_utc
        self.assertEqual(
            str(fault), f"{self.certificate}: expired on {expires:%Y-%m-%d}; renew it"
        )

    def test_swapped(self) -> None:
        """
        A key in place of the certificate is named.
        """
        fault = self.assertRaises(StateError, load_identity, self.key, self.key)
        self.assertTrue(str(fault).startswith(self.key))

    def test_missing(self) -> None:
        """
        So is a file that is missing.
        """
        for files in (("/nowhere", self.key), (self.certificate, "/nowhere")):
            fault = self.assertRaises(StateError, load_identity, *files)
            self.assertEqual(str(fault), "/nowhere: cannot be read: No such file or directory")


class PinTests(SynchronousTestCase):
    """
    The pin of a key.
    """

    def test_pin(self) -> None:
        """
        It is the SHA-256 of the SubjectPublicKeyInfo.
        """
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        spki = key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        kind, text = pin_of(key).split(":")
        self.assertEqual(kind, "sha256")
        self.assertEqual(base64.urlsafe_b64decode(text + "="), hashlib.sha256(spki).digest())


class WritePrivateTests(SynchronousTestCase):
    """
    Files that only their owner may read.
    """

    def test_replaced(self) -> None:
        """
        What was there is replaced, also what anybody could read.
        """
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"before, and longer")
        os.chmod(path, 0o644)
        write_private(path, b"after")
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"after")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.assertFalse(os.path.exists(path + ".new"))

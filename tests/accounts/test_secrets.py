"""
Secrets and their stored forms.
"""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.accounts.secrets import (
    NOBODY,
    hash_chosen,
    hash_generated,
    is_slow,
    new_secret,
    unmatched,
    verify,
)
from relaytunnel.errors import AccountError

CHEAP = 2**4
SALT, HASH = "ab" * 16, "cd" * 32


class GeneratedTests(SynchronousTestCase):
    """
    Secrets of 256 random bits.
    """

    def test_form(self) -> None:
        """
        A new secret is 43 characters that stand in a URL as they are.
        """
        self.assertTrue(re.fullmatch("[A-Za-z0-9_-]{43}", new_secret()))

    def test_never_the_same(self) -> None:
        """
        No two new secrets are equal.
        """
        self.assertEqual(len({new_secret() for _ in range(100)}), 100)

    def test_stored_form(self) -> None:
        """
        A generated secret is stored as its SHA-256.
        """
        self.assertEqual(
            hash_generated("abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        )

    @given(st.text(max_size=50), st.text(max_size=50))
    def test_verify(self, secret: str, other: str) -> None:
        """
        Only the secret itself matches its stored form, whatever its characters.
        """
        self.assertEqual(verify(other, hash_generated(secret)), other == secret)

    def test_surrogate(self) -> None:
        """
        What is not Unicode is a wrong secret and no fault.
        """
        self.assertFalse(verify("\ud800", NOBODY))


class ChosenTests(SynchronousTestCase):
    """
    Secrets that a person chose.
    """

    def test_full_cost(self) -> None:
        """
        The stored form names scrypt with N = 2^17, and it can be verified.
        """
        stored = hash_chosen("correct horse")
        self.assertTrue(re.fullmatch("scrypt:131072:8:1:[0-9a-f]{32}:[0-9a-f]{64}", stored))
        self.assertTrue(verify("correct horse", stored))

    def test_wrong(self) -> None:
        """
        Another secret does not match.
        """
        self.assertFalse(verify("correct house", hash_chosen("correct horse", cost=CHEAP)))

    def test_salted(self) -> None:
        """
        The same secret has another stored form each time.
        """
        self.assertNotEqual(hash_chosen("x", cost=CHEAP), hash_chosen("x", cost=CHEAP))

    def test_vector(self) -> None:
        """
        A vector of RFC 7914, section 12, verifies by its first 32 bytes.
        """
        salt = b"SodiumChloride".hex()
        digest = "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
        self.assertTrue(verify("pleaseletmein", f"scrypt:16384:8:1:{salt}:{digest}"))


class StoredFormTests(SynchronousTestCase):
    """
    Stored forms that were written by hand or damaged.
    """

    def test_malformed(self) -> None:
        """
        A stored form that is none of ours is an error and matches nothing.
        """
        for stored in (
            "",
            "secret",
            "sha256:",
            "sha256:zz",
            f"sha256:{HASH}00",
            f"sha256:{HASH}\n",
            f"md5:{HASH}",
            f"scrypt:1024:8:1:{SALT}:",
            f"scrypt:1024:8:1::{HASH}",
            f"scrypt:1000:8:1:{SALT}:{HASH}",
            f"scrypt:1:8:1:{SALT}:{HASH}",
            f"scrypt:65536:1:1:{SALT}:{HASH}",
            f"scrypt:-2:8:1:{SALT}:{HASH}",
            f"scrypt:1_024:8:1:{SALT}:{HASH}",
            f"scrypt:1024:8:{SALT}:{HASH}",
        ):
            with self.assertRaises(AccountError):
                verify("", stored)

    def test_too_much_memory(self) -> None:
        """
        A stored form that asks for more than 1 GiB is turned down, with the figures.
        """
        with self.assertRaises(AccountError) as caught:
            verify("x", f"scrypt:{2**30}:8:1:{SALT}:{HASH}")
        self.assertIn("1024 MiB", str(caught.exception))

    def test_not_in_the_message(self) -> None:
        """
        The error does not show what was stored.
        """
        with self.assertRaises(AccountError) as caught:
            verify("x", "in-clear-by-mistake")
        self.assertNotIn("mistake", str(caught.exception))

    def test_unmatched(self) -> None:
        """
        The form for an agent that does not exist has the same cost.
        """
        chosen = hash_chosen("x", cost=CHEAP)
        self.assertEqual(unmatched(chosen).split(":")[:5], chosen.split(":")[:5])
        self.assertFalse(verify("x", unmatched(chosen)))
        self.assertEqual(unmatched(hash_generated("x")), NOBODY)

    def test_is_slow(self) -> None:
        """
        Only scrypt is slow.
        """
        self.assertTrue(is_slow(hash_chosen("x", cost=CHEAP)))
        self.assertFalse(is_slow(NOBODY))

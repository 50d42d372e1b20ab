"""
Tests of users and the hashes of their passwords, as they are configured.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.accounts.secrets import hash_chosen, hash_generated, is_slow
from relaytunnel.config.users import MOST_USERS, secret_hash, user_name, users

HASH = "sha256:" + "0f" * 32


class UserNameTests(SynchronousTestCase):
    """
    What may be a user's name.
    """

    def test_accepted(self) -> None:
        """
        Printable characters in any writing are, spaces among them.
        """
        for name in ("a", "alice", "Alice B.", "al\u00efce", "a@example.net", "0", "x" * 64):
            self.assertEqual(user_name(name), name)

    def test_refused(self) -> None:
        """
        A name that HTTP could not carry, an empty one and one that is too long
        are not.
        """
        for name in ("", "a:b", ":", "a\nb", "a\0", "\x7f", "\u202e", "x" * 65):
            self.assertRaises(ValueError, user_name, name)


class UsersTests(SynchronousTestCase):
    """
    All users of a server.
    """

    def test_none(self) -> None:
        """
        There may be none.
        """
        self.assertEqual(users(()), ())

    def test_settled(self) -> None:
        """
        They stay in their order, with hashes in their canonical form.
        """
        self.assertEqual(
            users([("bob", HASH.upper().replace("SHA", "sha")), ("alice", HASH)]),
            (("bob", HASH), ("alice", HASH)),
        )

    def test_faulty(self) -> None:
        """
        One that cannot be is named, and its hash is not quoted: somebody may
        have written the password itself.
        """
        error = self.assertRaises(ValueError, users, [("alice", HASH), ("bob", "hunter2")])
        self.assertIn("bob", str(error))
        self.assertNotIn("hunter2", str(error))
        error = self.assertRaises(ValueError, users, [("a:b", HASH)])
        self.assertIn("a:b", str(error))

    def test_costly(self) -> None:
        """
        A hash that costs the relay more than those of C{hash-password} is not
        taken, however its cost is made up; the message says what to do.
        """
        end = "ab" * 16 + ":" + "cd" * 32
        for cost in ("131072:8:1", "65536:8:2", "32768:32:1", "1024:8:16"):
            users([("alice", f"scrypt:{cost}:{end}")])
        for cost in ("262144:8:1", "131072:8:2", "131072:9:1", "1048576:2:1", "65536:1:17"):
            self.assertRaises(ValueError, users, [("alice", f"scrypt:{cost}:{end}")])
        error = self.assertRaises(ValueError, users, [("al", f"scrypt:262144:8:1:{end}")])
        self.assertIn("relaytunnel hash-password", str(error))

    def test_most(self) -> None:
        """
        A server has so many at most.
        """
        many = [(f"user {number}", HASH) for number in range(MOST_USERS)]
        self.assertEqual(len(users(many)), MOST_USERS)
        self.assertRaises(ValueError, users, [*many, ("one more", HASH)])


class SecretHashTests(SynchronousTestCase):
    """
    Stored forms, as they are made and as they are read.
    """

    def test_as_made(self) -> None:
        """
        What this package makes is taken, and read by what compares.
        """
        for stored, slow in ((hash_generated("a"), False), (hash_chosen("a", cost=2**10), True)):
            self.assertEqual(secret_hash(stored), stored)
            self.assertIs(is_slow(stored), slow)

    @given(
        st.sampled_from([2**10, 2**15, 2**17, 2**20, 2**21, 3 * 2**10, 512]),
        st.integers(0, 40),
        st.integers(0, 20),
        st.binary(min_size=4, max_size=70),
    )
    @settings(deadline=None, max_examples=100)
    def test_never_too_costly(self, cost: int, block: int, lanes: int, salt: bytes) -> None:
        """
        Whatever is taken can be compared with, within 512 MiB.
        """
        text = f"scrypt:{cost}:{block}:{lanes}:{salt.hex()}:{'ff' * 32}"
        try:
            stored = secret_hash(text)
        except ValueError:
            return
        self.assertTrue(is_slow(stored))
        self.assertLessEqual(128 * cost * block, 2**29)

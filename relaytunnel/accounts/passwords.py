"""
Passwords of a server's clients, compared without holding anybody up.

Passwords are stored by scrypt, which takes a thread half a second, and HTTP
gives one with each connection: one that was right is remembered for a while,
as a keyed digest that is of no use outside this process.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping

from twisted.internet.defer import Deferred, succeed

from relaytunnel.accounts.secrets import is_slow, unmatched, verify
from relaytunnel.accounts.threads import Threads
from relaytunnel.errors import Code, Rejection

__all__ = ["Passwords"]

_REMEMBERED = 1024
_REMEMBERED_FOR = 300.0
_MOST_PENDING = 32
_MOST_PENDING_OF_SOURCE = 4


class Passwords:
    """
    Compares passwords, some at a time for each source of them.
    """

    def __init__(self, threads: Threads, seconds: Callable[[], float]) -> None:
        """
        @param seconds: the clock.
        """
        self._threads = threads
        self._seconds = seconds
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self._pending: Counter[str] = Counter()

    def check(
        self, users: Mapping[str, str], user: str, password: str, source: str
    ) -> Deferred[bool]:
        """
        Say whether this is the user's password.  A user who does not exist
        takes as long to be turned down as one whose password is stored by
        scrypt, if there is one: the others are told apart by time, but have a
        password that nobody could guess.

        @param users: stored forms by user name; at least one.
        @param source: where it was given; each has its share.

        @return: fires with the answer.
        @raise Rejection: too many are being compared.
        """
        stored = users.get(user) or unmatched(_slowest(users.values()))
        digest = self._digest(stored, user, password)
        now = self._seconds()
        if self._right.get(digest, 0.0) > now:
            return succeed(True)
        if not is_slow(stored):
            return succeed(verify(password, stored))
        if (
            self._pending.total() >= _MOST_PENDING
            or self._pending[source] >= _MOST_PENDING_OF_SOURCE
        ):
            raise Rejection(Code.BUSY, "too many passwords are being compared; try again soon")
        self._pending[source] += 1

        def done(result: bool) -> bool:
            self._pending[source] -= 1
            if not self._pending[source]:
                del self._pending[source]
            return result

        def remember(right: bool) -> bool:
            if right:
                self._right[digest] = now + _REMEMBERED_FOR
                self._right.move_to_end(digest)
                while len(self._right) > _REMEMBERED:
                    self._right.popitem(last=False)
            return right

        checking: Deferred[bool] = self._threads.run(verify, password, stored)
        return checking.addBoth(done).addCallback(remember)

    def _digest(self, stored: str, user: str, password: str) -> bytes:
        # Each part has its length in front: no two logins run together.
        parts = (part.encode("utf-8", "surrogatepass") for part in (stored, user, password))
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._key, message, hashlib.sha256)


def _slowest(stored: Collection[str]) -> str:
    return next(filter(is_slow, stored), None) or next(iter(stored))

"""
Passwords of a server's clients, compared without holding anybody up.

Passwords are stored by scrypt, which takes a thread half a second, and HTTP
gives one with each connection: one that was right is remembered for a while,
as a keyed digest that is of no use outside this process, and the same one
given many times at once is compared once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from relaytunnel.accounts.fairness import Lane
from relaytunnel.accounts.hashing import Hashing
from relaytunnel.accounts.secrets import is_slow, unmatched, verify
from relaytunnel.errors import Code, Rejection

__all__ = ["Passwords"]

_REMEMBERED = 1024
_REMEMBERED_FOR = 300.0
_KNOWN_SOURCES = 4096
_KNOWN_FOR = 3600.0
_MOST_WAITING = 1024
"""As many may wait for the answer to one comparison."""
_LONGEST_WAIT = 10.0
"""Seconds from when a password is given until its client is told to come again."""


class Passwords:
    """
    Compares passwords: those of each agent in their turn, of each of its
    servers, and of each source of them.
    """

    def __init__(self, hashing: Hashing, clock: IReactorTime) -> None:
        """
        @param hashing: computes what takes long.
        """
        self._hashing = hashing
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._right = _Memory(clock.seconds, _REMEMBERED, _REMEMBERED_FOR)
        # From where one that was right was given.
        self._known = _Memory(clock.seconds, _KNOWN_SOURCES, _KNOWN_FOR)
        self._compared: dict[bytes, _Comparison] = {}

    def check(
        self,
        users: Mapping[str, str],
        user: str,
        password: str,
        source: str,
        server: tuple[str, str],
    ) -> Deferred[bool]:
        """
        Say whether this is the user's password.  A user who does not exist
        takes as long to be turned down as one whose password is stored by
        scrypt, if there is one: the others are told apart by time, but have a
        password that nobody could guess.

        @param users: stored forms by user name; at least one.
        @param source: where it was given; each has its share.
        @param server: whose user that is: its agent's ID, and its own.

        @return: fires with the answer.  Cancelled, it is not compared any
            more, if it still waits for its turn and nobody else gave the same.
            Fails with L{Rejection} if its turn does not come in time.
        @raise Rejection: too many are being compared.
        """
        stored = users.get(user) or unmatched(_slowest(users.values()))
        digest = self._digest(stored, user, password)
        if digest in self._right:
            return succeed(True)
        if not is_slow(stored):
            return succeed(verify(password, stored))
        under_way = self._compared.get(digest)
        if under_way is not None:
            return under_way.wait()
        place = self._digest(*server, source)
        known = "known" if place in self._known else "new"
        work = self._work((*server, known, source), password, stored)
        self._compared[digest] = comparison = _Comparison(work)
        answer = comparison.wait()
        work.addBoth(self._over, digest, place, comparison)
        return answer

    def _work(self, lane: Lane, password: str, stored: str) -> Deferred[bool]:
        def too_late(result: Any, seconds: float) -> Any:
            if isinstance(result, Failure):
                raise Rejection(Code.BUSY, "the password could not be compared in time")
            return result

        work: Deferred[bool] = self._hashing.run(lane, verify, password, stored)
        return work.addTimeout(_LONGEST_WAIT, self._clock, too_late)

    def _over(
        self, result: bool | Failure, digest: bytes, place: bytes, comparison: _Comparison
    ) -> None:
        if self._compared.get(digest) is comparison:
            del self._compared[digest]
        if result is True:
            self._right.keep(digest)
            self._known.keep(place)
        comparison.answer(result)

    def _digest(self, *parts: str) -> bytes:
        # Each part has its length in front: no two logins run together.
        encoded = (part.encode("utf-8", "surrogatepass") for part in parts)
        message = b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
        return hmac.digest(self._key, message, hashlib.sha256)


class _Comparison:
    """
    One comparison, and all who wait for it.
    """

    def __init__(self, work: Deferred[bool]) -> None:
        self.work = work
        self._waiting: dict[Deferred[bool], None] = {}

    def wait(self) -> Deferred[bool]:
        """
        @raise Rejection: too many wait.
        """
        if len(self._waiting) >= _MOST_WAITING:
            raise Rejection(Code.BUSY, "too many wait for the same password; try again soon")
        answer: Deferred[bool] = Deferred(self._left)
        self._waiting[answer] = None
        return answer

    def _left(self, answer: Deferred[bool]) -> None:
        self._waiting.pop(answer, None)
        if not self._waiting:
            self.work.cancel()

    def answer(self, result: bool | Failure) -> None:
        waiting, self._waiting = self._waiting, {}
        for answer in waiting:
            answer.callback(result)


class _Memory:
    """
    Digests that are remembered for a while, so many of them; the one that was
    kept longest ago is forgotten first.
    """

    def __init__(self, seconds: Callable[[], float], most: int, lifetime: float) -> None:
        self._seconds = seconds
        self._most = most
        self._lifetime = lifetime
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def __contains__(self, digest: bytes) -> bool:
        return self._until.get(digest, 0.0) > self._seconds()

    def __len__(self) -> int:
        return len(self._until)

    def keep(self, digest: bytes) -> None:
        self._until[digest] = self._seconds() + self._lifetime
        self._until.move_to_end(digest)
        while len(self._until) > self._most:
            self._until.popitem(last=False)


def _slowest(stored: Collection[str]) -> str:
    return next(filter(is_slow, stored), None) or next(iter(stored))

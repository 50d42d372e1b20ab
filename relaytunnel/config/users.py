"""
Who may come in to a server by a user name and a password.

Names and the stored forms of passwords are checked here; nothing is compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from relaytunnel.config.names import shown

__all__ = ["MOST_USERS", "password_hash", "secret_hash", "user_name", "users"]

MOST_USERS = 64
"""How many users one server may have: all of them go into one message."""

# What scrypt may cost: a guess on one side, this process on the other.  In
# relay.toml its owner decides; what an agent brings costs no more than what
# C{relaytunnel hash-password} makes: 128 MiB and about half a second.
_MOST_BROUGHT = 2**20
_MOST_R = 32
_MOST_P = 16
_MOST_MEMORY = 512 * 1024 * 1024

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_SCRYPT = re.compile(
    r"scrypt:([1-9][0-9]{0,7}):([1-9][0-9]?):([1-9][0-9]?):(?:[0-9a-f]{2}){8,64}:[0-9a-f]{64}"
)
_LONGEST_NAME = 64


def secret_hash(text: str) -> str:
    """
    Check the stored form of a secret: C{sha256:HASH_HEX} or
    C{scrypt:N:r:p:SALT_HEX:HASH_HEX}, with parameters that neither make the
    hash worthless nor the relay busy (RFC 7914 asks for N a power of two).

    @return: the text in lower case.
    @raise ValueError: it is neither; the message does not quote it.
    """
    return _secret_hash(text)[0]


def password_hash(text: str) -> str:
    """
    Check the stored form of a password that an agent brings to the relay, as
    L{secret_hash} does, and that comparing with it costs the relay no more
    than with one of C{relaytunnel hash-password}: N times r times p is at most
    1048576.

    @return: the text in lower case.
    @raise ValueError: it is neither, or costs more.
    """
    text, cost = _secret_hash(text)
    if cost > _MOST_BROUGHT:
        raise ValueError(
            f"scrypt's N times r times p is at most {_MOST_BROUGHT}: make the hash once more,"
            " with 'relaytunnel hash-password'"
        )
    return text


def _secret_hash(text: str) -> tuple[str, int]:
    """
    @return: the stored form, and what it costs: N times r times p.
    """
    text = text.lower()
    if _SHA256.fullmatch(text):
        return text, 0
    found = _SCRYPT.fullmatch(text)
    if found is None:
        raise ValueError("expected scrypt:N:r:p:SALT_HEX:HASH_HEX or sha256:HASH_HEX")
    n, r, p = (int(number) for number in found.group(1, 2, 3))
    if not 2**10 <= n <= 2**20 or n & (n - 1):
        raise ValueError("scrypt's N is a power of two from 1024 to 1048576")
    if n >= 2 ** (16 * r):  # RFC 7914, section 6
        raise ValueError("scrypt's N is below 65536 if its r is 1")
    if r > _MOST_R or p > _MOST_P:
        raise ValueError(f"scrypt's r is from 1 to {_MOST_R} and its p from 1 to {_MOST_P}")
    if 128 * n * r > _MOST_MEMORY:
        raise ValueError("scrypt's N and r would take more than 512 MiB")
    return text, n * r * p


def user_name(text: str) -> str:
    """
    Check a user's name: 1 to 64 printable characters without a colon, which
    ends the name in HTTP (RFC 7617, section 2).

    @raise ValueError: it cannot be one.
    """
    if not 0 < len(text) <= _LONGEST_NAME or not text.isprintable() or ":" in text:
        raise ValueError(f"{shown(text)}: a user name is 1 to 64 characters without ':'")
    return text


def users(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """
    Check users with the hashes of their passwords.

    @raise ValueError: one of them cannot be, or there are too many.
    """
    found: dict[str, str] = {}
    for name, stored in pairs:
        try:
            found[user_name(name)] = password_hash(stored)
        except ValueError as error:
            raise ValueError(f"{shown(name)}: {error}") from None
    if len(found) > MOST_USERS:
        raise ValueError(f"a server has {MOST_USERS} users at most")
    return tuple(found.items())

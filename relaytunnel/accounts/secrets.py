"""
Secrets of agents, and the forms in which they are stored.

Pure.  A generated secret has 256 random bits, so that one SHA-256 protects it;
one that a person chose is stored by scrypt (RFC 7914), which costs about half
a second and 128 MiB: never check one in the reactor's thread.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from relaytunnel.errors import AccountError

__all__ = [
    "NOBODY",
    "hash_chosen",
    "hash_generated",
    "is_slow",
    "new_secret",
    "unmatched",
    "verify",
]

_SECRET_BYTES = 32
_SALT_BYTES = 16
_DIGEST_BYTES = 32

_COST = 2**17
_BLOCK = 8
_LANES = 1
# A stored form of more than this would let one login take the machine's memory.
_MOST_MEMORY = 2**30

_GENERATED = re.compile(r"sha256:([0-9a-fA-F]{64})")
_CHOSEN = re.compile(
    r"scrypt:([1-9][0-9]{0,9}):([1-9][0-9]{0,2}):([1-9][0-9]{0,1})"
    r":((?:[0-9a-fA-F]{2}){8,64}):([0-9a-fA-F]{64})"
)

NOBODY = "sha256:" + "00" * _DIGEST_BYTES
"""A stored form that no secret is known to match."""


@dataclass(frozen=True)
class _Scrypt:
    cost: int
    block: int
    lanes: int
    salt: bytes

    def digest(self, secret: str) -> bytes:
        return hashlib.scrypt(
            _encoded(secret),
            salt=self.salt,
            n=self.cost,
            r=self.block,
            p=self.lanes,
            maxmem=self.memory,
            dklen=_DIGEST_BYTES,
        )

    @property
    def memory(self) -> int:
        """
        What it takes in bytes (RFC 7914, section 2), and a little to spare:
        OpenSSL refuses with a limit that is exactly met.
        """
        return 128 * self.block * (self.cost + self.lanes + 2) + 65536

    def stored(self, digest: bytes) -> str:
        numbers = f"{self.cost}:{self.block}:{self.lanes}"
        return f"scrypt:{numbers}:{self.salt.hex()}:{digest.hex()}"


def new_secret() -> str:
    """
    Make a secret of 256 random bits: 43 characters that need no quoting in a URL.
    """
    return secrets.token_urlsafe(_SECRET_BYTES)


def hash_generated(secret: str) -> str:
    """
    The stored form of a secret from L{new_secret}, C{sha256:HEX}.
    """
    return f"sha256:{hashlib.sha256(_encoded(secret)).hexdigest()}"


def hash_chosen(secret: str, *, cost: int = _COST) -> str:
    """
    The stored form of a secret that a person chose, C{scrypt:N:r:p:SALT:HASH}
    with salt and hash in hexadecimal.  Slow by intention.

    @param cost: scrypt's N, a power of two; lower it in tests only.
    """
    scrypt = _Scrypt(cost, _BLOCK, _LANES, secrets.token_bytes(_SALT_BYTES))
    return scrypt.stored(scrypt.digest(secret))


def verify(secret: str, stored: str) -> bool:
    """
    Whether this is the secret of the stored form.  How long it takes depends
    on the stored form alone.

    @raise AccountError: when the stored form is none of ours.
    """
    scrypt, expected = _parsed(stored)
    found = scrypt.digest(secret) if scrypt else hashlib.sha256(_encoded(secret)).digest()
    return hmac.compare_digest(found, expected)


def is_slow(stored: str) -> bool:
    """
    Whether a check against this belongs in a thread.

    @raise AccountError: when the stored form is none of ours.
    """
    scrypt, _ = _parsed(stored)
    return scrypt is not None


def unmatched(stored: str) -> str:
    """
    A stored form that costs as much to check as this one, and that no secret
    is known to match: for agents that do not exist.

    @raise AccountError: when the stored form is none of ours.
    """
    scrypt, _ = _parsed(stored)
    return NOBODY if scrypt is None else scrypt.stored(bytes(_DIGEST_BYTES))


def _parsed(stored: str) -> tuple[_Scrypt | None, bytes]:
    """
    @return: how to hash (L{None} is SHA-256), and the hash to expect.
    """
    generated = _GENERATED.fullmatch(stored)
    if generated is not None:
        return None, bytes.fromhex(generated[1])
    chosen = _CHOSEN.fullmatch(stored)
    if chosen is None:
        # The stored form itself is not for logs.
        raise AccountError(
            "a stored secret has neither the form sha256:HEX nor scrypt:N:r:p:SALTHEX:HASHHEX"
        )
    scrypt = _Scrypt(int(chosen[1]), int(chosen[2]), int(chosen[3]), bytes.fromhex(chosen[4]))
    if scrypt.cost < 2 or scrypt.cost & (scrypt.cost - 1):
        raise AccountError(f"the scrypt cost {scrypt.cost} of a secret is not a power of two")
    if scrypt.cost >= 2 ** (16 * scrypt.block):  # RFC 7914, section 6
        raise AccountError(f"the scrypt cost {scrypt.cost} of a secret is too high for its r")
    if scrypt.memory > _MOST_MEMORY:
        raise AccountError(
            f"the scrypt form of a secret asks for {scrypt.memory >> 20} MiB, "
            f"more than {_MOST_MEMORY >> 20} MiB"
        )
    return scrypt, bytes.fromhex(chosen[5])


def _encoded(secret: str) -> bytes:
    # A lone surrogate is a wrong secret, not a fault.
    return secret.encode("utf-8", "surrogatepass")

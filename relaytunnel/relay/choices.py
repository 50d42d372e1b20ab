"""
What a browser chose when it was asked, as the relay signs it for a cookie.

A server below the relay's name can set a cookie for it, and so can whoever is
between a browser and plain HTTP.  The signature says that this relay has written
the choice, for this source.

Pure.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from relaytunnel.arrival import LONGEST_CHOICE

__all__ = ["Choices"]

_MAC_BYTES = 16
_MAC_LENGTH = 22
_PURPOSE = b"relaytunnel choice 1"


class Choices:
    """
    Signs choices, and checks them.
    """

    def __init__(self, key: bytes) -> None:
        """
        @param key: a secret of this relay's.
        """
        self._key = key

    def token(self, connection_id: str, source: str) -> str | None:
        """
        @param source: where the client comes from.
        @return: the value of the cookie; L{None} if the ID is too long for one.
        """
        token = f"{self._mac(connection_id, source)}.{connection_id}"
        return token if len(token) <= LONGEST_CHOICE else None

    def chosen(self, token: str, source: str) -> str | None:
        """
        @return: the connection ID that was chosen; L{None} if this relay did
            not write that for this source.
        """
        if len(token) > LONGEST_CHOICE or not token.isascii():
            return None
        mac, connection_id = token[:_MAC_LENGTH], token[_MAC_LENGTH + 1 :]
        if token[_MAC_LENGTH : _MAC_LENGTH + 1] != ".":
            return None
        right = hmac.compare_digest(mac, self._mac(connection_id, source))
        return connection_id if right else None

    def _mac(self, connection_id: str, source: str) -> str:
        parts = (_PURPOSE, connection_id.encode("utf-8"), source.encode("utf-8"))
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        digest = hmac.digest(self._key, message, hashlib.sha256)[:_MAC_BYTES]
        return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")

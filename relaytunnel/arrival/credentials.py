"""
What an HTTP head says of the client itself: who it is, and what it chose.

Credentials (RFC 7617) and cookies (RFC 6265).  What is not understood counts
as not said: the client is asked then.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from relaytunnel.arrival.ways import Login

__all__ = ["COOKIE", "basic_login", "cookie_value", "set_cookie"]

COOKIE = "relaytunnel"
"""The name of the cookie that remembers what a client chose."""


def basic_login(value: bytes | None) -> Login | None:
    """
    Read credentials of the scheme Basic (RFC 7617 2), in UTF-8.
    """
    scheme, _, coded = (value or b"").partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        text = base64.b64decode(coded.strip(b" \t"), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    user, colon, password = text.partition(":")
    return Login(user, password) if colon else None


def cookie_value(values: Iterable[bytes]) -> str | None:
    """
    Find our cookie among the values of Cookie (RFC 6265 4.2.1).

    @return: the first one's value; L{None} if there is none.
    """
    for value in values:
        for pair in value.split(b";"):
            name, equals, content = pair.strip(b" \t").partition(b"=")
            if equals and name == COOKIE.encode():
                return content.decode("latin-1")
    return None


def set_cookie(connection_id: str | None) -> str:
    """
    @return: the field that has a browser remember this choice until it is
        closed, or forget it.
    """
    kept = f"{COOKIE}={connection_id}" if connection_id else f"{COOKIE}=; Max-Age=0"
    return f"Set-Cookie: {kept}; Path=/; HttpOnly; SameSite=Lax"

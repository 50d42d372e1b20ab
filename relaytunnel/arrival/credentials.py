"""
What an HTTP head says of the client itself: who it is, and what it chose.

Credentials (RFC 7617) and cookies (RFC 6265).  What is not understood counts
as not said: the client is asked then.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable

from relaytunnel.arrival.ways import Login

__all__ = ["COOKIE", "LONGEST_CHOICE", "basic_login", "cookie_value", "set_cookie"]

COOKIE = "relaytunnel"
"""The name of the cookie that remembers what a client chose."""

LONGEST_CHOICE = 253
"""As many characters its value may have."""

_OURS = re.compile(rb"(?:^|;)[ \t]*relaytunnel=([^;]*)")


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

    @return: its value; L{None} if there is none.  Empty if it is of no use:
        longer than L{LONGEST_CHOICE}, or one of two, of which somebody else has
        written one.
    """
    found = None
    for value in values:
        for ours in _OURS.finditer(value):
            content = ours[1].strip(b" \t")
            if found is not None or len(content) > LONGEST_CHOICE:
                return ""
            found = content.decode("latin-1")
    return found


def set_cookie(token: str | None) -> str:
    """
    @param token: the choice as the relay has signed it; L{None} if it is to be
        forgotten.
    @return: the field that has a browser remember this choice until it is
        closed, for this host alone, or forget it.
    """
    kept = f"{COOKIE}={token}" if token else f"{COOKIE}=; Max-Age=0"
    return f"Set-Cookie: {kept}; Path=/; HttpOnly; SameSite=Lax"

"""
The invitation string: all that an agent needs to join a relay.

C{relaytunnel://AGENT:SECRET@HOST:PORT/?pin=sha256:DIGEST}, where the digest
is that of the relay's public key (SPKI, RFC 7469) in base64url without
padding.  Parsed by hand, because no part of a faulty one may be shown: any of
them might be the secret.  Storing and checking secrets is up to C{accounts}.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from relaytunnel.config.names import agent_id, host, port_number
from relaytunnel.errors import InvitationError

__all__ = ["DEFAULT_PORT", "Invitation"]

DEFAULT_PORT = 7000

_FORM = "relaytunnel://AGENT:SECRET@HOST:PORT/?pin=sha256:DIGEST"
_LONGEST = 2048
_LONGEST_SECRET = 256
_DIGEST_BYTES = 32
_URL = re.compile(r"([^/?#]*)(?:/?(?:\?([^#]*))?)?")
_PLACE = re.compile(r"(?:\[([^\[\]]*)\]|([^\[\]:]*))(?::([0-9]*))?")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def _fault(reason: str) -> InvitationError:
    return InvitationError(f"the invitation {reason}; it should look like {_FORM}")


@dataclass(frozen=True)
class Invitation:
    """
    Where a relay is, and how an agent and it recognize each other.

    @ivar agent: the agent's ID.
    @ivar secret: what proves it; not in the C{repr}.
    @ivar host: the relay's host name, or its IP address without brackets.
    @ivar port: the TCP port for agents.
    @ivar pin: C{sha256:} and the digest of the relay's public key, or C{None}
        if its certificate is to be verified by its name.
    @raise InvitationError: a part is not what it should be.
    """

    agent: str
    secret: str = field(repr=False)
    host: str
    port: int = DEFAULT_PORT
    pin: str | None = None

    def __post_init__(self) -> None:
        try:
            agent_id(self.agent)
        except ValueError:
            raise _fault("has no usable agent ID before the first ':'") from None
        if not self.secret:
            raise _fault("has no secret between the agent ID and the '@'")
        if not self.secret.isprintable() or len(self.secret.encode()) > _LONGEST_SECRET:
            raise _fault(f"has a secret that is not printable, or over {_LONGEST_SECRET} bytes")
        try:
            object.__setattr__(self, "host", host(self.host))
        except ValueError:
            raise _fault("has neither a host name nor an IP address behind the '@'") from None
        _port(str(self.port))
        if self.pin is not None:
            object.__setattr__(self, "pin", _canonical(self.pin))

    @classmethod
    def parse(cls, text: str) -> Invitation:
        """
        Read an invitation as it was printed; blanks around it do not matter.

        @raise InvitationError: it is none, and which part is wrong.  Nothing
            of the text is in the message.
        """
        text = text.strip()
        if not text:
            raise _fault("is empty")
        if len(text) > _LONGEST:
            raise _fault(f"is longer than {_LONGEST} characters")
        if not text.isprintable() or " " in text:
            raise _fault("has blanks or control characters in it, perhaps from a broken line")
        scheme, slashes, rest = text.partition("://")
        if not slashes or scheme.lower() != "relaytunnel":
            raise _fault("does not begin with relaytunnel://")
        url = _URL.fullmatch(rest)
        if url is None:
            raise _fault("has more than '/?pin=...' behind the port")
        who, at, where = url[1].rpartition("@")
        agent, colon, secret = who.partition(":")
        if not at or not colon:
            raise _fault("has no AGENT:SECRET@ before the host")
        place = _PLACE.fullmatch(where)
        if place is None:
            raise _fault("has no HOST:PORT behind the '@' (an IPv6 address stands in brackets)")
        if place[1] is not None and ":" not in place[1]:
            raise _fault("has brackets around something else than an IPv6 address")
        return cls(
            agent=_unquoted(agent, "agent ID"),
            secret=_unquoted(secret, "secret"),
            host=place[1] or _unquoted(place[2] or "", "host"),
            port=DEFAULT_PORT if place[3] is None else _port(place[3]),
            pin=_pin(url[2]),
        )

    @property
    def pin_digest(self) -> bytes | None:
        """
        The 32 bytes of the pin.
        """
        return None if self.pin is None else _digest(self.pin)

    def __str__(self) -> str:
        """
        Write the invitation out, with its secret.
        """
        place = f"[{self.host}]" if ":" in self.host else self.host
        query = "" if self.pin is None else f"?pin={self.pin}"
        return (
            f"relaytunnel://{self.agent}:{quote(self.secret, safe='')}@{place}:{self.port}/{query}"
        )


def _unquoted(text: str, part: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise _fault(f"has a '%' without two hexadecimal digits in its {part}")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _fault(f"has bytes in its {part} that are not UTF-8") from None


def _port(text: str) -> int:
    try:
        return port_number(text)
    except ValueError:
        raise _fault("has a port that is not from 1 to 65535") from None


def _pin(query: str | None) -> str | None:
    if not query:
        return None
    key, equals, value = query.partition("=")
    if key != "pin" or not equals or "&" in value:
        raise _fault("has something else than one pin behind the '?'")
    return _unquoted(value, "pin")


def _digest(pin: str) -> bytes:
    return base64.b64decode(pin.removeprefix("sha256:") + "=", altchars=b"-_", validate=True)


def _canonical(pin: str) -> str:
    """
    Take padding off; refuse what is not exactly the digest of one key.
    """
    bare = pin.rstrip("=")
    try:
        digest = _digest(bare)
    except (binascii.Error, ValueError):
        digest = b""
    # Written again, because the last character has two bits to spare.
    canonical = "sha256:" + base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")
    if len(digest) != _DIGEST_BYTES or canonical != bare:
        raise _fault("has a pin that is not 'sha256:' and 43 characters of base64url")
    return canonical

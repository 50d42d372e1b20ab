"""
The form of Twisted endpoint descriptions, checked before anything is opened.

Only text is looked at here: whether C{tcp:} and C{unix:} descriptions have
what they need, and how a plain C{HOST:PORT} is written as one.  Descriptions
of other kinds belong to their plugins and pass as they are.  Opening an
endpoint is up to those who have a reactor.
"""

from __future__ import annotations

import re
import sys
from difflib import get_close_matches
from ipaddress import IPv6Address, ip_address
from typing import Literal

from relaytunnel.config.names import port_number, shown

__all__ = ["Kind", "endpoint_description", "literal", "target"]

Kind = Literal["client", "server"]

_PLUGIN = re.compile(r"[A-Za-z0-9]+")
_HOST_PORT = re.compile(r"([^:\\=/\s]+):([0-9]+)")
_BRACKETS_PORT = re.compile(r"\[([^\[\]]*)\]:([0-9]+)")

# What a plain HOST:PORT is never taken for.
_CLIENT_NAMES = frozenset({"tcp", "ssl", "tls", "unix"})

# Arguments that Twisted makes numbers of.
_NUMBERS = {
    "backlog": re.compile(r"[0-9]{1,9}"),
    "mode": re.compile(r"[0-7]{1,4}"),
    "timeout": re.compile(r"[0-9]{1,9}"),
}

# The arguments of the kinds that are looked into, in the order in which they
# may be given without their keyword: those that have to be there, and others.
_ARGUMENTS: dict[tuple[Kind, str], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("client", "tcp"): (("host", "port"), ("timeout", "bindAddress")),
    ("client", "unix"): (("path",), ("timeout", "lockfile", "checkPID")),
    ("server", "tcp"): (("port",), ("interface", "backlog")),
    ("server", "tcp6"): (("port",), ("interface", "backlog")),
    ("server", "unix"): (("address",), ("mode", "backlog", "lockfile")),
}


def _split(text: str) -> list[tuple[str | None, str]]:
    """
    Take a description apart as Twisted does: at each colon, then at the first
    equals sign, with a backslash before what is meant literally.

    @return: keyword and value of each part; no keyword is C{None}.
    """
    parts: list[tuple[str | None, str]] = [(None, "")]
    characters = iter(text)
    for character in characters:
        key, value = parts[-1]
        if character == "\\":
            following = next(characters, None)
            if following is None:
                raise ValueError(f"{shown(text)}: ends with a backslash that escapes nothing")
            parts[-1] = (key, value + following)
        elif character == ":":
            parts.append((None, ""))
        elif character == "=" and key is None:
            parts[-1] = (value, "")
        else:
            parts[-1] = (key, value + character)
    return parts


def endpoint_description(text: str, kind: Kind) -> str:
    """
    Check the form of a Twisted endpoint description.

    @param kind: C{"server"} for something to listen on, C{"client"} for
        something to dial.
    @return: the text as it is.
    @raise ValueError: it cannot be one.
    """
    if not text:
        raise ValueError("an endpoint cannot be empty")
    if not text.isprintable():
        raise ValueError(f"{shown(text)}: has control characters in it")
    plugin, colon, rest = text.partition(":")
    if not colon:
        meant = f"; did you mean 'tcp:{text}'?" if text.isdigit() and kind == "server" else ""
        raise ValueError(f"{shown(text)}: not an endpoint such as {_example(kind)}{meant}")
    if not _PLUGIN.fullmatch(plugin):
        raise ValueError(f"{shown(text)}: does not begin as an endpoint such as {_example(kind)}")
    if not rest:
        raise ValueError(f"{shown(text)}: nothing follows '{plugin}:'")
    expected = _ARGUMENTS.get((kind, plugin.lower()))
    parts = _split(rest)
    if expected is not None:
        _check(text, kind, _named(text, parts, *expected), expected[0])
    return text


def _example(kind: Kind) -> str:
    return "tcp:HOST:PORT or unix:/PATH" if kind == "client" else "tcp:PORT or unix:/PATH"


def _named(
    text: str,
    parts: list[tuple[str | None, str]],
    required: tuple[str, ...],
    optional: tuple[str, ...],
) -> dict[str, str]:
    known = required + optional
    named: dict[str, str] = {}
    places = iter(known)
    for given, value in parts:
        key = next(places, None) if given is None else given
        if key is None:
            raise ValueError(f"{shown(text)}: too many arguments; write '\\:' for a literal colon")
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"{shown(text)}: unknown argument {shown(key)}{hint}")
        if key in named:
            raise ValueError(f"{shown(text)}: {key} is given twice")
        named[key] = value
    return named


def _check(text: str, kind: Kind, named: dict[str, str], required: tuple[str, ...]) -> None:
    for key in required:
        value = named.get(key, "")
        if not value:
            raise ValueError(f"{shown(text)}: the {key} is missing")
        if key == "host" and any(character.isspace() for character in value):
            raise ValueError(f"{shown(text)}: a host has no blanks in it")
        if key == "port":
            try:
                port_number(value, lowest=1 if kind == "client" else 0)
            except ValueError as error:
                raise ValueError(f"{shown(text)}: {error}") from None
    for key, form in _NUMBERS.items():
        if key in named and not form.fullmatch(named[key]):
            raise ValueError(f"{shown(text)}: the {key} is not a number")


def literal(text: str) -> tuple[str, int] | None:
    """
    @return: the IP address and the port that a client endpoint leads to; C{None}
        if it has a name in it, or is anything but an address.
    """
    plugin, _, rest = text.partition(":")
    parts = _split(rest)
    if plugin.lower() != "tcp" or len(parts) != 2 or parts[0][0] or parts[1][0]:
        return None
    host = parts[0][1]
    try:
        ip_address(host)
    except ValueError:
        return None
    # The servers of an agent are often behind one address.
    return (sys.intern(host), int(parts[1][1])) if "%" not in host else None


def target(text: str) -> str:
    """
    Bring the target of a server into the form of a client endpoint: HOST:PORT
    becomes C{tcp:HOST:PORT}, C{[::1]:80} likewise with its colons escaped.

    @raise ValueError: it is neither an address nor an endpoint description.
    """
    bracketed = _BRACKETS_PORT.fullmatch(text)
    if bracketed is not None:
        inside, port = bracketed.groups()
        try:
            IPv6Address(inside)
        except ValueError:
            raise ValueError(f"{shown(text)}: no IPv6 address between the brackets") from None
        escaped = inside.replace(":", "\\:")
        return endpoint_description(f"tcp:{escaped}:{port}", "client")
    plain = _HOST_PORT.fullmatch(text)
    if plain is not None and plain[1].lower() not in _CLIENT_NAMES:
        return endpoint_description(f"tcp:{text}", "client")
    if text and ":" not in text:
        raise ValueError(
            f"{shown(text)}: write HOST:PORT, or an endpoint such as {_example('client')}"
        )
    if text.count(":") > 1 and not _PLUGIN.match(text):
        raise ValueError(
            f"{shown(text)}: not an endpoint; an IPv6 address stands in brackets, as in [::1]:80"
        )
    return endpoint_description(text, "client")

"""
The form of Twisted endpoint descriptions, checked before anything is opened.

Only text is looked at here: whether C{tcp:} and C{unix:} descriptions have
what they need, and how a plain C{HOST:PORT} is written as one.  Descriptions
of other kinds belong to their plugins and pass as they are.  Opening an
endpoint, and asking Twisted whether it knows one, is up to those who have a
reactor.
"""

from __future__ import annotations

import os
import re
import sys
from difflib import get_close_matches
from ipaddress import IPv6Address, ip_address
from typing import Literal

import idna

from relaytunnel.config.names import port_number, shown

__all__ = ["Kind", "endpoint_description", "is_url", "literal", "speaks_tls", "target"]

Kind = Literal["client", "server"]

_PLUGIN = re.compile(r"[A-Za-z0-9]+")
_HOST_PORT = re.compile(r"([^:\\=/\s]+):([0-9]+)")
_BRACKETS_PORT = re.compile(r"\[([^\[\]]*)\]:([0-9]+)")
_HOST_PORT_MORE = re.compile(r"([^:\\=/\s]+:[0-9]+)[/?#].*")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)")
_AUTHORITY = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::([0-9]*))?")

# What the schemes mean: which endpoint, and to which port without one.
_SCHEMES = {"http": ("tcp", 80), "https": ("tls", 443)}
_LIKE_SCHEMES = {"ws": "http", "wss": "https"}

# What a plain HOST:PORT is never taken for.
_CLIENT_NAMES = frozenset({"tcp", "ssl", "tls", "unix"})

# What people write, and Twisted has under another name or not at all.
_MISNAMED = {"tcp4": "tcp", "tcp6": "tcp", "http": "http://", "https": "https://"}

_LONGEST_NAME = 253
_LONGEST_LABEL = 63
_LONGEST_PATH = 107 if sys.platform.startswith("linux") else 103  # sun_path, without its NUL

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
    ("client", "ssl"): (
        ("host", "port"),
        ("timeout", "bindAddress", "hostname", "privateKey", "certKey", "caCertsDir"),
    ),
    ("client", "tls"): (
        ("host", "port"),
        ("timeout", "bindAddress", "certificate", "privateKey", "trustRoots", "endpoint"),
    ),
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
        if key == "host":
            _check_host(text, value)
        if key in ("path", "address") and len(os.fsencode(value)) > _LONGEST_PATH:
            raise ValueError(
                f"{shown(text)}: the path of a UNIX socket has {_LONGEST_PATH} bytes at most"
            )
        if key == "port":
            try:
                port_number(value, lowest=1 if kind == "client" else 0)
            except ValueError as error:
                raise ValueError(f"{shown(text)}: {error}") from None
    for key, form in _NUMBERS.items():
        if key in named and not form.fullmatch(named[key]):
            raise ValueError(f"{shown(text)}: the {key} is not a number")


def _check_host(text: str, host: str) -> None:
    """
    Refuse what no resolver could be asked for.  Names of containers have
    underscores, so it need not be a host name.
    """
    if any(character.isspace() for character in host):
        raise ValueError(f"{shown(text)}: a host has no blanks in it")
    if set(host) & set("/?#@[]"):
        raise ValueError(f"{shown(text)}: {shown(host)} is no host")
    if ":" in host:
        try:
            IPv6Address(host)
        except ValueError:
            raise ValueError(f"{shown(text)}: {shown(host)} is no IPv6 address") from None
        return
    name = host
    if not host.isascii():
        try:
            name = idna.encode(host, uts46=True).decode("ascii")
        except UnicodeError as fault:
            raise ValueError(f"{shown(text)}: {shown(host)} is no host name: {fault}") from None
    labels = name.removesuffix(".").split(".")
    if len(name) > _LONGEST_NAME or not all(0 < len(each) <= _LONGEST_LABEL for each in labels):
        raise ValueError(
            f"{shown(text)}: a host name has {_LONGEST_NAME} characters at most, and 1 to"
            f" {_LONGEST_LABEL} between its dots (RFC 1035, section 2.3.4)"
        )


def is_url(text: str) -> bool:
    """
    @return: whether the text has the form of a URL.
    """
    return _URL.fullmatch(text) is not None


def speaks_tls(text: str) -> bool:
    """
    @return: whether a client endpoint speaks TLS to its server.
    """
    return text.partition(":")[0].lower() in ("tls", "ssl")


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


def _url_target(text: str, scheme: str, rest: str) -> str:
    """
    @return: the client endpoint that a URL's host and port are.
    @raise ValueError: it says more than these, or is of another scheme.
    """
    kind = scheme.lower()
    authority = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    like = _LIKE_SCHEMES.get(kind)
    if like is not None:
        raise ValueError(f"{shown(text)}: did you mean {shown(f'{like}://{authority}')}?")
    if kind not in _SCHEMES:
        raise ValueError(
            f"{shown(text)}: a target is no URL but of http and https; did you mean"
            f" {shown(authority)}?"
        )
    if rest.removesuffix("/") != authority:
        raise ValueError(
            f"{shown(text)}: a target has neither path nor user; did you mean"
            f" {shown(f'{scheme}://{authority}/')}?"
        )
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise ValueError(
            f"{shown(text)}: not {kind}://HOST:PORT/; an IPv6 address stands in brackets"
        )
    plugin, port = _SCHEMES[kind]
    host = (parts[1] or parts[2] or "").replace(":", "\\:")
    if parts[1] is not None and ":" not in parts[1]:
        raise ValueError(f"{shown(text)}: no IPv6 address between the brackets")
    meant = f"{plugin}:{host}:{parts[3] or port}"
    if plugin == "tls" and parts[1] is not None:
        # Twisted verifies addresses, but dials names alone unless told how.
        dialled = f"tcp:{host}:{parts[3] or port}".replace("\\", "\\\\").replace(":", "\\:")
        meant = f"{meant}:endpoint={dialled}"
    try:
        return endpoint_description(meant, "client")
    except ValueError as fault:
        raise ValueError(f"{shown(text)}: {fault}") from None


def target(text: str) -> str:
    """
    Bring the target of a server into the form of a client endpoint: HOST:PORT
    becomes C{tcp:HOST:PORT}, C{[::1]:80} likewise with its colons escaped,
    C{:PORT} is a port of this machine, C{http://HOST:PORT/} means HOST:PORT,
    and C{https://HOST} speaks TLS to the port 443 and verifies the
    certificate.

    @raise ValueError: it is neither an address nor an endpoint description.
    """
    url = _URL.fullmatch(text)
    if url is not None and text.isprintable():
        return _url_target(text, url[1], url[2])
    bracketed = _BRACKETS_PORT.fullmatch(text)
    if bracketed is not None:
        inside, port = bracketed.groups()
        try:
            IPv6Address(inside)
        except ValueError:
            raise ValueError(f"{shown(text)}: no IPv6 address between the brackets") from None
        escaped = inside.replace(":", "\\:")
        return endpoint_description(f"tcp:{escaped}:{port}", "client")
    if re.fullmatch(":[0-9]+", text):
        return endpoint_description(f"tcp:localhost{text}", "client")
    plain = _HOST_PORT.fullmatch(text)
    if plain is not None and plain[1].lower() not in _CLIENT_NAMES:
        return endpoint_description(f"tcp:{text}", "client")
    more = _HOST_PORT_MORE.fullmatch(text)
    if more is not None:
        raise ValueError(f"{shown(text)}: a target has no path; did you mean {shown(more[1])}?")
    if text and ":" not in text:
        meant = f"; did you mean ':{text}'?" if text.isdigit() else ""
        if text.startswith(("/", "./")):
            meant = f"; did you mean {shown(f'unix:{text}')}?"
        raise ValueError(
            f"{shown(text)}: write HOST:PORT, or an endpoint such as {_example('client')}{meant}"
        )
    if text.count(":") > 1 and not _PLUGIN.match(text):
        raise ValueError(
            f"{shown(text)}: not an endpoint; an IPv6 address stands in brackets, as in [::1]:80"
        )
    plugin, _, rest = text.partition(":")
    if plugin.lower() in _MISNAMED:
        instead = _MISNAMED[plugin.lower()]
        meant = f"{instead}{rest}" if instead.endswith("/") else f"{instead}:{rest}"
        raise ValueError(
            f"{shown(text)}: no endpoint begins with '{plugin}:'; did you mean {shown(meant)}?"
        )
    return endpoint_description(text, "client")

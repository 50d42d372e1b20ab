"""
The grammar of an HTTP/1 request head (RFC 9112), strictly.

Here is decided, line by line, what a head may look like and which server it
names.  Whatever a server behind the relay might read differently is a
L{Fault}.  How the lines come out of a stream of bytes, and what the client is
told, is the business of L{relaytunnel.arrival.http}.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from relaytunnel.arrival.authority import Authority, parse_authority
from relaytunnel.errors import Code, Failing, ProtocolError

__all__ = [
    "TOKEN",
    "Fault",
    "Fields",
    "RequestLine",
    "check_body",
    "named_by",
    "parse_request_line",
]

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A token (RFC 9110 5.6.2): what methods and field names consist of."""

# Bytes above 127 in a path are no URI, but common clients send them and common
# servers take them; they cannot be taken for a delimiter.
_TARGET = re.compile(rb"[^\x00-\x20\x7f]+")
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_ABSOLUTE = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?#]*)")
_MOST_OPTIONS = 64
_DIGITS = re.compile(rb"[0-9]+")
_MOST_DIGITS = 18  # an exabyte less a byte
# "h2c", "HTTP/2.0", "TLS/1.2": RFC 7540 3.2, RFC 9110 7.8, RFC 2817 3.1.
_OTHER_HTTP = re.compile(rb"h2c?|http/.*|tls(?:/.*)?", re.IGNORECASE | re.DOTALL)
_DEFAULT_PORTS = {b"http": 80, b"https": 443}

_CODES = {408: Code.TIMEOUT, 431: Code.LIMIT, 501: Code.UNSUPPORTED, 505: Code.UNSUPPORTED}


class Fault(ProtocolError):
    """
    A head that is not served.

    @ivar status: the HTTP status that tells the client so.
    @ivar failing: the same as a code and a reason.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.failing = Failing(_CODES.get(status, Code.PROTOCOL_ERROR), reason)


@dataclass(frozen=True)
class RequestLine:
    """
    What the first line of a head says (RFC 9112 3).

    @ivar method: as it was sent.
    @ivar version: as it was sent.
    @ivar path: the target from its path on (RFC 9112 3.2.1).
    @ivar authority: the one in the target, if the target has one: the client
        takes us for a proxy then.
    @ivar default_port: the port that is meant where none is given.
    """

    method: bytes
    version: bytes = b"HTTP/1.1"
    path: bytes = b"/"
    authority: Authority | None = None
    default_port: int = 80

    @property
    def connects(self) -> bool:
        """Whether it asks for a tunnel."""
        return self.method == b"CONNECT"


@dataclass
class Fields:
    """
    What the header fields of a head say, as far as it matters here.

    @ivar limit: how many fields there may be.
    @ivar count: how many there were.
    @ivar host: the value of Host, or L{None} as long as there was none.
    @ivar accept: the values of Accept.
    @ivar credentials: the value of Authorization, and of Proxy-Authorization,
        by the field's name.
    @ivar cookies: the values of Cookie.
    @ivar connection: the options of Connection, in lower case.
    @ivar length: the Content-Length; L{None} if there is none.
    @ivar coded: whether there is a Transfer-Encoding.
    @ivar chunked: whether it is C{chunked}, and nothing else.
    @ivar settings: whether there is an HTTP2-Settings.
    @ivar origin: the value of Origin (RFC 6454 7), if there is one.
    @ivar site: the value of Sec-Fetch-Site (Fetch Metadata), if there is one.
    @ivar worker: whether a service worker's script is asked for.
    """

    limit: int
    count: int = 0
    host: bytes | None = None
    accept: list[str] = field(default_factory=list)
    credentials: dict[bytes, bytes] = field(default_factory=dict)
    cookies: list[bytes] = field(default_factory=list)
    connection: list[bytes] = field(default_factory=list)
    length: int | None = None
    coded: bool = False
    chunked: bool = False
    settings: bool = False
    origin: bytes | None = None
    site: bytes | None = None
    worker: bool = False
    _protocols: list[bytes] = field(default_factory=list)
    _length: bytes | None = None

    @property
    def upgrades(self) -> bool:
        """
        Whether the request is nothing unless the connection becomes another
        protocol (RFC 9110 7.8): a WebSocket (RFC 6455 4.1).  An offer that a
        server may pass over, as of C{h2c}, is none.
        """
        protocols = [each.lower() for each in self._protocols]
        return protocols == [b"websocket"] and b"upgrade" in self.connection

    @property
    def offers(self) -> list[bytes]:
        """
        The protocols that the connection may become, as they were sent, without
        another HTTP and TLS.
        """
        return [each for each in self._protocols if not _OTHER_HTTP.fullmatch(each)]

    @property
    def rewritten(self) -> bool:
        """Whether it offers what L{offers} leaves out."""
        return self.settings or any(map(_OTHER_HTTP.fullmatch, self._protocols))

    @property
    def has_body(self) -> bool:
        """Whether there is anything behind the head (RFC 9112 6)."""
        return self.coded or bool(self.length)

    def add(self, line: bytes) -> None:
        """
        Take in one field line, without its CRLF (RFC 9112 5).

        @raise Fault: if it is none, is one too many, or contradicts an
            earlier one.
        """
        self.count += 1
        if self.count > self.limit:
            raise Fault(431, f"the request has more than {self.limit} header fields")
        if line[:1] in (b" ", b"\t"):
            raise Fault(400, "a header line begins with white space")
        name, colon, value = line.partition(b":")
        if not colon:
            raise Fault(400, "a header line has no colon")
        if name != name.rstrip(b" \t"):
            raise Fault(400, "there is white space between a header's name and its colon")
        if not TOKEN.fullmatch(name):
            raise Fault(400, "a header's name is not a token")
        if not _VALUE.fullmatch(value):
            raise Fault(400, "a header's value has a control character in it")
        self._note(name.lower(), value.strip(b" \t"))

    def _note(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            # Even twice the same: who comes later may look at another one.
            if self.host is not None:
                raise Fault(400, "the request has more than one Host")
            self.host = value
        elif name == b"accept":
            self.accept.append(value.decode("latin-1"))
        elif name in (b"authorization", b"proxy-authorization"):
            if name in self.credentials:
                raise Fault(400, "the request has credentials twice")
            self.credentials[name] = value
        elif name == b"cookie":
            self.cookies.append(value)
        elif name == b"origin":
            # Of two that differ neither is one.
            self.origin = value if self.origin in (None, value) else b""
        elif name == b"sec-fetch-site":
            self.site = value if self.site in (None, value) else b""
        elif name == b"service-worker":
            self.worker = True
        elif name == b"upgrade":
            if value.count(b",") >= _MOST_OPTIONS:
                raise Fault(400, f"an Upgrade has more than {_MOST_OPTIONS} protocols")
            self._protocols += (word.strip(b" \t") for word in value.split(b","))
        elif name == b"http2-settings":
            self.settings = True
        elif name == b"connection":
            if value.count(b",") >= _MOST_OPTIONS:
                raise Fault(400, f"a Connection has more than {_MOST_OPTIONS} options")
            self.connection += (word.strip(b" \t").lower() for word in value.split(b","))
        elif name == b"content-length":
            if not _DIGITS.fullmatch(value):
                raise Fault(400, "the Content-Length is not a number")
            if len(value) > _MOST_DIGITS:
                raise Fault(400, f"the Content-Length has more than {_MOST_DIGITS} digits")
            if self._length not in (None, value):
                raise Fault(400, "the request has two Content-Lengths that differ")
            self._length, self.length = value, int(value)
        elif name == b"transfer-encoding":
            self.chunked = not self.coded and value.lower() == b"chunked"
            self.coded = True
        # One of the two frames the body, and not everybody picks the same one
        # (RFC 9112 6.3).
        if self.coded and self.length is not None:
            raise Fault(400, "the request has both Content-Length and Transfer-Encoding")


def parse_request_line(line: bytes) -> RequestLine:
    """
    Read the first line of a head, without its CRLF (RFC 9112 3).

    @raise Fault: if it is none, or asks for what is not served here.
    """
    words = line.split(b" ")
    if len(words) != 3 or not TOKEN.fullmatch(words[0]) or not _TARGET.fullmatch(words[1]):
        raise Fault(400, "the first line is not a method, a target and a version")
    method, target, version = words
    if version not in (b"HTTP/1.0", b"HTTP/1.1"):
        if version.startswith(b"HTTP/"):
            raise Fault(505, "HTTP/1.0 and HTTP/1.1 are spoken here")
        raise Fault(400, "the first line does not end in an HTTP version")
    if method == b"CONNECT":
        return _tunnel(target, version)
    if target.startswith(b"/") or (method, target) == (b"OPTIONS", b"*"):
        return RequestLine(method, version, target)
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        raise Fault(400, "the target is neither a path nor an absolute URI")
    scheme = absolute[1].lower()
    if scheme not in _DEFAULT_PORTS:
        raise Fault(400, "the target's scheme is neither http nor https")
    path = target[absolute.end() :].partition(b"#")[0]
    if not path.startswith(b"/"):
        # Of a server as a whole (RFC 9112 3.2.4), or the path that is meant
        # by none (3.2.1).
        path = b"*" if (method, path) == (b"OPTIONS", b"") else b"/" + path
    return RequestLine(method, version, path, _authority(absolute[2]), _DEFAULT_PORTS[scheme])


def _tunnel(target: bytes, version: bytes) -> RequestLine:
    """
    Read the target of a CONNECT (RFC 9112 3.2.3).
    """
    authority = _authority(target)
    if authority.port is None:
        raise Fault(400, "a tunnel's target is a host and a port, such as web:443")
    return RequestLine(b"CONNECT", version, b"", authority, authority.port)


def check_body(request: RequestLine, fields: Fields) -> None:
    """
    See that every server finds the same end of the body (RFC 9112 6.1, 6.3).

    @raise Fault: one might not.
    """
    if fields.coded and not fields.chunked:
        raise Fault(400, "the Transfer-Encoding is another than chunked alone")
    if fields.coded and request.version == b"HTTP/1.0":
        raise Fault(400, "there is no Transfer-Encoding in HTTP/1.0")


def named_by(request: RequestLine, fields: Fields) -> Authority | None:
    """
    Say which server a whole head names (RFC 9112 3.2 and 3.3).

    A target with an authority of its own should win over the Host; servers
    that look at the Host all the same are why the two must not differ.

    @return: the one authority, or L{None} if the head names nobody.

    @raise Fault: if there is no valid one, or more than one.
    """
    if fields.host is None:
        if request.version == b"HTTP/1.1" and not request.connects:
            raise Fault(400, "the request has no Host")
        return request.authority
    host = _authority(fields.host) if fields.host else None
    if request.authority is None:
        return host
    if host is None or not request.authority.same_as(host, request.default_port):
        raise Fault(400, "the target and the Host name different servers")
    return request.authority if request.connects else host


def _authority(data: bytes) -> Authority:
    try:
        return parse_authority(data)
    except ProtocolError as error:
        raise Fault(400, str(error)) from None

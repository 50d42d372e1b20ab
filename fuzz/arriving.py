"""
Targets: how a client on a shared port names its server.
"""

from __future__ import annotations

import re
import ssl
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from html.parser import HTMLParser
from ipaddress import ip_address

from fuzz.targets import Target, cut, holds, is_printable, same, texts
from relaytunnel.arrival import (
    WAYS,
    WAYS_WITHOUT_QUESTION,
    Arrival,
    Choice,
    HttpArrival,
    Limits,
    Malformed,
    Named,
    parse_authority,
    parse_host,
)
from relaytunnel.arrival.choosing import PATH, Asker, Asking, asking
from relaytunnel.arrival.credentials import LONGEST_CHOICE, basic_login, cookie_value
from relaytunnel.errors import Code, Failing, ProtocolError

__all__ = ["TARGETS"]

_SMALL, _WITHOUT_QUESTION, _NOBODY = 1, 2, 4
_FEW = Limits(max_head=600, max_headers=8)
_MANY = Limits(max_head=1 << 20, max_headers=1000)
_OTHER_HEADS = 2560
"""What SOCKS and four lines of text may take, whatever the bound of a head."""

_STATUS_LINE = re.compile(rb"HTTP/1\.1 [1-5][0-9]{2} [\x20-\x7e]+")
_FIELD_LINE = re.compile(rb"[A-Za-z-]+: [\x20-\x7e]*")
_LOCAL_PATH = re.compile(r"/(?![/\\])[\x21-\x7e]*")


class _Servers:
    """
    What a client may know of the servers.
    """

    def __init__(self, *connection_ids: str) -> None:
        self._known = connection_ids

    def listed(self) -> Sequence[Choice]:
        return [Choice(each, (f"https://{each}/",)) for each in self._known]

    def refuses(self, connection_id: str) -> Failing | None:
        if connection_id in self._known:
            return None
        return Failing(Code.NO_SUCH_SERVER, f"no server is published as {connection_id}")

    def remember(self, connection_id: str) -> str | None:
        return f"signed.{connection_id}"

    def remembered(self, token: str) -> str | None:
        return token.removeprefix("signed.") if token.startswith("signed.") else None

    def has_names_below(self, host: str) -> bool:
        return host.endswith("localhost")


_CODES = list(Code)
_SOME, _NONE = _Servers("db.example", "web", "web.example"), _Servers()


# Arrival


def _arrive(data: bytes) -> None:
    """
    What a client's first bytes lead to does not depend on how they come.
    """
    flags, chunks = cut(data)
    whole = b"".join(chunks)
    same(_told(flags, chunks), _told(flags, [whole]), "cut and whole")


def _told(flags: int, chunks: list[bytes]) -> list[object]:
    """
    Feed a client's bytes as the relay does.

    @return: all that was found, replied and asked, in this order.
    """
    limits = _FEW if flags & _SMALL else Limits()
    servers = _NONE if flags & _NOBODY else _SOME
    arrival = Arrival(limits, WAYS_WITHOUT_QUESTION if flags & _WITHOUT_QUESTION else WAYS)
    told: list[object] = []
    reply = b""
    came = b""
    for number, chunk in enumerate(chunks):
        came += chunk
        fed = chunk
        while True:
            outcome = arrival.feed(fed)
            fed = b""
            reply += arrival.take_reply()
            if outcome is None:
                holds(arrival.held == came, "what came is held")
                most = max(limits.max_head, _OTHER_HEADS)
                holds(len(came) <= most + len(chunk), "what is held is bounded")
                break
            told += [outcome, reply]
            if _is_over(arrival, outcome, servers, told):
                _check_end(arrival, outcome, came, b"".join(chunks[number + 1 :]))
                return told
    told += [None, reply, arrival.way and arrival.way.name]
    _check_words(arrival)
    if arrival.silent():
        asked = arrival.ask(servers, None)
        holds(asked is not None and not asked.over, "who is silent is asked")
    return told


def _is_over(
    arrival: Arrival, outcome: Named | Malformed, servers: _Servers, told: list[object]
) -> bool:
    """
    Whether the client is not listened to any more.
    """
    if isinstance(outcome, Malformed):
        return True
    _check_named(outcome, arrival.held)
    why = None if outcome.host is None else servers.refuses(outcome.host)
    if outcome.host is not None and why is None:
        return True
    asked = arrival.ask(servers, why)
    told.append(asked)
    if asked is not None and outcome.way == "http":
        _check_response(asked.data)
    return asked is None or asked.over


def _check_end(arrival: Arrival, outcome: Named | Malformed, came: bytes, rest: bytes) -> None:
    for more in (rest, b"", b"GET / HTTP/1.1\r\n"):
        holds(arrival.feed(more) is outcome, "an outcome stays")
    _check_words(arrival)
    if isinstance(outcome, Malformed):
        same(arrival.held, b"", "what is held of a client that is turned away")
        holds(outcome.reason, "there is a reason")
        if arrival.way is not None and arrival.way.name in ("http", "connect"):
            _check_response(outcome.answer)
    else:
        same(arrival.held, came, "what is held")
        same(arrival.take(), came, "what is handed over")


def _check_words(arrival: Arrival) -> None:
    """
    There is an answer to whatever goes wrong.
    """
    http = arrival.way is not None and arrival.way.name in ("http", "connect")
    codes = _CODES[len(arrival.held) % 3 :: 3]  # a third of them each time
    answers = [arrival.answer(Failing(code, "why\r\nnot")) for code in codes]
    for answer in [*answers, arrival.timed_out()]:
        holds(answer, "there is an answer")
        if http:
            _check_response(answer)


def _check_named(named: Named, held: bytes) -> None:
    if named.host is not None:
        _check_host(named.host)
    holds(named.port is None or 0 < named.port < 65536, "the port is one")
    holds(0 <= named.consumed <= len(held), "no more is consumed than came")
    if named.way == "sni":
        _check_hello(named.host, held)
    elif named.way == "postgres":
        _check_hello(named.host, held[named.consumed :])
    if named.instead:
        _check_rewritten(named)


def _check_host(host: str) -> None:
    if ":" in host:
        same(str(ip_address(host)), host, "the address in its one form")
    else:
        same(parse_host(host.encode("ascii")), host, "the name in its one form")


def _check_rewritten(named: Named) -> None:
    """
    What a server gets of a request to a proxy is a request for that server.
    """
    instead = named.instead
    holds(HttpArrival(_MANY).feed(instead[:-1]) is None, "it is one head, and nothing behind it")
    found = HttpArrival(_MANY).feed(instead)
    holds(isinstance(found, Named), f"it is a head: {found!r}, {instead!r}")
    assert isinstance(found, Named)
    same((found.host, found.port), (named.host, named.port), "the server that it is for")
    if found.remembered is not None:
        same(found.instead, named.instead, "it is not rewritten any further")
    else:
        same((found.way, found.consumed, found.instead), ("http", 0, b""), "it is to no proxy")


_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
_TLS.minimum_version = ssl.TLSVersion.TLSv1_2
_seen_by_openssl: list[str | None] = []


def _see(connection: object, name: str | None, context: object) -> int:
    _seen_by_openssl.append(name)
    return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME


_TLS.sni_callback = _see


def _check_hello(host: str | None, hello: bytes) -> None:
    """
    OpenSSL, if it takes the hello at all, finds the same name in it.
    """
    incoming = ssl.MemoryBIO()
    incoming.write(hello)
    _seen_by_openssl.clear()
    with suppress(ssl.SSLError):
        _TLS.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    for name in _seen_by_openssl:
        seen = None if name is None else name.lower().removesuffix(".")
        same(seen, host, "what OpenSSL finds")


def _check_response(response: bytes) -> None:
    head, end, body = response.partition(b"\r\n\r\n")
    holds(end, "the response has a head")
    first, *lines = head.split(b"\r\n")
    holds(_STATUS_LINE.fullmatch(first), f"a status line: {first!r}")
    for line in lines:
        holds(_FIELD_LINE.fullmatch(line), f"a field line: {line!r}")
    names = [line.partition(b":")[0].lower() for line in lines]
    same(len(set(names)), len(names), "no field is there twice")
    length = dict(zip(names, lines, strict=True))[b"content-length"].partition(b":")[2]
    holds(not body or int(length) == len(body), "the length is that of the body")
    body.decode("utf-8")


# The authority


def _authority(data: bytes) -> None:
    """
    What is taken for an authority is written as the same one.
    """
    try:
        authority = parse_authority(data)
    except ProtocolError:
        return
    _check_host(authority.host)
    same(parse_authority(str(authority).encode("ascii")), authority, "written and read")
    holds(authority.same_as(authority, 80), "it is the same as itself")


# The question


class _Tags(HTMLParser):
    """
    The shape of a page.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attributes)))

    def handle_comment(self, data: str) -> None:
        self.found.append(("!", (data,)))


def _shape(asked: Asking) -> list[tuple[str, tuple[str, ...]]]:
    page = asked.answer(_NONE, Asker(accept="text/html"))
    tags = _Tags()
    tags.feed(page.partition(b"\r\n\r\n")[2].decode())
    tags.close()
    return tags.found


@cache
def _plain_shape(searches: bool, chooses: bool, direct: bool) -> list[tuple[str, tuple[str, ...]]]:
    return _shape(Asking("/", "zz" * searches, "nobody" if chooses else None, direct))


def _asking(data: bytes) -> None:
    """
    No path leads to another host, and no words of it become a part of a page.
    """
    path, accept, remembered = texts(data, 3)
    asked = asking(path)
    holds(_LOCAL_PATH.fullmatch(asked.to), f"a path of this host: {asked.to!r}")
    holds(not asked.to.startswith(PATH), f"not the question again: {asked.to!r}")
    holds(len(asked.query) <= 255, "the query is bounded")
    if asked.chosen is not None:
        _check_host(asked.chosen)
    for servers, head_only in ((_SOME, False), (_NONE, True)):
        asker = Asker(
            token=remembered.decode("latin-1"),
            accept=accept.decode("latin-1"),
            head_only=head_only,
            posts=head_only,
            same_origin=head_only,
        )
        response = asked.answer(servers, asker)
        _check_response(response)
        holds(not head_only or response.endswith(b"\r\n\r\n"), "HEAD has no body")
    plain = _plain_shape(bool(asked.query), asked.chosen is not None, asked.direct)
    same(_shape(asked), plain, "the shape of the page")


# Credentials


def _credentials(data: bytes) -> None:
    """
    What is taken for credentials or for our cookie is so when it is written.
    """
    value, *cookies = data.split(b"\n")
    login = basic_login(value)
    if login is not None:
        holds(":" not in login.user, "no user has a colon")
        token = b64encode(f"{login.user}:{login.password}".encode())
        same(basic_login(b"basic " + token), login, "written and read")
        holds(f"{login!r}" == f"Login(user={login.user!r})", "no password is shown")
    found = cookie_value(cookies)
    if found is not None:
        again = f"relaytunnel={found}".encode("latin-1")
        same(cookie_value([b"a=b; " + again + b"; c=d"]), found, "written and read")
        same(cookie_value([b"a=b; " + again + b"; relaytunnel=x"]), "", "two are none")
        holds(len(found) <= LONGEST_CHOICE, "it is bounded")
        holds(is_printable(b"relaytunnel") and ";" not in found, "a cookie ends at a ';'")


_HTTP_WORDS = (
    *(b"GET ", b"CONNECT ", b"OPTIONS * ", b"http://web/", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n"),
    *(b"Host: web\r\n", b"\r\n\r\n", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Authorization: Basic ", b"Proxy-Authorization: ", b"Cookie: relaytunnel=web\r\n"),
    *(b"Upgrade: x\r\n", b"Connection: Upgrade\r\n", b"Accept: text/html\r\n"),
    *(b"Proxy-Connection: keep-alive\r\n", b"/.relaytunnel/?server=web"),
)

TARGETS = [
    Target(
        "arrival",
        _arrive,
        (
            *_HTTP_WORDS,
            *(b"\x16\x03\x01", b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30"),
            *(b"\x05\x01\x00\x05\x01\x00\x03", b"\x04\x01\x00\x50\x00\x00\x00\x01", b"SSH-2.0-"),
        ),
    ),
    Target("authority", _authority, (b"[::", b"xn--", b":80", b"0x", b"127.0.0.1", b"%"), 400),
    Target(
        "asking",
        _asking,
        (
            *(b"/.relaytunnel/?", b"server=", b"&q=", b"&to=%2F", b"text/html", b";q=0.5"),
            *(b"application/json", b"%0d%0a", b"%3C", b"<script>", b'"', b"+json"),
        ),
        1024,
    ),
    Target("credentials", _credentials, (b"Basic ", b"\nrelaytunnel=", b"; ", b"YTpi"), 512),
]

"""
Targets: what a visitor's program is told by a relay, and what it asks.
"""

from __future__ import annotations

from fuzz.targets import Target, cut, holds, same, texts
from relaytunnel.arrival import Arrival, Limits, Login, Named
from relaytunnel.config.names import connection_id
from relaytunnel.config.users import user_name
from relaytunnel.errors import ProtocolError
from relaytunnel.visiting.asking import (
    Answer,
    AnswerReader,
    HostPort,
    asking_for,
)

__all__ = ["TARGETS"]

_LONGEST_HEAD = 16 * 1024
_LONGEST_LINE = 1024
_REFUSED = "refused"


def _answer(data: bytes) -> None:
    """
    An answer is found wherever it is cut, and does a terminal no harm.
    """
    _, chunks = cut(data)
    found, rest = _read(chunks)
    same((found, rest), _read([b"".join(chunks)]), "cut and whole")
    if isinstance(found, Answer):
        holds(100 <= found.status < 600, "the status is one")
        for text in (found.reason, found.said):
            holds(text.isprintable() and len(text) <= 303, f"it can be shown: {text!r}")
        holds(not rest or found.granted, "only who grants has a server behind it")


def _read(chunks: list[bytes]) -> tuple[Answer | str, bytes]:
    reader = AnswerReader()
    try:
        for number, chunk in enumerate(chunks):
            found = reader.feed(chunk)
            if found is not None:
                behind = b"".join(chunks[number + 1 :]) if found.granted else b""
                return found, reader.rest + behind
            kept = len(reader._coming)
            holds(kept < _LONGEST_HEAD + _LONGEST_LINE, "what is kept is bounded")
        return reader.cut_off("nothing came"), b""
    except ProtocolError:
        return _REFUSED, b""


def _place(data: bytes) -> None:
    """
    A place is the same when it is written and read again.
    """
    try:
        place = HostPort.parse(data.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        holds(str(error).isprintable(), "the message is a line")
        return
    same(HostPort.parse(str(place)), place, "written and read")


def _request(data: bytes) -> None:
    """
    What we ask a relay for is what a relay of ours understands.
    """
    first, second, third = (each.decode("utf-8", "replace")[:300] for each in texts(data, 3))
    _place(data)
    try:
        server, user = connection_id(first), user_name(second)
    except ValueError:
        return
    if server.rpartition(".")[2].isdigit():
        return  # might be an address, so no client can ask for it
    found = Arrival(Limits()).feed(asking_for(server, (user, third)))
    holds(isinstance(found, Named), f"it is understood: {found!r}")
    assert isinstance(found, Named)
    same(
        (found.way, found.host, found.login), ("connect", server, Login(user, third)), "understood"
    )


TARGETS = [
    Target(
        "answer",
        _answer,
        (
            *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 404 ", b"HTTP/1.1 100 Continue\r\n\r\n"),
            *(b"Content-Type: text/plain\r\n", b"Content-Length: 5\r\n", b"\r\n\r\n", b"\x1b[31m"),
            *(b"Transfer-Encoding: chunked\r\n", b"\xe2\x80\xae"),
        ),
    ),
    Target("request", _request, (b"\n", b"web", b"[::1]:8000", b"localhost:", b"xn--"), 800),
]

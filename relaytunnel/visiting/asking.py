"""
How a relay is asked for a server, and how its answer is read: CONNECT of HTTP
(RFC 9110 9.3.6), from the client's side.

Nothing is dialled or joined here, and nobody is asked for a password.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass

from relaytunnel.config.names import host, port_number, shown
from relaytunnel.errors import ProtocolError, RelayTunnelError

__all__ = [
    "DEFAULT_RELAY",
    "PATIENCE",
    "Answer",
    "AnswerReader",
    "HostPort",
    "NotServed",
    "asking_for",
]

DEFAULT_RELAY = "localhost:8000"
PATIENCE = 30.0
"""Seconds until the relay has answered; it gives up sooner itself."""

_DEFAULT_PORT = 8000
_MAX_HEAD = 16 * 1024
_MAX_LINE = 1024
_LONGEST_SAID = 300

_END = b"\r\n\r\n"
_BEGINNING = b"HTTP/1."
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\x00-\x08\x0a-\x1f\x7f]*)")
_DIGITS = re.compile(rb"[0-9]{1,18}")


class NotServed(RelayTunnelError):
    """
    The server was not reached; the message says why.
    """


@dataclass(frozen=True)
class HostPort:
    """
    Where somebody listens, as people write it.
    """

    host: str
    port: int = _DEFAULT_PORT

    @classmethod
    def parse(cls, text: str) -> HostPort:
        """
        Read where a relay takes clients: C{HOST}, C{HOST:PORT}, C{[IPv6]} or
        C{[IPv6]:PORT}.

        @raise ValueError: it is none of these.
        """
        name, colon, port = text.partition(":")
        if text.startswith("["):
            name, bracket, behind = text[1:].partition("]")
            nothing, colon, port = behind.partition(":")
            if not bracket or nothing or ":" not in name:
                raise ValueError(f"{shown(text)}: is no [IPv6]:PORT")
        elif ":" in port:
            raise ValueError(
                f"{shown(text)}: an IPv6 address stands in brackets, as in [::1]:{_DEFAULT_PORT}"
            )
        return cls(host(name), port_number(port) if colon else _DEFAULT_PORT)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def asking_for(connection_id: str, login: tuple[str, str] | None = None) -> bytes:
    """
    Make the request for a server.

    @param connection_id: its name; the port beside it means nothing, and has
        to be there.
    @param login: user and password, for a relay that wants to know.
    """
    lines = [
        f"CONNECT {connection_id}:1 HTTP/1.1",
        f"Host: {connection_id}:1",
        "Accept: text/plain",
    ]
    if login is not None:
        token = b64encode(":".join(login).encode()).decode("ascii")
        lines.append(f"Proxy-Authorization: Basic {token}")
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii")


@dataclass(frozen=True)
class Answer:
    """
    What the relay says.

    @ivar status: the HTTP status.
    @ivar reason: what stands beside it.
    @ivar said: the first line of the body that explains it, if there is one.
    """

    status: int
    reason: str
    said: str = ""

    @property
    def granted(self) -> bool:
        """Whether what comes behind it is the server's."""
        return 200 <= self.status < 300

    def __str__(self) -> str:
        told = self.reason.partition(": ")[2] or self.reason
        if told and self.said.endswith(told):  # some clients are shown one, some the other
            return f"{self.status} {self.said}"
        status = f"{self.status} {self.reason}".strip()
        return f"{status}: {self.said}" if self.said else status


class AnswerReader:
    """
    Finds the answer in what the relay sends, wherever it is cut.

    @ivar rest: what came behind the head of an answer that grants: the first
        that the server says.
    """

    def __init__(self) -> None:
        self.rest = b""
        self._coming = bytearray()
        self._refusal: Answer | None = None
        self._body_left: int | None = None

    def feed(self, data: bytes) -> Answer | None:
        """
        Take in what has come.

        @return: the answer, once it is complete; nothing is to be fed then.
        @raise ProtocolError: whoever answers is no relay.
        """
        self._coming += data
        while self._refusal is None:
            head = self._take_head()
            if head is None:
                return None
            answer, fields = _read_head(head)
            if answer.granted:
                self.rest = bytes(self._coming)
                return answer
            if answer.status >= 200 or answer.status == 101:
                self._refusal = answer
                self._body_left = _readable(fields)
            # Else it is a sign of life, and the answer comes (RFC 9110 15.2).
        return self._take_line(self._refusal)

    def cut_off(self, how: str) -> Answer:
        """
        Nothing more comes.

        @param how: what to say of a relay that has not answered.
        @return: the answer, as far as it came.
        @raise ProtocolError: there is none.
        """
        if self._refusal is None:
            raise ProtocolError(how)
        return self._with_line(self._refusal, bytes(self._coming))

    def _take_head(self) -> bytes | None:
        coming = self._coming
        if not coming.startswith(_BEGINNING[: len(coming)]):
            raise ProtocolError("the answer is not of HTTP/1")
        end = coming.find(_END, 0, _MAX_HEAD)
        if end < 0:
            if len(coming) >= _MAX_HEAD:
                raise ProtocolError(f"the head of the answer is longer than {_MAX_HEAD} bytes")
            return None
        head = bytes(coming[:end])
        del coming[: end + len(_END)]
        return head

    def _take_line(self, refusal: Answer) -> Answer | None:
        """
        @return: the refusal with the first line of its body, once that is there.
        """
        most = _MAX_LINE if self._body_left is None else min(_MAX_LINE, self._body_left)
        body = bytes(self._coming[:most])
        if b"\n" in body or len(body) == most:
            return self._with_line(refusal, body)
        return None

    def _with_line(self, refusal: Answer, body: bytes) -> Answer:
        line = body[: self._body_left].partition(b"\n")[0]
        return Answer(refusal.status, refusal.reason, _text(line))


def _read_head(head: bytes) -> tuple[Answer, dict[bytes, bytes]]:
    """
    Read status line and fields (RFC 9112 4 and 5), without the end behind them.

    @raise ProtocolError: they are none.
    """
    first, *lines = head.split(b"\r\n")
    status = _STATUS_LINE.fullmatch(first)
    if status is None:
        raise ProtocolError("the first line of the answer is no status line")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise ProtocolError("a line in the head of the answer is no header field")
        fields[field[1].lower()] = field[2].strip(b" \t")
    return Answer(int(status[1]), _text(status[2] or b"")), fields


def _readable(fields: dict[bytes, bytes]) -> int | None:
    """
    @return: how many bytes of the body can be shown to people; C{None} if that
        is all until the end.
    """
    plain = fields.get(b"content-type", b"").lower().startswith(b"text/plain")
    if not plain or b"transfer-encoding" in fields:
        return 0
    length = fields.get(b"content-length", b"")
    return int(length) if _DIGITS.fullmatch(length) else None


def _text(line: bytes) -> str:
    """
    Make a line of bytes fit for a terminal: whoever wrote them is a stranger.
    """
    text = line.strip().decode("utf-8", "replace")
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= _LONGEST_SAID else text[:_LONGEST_SAID] + "..."

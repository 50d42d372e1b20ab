"""
Where the head of an HTTP/1 answer leaves its body (RFC 9112 6.3).

The server is free to say what it likes to its own clients, so nothing is
refused here.  But an answer whose end two programs could see in two places
ends with the connection: no other answer may follow it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from relaytunnel.arrival.body import Body, ChunkedBody, CountedBody, EndlessBody

__all__ = ["CHUNKED", "ENDLESS", "SWITCHED", "UNCLEAR", "Answer", "AnswerReader", "read_answer"]

SWITCHED = 101
"""The status by which the connection becomes another protocol."""

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])[ \r]")
# The white space around a value is taken off afterwards: in here it would be tried
# from each of its bytes.
_FIELDS = re.compile(
    rb"\r\n(content-length|transfer-encoding|connection)([ \t]*):([^\r\n]*)", re.IGNORECASE
)
_DIGITS = re.compile(rb"[0-9]{1,18}")
# The fixed length of a date: RFC 9110 5.6.7.
_DATE = re.compile(rb"\r\nDate: ([A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT)\r")
_DATE_LENGTH = len(b"Tue, 01 Dec 2026 00:00:00 GMT")


@dataclass(frozen=True)
class Answer:
    """
    What the head of an answer says of its connection.

    @ivar status: the status code; 0 if the head is no such head.
    @ivar length: bytes of the body, L{CHUNKED} or L{ENDLESS}.
    @ivar last: whether the server closes the connection behind it.
    @ivar doubtful: whether another program may find another end of its body.
    """

    status: int
    length: int
    last: bool
    doubtful: bool = False

    @property
    def interim(self) -> bool:
        """Whether the final answer is still to come (RFC 9110 15.2)."""
        return 100 <= self.status < 200

    def body(self) -> Body | None:
        """
        @return: what measures the body; C{None} if there is none.
        """
        if self.length > 0:
            return CountedBody(self.length)
        if self.length == CHUNKED:
            return ChunkedBody(padded=True)
        return EndlessBody() if self.length == ENDLESS else None


CHUNKED, ENDLESS = -1, -2
"""Lengths of bodies that do not say it before they begin."""

UNCLEAR = Answer(0, ENDLESS, True, doubtful=True)
"""One whose head is no such head."""


class AnswerReader:
    """
    Reads the heads of the answers of one connection.

    Most of them differ from the one before in their date alone, and need not
    be read again.
    """

    __slots__ = ("_answer", "_date", "_head", "_head_only")

    def __init__(self) -> None:
        self._head = b""
        self._date = 0
        self._head_only = False
        self._answer = UNCLEAR

    def read(self, head: bytes, head_only: bool) -> Answer:
        """
        See L{read_answer}.
        """
        before, date = self._head, self._date
        if (
            len(head) == len(before)
            and head_only is self._head_only
            and head[:date] == before[:date]
            and head[date + _DATE_LENGTH :] == before[date + _DATE_LENGTH :]
            and b"\r" not in head[date : date + _DATE_LENGTH]
            and b"\n" not in head[date : date + _DATE_LENGTH]
        ):
            return self._answer
        found = _DATE.search(head)
        self._date = len(head) if found is None else found.start(1)
        self._head, self._head_only = head, head_only
        self._answer = answer = read_answer(head, head_only)
        return answer


def read_answer(head: bytes, head_only: bool) -> Answer:
    """
    Read the head of an answer, with the empty line.

    @param head_only: whether it answers a HEAD.
    """
    first = _STATUS.match(head)
    lines = head.count(b"\r\n")
    if (
        first is None
        or head.count(b"\n") != lines
        or head.count(b"\r") != lines
        or b"\r\n " in head
        or b"\r\n\t" in head
    ):
        return UNCLEAR
    status = int(first[2])
    lengths: list[bytes] = []
    codings: list[bytes] = []
    options: list[bytes] = []
    for name, blank, padded in _FIELDS.findall(head):
        if blank:
            return UNCLEAR
        value = padded.strip(b" \t")
        # The first letters tell them apart.
        kind = name[:2].lower()
        if kind == b"tr":
            codings.append(value.lower())
        elif name[3:4].lower() == b"t":
            lengths.append(value)
        else:
            options += (each.strip(b" \t").lower() for each in value.split(b","))
    old = first[1] == b"0"
    last = b"close" in options or (old and b"keep-alive" not in options)
    if head_only or status < 200 or status in (204, 304):
        return Answer(status, 0, last)
    if codings:
        if codings == [b"chunked"] and not lengths and not old:
            return Answer(status, CHUNKED, last)
    elif lengths and len(set(lengths)) == 1 and _DIGITS.fullmatch(lengths[0]):
        return Answer(status, int(lengths[0]), last)
    return Answer(status, ENDLESS, True, doubtful=bool(codings or lengths))

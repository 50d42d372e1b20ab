"""
Where the body of an HTTP/1 message ends (RFC 9112 6 and 7).

A body is measured, never kept: each reader is shown the bytes as they pass, in
whatever pieces, and says how many of them are the body's.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Protocol

from relaytunnel.arrival.head import Fault

__all__ = ["Body", "ChunkedBody", "CountedBody", "EndlessBody"]

_LONGEST_LINE = 4096
_MOST_TRAILERS = 16384

# 15 digits: a size that every program can count with.
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e\x80-\xff]*)?")
_PADDED_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


class _Line(Enum):
    """
    What the next line of a chunked body is.
    """

    SIZE = auto()
    END = auto()
    TRAILER = auto()


class Body(Protocol):
    """
    The rest of one body.

    @ivar done: whether it has ended.
    """

    done: bool

    def feed(self, data: bytes, at: int) -> int:
        """
        Pass over what is the body's.

        @param at: where to begin.
        @return: where the body, or the data, ends.
        @raise Fault: the body is not framed as it says.
        """


class CountedBody:
    """
    A body of so many bytes (RFC 9112 6.2).
    """

    __slots__ = ("_left", "done")

    def __init__(self, length: int) -> None:
        """
        @param length: bytes, more than 0.
        """
        self._left = length
        self.done = False

    def feed(self, data: bytes, at: int) -> int:
        """
        See L{Body.feed}.
        """
        here = len(data) - at
        if here < self._left:
            self._left -= here
            return len(data)
        at += self._left
        self._left = 0
        self.done = True
        return at


class EndlessBody:
    """
    A body that ends with the connection (RFC 9112 6.3).
    """

    __slots__ = ()

    done = False

    def feed(self, data: bytes, at: int) -> int:
        """
        See L{Body.feed}.
        """
        return len(data)


class ChunkedBody:
    """
    A body in chunks (RFC 9112 7.1), with its trailer section.

    Of a request every byte has to be as the grammar says, since a server that
    reads another length would take the rest for a request.
    """

    __slots__ = ("_expected", "_left", "_line", "_size", "_trailers", "done")

    def __init__(self, padded: bool = False) -> None:
        """
        @param padded: whether white space may follow the size of a chunk, as
            some servers send it.
        """
        self._size = _PADDED_SIZE if padded else _SIZE
        self._expected = _Line.SIZE
        self._line = b""
        self._left = 0
        self._trailers = 0
        self.done = False

    def feed(self, data: bytes, at: int) -> int:
        """
        See L{Body.feed}.
        """
        size = len(data)
        while at < size and not self.done:
            if self._left:
                passed = min(self._left, size - at)
                self._left -= passed
                at += passed
                continue
            end = data.find(b"\n", at, at + _LONGEST_LINE)
            line = self._line + data[at : size if end < 0 else end + 1]
            if len(line) > _LONGEST_LINE:
                raise Fault(400, f"a chunk's line is longer than {_LONGEST_LINE} bytes")
            if end < 0:
                if size - at >= _LONGEST_LINE:
                    raise Fault(400, f"a chunk's line is longer than {_LONGEST_LINE} bytes")
                self._line = line
                return size
            self._line = b""
            at = end + 1
            if line[-2:] != b"\r\n" or b"\r" in line[:-2]:
                raise Fault(400, "a line of a chunked body does not end in CRLF")
            self._take(line[:-2])
        return at

    def _take(self, line: bytes) -> None:
        if self._expected is _Line.SIZE:
            found = self._size.fullmatch(line)
            if found is None:
                raise Fault(400, "a chunk's size is not a hexadecimal number")
            self._left = int(found[1], 16)
            self._expected = _Line.END if self._left else _Line.TRAILER
        elif self._expected is _Line.END:
            if line:
                raise Fault(400, "a chunk is longer than its size")
            self._expected = _Line.SIZE
        elif line:
            self._trailers += len(line) + 2
            if self._trailers > _MOST_TRAILERS:
                raise Fault(431, f"the trailer section is longer than {_MOST_TRAILERS} bytes")
        else:
            self.done = True

"""
HTTP/1.0 and HTTP/1.1: the client names its server by the Host of its request.

Here a head is cut out of the bytes that came so far, within its bounds, and
what was found is turned into what the relay and the client are told.  What a
head may look like is said in L{relaytunnel.arrival.head}, the form of the
answers in L{relaytunnel.arrival.answers}.  Only the first request of a client
channel is looked at: the channel then belongs to one server.
"""

from __future__ import annotations

from relaytunnel.arrival.answers import http_answer
from relaytunnel.arrival.head import (
    TOKEN,
    Fault,
    Fields,
    RequestLine,
    named_by,
    parse_request_line,
)
from relaytunnel.arrival.ways import DEFAULT_LIMITS, Limits, Malformed, Named, Opening
from relaytunnel.errors import Failing

__all__ = ["HTTP", "HttpArrival"]

# Longer than any registered method (UPDATEREDIRECTREF, 17).
_MAX_METHOD = 32


class HttpArrival:
    """
    The head of one client's first request, while it is read and answered.

    It remembers the method and the Accept, so that the answer fits.
    """

    name = "http"

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._max_head = limits.max_head
        self._request: RequestLine | None = None
        self._fields = Fields(limits.max_headers)
        self._outcome: Named | Malformed | None = None
        # Where the first line begins that was not read yet.
        self._at = 0

    def feed(self, buffer: bytes) -> Named | Malformed | None:
        """
        Read the lines that are complete by now; see L{Way.feed}.

        The first fault from the top is the one that is told, and it is told
        as soon as its line is complete, however the bytes were cut.
        """
        if self._outcome is None:
            try:
                self._outcome = self._read(buffer)
            except Fault as fault:
                answer = self._answer(fault.failing, fault.status)
                self._outcome = Malformed(fault.failing.reason, answer)
        return self._outcome

    def answer(self, failing: Failing) -> bytes:
        """
        An HTTP response whose status says as much as a status can.
        """
        return self._answer(failing, None)

    def timed_out(self) -> bytes:
        """
        A 408 (RFC 9110 15.5.9).
        """
        fault = Fault(408, "the request did not come in time")
        return self._answer(fault.failing, fault.status)

    def _answer(self, failing: Failing, status: int | None) -> bytes:
        accept = ", ".join(self._fields.accept) or None
        head_only = self._request is not None and self._request.method == b"HEAD"
        return http_answer(failing, accept, head_only, status=status)

    def _read(self, buffer: bytes) -> Named | None:
        """
        Read on from where the last call stopped.

        @raise Fault: at the first line that is at fault, or if the head does
            not end within its bound.
        """
        while True:
            end = buffer.find(b"\n", self._at, self._max_head)
            if end < 0:
                if len(buffer) >= self._max_head:
                    raise Fault(431, f"the request's head is longer than {self._max_head} bytes")
                return None
            start, self._at = self._at, end + 1
            # RFC 9112 2.2 lets a server take a bare LF for a line's end, so
            # some do and others do not.
            if buffer[end - 1 : end] != b"\r":
                raise Fault(400, "a line ends in LF without CR")
            line = buffer[start : end - 1]
            if b"\r" in line:
                raise Fault(400, "there is a CR in the middle of a line")
            if self._request is None:
                # One empty line before the request is let pass (RFC 9112 2.2).
                if line or start > 0:
                    self._request = parse_request_line(line)
            elif line:
                self._fields.add(line)
            else:
                authority = named_by(self._request, self._fields)
                if authority is None:
                    return Named(self.name, None, None)
                return Named(self.name, authority.host, authority.port)


def _fits(prefix: bytes) -> bool | None:
    """
    Whether a request line begins here: a token and a space, possibly behind
    one empty line.
    """
    if prefix in (b"", b"\r", b"\r\n"):
        return None
    start = prefix[2:] if prefix.startswith(b"\r\n") else prefix
    method, space, _ = start[: _MAX_METHOD + 1].partition(b" ")
    if not TOKEN.fullmatch(method) or len(method) > _MAX_METHOD:
        return False
    return True if space else None


HTTP = Opening("http", _fits, HttpArrival)

"""
HTTP/1.0 and HTTP/1.1: the client names its server by the Host of its request,
or by the target where it takes us for a proxy.

Here a head is cut out of the bytes that came so far, within its bounds, and
what was found is turned into what the relay and the client are told.  What a
head may look like is said in L{relaytunnel.arrival.head}, the form of the
answers in L{relaytunnel.arrival.answers}.  What comes
behind the first request is looked at in L{relaytunnel.arrival.exchange}.
"""

from __future__ import annotations

from dataclasses import replace

from relaytunnel.arrival.answers import http_answer
from relaytunnel.arrival.authority import Authority
from relaytunnel.arrival.choosing import Asker, Asking, asking, is_own_page
from relaytunnel.arrival.credentials import basic_login, cookie_value
from relaytunnel.arrival.head import (
    TOKEN,
    Fault,
    Fields,
    RequestLine,
    check_body,
    named_by,
    parse_request_line,
)
from relaytunnel.arrival.request import Request
from relaytunnel.arrival.ways import (
    DEFAULT_LIMITS,
    Asked,
    Directory,
    Limits,
    Malformed,
    Named,
    Opening,
)
from relaytunnel.errors import Code, Failing

__all__ = ["HTTP", "LATER_HTTP", "HttpArrival"]

# Longer than any registered method (UPDATEREDIRECTREF, 17).
_MAX_METHOD = 32

_TUNNEL_STANDS = b"HTTP/1.1 200 Connection established\r\n\r\n"


class HttpArrival:
    """
    The head of one client's first request, while it is read and answered.

    It remembers what it needs for an answer that fits.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._max_head = limits.max_head
        self._request: RequestLine | None = None
        self._fields = Fields(limits.max_headers)
        self._outcome: Named | Malformed | None = None
        # Where the first line begins that was not read yet.
        self._at = 0
        self._asking = Asking()
        self._host: Authority | None = None

    @property
    def name(self) -> str:
        """
        C{connect} for a tunnel, C{http} for all else.
        """
        return "connect" if self._request is not None and self._request.connects else "http"

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
            if self._fields.worker and isinstance(self._outcome, Named):
                self._outcome = replace(self._outcome, service_worker=True)
        return self._outcome

    def take_reply(self) -> bytes:
        """
        Nothing: a request is answered as a whole.
        """
        return b""

    def ask(self, directory: Directory, why: Failing | None) -> Asked | None:
        """
        A page that asks, or takes the answer; for those who named nobody.
        """
        if why is not None or self._to_proxy:
            return None
        fields = self._fields
        asker = Asker(
            host=self._host,
            token=self._remembered,
            accept=self._accept,
            head_only=self._head_only,
            posts=self._request is not None and self._request.method == b"POST",
            has_body=fields.has_body,
            same_origin=is_own_page(self._host, fields.origin, fields.site),
        )
        return Asked(self._asking.answer(directory, asker), over=True)

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

    @property
    def _accept(self) -> str | None:
        return ", ".join(self._fields.accept) or None

    @property
    def _remembered(self) -> str | None:
        return None if self._asking.direct else cookie_value(self._fields.cookies)

    @property
    def _head_only(self) -> bool:
        return self._request is not None and self._request.method == b"HEAD"

    @property
    def _to_proxy(self) -> bool:
        return self._request is not None and self._request.authority is not None

    def _answer(self, failing: Failing, status: int | None) -> bytes:
        # Whoever may not have what it chose could not choose again else.
        chosen = cookie_value(self._fields.cookies) is not None
        return http_answer(
            failing,
            self._accept,
            self._head_only,
            status=status,
            proxy=self._to_proxy,
            forget=chosen and failing.code is Code.NOT_ALLOWED and not self._fields.worker,
        )

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
                check_body(self._request, self._fields)
                authority = self._host = named_by(self._request, self._fields)
                return self._named(self._request, authority, buffer[: self._at])

    def _named(self, request: RequestLine, authority: Authority | None, head: bytes) -> Named:
        host, port = (None, None) if authority is None else (authority.host, authority.port)
        credentials = self._fields.credentials
        to_proxy = request.connects or self._to_proxy
        login = basic_login(
            credentials.get(b"proxy-authorization" if to_proxy else b"authorization")
        )
        if request.connects:
            return Named(self.name, host, port, len(head), welcome=_TUNNEL_STANDS, login=login)
        remembered = None
        whole = Request(request, self._fields, head)
        if not to_proxy:
            self._asking = asking(request.path)
            remembered = self._remembered
            if remembered is None:
                return Named(self.name, host, port, login=login, request=whole)
        # The next request may be for another server, and must not go to this one.
        return Named(
            *(self.name, host, port, len(head), whole.last),
            login=login,
            remembered=remembered,
            request=whole,
        )


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


class _LaterArrival(HttpArrival):
    """
    The head of a request behind another one on the same client channel.
    """

    def _named(self, request: RequestLine, authority: Authority | None, head: bytes) -> Named:
        if request.connects:
            raise Fault(400, "a tunnel is asked for behind another request")
        if authority is None:
            raise Fault(400, "the request has no Host, and others came before it")
        return super()._named(request, authority, head)


LATER_HTTP = Opening("http", lambda prefix: True, _LaterArrival)
"""HTTP on a channel that has carried requests already."""

"""
The requests and answers of one HTTP/1 connection, while they pass (RFC 9112 9).

A connection belongs to its client, and each of its requests to the server that
the request names: what is in front of a relay, a proxy for one, sends the
requests of many clients on one connection.  An L{Exchange} sees both
directions pass.  It lets the requests go on that are for the server of the
session, and holds what comes behind: a request for another server until every
answer has come, when the session can end and the next one begin, and what
comes behind an offer of another protocol until the server has decided.

Pure: bytes in, bytes out.  What holds a channel up, and what ends it, is in
L{relaytunnel.relay.requests}.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from relaytunnel.arrival.answer import SWITCHED, UNCLEAR, Answer, AnswerReader
from relaytunnel.arrival.body import Body
from relaytunnel.arrival.head import Fault, parse_request_line
from relaytunnel.arrival.http import HttpArrival
from relaytunnel.arrival.request import Request
from relaytunnel.arrival.ways import DEFAULT_LIMITS, Limits, Named

__all__ = ["MOST_UNANSWERED", "Exchange", "Mode"]

MOST_UNANSWERED = 64
"""Requests that may be on their way at once (pipelining, RFC 9112 9.3.2); what
comes behind them waits."""

_LONGEST_ANSWER_HEAD = 65536
_BARE_LF = re.compile(rb"(?<!\r)\n")
_LAST = b"Connection: close\r\n"
_BEGINNING = b"HTTP/1."


class Mode(Enum):
    """
    What becomes of what the client says next.
    """

    OPEN = auto()
    """Requests of the session's server go on."""
    OFFERED = auto()
    """Another protocol was offered, and the server has not decided."""
    LEAVING = auto()
    """The next request is another session's, once every answer has come."""
    CLOSING = auto()
    """The server's answer is the last one: what comes behind is for nobody."""
    OVER = auto()
    """The connection is to be ended: nothing may follow what has passed."""
    RAW = auto()
    """It has become another protocol, and is looked at no more."""


def _refuses(named: Named | None) -> bool:
    return False


class _Asked(NamedTuple):
    """
    A request that has no final answer yet.
    """

    head_only: bool
    switches: bool


class Exchange:
    """
    One session's requests and answers.

    @ivar mode: see L{Mode}.
    @ivar held: what the client has said and has not gone on.
    """

    def __init__(
        self,
        first: Named,
        accepts: Callable[[Named | None], bool],
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """
        @param first: what the session has begun with, with its request, whose
            head is the first that L{client_says} is given, in the form in which
            it goes on.
        @param accepts: whether a later request, of which this is known, may go
            on to the session's server.  C{None} stands for one whose head says
            the same as the last one's but for the method and the path.
        """
        self.mode = Mode.OPEN
        self.held = b""
        self._accepts = accepts
        self._limits = limits
        assert first.request is not None
        self._first = len(first.request.forwarded)
        self._asked: deque[_Asked] = deque()
        self._body: Body | None = None
        self._answer_body: Body | None = None
        self._answer_head = b""
        self._doubtful = False
        self._answers = AnswerReader()
        self._chosen = first.remembered is not None
        self._last: Request | None = None
        self._take(first.request)

    def _take(self, request: Request) -> None:
        if request is not self._last:
            self._last = request
            self._last_fields = request.head[request.head.find(b"\r\n") :]
            self._last_asked = _Asked(request.head_only, request.switches)
        self._asked.append(self._last_asked)
        self._body = request.body()
        if self._last_asked.switches:
            self.mode = Mode.OFFERED

    def close(self) -> None:
        """
        The session is over: nothing is asked of who accepts requests any more.
        """
        self._accepts = _refuses

    @property
    def stopped(self) -> bool:
        """Whether the client is not to be read for the time being."""
        if self.mode is Mode.OVER:
            return True
        if self.mode in (Mode.RAW, Mode.CLOSING) or self._body is not None:
            return False
        return self.mode is not Mode.OPEN or len(self._asked) >= MOST_UNANSWERED

    @property
    def begun(self) -> bool:
        """Whether a part of a request's head has come, and the rest has not."""
        return self.mode is Mode.OPEN and bool(self.held) and not self.stopped

    @property
    def can_leave(self) -> bool:
        """Whether the session may end, and what is held begin another one."""
        return self.mode is Mode.LEAVING and not self._asked

    def leave(self) -> None:
        """
        What is held cannot go on to this session's server, whatever it becomes.
        """
        if self.mode is Mode.OPEN:
            self.mode = Mode.LEAVING

    def leave_if_begun(self) -> None:
        """
        The client has ended: a head that has begun will not be whole.
        """
        if self.begun:
            self.leave()

    # The client

    def client_says(self, data: bytes) -> bytes:
        """
        Take what came in from the client.

        @param data: nothing, to look again at what is held.
        @return: what goes on to the server.
        @raise Fault: a body is not framed as it says, or a request comes behind
            an answer that has no clear end; the session has to end.
        """
        if self.mode is Mode.RAW and not self.held:
            return data
        if self.held:
            data, self.held = self.held + data, b""
        if self.mode is Mode.RAW:
            return data
        at = passed = 0
        parts: list[bytes] = []
        if self._first:
            at, self._first = self._first, 0
        size = len(data)
        while at < size:
            if self._body is not None:
                at = self._body.feed(data, at)
                if self._body.done:
                    self._body = None
                continue
            if self.mode is not Mode.OPEN or len(self._asked) >= MOST_UNANSWERED:
                break
            end = data.find(b"\r\n\r\n", at, at + self._limits.max_head)
            if end < 0:
                if size - at >= self._limits.max_head:
                    self.mode = Mode.LEAVING
                break
            end += 4
            request = self._accepted(data[at:end])
            if request is None:
                self.mode = Mode.LEAVING
                break
            self._take(request)
            if request.forwarded is not request.head:
                parts += (data[passed:at], request.forwarded)
                passed = end
            at = end
        if at < size:
            if self._doubtful:
                # What the client takes for the end of the answer is none here, and
                # the server could answer what was not said to it.
                raise Fault(502, "another request comes behind an answer of no clear length")
            self.held = b"" if self.mode is Mode.CLOSING else data[at:]
        elif not parts:
            return data
        parts.append(data[passed:at])
        return b"".join(parts)

    def _accepted(self, head: bytes) -> Request | None:
        """
        @return: the request with this head, if it may go on.
        """
        last = self._last
        assert last is not None
        if head == last.head:
            return last if self._accepts(None) else None
        end = head.find(b"\r\n")
        # At the relay's own name some paths are the relay's.
        if head[end:] == self._last_fields and not (last.to_proxy or self._chosen):
            try:
                line = parse_request_line(head[:end])
            except Fault:
                return None
            same = line.authority is None and line.version == last.line.version
            if same:
                return Request(line, last.fields, head) if self._accepts(None) else None
        named = HttpArrival(self._limits).feed(head)
        if isinstance(named, Named) and named.request is not None and self._accepts(named):
            self._chosen = named.remembered is not None
            return named.request
        return None

    # The server

    def server_says(self, data: bytes) -> bytes:
        """
        Take what came in from the server.

        @return: what goes on to the client.
        @raise Fault: a body is not framed as it says, or an answer is of a
            protocol that was not asked for; the session has to end.
        """
        sought = len(self._answer_head)
        if sought:
            data, self._answer_head = self._answer_head + data, b""
        at, size = 0, len(data)
        while at < size and self.mode is not Mode.RAW:
            body = self._answer_body
            if body is not None:
                at = body.feed(data, at)
                if body.done:
                    self._answer_body = None
                    self._answered()
            elif self.mode is Mode.OVER or not self._asked:
                # It speaks out of turn, and some client would take that for
                # the answer to its next request.
                self.mode = Mode.OVER
                return data[:at]
            else:
                end = self._read_head(data, at, sought)
                if end is None:
                    self._answer_head = data[at:]
                    return data[:at]
                sought = 0
                if self._doubtful:
                    return self._as_last(data, at)
                at = end
        return data

    def _read_head(self, data: bytes, at: int, sought: int) -> int | None:
        """
        @param sought: bytes of the head that have been looked through.
        @return: where the head ends, or a body that is here as a whole; C{None}
            if there is more to come.
        """
        end = data.find(b"\r\n\r\n", at + max(0, sought - 3), at + _LONGEST_ANSWER_HEAD)
        if end < 0:
            if not _BEGINNING.startswith(data[at : at + len(_BEGINNING)]):
                self._begin(UNCLEAR)  # no head at all, and none to wait for
                return len(data)
            long = len(data) - at >= _LONGEST_ANSWER_HEAD
            bare = None if long else _BARE_LF.search(data, at + max(0, sought - 1))
            # How the line behind it begins is of interest as well.
            if not long and (bare is None or bare.end() == len(data)):
                return None
            self._begin(UNCLEAR)
            return len(data)
        end += 4
        answer = self._answers.read(data[at:end], self._asked[0].head_only)
        if 0 < answer.length <= len(data) - end and not answer.last:
            # It is all here, as most are.
            self._answered()
            return end + answer.length
        self._begin(answer)
        return end

    def _as_last(self, data: bytes, at: int) -> bytes:
        """
        Have the client take an answer of no clear length for the last one of its
        connection (RFC 9112 9.6), as it is.

        @param at: where the answer begins.
        @return: the data with it.
        """
        line = data.find(b"\n", at) + 1
        if data[at : at + 1] in (b"\r", b"\n") or data[line : line + 1] in (b" ", b"\t"):
            # Some would pass over the first line, or add the second to ours.
            raise Fault(502, "the beginning of an answer's head is not where it should be")
        if not line or not data.startswith(b"HTTP/", at):
            return data
        return b"".join((data[:line], _LAST, data[line:]))

    def _begin(self, answer: Answer) -> None:
        """
        The head of an answer has passed.
        """
        if answer.interim:
            if answer.status == SWITCHED:
                if not self._asked[0].switches or len(self._asked) > 1:
                    raise Fault(502, "an answer begins a protocol that was not asked for")
                self.mode = Mode.RAW
            return
        self._doubtful = answer.doubtful
        if answer.last and self.mode in (Mode.OPEN, Mode.OFFERED, Mode.LEAVING):
            self._close()
        self._answer_body = answer.body()
        if self._answer_body is None:
            self._answered()

    def server_ended(self) -> bytes:
        """
        The server says no more, and the client is told so.

        @return: what goes on to the client before.
        """
        if self.mode is not Mode.RAW:
            self._close()
        said, self._answer_head = self._answer_head, b""
        return said

    def _close(self) -> None:
        self.mode = Mode.CLOSING
        self.held = b""

    def _answered(self) -> None:
        """
        An answer has passed whole.
        """
        self._asked.popleft()
        if self._body is not None and not self._asked:
            # Where its request ends the server no longer says.
            self.mode = Mode.OVER
        elif self.mode is Mode.OFFERED and not self._asked:
            self.mode = Mode.OPEN

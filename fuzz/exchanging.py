"""
Target: the requests and answers of one HTTP connection.
"""

from __future__ import annotations

from fuzz.targets import Target, cut, holds, same
from relaytunnel.arrival import Exchange, HttpArrival, Limits, Mode, Named
from relaytunnel.arrival.head import Fault

__all__ = ["TARGETS"]

_FIRST = b"POST /first HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\n"
_CLOSE = b"Connection: close\r\n"
_LIMITS = Limits(max_head=600, max_headers=8)


class _Session:
    """
    One exchange, and what has passed.
    """

    def __init__(self) -> None:
        named = HttpArrival().feed(_FIRST)
        assert isinstance(named, Named)
        self.exchange = Exchange(named, self._accepts, _LIMITS)
        self.there = self.exchange.client_says(_FIRST)
        self.back = self.said = b""
        self.rewritten = False

    def _accepts(self, named: Named | None) -> bool:
        if named is None:
            return True
        request = named.request
        assert request is not None
        if named.host == "web" and request.forwarded is not request.head:
            self.rewritten = True
        return named.host == "web"

    def say(self, from_client: bool, data: bytes) -> None:
        """
        @raise Fault: what comes is not framed as it says.
        """
        exchange = self.exchange
        if from_client:
            if not exchange.stopped:
                self.there += exchange.client_says(data)
        else:
            before = exchange.mode
            passed = exchange.server_says(data)
            self.said += data
            without = (self.back + passed).replace(_CLOSE, b"")
            holds(self.said.replace(_CLOSE, b"").startswith(without), "they pass as they are")
            holds(not passed or before is not Mode.OVER, "nothing passes when it is over")
            self.back += passed
            if not exchange.stopped:
                self.there += exchange.client_says(b"")
        if exchange.stopped or exchange.begun:
            return
        holds(
            not exchange.held or exchange.mode is Mode.LEAVING,
            "what is held waits for something",
        )


def _run(chunks: list[bytes], piece: int) -> tuple[bytes, bytes, Mode, bytes] | None:
    """
    @return: what passed, and what was left; C{None} where a body was faulty.
    """
    session = _Session()
    said = _FIRST
    try:
        for number, chunk in enumerate(chunks):
            step = piece or len(chunk) or 1
            for at in range(0, len(chunk), step):
                data = chunk[at : at + step]
                if number % 2 == 0 and not session.exchange.stopped:
                    said += data
                session.say(number % 2 == 0, data)
    except Fault:
        return None
    exchange = session.exchange
    if not session.rewritten and exchange.mode not in (Mode.CLOSING, Mode.OVER):
        same(session.there + exchange.held, said, "nothing is lost or made up")
    return session.there, session.back, exchange.mode, exchange.held


def _exchange(data: bytes) -> None:
    _, chunks = cut(data)
    _run(chunks, 0)
    _run(chunks, 1)


TARGETS = [
    Target(
        "exchange",
        _exchange,
        (
            *(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n", b"GET / HTTP/1.1\r\nHost: other\r\n\r\n"),
            *(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 101 x\r\n\r\n"),
            *(b"HTTP/1.1 204 x\r\n\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
            *(
                b"Upgrade: chat\r\n",
                b"Connection: close\r\n",
                b"HEAD ",
                b"POST ",
                b"Host: web\r\n",
            ),
        ),
    )
]

"""
A curl that is stopped in the midst of a stream is missed by the server at once.
"""

from __future__ import annotations

import signal
import time
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.processes import (
    Program,
    empty_directory,
    missing_programs,
    own_port,
    start_agent,
    start_relay,
    until,
)

_SOON = 3.0
"""Seconds; it takes some milliseconds more than what is between two events."""

reactor: Any = _reactor


class _Stream(Protocol):
    """
    Answers with events that never end, and ignores the client's end.
    """

    lost_at = 0.0

    def connectionMade(self) -> None:
        self.factory.streams.append(self)
        self._events = LoopingCall(self._event)

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        self._events.start(0.02)

    def _event(self) -> None:
        self.transport.write(b"data: still here\n\n")  # type: ignore[union-attr]

    def readConnectionLost(self) -> None:
        """
        Go on.
        """

    def writeConnectionLost(self) -> None:
        """
        That is ours.
        """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost_at = time.monotonic()
        if self._events.running:
            self._events.stop()


class CurlTests(TestCase):
    """
    C{curl -N} through relay and agent, as they are started by a stranger.
    """

    timeout = 90
    skip = missing_programs("curl")

    async def _stopped(self, by_name: bool) -> None:
        factory: Any = Factory.forProtocol(_Stream)
        factory.streams, factory.noisy = [], False
        listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        target = listening.getHost().port
        port = own_port()
        relay = await start_relay(self, empty_directory(self) / "relay")
        way = "" if by_name else f",port={port}"
        await start_agent(self, relay.invitation, [f"events=127.0.0.1:{target}{way}"])
        where = relay.clients if by_name else f"127.0.0.1:{port}"
        curl = Program.start(self, "curl", "-sN", "-H", "Host: events", f"http://{where}/")
        await curl.wait_for("still here")
        curl.ends_by = signal.SIGINT
        began = time.monotonic()
        await curl.stop()
        (stream,) = factory.streams
        await until(lambda: stream.lost_at, _SOON, "the server hears of it")
        self.assertLess(stream.lost_at - began, _SOON)

    async def test_by_name(self) -> None:
        """
        Reached by its name, where its requests are looked at.
        """
        await self._stopped(True)

    async def test_own_port(self) -> None:
        """
        Reached by a port of its own.
        """
        await self._stopped(False)

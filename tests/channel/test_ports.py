"""
Tests for L{relaytunnel.channel.ports}.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from relaytunnel.channel.ports import UnloggedPort


class UnloggedPortTests(TestCase):
    """
    Ports that come and go.
    """

    def port(self, number: int, interface: str = "127.0.0.1") -> Any:
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        port: Any = UnloggedPort(number, factory, 5, interface, reactor)
        port.startListening()
        self.addCleanup(port.stopListening)
        return port

    def connects(self, host: str, port: Any) -> None:
        socket.create_connection((host, port.getHost().port), timeout=5).close()

    def test_listens(self) -> None:
        """
        It takes connections, over IPv4 and IPv6.
        """
        self.connects("127.0.0.1", self.port(0))
        self.connects("127.0.0.1", self.port(0, ""))
        self.connects("::1", self.port(0, "::1"))

    def test_taken(self) -> None:
        """
        It says why it cannot be had.
        """
        first = self.port(0)
        fault = self.assertRaises(CannotListenError, self.port, first.getHost().port)
        self.assertIn("in use", str(fault))

    async def test_silent(self) -> None:
        """
        Nothing is written when it comes, or goes.
        """
        events: list[object] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        await self.port(0).stopListening()
        self.assertEqual(events, [])

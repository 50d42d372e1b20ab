"""
Holding what comes in until somebody takes it.
"""

from __future__ import annotations

from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted.internet.interfaces import IPushProducer
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.channel.holding import Holding
from relaytunnel.interfaces import IChannelReceiver, Lost
from tests.channel import Received


@implementer(IPushProducer)
class _Channel:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class HoldingTests(SynchronousTestCase):
    """
    A holding of eight bytes.
    """

    def setUp(self) -> None:
        self.channel = _Channel()
        self.holding = Holding(self.channel, 8)

    def test_interface(self) -> None:
        """
        It is a receiver.
        """
        self.assertTrue(verifyObject(IChannelReceiver, self.holding))

    def test_holds(self) -> None:
        """
        Bytes and the end behind them are kept in order.
        """
        self.holding.data_received(b"abc")
        self.holding.data_received(b"de")
        self.holding.end_received()
        self.holding.end_sent()
        self.assertEqual((self.holding.held, self.holding.ended), (b"abcde", True))
        self.assertEqual(self.channel.calls, [])

    def test_bound(self) -> None:
        """
        At the limit the channel is paused, once.
        """
        for _ in range(4):
            self.holding.data_received(b"abcd")
        self.assertEqual(self.channel.calls, ["pause"])

    def test_heard(self) -> None:
        """
        Somebody may be told of bytes and of the end.
        """
        told: list[tuple[bytes, bool]] = []
        self.holding.heard = lambda: told.append((self.holding.held, self.holding.ended))
        self.holding.data_received(b"a")
        self.holding.end_received()
        self.assertEqual(told, [(b"a", False), (b"a", True)])

    def test_lost(self) -> None:
        """
        Somebody may be told of the loss; it is told once, and of nothing else.
        """
        told: list[Lost] = []
        self.holding.lost = told.append
        self.holding.channel_lost(Lost.RESET)
        self.holding.channel_lost(Lost.RESET)
        self.assertEqual(told, [Lost.RESET])
        self.assertIsNone(self.holding.heard)

    def test_lost_to_nobody(self) -> None:
        """
        A loss that nobody asked for is nothing.
        """
        self.holding.channel_lost(Lost.RESET)

    def test_pour(self) -> None:
        """
        The receiver gets it all, the channel flows, and nobody else is told.
        """
        self.holding.heard = lambda: self.fail("told")
        self.holding.heard = None
        self.holding.data_received(b"0123456789")
        self.holding.end_received()
        receiver = Received()
        self.holding.pour(receiver)
        self.assertEqual((receiver.data, receiver.events), (b"0123456789", ["end received"]))
        self.assertEqual(self.channel.calls, ["pause", "resume"])
        self.assertEqual(self.holding.held, b"")

    def test_pour_nothing(self) -> None:
        """
        Where nothing came the receiver hears nothing, and nothing is resumed.
        """
        receiver = Received()
        self.holding.pour(receiver)
        self.assertEqual((receiver.data, receiver.events), (b"", []))
        self.assertEqual(self.channel.calls, [])

    def test_another_bound(self) -> None:
        """
        The bound may be raised while something is awaited; once it is lowered
        below what is held, the channel is paused.
        """
        self.holding.bound(16)
        self.holding.data_received(b"0123456789")
        self.assertEqual(self.channel.calls, [])
        self.holding.bound(8)
        self.assertEqual(self.channel.calls, ["pause"])

    def test_replace(self) -> None:
        """
        What is for us alone does not go on; something else may, in its place.
        """
        for size, instead, left in (
            (0, b"", b"012345"),
            (2, b"", b"2345"),
            (6, b"", b""),
            (2, b"abc", b"abc2345"),
            (0, b"abc", b"abc012345"),
        ):
            holding = Holding(self.channel, 8)
            holding.data_received(b"012345")
            holding.replace(size, instead)
            self.assertEqual(holding.held, left)
            receiver = Received()
            holding.data_received(b"6")
            holding.pour(receiver)
            self.assertEqual(receiver.data, left + b"6")

    def test_replace_tells_nobody(self) -> None:
        """
        Nothing came in by that, and nothing is paused or resumed.
        """
        self.holding.data_received(b"0123456789")
        self.holding.heard = lambda: self.fail("told")
        self.holding.replace(10, b"a")
        self.assertEqual(self.channel.calls, ["pause"])
        self.holding.heard = None
        self.holding.pour(Received())
        self.assertEqual(self.channel.calls, ["pause", "resume"])

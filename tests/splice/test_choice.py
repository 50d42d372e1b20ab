"""
The fastest engine where it works, and the portable one by itself elsewhere.
"""

from __future__ import annotations

from zope.interface.verify import verifyObject

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.config.limits import Limits
from relaytunnel.interfaces import ISpliceEngine
from relaytunnel.splice import PairedEngine, PumpEngine, best_engine, choice
from relaytunnel.splice.paired import PairedSplice
from tests.channels import FakeChannel


class ChoiceTests(SynchronousTestCase):
    """
    Which engine is taken.
    """

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.edges = EdgeWatch(self.reactor)
        self.addCleanup(self.edges.close)

    def test_here(self) -> None:
        """
        Where descriptors can be watched and there is splice(2), the engine
        that owns its sockets is taken.
        """
        self.assertTrue(self.edges.works)
        engine = best_engine(self.edges)
        self.assertTrue(verifyObject(ISpliceEngine, engine))
        self.assertIsInstance(engine, PumpEngine)

    def test_no_descriptors(self) -> None:
        """
        A reactor that takes no descriptors, as those of Windows, gets the
        portable engine.
        """
        edges = EdgeWatch(object())
        self.assertFalse(edges.works)
        engine = best_engine(edges)
        self.assertTrue(verifyObject(ISpliceEngine, engine))
        self.assertIsInstance(engine, PairedEngine)

    def test_no_splice(self) -> None:
        """
        So does a platform without splice(2).
        """
        self.patch(choice, "can_splice", False)
        self.assertIsInstance(best_engine(self.edges), PairedEngine)

    def test_other_channels(self) -> None:
        """
        Channels without a socket to give away are joined by the portable one.
        """
        engine = PumpEngine(self.edges)
        splice = engine.join(FakeChannel(), FakeChannel(), Limits(), self.reactor)
        self.assertIsInstance(splice, PairedSplice)
        splice.close()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

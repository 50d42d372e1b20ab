"""
Watching the steps of the procedure.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.steps import happened, watch


class StepsTests(SynchronousTestCase):
    def test_watching(self) -> None:
        """
        A watcher is told of steps until it has had enough.
        """
        seen: list[tuple[str, str]] = []
        happened("S1", "before")
        stop = watch(lambda step, what: seen.append((step, what)))
        happened("S2", "while")
        stop()
        happened("S3", "behind")
        self.assertEqual(seen, [("S2", "while")])

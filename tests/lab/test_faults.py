"""
Relay and agent survive faults of the network and of processes: the short form
of C{python -m faults}, which has more of them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from twisted.trial.unittest import SynchronousTestCase

from faults.campaign import SHORT_LIMITS, Result, Terms, suffer, warm
from faults.injections import FAULTS, Fault, Scene
from faults.report import report
from faults.stack import Stack
from tests.lab.topology import unavailable

TERMS = Terms(seconds=1.0, quiet=8.0, patience=8.0, rate=20, scale=0.3, silence=0.5)

NAMES = ("loss-5", "rst-relay", "stop-agent", "kill-agent", "kill-server")
"""One of each sort, one after the other in the same processes."""


def _meets_nobody(scene: Scene) -> AbstractContextManager[None]:
    network = scene.stack.network
    return network.rule("tcp dport 1 drop", network.relay)


class FaultTests(SynchronousTestCase):
    """
    Sessions of all kinds, while something happens.
    """

    skip = unavailable()

    def test_faults(self) -> None:
        """
        No byte is lost on a clean close, no truncation looks like an end,
        nothing comes to somebody else, nothing is left behind, and the servers
        can be reached again.  A fault that did not happen is not survived.
        """
        chosen = {each.name: each for each in FAULTS if each.name in NAMES}
        results = []
        with Stack(limits=SHORT_LIMITS, patience=TERMS.patience) as stack:
            stack.start_relay()
            stack.start_server()
            stack.start_agent()
            start = warm(stack, ("--rate", 20, "--scale", 0.3, "--silence", 0.5))
            for name in NAMES:
                fault = chosen[name]
                result = Result(name, fault.title)
                suffer(fault, TERMS, stack, start, result)
                results.append(result)
            idle = Result("idle", "a rule that meets nobody")
            suffer(Fault("idle", idle.title, _meets_nobody), TERMS, stack, start, idle)
        self.assertTrue(all(each.good for each in results), f"\n{report(results)}")
        self.assertTrue(all(each.tally.survived for each in results), f"\n{report(results)}")
        self.assertEqual((idle.good, idle.broken), (False, "no packet was dropped or rejected"))

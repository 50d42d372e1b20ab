"""
Whether names below the relay's lead to it.
"""

from __future__ import annotations

import threading
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from relaytunnel.relay.wildcard import WildcardLookup
from tests.running import eventually

reactor = cast(Any, _reactor)


class WildcardTests(TestCase):
    """
    What the resolver says counts, and nobody waits for it.
    """

    def lookup(self, name: str, known: dict[str, str]) -> WildcardLookup:
        """
        Look names up in these.
        """
        self.asked: list[str] = []

        def resolve(host: str) -> frozenset[str]:
            self.asked.append(host)
            return frozenset(known[host].split()) if host in known else frozenset()

        lookup = WildcardLookup(reactor, name, resolve)
        self.addCleanup(lookup.stop)
        lookup.start()
        return lookup

    async def test_leads_here(self) -> None:
        """
        They do where a name below it has an address of the relay's own.
        """
        probe = "relaytunnel-probe.relay.example"
        lookup = self.lookup(
            "relay.example", {"relay.example": "192.0.2.1 2001:db8::1", probe: "2001:db8::1"}
        )
        await eventually(lambda: lookup.has_names_below("relay.example"), "it is known")
        for host in ("other.example", "192.0.2.1", "a.relay.example"):
            self.assertFalse(lookup.has_names_below(host))

    async def test_leads_elsewhere(self) -> None:
        """
        They do not where there is none, or another address.
        """
        probe = "relaytunnel-probe.relay.example"
        for known in (
            {"relay.example": "192.0.2.1"},
            {"relay.example": "192.0.2.1", probe: "198.51.100.1"},
            {probe: "198.51.100.1"},
        ):
            lookup = self.lookup("relay.example", known)
            await eventually(lambda at=lookup: at._next, "it is looked up")  # type: ignore[misc]
            self.assertFalse(lookup.has_names_below("relay.example"))

    def test_nothing_to_look_up(self) -> None:
        """
        Below an address there are no names; below C{localhost} all lead here.
        """
        for name in ("192.0.2.1", "2001:db8::1", "localhost"):
            lookup = self.lookup(name, {})
            self.assertEqual(self.asked, [])
            self.assertEqual(lookup.has_names_below(name), name == "localhost")
            self.assertTrue(lookup.has_names_below("localhost"))

    async def test_slow_resolver(self) -> None:
        """
        A resolver that does not answer holds up nothing, not even a stop.
        """
        gate = threading.Event()
        self.addCleanup(gate.set)

        def resolve(host: str) -> frozenset[str]:
            gate.wait()
            return frozenset({"192.0.2.1"})

        lookup = WildcardLookup(reactor, "relay.example", resolve)
        lookup.start()
        self.assertFalse(lookup.has_names_below("relay.example"))
        await cast(Any, lookup.stop())
        self.assertIsNone(lookup.stop())
        gate.set()

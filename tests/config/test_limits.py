"""
Tests of limits and their bounds.
"""

from __future__ import annotations

import msgspec

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.config.limits import LIMIT_KEYS, Limits
from relaytunnel.errors import ConfigError

MAY_BE_NOUGHT = {"sessions_per_relay", "penalty_auth", "penalty_none", "penalty_most"}


class LimitsTests(SynchronousTestCase):
    """
    Which limits are accepted.
    """

    def faults(self, **values: object) -> list[str]:
        error: ConfigError = self.assertRaises(ConfigError, Limits, **values)
        return error.faults

    def test_defaults(self) -> None:
        """
        The defaults are accepted, and some of them are those of the design.
        """
        limits = Limits()
        self.assertEqual((limits.handshake, limits.authentication), (5.0, 10.0))
        self.assertEqual((limits.held, limits.send_queue), (32 * 1024, 256 * 1024))
        self.assertEqual((limits.notify_rate, limits.notify_burst), (50.0, 100))
        self.assertEqual(
            (
                limits.unauthenticated_per_source,
                limits.unauthenticated_early,
                limits.unauthenticated,
            ),
            (16, 64, 512),
        )
        self.assertEqual(
            (limits.penalty_auth, limits.penalty_none, limits.penalty_most), (5.0, 1.0, 600.0)
        )

    def test_half_closed(self) -> None:
        """
        Whoever has said all may wait for the answer as long as anybody else.
        """
        self.assertEqual(Limits().half_closed, Limits().idle)

    def test_keys(self) -> None:
        """
        In files the names of limits have hyphens.
        """
        self.assertEqual(LIMIT_KEYS["waiting-per-server"], "waiting_per_server")
        self.assertEqual(
            {key: key.replace("-", "_") for key in LIMIT_KEYS},
            {key: name for key, name in LIMIT_KEYS.items() if hasattr(Limits(), name)},
        )

    def test_positive(self) -> None:
        """
        No limit may be less than zero, nor zero unless that switches it off;
        its bounds are named.
        """
        for key, name in LIMIT_KEYS.items():
            if name in MAY_BE_NOUGHT:
                Limits(**{name: 0})
            for value in (-1,) if name in MAY_BE_NOUGHT else (0, -1):
                faults = [f for f in self.faults(**{name: value}) if f"[limits] {key}: " in f]
                self.assertEqual(len(faults), 1)
                self.assertRegex(faults[0], rf"{value} is not from (0|1|0\.01) to \d+$")

    def test_too_large(self) -> None:
        """
        No limit may be beyond all sense, or not a number at all.
        """
        for name in LIMIT_KEYS.values():
            self.faults(**{name: 10**9})
        self.faults(idle=float("inf"))
        self.faults(idle=float("nan"))

    def test_types(self) -> None:
        """
        Counts are whole numbers, times any number; booleans are neither.
        """
        self.assertEqual(
            self.faults(waiting_per_server=1.5, idle="1", held=True),
            [
                "[limits] waiting-per-server: expected a whole number, given a number",
                "[limits] held: expected a whole number, given a boolean",
                "[limits] idle: expected a number, given a string",
            ],
        )

    def test_whole_seconds(self) -> None:
        """
        Seconds given as a whole number become a float.
        """
        self.assertIsInstance(Limits(idle=60).idle, float)

    def test_dead_after_ping(self) -> None:
        """
        A control channel cannot count as lost before its next ping is due.
        """
        self.assertEqual(
            self.faults(ping=15, dead=15), ["[limits] dead: 15 is not longer than ping (15)"]
        )
        Limits(ping=0.1, dead=0.2)

    def test_frozen(self) -> None:
        """
        Limits do not change; one changes by way of a copy, which is checked.
        """
        limits = Limits()
        self.assertRaises(AttributeError, setattr, limits, "idle", 1.0)
        self.assertEqual(msgspec.structs.replace(limits, idle=1).idle, 1.0)
        self.assertRaises(ConfigError, msgspec.structs.replace, limits, idle=-1)

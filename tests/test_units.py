"""
The units for systemd that the documentation shows.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

UNITS = Path(__file__).resolve().parent.parent / "doc" / "systemd"
_PATTERN = re.compile(r"Overall exposure level for .*: ([0-9.]+)")


class UnitTests(SynchronousTestCase):
    """
    Both of them.
    """

    def read(self, plugin: str) -> str:
        return (UNITS / f"relaytunnel-{plugin}.service").read_text()

    def test_start(self) -> None:
        """
        They start the plugin in the foreground, and reload it by SIGHUP.
        """
        for plugin in ("relay", "agent"):
            unit = self.read(plugin)
            self.assertIn(f"twistd --nodaemon --pidfile= {plugin} --config", unit)
            self.assertIn("ExecReload=/bin/kill -HUP $MAINPID", unit)

    def test_writable_code(self) -> None:
        """
        Neither forbids what the TLS library cannot do without.
        """
        for plugin in ("relay", "agent"):
            self.assertNotIn("\nMemoryDenyWriteExecute", self.read(plugin))

    def test_exposure(self) -> None:
        """
        systemd rates their exposure as the documentation says.
        """
        if shutil.which("systemd-analyze") is None:
            self.skipTest("systemd-analyze is not installed")
        text = (UNITS.parent / "security.rst").read_text()
        told = re.search(r"rates the relay's with ([0-9.]+) and the agent's with ([0-9.]+)", text)
        assert told is not None
        for plugin, expected in zip(("relay", "agent"), told.groups(), strict=True):
            unit = UNITS / f"relaytunnel-{plugin}.service"
            done = subprocess.run(
                ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
                capture_output=True,
                text=True,
                check=False,
            )
            found = _PATTERN.search(done.stdout)
            assert found is not None, done
            self.assertLessEqual(float(found[1]), float(expected) + 0.2, plugin)

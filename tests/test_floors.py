"""
The house has floors: a module imports only from its own floor or below.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent / "relaytunnel"

FLOORS: dict[str, int] = {
    "relaytunnel": 0,
    "relaytunnel.budgets": 1,
    "relaytunnel.deadlines": 0,
    "relaytunnel.errors": 0,
    "relaytunnel.interfaces": 0,
    "relaytunnel.pools": 0,
    "relaytunnel.ratelimited": 0,
    "relaytunnel.sources": 0,
    "relaytunnel.steps": 0,
    "relaytunnel.guarding": 0,
    "relaytunnel.machines": 0,
    "relaytunnel.wire": 1,
    "relaytunnel.arrival": 1,
    "relaytunnel.config": 1,
    "relaytunnel.relay": 2,
    "relaytunnel.relay.admission": 2,
    "relaytunnel.relay.awaymemory": 2,
    "relaytunnel.relay.fairqueue": 2,
    "relaytunnel.relay.keptports": 2,
    "relaytunnel.relay.rates": 2,
    "relaytunnel.relay.claims": 2,
    "relaytunnel.relay.registry": 2,
    "relaytunnel.relay.waiting": 2,
    "relaytunnel.relay.publishing": 2,
    "relaytunnel.relay.finding": 2,
    "relaytunnel.relay.choices": 2,
    "relaytunnel.relay.visits": 2,
    "relaytunnel.relay.agents": 2,
    "relaytunnel.agent": 2,
    "relaytunnel.agent.backoff": 2,
    "relaytunnel.agent.servers": 2,
    "relaytunnel.agent.session": 2,
    "relaytunnel.agent.visit": 2,
    "relaytunnel.channel": 3,
    "relaytunnel.splice": 3,
    "relaytunnel.accounts": 3,
    "relaytunnel.relay.balancers": 4,
    "relaytunnel.relay.client": 4,
    "relaytunnel.relay.clients": 4,
    "relaytunnel.relay.control": 4,
    "relaytunnel.relay.data": 4,
    "relaytunnel.relay.expecting": 4,
    "relaytunnel.relay.inheriting": 4,
    "relaytunnel.relay.inviting": 4,
    "relaytunnel.relay.listener": 4,
    "relaytunnel.relay.listening": 4,
    "relaytunnel.relay.locking": 4,
    "relaytunnel.relay.prelude": 4,
    "relaytunnel.relay.rechecking": 4,
    "relaytunnel.relay.reloading": 4,
    "relaytunnel.relay.requests": 4,
    "relaytunnel.relay.service": 4,
    "relaytunnel.relay.state": 4,
    "relaytunnel.relay.wildcard": 4,
    "relaytunnel.agent.channels": 4,
    "relaytunnel.agent.control": 4,
    "relaytunnel.agent.joining": 4,
    "relaytunnel.agent.local": 4,
    "relaytunnel.agent.service": 4,
    "relaytunnel.agent.targets": 4,
    "relaytunnel.agent.visits": 4,
    "relaytunnel.admin": 4,
    "relaytunnel.draining": 4,
    "relaytunnel.__main__": 5,
    "relaytunnel.tap": 5,
    "relaytunnel.account_commands": 5,
    "relaytunnel.cli": 5,
    "relaytunnel.terminal": 1,
    "relaytunnel.commands": 5,
    "relaytunnel.demo": 5,
    "relaytunnel.passwords": 5,
    "relaytunnel.visiting": 5,
}
"""A package stands for all its modules, but for those that are named."""

PURE_TWISTED = {"twisted.internet.interfaces", "twisted.logger"}
"""All that floors 0 to 2 may import from Twisted."""

REACTOR_FLOOR = 5
"""Only here may the global reactor be imported."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        parts = ["relaytunnel", *path.relative_to(ROOT).with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        yield ".".join(parts), ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """
    Yield the module and the name of each import, wherever in the file it is.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute here"
            for alias in node.names:
                yield node.module or "", alias.name


def floor_of(module: str) -> int | None:
    while module:
        if module in FLOORS:
            return FLOORS[module]
        module = module.rpartition(".")[0]
    return None


def own_floor(module: str, name: str) -> int:
    """
    @return: the floor of what C{from module import name} imports.
    """
    found = floor_of(f"{module}.{name}") if f"{module}.{name}" in FLOORS else floor_of(module)
    assert found is not None
    return found


class FloorsTests(SynchronousTestCase):
    def test_every_module_has_a_floor(self) -> None:
        """
        No module of the two split packages, and none of the top level, is
        without a floor of its own.
        """
        known = {name for name, _ in modules()}
        for module in known:
            parent = module.rpartition(".")[0]
            if parent in ("relaytunnel.relay", "relaytunnel.agent") or parent == "relaytunnel":
                self.assertIn(module, FLOORS)
        self.assertEqual(set(FLOORS) - known, set(), "floors of modules that are not there")

    def test_nobody_climbs(self) -> None:
        """
        What a module imports is on its own floor or below.
        """
        climbs = [
            f"{module} (floor {floor_of(module)}) imports {name} of {source}"
            for module, tree in modules()
            for source, name in imported(tree)
            if source.partition(".")[0] == "relaytunnel"
            and own_floor(source, name) > (floor_of(module) or 0)
        ]
        self.assertEqual(climbs, [])

    def test_relay_and_agent_are_strangers(self) -> None:
        """
        The relay imports nothing of the agent, nor the agent of the relay.
        """
        for module, tree in modules():
            for source, _ in imported(tree):
                if module.startswith("relaytunnel.relay"):
                    self.assertFalse(source.startswith("relaytunnel.agent"), module)
                elif module.startswith("relaytunnel.agent"):
                    self.assertFalse(source.startswith("relaytunnel.relay"), module)

    def test_the_core_does_no_io(self) -> None:
        """
        Floors 0 to 2 take from Twisted only interfaces and the logger, and
        neither sockets nor threads nor processes from anywhere.
        """
        forbidden = {"socket", "select", "threading", "subprocess", "asyncio", "ssl", "OpenSSL"}
        for module, tree in modules():
            if (floor_of(module) or 0) > 2:
                continue
            for source, _ in imported(tree):
                top = source.partition(".")[0]
                self.assertNotIn(top, forbidden, module)
                if top == "twisted":
                    self.assertIn(source, PURE_TWISTED, module)

    def test_the_reactor_is_a_parameter(self) -> None:
        """
        Nothing below the top floor imports the global reactor.
        """
        for module, tree in modules():
            for source, name in imported(tree):
                if (source, name) == ("twisted.internet", "reactor"):
                    self.assertEqual(floor_of(module), REACTOR_FLOOR, module)

    def test_packages_of_the_plugins_stay_open(self) -> None:
        """
        C{twisted} and C{twisted/plugins} have no C{__init__}, which would hide
        Twisted itself.
        """
        plugins = ROOT.parent / "twisted"
        self.assertEqual([str(path) for path in plugins.rglob("__init__.py")], [])

"""
State machines whose transitions stand in a table do what Automat's do.
"""

from __future__ import annotations

from typing import Protocol

from automat import NoTransition, TypeMachineBuilder, pep614

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.machines import build


class Turnstile(Protocol):
    """
    Lets through who has paid.
    """

    def pay(self) -> None:
        """A coin."""

    def push(self) -> None:
        """Somebody wants through."""


class _Core:
    def __init__(self) -> None:
        self.record: list[str] = []


def _builder() -> TypeMachineBuilder[Turnstile, _Core]:
    builder = TypeMachineBuilder(Turnstile, _Core)
    Locked = builder.state("Locked")
    Open = builder.state("Open")

    @pep614(Locked.upon(Turnstile.pay).to(Open))
    def unlock(turnstile: Turnstile, core: _Core) -> None:
        core.record.append("unlocked")

    @pep614(Open.upon(Turnstile.push).to(Locked))
    def pass_through(turnstile: Turnstile, core: _Core) -> None:
        core.record.append("passed")

    return builder


class BuildTests(SynchronousTestCase):
    """
    A machine with two states.
    """

    def setUp(self) -> None:
        self.make = build(_builder())

    def test_transitions(self) -> None:
        """
        Each input leads where it says, the second time as the first.
        """
        core = _Core()
        turnstile = self.make(core)
        for _ in range(3):
            turnstile.pay()
            turnstile.push()
        self.assertEqual(core.record, ["unlocked", "passed"] * 3)

    def test_no_transition(self) -> None:
        """
        What a state does not take is told so, each time.
        """
        turnstile = self.make(_Core())
        for _ in range(2):
            self.assertRaises(NoTransition, turnstile.push)

    def test_machines_are_apart(self) -> None:
        """
        One machine knows nothing of another's state, nor one kind of another.
        """
        first, second, other = _Core(), _Core(), _Core()
        one, two, third = self.make(first), self.make(second), build(_builder())(other)
        one.pay()
        self.assertRaises(NoTransition, two.push)
        self.assertRaises(NoTransition, third.push)
        one.push()
        self.assertEqual((first.record, second.record), (["unlocked", "passed"], []))

"""
A session that fails by our own fault ends alone.

What raises in the midst of a session would take along whoever called: a
control channel with all of an agent's servers, a data channel, a timer that
others share.  And what the session had, it would keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from twisted.logger import Logger

__all__ = ["attempt_all", "guarded"]

M = TypeVar("M")

_log = Logger()


class _Guard:
    """
    A machine, and what to do when an input of it raises.  From then on its
    inputs do nothing.
    """

    __slots__ = ("_failed", "_machine")

    def __init__(self, machine: object, failed: Callable[[], None]) -> None:
        self._machine: object | None = machine
        self._failed: Callable[[], None] | None = failed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine, name) if name.startswith("__") else _Input(self, name)

    def put(self, name: str, inputs: tuple[Any, ...]) -> None:
        """
        Give the machine this input.
        """
        machine = self._machine
        if machine is None:
            return
        try:
            getattr(machine, name)(*inputs)
        except Exception:
            failed, self._machine, self._failed = self._failed, None, None
            if failed is not None:
                failed()


class _Input:
    """
    One input of a guarded machine.  Two of the same are equal.
    """

    __slots__ = ("_guard", "_name")

    def __init__(self, guard: _Guard, name: str) -> None:
        self._guard = guard
        self._name = name

    def __call__(self, *inputs: Any) -> None:
        self._guard.put(self._name, inputs)


def guarded(machine: M, failed: Callable[[], None]) -> M:
    """
    @param failed: called once, while the exception of the first input that
        raises is handled.
    @return: the machine, of which no input raises.
    """
    return cast("M", _Guard(machine, failed))


def attempt_all(steps: Iterable[Callable[[], object]]) -> None:
    """
    Take all steps, also those behind one that raises, which is logged.
    """
    for step in steps:
        try:
            step()
        except Exception:
            _log.failure("a session that failed could not let go of everything")

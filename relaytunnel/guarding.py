"""
A session that fails by our own fault ends alone.

What raises in the midst of a session would take along whoever called: a
control channel with all of an agent's servers, a data channel, a timer that
others share.  And what the session had, it would keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
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
        return getattr(self._machine, name)  # what is no input

    def fail(self) -> None:
        """
        An input has raised.
        """
        failed, self._machine, self._failed = self._failed, None, None
        if failed is not None:
            failed()


def _input(name: str) -> Callable[..., None]:
    def put(self: _Guard, *inputs: Any) -> None:
        machine = self._machine
        if machine is not None:
            try:
                getattr(machine, name)(*inputs)
            except Exception:
                self.fail()

    return put


@cache
def _kind(inputs: type) -> type[_Guard]:
    """
    @return: guards of machines with these inputs.  A session has one, so that
        its inputs are methods, and not looked for each time.
    """
    names = [name for name, what in vars(inputs).items() if callable(what) and name[0] != "_"]
    return type(
        f"Guarded{inputs.__name__}",
        (_Guard,),
        {"__slots__": (), **{name: _input(name) for name in names}},
    )


def guarded(inputs: Any, machine: M, failed: Callable[[], None]) -> M:
    """
    @param inputs: the protocol of the machine's inputs.
    @param failed: called once, while the exception of the first input that
        raises is handled.
    @return: the machine, of which no input raises.
    """
    return cast("M", _kind(inputs)(machine, failed))


def attempt_all(steps: Iterable[Callable[[], object]]) -> None:
    """
    Take all steps, also those behind one that raises, which is logged.
    """
    for step in steps:
        try:
            step()
        except Exception:
            _log.failure("a session that failed could not let go of everything")

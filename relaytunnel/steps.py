"""
The steps of the procedure, S1 to S20, as they happen in this process.

Nobody watches unless somebody asks: the demo does, to show them with times.
The steps are those of the architecture in the documentation, with the figures
and claims of JP 2001-356973 A behind them.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Step", "happened", "watch"]

Step = Callable[[str, str], None]

_watchers: list[Step] = []


def watch(watcher: Step) -> Callable[[], None]:
    """
    Be told of each step from now on: its name and what happened.

    @return: call it to be told no more.
    """
    _watchers.append(watcher)
    return lambda: _watchers.remove(watcher)


def happened(step: str, what: str) -> None:
    """
    A step has happened.
    """
    for watcher in _watchers:
        watcher(step, what)

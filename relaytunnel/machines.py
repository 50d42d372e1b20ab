"""
State machines of Automat, with their transitions in a table.

Automat looks for a transition by walking through all of them, at each input.
A machine has some thirty; a session has several inputs; to find each at once
makes the machines of a session several times as fast.
"""

from __future__ import annotations

from typing import Any, TypeVar

from automat import TypeMachineBuilder

__all__ = ["build"]

M = TypeVar("M")
C = TypeVar("C")


def build(builder: TypeMachineBuilder[M, C]) -> Any:
    """
    @return: what C{builder.build()} returns: it makes machines from a core.
    """
    machine = builder.build()
    automaton: Any = machine.__automat_automaton__
    walk = automaton.outputForInput
    table: dict[tuple[int, str], Any] = {}

    def look_up(state: object, symbol: str) -> Any:
        key = (id(state), symbol)  # states are compared field by field, and live as long
        found = table.get(key)
        if found is None:
            found = table[key] = walk(state, symbol)
        return found

    automaton.outputForInput = look_up
    return machine

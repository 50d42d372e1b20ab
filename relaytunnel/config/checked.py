"""
What all configured values have in common: they check themselves when made.

The values are in C{model} and C{server}; which form a name has, in C{names}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

__all__ = ["Checked", "each", "once"]

T = TypeVar("T")


class Checked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    A frozen value whose C{__post_init__} settles its fields one by one.
    """

    def settle(
        self, faults: list[str], field: str, place: str, parse: Callable[[Any], object]
    ) -> None:
        """
        Replace a field by its canonical form, or keep a fault about it.
        """
        try:
            msgspec.structs.force_setattr(self, field, parse(getattr(self, field)))
        except ValueError as error:
            faults.append(f"{place}: {error}")


def each(parse: Callable[[Any], T]) -> Callable[[Iterable[Any]], tuple[T, ...]]:
    """
    Make of a parser for one text a parser for several.
    """
    return lambda texts: tuple(parse(text) for text in texts)


def once(values: Iterable[object], place: str) -> list[str]:
    """
    Make a fault of each value that stands there again.
    """
    texts = [str(value) for value in values]
    again = {text: None for at, text in enumerate(texts) if text in texts[:at]}
    return [f"{place}: '{text}' is given twice" for text in again]

"""
Reading one table of a parsed file, and keeping every fault on the way.

A value that is not accepted leaves a line in the list of faults, and a
stand-in takes its place so that reading goes on; whoever reads raises
L{relaytunnel.errors.ConfigError} in the end if there is any line.  Which keys
there are, and what they mean, is known to C{load} alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import TypeVar

from relaytunnel.config.names import shown

__all__ = ["Table", "given", "key_shown", "nearest"]

T = TypeVar("T")

_KINDS: dict[type, str] = {
    bool: "a boolean",
    str: "a string",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a table",
}
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")


def given(value: object) -> str:
    """
    Say in the words of TOML what kind of value this is.
    """
    return _KINDS.get(type(value), "a date or time")


def key_shown(key: str) -> str:
    """
    Write a key as it stands in a file; quoted if it has unusual characters.
    """
    return key if _BARE_KEY.fullmatch(key) else shown(key)


def nearest(key: str, known: Iterable[str]) -> str | None:
    """
    Find the known key that was meant, probably.
    """
    near = get_close_matches(key[:80].lower().replace("_", "-"), list(known), n=1)
    return near[0] if near else None


class Table:
    """
    One table, read key by key.

    @ivar place: file and table, as every fault begins.
    @ivar faults: where the lines go; shared by all tables of a file.
    """

    def __init__(self, values: dict[str, object], place: str, faults: list[str]) -> None:
        self._values = values
        self.place = place
        self.faults = faults

    def fault(self, key: str, reason: object) -> None:
        """
        Keep a line about one key.
        """
        self.faults.append(f"{self.place} {key_shown(key)}: {reason}")

    def only(self, *known: str) -> None:
        """
        Keep a line about each key that is none of these.
        """
        for key in self._values:
            if key not in known:
                near = nearest(key, known)
                hint = f"; did you mean '{near}'?" if near else ""
                self.fault(key, f"unknown key{hint}")

    def has(self, key: str) -> bool:
        """
        Tell whether the key is there, whatever its value.
        """
        return key in self._values

    def text(self, key: str, parse: Callable[[str], T], otherwise: T, must: bool = False) -> T:
        """
        Read a string.

        @param parse: makes of it what it stands for, or raises C{ValueError}.
        @param otherwise: the default, and the stand-in for a faulty value.
        @param must: whether it is a fault if the key is not there.
        """
        if key not in self._values:
            if must:
                self.fault(key, "missing")
            return otherwise
        value = self._values[key]
        if not isinstance(value, str):
            self.fault(key, f"expected a string, given {given(value)}")
            return otherwise
        try:
            return parse(value)
        except ValueError as error:
            self.fault(key, error)
            return otherwise

    def flag(self, key: str, otherwise: bool = False) -> bool:
        """
        Read a boolean.
        """
        value = self._values.get(key, otherwise)
        if not isinstance(value, bool):
            self.fault(key, f"expected a boolean, given {given(value)}")
            return otherwise
        return value

    def whole(self, key: str, otherwise: int) -> int:
        """
        Read a whole number.
        """
        value = self._values.get(key, otherwise)
        if isinstance(value, bool) or not isinstance(value, int):
            self.fault(key, f"expected a whole number, given {given(value)}")
            return otherwise
        return value

    def pairs(
        self, key: str, parse_name: Callable[[str], str], parse: Callable[[str], str]
    ) -> tuple[tuple[str, str], ...]:
        """
        Read a table of names, each with a string; a faulty pair has a line and
        is left out.
        """
        values = self._values.get(key, {})
        if not isinstance(values, dict):
            self.fault(key, f"expected a table, given {given(values)}")
            return ()
        read = []
        for name, value in values.items():
            try:
                if not isinstance(value, str):
                    raise ValueError(f"expected a string, given {given(value)}")
                read.append((parse_name(name), parse(value)))
            except ValueError as error:
                self.fault(key, f"{shown(name)}: {error}")
        return tuple(read)

    def items(
        self, key: str, read: Callable[[str | Table], T], otherwise: tuple[T, ...]
    ) -> tuple[T, ...]:
        """
        Read a list of strings and tables; each faulty one has a line and is
        left out.
        """
        if key not in self._values:
            return otherwise
        value = self._values[key]
        if not isinstance(value, list):
            self.fault(key, f"expected a list of strings or tables, given {given(value)}")
            return otherwise
        found = []
        for number, item in enumerate(value, 1):
            if not isinstance(item, (str, dict)):
                self.fault(key, f"expected a list of strings or tables, given {given(item)} in it")
                continue
            place = f"{self.place} {key_shown(key)} number {number}:"
            try:
                found.append(
                    read(item if isinstance(item, str) else Table(item, place, self.faults))
                )
            except ValueError as error:
                self.fault(key, error)
        return tuple(found) if found or not value else otherwise

    def texts(
        self, key: str, parse: Callable[[str], T], otherwise: tuple[T, ...], single: bool = False
    ) -> tuple[T, ...]:
        """
        Read a list of strings; each faulty one has a line and is left out.

        @param single: whether one string may stand for a list of it.
        """
        if key not in self._values:
            return otherwise
        value = self._values[key]
        if single and isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            expected = "a string or a list of strings" if single else "a list of strings"
            self.fault(key, f"expected {expected}, given {given(value)}")
            return otherwise
        read = []
        for item in value:
            if not isinstance(item, str):
                self.fault(key, f"expected a list of strings, given {given(item)} in it")
                continue
            try:
                read.append(parse(item))
            except ValueError as error:
                self.fault(key, error)
        return tuple(read) if read or not value else otherwise

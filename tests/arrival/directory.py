"""
What the clients of these tests may know of the servers.
"""

from __future__ import annotations

from relaytunnel.arrival import Choice
from relaytunnel.errors import Code, Failing

__all__ = ["Servers"]


class Servers:
    """
    A directory that lists some servers, has others, and knows why the rest
    cannot be had.
    """

    def __init__(
        self,
        *listed: str | Choice,
        unlisted: tuple[str, ...] = (),
        refused: dict[str, Failing] | None = None,
        names_below: tuple[str, ...] = (),
    ) -> None:
        """
        @param listed: those that everybody may know of.
        @param unlisted: those that can be had by those who know their names.
        @param refused: why others cannot be had.
        @param names_below: the hosts below which each server has a name.
        """
        self._listed = [Choice(each) if isinstance(each, str) else each for each in listed]
        self._known = {choice.connection_id for choice in self._listed} | set(unlisted)
        self._refused = refused or {}
        self._names_below = names_below

    def listed(self) -> list[Choice]:
        """
        Those that everybody may know of.
        """
        return self._listed

    def refuses(self, connection_id: str) -> Failing | None:
        """
        What was given, or that there is no such server.
        """
        if connection_id in self._refused:
            return self._refused[connection_id]
        if connection_id in self._known:
            return None
        return Failing(Code.NO_SUCH_SERVER, f"no server is published as {connection_id}")

    def remember(self, connection_id: str) -> str | None:
        """
        Signed with one word: what is signed how is no business of these.
        """
        return f"signed.{connection_id}" if len(connection_id) < 240 else None

    def remembered(self, token: str) -> str | None:
        """
        What was signed with that word.
        """
        return token.removeprefix("signed.") if token.startswith("signed.") else None

    def has_names_below(self, host: str) -> bool:
        """
        As it was given.
        """
        return host in self._names_below

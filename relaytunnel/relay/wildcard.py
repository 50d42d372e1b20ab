"""
Whether names below the relay's own lead to it, as the resolver says.

A choice leads to C{ID.NAME} where they do, and each server has an origin of its
own then.  Nobody waits for the resolver: it is asked once in a while, and what
it said last counts.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from relaytunnel.accounts.threads import Threads

__all__ = ["WildcardLookup"]

_LOCALHOST = "localhost"
_PROBE = "relaytunnel-probe"
"""Any label will do where every one leads to the relay."""

_EVERY = 600.0
"""Seconds between two lookups."""

_STOPPING_TIME = 0.05
"""Seconds for which a stop waits for the resolver."""


def _addresses(host: str) -> frozenset[str]:
    """
    Ask the system's resolver; blocks.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return frozenset()
    return frozenset(str(each[4][0]) for each in found)


class WildcardLookup:
    """
    Looks the relay's name up, and a name below it, while it runs.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        resolve: Callable[[str], frozenset[str]] = _addresses,
    ) -> None:
        """
        @param name: the relay's.
        @param resolve: finds the addresses of a host; called in a thread.
        """
        self._reactor = reactor
        self._name = name
        self._resolve = resolve
        self._leads_here = False
        self._threads: Threads | None = None
        self._next: IDelayedCall | None = None

    def has_names_below(self, host: str) -> bool:
        """
        Whether every name below this host leads to this relay.  Below
        C{localhost} each does (RFC 6761, 6.3).

        @param host: one of the relay's own, as a client has named it.
        """
        return host == _LOCALHOST or (host == self._name and self._leads_here)

    def start(self) -> None:
        """
        Look, and again from time to time, if the name is one to look up.
        """
        if self._name == _LOCALHOST or _is_address(self._name):
            return
        self._threads = Threads(self._reactor, 1, "resolver", _STOPPING_TIME)
        self._look()

    def stop(self) -> Deferred[None] | None:
        """
        @return: fires when nothing is looked up any more.
        """
        if self._next is not None:
            self._next.cancel()
            self._next = None
        threads, self._threads = self._threads, None
        return None if threads is None else threads.close()

    def _look(self) -> None:
        assert self._threads is not None
        self._next = None
        self._threads.run(self._compare).addBoth(self._found)

    def _compare(self) -> bool:
        own = self._resolve(self._name)
        return bool(own & self._resolve(f"{_PROBE}.{self._name}")) if own else False

    def _found(self, result: bool | Failure) -> None:
        if self._threads is not None:
            self._leads_here = result is True
            self._next = self._reactor.callLater(_EVERY, self._look)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True

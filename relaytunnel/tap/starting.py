"""
What both plugins share: a service whose refusal to start is told in one line.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import Any

from twisted.application.service import IService, MultiService

from relaytunnel.errors import RelayTunnelError

__all__ = ["Told", "own_pid_file", "to_terminal"]

_TWISTD_DEFAULT = "twistd.pid"


class Told(MultiService):
    """
    Starts a service, and turns an error that we raise on purpose into the
    last line that C{twistd} prints, with exit code 1.
    """

    def __init__(self, name: str, service: IService) -> None:
        super().__init__()
        self._name = name
        self.addService(service)

    def startService(self) -> None:
        try:
            super().startService()
        except RelayTunnelError as fault:
            raise SystemExit(f"{self._name}: {fault}") from None


def to_terminal(text: str) -> None:
    """
    Show a text to whoever started this process, past the log.
    """
    if sys.__stdout__ is not None:
        sys.__stdout__.write(text)
        sys.__stdout__.flush()


def own_pid_file(parent: MutableMapping[str, Any] | None, name: str) -> None:
    """
    Let a relay and an agent run from one directory: C{twistd} gives both the
    same file for their process number, unless it is told otherwise.

    @param parent: the options of C{twistd} itself.
    """
    if parent is not None and parent.get("pidfile") == _TWISTD_DEFAULT:
        parent["pidfile"] = f"twistd-{name}.pid"

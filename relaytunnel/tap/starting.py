"""
What both plugins share: a service whose refusal to start is told in one line.
"""

from __future__ import annotations

import sys

from twisted.application.service import IService, MultiService

from relaytunnel.errors import RelayTunnelError

__all__ = ["Told", "to_terminal"]


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

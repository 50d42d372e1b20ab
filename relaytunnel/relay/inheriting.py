"""
The listening sockets that one relay process leaves to the next.

A socket that is passed on is never closed in between: who connects meanwhile
waits in its queue.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

import msgspec

from twisted.internet.interfaces import IListeningPort, IProtocolFactory

from relaytunnel.errors import StateError

__all__ = ["Inheritance", "adopt"]


class Inheritance(msgspec.Struct, kw_only=True):
    """
    What a process finds when it is to take over from another.

    @ivar shared: the descriptors of the ports that clients dial, by endpoint.
    @ivar other: those of the agents' port and the admin interface.
    @ivar own: those of the ports that servers have, by number.
    @ivar agents: the agents that were present, and will come back.
    """

    shared: dict[str, int] = {}
    other: dict[str, int] = {}
    own: dict[int, int] = {}
    agents: tuple[str, ...] = ()

    def descriptors(self) -> list[int]:
        """
        @return: all of them.
        """
        return [*self.shared.values(), *self.other.values(), *self.own.values()]

    def close(self) -> None:
        """
        Close those that nobody has taken.
        """
        for left in (self.shared, self.other, self.own):
            for descriptor in left.values():
                with contextlib.suppress(OSError):
                    os.close(descriptor)
            left.clear()


def adopt(reactor: Any, descriptor: int, factory: IProtocolFactory) -> IListeningPort:
    """
    Listen with a socket that another process has opened, and close the
    descriptor that it came as.

    @return: a port that is not read from yet.
    @raise StateError: it is no such socket.
    """
    try:
        with socket.socket(fileno=descriptor) as sock:
            port: IListeningPort = reactor.adoptStreamPort(descriptor, sock.family, factory)
    except OSError as fault:
        raise StateError(f"a socket that was left to this process is of no use: {fault}") from None
    port.stopReading()  # type: ignore[attr-defined]
    return port

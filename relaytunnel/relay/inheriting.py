"""
The listening sockets that one relay process leaves to the next.

A socket that is passed on is never closed in between: who connects meanwhile
waits in its queue.  One of the UNIX domain has a name and a lock besides, which
the process removes that has the socket last.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Collection
from typing import Any

import msgspec

from twisted.internet import unix
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.python.lockfile import FilesystemLock

from relaytunnel.errors import StateError

__all__ = ["Inheritance", "adopt", "let_go", "path_of", "take_name"]


class Inheritance(msgspec.Struct, kw_only=True):
    """
    What a process finds when it is to take over from another.

    @ivar shared: the descriptors of the ports that clients dial, by endpoint.
    @ivar other: those of the agents' port and the admin interface.
    @ivar own: those of the ports that servers have, by number.
    @ivar agents: the agents that were present, and will come back.
    @ivar known: from where agents have come lately, and for how many seconds
        that counts.
    @ivar lock: the descriptor that holds the lock of the state directory; -1
        from a process that had none.
    """

    shared: dict[str, int] = {}
    other: dict[str, int] = {}
    own: dict[int, int] = {}
    agents: tuple[str, ...] = ()
    known: dict[str, float] = {}
    lock: int = -1

    def descriptors(self) -> list[int]:
        """
        @return: all of them.
        """
        lock = [] if self.lock < 0 else [self.lock]
        return [*self.shared.values(), *self.other.values(), *self.own.values(), *lock]

    def close(self, forever: bool, kept: Collection[str] = ()) -> None:
        """
        Close those that nobody has taken.

        @param forever: whether no other process has them, either, so that
            their names go, too.
        @param kept: names that stay: others have them by now.
        """
        for left in (self.shared, self.other, self.own):
            for descriptor in left.values():
                with contextlib.suppress(OSError), socket.socket(fileno=descriptor) as sock:
                    path = _path(sock.getsockname()) if forever else ""
                    if path and path not in kept:
                        _remove(path)
            left.clear()


def adopt(reactor: Any, descriptor: int, factory: IProtocolFactory) -> IListeningPort:
    """
    Listen with a socket that another process has opened, and close the
    descriptor that it came as.

    @return: a port that is not read from yet.
    @raise StateError: it is no such socket.
    """
    port: IListeningPort
    try:
        with socket.socket(fileno=descriptor) as sock:
            if sock.family == socket.AF_UNIX:
                port = _adopt_local(reactor, sock, factory)
            else:
                port = reactor.adoptStreamPort(descriptor, sock.family, factory)
    except OSError as fault:
        raise StateError(f"a socket that was left to this process is of no use: {fault}") from None
    port.stopReading()  # type: ignore[union-attr]
    return port


def _adopt_local(reactor: Any, sock: socket.socket, factory: IProtocolFactory) -> unix.Port:
    # The reactor's own adoptStreamPort would let everybody in from then on.  It
    # listens again, too, which sets how long the queue of both processes is.
    name = sock.getsockname()
    path = _path(name)
    mode = stat.S_IMODE(os.stat(path).st_mode) if path else 0
    port = unix.Port(name, factory, backlog=socket.SOMAXCONN, mode=mode, reactor=reactor)
    port._preexistingSocket = ours = sock.dup()
    ours.setblocking(False)
    port.startListening()
    return port


def take_name(port: IListeningPort) -> None:
    """
    The socket of this port is this process's alone from now on: so are its
    name and its lock, if it has some.
    """
    path = path_of(port)
    if path and os.path.islink(f"{path}.lock"):
        lock = FilesystemLock(f"{path}.lock")
        ours = f"{path}.lock.{os.getpid()}"
        with contextlib.suppress(OSError):  # then it stays as it is, and is found stale
            os.symlink(str(os.getpid()), ours)
            os.replace(ours, lock.name)
            lock.locked = True
            port.lockFile = lock  # type: ignore[attr-defined]


def path_of(port: IListeningPort) -> str:
    """
    @return: where a port of the UNIX domain is found; empty for any other.
    """
    return _path(port.getHost().name) if isinstance(port, unix.Port) else ""


def let_go(port: IListeningPort) -> bool:
    """
    Close a socket of the UNIX domain that another process has, too, and leave
    its name there.

    @return: whether it is one; others are stopped as ever.
    """
    if not isinstance(port, unix.Port):
        return False
    port.stopReading()
    port.socket.close()
    return True


def _path(name: str | bytes) -> str:
    """
    @return: where a socket of this name is found; empty if it is nowhere in the
        file system.
    """
    if not isinstance(name, (str, bytes)):
        return ""  # of TCP
    path = os.fsdecode(name)
    return "" if path.startswith("\0") else path


def _remove(path: str) -> None:
    for name in (path, f"{path}.lock"):
        with contextlib.suppress(OSError):
            os.unlink(name)

"""
One relay process that hands over to the next: what passes between the two.

The old one starts the new one as its child, with its listening sockets, a
channel, and a file without a name that says which is which.  The new one says
C{ready}, the old one C{go} when it accepts nobody any more, and the new one
C{accepting}.  What becomes of clients and agents meanwhile is up to the
service.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Sequence
from typing import IO, Any, Protocol

import msgspec

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, ProcessProtocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from relaytunnel.errors import StateError
from relaytunnel.relay.inheriting import Inheritance
from relaytunnel.tap import pid_file
from relaytunnel.tap.signals import stop
from relaytunnel.tap.systemd import notify

__all__ = ["Predecessor", "Successor", "Will"]

VARIABLE = "RELAYTUNNEL_HANDOVER"
"""The environment variable that tells a new process which descriptor its L{Will} is."""

_PATIENCE = 30.0
_READY, _GO, _ACCEPTING = b"ready", b"go", b"accepting"

_log = Logger()


class Will(msgspec.Struct, kw_only=True):
    """
    What a new process is left.

    @ivar channel: the descriptor on which the two talk.
    @ivar inheritance: the sockets.
    @ivar pid_file: the file with the process number, if there is one.
    """

    channel: int
    inheritance: Inheritance
    pid_file: str = ""

    @classmethod
    def read(cls) -> Will | None:
        """
        Take it, and its descriptor out of the environment.

        @return: L{None} for a process that nobody left anything.
        @raise StateError: it cannot be read.
        """
        number = os.environ.pop(VARIABLE, "")
        if not number:
            return None
        try:
            with open(int(number), "rb") as file:
                file.seek(0)
                return msgspec.json.decode(file.read(), type=cls)
        except (OSError, ValueError, msgspec.DecodeError) as fault:
            raise StateError(f"${VARIABLE} cannot be read: {fault}") from None


class _Channel(LineOnlyReceiver):
    delimiter = b"\n"

    def __init__(self, owner: Successor | Predecessor) -> None:
        self._owner = owner

    def lineReceived(self, line: bytes) -> None:
        self._owner.heard(line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._owner.alone()


def _talk(reactor: Any, descriptor: int, owner: Successor | Predecessor) -> _Channel:
    channel = _Channel(owner)
    factory = Factory.forProtocol(lambda: channel)
    factory.noisy = False
    reactor.adoptStreamConnection(descriptor, socket.AF_UNIX, factory)
    return channel


def _nameless_file() -> IO[bytes]:
    """
    @return: a file for what the environment has no room for; on Linux it is in
        memory, and needs no directory that can be written.
    """
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("relaytunnel"), "w+b")
    return tempfile.TemporaryFile()


class Successor:
    """
    The new process, as the old one sees it.

    @ivar ready: fires when it has started.
    @ivar accepting: fires when it has taken over.  Both fail with
        L{StateError}.
    """

    def __init__(
        self, reactor: Any, command: Sequence[str], inheritance: Inheritance, pid_file: str
    ) -> None:
        """
        Start it.

        @raise StateError: there is nothing to start it with.
        """
        self.ready: Deferred[None] = Deferred()
        self.accepting: Deferred[None] = Deferred()
        try:
            ours, theirs = socket.socketpair()
            with ours, theirs, _nameless_file() as file:
                will = Will(channel=theirs.fileno(), inheritance=inheritance, pid_file=pid_file)
                file.write(msgspec.json.encode(will))
                file.flush()
                passed = [file.fileno(), theirs.fileno(), *inheritance.descriptors()]
                reactor.spawnProcess(
                    ProcessProtocol(),
                    command[0],
                    list(command),
                    {**os.environ, VARIABLE: f"{file.fileno()}"},
                    childFDs={number: number for number in (0, 1, 2, *passed)},
                )
                # As long as this process is here, and not only its reactor, the
                # other end does not read the end.
                self._until_the_end = os.dup(ours.fileno())
                self._channel = _talk(reactor, ours.fileno(), self)
        except OSError as fault:
            reason = fault.strerror or fault
            raise StateError(f"no new process can be started: {reason}") from None
        self._alarm = reactor.callLater(_PATIENCE, self.fail, f"not ready within {_PATIENCE:g} s")

    def go(self) -> None:
        """
        It may accept from now on.
        """
        self._channel.sendLine(_GO)

    def heard(self, line: bytes) -> None:
        if line == _READY and not self.ready.called:
            self.ready.callback(None)
        elif line == _ACCEPTING and not self.accepting.called:
            self._alarm.cancel()
            self.accepting.callback(None)

    def alone(self) -> None:
        self.fail("it has ended; its log says why")

    def fail(self, why: str) -> None:
        """
        It does not take over.
        """
        if self._alarm.active():
            self._alarm.cancel()
        if self._until_the_end >= 0 and not self.accepting.called:
            os.close(self._until_the_end)
            self._until_the_end = -1
        # Whoever waits does so for one of them after the other.
        waited = self.accepting if self.ready.called else self.ready
        if not waited.called:
            waited.errback(StateError(f"the new process does not take over: {why}"))
        transport: Any = self._channel.transport
        if transport is not None:
            transport.loseConnection()


class Taker(Protocol):
    """
    A service that takes over.
    """

    def take_over(self) -> None:
        """Accept from now on."""


class Predecessor:
    """
    The old process, as the new one sees it.
    """

    def __init__(self, reactor: Any, will: Will, service: Taker) -> None:
        self._reactor = reactor
        self._will = will
        self._service = service
        self._took_over = False

    def begin(self) -> None:
        """
        Say that this process is ready.
        """
        self._channel = _talk(self._reactor, self._will.channel, self)
        os.close(self._will.channel)
        self._channel.sendLine(_READY)

    def heard(self, line: bytes) -> None:
        if line == _GO and not self._took_over:
            self._took_over = True
            self._service.take_over()
            if self._will.pid_file:
                self._take_pid_file(self._will.pid_file)
            notify(f"MAINPID={os.getpid()}", "READY=1")
            self._channel.sendLine(_ACCEPTING)

    def alone(self) -> None:
        """
        The old process is gone, or does not want us any more.
        """
        if not self._took_over:
            _log.error("the old process does not hand over; this one ends")
            stop(self._reactor)

    def _take_pid_file(self, path: str) -> None:
        """
        Make the PID file this process's, before the old one may end; it stays
        with the process that took over last.
        """
        try:
            pid_file.write(path)
        except OSError as fault:
            _log.warn(
                "{path}: cannot be written: {reason}", path=path, reason=fault.strerror or fault
            )
        self._reactor.addSystemEventTrigger("after", "shutdown", pid_file.remove_own, path)

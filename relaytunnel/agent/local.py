"""
Servers on the agent's machine that ask a running agent to publish them (S3).

They ask on a UNIX socket that only the agent's user may open: one request a
line, as JSON, and one line of answer.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from relaytunnel.agent.servers import OwnServer
from relaytunnel.config.names import printable
from relaytunnel.config.server import ServerConfig
from relaytunnel.errors import ConfigError, Rejection, StateError

__all__ = ["Answer", "Publish", "Withdraw", "ask_agent", "listen_locally"]

_LONGEST = 4096
_PATIENCE = 10.0
_MOST_ASKING = 16
"""Servers and commands that are connected at a time."""


class Publish(msgspec.Struct, frozen=True, tag_field="ask", tag="publish"):
    """
    Publish this server.

    @ivar server: C{NAME=TARGET}, as for C{twistd agent --publish}.
    """

    server: str


class Withdraw(msgspec.Struct, frozen=True, tag_field="ask", tag="withdraw"):
    """
    Publish this server no more.

    @ivar server: its connection ID.
    """

    server: str


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    What came of it.

    @ivar addresses: where clients reach the server.
    @ivar error: why it was not done.
    @ivar note: what was understood, where that is not what was written.
    """

    addresses: tuple[str, ...] = ()
    error: str = ""
    note: str = ""


class Publisher(Protocol):
    """
    The agent that is asked.
    """

    reactor: Any

    def publish(self, config: ServerConfig) -> Deferred[OwnServer]:
        """Publish one more server."""

    def withdraw(self, connection_id: str) -> bool:
        """Publish a server no more."""


class _Asked(LineOnlyReceiver):
    delimiter = b"\n"
    MAX_LENGTH = _LONGEST

    def __init__(
        self, agent: Publisher, gone: Callable[[_Asked], object] = lambda asked: None
    ) -> None:
        self._agent = agent
        self._gone = gone
        self._waiting: set[Deferred[OwnServer]] = set()

    def lineReceived(self, line: bytes) -> None:
        try:
            request: Publish | Withdraw = msgspec.json.decode(line, type=Publish | Withdraw)
        except (msgspec.DecodeError, UnicodeDecodeError) as fault:
            self._answer(Answer(error=f"no request: {fault}"))
            return
        self._do(request).addErrback(_failed).addCallback(self._answer)

    def lineLengthExceeded(self, line: bytes) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]

    def _do(self, request: Publish | Withdraw) -> Deferred[Answer]:
        if isinstance(request, Withdraw):
            if self._agent.withdraw(request.server):
                return succeed(Answer())
            return succeed(Answer(error=f"this agent publishes no {request.server}"))
        try:
            config = ServerConfig.from_option(request.server)
            publishing = self._agent.publish(config)
        except ConfigError as fault:
            return succeed(Answer(error=str(fault)))
        asked = publishing.addTimeout(_PATIENCE, self._agent.reactor)
        self._waiting.add(asked)

        def done(result: Any) -> Any:
            self._waiting.discard(asked)
            return result

        return asked.addBoth(done).addCallback(
            lambda server: Answer(addresses=server.addresses, note=_note(config, server))
        )

    def _answer(self, answer: Answer) -> None:
        if self.connected:
            self.sendLine(msgspec.json.encode(answer))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.connected = 0
        self._gone(self)
        for asked in list(self._waiting):
            asked.cancel()


def _note(config: ServerConfig, server: OwnServer) -> str:
    """
    @return: what whoever asked may not know.
    """
    kept = [
        key
        for key, value in (("users", server.config.users), ("allow", server.config.allow))
        if value
    ]
    notes = [config.target_note] if config.target_note else []
    if kept:
        notes.append(
            f"{config.id}: {' and '.join(kept)} of the server published before still hold;"
            " to be rid of them, withdraw it first"
        )
    return "; ".join(notes)


def _failed(failure: Failure) -> Answer:
    if failure.check(TimeoutError):
        return Answer(error="the relay has not answered yet; the server is published when it does")
    if failure.check(CancelledError):  # who asked has hung up
        return Answer(error="nobody waits for the answer")
    failure.trap(Rejection)
    return Answer(error=printable(str(failure.value)))


class _Socket(Factory):
    noisy = False

    def __init__(self, agent: Publisher) -> None:
        self._agent = agent
        self._asking: set[_Asked] = set()

    def buildProtocol(self, addr: object) -> _Asked | None:
        if len(self._asking) >= _MOST_ASKING:
            return None
        asked = _Asked(self._agent, self._asking.discard)
        self._asking.add(asked)
        return asked


def listen_locally(reactor: Any, path: str, agent: Publisher) -> IListeningPort:
    """
    Make the socket, for this user alone.  One that a dead agent left is
    replaced.

    @raise StateError: it cannot be made.
    """
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode) and not _answers(path):
            os.unlink(path)
    except OSError:
        pass  # nothing is there, or what listening says of it is clear enough
    try:
        listening: IListeningPort = reactor.listenUNIX(path, _Socket(agent), mode=0o600)
    except (CannotListenError, OSError) as fault:
        reason = getattr(fault, "socketError", fault)
        raise StateError(f"{path}: no socket for local servers can be made: {reason}") from None
    return listening


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as attempt:
        attempt.settimeout(1)
        return attempt.connect_ex(path) == 0


def ask_agent(path: str, request: Publish | Withdraw) -> Answer:
    """
    Ask a running agent, and wait for the answer.

    @param path: its socket.
    @return: what came of it, fit for a terminal.
    @raise StateError: nobody answers there, or the agent says no.
    """
    try:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(2 * _PATIENCE)
            asking.connect(path)
            asking.sendall(msgspec.json.encode(request) + b"\n")
            with asking.makefile("rb") as answers:
                line = answers.readline(64 * 1024)
    except OSError as fault:
        raise StateError(
            f"{path}: no agent answers: {fault}; start one with --local {path}"
        ) from None
    try:
        answer = msgspec.json.decode(line, type=Answer)
    except msgspec.DecodeError:
        raise StateError(f"{path}: what answers is no agent") from None
    if answer.error:
        raise StateError(answer.error)
    return Answer(
        addresses=tuple(map(printable, answer.addresses)), note=printable(answer.note, 1024)
    )

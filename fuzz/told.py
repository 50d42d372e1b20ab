"""
Targets: what people write in files, options and local requests.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from fuzz.targets import Target, cut, holds, same
from relaytunnel.accounts.secrets import is_slow, unmatched, verify
from relaytunnel.agent.local import _LONGEST, Publisher, _Asked
from relaytunnel.agent.servers import OwnServer
from relaytunnel.arrival import parse_host
from relaytunnel.config.endpoints import target
from relaytunnel.config.load import load_text
from relaytunnel.config.model import listening_endpoint
from relaytunnel.config.names import (
    PortRange,
    Reach,
    agent_id,
    connection_id,
    host,
    host_name,
    host_pattern,
    publish_pattern,
)
from relaytunnel.config.server import ServerConfig
from relaytunnel.config.users import secret_hash, user_name
from relaytunnel.errors import AccountError, Code, ConfigError, ProtocolError, Rejection

__all__ = ["TARGETS"]


# Files


def _toml(data: bytes) -> None:
    """
    A file is taken, or every fault of it is told in a line.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    try:
        config = load_text(text, "a.toml", "/etc")
    except ConfigError as error:
        holds(error.faults, "there are faults")
        for fault in error.faults:
            holds(fault.startswith("a.toml: "), f"the fault has its file: {fault!r}")
            holds(fault.isprintable(), f"the fault is a line: {fault!r}")
        return
    same(load_text(text, "b.toml", "/etc"), config, "the same is read again")


# Names


def _names(data: bytes) -> None:
    """
    Whatever is a name of some kind has one form, which is taken as it is.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    kinds: tuple[Callable[[str], object], ...] = (
        *(connection_id, agent_id, host_name, host_pattern, host, publish_pattern, user_name),
        *(PortRange.parse, Reach.parse, target, listening_endpoint),
    )
    for kind in kinds:
        form = _form(kind, text)
        if form is not None:
            same(_form(kind, str(form)), form, f"{kind.__qualname__}, given again")
    name = _form(host_name, text)
    if name is not None and not _is_number(str(name)):
        try:
            same(parse_host(str(name).encode("ascii")), name, "what clients may call it")
        except ProtocolError as error:
            holds(False, f"no client can name {name!r}: {error}")


def _form(kind: Callable[[str], object], text: str) -> object:
    try:
        return kind(text)
    except ValueError as error:
        holds(str(error).isprintable(), f"the message is a line: {error}")
        return None


def _is_number(name: str) -> bool:
    """
    Whether others than us may take a name for an address, so that clients are
    not allowed to use it.
    """
    last = name.rpartition(".")[2]
    return last.isdigit() or last.startswith("0x")


# Local requests


class _Agent:
    """
    An agent that publishes what it is asked for, unless the name is C{no}.
    """

    def __init__(self) -> None:
        self.reactor = Clock()

    def publish(self, config: ServerConfig) -> Deferred[OwnServer]:
        if config.id == "no":
            return fail(Rejection(Code.CONFLICT, "another agent has it"))
        if config.id == "later":
            return Deferred()
        server = OwnServer(config)
        server.addresses = (f"http://{config.id}/",)
        return succeed(server)

    def withdraw(self, connection_id: str) -> bool:
        return connection_id == "web"


@implementer(ILogObserver)
class _Faults:
    """
    What is logged with a failure.
    """

    def __init__(self) -> None:
        self.found: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_failure") is not None:
            self.found.append(str(event["log_failure"]))


def _local(data: bytes) -> None:
    """
    Each line gets a line of JSON in answer, and nothing is left behind.
    """
    _, chunks = cut(data)
    faults = _Faults()
    globalLogPublisher.addObserver(faults)
    try:
        same(_answers(chunks), _answers([b"".join(chunks)]), "cut and whole")
    finally:
        globalLogPublisher.removeObserver(faults)
    same(faults.found, [], "what is logged")


def _answers(chunks: list[bytes]) -> bytes:
    agent: Publisher = _Agent()
    asked, transport = _Asked(agent), StringTransport()
    asked.makeConnection(transport)
    for chunk in chunks:
        if transport.disconnected:
            break
        asked.dataReceived(chunk)
    holds(len(asked._buffer) <= _LONGEST or transport.disconnected, "what is kept is bounded")
    agent.reactor.advance(11)
    asked.connectionLost()
    same(agent.reactor.getDelayedCalls(), [], "what is left")
    told: bytes = transport.value()
    for line in told.splitlines():
        answer: dict[str, Any] = json.loads(line)
        holds(set(answer) <= {"addresses", "error"}, f"an answer: {answer}")
    return told


# Stored secrets


def _stored(data: bytes) -> None:
    """
    A stored form is one, or an error says that it is none; what may stand in a
    file or in a message is one.
    """
    text = data.decode("utf-8", "replace")
    _is_one(text)
    form = _form(secret_hash, text)
    holds(form is None or _is_one(str(form)), f"who takes the form can check it: {form!r}")


def _is_one(text: str) -> bool:
    try:
        slow = is_slow(text)
        same(is_slow(unmatched(text)), slow, "what matches nobody takes as long")
        if not slow or _is_cheap(text):
            holds(not verify("\ud800", unmatched(text)), "nothing matches it")
            verify("a", text)
    except AccountError as error:
        holds(str(error).isprintable(), "the message is a line")
        return False
    return True


def _is_cheap(text: str) -> bool:
    cost, block, lanes = map(int, text.split(":")[1:4])
    return cost * block * lanes <= 2**12 or cost >= 2 ** (16 * block)


TARGETS = [
    Target(
        "toml",
        _toml,
        (
            *(b"[relay]\n", b"[listen]\n", b"[tls]\n", b"[limits]\n", b"[agent]\n"),
            *(b"[[agent]]\n", b"[[server]]\n"),
            *(b'name = "', b'state = "', b'agents = "', b"clients = [", b"tcp:"),
            *(b'id = "web"\n', b'target = "127.0.0.1:80"\n', b'reach = ["', b'allow = ["'),
            *(b'data = "plain"\n', b"users = ", b'secret-hash = "sha256:', b'join-file = "'),
            *(b"listed = true\n", b'proxy = "v2"\n', b'ports = "', b'publish = ["*"]\n', b'"""'),
            *(b'join = "relaytunnel://', b"endpoint = ", b"default = ", b"1979-05-27", b"nan"),
        ),
    ),
    Target(
        "names",
        _names,
        (
            *(b"xn--", b"*.", b"host:", b"sni:", b"port:", b"name", b"20000-20999", b"tcp:"),
            *(b"unix:", b"ssl:", b":interface=", b"\\:", b"[::1]:", b"\xc3\xa4", b"\xe3\x80\x82"),
        ),
        400,
    ),
    Target(
        "local",
        _local,
        (
            *(b'{"ask":"publish","server":"', b'{"ask":"withdraw","server":"', b"web=", b",port="),
            *(b",listed", b",proxy=v2", b'"}\n', b"\\ud800", b"127.0.0.1:80", b"no=1", b"later=1"),
        ),
        5000,
    ),
    Target("stored", _stored, (b"sha256:", b"scrypt:16:8:1:", b"65536:1:", b"0" * 64), 400),
]

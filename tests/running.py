"""
A relay, agents, clients and servers in this process, on real sockets.

L{RunningCase} is the test case of everything that needs them: it starts
services and stops them, and fails a test that leaves a socket behind.  The
other classes are those who talk to relay and agent: L{Peer} says plain bytes,
as clients and servers do, L{RawControl} and L{RawData} speak the protocol by
hand, as no well-behaved agent would.  Programs in processes of their own are
in C{tests.processes}.
"""

from __future__ import annotations

import gc
import os
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from OpenSSL import SSL
from zope.interface import implementer

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from relaytunnel.accounts import AccountStore
from relaytunnel.agent.backoff import Backoff
from relaytunnel.agent.service import AgentService
from relaytunnel.channel.identity import Identity, own_identity
from relaytunnel.channel.tls import CONTROL, DATA, AgentTLS, RelayTLS, negotiated
from relaytunnel.config import AgentConfig, Limits, RelayConfig, ServerConfig
from relaytunnel.config.names import PortRange, Reach
from relaytunnel.relay.service import RelayService
from relaytunnel.wire.control import MAX_BODY, MessageReader, frame
from relaytunnel.wire.data import EOF_FRAME, FrameReader, Kind, data_frames, join_frame
from relaytunnel.wire.invitation import Invitation
from relaytunnel.wire.messages import (
    PROTOCOL_VERSION,
    Accept,
    Hello,
    Message,
    Notify,
    Ping,
    Pong,
    Register,
    StandingRequest,
    Welcome,
)
from tests.processes import free_row, until

__all__ = [
    "ANY_PORT",
    "HOST",
    "Peer",
    "RawControl",
    "RawData",
    "RawRelay",
    "RunningCase",
    "Target",
    "echo",
    "eventually",
    "free_ports",
    "hello_page",
    "reactor",
    "request",
    "sockets",
]

_T = TypeVar("_T")
_M = TypeVar("_M")
_R = TypeVar("_R", bound="_Raw")

reactor: Any = _reactor

HOST = "127.0.0.1"
ANY_PORT = f"tcp:0:interface={HOST}"

_PORTS = 8
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


async def eventually(condition: Callable[[], _T | None], what: str, seconds: float = 5) -> _T:
    """
    Wait until the answer is true, and return it.
    """
    return await until(condition, seconds, what, 0.005)


def sockets() -> int:
    """
    How many sockets this process has.
    """
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return found


def free_ports() -> PortRange:
    """
    Find some ports in a row on which nobody listens.
    """
    first = free_row(_PORTS)
    return PortRange(first, first + _PORTS - 1)


def request(host: str, path: str = "/") -> bytes:
    """
    Write a request of HTTP.
    """
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


@implementer(IHalfCloseableProtocol)
class Peer(Protocol):
    """
    One end of a TCP connection, in the hands of a test.

    @ivar received: what came in so far.
    @ivar ended: whether the other end has sent its FIN.
    @ivar lost: once the connection is gone, why.
    @ivar polite: whether it closes when the other end has ended.
    """

    transport: Any
    lost: BaseException | None = None
    polite = False

    def __init__(self, heard: Callable[[Peer], None] | None = None) -> None:
        self.received = b""
        self.ended = False
        self._heard = heard

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self._heard is not None:
            self._heard(self)

    def readConnectionLost(self) -> None:
        self.ended = True
        if self.polite:
            self.close()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason.value

    @property
    def port(self) -> int:
        """Our own port of the connection."""
        return cast(int, self.transport.getHost().port)

    @property
    def was_reset(self) -> bool:
        """Whether the other end has aborted the connection."""
        return isinstance(self.lost, ConnectionLost)

    def say(self, data: bytes) -> None:
        """
        Send bytes.
        """
        self.transport.write(data)

    def end(self) -> None:
        """
        Send nothing more (FIN).
        """
        self.transport.loseWriteConnection()

    def close(self) -> None:
        """
        Close in both directions.
        """
        self.transport.loseConnection()

    def reset(self) -> None:
        """
        Abort the connection (RST).
        """
        self.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abortConnection()

    async def hears(self, data: bytes, seconds: float = 5) -> None:
        """
        Wait until these bytes are among those that came in.
        """
        await eventually(lambda: data in self.received, f"hears {data[:80]!r}", seconds)

    async def end_of_all(self, seconds: float = 5) -> bytes:
        """
        Wait until the other end has sent its last byte, and say what came in.
        """
        await eventually(lambda: self.ended or self.lost, "the other end's end", seconds)
        return self.received

    async def is_gone(self, seconds: float = 5) -> None:
        """
        Wait until the other end takes nothing any more: behind an end, a
        reset is only seen by writing.
        """

        def lost() -> bool:
            self.say(b".")
            return self.lost is not None

        await eventually(lost, "takes nothing any more", seconds)

    async def is_reset(self, seconds: float = 5) -> None:
        """
        Wait until the other end has aborted the connection.
        """
        await eventually(lambda: self.was_reset, "is reset", seconds)


def echo(peer: Peer) -> None:
    """
    Say back what was said.
    """
    said, peer.received = peer.received, b""
    peer.say(said)


def hello_page(peer: Peer) -> None:
    """
    Answer a request of HTTP and close.
    """
    if b"\r\n\r\n" in peer.received:
        peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        peer.close()


class Target(Factory):
    """
    A server that agents publish.

    @ivar visits: its ends of the connections that were made to it.
    """

    noisy = False

    def __init__(self, heard: Callable[[Peer], None] | None) -> None:
        self.visits: list[Peer] = []
        self.port = 0
        self._heard = heard

    def buildProtocol(self, addr: object) -> Peer:
        peer = Peer(self._heard)
        self.visits.append(peer)
        return peer

    @property
    def address(self) -> str:
        """C{HOST:PORT}."""
        return f"{HOST}:{self.port}"

    async def visit(self, number: int = 0) -> Peer:
        """
        Wait for a connection, and return our end of it.
        """
        await eventually(lambda: len(self.visits) > number, f"visit {number} to the target")
        return self.visits[number]


class _Raw(Protocol):
    transport: Any
    ready = False
    lost: BaseException | None = None

    def handshakeCompleted(self) -> None:
        self.ready = True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason.value

    @property
    def port(self) -> int:
        """Our own port of the connection."""
        return cast(int, self.transport.getHost().port)

    def say_raw(self, data: bytes) -> None:
        """
        Send bytes, whatever they mean.
        """
        self.transport.write(data)

    def abort(self) -> None:
        """
        Cut the connection off.
        """
        if self.lost is None:
            self.transport.abortConnection()

    async def is_closed(self, seconds: float = 5) -> None:
        """
        Wait until the relay has closed the connection.
        """
        await eventually(lambda: self.lost, "the relay closes the connection", seconds)


@implementer(IHandshakeListener)
class RawControl(_Raw):
    """
    An agent's end of a control channel, driven by hand.

    @ivar messages: what the relay said and nobody has asked for yet.
    @ivar pongs: whether pings are answered.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.pongs = True
        self._reader = MessageReader(MAX_BODY)

    def dataReceived(self, data: bytes) -> None:
        if negotiated(self.transport) == DATA:
            return  # an agent has dialled a data channel to a relay that has none
        for message in self._reader.feed(data):
            if isinstance(message, Ping) and self.pongs:
                self.say(Pong(number=message.number))
            else:
                self.messages.append(message)

    def say(self, *messages: Message) -> None:
        """
        Send messages.
        """
        self.transport.write(b"".join(map(frame, messages)))

    async def hears(self, kind: type[_M], seconds: float = 5) -> _M:
        """
        Wait for a message of this kind, and take it.
        """

        def find() -> _M | None:
            return next((m for m in self.messages if isinstance(m, kind)), None)

        found = await eventually(find, f"hears {kind.__name__}", seconds)
        self.messages.remove(cast(Message, found))
        return found

    def freeze(self) -> None:
        """
        Neither read nor answer any more.
        """
        self.pongs = False
        self.transport.pauseProducing()


@implementer(IHandshakeListener)
class RawData(_Raw):
    """
    An agent's end of a data channel, driven by hand.

    @ivar frames: what the relay sent.
    """

    def __init__(self) -> None:
        self.frames: list[tuple[Kind, bytes]] = []
        self._reader = FrameReader()

    def dataReceived(self, data: bytes) -> None:
        self.frames.extend(self._reader.feed(data))

    @property
    def received(self) -> bytes:
        """The session's bytes."""
        return b"".join(payload for kind, payload in self.frames if kind is Kind.DATA)

    @property
    def kinds(self) -> set[Kind]:
        """The kinds of all frames that came in."""
        return {kind for kind, _ in self.frames}

    def join(self, ticket: bytes) -> None:
        """
        Present a ticket.
        """
        self.say_raw(join_frame(ticket))

    def say(self, data: bytes) -> None:
        """
        Send bytes of the session.
        """
        self.say_raw(data_frames(data))

    def end(self) -> None:
        """
        Send nothing more in this session.
        """
        self.say_raw(EOF_FRAME)

    async def hears(self, data: bytes) -> None:
        """
        Wait until these bytes are among those that came in.
        """
        await eventually(lambda: data in self.received, f"hears {data[:80]!r}")

    async def hears_kind(self, kind: Kind) -> None:
        """
        Wait for a frame of this kind.
        """
        await eventually(lambda: kind in self.kinds, f"hears {kind.name}")


class RawRelay(Factory):
    """
    Something that agents take for a relay: TLS, and control channels that are
    driven by hand.

    @ivar controls: those that agents have opened, in their order.
    @ivar invitation: what an agent needs to come here.
    """

    noisy = False

    def __init__(self, identity: Identity) -> None:
        self.controls: list[RawControl] = []
        self._takes_channels = True
        context = RelayTLS(identity)
        context._context.set_alpn_select_callback(self._choose)
        self.tls = TLSMemoryBIOFactory(context, False, self)
        self.tls.noisy = False
        self._pin = identity.pin
        self.listening: Any = reactor.listenTCP(0, self.tls, interface=HOST)
        self.port: int = self.listening.getHost().port

    def buildProtocol(self, addr: object) -> RawControl:
        control = RawControl()
        self.controls.append(control)
        return control

    async def stop_listening(self) -> None:
        """
        Take no more connections; those that there are stay.
        """
        await self.listening.stopListening()

    def take_no_channels(self) -> None:
        """
        Speak TLS, but none of the protocols of agents.
        """
        self._takes_channels = False

    def _choose(self, connection: SSL.Connection, offered: list[bytes]) -> Any:
        return offered[0] if self._takes_channels else SSL.NO_OVERLAPPING_PROTOCOLS

    @property
    def invitation(self) -> Invitation:
        return Invitation("office", "a-secret", HOST, self.port, self._pin)

    async def control(self, number: int = 0) -> RawControl:
        """
        Wait until an agent has said who it is, and return the channel.
        """
        await eventually(lambda: len(self.controls) > number, f"control channel {number}")
        control = self.controls[number]
        await control.hears(Hello)
        return control

    async def welcomed(self, number: int = 0) -> RawControl:
        """
        Wait for an agent and let it in.
        """
        control = await self.control(number)
        control.say(Welcome(relay="raw", node="raw", sessions=10, ping=60.0))
        return control


class _Once(Factory):
    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._made = protocol

    def buildProtocol(self, addr: object) -> Protocol:
        return self._made


class RunningCase(TestCase):
    """
    Starts what a test needs, and sees that nothing is left of it.
    """

    timeout = 30

    def setUp(self) -> None:
        before = sockets()
        self.addCleanup(self._nothing_is_left, before)

    async def _nothing_is_left(self, before: int) -> None:
        def all_closed() -> bool:
            # Twisted before 26.10 leaves the socket of a port that was taken to
            # the garbage collector.
            return sockets() <= before or (gc.collect() >= 0 and sockets() <= before)

        await eventually(all_closed, "every socket is closed")
        # Timers that were to close what is closed already go with the turn.
        await deferLater(reactor, 0)

    def logged(self) -> list[str]:
        """
        Collect what is logged from now on.

        @return: one text an event; more are added as they come.
        """
        texts: list[str] = []

        @implementer(ILogObserver)
        def take(event: LogEvent) -> None:
            texts.append(formatEvent(event))

        globalLogPublisher.addObserver(take)
        self.addCleanup(globalLogPublisher.removeObserver, take)
        return texts

    # Relays

    def relay_config(self, limits: Mapping[str, Any] | None = None, **given: Any) -> RelayConfig:
        """
        Configure a relay on ports of loopback that are free.

        @param limits: those that are not the defaults.
        @param given: further values of L{RelayConfig}.
        """
        values: dict[str, Any] = {
            "name": HOST,
            "state": given.get("state") or os.path.abspath(self.mktemp()),
            "agents": ANY_PORT,
            "clients": (ANY_PORT,),
            "admin": "",
            "ports": free_ports(),
            "limits": Limits(**(limits or {})),
        }
        return RelayConfig(**{**values, **given})

    def start_relay(self, limits: Mapping[str, Any] | None = None, **given: Any) -> RelayService:
        """
        Start a relay; see L{relay_config}.
        """
        relay = RelayService(self.relay_config(limits, **given), reactor, lambda text: None)
        relay.startService()
        self.addCleanup(self.stop, relay)
        return relay

    async def stop(self, service: Any) -> None:
        """
        Stop a service, unless it is stopped already.
        """
        if service.running:
            await service.stopService()

    def accounts(self, relay: RelayService) -> AccountStore:
        """
        Open the accounts of a relay from outside, as another program does.
        """
        store = AccountStore(relay.state.database)
        self.addCleanup(store.close)
        return store

    def invite(
        self,
        relay: RelayService,
        agent: str,
        publish: Iterable[str] = ("*",),
        ports: Iterable[tuple[int, int]] | None = None,
        hosts: Iterable[str] = ("*",),
    ) -> Invitation:
        """
        Invite one more agent.
        """
        whole = relay.config.ports
        secret = self.accounts(relay).invite(
            agent,
            list(publish),
            [(whole.first, whole.last)] if ports is None else list(ports),
            list(hosts),
        )
        return relay.facts.invitation(agent, secret)

    def first_invitation(self, relay: RelayService) -> Invitation:
        """
        Read the invitation that the relay wrote into its state.
        """
        return Invitation.parse(Path(relay.state.invitation).read_text())

    # Agents

    def new_agent(
        self,
        invitation: Invitation,
        *servers: ServerConfig,
        limits: Mapping[str, Any] | None = None,
        ca: str | None = None,
    ) -> AgentService:
        """
        Make and start an agent that is in a hurry to come back.
        """
        config = AgentConfig(
            join=str(invitation), servers=servers, limits=Limits(**(limits or {})), ca=ca
        )
        agent = AgentService(config, invitation, reactor)
        agent.state.backoff = Backoff(reactor.seconds, lambda: 0.1)
        agent.startService()
        self.addCleanup(self.stop, agent)
        return agent

    async def start_agent(
        self,
        relay: RelayService,
        *servers: ServerConfig,
        invitation: Invitation | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> AgentService:
        """
        Start an agent and wait until its servers are published.
        """
        agent = self.new_agent(invitation or self.first_invitation(relay), *servers, limits=limits)
        await self.published(agent)
        return agent

    async def published(self, agent: AgentService) -> None:
        """
        Wait until an agent is let in and its servers are published.
        """
        await eventually(
            lambda: (
                agent.control is not None
                and all(server.registered and server.endpoints for server in agent.state.servers)
            ),
            "the servers are published",
            10,
        )

    def server(self, name: str, target: str, *reach: str, **given: Any) -> ServerConfig:
        """
        Configure a server.  Its clients name it by HTTP and then say anything,
        unless C{http} is given.
        """
        given.setdefault("http", "raw")
        return ServerConfig(
            id=name, target=target, reach=tuple(Reach.parse(way) for way in reach), **given
        )

    async def raw_control(
        self, relay: RelayService, alpn: bytes = CONTROL, pin: str | None = None
    ) -> RawControl:
        """
        Open a control channel, and say nothing on it.
        """
        return await self._tls(RawControl(), relay, alpn, pin)

    async def raw_data(self, relay: RelayService, ticket: bytes | None = None) -> RawData:
        """
        Open a data channel, and present this ticket on it, if any.
        """
        data = await self._tls(RawData(), relay, DATA, None)
        if ticket is not None:
            data.join(ticket)
        return data

    async def raw_agent(
        self,
        relay: RelayService,
        *servers: str | Register,
        invitation: Invitation | None = None,
        epoch: int = 1,
    ) -> RawControl:
        """
        Open a control channel, come in and publish servers, by their names or
        as these messages say.
        """
        control = await self.raw_control(relay)
        control.say(self.hello(invitation or self.first_invitation(relay), epoch=epoch))
        await control.hears(Welcome)
        for server in servers:
            control.say(
                Register(connection_id=server, http="raw") if isinstance(server, str) else server
            )
            await control.hears(StandingRequest)
        return control

    @staticmethod
    def hello(invitation: Invitation, **given: Any) -> Hello:
        """
        Say who an agent is.
        """
        values: dict[str, Any] = {
            "version": PROTOCOL_VERSION,
            "agent": invitation.agent,
            "secret": invitation.secret,
            "epoch": 1,
            "software": "a test",
        }
        return Hello(**{**values, **given})

    async def _tls(self, protocol: _R, relay: RelayService, alpn: bytes, pin: str | None) -> _R:
        tls = AgentTLS(HOST, alpn, pin or relay.facts.pin)
        await self._dial(protocol, relay.facts.agents, tls)
        await eventually(lambda: protocol.ready or protocol.lost, "the handshake is done")
        return protocol

    # Clients and servers

    source: str | None = None
    """The address of loopback to connect from, where a test needs one of its own."""

    async def _dial(
        self,
        protocol: Protocol,
        port: int,
        tls: AgentTLS | None = None,
        source: str | None = None,
    ) -> None:
        source = source or self.source
        own = None if source is None else (source, 0)
        endpoint: Any = TCP4ClientEndpoint(reactor, HOST, port, timeout=5, bindAddress=own)
        if tls is not None:
            endpoint = wrapClientTLS(tls, endpoint)
        await endpoint.connect(_Once(protocol))
        self.addCleanup(self._hang_up, protocol)

    @staticmethod
    def _hang_up(protocol: Any) -> None:
        if protocol.lost is None:
            protocol.transport.abortConnection()

    async def dial(self, port: int, source: str | None = None) -> Peer:
        """
        Connect to a port of loopback.
        """
        peer = Peer()
        await self._dial(peer, port, source=source)
        return peer

    async def client(
        self, relay: RelayService, said: bytes = b"", source: str | None = None
    ) -> Peer:
        """
        Come to the relay's shared port as a client, and say this.
        """
        peer = await self.dial(relay.facts.clients[0], source)
        peer.say(said)
        return peer

    async def get(self, relay: RelayService, host: str, seconds: float = 5) -> str:
        """
        Ask the relay's shared port for a page of this host.

        @return: the whole answer.
        """
        client = await self.client(relay, request(host))
        answer = await client.end_of_all(seconds)
        client.close()
        return answer.decode()

    def target(self, heard: Callable[[Peer], None] | None = None) -> Target:
        """
        Start a server.

        @param heard: called with our end of a connection when something came
            in on it; without it, the server is silent.
        """
        target = Target(heard)
        port = reactor.listenTCP(0, target, interface=HOST)
        target.port = port.getHost().port
        self.addCleanup(self._stop_target, port, target)
        return target

    def hanging(self) -> str:
        """
        Make a server to which connecting neither succeeds nor fails.

        @return: its C{HOST:PORT}.
        """
        listening = socket.socket()
        self.addCleanup(listening.close)
        listening.bind((HOST, 0))
        listening.listen(0)
        for _ in range(3):
            filling = socket.socket()
            self.addCleanup(filling.close)
            filling.setblocking(False)
            filling.connect_ex(listening.getsockname())
        return f"{HOST}:{listening.getsockname()[1]}"

    def raw_relay(self, identity: Identity | None = None) -> RawRelay:
        """
        Start something that agents take for a relay.
        """
        if identity is None:
            directory = self.mktemp()
            os.mkdir(directory)
            identity = own_identity(directory, HOST)
        relay = RawRelay(identity)
        self.addCleanup(self._stop_raw_relay, relay)
        return relay

    @staticmethod
    def _stop_raw_relay(relay: RawRelay) -> Deferred[None] | None:
        for control in relay.controls:
            control.abort()
        return cast("Deferred[None] | None", relay.listening.stopListening())

    @staticmethod
    def _stop_target(port: Any, target: Target) -> Deferred[None] | None:
        for peer in target.visits:
            peer.transport.abortConnection()
        return cast("Deferred[None] | None", port.stopListening())

    async def session(
        self, relay: RelayService, control: RawControl, host: str = "web"
    ) -> tuple[Peer, Notify]:
        """
        Send a client to a server of an agent that is driven by hand.

        @return: the client, and what the agent was told of it.
        """
        client = await self.client(relay, request(host))
        notify = await control.hears(Notify)
        control.say(Accept(session=notify.session))
        return client, notify

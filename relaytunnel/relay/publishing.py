"""
Publishing a server: what an agent asks for becomes names and ports (S3, S4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

from relaytunnel.config.access import networks
from relaytunnel.config.limits import Limits
from relaytunnel.config.names import PortRange, Reach, connection_id
from relaytunnel.config.users import users
from relaytunnel.errors import Code, Rejection
from relaytunnel.relay.claims import NotGranted, Reservations, check_names
from relaytunnel.relay.keptports import KeptPorts
from relaytunnel.relay.registry import Agent, PublishedServer, Refused, Registry
from relaytunnel.wire.messages import LONGEST_ADDRESS, MOST_ADDRESSES, Register

__all__ = ["PortOpener", "Publisher"]

_ANY_PORT = Reach("port", "0")
_BY_ID = (Reach("name"),)
_MOST_REFUSED = 64
"""How many servers that its account does not allow are kept for one agent."""


class PortOpener(Protocol):
    """
    Who listens on the ports that servers have of their own.
    """

    def open(self, port: int) -> None:
        """
        Listen for clients on this port; opening an open one does nothing.

        @raise Rejection: it cannot be had.
        """

    def close(self, port: int) -> None:
        """Listen no more."""


@dataclass
class Publisher:
    """
    Turns L{Register} messages into published servers, and takes them back.

    @ivar ports: the ports that servers may ask for.
    @ivar addresses: says how people type a way to the server of an ID.
    @ivar reservations: what all accounts have a right to.
    @ivar kept: the ports of agents that are expected back.
    """

    registry: Registry
    limits: Limits
    ports: PortRange
    opener: PortOpener
    addresses: Callable[[str, Reach], tuple[str, ...]]
    reservations: Reservations = field(default_factory=Reservations)
    kept: KeptPorts | None = None

    def publish(self, agent: Agent, message: Register) -> PublishedServer:
        """
        Store a server (S4).  One that is published already is replaced.

        @raise Rejection: why it cannot be; nothing has changed then, but that
            one which the account does not allow is kept in C{agent.refused}.
        """
        agent.refused.pop(message.connection_id, None)
        try:
            return self._publish(agent, message)
        except Rejection as rejection:
            _keep(agent, message, rejection)
            raise

    def _publish(self, agent: Agent, message: Register) -> PublishedServer:
        try:
            name = connection_id(message.connection_id)
            reach = _once(map(Reach.parse, message.reach)) or _BY_ID
            allow = networks(list(message.allow))
            known = dict(users(message.users))
        except ValueError as fault:
            raise Rejection(Code.INVALID, str(fault)[:256]) from None
        if message.protocol != "tcp" or message.data not in ("tls", "plain"):
            raise Rejection(
                Code.UNSUPPORTED,
                f"this relay serves no {message.protocol} over {message.data} data channels",
            )
        if message.http not in ("requests", "raw"):
            raise Rejection(Code.UNSUPPORTED, f"this relay knows no way {message.http} of HTTP")
        claims = self._claims(agent, name, reach)
        if name not in agent.servers and len(agent.servers) >= self.limits.servers_per_agent:
            raise Rejection(
                Code.LIMIT, f"an agent publishes {self.limits.servers_per_agent} servers at most"
            )
        for way in reach:
            if known and way.kind in ("port", "sni"):
                raise Rejection(Code.INVALID, f"no password can be given by {way}")
        held = agent.servers.get(name)
        before = held.ports if held is not None else self._kept_for(agent, name)
        server = self._with_ports(agent, name, reach, before)
        server.message, server.claims = message, claims
        server.data = message.data
        server.allow = allow
        server.listed = message.listed
        server.users = known
        server.wants_address = message.wants_address
        server.http = message.http
        server.sessions_per_client = message.sessions_per_client
        server.addresses = tuple(
            address
            for way in server.reach
            for address in self.addresses(name, way)
            if len(address) <= LONGEST_ADDRESS
        )[:MOST_ADDRESSES]
        if self.kept is not None:
            for port in (*before, *server.ports):
                self.kept.taken(port)
        for port in before:
            if port not in server.ports:
                self.opener.close(port)
        return server

    def _kept_for(self, agent: Agent, name: str) -> list[int]:
        return [] if self.kept is None else self.kept.of(agent.agent_id, name)

    def _claims(self, agent: Agent, name: str, reach: tuple[Reach, ...]) -> tuple[str, ...]:
        names = self.registry.names
        return check_names(names, self.reservations, agent.agent_id, agent.rights, name, reach)

    def check_rights(self, server: PublishedServer) -> None:
        """
        Look again whether a published server may be.

        @raise Rejection: its agent's account does not allow it any more; it is
            kept as by L{publish}.
        """
        agent = server.agent
        try:
            self._claims(agent, server.connection_id, server.reach)
            if not server.covered(agent.rights):
                raise Rejection(
                    Code.NOT_ALLOWED, f"the account {agent.agent_id} may not use its port any more"
                )
        except Rejection as rejection:
            if server.message is not None:
                _keep(agent, server.message, rejection)
            raise

    def _with_ports(
        self, agent: Agent, name: str, reach: tuple[Reach, ...], before: list[int]
    ) -> PublishedServer:
        """
        Open the ports, then register the names; close them if one fails.
        """
        named = [way.port for way in reach if way.kind == "port" and way.port]
        for port in named:
            self._check_port(agent, port)
        free = (
            port
            for port in self.registry.free_port(self.ports, agent.rights)
            if self.kept is None or port not in self.kept
        )
        candidates = (port for port in chain(before, free) if port not in named)
        spare: list[int] = []
        while True:
            chosen = tuple(
                _numbered(spare.pop(0) if spare else next(candidates, 0))
                if way == _ANY_PORT
                else way
                for way in reach
            )
            if _ANY_PORT in chosen:
                raise Rejection(
                    Code.PORT_TAKEN,
                    f"no port of {self.ports} is free for the account {agent.agent_id}",
                )
            server = PublishedServer(name, agent, chosen)
            self.registry.check(server)
            opened: list[int] = []
            try:
                for port in server.ports:
                    self.opener.open(port)
                    if port not in before:
                        opened.append(port)
            except Rejection:
                for other in opened:
                    self.opener.close(other)
                if port in named:
                    raise
                # Any free port would do, and somebody else has this one.
                spare = [other for other in server.ports if other not in (*named, port)]
            else:
                self.registry.add(server)
                return server

    def _check_port(self, agent: Agent, port: int) -> None:
        holder = None if self.kept is None else self.kept.holder(port)
        if holder not in (None, agent.agent_id):
            raise Rejection(
                Code.PORT_TAKEN, f"the port {port} is another agent's, which is expected back"
            )
        if port not in self.ports:
            raise Rejection(
                Code.NOT_ALLOWED,
                f"servers at this relay may have the ports {self.ports}, not {port}",
            )
        if not agent.rights.may_use_port(port):
            raise Rejection(
                Code.NOT_ALLOWED, f"the account {agent.agent_id} may not use the port {port}"
            )

    def take_back(self, server: PublishedServer, returning: bool = False) -> None:
        """
        A server is published no more: its ports close.

        @param returning: whether its agent is expected back.  They stay open for
            as long as a control channel may be silent then.
        """
        for port in server.ports:
            if returning and self.kept is not None:
                self.kept.keep(
                    server.agent.agent_id,
                    server.connection_id,
                    port,
                    self.limits.dead,
                    self.limits.servers_per_agent,
                )
            else:
                self.opener.close(port)


def _keep(agent: Agent, message: Register, rejection: Rejection) -> None:
    if rejection.code is Code.NOT_ALLOWED and len(agent.refused) < _MOST_REFUSED:
        claims = rejection.claims if isinstance(rejection, NotGranted) else ()
        agent.refused[message.connection_id] = Refused(message, claims)


def _once(ways: Iterable[Reach]) -> tuple[Reach, ...]:
    """
    Take out what stands there again; but each "any port" asks for one more.
    """
    kept: list[Reach] = []
    seen: set[Reach] = set()
    for way in ways:
        if way == _ANY_PORT or way not in seen:
            seen.add(way)
            kept.append(way)
    return tuple(kept)


def _numbered(port: int) -> Reach:
    return Reach("port", str(port))

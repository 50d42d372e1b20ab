"""
Publishing a server: what an agent asks for becomes names and ports (S3, S4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from relaytunnel.config.access import networks
from relaytunnel.config.limits import Limits
from relaytunnel.config.names import PortRange, Reach, connection_id
from relaytunnel.config.users import users
from relaytunnel.errors import Code, Rejection
from relaytunnel.relay.registry import Agent, PublishedServer, Registry
from relaytunnel.wire.messages import LONGEST_ADDRESS, MOST_ADDRESSES, Register

__all__ = ["PortOpener", "Publisher"]

_ANY_PORT = Reach("port", "0")


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
    """

    registry: Registry
    limits: Limits
    ports: PortRange
    opener: PortOpener
    addresses: Callable[[str, Reach], tuple[str, ...]]

    def publish(self, agent: Agent, message: Register) -> PublishedServer:
        """
        Store a server (S4).  One that is published already is replaced.

        @raise Rejection: why it cannot be; nothing has changed then.
        """
        try:
            name = connection_id(message.connection_id)
            reach = _once(map(Reach.parse, message.reach))
            allow = networks(list(message.allow))
            known = dict(users(message.users))
        except ValueError as fault:
            raise Rejection(Code.INVALID, str(fault)[:256]) from None
        if message.protocol != "tcp" or message.data not in ("tls", "plain"):
            raise Rejection(
                Code.UNSUPPORTED,
                f"this relay serves no {message.protocol} over {message.data} data channels",
            )
        if not agent.rights.may_publish(name):
            raise Rejection(
                Code.NOT_ALLOWED, f"the account {agent.agent_id} may not publish {name}"
            )
        if name not in agent.servers and len(agent.servers) >= self.limits.servers_per_agent:
            raise Rejection(
                Code.LIMIT, f"an agent publishes {self.limits.servers_per_agent} servers at most"
            )
        for way in reach:
            if known and way.kind in ("port", "sni"):
                raise Rejection(Code.INVALID, f"no password can be given by {way}")
        held = agent.servers.get(name)
        before = held.ports if held is not None else []
        server = self._with_ports(agent, name, reach or (Reach("name", ""),), before)
        server.data = message.data
        server.allow = allow
        server.listed = message.listed
        server.users = known
        server.wants_address = message.wants_address
        server.sessions_per_client = message.sessions_per_client
        server.addresses = tuple(
            address
            for way in server.reach
            for address in self.addresses(name, way)
            if len(address) <= LONGEST_ADDRESS
        )[:MOST_ADDRESSES]
        for port in before:
            if port not in server.ports:
                self.opener.close(port)
        return server

    def _with_ports(
        self, agent: Agent, name: str, reach: tuple[Reach, ...], before: list[int]
    ) -> PublishedServer:
        """
        Open the ports, then register the names; close them if one fails.
        """
        named = [way.port for way in reach if way.kind == "port" and way.port]
        for port in named:
            self._check_port(agent, port)
        free = self.registry.free_port(self.ports, agent.rights)
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
        if port not in self.ports:
            raise Rejection(
                Code.NOT_ALLOWED,
                f"servers at this relay may have the ports {self.ports}, not {port}",
            )
        if not agent.rights.may_use_port(port):
            raise Rejection(
                Code.NOT_ALLOWED, f"the account {agent.agent_id} may not use the port {port}"
            )

    def take_back(self, server: PublishedServer) -> None:
        """
        A server is published no more: its ports close.
        """
        for port in server.ports:
            self.opener.close(port)


def _once(ways: Iterable[Reach]) -> tuple[Reach, ...]:
    """
    Take out what stands there again; but each "any port" asks for one more.
    """
    kept: list[Reach] = []
    for way in ways:
        if way == _ANY_PORT or way not in kept:
            kept.append(way)
    return tuple(kept)


def _numbered(port: int) -> Reach:
    return Reach("port", str(port))

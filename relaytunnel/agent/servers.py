"""
What this agent publishes, and to which target each name leads.

The only targets that are ever dialled stand here, and they come from this
side alone.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from relaytunnel.config.access import allowed
from relaytunnel.config.endpoints import literal
from relaytunnel.config.server import ServerConfig
from relaytunnel.errors import Code, Rejection
from relaytunnel.pools import Pool
from relaytunnel.sources import IPV6_PREFIX, source_of
from relaytunnel.wire.messages import SAME_ENDPOINT, Notify, Register, Withdraw

__all__ = ["OwnServer", "Servers", "client_host", "registration"]


_NO_USERS: Mapping[str, str] = MappingProxyType({})
_SAME = (SAME_ENDPOINT,)


@dataclass(slots=True)
class OwnServer:
    """
    One server of this agent.

    @ivar registered: whether the relay has confirmed it.
    @ivar closing: whether it takes no new clients, and serves those who have
        come.
    @ivar endpoints: where data channels for it may be dialled, as the standing
        request said; nothing before it came.
    @ivar addresses: under which clients find it.
    @ivar target_address: the target's IP address and port, if it is one.
    @ivar users: the hashes of passwords by user name; empty means that none is
        asked for.
    """

    config: ServerConfig
    registered: bool = False
    closing: bool = False
    endpoints: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    target_address: tuple[str, int] | None = field(init=False)
    users: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.target_address = literal(self.config.target)
        self.users = dict(self.config.users) or _NO_USERS

    def stand(self, endpoints: tuple[str, ...]) -> None:
        """
        The standing request is there.
        """
        # An agent may have thousands of servers, and most of them this.
        self.endpoints = _SAME if endpoints == _SAME else endpoints


class Servers:
    """
    The servers of this agent by connection ID.

    @ivar clients: how many clients are served, by connection ID and source.
    @ivar sessions: all of them, whatever server they are at: as many as there
        are descriptors for, however many the relay lets in.
    """

    def __init__(
        self, configs: Iterable[ServerConfig] = (), ipv6_prefix: int = IPV6_PREFIX
    ) -> None:
        """
        @param ipv6_prefix: how many bits of an IPv6 address tell sources apart.
        """
        self.clients: Counter[tuple[str, str]] = Counter()
        self.sessions = Pool(sys.maxsize)
        self._ipv6_prefix = ipv6_prefix
        self._counted: dict[int, tuple[str, str]] = {}
        self._servers = {config.id: OwnServer(config) for config in configs}

    def __iter__(self) -> Iterator[OwnServer]:
        return iter(list(self._servers.values()))

    def __len__(self) -> int:
        return len(self._servers)

    def get(self, connection_id: str) -> OwnServer | None:
        """
        @return: the server of this connection ID, if it is one of ours.
        """
        return self._servers.get(connection_id)

    def add(self, config: ServerConfig) -> OwnServer:
        """
        Publish one more server, or the same one anew; who is served there goes
        on to count.
        """
        server = self._servers[config.id] = OwnServer(config)
        return server

    def put_back(self, server: OwnServer) -> None:
        """
        Publish what was published before.
        """
        self._servers[server.config.id] = server

    def remove(self, connection_id: str) -> None:
        """
        Publish this one no more.
        """
        self._servers.pop(connection_id, None)

    def use(self, ipv6_prefix: int) -> None:
        """
        Tell the sources of clients apart by so many bits of an IPv6 address
        from now on; who is served counts as before.
        """
        self._ipv6_prefix = ipv6_prefix

    def source(self, notify: Notify) -> str:
        """
        @return: what the client's address counts for.
        """
        return source_of(client_host(notify), self._ipv6_prefix)

    def begin(self, notify: Notify) -> None:
        """
        This client is being served.
        """
        key = notify.connection_id, self.source(notify)
        self._counted[notify.session] = key
        self.clients[key] += 1
        self.sessions.take(key[1])

    def end(self, notify: Notify) -> None:
        """
        It is not any more.
        """
        key = self._counted.pop(notify.session)
        self.sessions.give_back(key[1])
        self.clients[key] -= 1
        if not self.clients[key]:
            del self.clients[key]

    def forget_relay(self) -> None:
        """
        The control channel is gone, and with it all that the relay confirmed.
        """
        for server in self._servers.values():
            server.registered = False
            server.endpoints = ()

    def registrations(self) -> list[Register]:
        """
        @return: what to send the relay (S3).
        """
        return [
            registration(server.config) for server in self._servers.values() if not server.closing
        ]

    def close(self) -> list[Withdraw]:
        """
        Take no new clients; those who have come are served.

        @return: what to send the relay.
        """
        for server in self._servers.values():
            server.closing = True
        return [Withdraw(connection_id=name, code=Code.SHUTDOWN.value) for name in self._servers]

    def check(self, notify: Notify, come: OwnServer | None = None) -> OwnServer:
        """
        S8: may this client be served?

        @param come: the server that this client was let in to already, which
            may have begun to close since.

        @raise Rejection: the connection ID is none that this agent registered,
            the data endpoint none that the standing request named, or the
            client is not allowed.
        """
        server = self._servers.get(notify.connection_id)
        been_let_in = server is not None and server is come and server.closing
        if server is None or not (server.registered or been_let_in):
            raise Rejection(
                Code.UNKNOWN_ID, f"this agent has not registered {notify.connection_id}"
            )
        if notify.endpoint not in server.endpoints and not been_let_in:
            raise Rejection(
                Code.NOT_ALLOWED, "the standing request does not name this data endpoint"
            )
        host = client_host(notify)
        if not allowed(server.config.allow, host):
            raise Rejection(
                Code.NOT_ALLOWED, f"{notify.connection_id} is not open to clients from {host}"
            )
        most, source = server.config.sessions_per_client, self.source(notify)
        if not self.sessions.has_room(source):
            raise Rejection(
                Code.BUSY,
                f"{self.sessions.taken} sessions run at this agent, {self.sessions.of(source)}"
                " of them of this client; no more are allowed",
            )
        if most and self.clients[notify.connection_id, source] >= most:
            raise Rejection(
                Code.BUSY, f"one client has {most} sessions of {notify.connection_id} at most"
            )
        return server


def client_host(notify: Notify) -> str:
    """
    @return: the client's address, without its port.
    """
    return notify.client.rpartition(":")[0].strip("[]")


def registration(config: ServerConfig) -> Register:
    """
    @return: the message that registers this server.
    """
    return Register(
        connection_id=config.id,
        reach=tuple(str(way) for way in config.reach),
        data=config.data,
        allow=tuple(str(network) for network in config.allow),
        listed=config.listed,
        users=config.users,
        sessions_per_client=config.sessions_per_client,
        wants_address=bool(config.proxy),
        http=config.http,
    )

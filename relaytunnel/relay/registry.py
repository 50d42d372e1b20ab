"""
The agents that are present, the servers they publish, and the names by which
clients find those servers.  Pure state: whoever changes it decides why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from relaytunnel.config.access import Network
from relaytunnel.config.hosts import RelayNames
from relaytunnel.config.names import PortRange, Reach
from relaytunnel.errors import Code, Rejection
from relaytunnel.relay.awaymemory import AwayMemory
from relaytunnel.wire.messages import Message, Register

__all__ = ["Agent", "PublishedServer", "Registry", "RightsView"]

_MOST_SHOWN = 64


class RightsView(Protocol):
    """
    What an account allows.
    """

    def may_publish(self, connection_id: str, expressly: bool = False) -> bool:
        """
        Whether a server may be published under this connection ID; C{expressly}
        leaves the pattern C{*} out.
        """

    def may_claim(self, claim: str, expressly: bool = False) -> bool:
        """The same for a host name, or a wildcard of them."""

    def may_use_port(self, port: int) -> bool:
        """Whether a server may have this port of the relay."""


@dataclass(eq=False)
class Agent:
    """
    An agent that is present: the relay's end of one control channel.

    @ivar epoch: what the agent said of its start; a ghost has a lower one, or
        the same one on an older channel.
    @ivar rights: what it may publish, as its account says now.
    @ivar send: sends it a message.
    @ivar dismiss: ends its control channel, with a code and a reason.
    @ivar recheck: says that its account says something else now.
    @ivar servers: what it publishes.
    @ivar refused: what it asked for and its account does not allow, by
        connection ID; a bounded number, to be published when it does.
    """

    agent_id: str
    epoch: int
    rights: RightsView
    send: Callable[[Message], None]
    dismiss: Callable[[Code, str], None]
    recheck: Callable[[RightsView], None]
    peer: str = ""
    software: str = ""
    since: float = 0.0
    servers: dict[str, PublishedServer] = field(default_factory=dict)
    refused: dict[str, Refused] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """The address that it came from, without the port."""
        return self.peer.rpartition(":")[0]

    @property
    def refused_claims(self) -> list[str]:
        """The host names and wildcards that it claims without a right, 64 at most."""
        kept = self.refused.values()
        claims = dict.fromkeys(claim for each in kept for claim in each.claims[:_MOST_SHOWN])
        return list(claims)[:_MOST_SHOWN]


@dataclass(frozen=True)
class Refused:
    """
    A server that an account does not allow.

    @ivar message: what its agent asked for.
    @ivar claims: the host names and wildcards that the account has no right to.
    """

    message: Register
    claims: tuple[str, ...] = ()


@dataclass(eq=False)
class PublishedServer:
    """
    A server that clients can reach.

    @ivar reach: by which names and ports; never empty.
    @ivar claims: the host names among them that its account needs a right to.
    @ivar data: C{"tls"} or C{"plain"}.
    @ivar allow: the client networks that may come in; empty means all.
    @ivar listed: whether clients that name nobody are told of it.
    @ivar users: the hashes of passwords by user name; empty means that none is
        asked for.
    @ivar sessions_per_client: how many sessions one client address may have;
        0 is as many as the relay allows.
    @ivar wants_address: whether its agent is to be told what clients connected
        to.
    @ivar addresses: the same as C{reach}, as people type it.
    @ivar stopping: whether it is gone because its agent stops.
    @ivar message: what its agent asked for.
    @ivar checked: the rights that were found to allow it, the last time.
    @ivar http: C{"raw"} if the first request of a connection stands for all that
        come on it, else C{"requests"}.
    @ivar withdrawn: whether it was withdrawn, replaced or forbidden, and not
        lost with its agent.
    """

    connection_id: str
    agent: Agent
    reach: tuple[Reach, ...]
    data: str = "tls"
    allow: tuple[Network, ...] = ()
    listed: bool = False
    users: dict[str, str] = field(default_factory=dict, repr=False)
    sessions_per_client: int = 0
    wants_address: bool = False
    addresses: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    message: Register | None = field(default=None, compare=False, repr=False)
    checked: RightsView | None = field(default=None, compare=False, repr=False)
    stopping: bool = field(default=False, compare=False, repr=False)
    http: str = "requests"
    withdrawn: bool = False

    @property
    def ports(self) -> list[int]:
        """The ports of its own that it has."""
        return [way.port for way in self.reach if way.kind == "port"]

    @property
    def by_id(self) -> bool:
        """Whether its connection ID alone leads to it."""
        return any(way.kind == "name" for way in self.reach)

    def covered(self, rights: RightsView) -> bool:
        """
        Whether these rights allow its ID, its ports and its claims.
        """
        return (
            rights.may_publish(self.connection_id)
            and all(rights.may_use_port(port) for port in self.ports)
            and all(rights.may_claim(claim) for claim in self.claims)
        )


class Registry:
    """
    Who is here and who can be reached, by every name.

    @ivar agents: by agent ID.
    @ivar servers: by connection ID.
    @ivar names: the relay's own names.
    @ivar entered: called when an agent has come.
    @ivar published: called when a server can be reached.
    @ivar away: the names of servers whose agent is away.
    @ivar returning: says whether agents may well be on their way that were
        here before this relay started.
    """

    def __init__(
        self,
        names: RelayNames | None = None,
        seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """
        @param names: the relay's own names; C{localhost} alone if not given.
        @param seconds: the clock.
        """
        self.names = RelayNames() if names is None else names
        self.agents: dict[str, Agent] = {}
        self.servers: dict[str, PublishedServer] = {}
        self.entered: Callable[[Agent], object] = lambda agent: None
        self.published: Callable[[], object] = lambda: None
        self._names: dict[str, dict[str, PublishedServer]] = {"host": {}, "sni": {}}
        self._ports: dict[int, PublishedServer] = {}
        self.away = AwayMemory(seconds)
        self.returning: Callable[[], bool] = lambda: False

    # Agents

    def challenge(self, agent: Agent) -> Agent | None:
        """
        An agent wants to come in (S2).

        @return: its ghost, which has to leave first, if there is one.
        @raise Rejection: an agent of this ID that started later is present.
        """
        ghost = self.agents.get(agent.agent_id)
        if ghost is not None and ghost.epoch > agent.epoch:
            raise Rejection(
                Code.STALE_EPOCH,
                f"an agent {agent.agent_id} that was started later is connected from {ghost.peer}",
            )
        return ghost

    def enter(self, agent: Agent) -> None:
        """
        An agent has come; its ghost has left.
        """
        self.agents[agent.agent_id] = agent
        self.entered(agent)

    def leave(self, agent: Agent) -> list[PublishedServer]:
        """
        An agent is gone, and what it published with it.

        @return: the servers that are published no more.
        """
        gone = list(agent.servers.values())
        for server in gone:
            self.remove(server)
        if self.agents.get(agent.agent_id) is agent:
            del self.agents[agent.agent_id]
        return gone

    # Servers

    def check(self, server: PublishedServer) -> None:
        """
        A server shall be published (S4).

        @raise Rejection: another agent has its connection ID, or another
            server one of its names or ports, or another agent's server goes
            by one of them as its ID.
        """
        holder = self.servers.get(server.connection_id)
        if holder is not None and holder.agent is not server.agent:
            raise Rejection(Code.CONFLICT, f"another agent publishes {server.connection_id}")
        for way in server.reach:
            other = self._claimant(way)
            if other is not None and other is not holder:
                code = Code.PORT_TAKEN if way.kind == "port" else Code.CONFLICT
                raise Rejection(code, f"{way} is taken by the server {other.connection_id}")
            named = self._by_id(way.value) if way.kind in self._names else None
            if named is not None and named.agent is not server.agent:
                raise Rejection(Code.CONFLICT, f"{way} is the ID of another agent's server")
        if server.by_id:
            for claims in self._names.values():
                other = claims.get(server.connection_id)
                if other is not None and other.agent is not server.agent:
                    raise Rejection(
                        Code.CONFLICT,
                        f"the server {other.connection_id} of another agent has claimed the host"
                        f" name {server.connection_id}",
                    )

    def add(self, server: PublishedServer) -> None:
        """
        A server is published (S4), perhaps instead of what its agent published
        under its ID before.

        @raise Rejection: as of L{check}.
        """
        self.check(server)
        holder = self.servers.get(server.connection_id)
        if holder is not None:
            self.forget(holder)
        self.servers[server.connection_id] = server
        server.agent.servers[server.connection_id] = server
        for way in server.reach:
            if way.kind in self._names:
                self._names[way.kind][way.value] = server
            elif way.kind == "port":
                self._ports[way.port] = server
        self.away.forget(self._remembered(server))
        self.published()

    def remove(self, server: PublishedServer) -> None:
        """
        A server is published no more.  For a while its names are remembered
        as those of a server whose agent is away.
        """
        if self.servers.get(server.connection_id) is not server:
            return
        del self.servers[server.connection_id]
        server.agent.servers.pop(server.connection_id, None)
        for way in server.reach:
            if way.kind in self._names:
                del self._names[way.kind][way.value]
            elif way.kind == "port":
                del self._ports[way.port]
        self.away.remember(server.agent.agent_id, self._remembered(server))

    def forget(self, server: PublishedServer) -> None:
        """
        A server was withdrawn on purpose: nobody is away, it does not exist.
        """
        self.remove(server)
        server.withdrawn = True
        self.away.forget(self._remembered(server))

    # Finding

    def keeps(self, server: PublishedServer) -> bool:
        """
        @return: whether a session of this server may serve another request: it
            is here, or its agent is away and nothing else has its ID since.
        """
        return not server.withdrawn and self.servers.get(server.connection_id, server) is server

    def by_port(self, port: int) -> PublishedServer | None:
        """
        @return: the server that has this port of the relay.
        """
        return self._ports.get(port)

    def by_name(self, kind: str, name: str) -> PublishedServer | None:
        """
        Find the server that a client names: the one that claimed the whole
        name, or whose connection ID it is, by itself or below a name of the
        relay, or the one that claimed a wildcard for its first label.

        @param kind: C{host} for HTTP, C{sni} for TLS; any other knows no
            claims.
        """
        if name in self.names.names:
            return None
        claims = self._names.get(kind, {})
        server = claims.get(name)
        if server is not None:
            return server
        below = self.names.below(name)
        server = self._by_id(name if below is None else below)
        if server is not None or below is not None:
            return server
        server = claims.get(_wildcard(name))
        if server is not None or not self.names.id_anywhere:
            return server
        return next(filter(None, map(self._by_id, self.names.ids(name))), None)

    def _by_id(self, connection_id: str) -> PublishedServer | None:
        server = self.servers.get(connection_id)
        return server if server is not None and server.by_id else None

    def missing(self, kind: str, name: str) -> Rejection:
        """
        @return: why no server goes by this name.
        """
        claims = ((kind, name), (kind, _wildcard(name)))
        for key in (*claims, *(("name", each) for each in self.names.ids(name))):
            if key in self.away:
                return Rejection(
                    Code.AGENT_AWAY, f"the agent that publishes {key[1]} is not connected now"
                )
        if self.returning():
            return Rejection(
                Code.AGENT_AWAY,
                f"no server is published as {name} yet; this relay has just started, and agents"
                " are still coming back",
            )
        return Rejection(Code.NO_SUCH_SERVER, f"no server is published as {name}")

    def free_port(self, ports: PortRange, rights: RightsView) -> Iterator[int]:
        """
        Yield the ports of this range that no server has and the rights allow.
        """
        for port in range(ports.first, ports.last + 1):
            if port not in self._ports and rights.may_use_port(port):
                yield port

    def _claimant(self, way: Reach) -> PublishedServer | None:
        if way.kind == "port":
            return self._ports.get(way.port)
        return self._names.get(way.kind, {}).get(way.value)

    @staticmethod
    def _remembered(server: PublishedServer) -> list[tuple[str, str]]:
        keys = [(way.kind, way.value) for way in server.reach if way.kind in ("host", "sni")]
        if server.by_id:
            keys.append(("name", server.connection_id))
        return keys


def _wildcard(name: str) -> str:
    return "*." + name.partition(".")[2]

"""
Which server a client means, and which ones it may be told of (S5, S6).

Pure: what the client said comes as a value, and who is here from the registry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from relaytunnel.arrival import Choice, Login, Named
from relaytunnel.config.access import allowed
from relaytunnel.errors import Code, Failing, Rejection
from relaytunnel.relay.choices import Choices
from relaytunnel.relay.registry import PublishedServer, Registry
from relaytunnel.wire.messages import LONGEST_GIVEN

__all__ = [
    "LOGIN_WAYS",
    "ClientDirectory",
    "Finder",
    "Unnamed",
    "check_access",
    "login_to_compare",
]

_BY_ID_ALONE = frozenset({"connect", "socks5", "socks4", "question"})
_KINDS = {"http": "host", "sni": "sni", "postgres": "sni"}

LOGIN_WAYS = frozenset({"http", "connect", "socks5"})
"""The ways in which a user name and a password can be given."""


class Unnamed(Rejection):
    """
    The client named nobody, so it may be asked.
    """

    def __init__(self) -> None:
        super().__init__(Code.NO_SUCH_SERVER, "the client named no server and is asked")


@dataclass
class Finder:
    """
    Finds servers by what clients say.
    """

    registry: Registry
    choices: Choices

    def find(
        self, named: Named, default: str = "", source: str = ""
    ) -> tuple[PublishedServer, str]:
        """
        Say which server is meant.

        @param default: the connection ID of the one that is meant where none
            is named that is known, if there is such a one.
        @param source: where the client comes from: what it chose before holds
            for there.

        @return: the server, and how it was found, such as C{host:web.example}.
        @raise Unnamed: none is named.
        @raise Rejection: the one that is named is not here.
        """
        kind = _KINDS.get(named.way, "name")
        try:
            return self._named(named, kind, source)
        except Rejection as rejection:
            if default and named.way not in _BY_ID_ALONE and rejection.code is not Code.AGENT_AWAY:
                return self._by_id(default), f"default:{default}"
            raise

    def _named(self, named: Named, kind: str, source: str) -> tuple[PublishedServer, str]:
        if named.host is not None:
            server = self.registry.by_name(kind, named.host)
            if server is not None:
                return server, f"{kind}:{named.host}"
            if kind != "host" or not self.registry.names.own(named.host):
                raise self.registry.missing(kind, named.host)
        if named.service_worker:
            # It would stay between all servers at this name and their clients.
            raise Rejection(
                Code.NOT_ALLOWED,
                "a service worker needs a name that is one server's alone",
            )
        if named.remembered is not None:
            chosen = self.choices.chosen(named.remembered, source)
            server = None if chosen is None else self.registry.by_name("name", chosen)
            if server is not None:
                return server, f"chosen:{chosen}"
        raise Unnamed

    def _by_id(self, connection_id: str) -> PublishedServer:
        server = self.registry.servers.get(connection_id)
        if server is None:
            raise self.registry.missing("name", connection_id)
        return server


@dataclass
class ClientDirectory:
    """
    What the client at one address may know of the servers.

    @ivar source: what that counts for.
    @ivar names_below: see L{relaytunnel.arrival.ways.Directory.has_names_below}.
    """

    registry: Registry
    client: str
    source: str
    choices: Choices
    names_below: Callable[[str], bool] = lambda host: False

    def remember(self, connection_id: str) -> str | None:
        """
        See L{relaytunnel.arrival.ways.Directory.remember}.
        """
        return self.choices.token(connection_id, self.source)

    def remembered(self, token: str) -> str | None:
        """
        See L{relaytunnel.arrival.ways.Directory.remembered}.
        """
        return self.choices.chosen(token, self.source)

    def has_names_below(self, host: str) -> bool:
        """
        See L{relaytunnel.arrival.ways.Directory.has_names_below}.
        """
        return self.names_below(host)

    def listed(self) -> list[Choice]:
        """
        See L{relaytunnel.arrival.ways.Directory.listed}.
        """
        servers = self.registry.servers
        return [
            Choice(name, servers[name].addresses)
            for name in sorted(name for name, server in servers.items() if self._shown(server))
        ]

    def _shown(self, server: PublishedServer) -> bool:
        return server.listed and server.by_id and allowed(server.allow, self.client)

    def refuses(self, connection_id: str) -> Failing | None:
        """
        See L{relaytunnel.arrival.ways.Directory.refuses}.
        """
        server = self.registry.by_name("name", connection_id)
        try:
            if server is None:
                raise self.registry.missing("name", connection_id)
            check_access(server, self.client)
        except Rejection as rejection:
            return Failing(rejection.code, rejection.reason)
        return None


def check_access(server: PublishedServer, client: str) -> None:
    """
    S6: look whether clients from this address may come in at all.

    @raise Rejection: they may not.
    """
    if not allowed(server.allow, client):
        raise Rejection(
            Code.NOT_ALLOWED, f"{server.connection_id} is not open to clients from {client}"
        )


def login_to_compare(server: PublishedServer, way: str, login: Login | None) -> Login | None:
    """
    S6: look whether a client has to prove who it is, and can.

    @param way: in which way it came.

    @return: what it gave, which is to be compared; L{None} if nothing is asked
        for.
    @raise Rejection: it has to say who it is, or cannot.
    """
    if not server.users:
        return None
    if way not in LOGIN_WAYS:
        raise Rejection(
            Code.NOT_ALLOWED,
            f"{server.connection_id} asks for a user name and a password, which cannot be given"
            " in this way; HTTP, HTTP CONNECT and SOCKS5 can",
        )
    if login is None:
        raise Rejection(
            Code.LOGIN_NEEDED, f"{server.connection_id} asks for a user name and a password"
        )
    if len(login.user) > LONGEST_GIVEN or len(login.password) > LONGEST_GIVEN:
        raise Rejection(Code.LOGIN_NEEDED, "the user name or the password is wrong")
    return login

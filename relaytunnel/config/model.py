"""
What a relay and an agent are configured to do, as frozen values.

Every value checks itself when it is made, also one made from options or by
L{msgspec.structs.replace}: texts come into their canonical form, and all
faults are raised together as one L{ConfigError}.  Files are read in C{load};
limits are in C{limits}, a single server in C{server}, the forms of names in
C{names} and C{endpoints}.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from relaytunnel.config.access import Network
from relaytunnel.config.checked import Checked, each, once
from relaytunnel.config.endpoints import endpoint_description
from relaytunnel.config.hosts import RelayNames, host_right
from relaytunnel.config.limits import Limits
from relaytunnel.config.names import (
    PortRange,
    agent_id,
    connection_id,
    host,
    publish_pattern,
    shown,
)
from relaytunnel.config.server import ServerConfig
from relaytunnel.config.users import secret_hash
from relaytunnel.errors import ConfigError

__all__ = [
    "AgentConfig",
    "ClientPort",
    "FileAccount",
    "Limits",
    "RelayConfig",
    "ServerConfig",
    "admin_endpoint",
    "default_state",
    "listening_endpoint",
]


def default_state(environ: Mapping[str, str] | None = None, uid: int | None = None) -> str:
    """
    Find the directory in which a relay keeps its state.

    It is the one that systemd made (C{$STATE_DIRECTORY}, the first if there
    are several), else F{/var/lib/relaytunnel} for root, else below
    C{$XDG_STATE_HOME}, which is F{~/.local/state} unless it is an absolute
    path (XDG Base Directory Specification).

    @return: the directory; the empty string for a user without a home
        directory, as the one of a container that the system does not know.
    """
    environ = os.environ if environ is None else environ
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return given
    if (os.getuid() if uid is None else uid) == 0:
        return "/var/lib/relaytunnel"
    base = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        home = environ.get("HOME") or os.path.expanduser("~")
        if not os.path.isabs(home):  # "~" stays as it is for a user without an entry
            return ""
        base = os.path.join(home, ".local", "state")
    return os.path.join(base, "relaytunnel")


def listening_endpoint(text: str) -> str:
    """
    Check an endpoint to listen on.

    @raise ValueError: it cannot be one.
    """
    return endpoint_description(text, "server")


def admin_endpoint(text: str) -> str:
    """
    Check the endpoint of the admin interface; C{off} or nothing is none.

    @return: the endpoint, or the empty string.
    @raise ValueError: it cannot be one.
    """
    return "" if text in ("", "off") else listening_endpoint(text)


class ClientPort(Checked, frozen=True, rename="kebab"):
    """
    A shared port that clients dial.

    @ivar endpoint: where to listen.
    @ivar default: the connection ID of the server for clients that name none
        that is known; nothing means that they are asked, or turned away.
    """

    endpoint: str
    default: str = ""

    def __post_init__(self) -> None:
        faults: list[str] = []
        self.settle(faults, "endpoint", "[listen] clients", listening_endpoint)
        if self.default:
            self.settle(
                faults,
                "default",
                f"[listen] clients {shown(self.endpoint)} default",
                connection_id,
            )
        if faults:
            raise ConfigError(faults)

    def __str__(self) -> str:
        return self.endpoint


class FileAccount(Checked, frozen=True, rename="kebab"):
    """
    An agent's account that stands in the relay's file.

    @ivar secret_hash: see L{secret_hash}.
    @ivar publish: patterns of the connection IDs it may register; none by
        default.
    @ivar ports: ranges from which its servers may ask for a port.
    @ivar hosts: patterns of the host names that its servers may claim; none by
        default.
    """

    id: str
    secret_hash: str
    publish: tuple[str, ...] = ()
    ports: tuple[PortRange, ...] = ()
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        faults: list[str] = []
        place = f"[[agent]] {shown(self.id)}"
        self.settle(faults, "id", f"{place} id", agent_id)
        self.settle(faults, "secret_hash", f"{place} secret-hash", secret_hash)
        self.settle(faults, "publish", f"{place} publish", each(publish_pattern))
        self.settle(faults, "hosts", f"{place} hosts", each(host_right))
        if faults:
            raise ConfigError(faults)


def _client_port(given: str | ClientPort) -> ClientPort:
    if isinstance(given, ClientPort):
        return given
    return ClientPort(endpoint=listening_endpoint(given))


class RelayConfig(Checked, frozen=True, rename="kebab"):
    """
    Everything that a relay is told.

    @ivar name: its public name or IP address.
    @ivar names: further ones by which clients reach it.
    @ivar id_anywhere: whether a connection ID names its server also at the
        start of host names that are not below one of these.
    @ivar invite_first: whether it invites a first agent by itself.
    @ivar state: the directory of its key, certificate and accounts.
    @ivar agents: the endpoint that agents dial.
    @ivar clients: the shared ports that clients dial; an endpoint stands for
        one without a default.
    @ivar proxies: the networks of balancers, which begin every connection to a
        client's port with a header of the PROXY protocol.
    @ivar admin: the endpoint of the admin interface, or nothing.
    @ivar ports: the ports that servers may ask for.
    @ivar certificate: a PEM file with the chain, if not the relay's own.
    @ivar key: the PEM file of its key.
    """

    name: str = "localhost"
    names: tuple[str, ...] = ()
    id_anywhere: bool = False
    invite_first: bool = True
    state: str = msgspec.field(default_factory=default_state)
    agents: str = "tcp:7000"
    clients: tuple[ClientPort, ...] = (ClientPort(endpoint="tcp:8000"),)
    proxies: tuple[Network, ...] = ()
    admin: str = "tcp:7080:interface=127.0.0.1"
    ports: PortRange = PortRange(20000, 20999)
    certificate: str | None = None
    key: str | None = None
    limits: Limits = Limits()
    accounts: tuple[FileAccount, ...] = ()

    def __post_init__(self) -> None:
        faults: list[str] = []
        self.settle(faults, "name", "[relay] name", host)
        self.settle(faults, "names", "[relay] names", each(host))
        if not self.state:
            faults.append(
                "[relay] state: a directory is needed, and this user has no home directory for a"
                " default; name it here or with --state"
            )
        self.settle(faults, "agents", "[listen] agents", listening_endpoint)
        self.settle(faults, "clients", "[listen] clients", each(_client_port))
        self.settle(faults, "admin", "[listen] admin", admin_endpoint)
        if not self.clients:
            faults.append("[listen] clients: at least one endpoint is needed")
        faults += once(self.clients, "[listen] clients")
        if self.certificate and not self.key:
            faults.append("[tls] key: missing; a certificate needs its key")
        if self.key and not self.certificate:
            faults.append("[tls] certificate: missing; a key needs its certificate")
        faults += once((account.id for account in self.accounts), "[[agent]] id")
        if not faults:
            names = self.all_names
            faults += [
                f"[[agent]] {shown(account.id)} hosts: '{pattern}': {fault}"
                for account in self.accounts
                for pattern in account.hosts
                if (fault := names.right_fault(pattern)) is not None
            ]
        if faults:
            raise ConfigError(faults)

    @property
    def all_names(self) -> RelayNames:
        """All names of the relay, and what goes by names below them."""
        return RelayNames((self.name, *self.names), self.id_anywhere)


class AgentConfig(Checked, frozen=True, rename="kebab"):
    """
    Everything that an agent is told.

    @ivar join: the invitation itself; kept out of the C{repr}.
    @ivar join_file: a file with the invitation.
    @ivar ca: a PEM file of authorities for an invitation without a pin.
    @ivar local: the path of a UNIX socket where servers on this machine ask to
        be published.
    """

    join: str | None = None
    join_file: str | None = None
    ca: str | None = None
    local: str | None = None
    servers: tuple[ServerConfig, ...] = ()
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        faults: list[str] = []
        if self.join is not None and self.join_file is not None:
            faults.append("[agent] join-file: join is given as well; only one of them can be")
        faults += once((server.id for server in self.servers), "[[server]] id")
        ways: dict[str, str] = {}
        for server in self.servers:
            for way in map(str, server.reach):
                other = ways.setdefault(way, server.id)
                if other != server.id and way not in ("name", "port:0"):
                    faults.append(
                        f"[[server]] '{server.id}' reach: '{way}' is already that of '{other}'"
                    )
        if faults:
            raise ConfigError(faults)

    def __repr__(self) -> str:
        return (
            f"AgentConfig(join={'<hidden>' if self.join else None}, join_file={self.join_file!r},"
            f" ca={self.ca!r}, local={self.local!r}, servers={self.servers!r},"
            f" limits={self.limits!r})"
        )

    def complete(self) -> AgentConfig:
        """
        Give this back if there is an invitation, once file and options have
        been put together.

        @raise ConfigError: there is none.
        """
        if self.join is None and self.join_file is None:
            raise ConfigError(["[agent] join: missing; give join or join-file (see invitation)"])
        return self

"""
Which tables and keys stand in F{relay.toml} and F{agent.toml}.

What is given here are tables that are parsed already; files and TOML are
opened in C{load}, single tables read in C{tables}, and the meaning of values
checked in C{model} and the modules below it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal, TypeVar

import relaytunnel.wire.invitation as wire_invitation
from relaytunnel.config.access import Network, networks
from relaytunnel.config.hosts import host_right
from relaytunnel.config.limits import LIMIT_KEYS, Limits
from relaytunnel.config.model import (
    AgentConfig,
    ClientPort,
    FileAccount,
    RelayConfig,
    ServerConfig,
    admin_endpoint,
    default_state,
    listening_endpoint,
)
from relaytunnel.config.names import (
    PortRange,
    Reach,
    agent_id,
    connection_id,
    host,
    publish_pattern,
    shown,
)
from relaytunnel.config.server import given_target, http_mode, proxy_version
from relaytunnel.config.tables import Table, given, key_shown, nearest
from relaytunnel.config.users import password_hash, secret_hash, user_name
from relaytunnel.errors import ConfigError, InvitationError

__all__ = ["read_agent", "read_relay"]

T = TypeVar("T")


def read_relay(
    top: dict[str, object], name: str, directory: str, state: str | None = None
) -> RelayConfig:
    """
    Make of a parsed F{relay.toml} what it says.

    @param name: what to call the file in faults.
    @param directory: what relative paths are relative to.
    @param state: the state directory if the file names none; C{None} for
        L{default_state}.
    @raise ConfigError: with every fault.
    """
    faults: list[str] = []
    relay, listen, tls = _tables(top, name, faults, "agent", "relay", "listen", "tls")
    relay.only("name", "names", "state", "id-anywhere", "invite-first")
    listen.only("agents", "clients", "admin", "ports", "proxies")
    tls.only("certificate", "key")
    path = _path_in(directory)
    default = RelayConfig(state=".")
    default_directory = default_state() if state is None else state

    def pem(key: str) -> str | None:
        # A faulty path is no missing half of the pair, so it is not None then.
        return tls.text(key, path, "faulty" if tls.has(key) else None)

    accounts = _array(top, name, faults, "agent", _account)
    return _made(
        lambda: RelayConfig(
            name=relay.text("name", host, default.name),
            names=relay.texts("names", host, ()),
            id_anywhere=relay.flag("id-anywhere"),
            invite_first=relay.flag("invite-first", True),
            state=relay.text("state", path, "." if relay.has("state") else default_directory),
            agents=listen.text("agents", listening_endpoint, default.agents),
            clients=listen.items("clients", _client_port, default.clients),
            proxies=listen.texts("proxies", _network, ()),
            admin=listen.text("admin", admin_endpoint, default.admin),
            ports=listen.text("ports", PortRange.parse, default.ports),
            certificate=pem("certificate"),
            key=pem("key"),
            limits=_limits(top, name, faults),
            accounts=accounts,
        ),
        name,
        faults,
    )


def read_agent(top: dict[str, object], name: str, directory: str) -> AgentConfig:
    """
    Make of a parsed F{agent.toml} what it says; see L{read_relay}.
    """
    faults: list[str] = []
    (agent,) = _tables(top, name, faults, "server", "agent")
    agent.only("join", "join-file", "ca", "local")
    path = _path_in(directory)
    servers = _array(top, name, faults, "server", _server)
    return _made(
        lambda: AgentConfig(
            join=agent.text("join", _invitation, None),
            join_file=agent.text("join-file", path, None),
            ca=agent.text("ca", path, None),
            local=agent.text("local", path, None),
            servers=servers,
            limits=_limits(top, name, faults),
        ),
        name,
        faults,
    )


def _account(table: Table, stand_in: str) -> FileAccount:
    table.only("id", "secret-hash", "publish", "ports", "hosts")
    return FileAccount(
        id=table.text("id", agent_id, stand_in, must=True),
        secret_hash=table.text("secret-hash", secret_hash, "sha256:" + "0" * 64, must=True),
        publish=table.texts("publish", publish_pattern, ()),
        ports=table.texts("ports", PortRange.parse, (), single=True),
        hosts=table.texts("hosts", host_right, ()),
    )


def _server(table: Table, stand_in: str) -> ServerConfig:
    table.only(
        "id",
        "target",
        "reach",
        "allow",
        "data",
        "listed",
        "users",
        "sessions-per-client",
        "proxy",
        "http",
    )
    return ServerConfig(
        id=table.text("id", connection_id, stand_in, must=True),
        target=table.text("target", given_target, "tcp:localhost:1", must=True),
        reach=table.texts("reach", Reach.parse, ()),
        allow=table.texts("allow", _network, ()),
        data=table.text("data", _data, "tls"),
        listed=table.flag("listed"),
        users=table.pairs("users", user_name, password_hash),
        sessions_per_client=table.whole("sessions-per-client", 0),
        proxy=table.text("proxy", proxy_version, ""),
        http=table.text("http", http_mode, "requests"),
    )


def _client_port(value: str | Table) -> ClientPort:
    if isinstance(value, str):
        return ClientPort(endpoint=listening_endpoint(value))
    value.only("endpoint", "default")
    return ClientPort(
        endpoint=value.text("endpoint", listening_endpoint, "tcp:0", must=True),
        default=value.text("default", connection_id, ""),
    )


def _network(text: str) -> Network:
    return networks([text])[0]


def _limits(top: dict[str, object], name: str, faults: list[str]) -> Limits:
    values = top.get("limits", {})
    if not isinstance(values, dict):
        return Limits()  # the fault is told with the other tables
    Table(values, f"{name}: [limits]", faults).only(*LIMIT_KEYS)
    known = {LIMIT_KEYS[key]: value for key, value in values.items() if key in LIMIT_KEYS}
    try:
        return Limits(**known)
    except ConfigError as error:
        faults += [f"{name}: {fault}" for fault in error.faults]
        return Limits()


def _tables(
    top: dict[str, object], name: str, faults: list[str], array: str, *singles: str
) -> list[Table]:
    """
    Find the tables that there may be once; one that is not there is empty.
    Whatever else stands at the top, besides the array of tables, is a fault.
    """
    known = (*singles, "limits", array)
    for key, value in top.items():
        if key not in known:
            near = nearest(key, known)
            brackets = "[[{}]]" if near == array else "[{}]"
            hint = f"; did you mean {brackets.format(near)}?" if near else ""
            if isinstance(value, dict):
                faults.append(f"{name}: [{key_shown(key)}]: unknown table{hint}")
            else:
                hint = hint or f"; keys stand in a table such as [{singles[0]}]"
                faults.append(f"{name}: {key_shown(key)}: unknown key{hint}")
        elif key != array and not isinstance(value, dict):
            faults.append(f"{name}: [{key}]: expected a table, given {given(value)}")
    found = []
    for key in singles:
        value = top.get(key, {})
        found.append(Table(value if isinstance(value, dict) else {}, f"{name}: [{key}]", faults))
    return found


def _array(
    top: dict[str, object],
    name: str,
    faults: list[str],
    key: str,
    read: Callable[[Table, str], T],
) -> tuple[T, ...]:
    """
    Read each table of an array of tables, telling them apart by their C{id}.
    """
    array = top.get(key, [])
    if not isinstance(array, list):
        faults.append(f"{name}: [[{key}]]: expected an array of tables, given {given(array)}")
        return ()
    made = []
    for number, values in enumerate(array, 1):
        if not isinstance(values, dict):
            faults.append(f"{name}: [[{key}]]: expected a table, given {given(values)} in it")
            continue
        identity = values.get("id")
        which = shown(identity) if isinstance(identity, str) else f"number {number}"
        table = Table(values, f"{name}: [[{key}]] {which}", faults)
        try:
            made.append(read(table, f"number-{number}"))
        except ConfigError as error:
            faults += [f"{name}: {fault}" for fault in error.faults]
    return tuple(made)


def _made(make: Callable[[], T], name: str, faults: list[str]) -> T:
    """
    Make the whole configuration, unless any fault has been found by then.
    """
    try:
        made = make()
    except ConfigError as error:
        faults += [f"{name}: {fault}" for fault in error.faults]
        raise ConfigError(faults) from None
    if faults:
        raise ConfigError(faults)
    return made


def _path_in(directory: str) -> Callable[[str], str]:
    def path(text: str) -> str:
        if not text or not text.isprintable():
            raise ValueError(f"{shown(text)}: not a path")
        return os.path.join(directory, text)

    return path


def _invitation(text: str) -> str:
    try:
        wire_invitation.Invitation.parse(text)
    except InvitationError as error:
        raise ValueError(str(error)) from None
    return text.strip()


def _data(text: str) -> Literal["tls", "plain"]:
    if text == "tls":
        return "tls"
    if text == "plain":
        return "plain"
    raise ValueError(f"{shown(text)}: expected tls or plain")

"""
One server as its agent publishes it: name, target, ways to it, and for whom.

The rest of what an agent is told is in C{model}.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

import relaytunnel.config.users as given_users
from relaytunnel.config.access import Network
from relaytunnel.config.checked import Checked, once
from relaytunnel.config.endpoints import is_url, speaks_tls
from relaytunnel.config.endpoints import target as endpoint_target
from relaytunnel.config.names import Reach, connection_id, port_number, shown
from relaytunnel.errors import ConfigError

__all__ = ["MOST_SESSIONS", "ServerConfig", "given_target", "http_mode", "proxy_version"]

MOST_SESSIONS = 1_000_000
"""As many as a limit of sessions can be."""

_OPTION = re.compile(r",(?:(port|proxy|http)=([^,:/]*)|(listed))\Z")


def given_target(text: str) -> str:
    """
    Check a target, and leave a URL as it is, for what it means to be told.

    @return: the client endpoint that it is, or the URL.
    @raise ValueError: it is none of the forms of a target.
    """
    meant = endpoint_target(text)
    return text if is_url(text) else meant


def proxy_version(text: str) -> Literal["", "v1", "v2"]:
    """
    Check how the server is told of its clients' addresses.

    @raise ValueError: it is neither C{v1}, C{v2} nor C{off}.
    """
    if text in ("", "off"):
        return ""
    if text == "v1":
        return "v1"
    if text == "v2":
        return "v2"
    raise ValueError(f"{shown(text)}: expected v1, v2 or off")


def http_mode(text: str) -> Literal["requests", "raw"]:
    """
    Check how the requests of an HTTP connection are looked at.

    @raise ValueError: it is neither C{requests} nor C{raw}.
    """
    if text == "requests":
        return "requests"
    if text == "raw":
        return "raw"
    raise ValueError(f"{shown(text)}: expected requests or raw")


class ServerConfig(Checked, frozen=True, rename="kebab"):
    """
    One server that an agent publishes.

    @ivar id: its connection ID.
    @ivar target: where it is inside, as a Twisted client endpoint.
    @ivar reach: how clients may reach it; none means by its ID everywhere.
    @ivar allow: which clients may; none means everybody.
    @ivar data: whether its data channels are encrypted; C{plain} suits what
        is encrypted already.
    @ivar listed: whether clients that name nobody are told of it.
    @ivar users: who may come in, each with the hash of a password; nobody
        named means that none is asked for.
    @ivar sessions_per_client: how many sessions one client address may have;
        0 is as many as the relay allows.
    @ivar proxy: in which version of the PROXY protocol the server is told its
        client's address, if in any.
    @ivar http: C{"raw"} if the first request of an HTTP connection stands for
        all that come on it; else each is routed and let in by itself.
    """

    id: str
    target: str
    reach: tuple[Reach, ...] = ()
    allow: tuple[Network, ...] = ()
    data: Literal["tls", "plain"] = "tls"
    listed: bool = False
    users: tuple[tuple[str, str], ...] = ()
    sessions_per_client: int = 0
    proxy: Literal["", "v1", "v2"] = ""
    http: Literal["requests", "raw"] = "requests"
    _target_url: str = ""

    def __post_init__(self) -> None:
        faults: list[str] = []
        place = f"[[server]] {shown(self.id)}"
        self.settle(faults, "id", f"{place} id", connection_id)
        if is_url(self.target):
            msgspec.structs.force_setattr(self, "_target_url", self.target)
        self.settle(faults, "target", f"{place} target", endpoint_target)
        faults += once((r for r in self.reach if str(r) != "port:0"), f"{place} reach")
        if self.data not in ("tls", "plain"):
            faults.append(f"{place} data: {shown(self.data)}: expected tls or plain")
        self.settle(faults, "users", f"{place} users", given_users.users)
        self.settle(faults, "proxy", f"{place} proxy", proxy_version)
        self.settle(faults, "http", f"{place} http", http_mode)
        if self.proxy and speaks_tls(self.target):
            faults.append(
                f"{place} proxy: a server that is spoken TLS to cannot be told of its clients"
                " ahead of it; leave one of them out"
            )
        if not 0 <= self.sessions_per_client <= MOST_SESSIONS:
            faults.append(
                f"{place} sessions-per-client: {self.sessions_per_client} is not from 0 to"
                f" {MOST_SESSIONS}"
            )
        for way in self.reach:
            if self.users and way.kind in ("port", "sni"):
                faults.append(
                    f"{place} users: no password can be given by {way}; leave one of them out"
                )
        if faults:
            raise ConfigError(faults)

    @property
    def target_note(self) -> str:
        """What the target means, a line, where that is not what was given."""
        if not self._target_url:
            return ""
        kind = "over TLS, its certificate verified" if speaks_tls(self.target) else "plain TCP"
        return f"{self.id}: the target {self._target_url} means {self.target}, {kind}"

    def instead_of(self, before: ServerConfig) -> ServerConfig:
        """
        Put this server in another one's place, which has the same ID: what an
        option cannot say, or has not said, is kept.  So none is opened to
        others by the way.

        @raise ConfigError: what is kept does not go with this one.
        """
        return msgspec.structs.replace(
            self,
            reach=self.reach or before.reach,
            allow=self.allow or before.allow,
            data=before.data if self.data == "tls" else self.data,
            listed=self.listed or before.listed,
            users=self.users or before.users,
            sessions_per_client=self.sessions_per_client or before.sessions_per_client,
            proxy=self.proxy or before.proxy,
            http=before.http if self.http == "requests" else self.http,
        )

    @classmethod
    def from_option(cls, option: str) -> ServerConfig:
        """
        Read C{NAME=TARGET} as given to C{--publish}, with C{,port=N},
        C{,listed}, C{,proxy=v2} and C{,http=raw} behind it as wanted.  With a port the
        server is reached by that port and by its ID.

        @raise ConfigError: it is faulty; the message quotes it.
        """
        try:
            name, equals, where = option.partition("=")
            if not equals:
                raise ValueError("expected NAME=TARGET, for example web=127.0.0.1:8080")
            wishes: dict[str, str] = {}
            while (wish := _OPTION.search(where)) is not None:
                where = where[: wish.start()]
                key = wish[1] or wish[3]
                if key in wishes:
                    raise ValueError(f"{key} is given twice")
                wishes[key] = wish[2]
            reach: tuple[Reach, ...] = ()
            if "port" in wishes:
                port = port_number(wishes["port"], lowest=0)
                reach = (Reach("name"), Reach("port", str(port)))
            return cls(
                id=connection_id(name),
                target=given_target(where),
                reach=reach,
                listed="listed" in wishes,
                proxy=proxy_version(wishes.get("proxy", "")),
                http=http_mode(wishes.get("http", "requests")),
            )
        except ValueError as error:
            raise ConfigError([f"--publish {shown(option)}: {error}"]) from None

"""
One server as its agent publishes it: name, target, ways to it, and for whom.

The rest of what an agent is told is in C{model}.
"""

from __future__ import annotations

import re
from typing import Literal

from relaytunnel.config.access import Network
from relaytunnel.config.checked import Checked, once
from relaytunnel.config.endpoints import target as endpoint_target
from relaytunnel.config.names import Reach, connection_id, port_number, shown
from relaytunnel.errors import ConfigError

__all__ = ["ServerConfig"]

_OPTION_PORT = re.compile(r",port=([^,:/]*)\Z")


class ServerConfig(Checked, frozen=True, rename="kebab"):
    """
    One server that an agent publishes.

    @ivar id: its connection ID.
    @ivar target: where it is inside, as a Twisted client endpoint.
    @ivar reach: how clients may reach it; none means by its ID everywhere.
    @ivar allow: which clients may; none means everybody.
    @ivar data: whether its data channels are encrypted; C{plain} suits what
        is encrypted already.
    """

    id: str
    target: str
    reach: tuple[Reach, ...] = ()
    allow: tuple[Network, ...] = ()
    data: Literal["tls", "plain"] = "tls"

    def __post_init__(self) -> None:
        faults: list[str] = []
        place = f"[[server]] {shown(self.id)}"
        self.settle(faults, "id", f"{place} id", connection_id)
        self.settle(faults, "target", f"{place} target", endpoint_target)
        faults += once((r for r in self.reach if str(r) != "port:0"), f"{place} reach")
        if self.data not in ("tls", "plain"):
            faults.append(f"{place} data: {shown(self.data)}: expected tls or plain")
        if faults:
            raise ConfigError(faults)

    @classmethod
    def from_option(cls, option: str) -> ServerConfig:
        """
        Read C{NAME=TARGET} or C{NAME=TARGET,port=N} as given to C{--publish}.
        With a port the server is reached by that port and by its ID.

        @raise ConfigError: it is faulty; the message quotes it.
        """
        try:
            name, equals, where = option.partition("=")
            if not equals:
                raise ValueError("expected NAME=TARGET, for example web=127.0.0.1:8080")
            reach: tuple[Reach, ...] = ()
            wish = _OPTION_PORT.search(where)
            if wish is not None:
                where = where[: wish.start()]
                reach = (Reach("name"), Reach("port", str(port_number(wish[1], lowest=0))))
            return cls(id=connection_id(name), target=endpoint_target(where), reach=reach)
        except ValueError as error:
            raise ConfigError([f"--publish {shown(option)}: {error}"]) from None

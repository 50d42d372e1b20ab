"""
C{twistd agent}: its options, and the service they make.
"""

from __future__ import annotations

from typing import Any

import msgspec

from twisted.application.service import IService
from twisted.python import usage

from relaytunnel.agent.joining import read_invitation
from relaytunnel.agent.service import AgentService
from relaytunnel.config import AgentConfig, ServerConfig, load_agent
from relaytunnel.errors import ConfigError, InvitationError, StateError
from relaytunnel.tap.signals import Signals
from relaytunnel.tap.starting import PluginOptions, Told, keep_time, take_descriptors

__all__ = ["Options", "makeService"]


class Options(PluginOptions):
    """
    The command line of the agent.
    """

    plugin = "agent"
    synopsis = "[options]"
    longdesc = (
        "Run an agent: the machine inside that publishes servers through a relay.  It dials out"
        " and never listens."
    )

    optParameters = [
        ["config", "c", None, "Read this agent.toml; options given beside it win."],
        [
            "join",
            "j",
            None,
            "The invitation, relaytunnel://...; it is a secret, and others on this"
            " machine can see it here: --join-file hides it.",
        ],
        ["join-file", "f", None, "A file that holds the invitation."],
        [
            "local",
            "l",
            None,
            "A UNIX socket to make, where 'relaytunnel publish' asks this agent"
            " to publish more servers while it runs.",
        ],
    ]

    compData = usage.Completions(
        optActions={
            "config": usage.CompleteFiles("*.toml"),
            "join-file": usage.CompleteFiles(),
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self["publish"] = []

    def opt_publish(self, server: str) -> None:
        """NAME=TARGET, a server to publish; may be repeated. TARGET is host:port or a Twisted
        client endpoint; ',port=N' behind it asks for the port N of the relay too (0: any),
        ',listed' shows it to clients that name nobody, ',proxy=v2' tells it their addresses,
        ',http=raw' takes the first request of a connection for all."""
        self["publish"].append(server)

    # The help takes it as it stands here.
    opt_publish.__doc__ = " ".join((opt_publish.__doc__ or "").split())
    opt_p = opt_publish

    def postOptions(self) -> None:
        """
        Put file and options together, and read the invitation.

        @raise usage.UsageError: something is faulty or missing.
        """
        try:
            self.agent_config = self.read()
            self.invitation = read_invitation(self.agent_config)
        except (ConfigError, InvitationError, StateError) as fault:
            raise usage.UsageError(str(fault)) from None

    def read(self) -> AgentConfig:
        """
        Read the file, and put the options beside it.

        @raise ConfigError: one of them is faulty, or missing.
        """
        base = load_agent(self["config"]) if self["config"] else AgentConfig()
        given: dict[str, Any] = {}
        if self["join"] is not None or self["join-file"] is not None:
            given = {"join": self["join"], "join_file": self["join-file"]}
        if self["local"] is not None:
            given["local"] = self["local"]
        if self["publish"]:
            published = [ServerConfig.from_option(text) for text in self["publish"]]
            names = {server.id for server in published}
            kept = [server for server in base.servers if server.id not in names]
            given["servers"] = (*kept, *published)
        config = msgspec.structs.replace(base, **given) if given else base
        return config.complete()


def makeService(options: Options) -> IService:
    """
    @return: the agent.
    """
    from twisted.internet import reactor

    keep_time(reactor)
    take_descriptors(reactor)

    try:
        service = AgentService(options.agent_config, options.invitation, reactor)
    except (ConfigError, StateError) as fault:
        raise SystemExit(f"twistd agent: {fault}") from None
    signals = Signals(
        reactor, service, options.read if options["config"] or options["join-file"] else None
    )
    return Told(
        "twistd agent", service, lambda: reactor.callWhenRunning(signals.install), options.daemon
    )

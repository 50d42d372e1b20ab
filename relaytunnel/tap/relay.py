"""
C{twistd relay}: its options, and the service they make.
"""

from __future__ import annotations

from typing import Any

import msgspec

from twisted.application.service import IService
from twisted.internet.defer import Deferred, fail
from twisted.python import usage
from twisted.python.failure import Failure

from relaytunnel.config import RelayConfig, load_relay
from relaytunnel.errors import ConfigError, StateError
from relaytunnel.relay.service import RelayService
from relaytunnel.tap.signals import Signals
from relaytunnel.tap.starting import (
    PluginOptions,
    Told,
    has_terminal,
    keep_time,
    take_descriptors,
    to_terminal,
)
from relaytunnel.tap.upgrading import Predecessor, Successor, Will

__all__ = ["Options", "makeService"]


class Options(PluginOptions):
    """
    The command line of the relay.
    """

    plugin = "relay"
    synopsis = "[options]"
    longdesc = (
        "Run the relay: the machine outside that agents and clients dial.  Without any option"
        " it makes its state directory, invites a first agent and prints the invitation, or,"
        " without a terminal, keeps it in a file of that directory."
    )

    optParameters = [
        ["config", "c", None, "Read this relay.toml; options given beside it win."],
        ["state", "s", None, "Directory for key, certificate and accounts."],
        ["agents", "a", None, "Endpoint that agents dial. [default: tcp:7000]"],
        [
            "admin",
            None,
            None,
            "Endpoint of the admin interface, or 'off'. [default: tcp:7080:interface=127.0.0.1]",
        ],
        [
            "name",
            "n",
            None,
            "The name or address by which others know this machine. [default: localhost]",
        ],
    ]

    compData = usage.Completions(optActions={"config": usage.CompleteFiles("*.toml")})

    def __init__(self) -> None:
        super().__init__()
        self["clients"] = []

    def opt_clients(self, endpoint: str) -> None:
        """Endpoint that clients dial; may be repeated. [default: tcp:8000]"""
        self["clients"].append(endpoint)

    def postOptions(self) -> None:
        """
        Put file and options together.

        @raise usage.UsageError: one of them is faulty.
        """
        try:
            self.relay_config = self.read()
        except ConfigError as fault:
            raise usage.UsageError(str(fault)) from None

    def read(self) -> RelayConfig:
        """
        Read the file, and put the options beside it.

        @raise ConfigError: one of them is faulty.
        """
        single = ("state", "agents", "admin", "name")
        given: dict[str, Any] = {key: self[key] for key in single if self[key] is not None}
        if self["clients"]:
            given["clients"] = tuple(self["clients"])
        if not self["config"]:
            return RelayConfig(**given)
        return msgspec.structs.replace(load_relay(self["config"], self["state"]), **given)


def makeService(options: Options) -> IService:
    """
    @return: the relay.
    """
    from twisted.internet import reactor

    keep_time(reactor)
    take_descriptors(reactor)

    try:
        will = Will.read()
    except StateError as fault:
        raise SystemExit(f"twistd relay: {fault}") from None
    service = RelayService(
        options.relay_config,
        reactor,
        to_terminal if has_terminal() else None,
        None if will is None else will.inheritance,
    )

    def hand_over() -> Deferred[Any]:
        pid_file = options.pid_file if will is None else will.pid_file
        try:
            successor = Successor(reactor, options.command(), service.leave(), pid_file)
        except StateError as fault:
            return not_handed_over(Failure(fault))
        successor.accepting.addCallback(handed_over)
        return service.hand_over(successor).addErrback(not_handed_over)

    def handed_over(_: None) -> None:
        options.keep_pid_file()

    def not_handed_over(failure: Failure) -> Deferred[Any]:
        service.keeps_on(failure.getErrorMessage())
        return fail(failure)

    signals = Signals(reactor, service, options.read if options["config"] else None, hand_over)

    def running() -> None:
        signals.install()
        if will is not None:
            Predecessor(reactor, will, service).begin()

    return Told("twistd relay", service, lambda: reactor.callWhenRunning(running), options.daemon)

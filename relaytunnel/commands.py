"""
What each command of C{relaytunnel} does, once its arguments are parsed; those
about accounts are in L{relaytunnel.account_commands}.

Each takes these and returns the exit code; an error that it raises on purpose
is told by L{relaytunnel.cli}, where the arguments are.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

from relaytunnel.config import (
    AgentConfig,
    Limits,
    RelayConfig,
    RelayNames,
    load_config,
)
from relaytunnel.config.hosts import ID_ANYWHERE_WARNING
from relaytunnel.config.limits import LIMIT_KEYS
from relaytunnel.errors import ConfigError, InvitationError, StateError
from relaytunnel.passwords import new_password, password_of
from relaytunnel.terminal import error, say
from relaytunnel.visiting.asking import DEFAULT_RELAY, HostPort, asking_for
from relaytunnel.wire.invitation import Invitation

__all__ = [
    "VIA",
    "check",
    "connect",
    "demo",
    "forward",
    "hash_password",
    "publish",
    "upgrade",
    "withdraw",
]

VIA = "RELAYTUNNEL_VIA"
"""The environment variable that names the relay to visit through."""

_LONGEST_INVITATION = 4096
_UPGRADED_WITHIN = 40.0


def hash_password(parsed: argparse.Namespace) -> int:
    from relaytunnel.accounts.secrets import hash_chosen

    say(hash_chosen(new_password()))
    return 0


def demo(parsed: argparse.Namespace) -> int:
    from relaytunnel.demo import run_demo

    return run_demo(parsed.once)


def upgrade(parsed: argparse.Namespace) -> int:
    from relaytunnel.account_commands import started_state

    state, facts = started_state(parsed)
    if not facts.runs:
        raise StateError(f"no relay runs with the state in {state.path}")
    try:
        os.kill(facts.pid, signal.SIGUSR2)
    except OSError as fault:
        raise StateError(f"the relay's process {facts.pid}: {fault.strerror}") from None
    until = time.monotonic() + _UPGRADED_WITHIN
    while time.monotonic() < until:
        time.sleep(0.05)
        now = state.read_facts()
        if now is not None and now.pid not in (0, facts.pid):
            say(f"the process {now.pid} has taken over from {facts.pid}")
            return 0
        if now is not None and now.kept_on > facts.kept_on:
            raise StateError(f"the process {facts.pid} goes on: {now.kept_on_because}")
    raise StateError(
        f"no other process has taken over within {_UPGRADED_WITHIN:g} s; the relay's log says why"
    )


def publish(parsed: argparse.Namespace) -> int:
    from relaytunnel.agent.local import Publish, ask_agent

    answer = ask_agent(parsed.agent, Publish(server=parsed.server))
    if answer.note:
        error(answer.note)
    for address in answer.addresses:
        say(address)
    return 0


def withdraw(parsed: argparse.Namespace) -> int:
    from relaytunnel.agent.local import Withdraw, ask_agent

    ask_agent(parsed.agent, Withdraw(server=parsed.server))
    return 0


def check(parsed: argparse.Namespace) -> int:
    config = load_config(parsed.file)
    if isinstance(config, RelayConfig):
        say(
            f"{parsed.file}: a relay's file without faults: {config.name},"
            f" {len(config.accounts)} accounts, agents at {config.agents},"
            f" clients at {', '.join(map(str, config.clients))}"
        )
        if config.id_anywhere:
            say(ID_ANYWHERE_WARNING)
    else:
        assert isinstance(config, AgentConfig)
        _check_targets(parsed.file, config)
        names = ", ".join(server.id for server in config.servers) or "no server"
        say(f"{parsed.file}: an agent's file without faults: it publishes {names}")
        for line in _claims(config):
            say(line)
        for server in config.servers:
            if server.target_note:
                say(server.target_note)
    for key, name in LIMIT_KEYS.items():
        value, default = getattr(config.limits, name), getattr(Limits(), name)
        if value != default:
            say(f"[limits] {key} = {value:.9g}, by default {default:.9g}")
    _say_budgets(config, parsed.descriptors)
    return 0


def _say_budgets(config: RelayConfig | AgentConfig, descriptors: int | None) -> None:
    """
    Print what the descriptors are for.

    @param descriptors: how many there are; as many as a process that is
        started here may have, if not given.
    """
    from relaytunnel.budgets import AgentBudgets, RelayBudgets
    from relaytunnel.channel.descriptors import attainable_limit

    if descriptors is None:
        descriptors = attainable_limit()
    of = RelayBudgets if isinstance(config, RelayConfig) else AgentBudgets
    budgets = of(config.limits, descriptors)
    say(f"of {descriptors} descriptors there may be")
    for name, budget in budgets.rows():
        say(f"  {budget.most} {name} ({budget.origin})")
    for cut in budgets.cut:
        say(f"too few descriptors: [limits] {cut}")


def _claims(config: AgentConfig) -> Iterator[str]:
    """
    Yield what the relay has to allow for the host names that servers claim.
    """
    from relaytunnel.relay.claims import claimed, grant_command

    agent = "AGENT"
    relay: tuple[str, ...] = ()
    with suppress(InvitationError, OSError, UnicodeDecodeError):
        text = config.join
        if text is None and config.join_file is not None:
            with open(config.join_file, encoding="utf-8") as file:
                text = file.read(_LONGEST_INVITATION)
        invitation = Invitation.parse(text or "")
        agent, relay = invitation.agent, (invitation.host,)
    names = RelayNames(relay)
    wanted: dict[str, None] = {}
    for server in config.servers:
        for claim in claimed(names, server.id, server.reach):
            fault = names.claim_fault(claim, server.id)
            if fault is None:
                wanted[claim] = None
            else:
                yield f"[[server]] '{server.id}' reach: {claim} cannot be claimed: {fault}"
    if wanted:
        yield f"at the relay, this allows the host names: {grant_command(agent, wanted)}"


def _check_targets(file: str, config: AgentConfig) -> None:
    """
    @raise ConfigError: of some target no endpoint can be made.
    """
    from twisted.internet import reactor

    from relaytunnel.agent.targets import check_targets

    try:
        check_targets(reactor, config.servers)
    except ConfigError as fault:
        raise ConfigError([f"{file}: {each}" for each in fault.faults]) from None


def connect(parsed: argparse.Namespace) -> int:
    from relaytunnel.visiting.standard import run_connect

    return run_connect(_relay(parsed), parsed.id, _asking(parsed))


def forward(parsed: argparse.Namespace) -> int:
    from twisted.internet import reactor

    from relaytunnel.visiting.forwarding import run_forward

    relay, request = _relay(parsed), _asking(parsed)
    return run_forward(reactor, relay, parsed.id, request, str(parsed.listen), parsed.port)


def _relay(parsed: argparse.Namespace) -> HostPort:
    """
    @raise ConfigError: what the environment says is no relay's address.
    """
    if parsed.via is not None:
        named: HostPort = parsed.via
        return named
    try:
        return HostPort.parse(os.environ.get(VIA) or DEFAULT_RELAY)
    except ValueError as fault:
        raise ConfigError([f"{VIA}: {fault}"]) from None


def _asking(parsed: argparse.Namespace) -> bytes:
    if parsed.user is None and parsed.password_file is not None:
        parsed.wrong("--password-file: whose password it is, --user says")
    login = None
    if parsed.user is not None:
        login = (parsed.user, password_of(parsed.user, parsed.password_file))
    return asking_for(parsed.id, login)

"""
What each command of C{relaytunnel} does, once its arguments are parsed.

Each takes these and returns the exit code; an error that it raises on purpose
is told by L{relaytunnel.cli}, where the arguments are.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import msgspec

from relaytunnel.config import (
    AgentConfig,
    Limits,
    PortRange,
    RelayConfig,
    default_state,
    load_config,
    load_relay,
)
from relaytunnel.config.limits import LIMIT_KEYS
from relaytunnel.errors import ConfigError, StateError
from relaytunnel.passwords import new_password, password_of
from relaytunnel.terminal import error, say
from relaytunnel.visiting.asking import DEFAULT_RELAY, HostPort, asking_for

if TYPE_CHECKING:
    from relaytunnel.accounts import Account, AccountStore
    from relaytunnel.relay.state import Facts, StateDirectory

__all__ = [
    "VIA",
    "agents",
    "check",
    "connect",
    "demo",
    "forward",
    "hash_password",
    "invite",
    "publish",
    "revoke",
    "upgrade",
    "withdraw",
]

VIA = "RELAYTUNNEL_VIA"
"""The environment variable that names the relay to visit through."""

_UPGRADED_WITHIN = 40.0


def hash_password(parsed: argparse.Namespace) -> int:
    from relaytunnel.accounts.secrets import hash_chosen

    say(hash_chosen(new_password()))
    return 0


def demo(parsed: argparse.Namespace) -> int:
    from relaytunnel.demo import run_demo

    return run_demo(parsed.once)


def _state(parsed: argparse.Namespace) -> tuple[StateDirectory, Facts]:
    """
    @raise StateError: no relay has ever been started with this state.
    """
    from relaytunnel.relay.state import StateDirectory

    config = load_relay(parsed.config) if parsed.config else None
    path = parsed.state or (config.state if config is not None else default_state())
    if not path:
        raise StateError(
            "this user has no home directory; name the relay's state directory with --state"
        )
    state = StateDirectory(path)
    facts = state.read_facts()
    if facts is None:
        raise StateError(
            f"no relay has kept its state in {path} yet; start 'twistd relay' once, or name its"
            " directory with --state"
        )
    return state, facts


def _accounts(state: StateDirectory) -> AccountStore:
    from relaytunnel.accounts import AccountStore

    return AccountStore(state.database)


def upgrade(parsed: argparse.Namespace) -> int:
    state, facts = _state(parsed)
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


def invite(parsed: argparse.Namespace) -> int:
    state, facts = _state(parsed)
    if parsed.config and parsed.agent in [each.id for each in load_relay(parsed.config).accounts]:
        raise StateError(
            f"{parsed.config}: [[agent]] {parsed.agent}: this account stands in the file; change"
            " it there"
        )
    ranges: list[PortRange] | None = parsed.ports
    store = _accounts(state)
    try:
        secret = store.invite(
            parsed.agent,
            parsed.publish,
            None if ranges is None else [(each.first, each.last) for each in ranges],
        )
        rights = store.rights(parsed.agent)
    finally:
        store.close()
    say(facts.invitation(parsed.agent, secret))
    if rights is None or not rights.publish:
        error(f"{parsed.agent} may publish nothing yet; say what with --publish NAME")
    else:
        ports = ", ".join(f"{first}-{last}" for first, last in rights.ports) or "none"
        error(f"{parsed.agent} may publish {', '.join(rights.publish)}; ports: {ports}")
    return 0


def revoke(parsed: argparse.Namespace) -> int:
    state, _ = _state(parsed)
    store = _accounts(state)
    try:
        known = store.revoke(parsed.agent)
    finally:
        store.close()
    if not known:
        error(f"relaytunnel: there is no agent {parsed.agent}")
        return 1
    say(f"{parsed.agent} is revoked")
    return 0


def agents(parsed: argparse.Namespace) -> int:
    state, facts = _state(parsed)
    store = _accounts(state)
    try:
        accounts = store.agents()
    finally:
        store.close()
    online = _online(state, facts)
    if parsed.json:
        rows = [
            {
                "id": account.agent,
                "publish": account.rights.publish,
                "ports": account.rights.ports,
                "last_seen": account.last_seen,
                "online": None if online is None else account.agent in online,
            }
            for account in accounts
        ]
        listed = {account.agent for account in accounts}
        rows += [{"id": each, "online": True} for each in sorted((online or set()) - listed)]
        say(json.dumps(rows, indent=2))
        return 0
    table = [("AGENT", "MAY PUBLISH", "LAST SEEN", "ONLINE")]
    table += [_row(account, online) for account in accounts]
    if online is not None:
        listed = {account.agent for account in accounts}
        table += [(agent, "(in relay.toml)", "now", "yes") for agent in online - listed]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())
    if online is None:
        error("the relay does not answer: who is online is not known")
    return 0


def _row(account: Account, online: set[str] | None) -> tuple[str, str, str, str]:
    seen = account.last_seen
    here = "?" if online is None else "yes" if account.agent in online else "no"
    when = "never" if seen is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seen))
    return account.agent, ", ".join(account.rights.publish) or "nothing", when, here


def _online(state: StateDirectory, facts: Facts) -> set[str] | None:
    """
    Ask the running relay who is there.

    @return: C{None} if it does not answer.
    """
    if not facts.admin:
        return None
    request = urllib.request.Request(
        f"http://{facts.admin}/api/status",
        headers={"Authorization": f"Bearer {state.admin_token()}"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=5) as answer:
            status = msgspec.json.decode(answer.read())
        return {str(agent["id"]) for agent in status["agents"]}
    except (OSError, urllib.error.URLError, msgspec.DecodeError, KeyError, TypeError):
        return None


def publish(parsed: argparse.Namespace) -> int:
    from relaytunnel.agent.local import Publish, ask_agent

    for address in ask_agent(parsed.agent, Publish(server=parsed.server)):
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
    else:
        assert isinstance(config, AgentConfig)
        names = ", ".join(server.id for server in config.servers) or "no server"
        say(f"{parsed.file}: an agent's file without faults: it publishes {names}")
    for key, name in LIMIT_KEYS.items():
        value, default = getattr(config.limits, name), getattr(Limits(), name)
        if value != default:
            say(f"[limits] {key} = {value:.9g}, by default {default:.9g}")
    return 0


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

"""
The C{relaytunnel} command: what operators and visitors type beside C{twistd}.

What operators do works on the state directory of a relay on this machine,
running or not; a running relay notices within half a second.  How a visit
goes on is in L{relaytunnel.visiting}.

Each command imports what it needs: whoever waits for C{ssh} would wait for the
database of the accounts, too.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING

import msgspec

from relaytunnel import __version__
from relaytunnel.config import (
    AgentConfig,
    Limits,
    PortRange,
    RelayConfig,
    agent_id,
    default_state,
    load_config,
    load_relay,
    publish_pattern,
)
from relaytunnel.config.limits import LIMIT_KEYS
from relaytunnel.config.names import connection_id, port_number
from relaytunnel.errors import ConfigError, RelayTunnelError, StateError
from relaytunnel.visiting.asking import DEFAULT_RELAY, HostPort, asking_for, user_name

if TYPE_CHECKING:
    from relaytunnel.accounts import Account, AccountStore
    from relaytunnel.relay.state import Facts, StateDirectory

__all__ = ["main"]

_UPGRADED_WITHIN = 40.0
_VIA = "RELAYTUNNEL_VIA"
_LONGEST_PASSWORD = 4096


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command.

    @return: the exit code: 0, or 1 with the reason on standard error; wrong
        usage ends with 2.
    """
    parsed = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = parsed.run
    try:
        return run(parsed)
    except RelayTunnelError as fault:
        print(f"relaytunnel: {fault}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read our output has had enough of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="relaytunnel",
        description="Operate a relay, or visit a server behind one.  The services themselves"
        " are 'twistd relay' and 'twistd agent'.",
    )
    parser.add_argument("--version", action="version", version=f"relaytunnel {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="a relay, an agent, a server and a client on this machine",
        description="Run a relay, an agent, a web server and a client on this machine, show what"
        " happens step by step, and leave them running to try with a browser.",
    )
    demo.add_argument(
        "--once", action="store_true", help="end after the visits, with code 0 if all went well"
    )
    demo.set_defaults(run=_demo)

    invite = _with_state(
        commands.add_parser(
            "invite",
            help="make an agent's account or rotate its secret",
            description="Make an account for an agent, or rotate its secret, and print its"
            " invitation.  The secret before it stays valid until the new one is first used, for"
            " 24 hours at most.  Rights that are not named here stay as they are; a new account"
            " has none.",
        )
    )
    invite.add_argument("agent", metavar="AGENT", type=_checked(agent_id))
    invite.add_argument(
        "--publish",
        metavar="PATTERN",
        action="append",
        type=_checked(publish_pattern),
        help="a connection ID that it may publish, '*.SUFFIX' for all below one, or '*'; may be"
        " repeated",
    )
    invite.add_argument(
        "--ports",
        metavar="RANGE",
        action="append",
        type=_checked(PortRange.parse),
        help="ports of the relay that its servers may have, such as 20000-20099; may be repeated",
    )
    invite.set_defaults(run=_invite)

    revoke = _with_state(
        commands.add_parser(
            "revoke",
            help="remove an agent's account; its control channel closes within a second",
            description="Remove an agent's account with its rights and secrets.  Its control"
            " channel closes within a second.",
        )
    )
    revoke.add_argument("agent", metavar="AGENT")
    revoke.set_defaults(run=_revoke)

    agents = _with_state(
        commands.add_parser("agents", help="list the agents", description="List the agents.")
    )
    agents.add_argument("--json", action="store_true", help="for programs")
    agents.set_defaults(run=_agents)

    upgrade = _with_state(
        commands.add_parser(
            "upgrade",
            help="have a running relay hand over to a new process",
            description="Have a running relay start a new process, with the code that is installed"
            " now and its file as it is now, and hand over to it.  No connection is refused"
            " meanwhile; the sessions that run go on in the old process, which ends with the last"
            " of them.",
        )
    )
    upgrade.set_defaults(run=_upgrade)

    publish = _with_agent(
        commands.add_parser(
            "publish",
            help="ask a running agent to publish a server",
            description="Ask a running agent on this machine to publish a server, until it is"
            " withdrawn or the agent ends.  The agent has to run with --local.",
        )
    )
    publish.add_argument("server", metavar="NAME=TARGET[,port=N][,listed][,proxy=v2]")
    publish.set_defaults(run=_publish)

    withdraw = _with_agent(
        commands.add_parser(
            "withdraw",
            help="ask a running agent to publish a server no more",
            description="Ask a running agent on this machine to publish a server no more.  Its"
            " sessions go on.",
        )
    )
    withdraw.add_argument("server", metavar="NAME")
    withdraw.set_defaults(run=_withdraw)

    check = commands.add_parser(
        "check",
        help="validate a relay.toml or agent.toml",
        description="Validate a relay.toml or agent.toml: every fault with file, key and reason."
        "  The exit code is 0 if there is none.",
    )
    check.add_argument("file", metavar="FILE")
    check.set_defaults(run=_check)

    hashing = commands.add_parser(
        "hash-password",
        help="hash a password for a server's users",
        description="Ask for a password, at the terminal or as a line of standard input, and print"
        ' the hash of it that stands in agent.toml, as in users = { alice = "scrypt:..." }.',
    )
    hashing.set_defaults(run=_hash_password)

    connect = _with_relay(
        commands.add_parser(
            "connect",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            help="visit a server on standard input and output",
            description="Visit the server that is published as ID: standard input goes to it,\n"
            "and what it says to standard output.  The exit code is 0 when both\n"
            "directions have ended, and 1 if the server is not reached or the\n"
            "connection is reset.",
            epilog="with ssh:\n"
            "  ssh -o ProxyCommand='relaytunnel connect %h --via relay.example.net:8000' me@ID",
        )
    )
    connect.set_defaults(run=_connect)

    forward = commands.add_parser(
        "forward",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="make a server reachable at a port of this machine",
        description="Listen on a port of this machine; each connection to it is a visit to\n"
        "the server that is published as ID.  It goes on until it is interrupted.",
        epilog="for example:\n  relaytunnel forward 5432 database --via relay.example.net:8000",
    )
    forward.add_argument(
        "port",
        metavar="LOCAL_PORT",
        type=_checked(lambda text: port_number(text, lowest=0)),
        help="the port to listen on; 0 for any that is free, which is printed",
    )
    _with_relay(forward)
    forward.add_argument(
        "--listen",
        metavar="ADDRESS",
        type=_checked(ip_address),
        default="127.0.0.1",
        help="the IP address to listen on (127.0.0.1: nobody from elsewhere)",
    )
    forward.set_defaults(run=_forward)
    return parser


def _with_state(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--state", metavar="DIR", help="the relay's state directory")
    where.add_argument("--config", metavar="FILE", help="the relay's relay.toml, which names it")
    return parser


def _with_agent(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--agent", metavar="SOCKET", required=True, help="the agent's UNIX socket (its --local)"
    )
    return parser


def _with_relay(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "id",
        metavar="ID",
        type=_checked(connection_id),
        help="the connection ID that the server is published as",
    )
    parser.add_argument(
        "--via",
        metavar="HOST[:PORT]",
        type=_checked(HostPort.parse),
        help=f"the relay's port for clients, 8000 if none is given; without --via, it is"
        f" {_VIA} in the environment, or else {DEFAULT_RELAY}",
    )
    parser.add_argument(
        "--user",
        metavar="NAME",
        type=_checked(user_name),
        help="log in at the relay; the password is RELAYTUNNEL_PASSWORD in the environment, or"
        " is asked for at the terminal",
    )
    parser.add_argument(
        "--password-file", metavar="FILE", help="a file whose first line is the password"
    )
    parser.set_defaults(wrong=parser.error)
    return parser


def _checked(check: Callable[[str], object]) -> Callable[[str], object]:
    """
    Let the parser say the reason of a ValueError.
    """

    def read(text: str) -> object:
        try:
            return check(text)
        except ValueError as fault:
            raise argparse.ArgumentTypeError(str(fault)) from None

    return read


def _hash_password(parsed: argparse.Namespace) -> int:
    from relaytunnel.accounts.secrets import hash_chosen

    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Once more: ") != password:
            print("relaytunnel: the two passwords differ", file=sys.stderr)
            return 1
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        print("relaytunnel: the password is empty", file=sys.stderr)
        return 1
    print(hash_chosen(password))
    return 0


def _demo(parsed: argparse.Namespace) -> int:
    from relaytunnel.demo import run_demo

    return run_demo(parsed.once)


def _state(parsed: argparse.Namespace) -> tuple[StateDirectory, Facts]:
    """
    @raise StateError: no relay has ever been started with this state.
    """
    from relaytunnel.relay.state import StateDirectory

    config = load_relay(parsed.config) if parsed.config else None
    path = parsed.state or (config.state if config is not None else default_state())
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


def _upgrade(parsed: argparse.Namespace) -> int:
    state, facts = _state(parsed)
    if not facts.pid:
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
            print(f"the process {now.pid} has taken over from {facts.pid}")
            return 0
    raise StateError(
        f"no other process has taken over within {_UPGRADED_WITHIN:g} s; the relay's log says why"
    )


def _invite(parsed: argparse.Namespace) -> int:
    from relaytunnel.wire.invitation import Invitation

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
    invitation = Invitation(
        parsed.agent, secret, facts.name, facts.agents or 7000, facts.pin or None
    )
    print(invitation)
    if rights is None or not rights.publish:
        print(
            f"{parsed.agent} may publish nothing yet; say what with --publish NAME",
            file=sys.stderr,
        )
    else:
        ports = ", ".join(f"{first}-{last}" for first, last in rights.ports) or "none"
        print(
            f"{parsed.agent} may publish {', '.join(rights.publish)}; ports: {ports}",
            file=sys.stderr,
        )
    return 0


def _revoke(parsed: argparse.Namespace) -> int:
    state, _ = _state(parsed)
    store = _accounts(state)
    try:
        known = store.revoke(parsed.agent)
    finally:
        store.close()
    if not known:
        print(f"relaytunnel: there is no agent {parsed.agent}", file=sys.stderr)
        return 1
    print(f"{parsed.agent} is revoked")
    return 0


def _agents(parsed: argparse.Namespace) -> int:
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
        print(json.dumps(rows, indent=2))
        return 0
    table = [("AGENT", "MAY PUBLISH", "LAST SEEN", "ONLINE")]
    table += [_row(account, online) for account in accounts]
    if online is not None:
        listed = {account.agent for account in accounts}
        table += [(agent, "(in relay.toml)", "now", "yes") for agent in online - listed]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    if online is None:
        print("the relay does not answer: who is online is not known", file=sys.stderr)
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


def _publish(parsed: argparse.Namespace) -> int:
    from relaytunnel.agent.local import Publish, ask_agent

    for address in ask_agent(parsed.agent, Publish(server=parsed.server)):
        print(address)
    return 0


def _withdraw(parsed: argparse.Namespace) -> int:
    from relaytunnel.agent.local import Withdraw, ask_agent

    ask_agent(parsed.agent, Withdraw(server=parsed.server))
    return 0


def _check(parsed: argparse.Namespace) -> int:
    config = load_config(parsed.file)
    if isinstance(config, RelayConfig):
        print(
            f"{parsed.file}: a relay's file without faults: {config.name},"
            f" {len(config.accounts)} accounts, agents at {config.agents},"
            f" clients at {', '.join(map(str, config.clients))}"
        )
    else:
        assert isinstance(config, AgentConfig)
        names = ", ".join(server.id for server in config.servers) or "no server"
        print(f"{parsed.file}: an agent's file without faults: it publishes {names}")
    for key, name in LIMIT_KEYS.items():
        value, default = getattr(config.limits, name), getattr(Limits(), name)
        if value != default:
            print(f"[limits] {key} = {value:.9g}, by default {default:.9g}")
    return 0


def _connect(parsed: argparse.Namespace) -> int:
    from relaytunnel.visiting.standard import run_connect

    return run_connect(_relay(parsed), parsed.id, _asking(parsed))


def _forward(parsed: argparse.Namespace) -> int:
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
        return HostPort.parse(os.environ.get(_VIA) or DEFAULT_RELAY)
    except ValueError as fault:
        raise ConfigError([f"{_VIA}: {fault}"]) from None


def _asking(parsed: argparse.Namespace) -> bytes:
    if parsed.user is None and parsed.password_file is not None:
        parsed.wrong("--password-file: whose password it is, --user says")
    login = None if parsed.user is None else (parsed.user, _password(parsed))
    return asking_for(parsed.id, login)


def _password(parsed: argparse.Namespace) -> str:
    """
    @raise ConfigError: there is none.
    """
    if parsed.password_file is not None:
        try:
            with open(parsed.password_file, encoding="utf-8") as file:
                password = file.readline(_LONGEST_PASSWORD).rstrip("\r\n")
        except (OSError, UnicodeError) as fault:
            reason = getattr(fault, "strerror", None) or fault
            raise ConfigError([f"{parsed.password_file}: {reason}"]) from None
        if not password:
            raise ConfigError([f"{parsed.password_file}: the first line is no password"])
        return password
    given = os.environ.get("RELAYTUNNEL_PASSWORD")
    if given:
        return given
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigError(
            [
                f"there is no password for {parsed.user}: set RELAYTUNNEL_PASSWORD, or name a"
                " file with --password-file"
            ]
        )
    try:
        return getpass.getpass(f"Password of {parsed.user}: ")
    except (KeyboardInterrupt, EOFError):
        raise ConfigError([f"no password was given for {parsed.user}"]) from None


if __name__ == "__main__":
    raise SystemExit(main())

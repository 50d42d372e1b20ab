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
import os
import sys
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from relaytunnel import __version__, account_commands, commands
from relaytunnel.config import PortRange, agent_id, host, host_right, publish_pattern
from relaytunnel.config.names import connection_id, port_number
from relaytunnel.config.users import user_name
from relaytunnel.errors import RelayTunnelError
from relaytunnel.passwords import VARIABLE
from relaytunnel.terminal import error
from relaytunnel.visiting.asking import DEFAULT_RELAY, HostPort

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command; without one, print what there is.

    @return: the exit code: 0, or 1 with the reason on standard error; wrong
        usage ends with 2.
    """
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if parsed.run is None:
        parser.print_help()
        return 0
    run: Callable[[argparse.Namespace], int] = parsed.run
    try:
        return run(parsed)
    except RelayTunnelError as fault:
        error(f"relaytunnel: {fault}")
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
    parser.set_defaults(run=None)
    names = parser.add_subparsers(metavar="COMMAND")

    demo = names.add_parser(
        "demo",
        help="a relay, an agent, a server and a client on this machine",
        description="Run a relay, an agent, a web server and a client on this machine, show what"
        " happens step by step, and leave them running to try with a browser.",
    )
    demo.add_argument(
        "--once", action="store_true", help="end after the visits, with code 0 if all went well"
    )
    demo.set_defaults(run=commands.demo)

    _add_accounts(names)

    upgrade = _with_state(
        names.add_parser(
            "upgrade",
            help="have a running relay hand over to a new process",
            description="Have a running relay start a new process, with the code that is installed"
            " now and its file as it is now, and hand over to it.  No connection is refused"
            " meanwhile; the sessions that run go on in the old process, which ends with the last"
            " of them.",
        )
    )
    upgrade.set_defaults(run=commands.upgrade)

    publish = _with_agent(
        names.add_parser(
            "publish",
            help="ask a running agent to publish a server",
            description="Ask a running agent on this machine to publish a server, until it is"
            " withdrawn or the agent ends.  The agent has to run with --local.",
        )
    )
    publish.add_argument("server", metavar="NAME=TARGET[,port=N][,listed][,proxy=v2][,http=raw]")
    publish.set_defaults(run=commands.publish)

    withdraw = _with_agent(
        names.add_parser(
            "withdraw",
            help="ask a running agent to publish a server no more",
            description="Ask a running agent on this machine to publish a server no more.  Its"
            " sessions go on.",
        )
    )
    withdraw.add_argument("server", metavar="NAME")
    withdraw.set_defaults(run=commands.withdraw)

    check = names.add_parser(
        "check",
        help="validate a relay.toml or agent.toml",
        description="Validate a relay.toml or agent.toml: every fault with file, key and reason."
        "  The exit code is 0 if there is none.",
    )
    check.add_argument("file", metavar="FILE")
    check.add_argument(
        "--descriptors",
        metavar="N",
        type=_checked(descriptor_count),
        help="print what so many descriptors (ulimit -n, LimitNOFILE) are for;"
        " by default as many as a process started here may have",
    )
    check.set_defaults(run=commands.check)

    hashing = names.add_parser(
        "hash-password",
        help="hash a password for a server's users",
        description="Ask for a password, at the terminal or as a line of standard input, and print"
        ' the hash of it that stands in agent.toml, as in users = { alice = "scrypt:..." }.',
    )
    hashing.set_defaults(run=commands.hash_password)

    connect = _with_relay(
        names.add_parser(
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
    connect.set_defaults(run=commands.connect)

    forward = names.add_parser(
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
    forward.set_defaults(run=commands.forward)
    return parser


def _add_accounts(names: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """
    Add the commands about accounts.
    """
    unchanged = "  A running relay does it within a second."
    invite = _with_state(
        names.add_parser(
            "invite",
            help="make an agent's account",
            description="Make an account for an agent, and print its invitation.  It may do what"
            " is named here, and nothing else; 'grant' and 'deny' change that later.  The relay"
            " need not have been started yet.",
        )
    )
    invite.add_argument("agent", metavar="AGENT", type=_checked(agent_id))
    _with_name(_with_rights(invite))
    invite.set_defaults(run=account_commands.invite)

    grant = _with_state(
        names.add_parser(
            "grant",
            help="let an agent publish, claim or have more",
            description="Give an agent's account more rights.  Its secret stays as it is."
            + unchanged,
        )
    )
    grant.add_argument("agent", metavar="AGENT")
    _with_rights(grant)
    grant.set_defaults(run=account_commands.grant, wrong=grant.error)

    deny = _with_state(
        names.add_parser(
            "deny",
            help="take rights from an agent",
            description="Take rights from an agent's account: patterns that were granted, and any"
            " ports of those that were.  What it publishes by them is withdrawn; sessions go on."
            "  Its secret stays as it is." + unchanged,
        )
    )
    deny.add_argument("agent", metavar="AGENT")
    _with_rights(deny)
    deny.set_defaults(run=account_commands.deny, wrong=deny.error)

    rotate = _with_state(
        names.add_parser(
            "rotate",
            help="make a new secret for an agent",
            description="Make a new secret for an agent, and print the invitation with it.  The"
            " one before stays valid until the new one is first used, for 24 hours at most.  Its"
            " rights stay as they are.",
        )
    )
    rotate.add_argument("agent", metavar="AGENT")
    _with_name(rotate)
    rotate.set_defaults(run=account_commands.rotate)

    revoke = _with_state(
        names.add_parser(
            "revoke",
            help="remove an agent's account; its control channel closes within a second",
            description="Remove an agent's account with its rights and secrets.  Its control"
            " channel closes within a second.",
        )
    )
    revoke.add_argument("agent", metavar="AGENT")
    revoke.set_defaults(run=account_commands.revoke)

    agents = _with_state(
        names.add_parser(
            "agents",
            help="list the agents",
            description="List the agents with what they may publish and claim, and the host names"
            " that connected ones claim without a right, with the commands that grant it.",
        )
    )
    agents.add_argument("--json", action="store_true", help="for programs")
    agents.set_defaults(run=account_commands.agents)


def _with_rights(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--publish",
        metavar="PATTERN",
        action="append",
        type=_checked(publish_pattern),
        help="a connection ID that it may publish, '*.SUFFIX' for all below one, or '*'; may be"
        " repeated",
    )
    parser.add_argument(
        "--host",
        metavar="PATTERN",
        action="append",
        type=_checked(host_right),
        help="a host name that its servers may claim, '*.SUFFIX' for all below one, or '*' for all"
        " that no other agent has a right to; may be repeated.  Names below the relay's own need"
        " none",
    )
    parser.add_argument(
        "--ports",
        metavar="RANGE",
        action="append",
        type=_checked(PortRange.parse),
        help="ports of the relay that its servers may have, such as 20000-20099; may be repeated",
    )
    return parser


def _with_name(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--name",
        metavar="HOST",
        type=_checked(host),
        help="the name or address that the invitation has for the relay, if it is not the one that"
        " the relay was started with",
    )
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
        f" {commands.VIA} in the environment, or else {DEFAULT_RELAY}",
    )
    parser.add_argument(
        "--user",
        metavar="NAME",
        type=_checked(user_name),
        help=f"log in at the relay; the password is {VARIABLE} in the environment, or"
        " is asked for at the terminal",
    )
    parser.add_argument(
        "--password-file", metavar="FILE", help="a file whose first line is the password"
    )
    parser.set_defaults(wrong=parser.error)
    return parser


def descriptor_count(text: str) -> int:
    """
    @raise ValueError: it is no number of descriptors.
    """
    if not (text.isascii() and text.isdigit() and 32 <= int(text[:10]) <= 1 << 30):
        raise ValueError(f"{text[:32]!r}: expected a number from 32 to {1 << 30}")
    return int(text)


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


if __name__ == "__main__":
    raise SystemExit(main())

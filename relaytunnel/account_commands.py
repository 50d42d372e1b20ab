"""
The commands of C{relaytunnel} about accounts: who may connect, and what they
may have.  They work on a relay's state directory, also of one that has not
been started yet; a running relay notices within half a second.

As in L{relaytunnel.commands}, each takes the parsed arguments and returns the
exit code.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from relaytunnel.config import RelayConfig, RelayNames, default_state, load_relay
from relaytunnel.errors import AccountError, InvitationError, StateError
from relaytunnel.terminal import error, say

if TYPE_CHECKING:
    from relaytunnel.accounts import Account, AccountStore, Rights
    from relaytunnel.relay.state import Facts, StateDirectory

__all__ = ["agents", "deny", "grant", "invite", "revoke", "rotate", "started_state"]

_PORT = re.compile(r"tcp6?:(?:port=)?([0-9]{1,5})(?::|$)")

_Refused = Mapping[str, Sequence[str]]
"""The agents that are connected, with the claims that each is refused."""


def _named_state(parsed: argparse.Namespace) -> tuple[StateDirectory, RelayConfig | None]:
    """
    @return: the state directory that is meant, and the file that was named.
    @raise StateError: none is.
    """
    from relaytunnel.relay.state import StateDirectory

    config = load_relay(parsed.config) if parsed.config else None
    path = parsed.state or (config.state if config is not None else default_state())
    if not path:
        raise StateError(
            "this user has no home directory; name the relay's state directory with --state"
        )
    return StateDirectory(path), config


def started_state(parsed: argparse.Namespace) -> tuple[StateDirectory, Facts]:
    """
    @return: the state of a relay that was started, and where it is found.
    @raise StateError: no relay has ever been started with this state.
    """
    state, _ = _named_state(parsed)
    facts = state.read_facts()
    if facts is None:
        raise StateError(
            f"no relay has kept its state in {state.path} yet; start 'twistd relay' once, or name"
            " its directory with --state"
        )
    return state, facts


def _facts_to_come(state: StateDirectory, config: RelayConfig | None, name: str | None) -> Facts:
    """
    Make the state of a relay that has not been started yet, with the key that
    it will have.

    @param name: what it will be called, if the file does not say.
    @return: where it will be found.
    """
    from relaytunnel.relay.reloading import identity_of, told_pin
    from relaytunnel.relay.state import Facts

    if config is None:
        config = RelayConfig(state=state.path)
    config = msgspec.structs.replace(config, state=state.path, name=name or config.name)
    state.prepare()
    port = _PORT.match(config.agents)
    return Facts(
        pid=0,
        name=config.name,
        pin=told_pin(identity_of(config)),
        agents=int(port[1]) if port else 0,
        clients=(),
    )


@contextmanager
def _store(state: StateDirectory, make: bool = False) -> Iterator[AccountStore]:
    """
    @param make: whether to make a database where there is none.
    """
    from relaytunnel.accounts import AccountStore

    if not make and not os.path.exists(state.database):
        raise StateError(
            f"there are no accounts in {state.path} yet; 'relaytunnel invite' makes one, and"
            " --state names another directory"
        )
    store = AccountStore(state.database)
    try:
        yield store
    finally:
        store.close()


def _not_of_file(parsed: argparse.Namespace, config: RelayConfig | None) -> None:
    """
    @raise StateError: the account is one of the file.
    """
    if config is not None and parsed.agent in [each.id for each in config.accounts]:
        raise StateError(
            f"{parsed.config}: [[agent]] {parsed.agent}: this account stands in the file; change"
            " it there"
        )


def _asked_rights(
    parsed: argparse.Namespace, facts: Facts | None, config: RelayConfig | None
) -> Rights:
    """
    @return: the rights that the options name.
    @raise AccountError: one of them would never have an effect at this relay.
    """
    from relaytunnel.accounts import Rights

    rights = Rights(
        tuple(parsed.publish or ()),
        tuple((each.first, each.last) for each in parsed.ports or ()),
        tuple(parsed.host or ()),
    )
    own = () if config is None else (config.name, *config.names)
    names = RelayNames(own if facts is None else (facts.name, *own))
    for option, fault_of, patterns in (
        ("host", names.right_fault, rights.hosts),
        ("publish", names.id_fault, rights.publish),
    ):
        for pattern in patterns:
            fault = fault_of(pattern)
            if fault is not None:
                raise AccountError(f"--{option} {pattern}: {fault}")
    return rights


def _rights_shown(agent: str, rights: Rights) -> str:
    from relaytunnel.config import PortRange

    def listed(values: Sequence[object]) -> str:
        return ", ".join(map(str, values)) or "nothing"

    ports = [PortRange(*each) for each in rights.ports]
    return (
        f"{agent} may publish {listed(rights.publish)}; claim {listed(rights.hosts)};"
        f" ports: {', '.join(map(str, ports)) or 'none'}"
    )


def invite(parsed: argparse.Namespace) -> int:
    state, config = _named_state(parsed)
    _not_of_file(parsed, config)
    facts = state.read_facts()
    rights = _asked_rights(parsed, facts, config)
    if facts is None:
        facts = _facts_to_come(state, config, parsed.name)
        error(
            f"no relay has been started with the state in {state.path} yet; agents will look for"
            f" it at {facts.name}",
        )
    elif parsed.name:
        facts = msgspec.structs.replace(facts, name=parsed.name)
    with _store(state, make=True) as store:
        secret = store.invite(parsed.agent, rights.publish, rights.ports, rights.hosts)
    say(facts.invitation(parsed.agent, secret))
    if not rights.publish:
        error(
            f"{parsed.agent} may publish nothing yet; 'relaytunnel grant {parsed.agent} --publish"
            " ID' allows it",
        )
    else:
        error(_rights_shown(parsed.agent, rights))
    return 0


def rotate(parsed: argparse.Namespace) -> int:
    state, config = _named_state(parsed)
    _not_of_file(parsed, config)
    with _store(state) as store:
        facts = state.read_facts() or _facts_to_come(state, config, parsed.name)
        if parsed.name:
            facts = msgspec.structs.replace(facts, name=parsed.name)
        secret = store.rotate(parsed.agent)
    invitation = str(facts.invitation(parsed.agent, secret))
    if _kept_for(state, parsed.agent):
        state.write_invitation(invitation)
    say(invitation)
    error(
        f"the secret of {parsed.agent} before this one is good until this one is used, for 24"
        " hours at most",
    )
    return 0


def grant(parsed: argparse.Namespace) -> int:
    return _change(parsed, deny=False)


def deny(parsed: argparse.Namespace) -> int:
    return _change(parsed, deny=True)


def _change(parsed: argparse.Namespace, deny: bool) -> int:
    if not (parsed.publish or parsed.host or parsed.ports):
        parsed.wrong("say which right: --publish, --host or --ports")
    state, config = _named_state(parsed)
    _not_of_file(parsed, config)
    # What can have no effect may still be taken away.
    facts, own = (None, None) if deny else (state.read_facts(), config)
    rights = _asked_rights(parsed, facts, own)
    with _store(state) as store:
        change = store.deny if deny else store.grant
        say(_rights_shown(parsed.agent, change(parsed.agent, rights)))
    return 0


def _kept_for(state: StateDirectory, agent: str) -> bool:
    """
    Whether the state has a file with an invitation of this agent.
    """
    from relaytunnel.wire.invitation import Invitation

    kept = state.read_invitation()
    try:
        return kept is not None and Invitation.parse(kept).agent == agent
    except InvitationError:
        return False


def revoke(parsed: argparse.Namespace) -> int:
    state, config = _named_state(parsed)
    _not_of_file(parsed, config)
    with _store(state) as store:
        known = store.revoke(parsed.agent)
    if _kept_for(state, parsed.agent):
        state.remove_invitation()
    if not known:
        error(f"relaytunnel: there is no agent {parsed.agent}")
        return 1
    say(f"{parsed.agent} is revoked")
    return 0


def agents(parsed: argparse.Namespace) -> int:
    state, _ = _named_state(parsed)
    with _store(state) as store:
        accounts = store.agents()
    online = _online(state)
    if parsed.json:
        say(json.dumps(_rows(accounts, online), indent=2))
        return 0
    table: list[tuple[str, ...]] = [("AGENT", "MAY PUBLISH", "MAY CLAIM", "LAST SEEN", "ONLINE")]
    table += [_row(account, online) for account in accounts]
    listed = {account.agent for account in accounts}
    in_file = sorted((online or {}).keys() - listed)
    table += [(agent, "(in relay.toml)", "", "now", "yes") for agent in in_file]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())
    if online is None:
        error("the relay does not answer: who is online is not known")
    else:
        _show_refused(online, listed)
    return 0


def _show_refused(online: _Refused, listed: set[str]) -> None:
    """
    Say what agents claim and may not, with what would allow it.
    """
    from relaytunnel.relay.claims import grant_command

    refused = {agent: claims for agent, claims in online.items() if claims}
    if refused:
        say("\nThese claim host names that they may not; to allow it:")
    for agent, claims in sorted(refused.items()):
        hosts = ", ".join(f'"{claim}"' for claim in claims)
        in_file = f"[[agent]] {agent} of relay.toml: hosts = [{hosts}]"
        say(f"  {grant_command(agent, claims) if agent in listed else in_file}")


def _rows(accounts: Sequence[Account], online: _Refused | None) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [
        {
            "id": account.agent,
            "publish": account.rights.publish,
            "hosts": account.rights.hosts,
            "ports": account.rights.ports,
            "last_seen": account.last_seen,
            "online": None if online is None else account.agent in online,
            "refused_claims": (online or {}).get(account.agent, ()),
        }
        for account in accounts
    ]
    here = online or {}
    others = sorted(here.keys() - {account.agent for account in accounts})
    rows += [{"id": each, "online": True, "refused_claims": here[each]} for each in others]
    return rows


def _row(account: Account, online: _Refused | None) -> tuple[str, ...]:
    seen, rights = account.last_seen, account.rights
    here = "?" if online is None else "yes" if account.agent in online else "no"
    when = "never" if seen is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seen))
    publish, hosts = (", ".join(each) or "nothing" for each in (rights.publish, rights.hosts))
    return account.agent, publish, hosts, when, here


def _online(state: StateDirectory) -> _Refused | None:
    """
    Ask the running relay who is there.

    @return: C{None} if it does not answer.
    """
    facts = state.read_facts()
    if facts is None or not facts.admin:
        return None
    request = urllib.request.Request(
        f"http://{facts.admin}/api/status",
        headers={"Authorization": f"Bearer {state.admin_token()}"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=5) as answer:
            status = msgspec.json.decode(answer.read())
        return {
            # A relay of an older version does not say what it refuses.
            str(agent["id"]): [str(claim) for claim in agent.get("refused_claims", ())]
            for agent in status["agents"]
        }
    except (OSError, msgspec.DecodeError, AttributeError, KeyError, TypeError):
        return None

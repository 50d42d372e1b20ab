"""
Another configuration for a relay that runs: what changes, and how.

All that can go wrong is tried first, so a configuration that is not accepted
has changed nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from twisted.logger import Logger

from relaytunnel.accounts import FileAccounts
from relaytunnel.budgets import RelayBudgets
from relaytunnel.channel.descriptors import descriptor_limit
from relaytunnel.channel.identity import Identity, load_identity, own_identity
from relaytunnel.channel.tls import RelayTLS
from relaytunnel.config import Limits, RelayConfig
from relaytunnel.config.hosts import ID_ANYWHERE_WARNING
from relaytunnel.errors import ConfigError, StateError
from relaytunnel.relay.clients import SharedPort
from relaytunnel.relay.listening import addresses, tcp_port

if TYPE_CHECKING:
    from relaytunnel.relay.service import RelayService

__all__ = ["identity_of", "reload", "told_pin"]

_log = Logger()

_FIXED = {
    "[relay] name": "name",
    "[relay] state": "state",
    "[listen] agents": "agents",
    "[listen] admin": "admin",
}
"""What cannot change while a relay runs, and where it stands."""


def identity_of(config: RelayConfig) -> Identity:
    """
    @return: who a relay of this configuration is.
    @raise StateError: that cannot be read or made.
    """
    if config.certificate is not None and config.key is not None:
        return load_identity(config.certificate, config.key)
    return own_identity(config.state, config.name)


def told_pin(identity: Identity) -> str:
    """
    @return: the pin that invitations have; empty where an authority vouches
        for the certificate.
    """
    return identity.pin if identity.self_signed else ""


def reload(relay: RelayService, config: RelayConfig) -> list[str]:
    """
    Do what this configuration says from now on.  Sessions go on.

    @return: what has changed, a line each.
    @raise ConfigError: something cannot change while the relay runs.
    @raise StateError: a certificate or a port cannot be used.  In either
        case nothing has changed.
    """
    before = relay.config
    fixed = [
        f"{place}: cannot change while the relay runs; restart it"
        for place, key in _FIXED.items()
        if getattr(config, key) != getattr(before, key)
    ]
    if fixed:
        raise ConfigError(fixed)
    identity = identity_of(config)
    changed = _listen_anew(relay, config)
    # Nothing can fail from here on.
    relay.config = config
    if identity.chain != relay.identity.chain:
        relay.identity = identity
        relay.agents_port.use(RelayTLS(identity))
        changed.append("[tls] the certificate")
    if config.limits != before.limits:
        _use(relay, config.limits)
        changed.append("[limits]")
    if config.accounts != before.accounts:
        relay.accounts.reload(FileAccounts(config.accounts, relay.hashing.run))
        changed.append("[[agent]]")
    if config.all_names != before.all_names:
        relay.registry.names = config.all_names
        changed.append("[relay] names, id-anywhere")
        if config.id_anywhere and not before.id_anywhere:
            _log.warn("{text}", text=ID_ANYWHERE_WARNING)
        for agent in list(relay.registry.agents.values()):
            agent.recheck(agent.rights)
    if config.proxies != before.proxies:
        relay.clients.proxies = config.proxies
        changed.append("[listen] proxies")
    if config.ports != before.ports:
        relay.publisher.ports = config.ports
        changed.append("[listen] ports")
    ports = tuple(tcp_port(relay.listeners.port(endpoint)) for endpoint in relay.shared)
    relay.publisher.addresses = addresses(config.name, ports)
    relay.facts = msgspec.structs.replace(relay.facts, clients=ports, pin=told_pin(relay.identity))
    try:
        relay.state.write_facts(relay.facts)
    except StateError as fault:  # who wants to know where the relay is will not
        _log.warn("{fault}", fault=str(fault))
    return changed


def _listen_anew(relay: RelayService, config: RelayConfig) -> list[str]:
    """
    Have exactly these shared ports.

    @return: what has changed.
    @raise StateError: one of them cannot be had; nothing has changed then.
    """
    wanted = {each.endpoint: each.default for each in config.clients}
    opened: dict[str, SharedPort] = {}
    try:
        for endpoint in wanted.keys() - relay.shared.keys():
            opened[endpoint] = SharedPort(relay.clients)
            relay.listeners.listen(endpoint, opened[endpoint], shared=True)
    except StateError:
        for endpoint in opened:
            relay.listeners.unlisten(endpoint)
        raise
    changed = [f"[listen] clients: {endpoint} is new" for endpoint in opened]
    for endpoint in relay.shared.keys() - wanted.keys():
        relay.listeners.unlisten(endpoint)
        changed.append(f"[listen] clients: {endpoint} is gone")
    ports = relay.shared | opened
    relay.shared = {endpoint: ports[endpoint] for endpoint in wanted}
    for endpoint, port in relay.shared.items():
        if port.default != wanted[endpoint]:
            port.default = wanted[endpoint]
            changed.append(f"[listen] clients: the default of {endpoint}")
    return changed


def _use(relay: RelayService, limits: Limits) -> None:
    """
    These are the limits from now on; what runs keeps those it began with.
    """
    relay.budgets = budgets = RelayBudgets(limits, descriptor_limit())
    limits = budgets.limits
    relay.visits.room.use(limits)
    relay.clients.use(limits, budgets)
    relay.agents_port.admission.use(limits)
    relay.agents_port.idle.pool.most = budgets.idle.most
    for keeps in (relay.visits, relay.agents_port, relay.publisher, relay.reception):
        keeps.limits = limits

"""
Configurations: what they hold, and how they are read from files.

The form of each value is checked here; nothing is opened, listened on or
dialled but the file itself.
"""

from __future__ import annotations

from relaytunnel.config.access import Network, allowed, networks
from relaytunnel.config.endpoints import endpoint_description, target
from relaytunnel.config.hosts import RelayNames, host_right
from relaytunnel.config.limits import Limits
from relaytunnel.config.load import load as load_config
from relaytunnel.config.load import (
    load_agent,
    load_agent_text,
    load_relay,
    load_relay_text,
    load_text,
)
from relaytunnel.config.model import (
    AgentConfig,
    ClientPort,
    FileAccount,
    RelayConfig,
    default_state,
)
from relaytunnel.config.names import (
    PortRange,
    Reach,
    agent_id,
    connection_id,
    host,
    host_name,
    host_pattern,
    matches,
    publish_pattern,
)
from relaytunnel.config.server import ServerConfig
from relaytunnel.config.users import secret_hash

__all__ = [
    "AgentConfig",
    "ClientPort",
    "FileAccount",
    "Limits",
    "Network",
    "PortRange",
    "Reach",
    "RelayConfig",
    "RelayNames",
    "ServerConfig",
    "agent_id",
    "allowed",
    "connection_id",
    "default_state",
    "endpoint_description",
    "host",
    "host_name",
    "host_pattern",
    "host_right",
    "load_agent",
    "load_agent_text",
    "load_config",
    "load_relay",
    "load_relay_text",
    "load_text",
    "matches",
    "networks",
    "publish_pattern",
    "secret_hash",
    "target",
]

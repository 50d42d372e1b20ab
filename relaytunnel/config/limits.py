"""
The limits and deadlines that keep a relay or an agent alive.

Each has a default that suits a relay on the open internet, and bounds outside
of which it is not accepted.  What happens when a limit is reached is decided
where it is kept, not here.
"""

from __future__ import annotations

from typing import Annotated, get_type_hints

import msgspec

from relaytunnel.config.tables import given
from relaytunnel.errors import ConfigError
from relaytunnel.sources import IPV6_PREFIX

__all__ = ["LIMIT_KEYS", "Limits"]

_Deadline = Annotated[float, msgspec.Meta(ge=0.01, le=3600)]
_Duration = Annotated[float, msgspec.Meta(ge=0.01, le=30 * 86400)]
_Rate = Annotated[float, msgspec.Meta(ge=0.01, le=1_000_000)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
_CountOrNone = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
_Penalty = Annotated[float, msgspec.Meta(ge=0, le=86400)]
_Prefix = Annotated[int, msgspec.Meta(ge=1, le=128)]
_Size = Annotated[int, msgspec.Meta(ge=1, le=64 * 1024 * 1024)]


class Limits(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename="kebab"
):
    """
    All limits of one process.  Times are in seconds, sizes in bytes.

    @raise ConfigError: with a line for each value of the wrong type or out
        of its bounds, and when C{dead} is not longer than C{ping}.
    """

    ipv6_prefix: _Prefix = IPV6_PREFIX
    """Bits of an IPv6 address that tell one source from another."""
    handshake: _Deadline = 5.0
    """From accept until the TLS handshake is done, in seconds."""
    authentication: _Deadline = 10.0
    """From accept until an agent has proved who it is, in seconds."""
    arrival: _Deadline = 5.0
    """From accept until a client has said which server it wants, in seconds."""
    silence: _Deadline = 2.0
    """From accept until a client that says nothing is asked, in seconds."""
    question: _Deadline = 60.0
    """From the first question in text until the client has named a server, in seconds."""
    balancer: _Deadline = 3.0
    """From accept until a balancer has said whose connection it is, in seconds."""
    arriving_per_client: _Count = 1024
    """Clients of one source that have not said yet which server they want."""
    waiting: _Deadline = 10.0
    """How long a session waits for its data channel, and its ticket is good, in seconds."""
    waiting_per_server: _Count = 128
    """Sessions of one server for which its agent is notified at a time; more are queued."""
    waiting_per_agent: _Count = 256
    """The same for all servers of one agent."""
    waiting_per_relay: _Count = 1024
    """The same in all."""
    waiting_per_client: _Count = 96
    """The same for one source at one server."""
    queued: _Count = 4096
    """Sessions in all that wait until their agent is notified."""
    queued_bytes: _Size = 16777216
    """Bytes that are held of them, in all."""
    held: _Size = 32768
    """Bytes of a waiting client that are kept before it is paused."""
    sessions_per_server: _Count = 2048
    """Running sessions of one server."""
    sessions_per_agent: _Count = 4096
    """Running sessions of all servers of one agent."""
    sessions_per_client: _Count = 1024
    """Running sessions of one source."""
    sessions_per_relay: _CountOrNone = 0
    """Sessions in all, running or waiting; 0 is what the descriptors are enough for."""
    servers_per_agent: _Count = 1024
    """Servers that one agent may register."""
    idle: _Duration = 3600.0
    """Without a byte in either direction before a session is ended, in seconds."""
    half_closed: _Duration = 3600.0
    """The same for a session of which one direction has ended, in seconds."""
    linger_idle: _Deadline = 5.0
    """Without a byte to discard from a peer that is being left, in seconds."""
    linger: _Deadline = 30.0
    """All the time a peer that is being left may take, in seconds."""
    close: _Deadline = 15.0
    """From a close until the transport is aborted, in seconds."""
    ping: _Deadline = 15.0
    """Between two pings on a control channel, in seconds."""
    dead: _Deadline = 45.0
    """Without a sign of life before a control channel counts as lost, in seconds."""
    send_queue: _Size = 262144
    """Bytes that may wait on a control channel before it is dropped."""
    dial: _Deadline = 5.0
    """For the agent to connect to a target or to the relay, in seconds."""
    drain: _Deadline = 30.0
    """For the sessions that run to end when the process is told to stop, in seconds."""
    hand_over: _Duration = 86400.0
    """For the same when another process has taken over, in seconds."""
    parked: _Deadline = 10.0
    """For a parked data channel to be used again, in seconds."""
    notify_rate: _Rate = 50.0
    """Notifications of one server's agent that come to nothing, each second, in the long run."""
    notify_burst: _Count = 100
    """The same at once."""
    unauthenticated: _Count = 512
    """Connections to the agents' port that have not authenticated, in all."""
    unauthenticated_per_source: _Count = 16
    """The same for one source."""
    unauthenticated_early: _Count = 64
    """As many such connections as nobody is turned away for by chance."""
    penalty_auth: _Penalty = 5.0
    """For which a source is not listened to after a failed authentication, in seconds."""
    penalty_none: _Penalty = 1.0
    """The same after a connection that offered nothing, in seconds."""
    penalty_most: _Penalty = 600.0
    """All that a source can be penalized for at a time, in seconds."""

    def __post_init__(self) -> None:
        faults = []
        for key, name in LIMIT_KEYS.items():
            whole, least, most = _BOUNDS[name]
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                expected = "a whole number" if whole else "a number"
                faults.append(f"[limits] {key}: expected {expected}, given {given(value)}")
            elif not least <= value <= most:  # also when it is NaN
                faults.append(f"[limits] {key}: {value} is not from {least:.9g} to {most:.9g}")
            elif not whole:
                msgspec.structs.force_setattr(self, name, float(value))
        if not faults and self.dead <= self.ping:
            faults.append(f"[limits] dead: {self.dead:g} is not longer than ping ({self.ping:g})")
        if faults:
            raise ConfigError(faults)


def _bounds() -> dict[str, tuple[bool, float, float]]:
    """
    Read from the annotations whether each limit is whole, its least and most.
    """
    found = {}
    for name, hint in get_type_hints(Limits, include_extras=True).items():
        (meta,) = hint.__metadata__
        found[name] = (hint.__origin__ is int, meta.ge, meta.le)
    return found


_BOUNDS = _bounds()

LIMIT_KEYS = {field.encode_name: field.name for field in msgspec.structs.fields(Limits)}
"""The name of each limit in a file, and in L{Limits}."""

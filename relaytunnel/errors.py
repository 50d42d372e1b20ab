"""
The errors and reason codes that everybody shares.

A *code* is a short word that travels on the wire and stands in logs; the
*reason* beside it is a sentence for people.  Errors of this side are
exceptions below L{RelayTunnelError}; what went wrong at the other side is a
L{Failing} value, because nobody here can raise it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = [
    "AccountError",
    "Code",
    "ConfigError",
    "Failing",
    "InvitationError",
    "ProtocolError",
    "Rejection",
    "RelayTunnelError",
    "StateError",
]


class Code(str, Enum):
    """
    Why something was denied, rejected, refused or ended, as one word.
    """

    # A session that cannot come about (told to the client in its own protocol).
    NO_SUCH_SERVER = "no-such-server"
    AGENT_AWAY = "agent-away"
    NOT_ALLOWED = "not-allowed"
    LOGIN_NEEDED = "login-needed"
    BUSY = "busy"
    UNKNOWN_ID = "unknown-id"
    REFUSED_BY_TARGET = "refused-by-target"
    TARGET_UNREACHABLE = "target-unreachable"
    TIMEOUT = "timeout"

    # An agent that is not let in (Denied).
    AUTH = "auth"
    VERSION = "version"
    STALE_EPOCH = "stale-epoch"

    # A server that is not registered (Rejected).
    CONFLICT = "conflict"
    INVALID = "invalid"
    LIMIT = "limit"
    PORT_TAKEN = "port-taken"
    UNSUPPORTED = "unsupported"

    # A control channel that ends (Goodbye).
    SHUTDOWN = "shutdown"
    SUPERSEDED = "superseded"
    REVOKED = "revoked"
    PROTOCOL_ERROR = "protocol-error"
    INTERNAL = "internal"


class RelayTunnelError(Exception):
    """
    The base of every error that this package raises on purpose.
    """


class ProtocolError(RelayTunnelError):
    """
    The other end said something that the protocol does not allow.
    """


class InvitationError(RelayTunnelError):
    """
    An invitation string that cannot be used; the message says where and why.
    """


class AccountError(RelayTunnelError):
    """
    The accounts cannot be read or changed; the message says what to do.
    """


class StateError(RelayTunnelError):
    """
    The state directory, or a file in it, cannot be used.
    """


class ConfigError(RelayTunnelError):
    """
    A configuration that is not accepted, with every fault that was found.

    @ivar faults: one line a fault: file, key and reason.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Rejection(RelayTunnelError):
    """
    One request is turned down; the rest goes on.

    @ivar code: why, as a word.
    @ivar reason: why, as a sentence.
    """

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(f"{code.value}: {reason}")
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class Failing:
    """
    Why a session did not come about.

    @ivar code: why, as a word.
    @ivar reason: why, as a sentence that the client may read.
    """

    code: Code
    reason: str

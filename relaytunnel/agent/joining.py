"""
The invitation that an agent's configuration names.
"""

from __future__ import annotations

from relaytunnel.config import AgentConfig
from relaytunnel.errors import StateError
from relaytunnel.wire.invitation import Invitation

__all__ = ["read_invitation"]

_LONGEST_INVITATION = 4096


def read_invitation(config: AgentConfig) -> Invitation:
    """
    Read the invitation that stands in a configuration or in the file that it
    names.

    @raise StateError: the file cannot be read.
    @raise InvitationError: what it holds is no invitation.
    """
    text = config.join
    if text is None:
        path = config.join_file or ""
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read(_LONGEST_INVITATION)
        except (OSError, UnicodeDecodeError) as fault:
            reason = getattr(fault, "strerror", None) or "it is not text"
            raise StateError(f"{path}: cannot be read: {reason}") from None
    return Invitation.parse(text)

"""
A new relay invites its first agent by itself: whoever starts one needs no other
command to go on.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from relaytunnel.accounts import AccountStore
from relaytunnel.config import RelayConfig
from relaytunnel.errors import InvitationError
from relaytunnel.relay.state import Facts, StateDirectory
from relaytunnel.wire.invitation import Invitation

__all__ = ["FIRST_AGENT", "FirstInvitation"]

FIRST_AGENT = "first"
"""The agent that a new relay invites by itself; it may publish anything."""


class FirstInvitation:
    """
    The invitation of the first agent, and the file that keeps it.

    @ivar text: the invitation; L{None} if that agent is none of this relay's,
        or has another secret by now.
    @ivar new: whether the agent was invited just now.
    """

    _log = Logger()

    def __init__(
        self, state: StateDirectory, facts: Facts, store: AccountStore, config: RelayConfig
    ) -> None:
        """
        Invite a first agent where nobody was ever invited, and keep the file
        with its invitation true to where the relay is now.

        @raise StateError: the file cannot be read or written.
        @raise AccountError: the accounts cannot.
        """
        self.text: str | None = None
        self.new = False
        self._file = state.invitation
        kept = state.read_invitation()
        secret = None if kept is None else self._secret(kept)
        if kept is None and not store.agents() and not config.accounts:
            ports = config.ports
            secret = store.invite(FIRST_AGENT, ["*"], [(ports.first, ports.last)])
            self.new = True
        elif secret is None or store.authenticate(FIRST_AGENT, secret) is None:
            return
        self.text = str(facts.invitation(FIRST_AGENT, secret))
        if self.text != kept:
            state.write_invitation(self.text)

    def _secret(self, kept: str) -> str | None:
        try:
            return Invitation.parse(kept).secret
        except InvitationError:
            self._log.warn("{file} holds no invitation", file=self._file)
            return None

    def announce(self, show: Callable[[str], None]) -> None:
        """
        Say what to do with it.

        @param show: shows a text to whoever starts the relay.  A new
            invitation is a secret, so it does not go into the log.
        """
        if self.text is None:
            return
        if self.new:
            show(
                "A first agent is invited.  On its machine run\n\n"
                f"    twistd -n agent --join '{self.text}' --publish web=127.0.0.1:8080\n\n"
                f"with your server in place of 127.0.0.1:8080.  Keep it secret; it is also in\n"
                f"{self._file}\n"
            )
        self._log.info("the first agent's invitation is in {file}", file=self._file)

"""
A new relay invites its first agent by itself: whoever starts one needs no other
command to go on.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from relaytunnel.accounts import AccountStore
from relaytunnel.accounts.schema import FIRST_AGENT
from relaytunnel.config import RelayConfig
from relaytunnel.errors import InvitationError
from relaytunnel.relay.state import Facts, StateDirectory
from relaytunnel.wire.invitation import Invitation

__all__ = ["FIRST_AGENT", "FirstInvitation"]


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
        with its invitation true to where the relay is now, and to whether it
        is still good.

        @raise StateError: the file cannot be read or written.
        @raise AccountError: the accounts cannot.
        """
        self.text: str | None = None
        self.new = False
        self._file = state.invitation
        kept = state.read_invitation()
        secret = None if kept is None else self._secret(kept)
        if kept is None:
            if store.revision() or config.accounts or not config.invite_first:
                return
            ports = config.ports
            secret = store.invite(FIRST_AGENT, ["*"], [(ports.first, ports.last)], ["*"])
            self.new = True
        elif secret is None:
            return
        elif not store.knows(FIRST_AGENT, secret):
            # The file of other accounts, which are elsewhere now, stays.
            if store.revision():
                state.remove_invitation()
                self._log.info(
                    "{file} is removed: its invitation is good no more", file=self._file
                )
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

    def announce(self, show: Callable[[str], None] | None) -> None:
        """
        Say what to do with it.

        @param show: shows a text at the terminal where the relay is started;
            L{None} if there is none.  A new invitation is a secret, so it goes
            neither into the log nor where standard output is kept.
        """
        if self.text is None:
            return
        if self.new and show is not None:
            show(
                "A first agent is invited.  On its machine run\n\n"
                f"    twistd -n agent --join '{self.text}' --publish web=127.0.0.1:8080\n\n"
                f"with your server in place of 127.0.0.1:8080.  Keep it secret; it is also in\n"
                f"{self._file}\n"
            )
        self._log.info("the first agent's invitation is in {file}", file=self._file)

"""
The relay's end of control channels, on sockets: S1 to S4 and what follows.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from relaytunnel.accounts import Account, IAccounts, Rights
from relaytunnel.channel.control import ControlChannel
from relaytunnel.channel.workload import Workload
from relaytunnel.errors import AccountError, Code, Rejection
from relaytunnel.relay.admission import Newcomer
from relaytunnel.relay.agents import AgentSession, Reception
from relaytunnel.wire.messages import Message, Notify

__all__ = ["AgentControl"]

_AUTH_RETRY = 60.0
_INTERNAL_RETRY = 5.0
_BUSY_RETRY = 1.0


class AgentControl(ControlChannel):
    """
    One agent's control channel.

    @ivar gone: fires with this channel when the connection is.
    """

    _log = Logger()
    _deadline: IDelayedCall | None = None
    _asked: Deferred[None] | None = None

    def __init__(
        self,
        reception: Reception,
        accounts: Any,
        newcomer: Newcomer,
        wait: float,
        workload: Workload | None = None,
    ) -> None:
        """
        @param newcomer: the connection, as it is counted.
        @param wait: seconds that are left to authenticate.
        @param workload: where agents with much to say take turns.
        """
        super().__init__(reception.clock, reception.limits, workload)
        self._accounts: IAccounts = accounts
        self._newcomer = newcomer
        self._log_of_agents = reception.log
        self._tried = False
        self._wait = wait
        self.gone: Deferred[AgentControl] = Deferred()
        self.session = AgentSession(reception, self)
        self.serve(self.session)

    def connectionMade(self) -> None:
        super().connectionMade()
        self._deadline = self._clock.callLater(self._wait, self._too_late)

    def _report(self, format: str, **fields: object) -> None:  # noqa: A002
        kind = ("fault", self._newcomer.source)
        self._log_of_agents.emit(LogLevel.warn, kind, format, **fields)

    def _too_late(self) -> None:
        if not self._tried:
            self._newcomer.turn_away("silent")
        self.abort("it did not authenticate in time")

    def authenticate(self, agent: str, secret: str) -> None:
        self._tried = True
        wait = self._newcomer.tries(agent)
        if wait:
            self.session.stay.unknown(
                Code.BUSY,
                "too many from this address did not prove who they are",
                max(_BUSY_RETRY, wait),
            )
            return
        origin = (self._newcomer.standing, self._newcomer.source)
        asked = self._accounts.authenticate(agent, secret, origin)
        self._asked = asked.addCallback(self._answered, agent).addErrback(self._unanswered)

    def _answered(self, account: Account | None, agent: str) -> None:
        if account is None:
            self._newcomer.failed()
            self.session.stay.unknown(
                Code.AUTH, "no agent of this ID with this secret is invited", _AUTH_RETRY
            )
            return
        self._newcomer.proved()
        self.session.stay.known(account.rights)
        self._accounts.seen(agent, time.time()).addErrback(self._not_noted)
        # Whoever is revoked from now on is found in the registry; who was while
        # the secret was checked is found by asking once more.
        again = self._accounts.rights(agent)
        again.addCallback(self._rights_now).addErrback(self._not_noted)

    def _rights_now(self, rights: Rights | None) -> None:
        if rights is None:
            self.session.stay.dismiss(Code.REVOKED, "the account was revoked")
        else:
            self.session.stay.rights_changed(rights)

    def _unanswered(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            self._newcomer.gave_up()
            return
        self._newcomer.unanswered()
        fault = failure.value
        if isinstance(fault, Rejection):
            self.session.stay.unknown(fault.code, fault.reason, _BUSY_RETRY)
            return
        if failure.check(AccountError) is None:
            self._log.failure("the accounts failed", failure)
        else:
            self._log.error("no agent can be checked: {fault}", fault=str(failure.value))
        self.session.stay.unknown(
            Code.INTERNAL, "the relay cannot read its accounts now", _INTERNAL_RETRY
        )

    def _not_noted(self, failure: Failure) -> None:
        failure.trap(AccountError)
        self._log.warn("the accounts do not answer: {fault}", fault=str(failure.value))

    def send(self, message: Message) -> None:
        if type(message) is Notify:
            self._newcomer.notified()
        super().send(message)

    def authenticated(self, ping: float) -> None:
        self._disarm()
        super().authenticated(ping)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._disarm()
        if not self._tried:
            self._newcomer.turn_away("never authenticated")
        self._newcomer.gone()
        if self._asked is not None:
            self._asked.cancel()
        super().connectionLost(reason)
        self.gone.callback(self)

    def _disarm(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

"""
The agent's end of the control channel, on sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from zope.interface import implementer

from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from relaytunnel.agent.servers import OwnServer
from relaytunnel.agent.session import AgentState, RelaySession
from relaytunnel.agent.visit import AgentVisit
from relaytunnel.channel.control import ControlChannel
from relaytunnel.channel.tls import CONTROL, negotiated
from relaytunnel.config.limits import Limits
from relaytunnel.errors import Rejection
from relaytunnel.wire.messages import Notify

__all__ = ["Home", "RelayControl"]


class Home(Protocol):
    """
    The agent behind the control channel.
    """

    def online(self, control: RelayControl, relay: str, releases: bool) -> None:
        """S2: the relay let us in."""

    def offline(self, control: RelayControl, reason: str) -> None:
        """The control channel is gone."""

    def denied(self, code: str, reason: str) -> None:
        """S2: the relay does not let us in."""

    def published(self, server: OwnServer) -> None:
        """S4: clients reach this server now."""

    def not_published(self, connection_id: str, code: str, reason: str) -> None:
        """S4: this server cannot be reached, and why."""

    def compare(
        self, notify: Notify, server: OwnServer, done: Callable[[Rejection | None], None]
    ) -> None:
        """S8: say whether the client's password is right, now or later."""

    def stop_comparing(self, session: int) -> None:
        """Nobody waits for that any more; no answer comes."""

    def visit(self, notify: Notify, server: OwnServer) -> AgentVisit:
        """S8: serve this client."""

    def relay_leaves(self) -> None:
        """The relay is about to go."""


@implementer(IHandshakeListener)
class RelayControl(ControlChannel):
    """
    The control channel to the relay.
    """

    _log = Logger()
    _deadline: IDelayedCall | None = None

    def __init__(self, clock: IReactorTime, limits: Limits, state: AgentState, home: Home) -> None:
        super().__init__(clock, limits)
        self._home = home
        self._session = self.session = RelaySession(state, self)
        self.denied = home.denied
        self.published = home.published
        self.not_published = home.not_published
        self.compare = home.compare
        self.stop_comparing = home.stop_comparing
        self.visit = home.visit
        self.relay_leaves = home.relay_leaves

    def connectionMade(self) -> None:
        super().connectionMade()
        self._deadline = self._clock.callLater(
            self._limits.authentication, self.abort, "the relay did not let us in in time"
        )

    def handshakeCompleted(self) -> None:
        if negotiated(self.transport) != CONTROL:
            self.abort("what answers there is no relay")
            return
        self.session.connected()

    def welcomed(self, relay: str, releases: bool) -> None:
        """
        S2
        """
        self._home.online(self, relay, releases)

    def authenticated(self, ping: float) -> None:
        self._disarm()
        super().authenticated(ping)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._disarm()
        super().connectionLost(reason)
        self._home.offline(self, self.why_lost)

    def _disarm(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

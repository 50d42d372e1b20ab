"""
An agent as a Twisted service: what is built from a configuration, started and
stopped.  What it does is decided elsewhere.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from twisted.application.internet import ClientService
from twisted.application.service import Service
from twisted.internet.address import IPv6Address
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from relaytunnel import __version__
from relaytunnel.accounts.hashing import Hashing, hashing_threads
from relaytunnel.accounts.passwords import Passwords
from relaytunnel.agent.backoff import Backoff
from relaytunnel.agent.channels import DataChannels
from relaytunnel.agent.control import RelayControl
from relaytunnel.agent.joining import read_invitation
from relaytunnel.agent.local import listen_locally
from relaytunnel.agent.servers import OwnServer, Servers, registration
from relaytunnel.agent.session import AgentState
from relaytunnel.agent.targets import check_targets
from relaytunnel.agent.visit import AgentVisit
from relaytunnel.agent.visits import ServedClient
from relaytunnel.budgets import AgentBudgets, say_cut
from relaytunnel.channel.descriptors import descriptor_limit
from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.journal import Journal
from relaytunnel.channel.tls import CONTROL, DATA, AgentTLS
from relaytunnel.config import AgentConfig, ServerConfig
from relaytunnel.config.names import printable
from relaytunnel.deadlines import Deadlines
from relaytunnel.draining import quiet
from relaytunnel.errors import AccountError, Code, ConfigError, Rejection
from relaytunnel.interfaces import IRunningSplice, ISpliceEngine
from relaytunnel.splice import best_engine
from relaytunnel.wire.invitation import Invitation
from relaytunnel.wire.messages import Goodbye, Message, Notify, Withdraw

__all__ = ["AgentService"]

_REGISTER_AGAIN = 30.0
_GOODBYE = 1.0
_PASSING = (Code.BUSY.value, Code.INTERNAL.value)
"""Why a server may be refused now and not a moment later."""


class AgentService(Service):
    """
    An agent.

    It dials the relay when it is started, and again whenever the control
    channel is lost.

    @ivar state: who it is, and what it publishes.
    @ivar control: the control channel while the relay has let us in.
    @ivar splices: those under way, by session number.
    """

    _log = Logger()

    control: RelayControl | None = None
    engine: ISpliceEngine
    _local: IListeningPort | None = None
    _again: IDelayedCall | None = None
    _draining: Deferred[bool] | None = None

    def __init__(self, config: AgentConfig, invitation: Invitation, reactor: Any) -> None:
        """
        @raise ConfigError: of some target no endpoint can be made.
        """
        check_targets(reactor, config.servers)
        self.reactor = reactor
        self.limits = config.limits
        self.splices: dict[int, IRunningSplice] = {}
        self.state = AgentState(
            invitation.agent,
            invitation.secret,
            time.time_ns() // 1000,
            f"relaytunnel {__version__}",
            Servers(config.servers, config.limits.ipv6_prefix),
            Backoff(reactor.seconds, random.random),
        )
        self._config = config
        self._invitation = invitation
        self._local_path = config.local
        self._asked: dict[str, list[Deferred[OwnServer]]] = {}
        self._compared: dict[int, Deferred[Any]] = {}
        self._replaced: dict[str, OwnServer | None] = {}
        self._recognise()
        self._current: RelayControl | None = None

    def _recognise(self) -> None:
        """
        Know the relay by what the invitation says of it.
        """
        invitation, ca = self._invitation, self._config.ca
        self._tls = AgentTLS(invitation.host, CONTROL, invitation.pin, ca)
        self._data_tls = AgentTLS(invitation.host, DATA, invitation.pin, ca)

    def startService(self) -> None:
        """
        Dial the relay.

        @raise StateError: the socket for local servers cannot be made.
        """
        if self._local_path is not None:
            self._local = listen_locally(self.reactor, self._local_path, self)
        super().startService()
        for server in self._config.servers:
            self._note(server)
        self.budgets = budgets = AgentBudgets(self.limits, descriptor_limit())
        self.state.servers.sessions.most = budgets.sessions.most
        say_cut(budgets)
        self.edges = EdgeWatch(self.reactor)
        self.journal = Journal(self.reactor, Logger())
        self.deadlines = Deadlines(self.reactor)
        self._hashing = Hashing(hashing_threads(self.reactor))
        self._passwords = Passwords(self._hashing, self.reactor)
        self.engine = best_engine(self.edges, budgets.pipes.most // 2)
        relay = self._relay()
        self.channels = DataChannels(self.reactor, self.limits, self.edges, relay, self._data_tls)
        self.channels.bound(budgets.sessions.most, budgets.parked.most)
        self._dial_relay(relay)

    def _relay(self) -> HostnameEndpoint:
        return HostnameEndpoint(
            self.reactor,
            self._invitation.host.encode("ascii"),
            self._invitation.port,
            timeout=self.limits.dial,
        )

    def _dial_relay(self, relay: HostnameEndpoint) -> None:
        """
        Have a control channel from now on.
        """
        self._client = ClientService(
            _Reporting(wrapClientTLS(self._tls, relay), self._unreachable),
            _Controls(self),
            retryPolicy=lambda attempt: self.state.backoff.delay(),
            clock=self.reactor,
        )
        self._client.startService()

    def _note(self, server: ServerConfig) -> None:
        if server.target_note:
            self._log.info("{note}", note=server.target_note)

    def new_control(self) -> RelayControl:
        """
        @return: the agent's end of the next control channel.
        """
        self._tls.fault = None
        self._current = RelayControl(self.reactor, self.limits, self.state, self)
        return self._current

    # What the control channel says

    def online(self, control: RelayControl, relay: str, releases: bool) -> None:
        self.control = control
        self.channels.releases = releases
        # The very address that answered: behind one name there may be several
        # relays, and only this one knows the tickets.
        address: Any = control.transport.getPeer()  # type: ignore[union-attr]
        at = TCP6ClientEndpoint if isinstance(address, IPv6Address) else TCP4ClientEndpoint
        self.channels.found_at(
            at(self.reactor, address.host, address.port, timeout=self.limits.dial), address
        )
        self._log.info(
            "the relay {relay} at {peer} has let {agent} in",
            relay=printable(relay),
            peer=control.peer,
            agent=self.state.agent,
        )

    def offline(self, control: RelayControl, reason: str) -> None:
        self.control = None
        if self._client.running:
            self._log.warn(
                "no control channel to the relay at {host}:{port}: {reason}",
                host=self._invitation.host,
                port=self._invitation.port,
                reason=printable(self._tls.fault or reason),
            )

    def _unreachable(self, failure: Failure) -> None:
        self._log.warn(
            "the relay at {host}:{port} cannot be reached: {reason}",
            host=self._invitation.host,
            port=self._invitation.port,
            reason=failure.getErrorMessage(),
        )

    def denied(self, code: str, reason: str) -> None:
        self._log.error(
            "the relay does not let {agent} in: {code}: {reason}",
            agent=self.state.agent,
            code=printable(code),
            reason=printable(reason),
        )

    def published(self, server: OwnServer) -> None:
        self._replaced.pop(server.config.id, None)
        for asked in self._asked.pop(server.config.id, ()):
            asked.callback(server)
        for address in server.addresses:
            self._log.info(
                "{server} is reached at {address}",
                server=server.config.id,
                address=printable(address),
            )

    def not_published(self, connection_id: str, code: str, reason: str) -> None:
        if self._draining is not None:
            return
        self._log.error(
            "{server} is not published: {code}: {reason}",
            server=printable(connection_id),
            code=printable(code),
            reason=printable(reason) or "the relay gave no reason",
        )
        asked_for = self._asked.pop(connection_id, [])
        if asked_for and code not in _PASSING:
            self._want_no_more(connection_id)
        if self._again is None and self.state.servers.get(connection_id) is not None:
            # Ports become free, rights are granted, other agents leave.
            wait = _REGISTER_AGAIN * (0.5 + random.random())
            self._again = self.reactor.callLater(wait, self._register_again)
        for asked in asked_for:
            if code in _PASSING:
                reason = f"{reason}; it is asked for again"
            asked.errback(Rejection(_code(code), reason))

    def _want_no_more(self, connection_id: str) -> None:
        """
        The relay has refused what a command asked for: all is as before.
        """
        before = self._replaced.pop(connection_id, None)
        if before is None:
            self.state.servers.remove(connection_id)
            # Or the relay would publish it when the account allows it.
            self.send(Withdraw(connection_id=connection_id))
        else:
            self.state.servers.put_back(before)
            if not before.closing:
                self.send(registration(before.config))

    def _register_again(self) -> None:
        self._again = None
        for server in self.state.servers:
            if not (server.registered or server.closing):
                self.send(registration(server.config))

    def compare(
        self, notify: Notify, server: OwnServer, done: Callable[[Rejection | None], None]
    ) -> None:
        def compared(right: bool) -> None:
            del self._compared[notify.session]
            wrong = Rejection(Code.LOGIN_NEEDED, "the user name or the password is wrong")
            done(None if right else wrong)

        def failed(failure: Failure) -> None:
            if failure.check(CancelledError):
                return
            self._compared.pop(notify.session, None)
            if isinstance(failure.value, Rejection):
                done(failure.value)
                return
            if not failure.check(AccountError):  # the agent stops
                self._log.failure("a password could not be compared", failure)
            done(Rejection(Code.INTERNAL, "the password could not be compared"))

        try:
            checking = self._passwords.check(
                server.users,
                notify.user,
                notify.password,
                self.state.servers.source(notify),
                (notify.connection_id, ""),
            )
        except Rejection as rejection:
            done(rejection)
        else:
            self._compared[notify.session] = checking
            checking.addCallbacks(compared, failed)
            checking.addErrback(lambda fault: self._log.failure("our own fault", fault))

    def stop_comparing(self, session: int) -> None:
        checking = self._compared.pop(session, None)
        if checking is not None:
            checking.cancel()

    def visit(self, notify: Notify, server: OwnServer) -> AgentVisit:
        served = ServedClient(self, notify, server)
        self.state.servers.begin(notify)
        return served.visit

    def relay_leaves(self) -> None:
        self.channels.forget_parked()

    # What the visits say

    def send(self, message: Message) -> None:
        if self.control is not None:
            self.control.send(message)

    def forget(self, notify: Notify) -> None:
        if self.state.visits.pop(notify.session, None) is not None:
            self.state.servers.end(notify)

    # What a server asks of a running agent (S3)

    def publish(self, config: ServerConfig) -> Deferred[OwnServer]:
        """
        Publish one more server, now and after every reconnect.  Of one that is
        published already, whom it is for is kept.

        @return: fires when clients can reach it; fails with L{Rejection} if
            the relay turns it down, and nothing has changed then, unless it
            says that it is asked for again.
        @raise ConfigError: no endpoint can be made of its target, or what is
            kept does not go with it.
        """
        check_targets(self.reactor, [config])
        self._note(config)
        before = self.state.servers.get(config.id)
        if before is not None:
            config = config.instead_of(before.config)
        self._replaced.setdefault(config.id, before)
        asked: Deferred[OwnServer] = Deferred()
        self._asked.setdefault(config.id, []).append(asked)
        self.state.servers.add(config)
        self.send(registration(config))
        return asked

    def withdraw(self, connection_id: str) -> bool:
        """
        Publish a server no more.  Its sessions go on.

        @return: whether there was such a server.
        """
        if self.state.servers.get(connection_id) is None:
            return False
        self.state.servers.remove(connection_id)
        self._replaced.pop(connection_id, None)
        self.send(Withdraw(connection_id=connection_id))
        for asked in self._asked.pop(connection_id, ()):
            asked.errback(Rejection(Code.NO_SUCH_SERVER, "it was withdrawn"))
        return True

    # Another configuration

    def reload(self, config: AgentConfig) -> list[str]:
        """
        Do what this configuration says from now on.  Sessions go on, those of
        servers that are published no more, too.

        @return: what has changed, a line each.
        @raise ConfigError: something cannot change while the agent runs;
            nothing has changed then.
        @raise StateError: the invitation cannot be read; so it is then.
        @raise InvitationError: it is none.
        """
        before = self._config
        fixed = [
            f"[agent] {key.replace('_', '-')}: cannot change while the agent runs; restart it"
            for key in ("ca", "local")
            if getattr(config, key) != getattr(before, key)
        ]
        if fixed:
            raise ConfigError(fixed)
        check_targets(self.reactor, config.servers)
        invitation = read_invitation(config)
        self._config = config
        changed = []
        if invitation != self._invitation:
            self._join(invitation)
            changed.append("the invitation")
        if config.limits != before.limits:
            self.limits = config.limits
            self.channels.use(config.limits)
            self.state.servers.use(config.limits.ipv6_prefix)
            self.budgets = budgets = AgentBudgets(config.limits, descriptor_limit())
            self.state.servers.sessions.most = budgets.sessions.most
            self.channels.bound(budgets.sessions.most, budgets.parked.most)
            changed.append("[limits]")
        wanted = {server.id: server for server in config.servers}
        had = {server.id: server for server in before.servers}
        for name in had.keys() - wanted.keys():
            if self.withdraw(name):
                changed.append(f"[[server]] '{name}' is withdrawn")
        for name, server in wanted.items():
            now = self.state.servers.get(name)
            # A command may have withdrawn it, or put another in its place.
            if now is None or now.config != server:
                self._note(server)
                self.state.servers.add(server)
                self.send(registration(server))
                changed.append(
                    f"[[server]] '{name}' is {'published' if now is None else 'changed'}"
                )
        return changed

    def _join(self, invitation: Invitation) -> None:
        """
        Join by another invitation: hang up, and come back with it.  Sessions go
        on, and so do those that were accepted.
        """
        self._invitation = invitation
        self.state.agent, self.state.secret = invitation.agent, invitation.secret
        self.state.backoff = Backoff(self.reactor.seconds, random.random)
        self._recognise()
        if not self.running:
            return
        self.channels.lead_to(self._relay(), self._data_tls)
        leaving = self._client
        hanging_up: Deferred[None] = leaving.stopService()
        if self._current is not None:
            self._current.close("there is another invitation")

        def gone(result: object) -> None:
            # Another one may have come meanwhile, or the end.
            if self.running and self._client is leaving and self._draining is None:
                self._dial_relay(self._relay())

        hanging_up.addBoth(gone)

    # The end

    def drain(self) -> Deferred[Any]:
        """
        Take no new clients, and wait for the sessions that run, for as long as
        the limit says.

        @return: a Deferred that fires when they are over, or the time is.
        """
        state = self.state
        for message in state.servers.close():
            self.send(message)
        self._hashing.drain("the agent is about to stop")
        self._draining = quiet(
            self.reactor, lambda: not (state.visits or state.comparing), self.limits.drain
        )
        return self._draining

    @inlineCallbacks
    def stopService(self) -> Any:
        """
        Say goodbye, end every session, hang up.

        @return: a Deferred that fires when all is gone.
        """
        super().stopService()
        if self._draining is not None:
            self._draining.cancel()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._local is not None:
            yield self._local.stopListening()
            self._local = None
        if self._current is not None and self.control is not None:
            self.control.send(Goodbye(code=Code.SHUTDOWN.value, reason="the agent stops"))
        for splice in list(self.splices.values()):
            splice.close()
        for visit in list(self.state.visits.values()):
            visit.cancelled()
        self.channels.close()
        stopping: Deferred[None] = self._client.stopService()
        if self._current is not None:
            self._current.close("the agent stops")
        cut_off = self.reactor.callLater(_GOODBYE, self._cut_off)
        yield stopping
        if cut_off.active():
            cut_off.cancel()
        yield deferLater(self.reactor, 0)  # what was aborted is closed a turn later
        yield self._hashing.close()
        self.journal.close()
        self.edges.close()

    def _cut_off(self) -> None:
        if self._current is not None:
            self._current.abort("the agent stops")


def _code(word: str) -> Code:
    """
    @return: the code of this word, or C{INTERNAL} for one of a later version.
    """
    try:
        return Code(word)
    except ValueError:
        return Code.INTERNAL


class _Controls(Factory):
    noisy = False

    def __init__(self, service: AgentService) -> None:
        self._service = service

    def buildProtocol(self, addr: object) -> RelayControl:
        return self._service.new_control()


@implementer(IStreamClientEndpoint)
class _Reporting:
    """
    An endpoint that says why it could not be reached: its user does not.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, report: Any) -> None:
        self._endpoint = endpoint
        self._report = report

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        def failed(failure: Failure) -> Failure:
            self._report(failure)
            return failure

        return self._endpoint.connect(factory).addErrback(failed)

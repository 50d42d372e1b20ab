"""
A relay as a Twisted service: what is built from a configuration, started and
stopped.  What it does is decided elsewhere.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

from msgspec.structs import replace

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import Logger

from relaytunnel.accounts import (
    Account,
    AccountStore,
    CombinedAccounts,
    DatabaseAccounts,
    FileAccounts,
    Rights,
)
from relaytunnel.accounts.hashing import Hashing, hashing_threads
from relaytunnel.accounts.passwords import Passwords
from relaytunnel.accounts.threads import Threads
from relaytunnel.budgets import RelayBudgets, say_cut
from relaytunnel.channel.descriptors import Descriptors, descriptor_limit
from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.identity import Identity
from relaytunnel.channel.sockets import PeekedConnection
from relaytunnel.channel.tls import RelayTLS
from relaytunnel.channel.workload import Workload
from relaytunnel.config import RelayConfig
from relaytunnel.config.hosts import ID_ANYWHERE_WARNING
from relaytunnel.draining import quiet
from relaytunnel.errors import Code, StateError
from relaytunnel.relay.admission import Admission, Newcomer
from relaytunnel.relay.agents import Reception
from relaytunnel.relay.choices import Choices
from relaytunnel.relay.clients import Clients, OwnPort, SharedPort
from relaytunnel.relay.control import AgentControl
from relaytunnel.relay.data import AgentsPort
from relaytunnel.relay.expecting import Expectation
from relaytunnel.relay.finding import Finder
from relaytunnel.relay.inheriting import Inheritance
from relaytunnel.relay.inviting import FirstInvitation
from relaytunnel.relay.keptports import KeptPorts
from relaytunnel.relay.listening import Listeners, addresses, tcp_port
from relaytunnel.relay.locking import StateLock
from relaytunnel.relay.publishing import Publisher
from relaytunnel.relay.rechecking import Rechecking, reserved
from relaytunnel.relay.registry import Registry
from relaytunnel.relay.reloading import identity_of, reload, told_pin
from relaytunnel.relay.state import Facts, StateDirectory, started
from relaytunnel.relay.visits import Visits
from relaytunnel.relay.waiting import WaitingRoom
from relaytunnel.relay.wildcard import WildcardLookup
from relaytunnel.splice import best_engine
from relaytunnel.wire.messages import TICKET_BYTES, Restarting

__all__ = ["RelayService"]

_ACCOUNT_THREADS = 2
_RECONNECT_SPREAD = 2.0
_RECONNECT_FOR = 60.0
_GOODBYE = 1.0
_EXPECTED_WITHIN = 10.0
_BACK_WITHIN = 60.0
"""Seconds; twice as long as an agent waits at most before it dials again."""
_SERVED_WITHIN = 1.0


class Successor(Protocol):
    """
    Another process that is to take over.

    @ivar ready: fires when it has started.
    @ivar accepting: fires when it has taken over.
    """

    ready: Deferred[None]
    accepting: Deferred[None]

    def go(self) -> None:
        """It may accept from now on."""


class RelayService(Service):
    """
    A relay.

    It starts with C{startService}, which raises what is wrong, and is gone
    when the Deferred of C{stopService} has fired.

    @ivar registry: who is here.
    @ivar visits: who waits.
    @ivar clients: who is served.
    @ivar agents_port: what agents dial.
    @ivar descriptors: whether connections are accepted.
    @ivar budgets: what its descriptors are for.
    @ivar facts: where it is found, once it has started.
    """

    _log = Logger()

    registry: Registry
    visits: Visits
    clients: Clients
    agents_port: AgentsPort
    descriptors: Descriptors
    budgets: RelayBudgets
    facts: Facts

    def __init__(
        self,
        config: RelayConfig,
        reactor: Any,
        announce: Callable[[str], None] | None = print,
        inherited: Inheritance | None = None,
    ) -> None:
        """
        @param inherited: what another process has left to this one, which then
            waits for L{take_over}.
        @param announce: shows the first invitation at the terminal where the
            relay is started; L{None} if there is none.  It holds a secret, so
            it does not go into the log.
        """
        self.config = config
        self._announce_invitation = announce
        self._inherited = inherited
        self._handed_over = False
        self.state = StateDirectory(config.state)
        self._reactor = reactor
        self.shared: dict[str, SharedPort] = {}
        self._draining: Deferred[Any] | None = None
        self._controls: set[AgentControl] = set()
        self._expected: Expectation | None = None

    def startService(self) -> None:
        """
        Open the state, listen, and say where the relay is found.

        @raise StateError: state, certificate or a port cannot be used.
        @raise AccountError: the accounts cannot.
        """
        config = self.config
        self.state.prepare()
        self._lock = self._lock_state()
        try:
            self._start(config)
        except BaseException:
            self._lock.release()
            raise

    def _lock_state(self) -> StateLock:
        inherited = self._inherited
        if inherited is None or inherited.lock < 0:
            return StateLock.acquire(self.state.path)
        return StateLock(inherited.lock)

    def _start(self, config: RelayConfig) -> None:
        self.identity = identity = identity_of(config)
        store = AccountStore(self.state.database)
        self._edges = EdgeWatch(self._reactor)
        self._workload = Workload(self._reactor)
        self.listeners = Listeners(self._reactor, self._edges, self._inherited)
        self._threads = Threads(self._reactor, _ACCOUNT_THREADS, "accounts")
        self._wildcard = WildcardLookup(self._reactor, config.name)
        self.hashing = hashing = Hashing(hashing_threads(self._reactor))
        self.database = database = DatabaseAccounts(store, self._threads)
        self.accounts = CombinedAccounts(FileAccounts(config.accounts, hashing.run), database)
        try:
            self._listen(identity)
            invitation = FirstInvitation(self.state, self.facts, store, config)
            # No agent can come before what all others have a right to is known.
            listed = self.accounts.listed(store.agents())
            self.publisher.reservations.load(reserved(listed))
            if self._inherited is None and self.state.read_facts() is not None:
                self._expect_back(listed)
            if store.upgraded:
                self._log.warn(
                    "{database} was brought up to date: the host names that agents claim need a"
                    " right now.  'relaytunnel agents' lists those that are refused, with the"
                    " command that grants each.  An ID names a server only below the relay's own"
                    " names; [relay] names adds some",
                    database=store.name,
                )
            if self._inherited is None:
                self.state.write_facts(self.facts)
        except BaseException:
            self._expect_no_more()
            self.listeners.stop()
            self._edges.close()
            # No thread runs yet, and where there is no reactor none may be
            # started: the process could not end before it.
            store.close()
            raise
        super().startService()
        self._rechecking = Rechecking(
            self._reactor,
            self.accounts,
            self.registry,
            self.publisher.reservations,
            self._recheck_absent,
        )
        self._rechecking.start()
        self._wildcard.start()
        self._announce()
        invitation.announce(self._announce_invitation)

    def _expect_back(self, accounts: Iterable[Account]) -> None:
        """
        This relay has run before: the agents that it knows may be on their way.
        """
        agents = {
            account.agent
            for account in accounts
            if account.last_seen is not None or account.source == "file"
        }
        if agents:
            self._expected = back = Expectation(self._reactor, agents, _BACK_WITHIN, lambda: None)
            self.registry.returning = lambda: not back.over
            self.registry.entered = lambda agent: back.agent_came(agent.agent_id)

    def _expect_no_more(self) -> None:
        if self._expected is not None:
            self._expected.end()
            self._expected = None

    def _recheck_absent(self, rights: Mapping[str, Rights]) -> None:
        self.visits.recheck_absent(rights)
        self.registry.away.keep_only(rights.keys())
        if self.publisher.kept is not None:
            self.publisher.kept.keep_only(rights.keys())

    def _listen(self, identity: Identity) -> None:
        config, reactor = self.config, self._reactor
        self.budgets = budgets = RelayBudgets(config.limits, descriptor_limit())
        limits = budgets.limits
        listeners = self.listeners
        self.descriptors = listeners.descriptors
        self.registry = Registry(config.all_names, reactor.seconds)
        room: WaitingRoom[Any] = WaitingRoom(
            limits,
            reactor.seconds,
            lambda: secrets.token_bytes(TICKET_BYTES),
            last_session=secrets.randbelow(1 << 40),
        )
        self.visits = Visits(room, limits, reactor)
        self.clients = Clients(
            reactor,
            limits,
            self._edges,
            self.registry,
            self.visits,
            best_engine(self._edges, budgets.pipes.most // 2),
            Finder(self.registry, Choices(self.state.choices_key())),
            Passwords(self.hashing, reactor),
            config.proxies,
            self._wildcard.has_names_below,
            budgets,
        )
        listeners.own_factory = lambda port: OwnPort(self.clients, port)
        self.shared = {
            each.endpoint: SharedPort(self.clients, each.default) for each in config.clients
        }
        shared = [listeners.listen(*each, shared=True) for each in self.shared.items()]
        ports = tuple(tcp_port(port) for port in shared)
        first = shared[0]
        listeners.interface = "" if first is None else getattr(first.getHost(), "host", "")
        self.publisher = publisher = Publisher(
            self.registry, limits, config.ports, listeners, addresses(config.name, ports)
        )
        publisher.kept = self.clients.kept = KeptPorts(reactor, listeners.close)
        self.reception = reception = Reception(
            config.name,
            socket.gethostname(),
            self.registry,
            publisher,
            self.visits,
            limits,
            reactor,
        )
        admission = Admission(limits, time.monotonic, random.random, room.notified)
        if self._inherited is not None:
            admission.remember(self._inherited.known)
        self.agents_port = AgentsPort(
            reactor,
            limits,
            self._edges,
            RelayTLS(identity),
            self.visits,
            admission,
            partial(self._new_control, reception),
            budgets.idle.most,
        )
        self.clients.parted = self.agents_port.session_over
        agents = tcp_port(listeners.listen(config.agents, self.agents_port, PeekedConnection))
        admin = ""
        if config.admin:
            # Not imported by those who do not want it: it brings twisted.web.
            from relaytunnel.admin.api import admin_site

            site = admin_site(self, self.state.admin_token(), budgets.admin.most)
            listening = listeners.listen(config.admin, site, to_the_last=True)
            if tcp_port(listening):
                assert listening is not None
                admin = f"{listening.getHost().host}:{tcp_port(listening)}"  # type: ignore[attr-defined]
        self.facts = Facts(
            pid=os.getpid(),
            since=started(os.getpid()),
            name=config.name,
            pin=told_pin(identity),
            agents=agents,
            clients=ports,
            admin=admin,
        )

    def reload(self, config: RelayConfig) -> list[str]:
        """
        Do what this configuration says from now on; see
        L{relaytunnel.relay.reloading}.
        """
        return reload(self, config)

    def _new_control(self, reception: Reception, newcomer: Newcomer, wait: float) -> AgentControl:
        control = AgentControl(reception, self.accounts, newcomer, wait, self._workload)
        self._controls.add(control)
        control.gone.addCallback(self._controls.discard)
        return control

    def _announce(self) -> None:
        facts = self.facts
        self._log.info(
            "the relay {name} is here: agents dial port {agents}, clients port {clients}",
            name=facts.name,
            agents=facts.agents,
            clients=", ".join(map(str, facts.clients)),
        )
        say_cut(self.budgets)
        if facts.name == "localhost":
            self._log.info(
                "it calls itself localhost, so only agents on this machine find it;"
                " start it with --name and the name that others know it by"
            )
        if self.config.id_anywhere:
            self._log.warn("{text}", text=ID_ANYWHERE_WARNING)

    # From one process to the next

    def take_over(self) -> None:
        """
        The other process accepts nobody any more: do so instead.  Its agents
        come back within a moment, and clients wait for them as long.
        """
        assert self._inherited is not None
        self._lock.sign()
        self.listeners.resume()
        self.clients.expect(
            self._inherited.agents, _EXPECTED_WITHIN, self.listeners.close_inherited
        )
        self._write_facts()
        self._log.info("this process has taken over")

    def leave(self) -> Inheritance:
        """
        @return: what another process needs to take over.
        """
        known = self.agents_port.admission.known()
        inheritance = self.listeners.leave(self.registry.agents, known)
        inheritance.lock = self._lock.descriptor
        return inheritance

    @inlineCallbacks
    def hand_over(self, successor: Successor) -> Any:
        """
        Let another process take over, and wait for the sessions that run here.

        Nobody is refused meanwhile: who connects waits in the kernel's queue
        until the other process accepts.  Clients that have come already are
        served, for a moment, and those that are queued until it was their turn; then
        the agents are sent to the other process.

        @return: a Deferred that fires when nothing runs here any more; fails
            with L{StateError} if the other does not take over, and all is as
            before.
        """
        limits, clients = self.config.limits, self.clients
        yield successor.ready
        self.listeners.pause(agents=False)
        try:
            yield quiet(self._reactor, lambda: not clients.present, _SERVED_WITHIN)
            yield quiet(self._reactor, lambda: not self.visits.room.queued, limits.waiting)
            self.listeners.pause(agents=True)
            successor.go()
            yield successor.accepting
        except StateError:
            self.listeners.resume()
            raise
        self._handed_over = True
        self.listeners.handed_over()
        self._log.info("another process has taken over; the sessions that run here go on")
        for agent in list(self.registry.agents.values()):
            agent.send(Restarting(reconnect_in=0.0, try_for=_RECONNECT_FOR))
            agent.dismiss(Code.SHUTDOWN, "another process of this relay has taken over")
        self._draining = quiet(
            self._reactor, lambda: not (clients.splices or clients.present), limits.hand_over
        )
        yield self._draining

    def keeps_on(self, why: str) -> None:
        """
        Nobody has taken over; whoever asked for that reads why in the state.
        """
        if self._handed_over:
            return
        facts = self.facts
        self.facts = replace(facts, kept_on=facts.kept_on + 1, kept_on_because=why)
        self._write_facts()

    def _write_facts(self) -> None:
        try:
            self.state.write_facts(self.facts)
        except StateError as fault:  # who wants to know where the relay is will not
            self._log.warn("{fault}", fault=str(fault))

    # The end

    def drain(self) -> Deferred[Any]:
        """
        Take no new clients, tell the agents, and wait for the sessions that
        wait or run, for as long as the limits say.

        @return: a Deferred that fires when they are over, or the time is.
        """
        limits, clients = self.config.limits, self.clients
        self.listeners.stop_clients()
        self.hashing.drain("the relay is about to stop")
        for agent in list(self.registry.agents.values()):
            agent.send(Restarting(reconnect_in=_RECONNECT_SPREAD, try_for=_RECONNECT_FOR))
        self._draining = quiet(self._reactor, lambda: not clients.present, limits.waiting)
        return self._draining.addCallback(
            lambda _: quiet(self._reactor, lambda: not clients.splices, limits.drain)
        )

    @inlineCallbacks
    def _part(self) -> Any:
        """
        Wait a moment for those who were told to go, then cut them off.
        """
        leaving = list(self._controls)
        for control in leaving:
            control.close("the relay stops")
        cut_off = self._reactor.callLater(_GOODBYE, self._cut_off)
        yield DeferredList([control.gone for control in leaving])
        if cut_off.active():
            cut_off.cancel()
        self.clients.cut_off()
        yield deferLater(self._reactor, 0)  # what was aborted is closed a turn later

    def _cut_off(self) -> None:
        for control in list(self._controls):
            control.abort("the relay stops")

    @inlineCallbacks
    def stopService(self) -> Any:
        """
        Tell the agents, end every session, close every port.

        @return: a Deferred that fires when all is gone.
        """
        super().stopService()
        if self._draining is not None:
            self._draining.cancel()
        self._rechecking.stop()
        self._expect_no_more()
        if self.publisher.kept is not None:
            self.publisher.kept.end()
        stopped = self.listeners.stop()
        for agent in list(self.registry.agents.values()):
            agent.send(Restarting(reconnect_in=_RECONNECT_SPREAD, try_for=_RECONNECT_FOR))
            agent.dismiss(Code.SHUTDOWN, "the relay stops")
        self.clients.close()
        self.agents_port.close()
        yield self._part()
        self.reception.log.close()
        yield stopped
        yield self.accounts.close()
        yield self.hashing.close()
        yield self._wildcard.stop()
        self._edges.close()
        try:
            if not self._handed_over:
                self.state.mark_stopped()
        except StateError as fault:
            self._log.warn("{fault}", fault=str(fault))
        finally:
            self._lock.release()

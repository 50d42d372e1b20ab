"""
All clients of a relay, and the ports that they come to.

One client is in L{relaytunnel.relay.client}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from relaytunnel.accounts.passwords import Passwords
from relaytunnel.budgets import RelayBudgets
from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.journal import Journal
from relaytunnel.channel.tcp import TCPChannel
from relaytunnel.config.access import Network, allowed
from relaytunnel.config.limits import Limits
from relaytunnel.interfaces import IRunningSplice, ISpliceEngine
from relaytunnel.pools import Pool, Reclaimable
from relaytunnel.ratelimited import RateLimitedLog
from relaytunnel.relay.balancers import Balanced
from relaytunnel.relay.client import ClientVisit
from relaytunnel.relay.expecting import Expectation
from relaytunnel.relay.finding import (
    Finder,
)
from relaytunnel.relay.keptports import KeptPorts
from relaytunnel.relay.registry import Registry
from relaytunnel.relay.visits import Visit, Visits
from relaytunnel.relay.waiting import Place
from relaytunnel.wire.proxied import Proxied

__all__ = ["Clients", "OwnPort", "SharedPort"]


class Clients:
    """
    All clients of a relay, whatever port they came to.

    @ivar splices: those under way, by session number.
    @ivar finished: how many splices have ended.
    @ivar refused: the log of those who are not served.
    @ivar arriving: clients that have neither a place in the waiting room nor
        an answer.
    @ivar parted: called with what a session was carried by when it is over.
    @ivar lingering: channels of those who were told why they are not served.
    """

    def __init__(
        self,
        clock: IReactorTime,
        limits: Limits,
        edges: EdgeWatch,
        registry: Registry,
        visits: Visits,
        engine: ISpliceEngine,
        finder: Finder,
        passwords: Passwords,
        proxies: tuple[Network, ...] = (),
        names_below: Callable[[str], bool] = lambda host: False,
        budgets: RelayBudgets | None = None,
    ) -> None:
        """
        @param proxies: the networks of balancers.
        @param names_below: whether each name below one of the relay's leads here.
        @param budgets: how many clients there are descriptors for; without it
            for any number.
        """
        self.clock = clock
        self.limits = limits
        self.edges = edges
        self.registry = registry
        self.visits = visits
        self.engine = engine
        self.finder = finder
        self.passwords = passwords
        self.proxies = proxies
        self.names_below = names_below
        self.balanced: set[Balanced] = set()
        self.expected: Expectation | None = None
        self.arriving = visits.room.arriving
        self.lingering: Reclaimable[TCPChannel] = Reclaimable(Pool(0))
        self.use(limits, budgets or RelayBudgets(limits, None))
        self.kept: KeptPorts | None = None
        self.splices: dict[int, tuple[ClientVisit, Place[Visit], IRunningSplice]] = {}
        self.present: set[ClientVisit] = set()
        self.journal = Journal(clock, Logger())
        self.refused = RateLimitedLog(clock, self.journal)
        self.finished = 0
        self.parted: Callable[[object], object] = lambda stream: None

    def use(self, limits: Limits, budgets: RelayBudgets) -> None:
        """
        These are the limits from now on.
        """
        self.limits = limits
        self.arriving.most = budgets.clients.most
        self.arriving.most_of_source = limits.arriving_per_client
        self.lingering.pool.most = budgets.lingering.most
        self.lingering.pool.most_of_source = limits.arriving_per_client

    def forget_balanced(self, balanced: Balanced) -> None:
        """
        It is known whose channel this is, or it is gone.
        """
        if balanced in self.balanced:
            self.balanced.discard(balanced)
            self.arriving.give_back("")

    def has_room(self, source: str) -> bool:
        """
        Whether there is room for one more to arrive.

        @param source: where it comes from; empty if many clients do.
        """
        beside = self.visits.room.descriptors
        if not source:
            return not self.arriving.is_full(beside)
        return self.arriving.has_room(source, beside)

    def expect(self, agents: Iterable[str], seconds: float, ended: Callable[[], object]) -> None:
        """
        These agents are about to come back: clients of servers that are not
        here wait for them, for so long.

        @param ended: called when nobody is waited for any more.
        """

        def over() -> None:
            self.expected = None
            self.registry.entered = lambda agent: None
            self.registry.published = lambda: None
            ended()

        self.expected = expected = Expectation(self.clock, agents, seconds, over)
        self.registry.entered = lambda agent: expected.agent_came(agent.agent_id)
        self.registry.published = expected.server_came

    def close(self) -> None:
        """
        End every visit and every splice.
        """
        if self.expected is not None:
            self.expected.end()
        for _, _, splice in list(self.splices.values()):
            splice.close()
        for visit in list(self.present):
            visit.abort()
        for balanced in list(self.balanced):
            balanced.abort()

    def cut_off(self) -> None:
        """
        Abort the channels of those who were told why they are not served and
        have not gone.
        """
        for channel in self.lingering:
            channel.transport.abortConnection()  # type: ignore[union-attr]
        self.refused.close()
        self.journal.close()

    def finish(self, channel: TCPChannel, source: str) -> None:
        """
        A client goes by itself, behind what it was told; where there is no room
        for so many the one that has taken the longest has to.
        """
        longest = self.lingering.add(channel, source)
        channel.gone = self.lingering.discard
        channel.finish()
        if longest is not None:
            longest.transport.abortConnection()  # type: ignore[union-attr]


class _Port(Factory):
    noisy = False

    def __init__(self, clients: Clients, arrive: Callable[[ClientVisit], None]) -> None:
        self._clients = clients
        self._arrive = arrive

    def buildProtocol(self, addr: IAddress | None) -> TCPChannel:
        clients = self._clients
        return TCPChannel(clients.clock, clients.limits, clients.edges, self._connected)

    def _connected(self, channel: TCPChannel) -> None:
        clients = self._clients
        if clients.proxies and allowed(clients.proxies, channel.host):
            if not clients.has_room(""):
                channel.reset()
                return
            clients.arriving.take("")
            clients.balanced.add(
                Balanced(
                    channel,
                    self._known,
                    clients.forget_balanced,
                    clients.clock,
                    clients.limits.balancer,
                )
            )
        else:
            self._arrive(ClientVisit(clients, channel))

    def _known(self, channel: TCPChannel, proxied: Proxied) -> None:
        self._arrive(ClientVisit(self._clients, channel, proxied))


class SharedPort(_Port):
    """
    A port where clients say which server they want.
    """

    def __init__(self, clients: Clients, default: str = "") -> None:
        """
        @param default: the connection ID of the server for those who name none
            that is known, if there is one.
        """
        super().__init__(clients, lambda visit: visit.arrive(self.default))
        self.default = default


class OwnPort(_Port):
    """
    A port that leads to one server.
    """

    def __init__(self, clients: Clients, port: int) -> None:
        super().__init__(clients, lambda visit: visit.arrive_at_port(port))

"""
All clients of a relay, and the ports that they come to.

One client is in L{relaytunnel.relay.client}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from weakref import WeakSet

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from relaytunnel.accounts.passwords import Passwords
from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.journal import Journal
from relaytunnel.channel.tcp import TCPChannel
from relaytunnel.config.access import Network, allowed
from relaytunnel.config.limits import Limits
from relaytunnel.interfaces import IRunningSplice, ISpliceEngine
from relaytunnel.ratelimited import RateLimitedLog
from relaytunnel.relay.balancers import Balanced
from relaytunnel.relay.client import ClientVisit
from relaytunnel.relay.expecting import Expectation
from relaytunnel.relay.finding import (
    Finder,
)
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
    @ivar arriving: how many clients there are from each source that have not
        named a server.
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
    ) -> None:
        """
        @param proxies: the networks of balancers.
        @param names_below: whether each name below one of the relay's leads here.
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
        self.arriving: Counter[str] = Counter()
        self.splices: dict[int, tuple[ClientVisit, Place[Visit], IRunningSplice]] = {}
        self.present: set[ClientVisit] = set()
        self.journal = Journal(clock, Logger())
        self.refused = RateLimitedLog(clock, self.journal)
        self._leaving: WeakSet[TCPChannel] = WeakSet()
        self.finished = 0

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
        for channel in list(self._leaving):
            channel.transport.abortConnection()  # type: ignore[union-attr]
        self.refused.close()
        self.journal.close()

    def finish(self, channel: TCPChannel) -> None:
        """
        A client goes by itself, behind what it was told.
        """
        self._leaving.add(channel)
        channel.finish()


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
            clients.balanced.add(
                Balanced(
                    channel,
                    self._known,
                    clients.balanced.discard,
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

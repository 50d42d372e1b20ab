"""
The client channels, on sockets: S5, S6, S11, and what a client is told.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakSet

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from relaytunnel.arrival import DEFAULT_LIMITS, Arrival, Malformed, Named
from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.journal import Journal
from relaytunnel.channel.tcp import TCPChannel
from relaytunnel.config.limits import Limits
from relaytunnel.errors import Code, Failing, Rejection
from relaytunnel.interfaces import IRunningSplice, ISpliceEngine, Lost
from relaytunnel.relay.registry import PublishedServer, Registry
from relaytunnel.relay.visits import Visit, Visits
from relaytunnel.relay.waiting import Place
from relaytunnel.splice import SpliceReport
from relaytunnel.steps import happened

__all__ = ["ClientVisit", "Clients", "OwnPort", "SharedPort"]


class Clients:
    """
    All clients of a relay, whatever port they came to.

    @ivar splices: those under way, by session number.
    @ivar finished: how many splices have ended.
    """

    def __init__(
        self,
        clock: IReactorTime,
        limits: Limits,
        edges: EdgeWatch,
        registry: Registry,
        visits: Visits,
        engine: ISpliceEngine,
    ) -> None:
        self.clock = clock
        self.limits = limits
        self.edges = edges
        self.registry = registry
        self.visits = visits
        self.engine = engine
        self.splices: dict[int, tuple[ClientVisit, Place[Visit], IRunningSplice]] = {}
        self.present: set[ClientVisit] = set()
        self.journal = Journal(clock, Logger())
        self._leaving: WeakSet[TCPChannel] = WeakSet()
        self.finished = 0

    def close(self) -> None:
        """
        End every visit and every splice.
        """
        for _, _, splice in list(self.splices.values()):
            splice.close()
        for visit in list(self.present):
            visit.abort()

    def cut_off(self) -> None:
        """
        Abort the channels of those who were told why they are not served and
        have not gone.
        """
        for channel in list(self._leaving):
            channel.transport.abortConnection()  # type: ignore[union-attr]
        self.journal.close()

    def finish(self, channel: TCPChannel) -> None:
        """
        A client goes by itself, behind what it was told.
        """
        self._leaving.add(channel)
        channel.finish()


class ClientVisit:
    """
    One client: its channel, and the door by which its visit reaches it.
    """

    _deadline: IDelayedCall | None = None
    _arrival: Arrival | None = None
    _answer: Callable[[Failing], bytes] | None = None
    _fed = 0

    def __init__(self, clients: Clients, channel: TCPChannel) -> None:
        self._clients = clients
        self._channel = channel
        self.client = channel.peer
        self.host = channel.host
        self._visit = clients.visits.arrive(self)
        channel.holding.lost = self._left
        happened("S5", f"a client has connected from {self.client}")
        clients.present.add(self)

    def arrive_at_port(self, port: int) -> None:
        """
        The client came to a port of a server's own: that is its name.
        """
        server = self._clients.registry.by_port(port)
        if server is None:
            self._turn_away(Rejection(Code.NO_SUCH_SERVER, f"no server has the port {port}"))
        else:
            self._seek(server, f"port:{port}")

    def arrive(self) -> None:
        """
        The client came to a shared port: listen to what it says.
        """
        self._arrival = Arrival()
        self._answer = self._arrival.answer
        self._channel.holding.heard = self._heard
        # A whole head and a byte too many have to come in before it is paused.
        held = self._clients.limits.held
        self._channel.holding.bound(max(held, DEFAULT_LIMITS.max_head + 1))
        self._deadline = self._clients.clock.callLater(
            self._clients.limits.arrival, self._said_nothing
        )

    def _heard(self) -> None:
        assert self._arrival is not None
        holding = self._channel.holding
        outcome = self._arrival.feed(holding.held[self._fed :])
        self._fed = len(holding.held)
        if isinstance(outcome, Named):
            self._named(outcome)
        elif isinstance(outcome, Malformed):
            self._say(outcome.answer, Rejection(Code.INVALID, outcome.reason))
        elif holding.ended:
            self._say(b"", Rejection(Code.INVALID, "the client named no server and ended"))

    def _named(self, named: Named) -> None:
        self._stop_listening()
        host = named.host
        if host is None:
            self._turn_away(Rejection(Code.NO_SUCH_SERVER, "the request names no host"))
            return
        server = self._clients.registry.by_host(host)
        if server is None:
            self._turn_away(self._clients.registry.missing(host))
        else:
            self._seek(server, f"host:{host}")

    def _said_nothing(self) -> None:
        assert self._arrival is not None
        limit = self._clients.limits.arrival
        self._say(
            self._arrival.timed_out(),
            Rejection(Code.TIMEOUT, f"the client named no server within {limit:g} s"),
        )

    def _say(self, answer: bytes, why: Rejection) -> None:
        """
        The client named nobody: answer it in what it speaks.
        """
        self._stop_listening()
        self._answer = lambda failing: answer
        self._turn_away(why)

    def _stop_listening(self) -> None:
        self._channel.holding.heard = None
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
        if self._arrival is not None:
            self._arrival.take()
            self._channel.holding.bound(self._clients.limits.held)

    def _seek(self, server: PublishedServer, arrived: str) -> None:
        self._clients.visits.seek(self._visit, self, server, arrived)

    def _turn_away(self, why: Rejection) -> None:
        self._clients.visits.turn_away(self._visit, why)

    def _left(self, why: Lost) -> None:
        self._stop_listening()
        self._clients.present.discard(self)
        self._visit.client_left()

    # The door

    def tell(self, failing: Failing) -> None:
        self._clients.journal.note(
            f"client {self.client} is not served: {failing.code.value}: {failing.reason}"
        )
        self._clients.present.discard(self)
        if self._answer is None:
            # A port of its own has no protocol to speak: a reset at once says
            # more than silence.
            self._channel.reset()
            return
        answer = self._answer(failing)
        if answer:
            self._channel.write(answer)
        self._clients.finish(self._channel)

    def splice(self, stream: object, place: Place[Visit]) -> None:
        """
        S11
        """
        happened("S11", "the relay splices the client channel and the data channel")
        clients = self._clients
        self._arrival = self._answer = None
        clients.present.discard(self)
        splice = clients.engine.join(self._channel, stream, clients.limits, clients.clock)
        clients.splices[place.session] = (self, place, splice)
        done: Deferred[SpliceReport] = splice.done
        done.addCallback(self._over, place)

    def _over(self, report: SpliceReport, place: Place[Visit]) -> None:
        """
        S14 to S20, from either side
        """
        self._clients.journal.note(
            f"session {place.session} of {self.client} with {place.server.connection_id}"
            f" is over after {report.duration:.3f} s: {report.reason};"
            f" {report.forward} bytes up, {report.backward} bytes down"
        )
        self._clients.finished += 1
        del self._clients.splices[place.session]
        self._visit.over()

    def abort(self) -> None:
        """
        End the visit of a client that is not served yet.
        """
        self._stop_listening()
        self._clients.present.discard(self)
        self._channel.reset()
        self._visit.client_left()


class _Port(Factory):
    noisy = False

    def __init__(self, clients: Clients, arrive: Callable[[ClientVisit], None]) -> None:
        self._clients = clients
        self._arrive = arrive

    def buildProtocol(self, addr: IAddress | None) -> TCPChannel:
        clients = self._clients
        return TCPChannel(clients.clock, clients.limits, clients.edges, self._connected)

    def _connected(self, channel: TCPChannel) -> None:
        self._arrive(ClientVisit(self._clients, channel))


class SharedPort(_Port):
    """
    A port where clients say which server they want.
    """

    def __init__(self, clients: Clients) -> None:
        super().__init__(clients, ClientVisit.arrive)


class OwnPort(_Port):
    """
    A port that leads to one server.
    """

    def __init__(self, clients: Clients, port: int) -> None:
        super().__init__(clients, lambda visit: visit.arrive_at_port(port))

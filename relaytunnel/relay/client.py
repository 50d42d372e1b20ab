"""
One client at the relay, from S5 on: its channel, what it says, and the door by
which its visit reaches it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from relaytunnel.arrival import Exchange, Login, Named, Prelude
from relaytunnel.channel.tcp import TCPChannel
from relaytunnel.deadlines import Deadline
from relaytunnel.errors import AccountError, Code, Failing, Rejection
from relaytunnel.guarding import attempt_all
from relaytunnel.interfaces import Lost
from relaytunnel.relay.finding import (
    ClientDirectory,
    Unnamed,
    check_access,
    login_to_compare,
)
from relaytunnel.relay.listener import Listener
from relaytunnel.relay.prelude import PreludeExchange
from relaytunnel.relay.registry import PublishedServer
from relaytunnel.relay.requests import HttpChannel
from relaytunnel.relay.visits import Visit
from relaytunnel.relay.waiting import Place
from relaytunnel.sources import source_of
from relaytunnel.splice import SpliceReport
from relaytunnel.steps import happened
from relaytunnel.wire.proxied import Proxied

if TYPE_CHECKING:
    from relaytunnel.relay.clients import Clients

__all__ = ["ClientVisit"]


class ClientVisit:
    """
    One client: its channel, and the door by which its visit reaches it.
    """

    _log = Logger()

    came_to = ""
    _listener: Listener | None = None
    _answer: Callable[[Failing], bytes] | None = None
    _default = ""
    _welcome = b""
    _named: Named | None = None
    _prelude: Prelude | None = None
    _exchange: PreludeExchange | None = None
    _comparing: Deferred[None] | None = None
    _over_and_gone = False
    _arriving = False
    _kept_at = 0
    _kept_alarm: Deadline | None = None

    def __init__(
        self, clients: Clients, channel: TCPChannel, proxied: Proxied | None = None
    ) -> None:
        """
        @param proxied: whose channel it is, if a balancer has said so.
        """
        self._clients = clients
        self._channel = channel
        self._proxied = proxied
        self.many = False
        if proxied is None or proxied.source is None:
            self.client, self.host = channel.peer, channel.host
            self.many = proxied is not None
        else:
            self.host = proxied.source[0]
            self.client = f"{self.host}:{proxied.source[1]}"
        self.source = source_of(self.host, clients.limits.ipv6_prefix)
        self._visit = clients.visits.arrive(self)
        channel.holding.lost = self._left
        happened("S5", f"a client has connected from {self.client}")
        clients.present.add(self)

    def arrive_at_port(self, port: int) -> None:
        """
        The client came to a port of a server's own: that is its name.
        """

        def find() -> tuple[PublishedServer, str]:
            server = self._clients.registry.by_port(port)
            if server is None:
                raise Rejection(Code.NO_SUCH_SERVER, f"no server has the port {port}")
            return server, f"port:{port}"

        if not self._comes():
            return
        try:
            self._find(find, self._seek)
        except Rejection as missing:
            if not self._wait_at_port(port, find):
                self._turn_away(missing)

    def _wait_at_port(self, port: int, find: Callable[[], tuple[PublishedServer, str]]) -> bool:
        """
        Wait for the server of a port, where its agent is expected back.

        @return: whether it is.
        """
        clients, limits = self._clients, self._clients.limits

        def again(last: bool) -> None:
            alarm.cancel()
            self._kept_at = 0
            self.hold(False)
            self._look_again(find, self._seek, True)

        def too_late() -> None:
            self._turn_away(
                Rejection(Code.AGENT_AWAY, f"the agent did not come back in {limits.waiting:g} s")
            )

        if clients.kept is None or not clients.kept.wait(
            port,
            self,
            self.source,
            again,
            limits.waiting_per_server,
            limits.waiting_per_client,
        ):
            return False
        self._kept_at = port
        self._kept_alarm = alarm = clients.visits.deadlines.within(limits.waiting, too_late)
        self.hold(True)
        return True

    def arrive(self, default: str = "") -> None:
        """
        The client came to a shared port: listen to what it says.

        @param default: the connection ID of the server for those who name none
            that is known, if there is one.
        """
        self._default = default
        self._hear(later=False)

    def arrive_again(self, default: str, late: bool) -> None:
        """
        The next request on a client channel is for another server: it is
        routed and let in as that of a new client.

        @param late: whether its head has taken too long already.
        """
        self._default = default
        self._hear(later=True)
        if late and self._listener is not None:
            self._listener.give_up()

    def _hear(self, later: bool) -> None:
        if not self._comes():
            return
        clients = self._clients
        self._listener = Listener(
            self._channel,
            self,
            ClientDirectory(
                clients.registry,
                self.host,
                self.source,
                clients.finder.choices,
                clients.names_below,
            ),
            clients.visits.deadlines,
            clients.limits,
            asks=not self._default,
            later=later,
        )
        self._answer = self._listener.answer
        self._listener.begin()

    def _comes(self) -> bool:
        """
        @return: whether there is room for one more to arrive; it was turned
            away if not.
        """
        clients = self._clients
        source = "" if self.many else self.source
        if not clients.has_room(source):
            arriving = clients.arriving.of(source)
            self._turn_away(
                Rejection(Code.BUSY, f"{arriving} clients from {self.source} are arriving")
            )
            return False
        self._arriving = True
        clients.arriving.take(source)
        return True

    def _has_come(self) -> None:
        """
        It has a place in the waiting room, or never will.
        """
        if self._arriving:
            self._arriving = False
            self._clients.arriving.give_back("" if self.many else self.source)

    # What the listener says

    def named(self, named: Named) -> None:
        self._find(
            lambda: self._clients.finder.find(named, self._default, self.source),
            lambda server, arrived: self._let_in(named, server, arrived),
        )

    def _find(
        self,
        find: Callable[[], tuple[PublishedServer, str]],
        found: Callable[[PublishedServer, str], None],
    ) -> None:
        """
        Find the client's server, now or when its agent is back.

        @raise Rejection: it is not here, and not expected.
        """
        expected = self._clients.expected
        try:
            server = find()
        except Unnamed:
            raise
        except Rejection:
            if expected is None:
                raise
            self._stop_listening()
            expected.wait(self, lambda last: self._look_again(find, found, last))
        else:
            found(*server)

    def _look_again(
        self,
        find: Callable[[], tuple[PublishedServer, str]],
        found: Callable[[PublishedServer, str], None],
        last: bool,
    ) -> None:
        try:
            server = find()
        except Rejection as missing:
            if last:
                self._turn_away(missing)
            return
        self._expect_no_more()
        try:
            found(*server)
        except Rejection as rejection:
            self._turn_away(rejection)

    def _expect_no_more(self) -> None:
        if self._kept_at and self._clients.kept is not None:
            self._clients.kept.forget(self._kept_at, self)
            self._kept_at = 0
        if self._kept_alarm is not None:
            self._kept_alarm.cancel()
            self._kept_alarm = None
        if self._clients.expected is not None:
            self._clients.expected.forget(self)

    def _let_in(self, named: Named, server: PublishedServer, arrived: str) -> None:
        """
        S6: this is the server; see who the client is.

        @raise Rejection: its address is not allowed.
        """
        check_access(server, self.host)
        self._stop_listening()
        self._welcome, self._prelude = named.welcome, named.prelude
        request = named.request
        if request is None or server.http == "raw":
            if named.remembered is None or arrived.startswith("chosen:"):
                # What was chosen is of no meaning for a request that names its server.
                self._channel.holding.replace(named.consumed, named.instead)
        else:
            self._named = named
            if request.forwarded is not request.head:
                self._channel.holding.replace(len(request.head), request.forwarded)
        try:
            login = login_to_compare(server, named.way, named.login)
            if login is None:
                self._seek(server, arrived)
            else:
                self._compare(server, arrived, login)
        except Rejection as rejection:
            self._turn_away(rejection)

    def not_served(self, why: Rejection, answer: bytes) -> None:
        self._answer = lambda failing: answer
        self._turn_away(why)

    def _compare(self, server: PublishedServer, arrived: str, login: Login) -> None:
        """
        Let the client in, if its password is right.

        @raise Rejection: it cannot be compared now.
        """

        def compared(right: bool) -> None:
            if self._over_and_gone:
                return
            if self._clients.registry.servers.get(server.connection_id) is not server:
                self._turn_away(Rejection(Code.AGENT_AWAY, "the server went away"))
            elif right:
                self._seek(server, arrived, login)
            else:
                self._turn_away(
                    Rejection(Code.LOGIN_NEEDED, "the user name or the password is wrong")
                )

        checking = self._clients.passwords.check(
            server.users,
            login.user,
            login.password,
            self.source,
            (server.agent.agent_id, server.connection_id),
        )
        self._comparing = checking.addCallback(compared).addErrback(self._cannot_compare)

    def _cannot_compare(self, failure: Failure) -> None:
        if self._over_and_gone:
            return
        fault = failure.value
        if isinstance(fault, Rejection):
            self._turn_away(fault)
            return
        if not failure.check(AccountError):  # the relay stops
            self._log.failure("a password could not be compared", failure)
        self._turn_away(Rejection(Code.INTERNAL, "the password could not be compared"))

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()

    def _seek(self, server: PublishedServer, arrived: str, login: Login | None = None) -> None:
        if server.wants_address:
            self.came_to = self._local_address()
        self._has_come()
        self._clients.visits.seek(self._visit, self, server, arrived, login)

    def _local_address(self) -> str:
        if self._proxied is not None and self._proxied.destination is not None:
            host, port = self._proxied.destination
        else:
            address: Any = self._channel.transport.getHost()  # type: ignore[union-attr]
            host, port = getattr(address, "host", ""), getattr(address, "port", 0)
        return f"{host}:{port}" if host else ""

    def _turn_away(self, why: Rejection) -> None:
        self._clients.visits.turn_away(self._visit, why)

    def _left(self, why: Lost) -> None:
        self._go()
        if self._exchange is not None:
            self._exchange.stop()
            self._part("the client left before it was served")
        else:
            self._visit.client_left()

    def _go(self) -> None:
        self._over_and_gone = True
        comparing, self._comparing = self._comparing, None
        if comparing is not None:
            comparing.cancel()
        self._expect_no_more()
        self._stop_listening()
        self._has_come()
        self._clients.present.discard(self)

    # The door

    @property
    def held(self) -> int:
        return len(self._channel.holding.held)

    def hold(self, paused: bool) -> None:
        self._channel.holding.bound(0 if paused else self._clients.limits.held)

    def tell(self, failing: Failing) -> None:
        self._go()
        self._clients.refused.emit(
            LogLevel.info,
            (self.source, failing.code),
            "client {client} is not served: {code}: {reason}",
            client=self.client,
            code=failing.code.value,
            reason=failing.reason,
        )
        if self._answer is None:
            # A port of its own has no protocol to speak: a reset at once says
            # more than silence.
            self._channel.reset()
            return
        answer, self._answer = self._answer(failing), None
        if answer:
            self._channel.write(answer)
        self._clients.finish(self._channel, "" if self.many else self.source)

    def splice(self, stream: object, place: Place[Visit]) -> None:
        """
        S11
        """
        if self._prelude is None:
            self._join(stream, place)
            return
        clients = self._clients
        self._place = place
        self._stream = stream

        def done(failing: Failing | None) -> None:
            self._exchange = None
            if failing is None:
                self._join(stream, place)
            else:
                self._part(failing.reason)
                self.tell(failing)

        self._exchange = PreludeExchange(
            stream, self._prelude, done, clients.clock, clients.limits.dial
        )

    def _part(self, why: str) -> None:
        """
        The session ends before it was spliced.
        """
        self._exchange = None
        self._clients.journal.note(
            f"session {self._place.session} of {self.client} is over: {why}"
        )
        self._visit.over()
        self._clients.parted(self._stream)

    def _join(self, stream: object, place: Place[Visit]) -> None:
        happened("S11", "the relay splices the client channel and the data channel")
        clients = self._clients
        self._answer = None
        clients.present.discard(self)
        if self._welcome:
            self._channel.write(self._welcome)
        first: object = self._channel
        if self._named is not None:
            first = self._looked_at(self._named, place.server)
        splice = clients.engine.join(first, stream, clients.limits, clients.clock)
        clients.splices[place.session] = (self, place, splice)
        done: Deferred[SpliceReport] = splice.done
        done.addCallback(self._over, place, stream).addErrback(self._broken)

    def _looked_at(self, first: Named, server: PublishedServer) -> HttpChannel:
        """
        @return: the client channel while its requests are for this server.
        """
        clients = self._clients
        return HttpChannel(
            self._channel,
            Exchange(first, partial(self._takes, server)),
            clients.visits.deadlines,
            clients.limits.arrival,
            self._back,
            self._finish,
        )

    def _takes(self, server: PublishedServer, named: Named | None) -> bool:
        """
        Whether a later request on the client channel may go to the server of
        the session, as this one is registered now.
        """
        first, clients = self._named, self._clients
        assert first is not None
        if not clients.registry.keeps(server):
            return False
        if named is None:
            return True
        if server.users and named.login != first.login:
            return False
        same = (named.host, named.remembered) == (first.host, first.remembered)
        if same and not named.service_worker:
            return True
        try:
            found, _ = clients.finder.find(named, self._default, self.source)
        except Rejection:
            return False
        return found is server

    def _back(self, channel: TCPChannel, held: bytes, ended: bool, late: bool) -> None:
        """
        The session has ended before the client has: its channel is that of the
        next one.
        """
        channel.hold(held, ended)
        ClientVisit(self._clients, channel, self._proxied).arrive_again(self._default, late)

    def _finish(self, channel: TCPChannel) -> None:
        self._clients.finish(channel, "" if self.many else self.source)

    def _over(self, report: SpliceReport, place: Place[Visit], stream: object) -> None:
        """
        S14 to S20, from either side
        """
        self._clients.journal.note(
            f"session {place.session} of {self.client} with {place.server.connection_id}"
            f" is over after {report.duration:.3f} s: {report.reason};"
            f" {report.forward} bytes up, {report.backward} bytes down"
        )
        self._clients.finished += 1
        self._clients.splices.pop(place.session, None)
        self._visit.over()
        self._clients.parted(stream)

    def _broken(self, failure: Failure) -> None:
        self._log.failure("a visit failed by our own fault", failure)
        self.fail()
        self._visit.over()

    def abort(self) -> None:
        """
        End the visit of a client that is not served yet.
        """
        self._go()
        self._channel.reset()
        if self._exchange is not None:
            self._exchange.stop()
            self._part("the relay stops")
        else:
            self._visit.client_left()

    def fail(self) -> None:
        """
        Let go of everything, wherever the visit stood.
        """
        splices = self._clients.splices
        steps: list[Callable[[], object]] = [self._go]
        for session, (visit, _, splice) in list(splices.items()):
            if visit is self:
                del splices[session]
                steps.append(splice.close)
        if self._exchange is not None:
            steps.append(self._exchange.stop)
        attempt_all([*steps, self._channel.reset])

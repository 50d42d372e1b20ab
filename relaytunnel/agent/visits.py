"""
The agent's side of a visit, on sockets: S8 to S12, and the end.

The decisions are in L{relaytunnel.agent.visit}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from relaytunnel.agent.channels import DataChannels
from relaytunnel.agent.servers import OwnServer
from relaytunnel.agent.targets import describe_target, dial_target
from relaytunnel.agent.visit import AgentVisit, new_visit
from relaytunnel.channel.dialling import Address, Attempt
from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.framed import DataChannel
from relaytunnel.channel.journal import Journal
from relaytunnel.channel.tcp import TCPChannel
from relaytunnel.config.limits import Limits
from relaytunnel.config.names import printable
from relaytunnel.deadlines import Deadline, Deadlines
from relaytunnel.errors import Code, Failing
from relaytunnel.guarding import attempt_all
from relaytunnel.interfaces import IRunningSplice, ISpliceEngine, Lost
from relaytunnel.splice import SpliceReport
from relaytunnel.steps import happened
from relaytunnel.wire.data import plain_preamble
from relaytunnel.wire.messages import FRESH, Accept, Message, Notify, Refuse
from relaytunnel.wire.proxied import proxy_header

__all__ = ["ServedClient", "Surroundings"]


class Surroundings(Protocol):
    """
    What the visits of an agent share.

    @ivar splices: those under way, by session number.
    """

    reactor: Any
    limits: Limits
    edges: EdgeWatch
    channels: DataChannels
    deadlines: Deadlines
    journal: Journal
    engine: ISpliceEngine
    splices: dict[int, IRunningSplice]

    def send(self, message: Message) -> None:
        """Tell the relay, if the control channel stands."""

    def forget(self, notify: Notify) -> None:
        """The visit is over."""


class ServedClient:
    """
    One client's visit: what is dialled for it, joined, and dropped.

    @ivar visit: the machine that decides.
    """

    _log = Logger()

    def __init__(self, around: Surroundings, notify: Notify, server: OwnServer) -> None:
        self._around = around
        self._notify = notify
        self._server = server
        self._plain = server.config.data == "plain"
        self._dialling: set[Deferred[Any] | Attempt] = set()
        self._server_channel: TCPChannel | None = None
        self._data_channel: DataChannel | TCPChannel | None = None
        self._was_parked = False
        self._presented_on_parked = False
        self._both_up = False
        self._counts_on_data = False
        self._dropped = False
        self._made_room = False
        self._patience = _CROWDED
        self._crowded: Deadline | None = None
        self._dials = 0
        self._data_dial: Deferred[Any] | Attempt | None = None
        self.visit: AgentVisit = new_visit(self, around.deadlines, notify)

    def accept(self) -> None:
        data = self._data_channel
        if data is not None and self._server_channel is not None:
            return  # the ticket, which comes next, says so
        number = FRESH
        if self._was_parked and isinstance(data, DataChannel):
            number = data.number
        self._around.send(Accept(session=self._notify.session, channel=number))

    def refuse(self, failing: Failing) -> None:
        self._around.journal.note(
            f"session {self._notify.session} for {self._notify.connection_id} is refused:"
            f" {failing.code.value}: {failing.reason}"
        )
        self._around.send(
            Refuse(
                session=self._notify.session,
                code=failing.code.value,
                reason=failing.reason[:256],
            )
        )

    # S9

    def dial_server(self) -> None:
        around = self._around
        if self._server.target_address is not None and around.edges.works:
            self._connect(self._server.target_address, self._server_connected, self._server_failed)
            return
        connecting = dial_target(
            around.reactor, around.limits, around.edges, self._server.config.target
        )
        self._pursue(connecting, self._server_failed, self._server_connected)

    def _server_connected(self, channel: TCPChannel) -> None:
        self._server_channel = channel
        happened("S9", "the agent has a server channel")
        channel.holding.lost = self._server_lost
        self.visit.server_up()

    def _server_lost(self, why: Lost) -> None:
        self._server_channel = None
        self.visit.server_failed(
            Failing(Code.REFUSED_BY_TARGET, "the target reset the connection")
        )

    def _server_failed(self, failure: Failure) -> None:
        self._log.debug(
            "session {session}: {server} cannot be reached: {reason}",
            session=self._notify.session,
            server=self._notify.connection_id,
            reason=printable(failure.getErrorMessage()),
        )
        self.visit.server_failed(describe_target(failure, self._around.limits.dial))

    # S10

    def dial_data(self) -> None:
        channels = self._around.channels
        happened("S8", f"the agent knows {self._notify.connection_id} and is on its way")
        fresh = self._plain or self._presented_on_parked
        parked = None if fresh else channels.take_parked()
        if parked is not None:
            self._was_parked = self._counts_on_data = True
            self._hold_data(parked)
            self.visit.data_up()
        else:
            self._dial_data()

    def _dial_data(self) -> None:
        channels = self._around.channels
        self._dials += 1
        number = self._dials

        def failed(failure: Failure) -> None:
            if number == self._dials:
                self._data_failed(failure)

        if channels.parked or self._made_room:
            self._crowded = self._around.deadlines.within(self._patience, self._no_answer)
        if self._plain and channels.address is not None and self._around.edges.works:
            self._data_dial = self._connect(channels.address, self._plain_connected, failed)
        elif self._plain:
            self._data_dial = self._pursue(channels.dial_plain(), failed, self._plain_connected)
        else:
            self._data_dial = self._pursue(channels.dial(), failed, self._data_connected)

    def _no_answer(self) -> None:
        """
        A firewall may have no port left for one more connection, and what is
        parked may have it.  Once that was given up, dial anew now and then: the
        firewall remembers it for a while, and Linux lets about every second
        connection have its port meanwhile, by the number that it begins with.
        """
        self._crowded = None
        if self._made_room:
            self._patience *= 2
        self._made_room = self._around.channels.give_up_parked() or self._made_room
        if self._made_room:
            self._dials += 1
            if self._data_dial is not None:
                self._data_dial.cancel()
                self._dialling.discard(self._data_dial)
            self._dial_data()

    def _have_room(self) -> None:
        self._data_dial = None
        if self._crowded is not None:
            self._crowded.cancel()
            self._crowded = None

    def _data_connected(self, channel: DataChannel) -> None:
        self._hold_data(channel)
        self._data_is_up()

    def _plain_connected(self, channel: TCPChannel) -> None:
        self._data_channel = channel
        channel.holding.lost = self._plain_lost
        self._data_is_up()

    def _data_is_up(self) -> None:
        self._have_room()
        if self._both_up:
            self.splice()
        elif not self._counts_on_data:  # of one that was parked, and died since
            self.visit.data_up()

    def _hold_data(self, channel: DataChannel) -> None:
        self._data_channel = channel
        pool_lost = channel.lost

        def lost(channel: DataChannel) -> None:
            pool_lost(channel)
            if self._data_channel is channel:
                self._data_lost()

        channel.lost = lost

    def _plain_lost(self, why: Lost) -> None:
        self._data_channel = None
        self.visit.data_failed(_no_data_channel("the relay closed it"))

    def _data_lost(self) -> None:
        self._data_channel = None
        if self._was_parked:
            # It was idle for a while, and has died of that: a fresh one may do.
            self._was_parked = False
            self._dial_data()
        else:
            self.visit.data_failed(_no_data_channel("the relay closed it"))

    def _data_failed(self, failure: Failure) -> None:
        self._have_room()
        if not self._made_room and self._around.channels.give_up_parked():
            self._made_room = True
            self._dial_data()
            return
        self._log.warn(
            "session {session} has no data channel: {reason}",
            session=self._notify.session,
            reason=failure.getErrorMessage(),
        )
        self.visit.data_failed(_no_data_channel(failure.getErrorMessage()))

    def _connect(
        self,
        address: Address,
        connected: Callable[[TCPChannel], None],
        failed: Callable[[Failure], None],
    ) -> Attempt:
        """
        Open a connection to an address, within the time for dialling.
        """
        around = self._around

        def stands(channel: TCPChannel) -> None:
            self._dialling.discard(attempt)
            self._take(connected, channel)

        def failing(failure: Failure) -> None:
            self._dialling.discard(attempt)
            failed(failure)

        channel = TCPChannel(around.reactor, around.limits, around.edges, stands)
        attempt = Attempt(around.edges, around.reactor, address, channel, failing)
        self._dialling.add(attempt)
        attempt.begin(around.limits.dial)
        return attempt

    def _pursue(
        self, connecting: Deferred[Any], failed: Any, connected: Any = None
    ) -> Deferred[Any]:
        """
        Wait for a connection, for so long as an agent may dial.
        """
        around = self._around
        self._dialling.add(connecting)
        connecting.addTimeout(around.limits.dial, around.reactor, _timed_out)

        def done(result: Any) -> Any:
            self._dialling.discard(connecting)
            return result

        def failing(failure: Failure) -> None:
            if not self._dropped:
                failed(failure)

        connecting.addBoth(done)
        if connected is None:
            connecting.addErrback(failing)
        else:
            connecting.addCallbacks(lambda channel: self._take(connected, channel), failing)
        connecting.addErrback(self._broken)
        return connecting

    def _take(self, connected: Callable[[Any], None], channel: TCPChannel | DataChannel) -> None:
        """
        A connection stands: see that it has an owner, whatever happens.
        """
        try:
            connected(channel)
        except Exception:
            channel.reset() if isinstance(channel, TCPChannel) else channel.abort()
            self._broken(Failure())

    def _broken(self, failure: Failure) -> None:
        self._log.failure("a visit failed by our own fault", failure)
        self.fail()
        self.visit.cancelled()
        self.visit.over()

    # S10 to S12

    def splice(self) -> None:
        data, server = self._data_channel, self._server_channel
        if isinstance(data, DataChannel) and not data.usable:
            self._data_lost()
            data = None
        if data is None:  # a parked one died just now, another is on its way
            self._both_up = True
            return
        assert server is not None
        around, session = self._around, self._notify.session
        happened("S10", "the agent presents the ticket on a data channel, and splices")
        if self._server.config.proxy:
            server.write(self._header(self._server.config.proxy))
        stream: object
        self._presented_on_parked, self._was_parked = self._was_parked, False
        self._both_up = self._counts_on_data = False
        if isinstance(data, DataChannel):
            stream = data.join(self._notify.ticket)
        else:
            data.write(plain_preamble(self._notify.ticket))
            stream = data
        splice = around.engine.join(server, stream, around.limits, around.reactor)
        self._data_channel = self._server_channel = None
        around.splices[session] = splice
        done: Deferred[SpliceReport] = splice.done
        done.addCallback(self._over).addErrback(self._broken)

    def _header(self, version: Literal["v1", "v2"]) -> bytes:
        """
        @return: what tells the server who its client is.
        """
        notify = self._notify
        kind, _, name = notify.arrived.partition(":")
        return proxy_header(
            version,
            _address(notify.client),
            _address(notify.came_to) or _NOWHERE,
            name if kind in ("host", "sni") and len(name.encode()) < 256 else None,
        )

    def _over(self, report: SpliceReport) -> None:
        """
        S14 to S20, from either side
        """
        self._around.splices.pop(self._notify.session, None)
        notify = self._notify
        if report.reason == _UNHEARD and not report.backward and report.duration < notify.deadline:
            self._unheard()
            return
        self._around.journal.note(
            f"session {notify.session} of {notify.client} with {notify.connection_id}"
            f" is over after {report.duration:.3f} s: {report.reason};"
            f" {report.backward} bytes up, {report.forward} bytes down"
        )
        self.visit.over()

    def _unheard(self) -> None:
        """
        The data channel is gone, and nothing has ever come from it: the relay
        has not read the ticket, so it waits still, and its client too.
        """
        if self._presented_on_parked:
            self._around.journal.note(
                f"session {self._notify.session} is begun again: a parked channel was dead"
            )
            self.visit.unheard()
        else:
            self.visit.data_failed(_no_data_channel("it was lost at once"))

    # The end

    def drop(self) -> None:
        """
        Let go of everything.  A data channel that was parked may serve another
        client; one that has never shown a ticket is a stranger to the relay,
        which hangs up on it in a moment.
        """
        self._dropped = True
        self._have_room()
        for connecting in list(self._dialling):
            connecting.cancel()
        server, self._server_channel = self._server_channel, None
        if server is not None:
            server.holding.lost = None
            server.reset()
        data, self._data_channel = self._data_channel, None
        if isinstance(data, DataChannel):
            if self._was_parked:
                self._around.channels.park(data)
            else:
                data.close()
        elif data is not None:
            data.holding.lost = None
            data.reset()

    def forget(self) -> None:
        self._around.forget(self._notify)

    def fail(self) -> None:
        splice = self._around.splices.pop(self._notify.session, None)
        steps: list[Callable[[], object]] = (
            [self.drop] if splice is None else [splice.close, self.drop]
        )
        failing = Failing(Code.INTERNAL, "the session failed by the agent's own fault")
        attempt_all([*steps, lambda: self.refuse(failing), self.forget])


_NOWHERE = ("::", 0)

_UNHEARD = f"second {Lost.TRUNCATED.value}"
"""How a splice ends whose data channel was lost, and not reset by the relay."""

_CROWDED = 1.0
"""Seconds without an answer to a dial, until what is parked is given up."""


def _address(text: str) -> tuple[str, int] | None:
    # Of a form that its message has checked: "²".isdigit() holds, for one.
    host, _, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if host else None


def _timed_out(result: Any, limit: float) -> Any:
    """
    What became of a connection that took too long.  Endpoints fail each in
    their own way when they are cancelled.
    """
    if isinstance(result, Failure):
        return Failure(TimeoutError(f"no answer within {limit:g} s"))
    return result


def _no_data_channel(reason: str) -> Failing:
    return Failing(Code.INTERNAL, f"the agent has no data channel to the relay: {reason}"[:256])

"""
The clients' visits as the relay sees them: S5 to S8, S10, S11 and the end.

Each visit is an Automat machine that knows neither sockets nor frames.  What
reaches the client goes through a L{ClientDoor}; the agent is reached through
the L{relaytunnel.relay.registry.Agent} of the server that is visited.
L{Visits} decides who is let in, and finds the visit that a message or a
ticket is about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from automat import TypeMachineBuilder, pep614

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from relaytunnel.arrival import Login
from relaytunnel.config.limits import Limits
from relaytunnel.deadlines import Deadline, Deadlines
from relaytunnel.errors import Code, Failing, ProtocolError, Rejection
from relaytunnel.guarding import attempt_all, guarded
from relaytunnel.machines import build
from relaytunnel.relay.finding import check_access
from relaytunnel.relay.registry import Agent, PublishedServer, RightsView
from relaytunnel.relay.waiting import Place, WaitingRoom
from relaytunnel.steps import happened
from relaytunnel.wire.messages import Cancel, Notify

__all__ = ["ClientDoor", "Visit", "Visits"]

_log = Logger()

_LOOK_EVERY = 0.1
_CROWDED = "too many clients wait at this relay, and most of them come from this address"


class ClientDoor(Protocol):
    """
    The client's side of a visit.

    @ivar client: the client's C{host:port}.
    @ivar host: its address alone.
    @ivar source: what that counts for, see L{relaytunnel.sources}.
    @ivar many: whether that is the address of many clients, as a balancer's.
    @ivar came_to: the relay's address that it connected to, for a server that
        wants to know.
    """

    client: str
    host: str
    source: str
    many: bool
    came_to: str

    @property
    def held(self) -> int:
        """How many bytes of the client are held."""

    def hold(self, paused: bool) -> None:
        """Read no more of the client, or go on reading."""

    def tell(self, failing: Failing) -> None:
        """Tell the client, in its own protocol, why it is not served; close."""

    def splice(self, stream: object, place: Place[Visit]) -> None:
        """Join the client channel and this data channel (S11)."""

    def fail(self) -> None:
        """The visit is over by our own fault: let go of all that it has, wherever it stood."""


class Visit(Protocol):
    """
    What can happen to a visit.
    """

    def queued(self, place: Place[Visit], arrived: str, login: Login | None) -> None:
        """S6: the server exists, and this client waits for its turn."""

    def called(self) -> None:
        """S6: it is this client's turn."""

    def admitted(self, place: Place[Visit], arrived: str, login: Login | None) -> None:
        """S6: the server exists, and this client may wait for it."""

    def turned_away(self, failing: Failing) -> None:
        """S6: no such server, or not for this client, or not now."""

    def refused(self, failing: Failing) -> None:
        """S8 or S9: the agent cannot, and why."""

    def joined(self, place: Place[Visit], stream: object) -> None:
        """S10: the data channel is here."""

    def client_left(self) -> None:
        """The client aborted."""

    def agent_lost(self) -> None:
        """The control channel is gone."""

    def expired(self) -> None:
        """The data channel did not come in time."""

    def over(self) -> None:
        """S14 to S20: the splice has ended."""


@dataclass
class _Core:
    door: ClientDoor
    visits: Visits
    queued: _Queued | None = None
    place: Place[Visit] | None = None
    alarm: Deadline | None = None
    stream: Any = None
    visit: Visit = field(init=False)

    def fail(self) -> None:
        """
        An input has raised.
        """
        place, visits = self.place, self.visits
        number = 0 if place is None else place.session
        _log.failure("session {session} ends by our own fault", session=number)
        if self.alarm is not None:
            self.alarm.cancel()
        door = getattr(self, "door", None)
        steps: list[Callable[[], object]] = [] if door is None else [door.fail]
        if self.stream is not None:
            steps.append(self.stream.reset)
        if place is not None and number:
            agent = place.server.agent
            visits.sessions.pop(number, None)
            if place.waiting:
                steps.append(lambda: agent.send(Cancel(session=number)))
            steps.append(lambda: visits.leave(place))
        attempt_all(steps)
        if door is not None:
            del self.door, self.visit


@dataclass
class _Queued:
    """
    A visit that waits for its turn.
    """

    place: Place[Visit]
    number: int
    alarm: Deadline
    arrived: str
    login: Login | None


@dataclass
class _Waiting:
    """
    A visit in the waiting room.
    """

    place: Place[Visit]
    number: int
    alarm: Deadline


def _build() -> Callable[[_Core], Visit]:
    builder = TypeMachineBuilder(Visit, _Core)

    def queue(
        visit: Visit, core: _Core, place: Place[Visit], arrived: str, login: Login | None
    ) -> _Queued:
        number, visits = place.session, core.visits
        core.place = place
        visits.sessions[number] = place
        core.alarm = alarm = visits.deadlines.within(visits.limits.waiting, core.visit.expired)
        core.door.hold(True)
        core.queued = queued = _Queued(place, number, alarm, arrived, login)
        return queued

    def wait(
        visit: Visit, core: _Core, place: Place[Visit], arrived: str, login: Login | None
    ) -> _Waiting:
        number, visits = place.session, core.visits
        core.place = place
        visits.sessions[number] = place
        waiting = visits.limits.waiting
        core.alarm = alarm = visits.deadlines.within(waiting, core.visit.expired)
        notify(core, place, arrived, login, waiting)
        return _Waiting(place, number, alarm)

    def go_on(visit: Visit, core: _Core) -> _Waiting:
        queued, core.queued = core.queued, None
        assert queued is not None
        core.door.hold(False)
        place = queued.place
        # Whole seconds: an agent keeps the deadlines of each length together.
        left = math.ceil(place.expires - core.visits.clock.seconds())
        waiting = min(core.visits.limits.waiting, max(1.0, float(left)))
        notify(core, place, queued.arrived, queued.login, waiting)
        return _Waiting(place, queued.number, queued.alarm)

    def notify(
        core: _Core, place: Place[Visit], arrived: str, login: Login | None, waiting: float
    ) -> None:
        name = place.server.connection_id
        happened("S6", f"it may have {name}; it waits, and what it says is held")
        happened("S7", f"the relay notifies the agent {place.server.agent.agent_id}")
        place.server.agent.send(
            Notify(
                session=place.session,
                connection_id=place.server.connection_id,
                ticket=place.ticket,
                client=core.door.client,
                arrived=arrived[:256],
                deadline=waiting,
                came_to=core.door.came_to,
                user="" if login is None else login.user,
                password="" if login is None else login.password,
            )
        )

    def serve(visit: Visit, core: _Core, place: Place[Visit], stream: object) -> Place[Visit]:
        return place

    def tell(core: _Core, failing: Failing) -> None:
        refusals, code = core.visits.refusals, failing.code.value
        refusals[code] = refusals.get(code, 0) + 1
        core.door.tell(failing)
        let_go(core)

    def let_go(core: _Core) -> None:
        # The door has its visit.  Two that have each other wait for the
        # collector, with what the client has said.
        del core.door, core.visit

    def leave(core: _Core, waiting: _Waiting | _Queued) -> None:
        waiting.alarm.cancel()
        core.visits.sessions.pop(waiting.number, None)
        core.visits.leave(waiting.place)

    def gone(place: Place[Visit]) -> Failing:
        return Failing(Code.AGENT_AWAY, f"the agent {place.server.agent.agent_id} went away")

    def cancel(core: _Core, waiting: _Waiting) -> None:
        waiting.place.server.agent.send(Cancel(session=waiting.number))
        leave(core, waiting)

    Arriving = builder.state("Arriving")
    Queued = builder.state("Queued", queue)
    Waiting = builder.state("Waiting", wait)
    Called = builder.state("Called", go_on)
    Served = builder.state("Served", serve)
    Over = builder.state("Over")

    Arriving.upon(Visit.admitted).to(Waiting).returns(None)
    Arriving.upon(Visit.queued).to(Queued).returns(None)
    Queued.upon(Visit.called, nodata=True).to(Called).returns(None)

    @pep614(Arriving.upon(Visit.client_left).to(Over))
    def leave_early(visit: Visit, core: _Core) -> None:
        let_go(core)

    @pep614(Arriving.upon(Visit.turned_away).to(Over))
    def turn_away(visit: Visit, core: _Core, failing: Failing) -> None:
        tell(core, failing)

    @pep614(Queued.upon(Visit.turned_away).to(Over))
    def turn_away_late(visit: Visit, core: _Core, queued: _Queued, failing: Failing) -> None:
        leave(core, queued)
        tell(core, failing)

    @pep614(Queued.upon(Visit.client_left).to(Over))
    def give_up(visit: Visit, core: _Core, queued: _Queued) -> None:
        leave(core, queued)
        let_go(core)

    @pep614(Queued.upon(Visit.expired).to(Over))
    def expire_queued(visit: Visit, core: _Core, queued: _Queued) -> None:
        why = core.visits.room.why_queued(queued.place)
        leave(core, queued)
        tell(core, Failing(Code.BUSY, f"{why}; its turn did not come in time"))

    # Whether its turn came at once or later makes no difference any more.
    for waiting_state in (Waiting, Called):

        @pep614(waiting_state.upon(Visit.refused).to(Over))
        def refuse(visit: Visit, core: _Core, waiting: _Waiting, failing: Failing) -> None:
            waiting.place.answered = True
            leave(core, waiting)
            tell(core, failing)

        @pep614(waiting_state.upon(Visit.client_left).to(Over))
        def call_off(visit: Visit, core: _Core, waiting: _Waiting) -> None:
            cancel(core, waiting)
            let_go(core)

        @pep614(waiting_state.upon(Visit.expired).to(Over))
        def expire(visit: Visit, core: _Core, waiting: _Waiting) -> None:
            cancel(core, waiting)
            # One that presents its ticket at once does not accept before.
            accepted = waiting.place.accepted
            silent = (
                "the agent opened no data channel" if accepted else "nothing came from the agent"
            )
            tell(core, Failing(Code.TIMEOUT, f"{silent} for {core.visits.limits.waiting:g} s"))

        @pep614(waiting_state.upon(Visit.joined).to(Served))
        def join(
            visit: Visit, core: _Core, waiting: _Waiting, place: Place[Visit], stream: object
        ) -> None:
            waiting.alarm.cancel()
            core.stream = stream
            core.door.splice(stream, place)
            core.stream = None
            let_go(core)

        @pep614(waiting_state.upon(Visit.agent_lost).to(Over))
        def lose_agent(visit: Visit, core: _Core, waiting: _Waiting) -> None:
            leave(core, waiting)
            tell(core, gone(waiting.place))

    @pep614(Queued.upon(Visit.agent_lost).to(Over))
    def lose_agent_early(visit: Visit, core: _Core, queued: _Queued) -> None:
        leave(core, queued)
        tell(core, gone(queued.place))

    @pep614(Served.upon(Visit.over).to(Over))
    def finish(visit: Visit, core: _Core, place: Place[Visit]) -> None:
        core.visits.sessions.pop(place.session, None)
        core.visits.leave(place)

    # The control channel and the data channel are two connections, so what is
    # said on one may come after what it preceded on the other.
    Served.upon(Visit.refused, nodata=True).loop().returns(None)
    # Running sessions outlive the control channel.
    Served.upon(Visit.agent_lost, nodata=True).loop().returns(None)
    Served.upon(Visit.client_left, nodata=True).loop().returns(None)

    Over.upon(Visit.refused).loop().returns(None)
    Over.upon(Visit.client_left).loop().returns(None)
    Over.upon(Visit.agent_lost).loop().returns(None)
    Over.upon(Visit.over).loop().returns(None)
    return build(builder)  # type: ignore[no-any-return]


_new_visit = _build()


@dataclass
class Visits:
    """
    All visits, and who may make one.

    @ivar sessions: the places of those that wait or are served, by number.
    @ivar refusals: how many clients were not served, by code.
    """

    room: WaitingRoom[Visit]
    limits: Limits
    clock: IReactorTime
    sessions: dict[int, Place[Visit]] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    deadlines: Deadlines = field(init=False)
    _absent: dict[int, Place[Visit]] = field(default_factory=dict)
    _alarm: IDelayedCall | None = None
    _calling: bool = False

    def __post_init__(self) -> None:
        self.deadlines = Deadlines(self.clock)

    def arrive(self, door: ClientDoor) -> Visit:
        """
        A client has connected (S5).

        @return: its visit, no input of which raises: it fails alone.
        """
        core = _Core(door, self)
        core.visit = visit = guarded(Visit, _new_visit(core), core.fail)
        return visit

    def seek(
        self,
        visit: Visit,
        door: ClientDoor,
        server: PublishedServer,
        arrived: str,
        login: Login | None = None,
    ) -> None:
        """
        S6: decide whether this client may reach this server now, and if so
        let it wait and notify the agent (S7).

        @param arrived: how it named the server, C{host:web.example.net}.
        @param login: what it proved who it is with, if the server asks for that.
        """
        room, source, size = self.room, door.source, door.held
        try:
            check_access(server, door.host)
            self._check_rights(server)
            while (other := room.one_too_many(source, size)) is not None:
                self.turn_away(other.visit, Rejection(Code.BUSY, _CROWDED))
            place = room.enter(visit, server, source, door.many, size)
        except Rejection as rejection:
            self.turn_away(visit, rejection)
        else:
            if place.queued:
                visit.queued(place, arrived, login)
                self._look_again_soon()
            else:
                visit.admitted(place, arrived, login)

    def turn_away(self, visit: Visit, why: Rejection) -> None:
        """
        S6: this client is not served, and is told so.
        """
        visit.turned_away(Failing(why.code, why.reason))

    def leave(self, place: Place[Visit]) -> None:
        """
        A session is over, and perhaps it is another one's turn.
        """
        agent_id = place.server.agent.agent_id
        self._absent.pop(place.session, None)
        self.room.leave(place)
        if self._alarm is not None:
            self._call(agent_id)

    def _call(self, agent_id: str) -> None:
        """
        Notify an agent of those whose turn it is.
        """
        if self._calling:
            return  # somebody was turned away whose turn it was: the loop goes on
        self._calling = True
        try:
            for place in self.room.call(agent_id):
                try:
                    self._check_again(place.server)
                except Rejection as rejection:
                    place.answered = True  # nobody was notified
                    self.turn_away(place.visit, rejection)
                else:
                    place.visit.called()
        finally:
            self._calling = False
        if self._alarm is not None and not self.room.queued:
            self._alarm.cancel()
            self._alarm = None

    def _check_again(self, before: PublishedServer) -> None:
        """
        @param before: the server as it was when a client was let in to wait.
        @raise Rejection: it has changed meanwhile, or is published no more.
        """
        server = before.agent.servers.get(before.connection_id)
        if server is None and before.stopping:
            raise Rejection(Code.AGENT_AWAY, f"the agent of {before.connection_id} stops")
        if server is None:
            raise Rejection(Code.NO_SUCH_SERVER, f"{before.connection_id} was withdrawn")
        if (server.users, server.allow) != (before.users, before.allow):
            raise Rejection(Code.BUSY, f"{server.connection_id} has changed; try once more")
        self._check_rights(server)

    def _look_again_soon(self) -> None:
        """
        Not all that holds up a queue is over when a session is: rates allow
        more after a while.
        """
        if self._alarm is None:
            self._alarm = self.clock.callLater(_LOOK_EVERY, self._look_again)

    def _look_again(self) -> None:
        self._alarm = None
        for agent_id in self.room.agents_waited_for():
            self._call(agent_id)
        if self.room.queued:
            self._look_again_soon()

    @staticmethod
    def _check_rights(server: PublishedServer) -> None:
        rights = server.agent.rights
        if server.checked is rights:
            return
        if not server.covered(rights):
            raise Rejection(
                Code.NOT_ALLOWED,
                f"the agent {server.agent.agent_id} may publish {server.connection_id} no more",
            )
        server.checked = rights

    def accepted(self, agent: Agent, session: int) -> None:
        """
        S8: the agent is on its way.

        @raise ProtocolError: the session is another agent's.
        """
        place = self._place(agent, session)
        if place is not None:
            place.accepted = True

    def refused(self, agent: Agent, session: int, failing: Failing) -> None:
        """
        S8, S9: the agent cannot serve the client.

        @raise ProtocolError: the session is another agent's.
        """
        place = self._place(agent, session)
        if place is not None:
            place.visit.refused(failing)

    def redeem(self, ticket: bytes, plain: bool = False) -> Place[Visit] | None:
        """
        S10: a data channel presents a ticket.  What it joins is to be told so
        with C{place.visit.joined(place, stream)}.

        @param plain: whether it was presented without TLS.
        @return: C{None} if the ticket joins nothing.
        """
        place = self.room.redeem(ticket, plain)
        if place is not None and self._absent:
            self._absent.pop(place.session, None)
        if place is not None and self._alarm is not None:
            self._call(place.server.agent.agent_id)
        return place

    def agent_left(self, agent: Agent, returning: bool = False) -> None:
        """
        A control channel is gone: those who wait for it are told.

        @param returning: whether the agent itself may well be there still, so
            that the data channels it has accepted sessions for (S8) come.
        """
        waiting = [each for each in self.sessions.values() if each.server.agent is agent]
        # First those in the queue: it is nobody's turn any more.
        for place in sorted(waiting, key=_after_the_queued):
            if returning and place.accepted:
                if place.waiting:
                    self._absent[place.session] = place
            else:
                place.visit.agent_lost()

    def recheck_absent(self, rights: Mapping[str, RightsView]) -> None:
        """
        Call off what was accepted over a control channel that is gone, where
        its agent's account does not allow it any more.

        @param rights: those of all accounts, by agent ID.
        """
        for number, place in list(self._absent.items()):
            if place.session != number or not place.waiting:
                del self._absent[number]
                continue
            known = rights.get(place.server.agent.agent_id)
            if known is None or not place.server.covered(known):
                del self._absent[number]
                place.visit.agent_lost()

    def _place(self, agent: Agent, session: int) -> Place[Visit] | None:
        place = self.sessions.get(session)
        # It may have come back since, on another control channel.
        if place is not None and place.server.agent.agent_id != agent.agent_id:
            raise ProtocolError(f"session {session} is not this agent's")
        return place


def _after_the_queued(place: Place[Visit]) -> bool:
    return not place.queued

"""
The agent's end of one control channel: S1 to S4, S7, S8, and what follows.

The machine knows no transport: what it sends and starts goes through a
L{RelayDoor}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from automat import TypeMachineBuilder, pep614

from twisted.logger import Logger

from relaytunnel.agent.backoff import Backoff
from relaytunnel.agent.servers import OwnServer, Servers
from relaytunnel.agent.visit import AgentVisit
from relaytunnel.config.names import printable
from relaytunnel.errors import Code, ProtocolError, Rejection
from relaytunnel.machines import build
from relaytunnel.steps import happened
from relaytunnel.wire.messages import (
    PROTOCOL_VERSION,
    Cancel,
    Denied,
    Goodbye,
    Hello,
    Message,
    Notify,
    Refuse,
    Registered,
    Rejected,
    Restarting,
    StandingRequest,
    Welcome,
    Withdrawn,
)
from relaytunnel.wire.turns import Turns

__all__ = ["AgentState", "RelayDoor", "RelaySession"]

_log = Logger()


class RelayDoor(Protocol):
    """
    The control channel and the world around it, as the session sees them.
    """

    def send(self, message: Message) -> None:
        """Send the relay a message."""

    def close(self, why: str) -> None:
        """Close the channel behind what was sent."""

    def authenticated(self, ping: float) -> None:
        """The relay let us in: full-sized messages, and pings."""

    def welcomed(self, relay: str, releases: bool) -> None:
        """S2: we are in, at a relay that says STOP behind every session, or not."""

    def denied(self, code: str, reason: str) -> None:
        """S2: we are not let in."""

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
        """The relay is about to go: what it knows is of use no more."""


class _Stay(Protocol):
    """
    What can happen on the control channel.
    """

    def connected(self) -> None:
        """The channel stands, and the relay has proved who it is."""

    def welcome(self, message: Welcome) -> None:
        """S2"""

    def denied(self, message: Denied) -> None:
        """S2: we may not come in."""

    def registered(self, message: Registered) -> None:
        """S4: where clients find the server."""

    def standing_request(self, message: StandingRequest) -> None:
        """S4: what the relay will ask for."""

    def rejected(self, message: Rejected) -> None:
        """S4: one server is turned down."""

    def withdrawn(self, message: Withdrawn) -> None:
        """One server is published no more."""

    def notify(self, message: Notify) -> None:
        """S7: a client is waiting."""

    def cancel(self, message: Cancel) -> None:
        """The client went away."""

    def restarting(self, message: Restarting) -> None:
        """The relay is about to restart."""

    def goodbye(self, message: Goodbye) -> None:
        """The relay closes the channel, and says why."""

    def lost(self, reason: str) -> None:
        """The channel is gone."""


@dataclass
class AgentState:
    """
    What an agent is, across its control channels.

    @ivar agent: its ID.
    @ivar epoch: grows at every start.
    @ivar visits: those under way, by the relay's number.
    @ivar comparing: those whose client's password is being looked at.
    """

    agent: str
    secret: str = field(repr=False)
    epoch: int
    software: str
    servers: Servers
    backoff: Backoff
    visits: dict[int, AgentVisit] = field(default_factory=dict)
    comparing: set[int] = field(default_factory=set)


@dataclass
class _Core:
    state: AgentState
    door: RelayDoor


def _build() -> Callable[[_Core], _Stay]:
    builder = TypeMachineBuilder(_Stay, _Core)

    Connecting = builder.state("Connecting")
    Greeting = builder.state("Greeting")
    Present = builder.state("Present")
    Over = builder.state("Over")

    # S1, S2

    @pep614(Connecting.upon(_Stay.connected).to(Greeting))
    def hello(stay: _Stay, core: _Core) -> None:
        state = core.state
        happened("S1", f"the agent {state.agent} has a control channel and says who it is")
        core.door.send(
            Hello(
                version=PROTOCOL_VERSION,
                agent=state.agent,
                secret=state.secret,
                epoch=state.epoch,
                software=state.software,
            )
        )

    @pep614(Greeting.upon(_Stay.welcome).to(Present))
    def register_all(stay: _Stay, core: _Core, message: Welcome) -> None:
        core.door.authenticated(message.ping)
        core.state.backoff.welcomed()
        core.door.welcomed(message.relay, message.releases)
        for registration in core.state.servers.registrations():
            happened("S3", f"the agent registers the server {registration.connection_id}")
            core.door.send(registration)

    @pep614(Greeting.upon(_Stay.denied).to(Over))
    def denied(stay: _Stay, core: _Core, message: Denied) -> None:
        core.state.backoff.denied(message.retry_after)
        core.door.denied(message.code, message.reason)
        core.door.close(f"denied: {message.code}")

    # S4

    @pep614(Present.upon(_Stay.registered).loop())
    def registered(stay: _Stay, core: _Core, message: Registered) -> None:
        server = core.state.servers.get(message.connection_id)
        if server is not None:
            server.registered = True
            server.addresses = message.reach

    @pep614(Present.upon(_Stay.standing_request).loop())
    def standing_request(stay: _Stay, core: _Core, message: StandingRequest) -> None:
        server = core.state.servers.get(message.connection_id)
        if server is not None and server.registered:
            server.stand(message.endpoints)
            core.door.published(server)

    @pep614(Present.upon(_Stay.rejected).loop())
    def rejected(stay: _Stay, core: _Core, message: Rejected) -> None:
        forget(core, message.connection_id, message.code, message.reason)

    @pep614(Present.upon(_Stay.withdrawn).loop())
    def withdrawn(stay: _Stay, core: _Core, message: Withdrawn) -> None:
        forget(core, message.connection_id, message.code, message.reason)

    def forget(core: _Core, connection_id: str, code: str, reason: str) -> None:
        server = core.state.servers.get(connection_id)
        if server is not None:
            server.registered = False
            server.endpoints = ()
            core.door.not_published(connection_id, code, reason)

    # S7, S8

    @pep614(Present.upon(_Stay.notify).loop())
    def notify(stay: _Stay, core: _Core, message: Notify) -> None:
        try:
            server = core.state.servers.check(message)
        except Rejection as rejection:
            refuse(core, message, rejection)
            return
        state, session = core.state, message.session
        if session in state.visits or session in state.comparing:
            raise ProtocolError(f"session {session} is notified twice")
        if not server.users:
            begin(core, message, server)
            return

        def compared(wrong: Rejection | None) -> None:
            if session not in state.comparing:
                return  # it was cancelled meanwhile
            state.comparing.discard(session)
            try:
                if wrong is not None:
                    raise wrong
                # Others may have come meanwhile, or the server gone or changed.
                now = state.servers.check(message, server)
                if now.users != server.users:
                    raise Rejection(Code.LOGIN_NEEDED, "its users have changed; try once more")
                begin(core, message, now)
            except Rejection as rejection:
                refuse(core, message, rejection)

        state.comparing.add(session)
        core.door.compare(message, server, compared)

    def refuse(core: _Core, message: Notify, rejection: Rejection) -> None:
        _log.warn(
            "session {session} for {server} is refused: {reason}",
            session=message.session,
            server=printable(message.connection_id),
            reason=printable(rejection.reason),
        )
        core.door.send(
            Refuse(
                session=message.session,
                code=rejection.code.value,
                reason=rejection.reason[:256],
            )
        )

    def begin(core: _Core, message: Notify, server: OwnServer) -> None:
        try:
            visit = core.state.visits[message.session] = core.door.visit(message, server)
        except Exception:
            # It is this session's fault alone; the control channel is everybody's.
            _log.failure("session {session} ends by our own fault", session=message.session)
            refuse(core, message, Rejection(Code.INTERNAL, "the session cannot begin"))
        else:
            visit.begin()

    @pep614(Present.upon(_Stay.cancel).loop())
    def cancel(stay: _Stay, core: _Core, message: Cancel) -> None:
        if message.session in core.state.comparing:
            core.state.comparing.discard(message.session)
            core.door.stop_comparing(message.session)
        visit = core.state.visits.get(message.session)
        if visit is not None:
            visit.cancelled()

    # The end

    @pep614(Present.upon(_Stay.restarting).loop())
    def restarting(stay: _Stay, core: _Core, message: Restarting) -> None:
        _log.info(
            "the relay restarts; coming back within {seconds:g} s", seconds=message.reconnect_in
        )
        core.state.backoff.restarting(message.reconnect_in)
        core.door.relay_leaves()

    def part(stay: _Stay, core: _Core, message: Goodbye) -> None:
        _log.warn(
            "the relay closes the control channel: {code}: {reason}",
            code=printable(message.code),
            reason=printable(message.reason),
        )
        if message.code in (Code.REVOKED.value, Code.SUPERSEDED.value):
            core.state.backoff.denied(0.0)
        core.door.close(f"the relay said {message.code}")

    Greeting.upon(_Stay.goodbye).loop()(part)
    Present.upon(_Stay.goodbye).loop()(part)

    Connecting.upon(_Stay.lost).to(Over).returns(None)
    Greeting.upon(_Stay.lost).to(Over).returns(None)

    @pep614(Present.upon(_Stay.lost).to(Over))
    def lose(stay: _Stay, core: _Core, reason: str) -> None:
        # The visits under way go on: their data channels do not need this one.
        core.state.servers.forget_relay()
        for session in core.state.comparing:
            core.door.stop_comparing(session)
        core.state.comparing.clear()

    for late in (
        _Stay.connected,
        _Stay.welcome,
        _Stay.denied,
        _Stay.registered,
        _Stay.standing_request,
        _Stay.rejected,
        _Stay.withdrawn,
        _Stay.notify,
        _Stay.cancel,
        _Stay.restarting,
        _Stay.goodbye,
        _Stay.lost,
    ):
        Over.upon(late).loop().returns(None)
    return build(builder)  # type: ignore[no-any-return]


_new_stay = _build()


class RelaySession:
    """
    One control channel's session at the agent: messages in, what they cause out.

    @ivar received: takes what the relay says, as of L{Turns.take}.
    """

    def __init__(self, state: AgentState, door: RelayDoor) -> None:
        self._stay = stay = _new_stay(_Core(state, door))
        turns = Turns(
            "a relay",
            {
                Welcome: stay.welcome,
                Denied: stay.denied,
                Registered: stay.registered,
                StandingRequest: stay.standing_request,
                Rejected: stay.rejected,
                Withdrawn: stay.withdrawn,
                Notify: stay.notify,
                Cancel: stay.cancel,
                Restarting: stay.restarting,
                Goodbye: stay.goodbye,
            },
        )
        self.received = turns.take

    def connected(self) -> None:
        """
        The channel stands, and the relay has proved who it is (S1).
        """
        self._stay.connected()

    def lost(self, reason: str) -> None:
        """
        The control channel is gone.
        """
        self._stay.lost(reason)

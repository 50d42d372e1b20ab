"""
An agent's stay, as the relay sees it: S1 to S4, and what it says later.

The machine knows no transport: what it sends and asks goes through an
L{AgentDoor}.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from automat import TypeMachineBuilder, pep614

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel

from relaytunnel.config.limits import Limits
from relaytunnel.config.names import printable
from relaytunnel.errors import Code, Failing, Rejection
from relaytunnel.machines import build
from relaytunnel.ratelimited import RateLimitedLog
from relaytunnel.relay.publishing import Publisher
from relaytunnel.relay.registry import Agent, PublishedServer, Registry, RightsView
from relaytunnel.relay.visits import Visits
from relaytunnel.steps import happened
from relaytunnel.wire.messages import (
    PROTOCOL_VERSION,
    Accept,
    Denied,
    Goodbye,
    Hello,
    Message,
    Refuse,
    Register,
    Registered,
    Rejected,
    StandingRequest,
    Welcome,
    Withdraw,
    Withdrawn,
)
from relaytunnel.wire.turns import Turns

__all__ = ["AgentDoor", "AgentSession", "Reception"]


class AgentDoor(Protocol):
    """
    The agent's control channel, as its stay sees it.

    @ivar peer: the agent's address.
    """

    peer: str

    def send(self, message: Message) -> None:
        """Send the agent a message."""

    def close(self, why: str) -> None:
        """Close the channel behind what was sent."""

    def authenticate(self, agent: str, secret: str) -> None:
        """Ask the accounts; the answer is C{known} or C{unknown}."""

    def authenticated(self, ping: float) -> None:
        """The agent is known: full-sized messages, and pings."""


class Stay(Protocol):
    """
    What can happen while an agent is connected.
    """

    def hello(self, message: Hello) -> None:
        """S1: it says who it is."""

    def known(self, rights: RightsView) -> None:
        """S2: the accounts know it, and what it may publish."""

    def unknown(self, code: Code, reason: str, retry_after: float) -> None:
        """S2: it may not come in."""

    def entered(self, agent: Agent) -> None:
        """S2: it is in the registry."""

    def register(self, message: Register) -> None:
        """S3: it publishes a server."""

    def withdraw(self, message: Withdraw) -> None:
        """It publishes a server no more."""

    def accept(self, message: Accept) -> None:
        """S8: it is on its way for a client."""

    def refuse(self, message: Refuse) -> None:
        """S8, S9: it cannot serve a client."""

    def goodbye(self, message: Goodbye) -> None:
        """It leaves."""

    def rights_changed(self, rights: RightsView) -> None:
        """Its account says something else now."""

    def dismiss(self, code: Code, reason: str) -> None:
        """It has to go."""

    def lost(self, reason: str) -> None:
        """The control channel is gone."""


@dataclass
class Reception:
    """
    The relay that all stays are at.

    @ivar name: the relay's public name.
    @ivar node: which node of it this is.
    @ivar log: what agents do goes there.
    """

    name: str
    node: str
    registry: Registry
    publisher: Publisher
    visits: Visits
    limits: Limits
    clock: IReactorTime
    log: RateLimitedLog = field(init=False)

    def __post_init__(self) -> None:
        self.log = RateLimitedLog(self.clock, Logger(__name__))


@dataclass
class _Core:
    reception: Reception
    door: AgentDoor


def _build() -> Callable[[_Core], Stay]:
    builder = TypeMachineBuilder(Stay, _Core)

    def remember(stay: Stay, core: _Core, message: Hello) -> Hello:
        return message

    def settle(stay: Stay, core: _Core, agent: Agent) -> Agent:
        return agent

    def remove(core: _Core, server: PublishedServer, returning: bool = False) -> None:
        core.reception.publisher.take_back(server, returning)
        core.reception.visits.room.forget(server)

    def leave(core: _Core, agent: Agent, reason: str, returning: bool = False) -> None:
        for server in core.reception.registry.leave(agent):
            remove(core, server, returning)
        core.reception.visits.agent_left(agent, returning)
        core.reception.log.emit(
            LogLevel.info,
            ("gone", agent.agent_id),
            "agent {agent} is gone: {reason}",
            agent=agent.agent_id,
            reason=printable(reason),
        )

    Greeting = builder.state("Greeting")
    Checking = builder.state("Checking", remember)
    Present = builder.state("Present", settle)
    Over = builder.state("Over")

    # S1, S2

    @pep614(Greeting.upon(Stay.hello).to(Checking))
    def check(stay: Stay, core: _Core, message: Hello) -> None:
        if message.version != PROTOCOL_VERSION:
            stay.unknown(
                Code.VERSION,
                f"this relay speaks version {PROTOCOL_VERSION} of the protocol,"
                f" not {message.version}",
                300.0,
            )
        else:
            core.door.authenticate(message.agent, message.secret)

    @pep614(Checking.upon(Stay.known).loop())
    def admit(stay: Stay, core: _Core, hello: Hello, rights: RightsView) -> None:
        reception = core.reception
        agent = Agent(
            hello.agent,
            hello.epoch,
            rights,
            core.door.send,
            stay.dismiss,
            stay.rights_changed,
            peer=core.door.peer,
            software=hello.software,
            since=reception.clock.seconds(),
        )
        try:
            # The ghost's own stay is told before it leaves the registry, so
            # that it takes back its ports and its waiting clients itself.
            ghost = reception.registry.challenge(agent)
        except Rejection as rejection:
            stay.unknown(rejection.code, rejection.reason, 60.0)
        else:
            if ghost is not None:
                ghost.dismiss(Code.SUPERSEDED, f"the agent is back, from {core.door.peer}")
            reception.registry.enter(agent)
            stay.entered(agent)

    @pep614(Checking.upon(Stay.entered).to(Present))
    def welcome(stay: Stay, core: _Core, hello: Hello, agent: Agent) -> None:
        reception = core.reception
        reception.log.emit(
            LogLevel.info,
            ("here", agent.agent_id),
            "agent {agent} is here, from {peer} ({software})",
            agent=agent.agent_id,
            peer=agent.peer,
            software=printable(agent.software) or "unnamed software",
        )
        happened("S2", f"the relay knows the agent {agent.agent_id} and welcomes it")
        core.door.authenticated(reception.limits.ping)
        core.door.send(
            Welcome(
                relay=reception.name,
                node=reception.node,
                sessions=reception.limits.sessions_per_agent,
                ping=reception.limits.ping,
                releases=True,
            )
        )

    def turn_away(
        stay: Stay, core: _Core, hello: Hello, code: Code, reason: str, retry_after: float
    ) -> None:
        core.reception.log.emit(
            LogLevel.warn,
            ("denied", core.door.peer.rpartition(":")[0]),
            "agent {agent} at {peer} is denied: {code}: {reason}",
            agent=printable(hello.agent),
            peer=core.door.peer,
            code=code.value,
            reason=printable(reason),
        )
        core.door.send(Denied(code=code.value, reason=reason[:256], retry_after=retry_after))
        core.door.close(f"denied: {code.value}")

    Checking.upon(Stay.unknown).to(Over)(turn_away)

    # S3, S4

    @pep614(Present.upon(Stay.register).loop())
    def register(stay: Stay, core: _Core, agent: Agent, message: Register) -> None:
        try:
            publish(core, agent, message)
        except Rejection as rejection:
            core.reception.log.emit(
                LogLevel.warn,
                ("cannot publish", agent.agent_id),
                "agent {agent} cannot publish {server}: {code}: {reason}",
                agent=agent.agent_id,
                server=printable(message.connection_id),
                code=rejection.code.value,
                reason=printable(rejection.reason),
            )
            core.door.send(
                Rejected(
                    connection_id=message.connection_id,
                    code=rejection.code.value,
                    reason=rejection.reason[:256],
                )
            )

    def publish(core: _Core, agent: Agent, message: Register) -> None:
        server = core.reception.publisher.publish(agent, message)
        core.reception.log.emit(
            LogLevel.info,
            ("publishes", agent.agent_id),
            "agent {agent} publishes {server}",
            agent=agent.agent_id,
            server=server.connection_id,
        )
        happened("S4", f"the relay publishes {server.connection_id}, with a standing request")
        core.door.send(Registered(connection_id=server.connection_id, reach=server.addresses))
        core.door.send(StandingRequest(connection_id=server.connection_id))

    @pep614(Present.upon(Stay.withdraw).loop())
    def withdraw(stay: Stay, core: _Core, agent: Agent, message: Withdraw) -> None:
        agent.refused.pop(message.connection_id, None)
        server = agent.servers.get(message.connection_id)
        if server is not None:
            server.stopping = message.code == Code.SHUTDOWN.value
            if server.stopping:
                core.reception.registry.remove(server)
            else:
                core.reception.registry.forget(server)
            remove(core, server)
        core.door.send(Withdrawn(connection_id=message.connection_id))

    @pep614(Present.upon(Stay.rights_changed).loop())
    def recheck(stay: Stay, core: _Core, agent: Agent, rights: RightsView) -> None:
        changed, agent.rights = rights != agent.rights, rights
        wanted = [kept.message for kept in agent.refused.values()] if changed else []
        for server in list(agent.servers.values()):
            try:
                core.reception.publisher.check_rights(server)
            except Rejection as rejection:
                core.reception.registry.forget(server)
                remove(core, server)
                core.reception.log.emit(
                    LogLevel.warn,
                    ("may publish no more", agent.agent_id),
                    "agent {agent} may publish {server} no more: {reason}",
                    agent=agent.agent_id,
                    server=server.connection_id,
                    reason=printable(rejection.reason),
                )
                core.door.send(
                    Withdrawn(
                        connection_id=server.connection_id,
                        code=Code.NOT_ALLOWED.value,
                        reason=rejection.reason[:256],
                    )
                )
        # What the account allows by now need not wait until it is asked again.
        for asked in wanted:
            with suppress(Rejection):
                publish(core, agent, asked)

    # S8, S9

    @pep614(Present.upon(Stay.accept).loop())
    def accept(stay: Stay, core: _Core, agent: Agent, message: Accept) -> None:
        core.reception.visits.accepted(agent, message.session)

    @pep614(Present.upon(Stay.refuse).loop())
    def refuse(stay: Stay, core: _Core, agent: Agent, message: Refuse) -> None:
        try:
            code = Code(message.code)
        except ValueError:
            code = Code.INTERNAL
        core.reception.visits.refused(agent, message.session, Failing(code, message.reason))

    # The end

    @pep614(Present.upon(Stay.dismiss).to(Over))
    def dismiss(stay: Stay, core: _Core, agent: Agent, code: Code, reason: str) -> None:
        core.door.send(Goodbye(code=code.value, reason=reason[:256]))
        core.door.close(f"{code.value}: {reason}")
        if code is Code.REVOKED:
            for server in agent.servers.values():
                server.withdrawn = True
        leave(core, agent, f"{code.value}: {reason}", code is Code.SUPERSEDED)
        if code is Code.REVOKED:
            core.reception.registry.away.forget_agent(agent.agent_id)

    @pep614(Present.upon(Stay.goodbye).to(Over))
    def part(stay: Stay, core: _Core, agent: Agent, message: Goodbye) -> None:
        core.door.close(f"the agent said {message.code}")
        leave(core, agent, f"it said {message.code}: {message.reason}")

    @pep614(Greeting.upon(Stay.goodbye).to(Over))
    def part_unknown(stay: Stay, core: _Core, message: Goodbye) -> None:
        core.door.close(f"the agent said {message.code}")

    @pep614(Checking.upon(Stay.goodbye).to(Over))
    def part_unchecked(stay: Stay, core: _Core, hello: Hello, message: Goodbye) -> None:
        core.door.close(f"the agent said {message.code}")

    @pep614(Present.upon(Stay.lost).to(Over))
    def lose(stay: Stay, core: _Core, agent: Agent, reason: str) -> None:
        leave(core, agent, reason, True)

    @pep614(Greeting.upon(Stay.dismiss).to(Over))
    def dismiss_unknown(stay: Stay, core: _Core, code: Code, reason: str) -> None:
        core.door.close(f"{code.value}: {reason}")

    @pep614(Checking.upon(Stay.dismiss).to(Over))
    def dismiss_unchecked(stay: Stay, core: _Core, hello: Hello, code: Code, reason: str) -> None:
        core.door.close(f"{code.value}: {reason}")

    Greeting.upon(Stay.lost).to(Over).returns(None)
    Checking.upon(Stay.lost, nodata=True).to(Over).returns(None)

    # What was on its way when it ended.
    for late in (
        Stay.known,
        Stay.unknown,
        Stay.entered,
        Stay.register,
        Stay.withdraw,
        Stay.accept,
        Stay.refuse,
        Stay.goodbye,
        Stay.rights_changed,
        Stay.dismiss,
        Stay.lost,
    ):
        Over.upon(late).loop().returns(None)
    return build(builder)  # type: ignore[no-any-return]


_new_stay = _build()


class AgentSession:
    """
    The relay's end of one control channel: messages in, what they cause out.

    @ivar stay: the machine, for what is no message.
    @ivar received: takes what the agent says, as of L{Turns.take}.
    """

    def __init__(self, reception: Reception, door: AgentDoor) -> None:
        self.stay = stay = _new_stay(_Core(reception, door))
        turns = Turns(
            "an agent",
            {
                Hello: stay.hello,
                Register: stay.register,
                Withdraw: stay.withdraw,
                Accept: stay.accept,
                Refuse: stay.refuse,
                Goodbye: stay.goodbye,
            },
        )
        self.received = turns.take

    def lost(self, reason: str) -> None:
        """
        The control channel is gone.
        """
        self.stay.lost(reason)

"""
One client's visit, as the agent sees it: S8 to S10, and the end.

The server channel and the data channel are dialled side by side; the ticket
is presented only when the server channel stands, so that a dead target
becomes a refusal with the true reason.  The machine knows no sockets: what it
dials and drops goes through L{VisitDoors}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from automat import TypeMachineBuilder, pep614

from twisted.logger import Logger

from relaytunnel.deadlines import Deadline, Deadlines
from relaytunnel.errors import Code, Failing
from relaytunnel.guarding import guarded
from relaytunnel.machines import build
from relaytunnel.wire.messages import Notify

__all__ = ["AgentVisit", "VisitDoors", "new_visit"]

_log = Logger()


class VisitDoors(Protocol):
    """
    What a visit does to the world.
    """

    def dial_server(self) -> None:
        """S9: open the server channel; the answer is C{server_up} or C{server_failed}."""

    def dial_data(self) -> None:
        """S10: have a data channel; the answer is C{data_up} or C{data_failed}."""

    def accept(self) -> None:
        """S8: tell the relay that we are on our way, unless we are there already."""

    def refuse(self, failing: Failing) -> None:
        """Tell the relay that this session cannot be."""

    def splice(self) -> None:
        """S10: present the ticket, and join the two channels."""

    def drop(self) -> None:
        """Let go of both channels, and of what is being dialled."""

    def forget(self) -> None:
        """The visit is over."""

    def fail(self) -> None:
        """It is over by our own fault: let go of all that it has, wherever it stood."""


class AgentVisit(Protocol):
    """
    What can happen to a visit.
    """

    def begin(self) -> None:
        """S8: the connection ID is ours."""

    def server_up(self) -> None:
        """S9: the server channel stands."""

    def server_failed(self, failing: Failing) -> None:
        """S9: there is no server channel."""

    def data_up(self) -> None:
        """S10: there is a data channel."""

    def data_failed(self, failing: Failing) -> None:
        """S10: there is none."""

    def cancelled(self) -> None:
        """The client, or its agent's process, goes away."""

    def expired(self) -> None:
        """The ticket is worth nothing any more."""

    def unheard(self) -> None:
        """S10: the parked data channel has died with the ticket, unread."""

    def over(self) -> None:
        """S14 to S20: the splice has ended."""


@dataclass
class _Core:
    doors: VisitDoors
    deadlines: Deadlines
    notify: Notify
    alarm: Deadline | None = None
    visit: AgentVisit = field(init=False)

    def fail(self) -> None:
        """
        An input has raised.
        """
        _log.failure("session {session} ends by our own fault", session=self.notify.session)
        if self.alarm is not None:
            self.alarm.cancel()
            self.alarm = None
        doors = getattr(self, "doors", None)
        if doors is not None:
            del self.doors, self.visit
            doors.fail()


def _build() -> Callable[[_Core], AgentVisit]:
    builder = TypeMachineBuilder(AgentVisit, _Core)

    def disarm(core: _Core) -> None:
        if core.alarm is not None:
            core.alarm.cancel()
        core.alarm = None

    def give_up(core: _Core, failing: Failing | None) -> None:
        disarm(core)
        core.doors.drop()
        if failing is not None:
            core.doors.refuse(failing)
        forget(core)

    def forget(core: _Core) -> None:
        core.doors.forget()
        # The doors have their visit.  Two that have each other wait for the
        # collector.
        del core.doors, core.visit

    Notified = builder.state("Notified")
    Dialling = builder.state("Dialling")
    ServerUp = builder.state("ServerUp")
    DataUp = builder.state("DataUp")
    Spliced = builder.state("Spliced")
    Over = builder.state("Over")

    @pep614(Notified.upon(AgentVisit.begin).to(Dialling))
    def dial(visit: AgentVisit, core: _Core) -> None:
        core.alarm = core.deadlines.within(core.notify.deadline, core.visit.expired)
        core.doors.dial_data()
        core.doors.dial_server()
        core.doors.accept()

    Dialling.upon(AgentVisit.server_up).to(ServerUp).returns(None)
    Dialling.upon(AgentVisit.data_up).to(DataUp).returns(None)

    @pep614(ServerUp.upon(AgentVisit.data_up).to(Spliced))
    @pep614(DataUp.upon(AgentVisit.server_up).to(Spliced))
    def splice(visit: AgentVisit, core: _Core) -> None:
        disarm(core)
        core.doors.splice()

    for dialling in (Dialling, ServerUp, DataUp):

        @pep614(dialling.upon(AgentVisit.server_failed).to(Over))
        @pep614(dialling.upon(AgentVisit.data_failed).to(Over))
        def fail(visit: AgentVisit, core: _Core, failing: Failing) -> None:
            give_up(core, failing)

        @pep614(dialling.upon(AgentVisit.cancelled).to(Over))
        def cancel(visit: AgentVisit, core: _Core) -> None:
            give_up(core, None)

        @pep614(dialling.upon(AgentVisit.expired).to(Over))
        def expire(visit: AgentVisit, core: _Core) -> None:
            give_up(
                core,
                Failing(
                    Code.TIMEOUT,
                    f"the agent had no channels ready within {core.notify.deadline:g} s",
                ),
            )

    # Nobody has heard of the client yet, so it is served once more, from the
    # beginning: what the server has said by itself, it says again.  The relay
    # calls it off when it is too late.
    @pep614(Spliced.upon(AgentVisit.unheard).to(Dialling))
    def dial_again(visit: AgentVisit, core: _Core) -> None:
        core.alarm = core.deadlines.within(core.notify.deadline, core.visit.expired)
        core.doors.dial_data()
        core.doors.dial_server()

    @pep614(Spliced.upon(AgentVisit.over).to(Over))
    def finish(visit: AgentVisit, core: _Core) -> None:
        forget(core)

    # The parked data channel that was to be used was dead, and while another is
    # dialled in its place that one, or the server channel, is lost too.
    @pep614(Spliced.upon(AgentVisit.server_failed).to(Over))
    @pep614(Spliced.upon(AgentVisit.data_failed).to(Over))
    def fail_late(visit: AgentVisit, core: _Core, failing: Failing) -> None:
        give_up(core, failing)

    # A client that was served already cannot be called off any more: its
    # splice knows better.
    Spliced.upon(AgentVisit.cancelled).loop().returns(None)

    # What was under way when the visit ended.
    for late in (
        AgentVisit.server_up,
        AgentVisit.data_up,
        AgentVisit.cancelled,
        AgentVisit.expired,
        AgentVisit.unheard,
        AgentVisit.over,
    ):
        Over.upon(late).loop().returns(None)
    Over.upon(AgentVisit.server_failed).loop().returns(None)
    Over.upon(AgentVisit.data_failed).loop().returns(None)
    return build(builder)  # type: ignore[no-any-return]


_machine = _build()


def new_visit(doors: VisitDoors, deadlines: Deadlines, notify: Notify) -> AgentVisit:
    """
    @return: the visit of the client that this message is about; it starts
        with C{begin()}.  No input of it raises: it fails alone.
    """
    core = _Core(doors, deadlines, notify)
    core.visit = visit = guarded(AgentVisit, _machine(core), core.fail)
    return visit

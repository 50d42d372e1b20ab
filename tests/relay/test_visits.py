"""
Tests for L{relaytunnel.relay.visits}.
"""

from __future__ import annotations

from typing import Any

import msgspec

from relaytunnel.accounts.model import Rights
from relaytunnel.config.access import networks
from relaytunnel.config.limits import Limits
from relaytunnel.config.names import Reach
from relaytunnel.errors import Code, Failing, Rejection
from relaytunnel.relay import visits
from relaytunnel.relay.registry import Agent, PublishedServer
from relaytunnel.relay.visits import Visit
from relaytunnel.wire.messages import Cancel, Message, Notify
from tests.script import (
    Blank,
    Breaks,
    Cue,
    Cues,
    FakeClientDoor,
    FakePorts,
    Joins,
    Pauses,
    RelaySays,
    Script,
    ScriptedTestCase,
    Tells,
    relay_core,
    ticket,
)

NO_TURN = Failing(Code.BUSY, "others were there before; its turn did not come in time")
CLIENT = "203.0.113.9:50000"
OTHER = "203.0.113.10:50001"
RIGHTS = Rights(("*",), ((20000, 20003),))


def notify(session: int = 1, server: str = "web", client: str = CLIENT) -> RelaySays:
    """
    @return: S7 of the client of that session.
    """
    return RelaySays(
        Notify(
            session=session,
            connection_id=server,
            ticket=ticket(session),
            client=client,
            arrived="host:web.example",
            deadline=10.0,
        )
    )


def late_notify(session: int, left: float, number: int = 2) -> RelaySays:
    """
    @param number: of its ticket, which is made last.
    @return: S7 of a client that was queued, and has so many seconds left.
    """
    says = notify(session, client=OTHER)
    return RelaySays(msgspec.structs.replace(says.message, deadline=left, ticket=ticket(number)))


def cancel(session: int = 1) -> RelaySays:
    """
    @return: what the agent is told when that client went away.
    """
    return RelaySays(Cancel(session=session))


class VisitTestCase(ScriptedTestCase):
    """
    A relay with one agent and its server C{web}.
    """

    limits = Limits()

    def setUp(self) -> None:
        super().setUp()
        self.relay = relay_core(self.script, self.clock, self.limits, FakePorts(self.script))
        self.visits = self.relay.visits
        self.room = self.visits.room
        self.agent = self.new_agent("office")
        self.web = PublishedServer("web", self.agent, (Reach("name"),))
        self.relay.registry.add(self.web)

    def new_agent(self, agent_id: str, name: str = "") -> Agent:
        """
        An agent that is present.
        """

        def send(message: Message) -> None:
            self.script.record(RelaySays(message, name))

        agent = Agent(agent_id, 5, RIGHTS, send, lambda code, reason: None, lambda rights: None)
        self.relay.registry.enter(agent)
        return agent

    def arrive(self, client: str = CLIENT) -> tuple[Cues, Cues]:
        """
        A client comes (S5).

        @return: what may happen to its visit, and what may be decided of it:
            C{seek()}, C{turn_away(why)}, C{join(ticket, stream)}.
        """
        door = FakeClientDoor(self.script, client)
        visit = self.visits.arrive(door)
        return Cues("visit", visit), Cues("relay", _Decisions(self, visit, door))

    def wait(self) -> Cues:
        """
        A client that has been let in to wait, as session 1.
        """
        visit, relay = self.arrive()
        self.script >> relay.seek() << notify()
        return visit

    def joins(self, number: int = 1, stream: object = "a data channel") -> Cue:
        """
        A data channel presents a ticket.
        """

        def join() -> None:
            place = self.visits.redeem(ticket(number))
            assert place is not None
            place.visit.joined(place, stream)

        return Cue(f"join(ticket {number})", join)

    def heard(self) -> Cues:
        """
        What the agent of C{web} may have to say.
        """
        return Cues("relay", _Heard(self, self.agent))

    def empty(self) -> None:
        """
        Assert that nobody waits and nobody is served.
        """
        self.assertEqual(self.visits.sessions, {})
        self.assertEqual((self.room.waiting, self.room.served), (0, 0))


class _Decisions:
    def __init__(self, test: VisitTestCase, visit: Visit, door: FakeClientDoor) -> None:
        self._test = test
        self._visit = visit
        self._door = door

    def seek(
        self, server: PublishedServer | None = None, arrived: str = "host:web.example"
    ) -> None:
        self._test.visits.seek(self._visit, self._door, server or self._test.web, arrived)

    def turn_away(self, why: Rejection) -> None:
        self._test.visits.turn_away(self._visit, why)


class _Heard:
    def __init__(self, test: VisitTestCase, agent: Agent) -> None:
        self._visits = test.visits
        self._agent = agent

    def accepted(self, session: int) -> None:
        self._visits.accepted(self._agent, session)

    def refused(self, session: int, failing: Failing) -> None:
        self._visits.refused(self._agent, session, failing)

    def left(self) -> None:
        self._visits.agent_left(self._agent)


class ArrivingTests(VisitTestCase):
    """
    S5 and S6: whether a client is let in.
    """

    def test_left(self) -> None:
        """
        A client that goes before it has named its server leaves no trace.
        """
        visit, _ = self.arrive()
        self.script >> visit.client_left() >> visit.client_left()
        self.empty()

    def test_admitted(self) -> None:
        """
        A client that may reach its server waits, and the agent is notified.
        """
        visit, relay = self.arrive()
        (
            self.script
            >> relay.seek()
            << RelaySays(
                Notify(
                    session=1,
                    connection_id="web",
                    ticket=ticket(1),
                    client="203.0.113.9:50000",
                    arrived="host:web.example",
                    deadline=10.0,
                )
            )
        )
        self.assertEqual((self.room.waiting, self.room.served), (1, 0))
        self.assertEqual(list(self.visits.sessions), [1])
        self.script >> visit.client_left() << cancel()

    def test_long_name(self) -> None:
        """
        However long the name is by which a client came, the message goes.
        """
        visit, relay = self.arrive()
        (
            self.script
            >> relay.seek(arrived="host:" + "x" * 300)
            << RelaySays(
                Notify(
                    session=1,
                    connection_id="web",
                    ticket=ticket(1),
                    client=CLIENT,
                    arrived="host:" + "x" * 251,
                )
            )
            >> visit.client_left()
            << cancel()
        )

    def test_turned_away(self) -> None:
        """
        A client that is turned away is told why, and counted.
        """
        visit, relay = self.arrive()
        (
            self.script
            >> relay.turn_away(Rejection(Code.NO_SUCH_SERVER, "no server is published as x"))
            << Tells(CLIENT, Failing(Code.NO_SUCH_SERVER, "no server is published as x"))
            >> visit.client_left()
        )
        self.assertEqual(self.visits.refusals, {"no-such-server": 1})
        self.empty()

    def test_network(self) -> None:
        """
        A server may be open to some networks only.
        """
        self.web.allow = networks(["203.0.113.8/31"])
        visit, inside = self.arrive()
        _, outside = self.arrive(OTHER)
        (
            self.script
            >> inside.seek()
            << notify()
            >> outside.seek()
            << Tells(
                OTHER,
                Failing(Code.NOT_ALLOWED, "web is not open to clients from 203.0.113.10"),
            )
            >> visit.client_left()
            << cancel()
        )
        self.empty()

    def test_rights(self) -> None:
        """
        No client is let in to a server that the account covers no more, by its
        name or by its port, even before it is withdrawn.
        """
        ssh = PublishedServer("ssh", self.agent, (Reach("port", "20003"),))
        self.relay.registry.add(ssh)
        self.agent.rights = Rights(("ssh",), ((20000, 20002),))
        for server in (self.web, ssh):
            _, relay = self.arrive()
            (
                self.script
                >> relay.seek(server)
                << Tells(
                    CLIENT,
                    Failing(
                        Code.NOT_ALLOWED,
                        f"the agent office may publish {server.connection_id} no more",
                    ),
                )
            )
        self.assertEqual(self.visits.refusals, {"not-allowed": 2})
        self.empty()


class BusyTests(VisitTestCase):
    """
    S6: limits that are reached.
    """

    limits = Limits(sessions_per_server=1)

    def test_served(self) -> None:
        """
        Those who are served count apart from those who wait, and no longer
        when they have been served.
        """
        visit, first = self.arrive()
        _, second = self.arrive(OTHER)
        third_visit, third = self.arrive(OTHER)
        (
            self.script
            >> first.seek()
            << notify()
            >> self.joins(1)
            << Joins(CLIENT, "a data channel")
            >> second.seek()
            << Tells(
                OTHER, Failing(Code.BUSY, "1 sessions of web are running; no more are allowed")
            )
            >> visit.over()
            >> third.seek()
            << notify(2, client=OTHER)
            >> third_visit.client_left()
            << cancel(2)
        )
        self.empty()


class QueueTests(VisitTestCase):
    """
    S6: those whose turn has not come.
    """

    limits = Limits(waiting_per_server=1, queued=2)

    def setUp(self) -> None:
        super().setUp()
        self.first = self.wait()
        self.visit, relay = self.arrive(OTHER)
        self.script >> relay.seek() << Pauses(OTHER, True)

    def finish(self, session: int = 2) -> None:
        """
        Let the second client go.
        """
        self.script >> self.visit.client_left() << cancel(session)
        self.empty()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_joined(self) -> None:
        """
        When the first has its data channel the next is called, and goes on
        speaking; it has as much time left as it has not waited.
        """
        (
            self.script
            >> self.passes.advance(3.5)
            >> self.joins(1)
            << Pauses(OTHER, False)
            << late_notify(2, 7.0)
            << Joins(CLIENT, "a data channel")
            >> self.joins(2)
            << Joins(OTHER, "a data channel")
            >> self.first.over()
            >> self.visit.over()
        )
        self.empty()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_first_leaves(self) -> None:
        """
        So it is when the first leaves, or is refused.
        """
        (
            self.script
            >> self.heard().refused(1, Failing(Code.BUSY, "no"))
            << Pauses(OTHER, False)
            << late_notify(2, 10.0)
            << Tells(CLIENT, Failing(Code.BUSY, "no"))
        )
        self.finish()

    def test_leaves(self) -> None:
        """
        Of one that leaves before its turn the agent hears nothing.
        """
        self.script >> self.visit.client_left() >> self.first.client_left() << cancel()
        self.empty()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_late(self) -> None:
        """
        Whose turn does not come in time is told why.
        """
        (
            self.script
            >> self.passes.advance(10.0)
            << cancel()
            << Tells(CLIENT, Failing(Code.TIMEOUT, "nothing came from the agent for 10 s"))
            << Tells(OTHER, NO_TURN)
        )
        self.empty()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_came_later(self) -> None:
        """
        One that came later is called when the time of the others is over.
        """
        self.script >> self.passes.advance(5.0)
        third_visit, third = self.arrive(OTHER)
        self.script >> third.seek() << Pauses(OTHER, True)
        (
            self.script
            >> self.passes.advance(5.0)
            << cancel()
            << Tells(CLIENT, Failing(Code.TIMEOUT, "nothing came from the agent for 10 s"))
            << Pauses(OTHER, False)
            << late_notify(3, 5.0)
            << Tells(OTHER, NO_TURN)
            >> third_visit.client_left()
            << cancel(3)
        )
        self.empty()

    def test_agent_left(self) -> None:
        """
        When the agent is gone nobody is called any more.
        """
        away = Failing(Code.AGENT_AWAY, "the agent office went away")
        (self.script >> self.heard().left() << Tells(OTHER, away) << Tells(CLIENT, away))
        self.empty()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_withdrawn(self) -> None:
        """
        Whose server was withdrawn meanwhile is told so when its turn comes, and
        however many there are.
        """
        self.relay.registry.forget(self.web)
        (
            self.script
            >> self.first.client_left()
            << cancel()
            << Tells(OTHER, Failing(Code.NO_SUCH_SERVER, "web was withdrawn"))
        )
        self.empty()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_changed(self) -> None:
        """
        Whoever was let in by rules that do not hold any more has to ask again.
        """
        closed = PublishedServer("web", self.agent, (Reach("name"),))
        closed.allow = networks(["192.0.2.0/24"])
        self.relay.registry.add(closed)
        (
            self.script
            >> self.first.client_left()
            << cancel()
            << Tells(OTHER, Failing(Code.BUSY, "web has changed; try once more"))
        )
        self.empty()

    def test_published_anew(self) -> None:
        """
        That it was published anew, as it was, makes no difference.
        """
        self.relay.registry.add(PublishedServer("web", self.agent, (Reach("name"),)))
        (
            self.script
            >> self.first.client_left()
            << cancel()
            << Pauses(OTHER, False)
            << late_notify(2, 10.0)
        )
        self.finish()

    def test_largest_pays(self) -> None:
        """
        When no more can be queued the source that has the most pays, with its
        last client, for one that has less.
        """
        _, third = self.arrive(OTHER)
        fourth_visit, fourth = self.arrive("198.51.100.7:1")
        (
            self.script
            >> third.seek()
            << Pauses(OTHER, True)
            >> fourth.seek()
            << Tells(OTHER, Failing(Code.BUSY, visits._CROWDED))
            << Pauses("198.51.100.7:1", True)
            >> fourth_visit.client_left()
            >> self.first.client_left()
            << cancel()
            << Pauses(OTHER, False)
            << late_notify(2, 10.0)
        )
        self.finish()

    def test_same_pays_itself(self) -> None:
        """
        One that has as many as anybody is not let in at another's cost.
        """
        third_visit, third = self.arrive(OTHER)
        _, fourth = self.arrive(OTHER)
        (
            self.script
            >> third.seek()
            << Pauses(OTHER, True)
            >> fourth.seek()
            << Tells(OTHER, Failing(Code.BUSY, Blank(str)))  # type: ignore[arg-type]
            >> third_visit.client_left()
            >> self.first.client_left()
            << cancel()
            << Pauses(OTHER, False)
            << late_notify(2, 10.0)
        )
        self.finish()


class ManyQueuedTests(VisitTestCase):
    """
    S6: so many that nothing may be done of one after the other's call.
    """

    limits = Limits(waiting_per_server=1)

    def test_withdrawn(self) -> None:
        """
        Thousands of a server that was withdrawn are told so.
        """
        first = self.wait()
        for _ in range(3000):
            _, relay = self.arrive(OTHER)
            self.script >> relay.seek() << Pauses(OTHER, True)
        self.relay.registry.forget(self.web)
        self.script >> first.client_left() << cancel()
        for _ in range(3000):
            self.script << Tells(OTHER, Failing(Code.NO_SUCH_SERVER, "web was withdrawn"))
        self.empty()


class RateTests(VisitTestCase):
    """
    S6: how often an agent is notified in vain.
    """

    limits = Limits(notify_rate=0.5, notify_burst=1)

    def test_in_vain(self) -> None:
        """
        A client that went away counts: the next has to wait until the rate
        allows it.
        """
        visit = self.wait()
        second_visit, second = self.arrive(OTHER)
        (self.script >> visit.client_left() << cancel() >> second.seek() << Pauses(OTHER, True))
        for _ in range(19):
            self.script >> self.passes.advance(0.1)
        (
            self.script
            >> self.passes.advance(0.15)
            << Pauses(OTHER, False)
            << late_notify(2, 8.0)
            >> second_visit.client_left()
            << cancel(2)
        )
        self.empty()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_never(self) -> None:
        """
        One for which it does not in time is told why.
        """
        self.visits.room.use(Limits(notify_rate=0.01, notify_burst=1))
        visit = self.wait()
        _, second = self.arrive(OTHER)
        (self.script >> visit.client_left() << cancel() >> second.seek() << Pauses(OTHER, True))
        for _ in range(99):
            self.script >> self.passes.advance(0.1)
        (
            self.script
            >> self.passes.advance(0.15)
            << Tells(
                OTHER,
                Failing(
                    Code.BUSY,
                    "too many clients of web left before they were served;"
                    " its turn did not come in time",
                ),
            )
        )
        self.empty()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answered(self) -> None:
        """
        A client for which the agent had an answer, be it no, does not count,
        and neither does one that was served.
        """
        self.wait()
        visit, second = self.arrive(OTHER)
        third_visit, third = self.arrive(OTHER)
        (
            self.script
            >> self.heard().refused(1, Failing(Code.REFUSED_BY_TARGET, "it is down"))
            << Tells(CLIENT, Failing(Code.REFUSED_BY_TARGET, "it is down"))
            >> second.seek()
            << notify(2, client=OTHER)
            >> self.joins(2)
            << Joins(OTHER, "a data channel")
            >> third.seek()
            << notify(3, client=OTHER)
            >> third_visit.client_left()
            << cancel(3)
            >> visit.over()
        )
        self.empty()


class WaitingTests(VisitTestCase):
    """
    S7 to S10: while a client waits.
    """

    def test_joined(self) -> None:
        """
        The data channel that presents the ticket is joined with the client.
        """
        visit = self.wait()
        (
            self.script
            >> self.heard().accepted(1)
            >> self.joins(1)
            << Joins(CLIENT, "a data channel")
        )
        self.assertEqual((self.room.waiting, self.room.served), (0, 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.script >> visit.over()
        self.empty()

    def test_joined_before_accepted(self) -> None:
        """
        The data channel may be faster than what is said on the control
        channel.
        """
        visit = self.wait()
        (
            self.script
            >> self.joins(1)
            << Joins(CLIENT, "a data channel")
            >> self.heard().accepted(1)
            >> visit.over()
        )
        self.empty()

    def test_refused(self) -> None:
        """
        The client is told what the agent says, and the ticket is void.
        """
        self.wait()
        (
            self.script
            >> self.heard().refused(1, Failing(Code.REFUSED_BY_TARGET, "it is down"))
            << Tells(CLIENT, Failing(Code.REFUSED_BY_TARGET, "it is down"))
        )
        self.assertEqual(self.visits.refusals, {"refused-by-target": 1})
        self.assertIsNone(self.visits.redeem(ticket(1)))
        self.empty()

    def test_refused_after_accepted(self) -> None:
        """
        An agent that was on its way may find that it cannot.
        """
        self.wait()
        (
            self.script
            >> self.heard().accepted(1)
            >> self.heard().refused(1, Failing(Code.TARGET_UNREACHABLE, "no route"))
            << Tells(CLIENT, Failing(Code.TARGET_UNREACHABLE, "no route"))
        )
        self.empty()

    def test_client_left(self) -> None:
        """
        When the client goes the agent is told, and the ticket is void.
        """
        visit = self.wait()
        self.script >> visit.client_left() << cancel()
        self.assertIsNone(self.visits.redeem(ticket(1)))
        self.empty()

    def test_agent_left(self) -> None:
        """
        When the control channel is lost all who wait for its agent are told,
        and nobody else.
        """
        self.wait()
        _, second = self.arrive(OTHER)
        home = PublishedServer("home", self.new_agent("home", "home"), (Reach("name"),))
        third_visit, third = self.arrive(OTHER)
        elsewhere = Notify(
            session=3,
            connection_id="home",
            ticket=ticket(3),
            client=OTHER,
            arrived="host:web.example",
        )
        away = Failing(Code.AGENT_AWAY, "the agent office went away")
        (
            self.script
            >> second.seek()
            << notify(2, client=OTHER)
            >> third.seek(home)
            << RelaySays(elsewhere, "home")
            >> self.heard().left()
            << Tells(CLIENT, away)
            << Tells(OTHER, away)
            >> third_visit.client_left()
            << RelaySays(Cancel(session=3), "home")
        )
        self.assertEqual(self.visits.refusals, {"agent-away": 2})
        self.assertIsNone(self.visits.redeem(ticket(1)))
        self.empty()

    def test_silent_agent(self) -> None:
        """
        When an agent has not answered in time the client is told so, and the
        agent that it need not come.
        """
        self.wait()
        (
            self.script
            >> self.passes.advance(9.75)
            >> self.passes.advance(0.25)
            << cancel()
            << Tells(CLIENT, Failing(Code.TIMEOUT, "nothing came from the agent for 10 s"))
        )
        self.assertEqual(self.visits.refusals, {"timeout": 1})
        self.assertIsNone(self.visits.redeem(ticket(1)))
        self.empty()

    def test_slow_agent(self) -> None:
        """
        An agent that was on its way and has not come in time is another fault.
        """
        self.wait()
        (
            self.script
            >> self.heard().accepted(1)
            >> self.passes.advance(10.0)
            << cancel()
            << Tells(CLIENT, Failing(Code.TIMEOUT, "the agent opened no data channel for 10 s"))
        )
        self.empty()

    def test_session_of_another(self) -> None:
        """
        An agent cannot answer for another; the client waits on.
        """
        visit = self.wait()
        home = Cues("home", _Heard(self, self.new_agent("home", "home")))
        (
            self.script
            >> home.accepted(1)
            << Breaks("session 1 is not this agent's")
            >> home.refused(1, Failing(Code.BUSY, "no"))
            << Breaks("session 1 is not this agent's")
            >> visit.client_left()
            << cancel()
        )
        self.assertEqual(self.visits.refusals, {})
        self.empty()

    def test_unknown_session(self) -> None:
        """
        A session that is not known has been over for a while.
        """
        (
            self.script
            >> self.heard().accepted(1)
            >> self.heard().refused(1, Failing(Code.BUSY, "no"))
        )
        self.assertEqual(self.visits.refusals, {})


class TicketTests(VisitTestCase):
    """
    S10: what a data channel has to present.
    """

    def setUp(self) -> None:
        super().setUp()
        self.visit = self.wait()

    def finish(self) -> None:
        """
        Let the client go.
        """
        self.script >> self.visit.client_left() << cancel()
        self.empty()

    def test_invented(self) -> None:
        """
        A ticket that nobody gave out joins nothing, and the client waits on.
        """
        self.assertIsNone(self.visits.redeem(b"?" * 32))
        self.finish()

    def test_used(self) -> None:
        """
        A ticket joins once.
        """
        self.script >> self.joins(1) << Joins(CLIENT, "a data channel")
        self.assertIsNone(self.visits.redeem(ticket(1)))
        self.script >> self.visit.over()
        self.empty()

    def test_plain(self) -> None:
        """
        Only a server that was registered so takes a plain data channel; the
        ticket stays good for the right one.
        """
        self.assertIsNone(self.visits.redeem(ticket(1), plain=True))
        self.web.data = "plain"
        place = self.visits.redeem(ticket(1), plain=True)
        assert place is not None
        self.assertEqual(place.session, 1)
        place.visit.joined(place, "a plain one")
        self.script << Joins(CLIENT, "a plain one") >> self.visit.over()
        self.empty()

    def test_each_its_own(self) -> None:
        """
        A ticket joins the client for which it was given out.
        """
        other_visit, relay = self.arrive(OTHER)
        (
            self.script
            >> relay.seek()
            << notify(2, client=OTHER)
            >> self.joins(2)
            << Joins(OTHER, "a data channel")
            >> other_visit.over()
        )
        self.finish()


class ServedTests(VisitTestCase):
    """
    S11 to S20: while a client is served.
    """

    def setUp(self) -> None:
        super().setUp()
        self.visit = self.wait()
        self.script >> self.joins(1) << Joins(CLIENT, "a data channel")

    def test_agent_left(self) -> None:
        """
        A session outlives the control channel.
        """
        self.script >> self.heard().left()
        self.assertEqual(self.room.served, 1)
        self.script >> self.visit.over()
        self.empty()

    def test_late(self) -> None:
        """
        What was said of a visit before it was joined may come afterwards.
        """
        (
            self.script
            >> self.heard().accepted(1)
            >> self.heard().refused(1, Failing(Code.TIMEOUT, "too slow"))
            >> self.visit.client_left()
        )
        self.assertEqual(self.visits.refusals, {})
        self.assertEqual(self.room.served, 1)
        self.script >> self.visit.over()
        self.empty()

    def test_no_hurry(self) -> None:
        """
        Who is served may stay.
        """
        self.script >> self.passes.advance(3600.0)
        self.assertEqual(self.room.served, 1)
        self.script >> self.visit.over()
        self.empty()


class OverTests(VisitTestCase):
    """
    What is late for a visit.
    """

    def late(self, script: Script, visit: Cues) -> None:
        """
        Play everything that may come late, and assert that it does nothing.
        """
        (
            script
            >> visit.refused(Failing(Code.BUSY, "no"))
            >> visit.client_left()
            >> visit.agent_lost()
            >> visit.over()
            >> self.passes.advance(3600.0)
        )
        self.empty()

    def test_served(self) -> None:
        """
        A visit that was served.
        """
        visit = self.wait()
        self.script >> self.joins(1) << Joins(CLIENT, "a data channel") >> visit.over()
        self.late(self.script, visit)

    def test_called_off(self) -> None:
        """
        A client that went away.
        """
        visit = self.wait()
        self.script >> visit.client_left() << cancel()
        self.late(self.script, visit)

    def test_refused(self) -> None:
        """
        A client that was refused.
        """
        visit = self.wait()
        (
            self.script
            >> visit.refused(Failing(Code.BUSY, "no"))
            << Tells(CLIENT, Failing(Code.BUSY, "no"))
        )
        self.late(self.script, visit)

    def test_expired(self) -> None:
        """
        A client that waited in vain.
        """
        visit = self.wait()
        told: Any = Failing(Code.TIMEOUT, "nothing came from the agent for 10 s")
        self.script >> self.passes.advance(10.0) << cancel() << Tells(CLIENT, told)
        self.late(self.script, visit)

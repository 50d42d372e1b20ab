"""
Tests for L{relaytunnel.agent.visit}.
"""

from __future__ import annotations

from relaytunnel.agent.visit import AgentVisit, new_visit
from relaytunnel.deadlines import Deadlines
from relaytunnel.errors import Code, Failing
from relaytunnel.wire.messages import Notify
from tests.script import (
    Accepts,
    Cues,
    DialsData,
    DialsServer,
    Drops,
    FakeVisitDoors,
    Forgets,
    Refuses,
    ScriptedTestCase,
    Splices,
    ticket,
)

NOTIFY = Notify(
    session=1,
    connection_id="web",
    ticket=ticket(1),
    client="203.0.113.9:50000",
    arrived="host:web.example",
    deadline=8.0,
)
REFUSED = Failing(Code.REFUSED_BY_TARGET, "the target refused the connection")
NO_DATA = Failing(Code.INTERNAL, "the agent has no data channel to the relay")
TOO_LATE = Failing(Code.TIMEOUT, "the agent had no channels ready within 8 s")


class VisitTestCase(ScriptedTestCase):
    """
    An agent that has been notified of a client.
    """

    def setUp(self) -> None:
        super().setUp()
        self.visit = Cues(
            "visit", new_visit(FakeVisitDoors(self.script), Deadlines(self.clock), NOTIFY)
        )

    def begin(self) -> None:
        """
        S8, and the dialling of S9 and S10.
        """
        self.script >> self.visit.begin() << DialsData() << DialsServer() << Accepts()

    def nothing_more(self) -> None:
        """
        Assert that a visit that is over stays so, whatever was under way.
        """
        (
            self.script
            >> self.visit.server_up()
            >> self.visit.server_failed(REFUSED)
            >> self.visit.data_up()
            >> self.visit.data_failed(NO_DATA)
            >> self.visit.cancelled()
            >> self.visit.expired()
            >> self.visit.over()
            >> self.passes.advance(3600.0)
        )


class DiallingTests(VisitTestCase):
    """
    S8 to S10: until both channels stand.
    """

    def test_begin(self) -> None:
        """
        The agent dials on both sides at once, and says that it is on its way.
        """
        (
            self.script
            >> self.visit.begin()
            << DialsData()
            << DialsServer()
            << Accepts()
            >> self.visit.cancelled()
            << Drops()
            << Forgets()
        )

    def test_server_first(self) -> None:
        """
        The ticket is presented when the data channel stands too.
        """
        self.begin()
        self.script >> self.visit.server_up() >> self.visit.data_up() << Splices()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_data_first(self) -> None:
        """
        The ticket is not presented before the server channel stands.
        """
        self.begin()
        self.script >> self.visit.data_up() >> self.visit.server_up() << Splices()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_once(self) -> None:
        """
        Both channels may stand before the dialling has returned: a parked one
        is there already, and a dead target may be known to be.
        """

        class AtOnce(FakeVisitDoors):
            visit: AgentVisit

            def dial_data(self) -> None:
                super().dial_data()
                self.visit.data_up()

            def dial_server(self) -> None:
                super().dial_server()
                self.visit.server_up()

        doors = AtOnce(self.script)
        doors.visit = new_visit(doors, Deadlines(self.clock), NOTIFY)
        (
            self.script
            >> Cues("visit", doors.visit).begin()
            << DialsData()
            << DialsServer()
            << Accepts()
            << Splices()
        )

    def test_server_failed(self) -> None:
        """
        A dead target is refused with the true reason, whatever stands already.
        """
        self.begin()
        (
            self.script
            >> self.visit.server_failed(REFUSED)
            << Drops()
            << Refuses(REFUSED)
            << Forgets()
        )
        self.nothing_more()

    def test_server_failed_behind_data(self) -> None:
        """
        The same when the data channel stands.
        """
        self.begin()
        (
            self.script
            >> self.visit.data_up()
            >> self.visit.server_failed(REFUSED)
            << Drops()
            << Refuses(REFUSED)
            << Forgets()
        )
        self.nothing_more()

    def test_server_lost_again(self) -> None:
        """
        The same when the server channel stood and was lost.
        """
        self.begin()
        (
            self.script
            >> self.visit.server_up()
            >> self.visit.server_failed(REFUSED)
            << Drops()
            << Refuses(REFUSED)
            << Forgets()
        )
        self.nothing_more()

    def test_data_failed(self) -> None:
        """
        Without a data channel the client cannot be served.
        """
        self.begin()
        (
            self.script
            >> self.visit.data_failed(NO_DATA)
            << Drops()
            << Refuses(NO_DATA)
            << Forgets()
        )
        self.nothing_more()

    def test_data_failed_behind_server(self) -> None:
        """
        The same when the server channel stands.
        """
        self.begin()
        (
            self.script
            >> self.visit.server_up()
            >> self.visit.data_failed(NO_DATA)
            << Drops()
            << Refuses(NO_DATA)
            << Forgets()
        )
        self.nothing_more()

    def test_data_lost_again(self) -> None:
        """
        The same when the data channel stood and was lost.
        """
        self.begin()
        (
            self.script
            >> self.visit.data_up()
            >> self.visit.data_failed(NO_DATA)
            << Drops()
            << Refuses(NO_DATA)
            << Forgets()
        )
        self.nothing_more()

    def test_cancelled(self) -> None:
        """
        When the client has gone all is dropped, and the relay, which has said
        so, is told nothing.
        """
        for standing in ([], ["server_up"], ["data_up"]):
            self.visit = Cues(
                "visit", new_visit(FakeVisitDoors(self.script), Deadlines(self.clock), NOTIFY)
            )
            self.begin()
            for event in standing:
                self.script >> getattr(self.visit, event)()
            self.script >> self.visit.cancelled() << Drops() << Forgets()
            self.nothing_more()

    def test_expired(self) -> None:
        """
        When the ticket is worth nothing any more, the agent gives up.
        """
        self.begin()
        (
            self.script
            >> self.passes.advance(7.5)
            >> self.passes.advance(0.5)
            << Drops()
            << Refuses(TOO_LATE)
            << Forgets()
        )
        self.nothing_more()

    def test_expired_half_way(self) -> None:
        """
        The same when one of the channels stands.
        """
        self.begin()
        (
            self.script
            >> self.visit.server_up()
            >> self.passes.advance(8.0)
            << Drops()
            << Refuses(TOO_LATE)
            << Forgets()
        )
        self.nothing_more()

    def test_expired_without_server(self) -> None:
        """
        The same when it is the data channel that stands.
        """
        self.begin()
        (
            self.script
            >> self.visit.data_up()
            >> self.passes.advance(8.0)
            << Drops()
            << Refuses(TOO_LATE)
            << Forgets()
        )
        self.nothing_more()


class SplicedTests(VisitTestCase):
    """
    S11 to S20: while the client is served.
    """

    def setUp(self) -> None:
        super().setUp()
        self.begin()
        self.script >> self.visit.server_up() >> self.visit.data_up() << Splices()

    def test_over(self) -> None:
        """
        When the splice has ended the visit is over, and nothing is dropped:
        the splice has seen to that.
        """
        self.script >> self.visit.over() << Forgets()
        self.nothing_more()

    def test_cancelled(self) -> None:
        """
        A client that was served is not called off; its splice ends in its own
        way.
        """
        self.script >> self.visit.cancelled() >> self.visit.over() << Forgets()
        self.nothing_more()

    def test_unheard(self) -> None:
        """
        Where the parked channel died with the ticket, all is dialled again, and
        there is a deadline again.
        """
        self.script >> self.visit.unheard() << DialsData() << DialsServer()
        self.script >> self.visit.data_up() >> self.visit.server_up() << Splices()
        self.script >> self.passes.advance(3600.0) >> self.visit.over() << Forgets()
        self.nothing_more()

    def test_unheard_and_cancelled(self) -> None:
        """
        A client that leaves meanwhile is called off.
        """
        self.script >> self.visit.unheard() << DialsData() << DialsServer()
        self.script >> self.visit.server_up() >> self.visit.cancelled() << Drops() << Forgets()
        self.nothing_more()

    def test_unheard_and_too_late(self) -> None:
        """
        If there are no channels in time again, the relay is told.
        """
        self.script >> self.visit.unheard() << DialsData() << DialsServer()
        (self.script >> self.passes.advance(8.0) << Drops() << Refuses(TOO_LATE) << Forgets())
        self.nothing_more()

    def test_no_hurry(self) -> None:
        """
        Who is served may stay.
        """
        self.script >> self.passes.advance(3600.0) >> self.visit.over() << Forgets()

    def test_data_failed(self) -> None:
        """
        A parked data channel may turn out to be dead just when it is to be
        used; where no other takes its place the client cannot be served.
        """
        (
            self.script
            >> self.visit.data_failed(NO_DATA)
            << Drops()
            << Refuses(NO_DATA)
            << Forgets()
        )
        self.nothing_more()

    def test_server_failed(self) -> None:
        """
        The server channel may be lost while another data channel is dialled
        in the place of a parked one that was dead.
        """
        (
            self.script
            >> self.visit.server_failed(REFUSED)
            << Drops()
            << Refuses(REFUSED)
            << Forgets()
        )
        self.nothing_more()


class BreathTests(VisitTestCase):
    """
    A visit that never begins.
    """

    def test_no_timer(self) -> None:
        """
        Nothing is armed before a visit begins.
        """
        self.assertEqual(self.clock.getDelayedCalls(), [])

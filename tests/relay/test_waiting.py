"""
Tests of the waiting room: who is let in, and which ticket joins what.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.config.limits import Limits
from relaytunnel.errors import Code, Rejection
from relaytunnel.relay.registry import Agent, PublishedServer
from relaytunnel.relay.waiting import Place, WaitingRoom
from relaytunnel.wire.messages import TICKET_BYTES
from tests.relay import test_registry
from tests.relay.test_registry import an_agent

QUICK = 1_000_000


def tickets() -> Callable[[], bytes]:
    """
    Make a source of tickets that are no secret.
    """
    numbers = count(1)
    return lambda: next(numbers).to_bytes(TICKET_BYTES, "big")


def a_server(agent: Agent, name: str, *reach: str) -> PublishedServer:
    """
    A server that is published.
    """
    server = agent.servers[name] = test_registry.a_server(agent, name, *reach)
    return server


class RoomCase(SynchronousTestCase):
    """
    Tests with a waiting room and a server that is visited.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.agent = an_agent()
        self.server = a_server(self.agent, "web")
        self.room = self.a_room()

    def a_room(self, **limits: float) -> WaitingRoom[str]:
        return WaitingRoom(
            Limits(**limits),  # type: ignore[arg-type]
            self.clock.seconds,
            tickets(),
        )

    def enter(
        self, server: PublishedServer | None = None, client: str = "198.51.100.1"
    ) -> Place[str]:
        return self.room.enter("visit", server or self.server, client)

    def serve(
        self, server: PublishedServer | None = None, client: str = "198.51.100.1"
    ) -> Place[str]:
        place = self.enter(server, client)
        self.assertIs(self.room.redeem(place.ticket), place)
        return place

    def busy(self, server: PublishedServer | None = None, client: str = "198.51.100.1") -> str:
        """
        Assert that a client is not let in.

        @return: why.
        """
        rejection = self.assertRaises(Rejection, self.enter, server, client)
        self.assertIs(rejection.code, Code.BUSY)
        return str(rejection.reason)

    def queues(self, server: PublishedServer | None = None, client: str = "198.51.100.1") -> str:
        """
        Assert that a client has to wait for its turn; it leaves again.

        @return: why.
        """
        place = self.enter(server, client)
        self.assertTrue(place.queued)
        why = self.room.why_queued(place)
        self.room.leave(place)
        return why

    def called(self) -> list[Place[str]]:
        """
        @return: those whose turn it is.
        """
        return [
            place for agent in self.room.agents_waited_for() for place in self.room.call(agent)
        ]

    def assert_empty(self) -> None:
        """
        Assert that nothing is kept of anybody.
        """
        self.assertEqual((self.room.waiting, self.room.served), (0, 0))
        self.assertEqual(dict(self.room._tallies), {})
        self.assertEqual(self.room._by_digest, {})
        self.assertEqual((self.room.queued, self.room._lines, self.room._queued_bytes), (0, {}, 0))


class PlaceTests(RoomCase):
    """
    Clients come, are served and leave.
    """

    def test_enter(self) -> None:
        """
        Who enters waits, under a ticket of its own, for as long as it is good.
        """
        self.clock.advance(5)
        place = self.enter()
        self.assertEqual(
            (place.visit, place.server, place.client, place.expires, place.waiting),
            ("visit", self.server, "198.51.100.1", 15.0, True),
        )
        self.assertEqual((self.room.waiting, self.room.served), (1, 0))

    def test_numbers(self) -> None:
        """
        Each session has a number of its own.
        """
        self.assertEqual([self.enter().session for _ in range(3)], [1, 2, 3])

    def test_former_life(self) -> None:
        """
        The numbers go on from the last of a former life.
        """
        room: WaitingRoom[str] = WaitingRoom(Limits(), self.clock.seconds, tickets(), 41)
        self.assertEqual(room.enter("visit", self.server, "198.51.100.1").session, 42)

    def test_number_of_a_rejected(self) -> None:
        """
        Who is not let in takes no number, and nothing is kept of it.
        """
        self.room = self.a_room(sessions_per_server=1)
        first = self.serve()
        self.busy()
        self.room.leave(first)
        self.assert_empty()
        self.assertEqual(self.enter().session, 2)

    def test_served(self) -> None:
        """
        Whose ticket was presented does not wait any more.
        """
        self.serve()
        self.assertEqual((self.room.waiting, self.room.served), (0, 1))

    def test_leave_waiting(self) -> None:
        """
        Who leaves while waiting leaves nothing behind.
        """
        self.room.leave(self.enter())
        self.assert_empty()

    def test_leave_served(self) -> None:
        """
        Nor does who leaves when served.
        """
        self.room.leave(self.serve())
        self.assert_empty()

    def test_leave_twice(self) -> None:
        """
        Leaving twice does nothing.
        """
        place, _ = self.enter(), self.enter()
        self.room.leave(place)
        self.room.leave(place)
        self.assertEqual((self.room.waiting, self.room.served), (1, 0))

    def test_no_timers(self) -> None:
        """
        The room looks at the clock and sets no alarms.
        """
        self.serve()
        self.enter()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TicketTests(RoomCase):
    """
    A ticket joins one data channel to one session.
    """

    def test_right_one(self) -> None:
        """
        A ticket joins the session that it was made for.
        """
        places = [self.enter() for _ in range(3)]
        self.assertIs(self.room.redeem(places[1].ticket), places[1])
        self.assertEqual([place.waiting for place in places], [True, False, True])

    def test_twice(self) -> None:
        """
        A ticket that was used joins nothing.
        """
        self.assertIsNone(self.room.redeem(self.serve().ticket))
        self.assertEqual((self.room.waiting, self.room.served), (0, 1))

    def test_after_the_session(self) -> None:
        """
        Nor does it when its session is over.
        """
        place = self.serve()
        self.room.leave(place)
        self.assertIsNone(self.room.redeem(place.ticket))

    def test_cancelled(self) -> None:
        """
        Nor does one whose client went away.
        """
        place = self.enter()
        self.room.leave(place)
        self.assertIsNone(self.room.redeem(place.ticket))

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=2 * TICKET_BYTES))
    def test_invented(self, ticket: bytes) -> None:
        """
        Nor does one that was invented, whatever its length.
        """
        room: WaitingRoom[str] = WaitingRoom(
            Limits(), self.clock.seconds, lambda: b"\xa5" * TICKET_BYTES
        )
        room.enter("visit", self.server, "198.51.100.1")
        self.assertIsNone(room.redeem(ticket))
        self.assertEqual(room.waiting, 1)

    def test_nearly(self) -> None:
        """
        Nor does one that differs in a bit, lacks a byte or has one too many.
        """
        ticket = self.enter().ticket
        for wrong in (ticket[:-1] + bytes((ticket[-1] ^ 1,)), ticket[:-1], ticket + b"\0", b""):
            self.assertIsNone(self.room.redeem(wrong))

    def test_guesses(self) -> None:
        """
        A hundred thousand guesses join nothing, though as many wait as may; the
        right tickets are still good.
        """
        # Of 2**256 tickets: ten times as many guesses would show no more.
        self.room = WaitingRoom(
            Limits(waiting_per_server=1024, waiting_per_agent=1024),
            self.clock.seconds,
            lambda: os.urandom(TICKET_BYTES),
        )
        places = [self.enter(client=f"198.51.100.{number % 200}") for number in range(1024)]
        guess = random.Random(1)
        for _ in range(100_000):
            self.assertIsNone(self.room.redeem(guess.randbytes(TICKET_BYTES)))
        self.assertEqual((self.room.waiting, self.room.served), (1024, 0))
        for place in places:
            self.assertIs(self.room.redeem(place.ticket), place)

    def test_in_time(self) -> None:
        """
        A ticket is good until its time is over.
        """
        place = self.enter()
        self.clock.advance(9.875)
        self.assertIs(self.room.redeem(place.ticket), place)

    def test_too_late(self) -> None:
        """
        From then on it joins nothing; its client waits until told so.
        """
        place = self.enter()
        self.clock.advance(10)
        self.assertIsNone(self.room.redeem(place.ticket))
        self.assertEqual(self.room.waiting, 1)
        self.room.leave(place)
        self.assert_empty()

    def test_plain(self) -> None:
        """
        Without TLS a ticket joins a session of a server that was registered so.
        """
        self.server.data = "plain"
        place = self.enter()
        self.assertIs(self.room.redeem(place.ticket, plain=True), place)

    def test_not_plain(self) -> None:
        """
        A ticket for another server joins nothing without TLS, and stays good.
        """
        place = self.enter()
        self.assertIsNone(self.room.redeem(place.ticket, plain=True))
        self.assertIs(self.room.redeem(place.ticket), place)

    def test_plain_server_with_tls(self) -> None:
        """
        With TLS every ticket may be presented.
        """
        self.server.data = "plain"
        place = self.enter()
        self.assertIs(self.room.redeem(place.ticket), place)


class AdmissionTests(RoomCase):
    """
    Each limit, one at a time.
    """

    def setUp(self) -> None:
        super().setUp()
        self.second = a_server(self.agent, "db")
        self.foreign = a_server(an_agent("home"), "cam")

    def test_waiting_per_relay(self) -> None:
        """
        Agents are notified of so many at a relay at a time; those who are
        served do not count.
        """
        self.room = self.a_room(waiting_per_relay=2)
        self.serve()
        self.enter(client="a")
        self.enter(self.foreign, client="b")
        self.assertEqual(self.queues(self.second, "c"), "2 clients wait at this relay")

    def test_waiting_per_server(self) -> None:
        """
        An agent is notified of so many for a server at a time; others may be
        visited.
        """
        self.room = self.a_room(waiting_per_server=2)
        self.serve()
        self.enter(client="a")
        self.enter(client="b")
        self.assertEqual(self.queues(client="c"), "2 clients wait for web")
        self.assertFalse(self.enter(self.second).queued)

    def test_waiting_per_agent(self) -> None:
        """
        An agent is notified of so many at a time; others may be visited.
        """
        self.room = self.a_room(waiting_per_agent=2)
        self.serve()
        self.enter(client="a")
        self.enter(self.second, client="b")
        self.assertEqual(self.queues(client="c"), "2 clients wait for this agent")
        self.assertFalse(self.enter(self.foreign).queued)

    def test_always_some(self) -> None:
        """
        Where all that an agent may be notified of wait for other servers, a few
        may wait for each: those others may be dead.
        """
        self.room = self.a_room(waiting_per_agent=32, waiting_per_relay=32)
        for number in range(32):
            self.enter(client=f"{number}")
        for _ in range(8):
            self.assertFalse(self.enter(self.second, "a").queued)
        self.assertEqual(self.queues(self.second, "a"), "40 clients wait for this agent")
        self.assertFalse(self.enter(self.foreign, "a").queued)

    def test_waiting_per_client(self) -> None:
        """
        An agent is notified of so many of a client for a server at a time;
        others may come.
        """
        self.room = self.a_room(waiting_per_client=2)
        self.serve()
        self.enter()
        self.enter()
        self.assertEqual(self.queues(), "2 sessions of this client wait")
        self.assertFalse(self.enter(self.second).queued)
        self.assertFalse(self.enter(client="b").queued)

    def test_sessions_per_server(self) -> None:
        """
        Only so many sessions of a server run; others may be visited.
        """
        self.room = self.a_room(sessions_per_server=2)
        self.serve(client="a")
        self.serve(client="b")
        self.assertIn("2 sessions of web are running", self.busy(client="c"))
        self.enter(self.second)

    def test_sessions_per_agent(self) -> None:
        """
        Only so many sessions of an agent run; others may be visited.
        """
        self.room = self.a_room(sessions_per_agent=2)
        self.serve(client="a")
        self.serve(self.second, client="b")
        self.assertIn("2 sessions of this agent are running", self.busy(client="c"))
        self.enter(self.foreign)

    def test_sessions_per_client(self) -> None:
        """
        Only so many sessions of a client run; other clients may come.
        """
        self.room = self.a_room(sessions_per_client=2)
        self.serve()
        self.serve(self.foreign)
        self.assertIn("2 sessions of this client are running", self.busy(self.second))
        self.enter(self.second, client="b")

    def test_sessions_per_relay(self) -> None:
        """
        Only so many sessions are at a relay, whether they wait or run.
        """
        self.room = self.a_room(sessions_per_relay=2)
        self.serve(client="a")
        place = self.enter(self.foreign, client="b")
        self.assertEqual(
            self.busy(self.second, "c"),
            "2 sessions run or wait at this relay; no more are allowed",
        )
        self.room.leave(place)
        self.enter(self.second, client="c")

    def test_room_for(self) -> None:
        """
        Where that is not limited there are as many as there is room for.
        """

        def a_room(**limits: int) -> WaitingRoom[str]:
            return WaitingRoom(Limits(**limits), self.clock.seconds, tickets(), room_for=1)

        self.room = a_room()
        self.enter()
        self.assertIn("1 sessions run or wait at this relay", self.busy(self.foreign, "c"))
        self.room = a_room(sessions_per_relay=2)
        self.enter()
        self.enter(self.foreign, "c")

    def test_room_again(self) -> None:
        """
        When somebody left, the next is let in.
        """
        self.room = self.a_room(sessions_per_server=1)
        place = self.serve()
        self.busy()
        self.room.leave(place)
        place = self.enter()
        self.assertIn("0 sessions of web are running", self.queues())
        self.room.leave(place)
        self.assertFalse(self.enter().queued)

    def test_agent_back(self) -> None:
        """
        Sessions that outlive their agent's control channel are still counted
        as its own when it is back.
        """
        self.room = self.a_room(sessions_per_agent=1)
        self.serve()
        back: Agent = an_agent(epoch=2)
        self.assertIn("of this agent are running", self.busy(a_server(back, "web")))


class ShareTests(RoomCase):
    """
    As many sessions of one server as its owner lets one client have.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server.sessions_per_client = 2

    def test_share(self) -> None:
        """
        Waiting and served sessions count together, and what is said names the
        limit and the server.
        """
        self.enter()
        self.serve()
        self.assertEqual(self.busy(), "one client has 2 sessions of web at most")

    def test_each_client(self) -> None:
        """
        Another client has a share of its own.
        """
        for _ in range(2):
            self.enter()
        self.busy()
        self.enter(client="198.51.100.2")

    def test_each_server(self) -> None:
        """
        So has another server, or none at all.
        """
        shop, mail = (a_server(self.agent, name) for name in ("shop", "mail"))
        shop.sessions_per_client = 1
        for _ in range(2):
            self.enter()
        self.enter(shop)
        for _ in range(5):
            self.enter(mail)
        self.busy()
        self.assertIn("shop", self.busy(shop))

    def test_given_back(self) -> None:
        """
        Whoever leaves, before it is served or after, makes room.
        """
        first, second = self.enter(), self.serve()
        self.busy()
        self.room.leave(first)
        third = self.serve()
        self.busy()
        self.room.leave(second)
        fourth = self.enter()
        self.busy()
        for place in (third, fourth):
            self.room.leave(place)
        self.assert_empty()

    def test_refused_takes_nothing(self) -> None:
        """
        Who is not let in takes neither number nor rate, and nothing is kept.
        """
        places = [self.enter(), self.enter()]
        for _ in range(200):
            self.busy()
        self.room.leave(places.pop())
        self.assertEqual(self.enter().session, 3)
        self.room = self.a_room(sessions_per_relay=1)
        place = self.enter(a_server(self.agent, "shop"))
        self.assertIn("wait at this relay", self.busy())
        self.room.leave(place)
        self.assert_empty()

    def test_set_meanwhile(self) -> None:
        """
        A share that is set while clients are served counts those that came
        before, too.
        """
        self.server.sessions_per_client = 0
        old = self.serve()
        self.server.sessions_per_client = 1
        self.busy()
        self.room.leave(old)
        place = self.enter()
        self.busy()
        self.room.leave(place)
        self.assert_empty()


class RateTests(RoomCase):
    """
    How often the agent is notified in vain.
    """

    def setUp(self) -> None:
        super().setUp()
        self.room = self.a_room(notify_rate=2, notify_burst=3)
        self.clients = 0

    def come(self, server: PublishedServer | None = None) -> None:
        """
        Let a client come that was never here before, and leave.
        """
        self.clients += 1
        place = self.enter(server, f"203.0.113.{self.clients}")
        self.assertFalse(place.queued)
        self.room.leave(place)

    def waits(self, server: PublishedServer | None = None, client: str = "192.0.2.9") -> None:
        self.assertIn("left before they were served", self.queues(server, client))

    def test_share(self) -> None:
        """
        One client that comes and goes has a share of the rate, and does not
        keep the others away.
        """
        self.room = self.a_room(notify_rate=8, notify_burst=8)
        for _ in range(2):
            self.room.leave(self.enter())
        self.waits(client="198.51.100.1")
        for _ in range(6):
            self.come()
        self.waits(client="198.51.100.1")
        self.clock.advance(0.5)
        self.room.leave(self.enter())
        self.waits(client="198.51.100.1")

    def test_burst(self) -> None:
        """
        Clients that come faster than is allowed have to wait, though none of
        them stays.
        """
        for _ in range(3):
            self.come()
        self.waits()

    def test_rate(self) -> None:
        """
        After a while the next is called.
        """
        for _ in range(3):
            self.come()
        places = [self.enter(client=f"{number}") for number in range(2)]
        self.assertEqual([place.queued for place in places], [True, True])
        self.clock.advance(0.5)
        self.assertEqual(self.called(), places[:1])
        self.assertEqual(self.called(), [])

    def test_under_way(self) -> None:
        """
        However many come at once, those under way do not count.
        """
        places = [self.enter(client=f"{number}") for number in range(20)]
        self.assertFalse(any(place.queued for place in places))

    def test_under_way_after_some_left(self) -> None:
        """
        But they do when some have just left: so no more come to nothing than
        the rate allows.
        """
        self.come()
        places = [self.enter(client=f"{number}") for number in range(3)]
        self.assertEqual([place.queued for place in places], [False, False, True])
        self.room.redeem(places[0].ticket)
        self.assertEqual(self.called(), places[2:])

    def test_honest_beside_hostile(self) -> None:
        """
        Where many sources come and go so that nobody may be notified, one that
        stays has its turn among them.
        """
        hostile = [f"203.0.113.{number}" for number in range(4)]
        queued = {client: self.enter(client=client) for client in hostile}
        for place in list(queued.values()):
            self.room.leave(place)  # the whole burst, and one on credit
        queued = {client: self.enter(client=client) for client in hostile}
        honest = self.enter()
        self.assertTrue(honest.queued)
        for _ in range(20):
            self.clock.advance(0.5)
            for place in self.called():
                if place is honest:
                    return
                self.room.leave(place)
                queued[place.client] = self.enter(client=place.client)
        self.fail("it was never called")

    def test_queued_is_free(self) -> None:
        """
        Who leaves the queue costs nothing: nobody was notified.
        """
        for _ in range(3):
            self.come()
        for _ in range(50):
            self.waits()
        self.clock.advance(0.5)
        self.come()

    def test_served(self) -> None:
        """
        Clients that are served do not count, however many come.
        """
        for _ in range(20):
            self.room.leave(self.serve())
        for _ in range(3):
            self.come()
        self.waits()

    def test_answered(self) -> None:
        """
        Neither do those whom the agent has refused.
        """
        for _ in range(20):
            place = self.enter()
            place.answered = True
            self.room.leave(place)
        self.assertEqual(self.room._rates, {})

    def test_served_afterwards(self) -> None:
        """
        A client that is served when its server is published no more does no
        harm.
        """
        place = self.enter()
        self.room.forget(self.server)
        self.assertIs(self.room.redeem(place.ticket), place)
        self.assertEqual(self.room._rates, {})

    def test_each_server(self) -> None:
        """
        Each server has a rate of its own.
        """
        for _ in range(3):
            self.come()
        self.come(a_server(self.agent, "db"))

    def test_published_anew(self) -> None:
        """
        A server that is published anew has the rate that it had.
        """
        for _ in range(3):
            self.come()
        self.waits(a_server(self.agent, "web", "host:web.example"))

    def test_forgotten(self) -> None:
        """
        Of a server that is published no more nothing is kept.
        """
        self.come()
        self.come(a_server(self.agent, "web", "host:web.example"))
        place = self.enter()
        del self.agent.servers["web"]
        self.room.forget(self.server)
        self.assertEqual(self.room._rates, {})
        self.room.leave(place)
        self.assertEqual(self.room._rates, {})
        self.assert_empty()

    def test_forgotten_unvisited(self) -> None:
        """
        A server that nobody visited can be forgotten.
        """
        self.room.forget(self.server)
        self.assertEqual(self.room._rates, {})

    def test_made_good(self) -> None:
        """
        Nothing is kept of a server whose rate was made good, when another's is
        charged.
        """
        self.come()
        self.clock.advance(10)
        self.come(a_server(self.agent, "db"))
        self.assertEqual(list(self.room._rates), ["db"])


class QueueTests(RoomCase):
    """
    Whose turn it is.
    """

    def setUp(self) -> None:
        super().setUp()
        self.room = self.a_room(waiting_per_server=1)

    def test_in_order(self) -> None:
        """
        Those of one client are called in the order in which they came, and
        have a ticket from then on, which is good as long as one of their
        arrival would be.
        """
        first, *others = [self.enter() for _ in range(3)]
        self.assertEqual([place.ticket for place in others], [b"", b""])
        self.assertEqual((self.room.waiting, self.room.queued), (3, 2))
        self.assertEqual(self.called(), [])
        self.clock.advance(4)
        self.assertIs(self.room.redeem(first.ticket), first)
        self.assertEqual(self.called(), others[:1])
        self.assertTrue(others[0].ticket)
        self.assertEqual(others[0].expires, 10.0)
        self.room.leave(others[0])
        self.assertEqual(self.called(), others[1:])
        for place in (first, others[1]):
            self.room.leave(place)
        self.room.forget(self.server)
        self.assert_empty()

    def test_no_ticket(self) -> None:
        """
        While it is queued no ticket joins a session, an empty one least.
        """
        self.enter()
        self.enter()
        self.assertIsNone(self.room.redeem(b""))

    def test_sources_in_turn(self) -> None:
        """
        However many clients one source has, another has the next turn.
        """
        places = [self.enter(client="a") for _ in range(5)] + [self.enter(client="b")]
        order: list[Place[str]] = []
        for place in (places[0], *places[1:]):
            self.room.leave(place if place.ticket else order[-1])
            order += self.called()
        self.assertEqual([place.client for place in order], list("aba" + "aa"))

    def test_behind_others(self) -> None:
        """
        Who comes while others are queued goes behind them, though there would
        be room.
        """
        first, second = self.enter(), self.enter()
        self.room.leave(first)
        third = self.enter()
        self.assertTrue(third.queued)
        self.assertEqual(self.called(), [second])

    def test_leave(self) -> None:
        """
        Who leaves the queue leaves nothing behind.
        """
        first = self.enter()
        for place in [self.enter() for _ in range(3)] + [first]:
            self.room.leave(place)
        self.room.forget(self.server)
        self.assert_empty()

    def test_sessions(self) -> None:
        """
        Those who are queued wait for sessions to end, too, so that there are
        never more than may be.
        """
        self.room = self.a_room(sessions_per_server=2)
        places = [self.enter(client=f"{number}") for number in range(3)]
        for place in places[:2]:
            self.room.redeem(place.ticket)
        self.assertEqual(self.called(), [])
        self.assertEqual(self.room.why_queued(places[2]), "2 sessions of web are running")
        self.room.leave(places[0])
        self.assertEqual(self.called(), places[2:])

    def test_servers_in_turn(self) -> None:
        """
        The servers of an agent take turns.
        """
        self.room = self.a_room(waiting_per_agent=1)
        web, db = self.server, a_server(self.agent, "db")
        first = self.enter(web)
        queued = [self.enter(server) for server in (web, web, db, db)]
        order = [first]
        while any(place.queued for place in queued):
            self.room.leave(order[-1])
            order += self.called()
        names = [place.server.connection_id for place in order]
        self.assertEqual(names, ["web", "web", "db", "web", "db"])

    def test_full(self) -> None:
        """
        When so many are queued the source that has the most pays for another
        one, with its last client, and is let in no more itself.
        """
        self.room = self.a_room(waiting_per_server=1, queued=4)
        self.enter()
        places = [self.enter(client="a") for _ in range(4)]
        self.assertIsNone(self.room.one_too_many("a"))
        self.assertIn("4 clients are queued at this relay", self.busy(client="a"))
        found = self.room.one_too_many("b")
        self.assertIs(found, places[3])
        self.room.leave(places[3])
        self.assertIsNone(self.room.one_too_many("b"))
        self.assertTrue(self.enter(client="b").queued)
        self.assertIs(self.room.one_too_many("b"), places[2])

    def test_bytes(self) -> None:
        """
        So it is when they have said so much.
        """
        self.room = self.a_room(waiting_per_server=1, queued_bytes=100_000)
        self.enter()
        large = [self.room.enter("visit", self.server, "a", size=40_000) for _ in range(2)]
        small = [self.room.enter("visit", self.server, "b", size=100) for _ in range(5)]
        self.assertIsNone(self.room.one_too_many("b", 10_000))
        self.assertIs(self.room.one_too_many("b", 30_000), large[1])
        self.assertRaises(Rejection, self.room.enter, "visit", self.server, "a", size=40_000)
        for place in (*large, *small):
            self.room.leave(place)
        self.assertEqual(self.room._queued_bytes, 0)

    def test_descriptors(self) -> None:
        """
        So it is when there are descriptors for no more.
        """
        self.room = WaitingRoom(
            Limits(waiting_per_server=1), self.clock.seconds, tickets(), room_for=5
        )
        self.enter()
        places = [self.enter(client="a") for _ in range(4)]
        self.assertIn("5 sessions run or wait at this relay", self.busy(client="a"))
        self.assertIs(self.room.one_too_many("b"), places[3])

    def test_part_of_all(self) -> None:
        """
        One source has a part of what there are descriptors for, not all.
        """
        self.room = WaitingRoom(Limits(), self.clock.seconds, tickets(), room_for=10)
        for _ in range(6):
            self.serve(client="a")
        self.assertIn("6 sessions of this client are running", self.busy(client="a"))
        self.serve(client="b")

    def test_many(self) -> None:
        """
        Sessions per client do not count where one address is that of many.
        """
        self.room = self.a_room(sessions_per_client=1)
        for _ in range(3):
            place = self.room.enter("visit", self.server, "a", many=True)
            self.assertIs(self.room.redeem(place.ticket), place)
        self.busy(client="a")

"""
The waiting room: sessions whose data channel has not come yet, and tickets.

Who comes in a burst waits in a queue until its agent may be notified.  Admission
is decided here too, since what is counted is who waits and who is served.  Pure
state and a clock.
"""

from __future__ import annotations

import hashlib
import hmac
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from relaytunnel.budgets import PART_OF_SOURCE
from relaytunnel.config.limits import Limits
from relaytunnel.errors import Code, Rejection
from relaytunnel.pools import Pool
from relaytunnel.relay.fairqueue import Backlog, FairQueue
from relaytunnel.relay.rates import NotifyRate, forget_full
from relaytunnel.relay.registry import PublishedServer

__all__ = ["Place", "WaitingRoom"]

V = TypeVar("V")

_ALWAYS = 8
"""Of one server so many may be notified whatever the others do: their targets may be dead."""
_LITTLE = 4096
"""Bytes of a client that is queued which weigh as much as itself."""


class _Tally:
    """
    How many sessions of one server, agent or source there are.

    @ivar queued: those whose agent has not been notified.
    @ivar notified: those whose agent has, and has not answered.
    @ivar served: those that are spliced.
    """

    __slots__ = ("notified", "queued", "served")

    def __init__(self) -> None:
        self.queued = self.notified = self.served = 0


@dataclass(eq=False, slots=True)
class Place(Generic[V]):
    """
    A session's place, first in the waiting room and then among those served.

    @ivar session: the relay's number for it.
    @ivar ticket: what the data channel has to present; empty while it is
        queued.  It is good for this session alone.  With the control channel
        of the agent that was notified it dies, unless the agent has accepted.
    @ivar client: what its client's address counts for.
    @ivar many: whether that is the address of many clients.
    @ivar size: bytes of the client that were held when it came.
    @ivar expires: when the ticket does, by the room's clock.
    @ivar waiting: in the waiting room, or served.
    @ivar accepted: whether the agent has said that it is on its way.
    @ivar answered: whether the agent has served it or told why it cannot.
    @ivar tallies: those it counts in, by what they are kept under: of its
        server, its agent, its source, and its source at this server.
    """

    session: int
    visit: V
    server: PublishedServer
    client: str
    many: bool
    size: int
    expires: float
    tallies: tuple[tuple[str, _Tally], ...]
    ticket: bytes = b""
    waiting: bool = True
    accepted: bool = False
    answered: bool = False

    @property
    def queued(self) -> bool:
        """Whether its agent has not been notified yet."""
        return not self.ticket


class WaitingRoom(Generic[V]):
    """
    Who waits for a data channel and who is served, counted and bounded.

    @ivar waiting: how many wait, queued or not.
    @ivar served: how many are spliced.
    @ivar arriving: clients that are on their way here.  They share their
        descriptors with those who wait or are served, who have two each.
    """

    def __init__(
        self,
        limits: Limits,
        seconds: Callable[[], float],
        ticket: Callable[[], bytes],
        last_session: int = 0,
        room_for: int = sys.maxsize,
    ) -> None:
        """
        @param seconds: the clock.
        @param ticket: makes a ticket.
        @param last_session: session numbers go on from here.  A relay that
            starts again had better not start at one: its agents may still be
            busy with sessions of its former life.
        @param room_for: how many sessions there are descriptors for.
        """
        self._seconds = seconds
        self._ticket = ticket
        self._by_digest: dict[bytes, Place[V]] = {}
        self._tallies: dict[str, _Tally] = {}
        self._rates: OrderedDict[str, NotifyRate] = OrderedDict()
        self._lines: dict[str, OrderedDict[str, FairQueue[Place[V]]]] = {}
        self._backlog: Backlog[Place[V]] = Backlog()
        self._sessions = last_session
        self._room_for = room_for
        self.arriving = Pool(sys.maxsize)
        self.waiting = 0
        self.served = 0
        self._queued_bytes = 0
        self.use(limits)

    @property
    def queued(self) -> int:
        """How many wait whose agent has not been notified yet."""
        return len(self._backlog)

    def use(self, limits: Limits) -> None:
        """
        These are the limits from now on; rates are counted anew.
        """
        self._limits = limits
        self._most = limits.sessions_per_relay or self._room_for
        # No source may have all the descriptors.
        self._most_of_source = min(
            limits.sessions_per_client, int(self._most * PART_OF_SOURCE) or 1
        )
        self._rates.clear()

    def enter(
        self,
        visit: V,
        server: PublishedServer,
        client: str,
        many: bool = False,
        size: int = 0,
    ) -> Place[V]:
        """
        A client has come for this server (S6).

        @param client: what the client's address counts for.
        @param many: whether that is the address of many clients, as a
            balancer's is.
        @param size: bytes that are held of it.
        @return: its place; if it is queued, L{call} will name it.
        @raise Rejection: a limit is reached, and which.
        """
        name, agent_id = server.connection_id, server.agent.agent_id
        known = self._tallies
        tallies = tuple(
            [
                (key, known.get(key) or _Tally())
                for key in (
                    f"server {name}",
                    f"agent {agent_id}",
                    f"client {client}",
                    f"client {client} of server {name}",
                )
            ]
        )
        place = Place(
            self._sessions + 1,
            visit,
            server,
            client,
            many,
            size,
            self._seconds() + self._limits.waiting,
            tallies,
        )
        full = self._full(place)
        if full:
            raise Rejection(Code.BUSY, full)
        self._sessions += 1
        for key, tally in tallies:
            known[key] = tally
        self.waiting += 1
        lines = self._lines.get(agent_id)
        if (lines is not None and name in lines) or self._held_up(place):
            self._queue(place)
        else:
            self._notify(place)
        return place

    @property
    def descriptors(self) -> int:
        """
        How many those have, or are about to have, who wait or are served: who
        is queued has no data channel to come yet.
        """
        return 2 * (self.waiting + self.served) - self.queued

    def notified(self, agent_id: str) -> int:
        """
        @return: of how many clients an agent was notified whose data channels
            have not come.
        """
        tally = self._tallies.get(f"agent {agent_id}")
        return 0 if tally is None else tally.notified

    def one_too_many(self, client: str, size: int = 0) -> Place[V] | None:
        """
        Find who pays for another client of this source, which has so many bytes:
        the last one of the source that has the most in the queue, by what it
        takes there.

        @return: who has to leave; C{None} if nobody has, or nobody who has more
            than this one.
        """
        if self._has_room(size):
            return None
        return self._backlog.newest_of_largest(client, _weight(size))

    def _has_room(self, size: int) -> bool:
        limits, backlog = self._limits, self._backlog
        return (
            len(backlog) < limits.queued
            and self._queued_bytes + size <= limits.queued_bytes
            and self.waiting + self.served < self._most
            and not self.arriving.is_full(self.descriptors)
        )

    def _full(self, place: Place[V]) -> str:
        """
        @return: which limit is reached for somebody who comes; nothing if
            none is.
        """
        limits, name = self._limits, place.server.connection_id
        (_, of_server), (_, of_agent), (_, of_source), (_, of_share) = place.tallies
        here = self.waiting + self.served
        if of_server.served >= limits.sessions_per_server:
            reached = f"{of_server.served} sessions of {name} are running"
        elif of_agent.served >= limits.sessions_per_agent:
            reached = f"{of_agent.served} sessions of this agent are running"
        elif of_source.served >= self._most_of_source and not place.many:
            reached = f"{of_source.served} sessions of this client are running"
        elif self.queued >= limits.queued:
            reached = f"{self.queued} clients are queued at this relay"
        elif self._queued_bytes + place.size > limits.queued_bytes:
            reached = f"{self._queued_bytes} bytes of clients are queued at this relay"
        elif here >= self._most or self.arriving.is_full(self.descriptors):
            # Who waits will be served: both have descriptors to get.
            reached = f"{here} sessions run or wait at this relay"
        else:
            most = place.server.sessions_per_client
            if most and of_share.queued + of_share.notified + of_share.served >= most:
                return f"one client has {most} sessions of {name} at most"
            return ""
        return f"{reached}; no more are allowed"

    # The queue

    def _held_up(self, place: Place[V]) -> str:
        """
        @return: why an agent may not be notified of somebody who waits, now;
            nothing if it may.
        """
        limits, name = self._limits, place.server.connection_id
        (_, of_server), (_, of_agent), (_, of_source), (_, of_share) = place.tallies
        server, agent, share = of_server.notified, of_agent.notified, of_share.notified
        if server >= limits.waiting_per_server:
            return f"{server} clients wait for {name}"
        if agent >= limits.waiting_per_agent and server >= _always(limits.waiting_per_agent):
            return f"{agent} clients wait for this agent"
        notified = len(self._by_digest)
        if notified >= limits.waiting_per_relay and server >= _always(limits.waiting_per_relay):
            return f"{notified} clients wait at this relay"
        if share >= limits.waiting_per_client:
            return f"{share} sessions of this client wait"
        if of_server.served + server >= limits.sessions_per_server:
            return f"{of_server.served} sessions of {name} are running"
        if of_agent.served + agent >= limits.sessions_per_agent:
            return f"{of_agent.served} sessions of this agent are running"
        if of_source.served + of_source.notified >= self._most_of_source and not place.many:
            return f"{of_source.served} sessions of this client are running"
        rate = self._rates.get(name)
        if rate is not None and not rate.has(place.client, self._seconds(), server, share):
            return f"too many clients of {name} left before they were served"
        return ""

    def _may_go(self, place: Place[V]) -> bool:
        # One that is too late is about to be told so.
        return self._seconds() < place.expires and not self._held_up(place)

    def _notify(self, place: Place[V]) -> None:
        place.ticket = self._ticket()
        self._by_digest[_digest(place.ticket)] = place
        for _, tally in place.tallies:
            tally.notified += 1

    def _queue(self, place: Place[V]) -> None:
        server = place.server
        lines = self._lines.setdefault(server.agent.agent_id, OrderedDict())
        line = lines.get(server.connection_id)
        if line is None:
            line = lines[server.connection_id] = FairQueue()
        line.add(place.client, place)
        self._backlog.add(place.client, place, _weight(place.size))
        self._queued_bytes += place.size
        for _, tally in place.tallies:
            tally.queued += 1

    def _dequeued(self, place: Place[V]) -> None:
        """
        Somebody is in no line any more.
        """
        name, agent_id = place.server.connection_id, place.server.agent.agent_id
        lines = self._lines[agent_id]
        if not lines[name]:
            del lines[name]
            if not lines:
                del self._lines[agent_id]
        self._backlog.remove(place.client, place)
        self._queued_bytes -= place.size
        for _, tally in place.tallies:
            tally.queued -= 1

    def agents_waited_for(self) -> list[str]:
        """
        @return: the agents with clients that are queued.
        """
        return list(self._lines)

    def call(self, agent_id: str) -> Iterator[Place[V]]:
        """
        Dequeue those whose turn it is: the agent may be notified of them.  Its
        servers take turns, and so do the sources of each.
        """
        idle = 0
        while (lines := self._lines.get(agent_id)) and idle < len(lines):
            name, line = next(iter(lines.items()))
            lines.move_to_end(name)
            place = line.take(self._may_go)
            if place is None:
                idle += 1
                continue
            idle = 0
            self._dequeued(place)
            self._notify(place)
            yield place

    def why_queued(self, place: Place[V]) -> str:
        """
        @return: why somebody who is queued has not been called, for a person.
        """
        return self._held_up(place) or "others were there before"

    # What becomes of them

    def redeem(self, ticket: bytes, plain: bool = False) -> Place[V] | None:
        """
        A data channel presents a ticket (S10).  Each joins at most once.

        @param plain: whether it was presented without TLS, which only servers
            that were registered so allow.  A ticket for another server stays
            valid: who saw it in the clear did not see it here.
        @return: the place that it joins, now among the served; C{None} if the
            ticket is invented, used, cancelled or too late.
        """
        digest = _digest(ticket)
        place = self._by_digest.get(digest)
        if (
            place is None
            or not hmac.compare_digest(place.ticket, ticket)
            or self._seconds() >= place.expires
            or (plain and place.server.data != "plain")
        ):
            return None
        del self._by_digest[digest]
        place.answered = True
        place.waiting = False
        self.waiting -= 1
        self.served += 1
        for _, tally in place.tallies:
            tally.notified -= 1
            tally.served += 1
        return place

    def leave(self, place: Place[V]) -> None:
        """
        A session is over, wherever it stood.  Leaving twice does nothing.

        The rate is for notifications that come to nothing: clients that connect
        and reset would have the agent dial for each of them.
        """
        if not place.session:
            return
        place.session = 0
        del place.visit  # which has its place: that would keep both
        if place.queued:
            lines = self._lines[place.server.agent.agent_id]
            lines[place.server.connection_id].remove(place.client, place)
            self._dequeued(place)
        elif place.waiting:
            del self._by_digest[_digest(place.ticket)]
            for _, tally in place.tallies:
                tally.notified -= 1
            if not place.answered:
                self._charge(place)
        else:
            for _, tally in place.tallies:
                tally.served -= 1
        if place.waiting:
            self.waiting -= 1
        else:
            self.served -= 1
        for key, tally in place.tallies:
            if not (tally.served or tally.notified or tally.queued):
                del self._tallies[key]

    def _charge(self, place: Place[V]) -> None:
        """
        A notification has come to nothing.  That is no wonder where the server
        is published no more.
        """
        name, now, rates = place.server.connection_id, self._seconds(), self._rates
        if name not in place.server.agent.servers:
            return
        if name not in rates:
            rates[name] = NotifyRate(self._limits, now)
        rates.move_to_end(name)
        rates[name].charge(place.client, now)
        forget_full(rates, now)

    def forget(self, server: PublishedServer) -> None:
        """
        A server is published no more: its rate is forgotten.
        """
        self._rates.pop(server.connection_id, None)


def _digest(ticket: bytes) -> bytes:
    """
    What a ticket is looked up by, so that the look-up's time tells nothing
    about the ticket.
    """
    return hashlib.blake2b(ticket, digest_size=16).digest()


def _always(most: int) -> int:
    """
    As many of one server as may be notified though there are enough of all.
    """
    return min(_ALWAYS, most // 4)


def _weight(size: int) -> int:
    """
    What a client takes in the queue, in places of those that have said little.
    """
    return 1 + size // _LITTLE

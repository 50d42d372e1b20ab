"""
The waiting room: sessions whose data channel has not come yet, and tickets.

Admission is decided here too, since what is counted is who waits and who is
served.  Pure state and a clock.
"""

from __future__ import annotations

import hashlib
import hmac
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from relaytunnel.config.limits import Limits
from relaytunnel.errors import Code, Rejection
from relaytunnel.relay.registry import PublishedServer

__all__ = ["Place", "TokenBucket", "WaitingRoom"]

V = TypeVar("V")

_SHARES = 4
"""One client address has one of so many shares of a server's notifications."""
_MOST_SHARES = 1024
"""Client addresses of one server for which that is remembered."""


class TokenBucket:
    """
    So many a second, and a burst.
    """

    __slots__ = ("_burst", "_level", "_rate", "_then")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = self._level = float(burst)
        self._then = now

    def take(self, now: float) -> bool:
        """
        @return: whether one more is within the rate.
        """
        self._level = min(self._burst, self._level + max(0.0, now - self._then) * self._rate)
        self._then = now
        if self._level < 1:
            return False
        self._level -= 1
        return True

    def give_back(self) -> None:
        """
        What was taken does not count after all.
        """
        self._level = min(self._burst, self._level + 1)


class _Rate:
    """
    How often one server's agent may be notified in vain.

    Each client address has a share of it, so that one that comes and goes does
    not keep the others away.
    """

    __slots__ = ("_limits", "_shares", "whole")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self.whole = TokenBucket(limits.notify_rate, limits.notify_burst, now)
        self._shares: OrderedDict[str, TokenBucket] = OrderedDict()

    def share_of(self, client: str, now: float) -> TokenBucket:
        """
        @return: what this client may take; the one that was first made is
            forgotten when there are many.
        """
        share = self._shares.get(client)
        if share is None:
            limits = self._limits
            burst = max(1.0, limits.notify_burst / _SHARES)
            share = self._shares[client] = TokenBucket(limits.notify_rate / _SHARES, burst, now)
            while len(self._shares) > _MOST_SHARES:
                self._shares.popitem(last=False)
        return share

    def give_back(self, client: str) -> None:
        """
        What was taken does not count after all.
        """
        share = self._shares.get(client)
        if share is not None:
            share.give_back()


class _Tally:
    """
    How many sessions of one server, agent or client there are.
    """

    __slots__ = ("served", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        self.served = 0


@dataclass(eq=False, slots=True)
class Place(Generic[V]):
    """
    A session's place, first in the waiting room and then among those served.

    @ivar session: the relay's number for it.
    @ivar ticket: what the data channel has to present.  It is good for this
        session alone, and dies with the stay of the agent that was notified.
    @ivar expires: when the ticket does, by the room's clock.
    @ivar waiting: in the waiting room, or served.
    @ivar accepted: whether the agent has said that it is on its way.
    @ivar tallies: those it counts in, by what they are kept under.
    """

    session: int
    ticket: bytes
    visit: V
    server: PublishedServer
    client: str
    expires: float
    tallies: tuple[tuple[str, _Tally], ...]
    waiting: bool = True
    accepted: bool = False


class WaitingRoom(Generic[V]):
    """
    Who waits for a data channel and who is served, counted and bounded.

    @ivar waiting: how many wait.
    @ivar served: how many are spliced.
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
        self._limits = limits
        self._seconds = seconds
        self._ticket = ticket
        self._by_digest: dict[bytes, Place[V]] = {}
        self._tallies: dict[str, _Tally] = {}
        self._rates: dict[str, _Rate] = {}
        self._sessions = last_session
        self._room_for = room_for
        self.waiting = 0
        self.served = 0

    def use(self, limits: Limits) -> None:
        """
        These are the limits from now on; rates are counted anew.
        """
        self._limits = limits
        self._rates.clear()

    def enter(self, visit: V, server: PublishedServer, client: str) -> Place[V]:
        """
        A client has come for this server (S6).

        @param client: what the client's address counts for.
        @raise Rejection: a limit is reached, and which.
        """
        limits = self._limits
        now = self._seconds()
        tallies = tuple(
            (key, self._tallies.get(key) or _Tally())
            for key in (
                f"server {server.connection_id}",
                f"agent {server.agent.agent_id}",
                f"client {client}",
            )
        )
        (_, of_server), (_, of_agent), (_, of_client) = tallies
        if server.sessions_per_client:
            tallies += (self._within_share(server, client),)
        if (
            self.waiting >= limits.waiting_per_relay
            or of_server.waiting >= limits.waiting_per_server
            or of_agent.waiting >= limits.waiting_per_agent
            or of_client.waiting >= limits.waiting_per_client
            or of_server.served >= limits.sessions_per_server
            or of_agent.served >= limits.sessions_per_agent
            or of_client.served >= limits.sessions_per_client
            # Who waits will be served: both have descriptors to get.
            or self.waiting + self.served >= (limits.sessions_per_relay or self._room_for)
        ):
            raise Rejection(Code.BUSY, self._full(server, of_server, of_agent, of_client))
        self._take_notification(server.connection_id, client, now)
        self._sessions += 1
        place = Place(
            self._sessions,
            self._ticket(),
            visit,
            server,
            client,
            now + limits.waiting,
            tallies,
        )
        self._by_digest[_digest(place.ticket)] = place
        self.waiting += 1
        for key, tally in tallies:
            tally.waiting += 1
            self._tallies[key] = tally
        return place

    def crowded(self, server: PublishedServer, client: str) -> bool:
        """
        Whether one more would be too many in the waiting room just now.
        """
        limits = self._limits
        none = _Tally()
        return self.waiting >= limits.waiting_per_relay or any(
            self._tallies.get(key, none).waiting >= most
            for key, most in (
                (f"server {server.connection_id}", limits.waiting_per_server),
                (f"agent {server.agent.agent_id}", limits.waiting_per_agent),
                (f"client {client}", limits.waiting_per_client),
            )
        )

    def _within_share(self, server: PublishedServer, client: str) -> tuple[str, _Tally]:
        """
        @return: how many sessions of this server this client has, and what
            that is kept under.
        @raise Rejection: as many as the server's owner allows.
        """
        key = f"client {client} of server {server.connection_id}"
        tally = self._tallies.get(key) or _Tally()
        if tally.waiting + tally.served >= server.sessions_per_client:
            raise Rejection(
                Code.BUSY,
                f"one client has {server.sessions_per_client} sessions of"
                f" {server.connection_id} at most",
            )
        return key, tally

    def _take_notification(self, name: str, client: str, now: float) -> None:
        """
        Count a notification of a server's agent.

        @raise Rejection: too many have come to nothing.
        """
        rate = self._rates.get(name)
        if rate is None:
            rate = self._rates[name] = _Rate(self._limits, now)
        if not rate.share_of(client, now).take(now):
            raise Rejection(
                Code.BUSY, f"too many clients from {client} left before they were served"
            )
        if not rate.whole.take(now):
            rate.give_back(client)
            raise Rejection(Code.BUSY, f"too many clients of {name} left before they were served")

    def _full(
        self, server: PublishedServer, of_server: _Tally, of_agent: _Tally, of_client: _Tally
    ) -> str:
        """
        @return: which limit is reached, for a person.
        """
        limits, name = self._limits, server.connection_id
        for most, have, what in (
            (limits.waiting_per_relay, self.waiting, "clients wait at this relay"),
            (limits.waiting_per_server, of_server.waiting, f"clients wait for {name}"),
            (limits.waiting_per_agent, of_agent.waiting, "clients wait for this agent"),
            (limits.waiting_per_client, of_client.waiting, "sessions of this client wait"),
            (limits.sessions_per_server, of_server.served, f"sessions of {name} are running"),
            (limits.sessions_per_agent, of_agent.served, "sessions of this agent are running"),
            (limits.sessions_per_client, of_client.served, "sessions of this client are running"),
            (
                limits.sessions_per_relay or self._room_for,
                self.waiting + self.served,
                "sessions run or wait at this relay",
            ),
        ):
            if have >= most:
                return f"{have} {what}; no more are allowed"
        raise AssertionError("no limit is reached")

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
        self.answered(place)
        place.waiting = False
        self.waiting -= 1
        self.served += 1
        for _, tally in place.tallies:
            tally.waiting -= 1
            tally.served += 1
        return place

    def answered(self, place: Place[V]) -> None:
        """
        The agent has served the client or told why it cannot.  The rate is for
        notifications that come to nothing: clients that connect and reset
        would have the agent dial for each of them.
        """
        rate = self._rates.get(place.server.connection_id)
        if rate is not None:
            rate.whole.give_back()
            rate.give_back(place.client)

    def leave(self, place: Place[V]) -> None:
        """
        A session is over, wherever it stood.  Leaving twice does nothing.
        """
        if not place.session:
            return
        place.session = 0
        del place.visit  # which has its place: that would keep both
        if place.waiting:
            self._by_digest.pop(_digest(place.ticket), None)
            self.waiting -= 1
        else:
            self.served -= 1
        for key, tally in place.tallies:
            if place.waiting:
                tally.waiting -= 1
            else:
                tally.served -= 1
            if not (tally.waiting or tally.served):
                del self._tallies[key]

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

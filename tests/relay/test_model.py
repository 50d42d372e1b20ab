"""
The relay's core under anything that may happen to it, in any order, beside a
model of it that is too simple to be wrong.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.accounts.model import Rights
from relaytunnel.config.hosts import RelayNames
from relaytunnel.config.limits import Limits
from relaytunnel.config.names import PortRange, Reach
from relaytunnel.errors import Code, Rejection
from relaytunnel.relay.publishing import Publisher
from relaytunnel.relay.registry import Agent, PublishedServer, Registry
from relaytunnel.relay.waiting import Place, WaitingRoom
from relaytunnel.wire.messages import TICKET_BYTES, Register
from tests.relay.test_publishing import FakeOpener, addresses
from tests.relay.test_registry import EVERYTHING, an_agent

PORTS = PortRange(20000, 20003)
FOREIGN_PORT = 20001
LIMITS = Limits(
    waiting_per_relay=4,
    waiting_per_server=2,
    waiting_per_agent=3,
    waiting_per_client=2,
    queued=4,
    sessions_per_server=2,
    sessions_per_agent=3,
    sessions_per_client=2,
    servers_per_agent=2,
    notify_rate=1_000_000,
    notify_burst=1_000_000,
)
RIGHTS = {
    "office": replace(EVERYTHING, hosts=("*", "www.example")),
    "home": replace(EVERYTHING, hosts=("*", "*.example")),
    "guest": Rights(("web.office", "db"), ((20000, 20001),), ("www.example",)),
}
NAMES = RelayNames(["relay.example"])
SERVERS = ("web", "db", "web.office")
HOSTS = (
    "web",
    "db",
    "web.relay.example",
    "db.localhost",
    "web.office.relay.example",
    "web.office.localhost",
    "any.relay.example",
    "relay.example",
    "www.example",
    "any.example",
    "web.example",
)

agent_ids = st.sampled_from(sorted(RIGHTS))
connection_ids = st.sampled_from(SERVERS)
choices = st.integers(0, 5)
clients = st.sampled_from(["198.51.100.1", "198.51.100.2", "2001:db8::7"])
own_ports = st.sampled_from(["port:0", "port:0", "port:20000", "port:20002"])
hosts = st.sampled_from(
    [
        "host:www.example",
        "host:*.example",
        "host:web.relay.example",
        "host:web.office.localhost",
        "host:db",
        "host:web",
        "host:relay.example",
    ]
)
ways = st.just("name") | hosts | own_ports
hopeless = st.sampled_from([f"port:{FOREIGN_PORT}", "port:20009"])
reaches = st.one_of(
    st.lists(ways, max_size=2), st.lists(ways, max_size=4), st.lists(ways | hopeless, max_size=4)
)


def id_in(host: str) -> str:
    """
    @return: the ID that a host name may stand for.
    """
    return host.removesuffix(".relay.example").removesuffix(".localhost")


def allowed(agent: Agent, connection_id: str, claim: str) -> bool:
    """
    Whether a server may claim this, by the accounts that there are.
    """
    if "*" not in claim and id_in(claim) == connection_id:
        return True
    if claim.endswith(("relay.example", ".localhost")):
        return False
    if agent.rights.may_claim(claim, expressly=True):
        return True
    names = [claim.replace("*", label) for label in ("www", "any")]
    others = [rights for name, rights in RIGHTS.items() if name != agent.agent_id]
    return agent.rights.may_claim(claim) and not any(
        rights.may_claim(name, expressly=True) or rights.may_publish(name, expressly=True)
        for rights in others
        for name in names
    )


def names(server: PublishedServer) -> set[tuple[str, str]]:
    """
    @return: by which names clients may ask for a server, each with its kind.
    """
    return {
        (way.kind, way.value or server.connection_id) for way in server.reach if way.kind != "port"
    }


class RelayModel(RuleBasedStateMachine):
    """
    @ivar present: the agents that are here.
    @ivar published: what they publish.
    @ivar away: the names of servers whose agent went away.
    @ivar standing: each place that was ever given: queued, waiting, served or gone.
    @ivar joins: how often each ticket has joined.
    """

    places: Bundle[Place[object]] = Bundle("places")

    @initialize()
    def start(self) -> None:
        """
        A relay starts.
        """
        self.clock = Clock()
        self.registry = Registry(NAMES)
        self.opener = FakeOpener()
        self.opener.foreign = {FOREIGN_PORT}
        self.publisher = Publisher(self.registry, LIMITS, PORTS, self.opener, addresses)
        self.publisher.reservations.load(
            (name, rights.publish, rights.hosts) for name, rights in RIGHTS.items()
        )
        numbers = count(1)
        self.room: WaitingRoom[object] = WaitingRoom(
            LIMITS, self.clock.seconds, lambda: next(numbers).to_bytes(TICKET_BYTES, "big")
        )
        self.present: dict[str, Agent] = {}
        self.published: dict[str, PublishedServer] = {}
        self.away: set[tuple[str, str]] = set()
        self.standing: dict[Place[object], str] = {}
        self.numbers: list[int] = []
        self.joins: Counter[bytes] = Counter()
        for number, agent_id in enumerate(RIGHTS):
            self.come([(agent_id, 1)], "192.0.2.1")
            self.publish(number, SERVERS[number], ["name", "port:0"][: number + 1], "tls")

    # What happens

    @rule(
        agents=st.lists(st.tuples(agent_ids, st.integers(1, 3)), min_size=1, max_size=4),
        host=clients,
    )
    def come(self, agents: list[tuple[str, int]], host: str) -> None:
        """
        Agents come, perhaps in the place of their ghosts (S1, S2).
        """
        for agent_id, epoch in agents:
            self._come(agent_id, epoch, host)

    def _come(self, agent_id: str, epoch: int, host: str) -> None:
        agent = an_agent(agent_id, epoch, RIGHTS[agent_id], f"{host}:4000")
        before = self.present.get(agent_id)
        try:
            ghost = self.registry.challenge(agent)
        except Rejection as rejection:
            assert rejection.code is Code.STALE_EPOCH
            assert before is not None and before.epoch > epoch
            return
        assert ghost is before
        if ghost is not None:
            assert ghost.epoch <= epoch
            self._part(ghost)
        self.registry.enter(agent)
        self.present[agent_id] = agent

    @rule(agent_id=agent_ids)
    def go(self, agent_id: str) -> None:
        """
        An agent's control channel is lost.
        """
        if agent_id in self.present:
            self._part(self.present[agent_id])

    def _part(self, agent: Agent) -> None:
        gone = self.registry.leave(agent)
        assert set(gone) == {s for s in self.published.values() if s.agent is agent}
        for server in gone:
            self._take_back(server)
            self.away |= names(server)
        del self.present[agent.agent_id]
        for place, state in list(self.standing.items()):
            if place.server.agent is agent and state in ("queued", "waiting"):
                self.leave(place)

    def _take_back(self, server: PublishedServer) -> None:
        self.publisher.take_back(server)
        self.room.forget(server)
        del self.published[server.connection_id]

    @rule(
        choice=choices,
        connection_id=connection_ids,
        reach=reaches,
        data=st.sampled_from(["tls", "plain"]),
    )
    def publish(self, choice: int, connection_id: str, reach: list[str], data: str) -> None:
        """
        An agent publishes a server, or publishes it anew (S3, S4).
        """
        if not self.present:
            return
        agent = list(self.present.values())[choice % len(self.present)]
        reasons = set(self._reasons(agent, connection_id, reach))
        held = self.published.get(connection_id)
        ports = [f"port:{port}" for port in held.ports] if held is not None else []
        message = Register(connection_id=connection_id, reach=tuple(reach), data=data)
        try:
            server = self.publisher.publish(agent, message)
        except Rejection as rejection:
            assert rejection.code in reasons, rejection
            return
        assert not reasons, reasons
        wanted = {way for way in reach or ["name"] if way != "port:0"}
        found = {str(way) for way in server.reach}
        assert wanted <= found
        assert len(found) == len(server.reach) == len(wanted) + reach.count("port:0")
        assert all(way.startswith("port:") for way in found - wanted)
        kept = [port for port in ports if port not in wanted][: reach.count("port:0")]
        assert found.issuperset(kept)
        self.published[connection_id] = server
        self.away -= names(server)

    def _reasons(self, agent: Agent, connection_id: str, reach: list[str]) -> Iterator[Code]:
        """
        Yield why this server cannot be published.
        """
        held = self.published.get(connection_id)
        if held is not None and held.agent is not agent:
            yield Code.CONFLICT
            held = None
        if not agent.rights.may_publish(connection_id):
            yield Code.NOT_ALLOWED
        if held is None and self._owned_by(agent) >= LIMITS.servers_per_agent:
            yield Code.LIMIT
        taken = {
            str(way) for server in self.published.values() if server is not held
            for way in server.reach if way.kind != "name"
        }  # fmt: skip
        others = [server for server in self.published.values() if server.agent is not agent]
        for way in reach:
            claim = way.removeprefix("host:")
            if claim != way and not allowed(agent, connection_id, claim):
                yield Code.NOT_ALLOWED
            if any(other.by_id and other.connection_id == claim for other in others):
                yield Code.CONFLICT
            if way in taken:
                yield Code.PORT_TAKEN if way.startswith("port:") else Code.CONFLICT
            if way.startswith("port:") and way != "port:0":
                port = Reach.parse(way).port
                if port not in PORTS or not agent.rights.may_use_port(port):
                    yield Code.NOT_ALLOWED
                if port == FOREIGN_PORT:
                    yield Code.PORT_TAKEN
        claims = {str(way) for other in others for way in other.reach}
        if "name" in (reach or ["name"]) and f"host:{connection_id}" in claims:
            yield Code.CONFLICT
        free = [
            port
            for port in range(PORTS.first, PORTS.last + 1)
            if agent.rights.may_use_port(port)
            and port != FOREIGN_PORT
            and f"port:{port}" not in taken
            and f"port:{port}" not in reach
        ]
        if reach.count("port:0") > len(free):
            yield Code.PORT_TAKEN

    def _owned_by(self, agent: Agent) -> int:
        return sum(server.agent is agent for server in self.published.values())

    @rule(connection_id=connection_ids)
    def withdraw(self, connection_id: str) -> None:
        """
        An agent publishes a server no more.
        """
        server = self.published.get(connection_id)
        if server is not None:
            self.registry.forget(server)
            self._take_back(server)
            self.away -= names(server)

    @rule(target=places, visits=st.lists(st.tuples(choices, clients), min_size=1, max_size=4))
    def enter(self, visits: list[tuple[int, str]]) -> Any:
        """
        Clients come for servers (S6).
        """
        return multiple(*(place for visit in visits for place in self._enter(*visit)))

    @rule(target=places, visits=st.lists(st.tuples(choices, clients), min_size=1, max_size=4))
    def visit(self, visits: list[tuple[int, str]]) -> Any:
        """
        Clients come and are served at once (S6 to S11).
        """
        places = [place for visit in visits for place in self._enter(*visit)]
        for place in places:
            self.redeem(place, False)
        return multiple(*places)

    def _enter(self, choice: int, client: str) -> list[Place[object]]:
        if not self.published:
            return []
        server = self.published[sorted(self.published)[choice % len(self.published)]]
        visit = object()
        full = self._full(server, client)
        try:
            place = self.room.enter(visit, server, client)
        except Rejection as rejection:
            assert rejection.code is Code.BUSY
            assert full
            return []
        assert not full
        assert place.visit is visit and place.server is server
        assert place.queued is (self._is_held_up(place) or self._is_behind_others(place))
        self.standing[place] = "queued" if place.queued else "waiting"
        self.numbers.append(place.session)
        return [place]

    def _counts(self, server: PublishedServer, client: str) -> Counter[tuple[str, str]]:
        here = Counter[tuple[str, str]]()
        for place, state in self.standing.items():
            of_server = place.server.connection_id == server.connection_id
            here[state, "relay"] += 1
            here[state, "server"] += of_server
            here[state, "agent"] += place.server.agent.agent_id == server.agent.agent_id
            here[state, "client"] += place.client == client
            here[state, "share"] += of_server and place.client == client
        return here

    def _full(self, server: PublishedServer, client: str) -> bool:
        here = self._counts(server, client)
        return (
            here["queued", "relay"] >= LIMITS.queued
            or here["served", "server"] >= LIMITS.sessions_per_server
            or here["served", "agent"] >= LIMITS.sessions_per_agent
            or here["served", "client"] >= LIMITS.sessions_per_client
        )

    def _is_held_up(self, place: Place[object]) -> bool:
        here = self._counts(place.server, place.client)

        def both(of: str) -> int:
            return here["waiting", of] + here["served", of]

        return (
            here["waiting", "relay"] >= LIMITS.waiting_per_relay
            or here["waiting", "server"] >= LIMITS.waiting_per_server
            or here["waiting", "agent"] >= LIMITS.waiting_per_agent
            or here["waiting", "share"] >= LIMITS.waiting_per_client
            or both("server") >= LIMITS.sessions_per_server
            or both("agent") >= LIMITS.sessions_per_agent
            or both("client") >= LIMITS.sessions_per_client
        )

    def _is_behind_others(self, place: Place[object]) -> bool:
        return any(
            state == "queued"
            and other.server.connection_id == place.server.connection_id
            and other.server.agent.agent_id == place.server.agent.agent_id
            for other, state in self.standing.items()
        )

    @rule(agent_id=agent_ids)
    def call(self, agent_id: str) -> None:
        """
        An agent is notified of those whose turn it is; then nobody is queued
        who could go.
        """
        for place in self.room.call(agent_id):
            assert self.standing[place] == "queued"
            assert not self._is_held_up(place)
            self.standing[place] = "waiting"
        for place, state in self.standing.items():
            if state == "queued" and place.server.agent.agent_id == agent_id:
                # Whose deadline has passed is told so, and not called any more.
                late = place.expires <= self.clock.seconds()
                assert late or self._is_held_up(place)

    @rule(place=places, bit=st.integers(0, 7))
    def invent(self, place: Place[object], bit: int) -> None:
        """
        A data channel presents a ticket that was never made.
        """
        wrong = place.ticket or b"\0"
        ticket = bytes((wrong[0] ^ 1 << bit,)) + wrong[1:]
        assert self.room.redeem(ticket) is None

    @rule(place=places, plain=st.booleans())
    def redeem(self, place: Place[object], plain: bool) -> None:
        """
        A data channel presents a ticket: in time, too late, or once more (S10).
        """
        good = (
            self.standing[place] == "waiting"
            and self.clock.seconds() < place.expires
            and (place.server.data == "plain" or not plain)
        )
        joined = self.room.redeem(place.ticket, plain)
        assert joined is (place if good else None)
        if joined is not None:
            self.standing[place] = "served"
            self.joins[place.ticket] += 1

    @rule(place=places)
    def leave(self, place: Place[object]) -> None:
        """
        A session is over, or its client went away; perhaps that is said twice.
        """
        self.room.leave(place)
        self.standing[place] = "gone"

    @rule(seconds=st.sampled_from([1.0, 4.0, 9.5]))
    def pass_time(self, seconds: float) -> None:
        """
        Time passes.
        """
        self.clock.advance(seconds)

    @rule()
    def come_too_late(self) -> None:
        """
        So much time passes that every ticket is presented too late.
        """
        self.clock.advance(LIMITS.waiting)
        for place in self.standing:
            self.redeem(place, False)

    # What holds at any time

    @invariant()
    def everybody_is_known(self) -> None:
        """
        Those who are present.
        """
        assert self.registry.agents == self.present

    @invariant()
    def one_owner(self) -> None:
        """
        Each connection ID, host and port has one owner, who is present.
        """
        assert self.registry.servers == self.published
        owned = [
            (way, server)
            for server in self.published.values()
            for way in server.reach
            if way.kind != "name"
        ]
        assert len({way for way, _ in owned}) == len(owned)
        hosts = {way.value: server for way, server in owned if way.kind == "host"}
        ports = {way.port: server for way, server in owned if way.kind == "port"}
        assert self.registry._names["host"] == hosts
        assert self.registry._ports == ports
        assert all(self.registry.by_port(port) is server for port, server in ports.items())
        for agent in self.present.values():
            assert agent.servers == {
                name: server for name, server in self.published.items() if server.agent is agent
            }
        assert all(s.agent in self.present.values() for s in self.published.values())

    @invariant()
    def ports_are_open(self) -> None:
        """
        The ports that are open are those that servers have.
        """
        assert self.opener.ports == set(self.registry._ports)

    @invariant()
    def names_lead(self) -> None:
        """
        A host name leads to its server, or it is said why not.
        """
        hosts = {
            way.value: server
            for server in self.published.values()
            for way in server.reach
            if way.kind == "host"
        }
        by_id = {name: s for name, s in self.published.items() if Reach("name") in s.reach}
        for host in HOSTS:
            wildcard = "*." + host.partition(".")[2]
            named = id_in(host)
            expected = [hosts[host]] if host in hosts else []
            expected += [by_id[named]] if named in by_id else []
            if named == host != "relay.example" and wildcard in hosts:
                expected.append(hosts[wildcard])
            assert self.registry.by_name("host", host) is (expected[0] if expected else None)
            away = self.away.intersection([("host", host), ("host", wildcard), ("name", named)])
            code = Code.AGENT_AWAY if away else Code.NO_SUCH_SERVER
            assert self.registry.missing("host", host).code is code

    @invariant()
    def counts_are_right(self) -> None:
        """
        The room's numbers are those of the places that were given.
        """
        state = Counter(self.standing.values())
        assert self.room.waiting == state["queued"] + state["waiting"]
        assert (self.room.queued, self.room.served) == (state["queued"], state["served"])
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for place, standing in self.standing.items():
            if standing != "gone":
                assert place.waiting is (standing != "served")
                assert place.queued is (standing == "queued")
                name, client = place.server.connection_id, f"client {place.client}"
                counts[f"server {name}"][standing] += 1
                counts[f"agent {place.server.agent.agent_id}"][standing] += 1
                counts[client][standing] += 1
                counts[f"{client} of server {name}"][standing] += 1
        assert {
            key: (tally.queued, tally.notified, tally.served)
            for key, tally in self.room._tallies.items()
        } == {
            key: (count["queued"], count["waiting"], count["served"])
            for key, count in counts.items()
        }
        waiting = {place for place, standing in self.standing.items() if standing == "waiting"}
        assert set(self.room._by_digest.values()) == waiting

    @invariant()
    def joined_once(self) -> None:
        """
        No ticket joins twice, and no two sessions have the same number.
        """
        assert all(times == 1 for times in self.joins.values())
        assert len(set(self.numbers)) == len(self.numbers)

    @invariant()
    def rates_of_the_published(self) -> None:
        """
        A rate is kept for what is published, and for nothing else.
        """
        assert set(self.room._rates) <= set(self.published)

    def teardown(self) -> None:
        """
        When everybody is gone nothing is kept of anybody.
        """
        for agent in list(self.present.values()):
            self._part(agent)
        for place in self.standing:
            self.leave(place)
        self.everybody_is_known()
        self.one_owner()
        self.names_lead()
        self.counts_are_right()
        assert not (self.registry.agents or self.registry.servers)
        assert not (self.registry._names["host"] or self.registry._ports or self.opener.ports)
        assert not (self.room._tallies or self.room._by_digest or self.room._rates)
        assert self.room.waiting == self.room.served == 0
        assert self.clock.getDelayedCalls() == []


class ModelTests(SynchronousTestCase):
    """
    Registry, publishing and waiting room together.
    """

    def test_any_history(self) -> None:
        """
        Whatever happens, in whatever order, the relay agrees with its model.
        """
        run_state_machine_as_test(
            RelayModel,
            settings=settings(deadline=None, max_examples=60, stateful_step_count=40),
        )

"""
Tests of who is present, what they publish, and how it is found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.accounts.model import Rights
from relaytunnel.config.hosts import RelayNames
from relaytunnel.config.names import PortRange, Reach
from relaytunnel.errors import Code, Rejection
from relaytunnel.relay.awaymemory import AwayMemory
from relaytunnel.relay.registry import Agent, PublishedServer, Registry

EVERYTHING = Rights(("*",), ((1, 65535),), ("*",))
NAMES = RelayNames(["relay.example", "apps.example.org"])

_labels = st.sampled_from(["a", "b", "web"])
_hosts = st.lists(_labels, min_size=1, max_size=4).map(".".join)


def an_agent(
    agent_id: str = "office",
    epoch: int = 1,
    rights: Rights = EVERYTHING,
    peer: str = "192.0.2.1:4000",
) -> Agent:
    """
    Make an agent to whom nothing can be said.
    """
    return Agent(
        agent_id,
        epoch,
        rights,
        lambda message: None,
        lambda code, reason: None,
        lambda rights: None,
        peer=peer,
    )


def a_server(agent: Agent, connection_id: str, *reach: str) -> PublishedServer:
    """
    Make a server of this agent, with these ways to it.
    """
    return PublishedServer(
        connection_id, agent, tuple(Reach.parse(way) for way in reach or ("name",))
    )


def code_of(function: Callable[..., Any], *args: Any) -> Code:
    """
    @return: the code with which this is rejected.
    @raise AssertionError: it is not.
    """
    try:
        function(*args)
    except Rejection as rejection:
        return rejection.code
    raise AssertionError("nothing was rejected")


class AgentTests(SynchronousTestCase):
    """
    Agents come and go (S1, S2).
    """

    def setUp(self) -> None:
        self.registry = Registry(NAMES)

    def present(self, agent: Agent) -> Agent:
        self.registry.enter(agent)
        return agent

    def test_first(self) -> None:
        """
        An agent that is not present has no ghost.
        """
        self.assertIsNone(self.registry.challenge(an_agent()))

    def test_enter(self) -> None:
        """
        An agent that has come is found by its ID.
        """
        agent = self.present(an_agent())
        self.assertEqual(self.registry.agents, {"office": agent})

    def test_ghost(self) -> None:
        """
        An agent that started again finds its ghost, which has to leave.
        """
        ghost = self.present(an_agent(epoch=1))
        self.assertIs(self.registry.challenge(an_agent(epoch=2)), ghost)

    def test_same_start(self) -> None:
        """
        So does one that dialled again without having been started again.
        """
        ghost = self.present(an_agent(epoch=1))
        self.assertIs(self.registry.challenge(an_agent(epoch=1)), ghost)

    def test_stale(self) -> None:
        """
        An agent that started before the one that is present is rejected.
        """
        self.present(an_agent(epoch=2))
        self.assertIs(code_of(self.registry.challenge, an_agent(epoch=1)), Code.STALE_EPOCH)

    def test_challenge_changes_nothing(self) -> None:
        """
        The challenge alone puts nobody in and nobody out.
        """
        ghost = self.present(an_agent(epoch=1))
        self.registry.challenge(an_agent(epoch=2))
        self.assertEqual(self.registry.agents, {"office": ghost})

    def test_leave(self) -> None:
        """
        Of an agent that is gone nothing is left.
        """
        agent = self.present(an_agent())
        self.assertEqual(self.registry.leave(agent), [])
        self.assertEqual(self.registry.agents, {})

    def test_leave_with_servers(self) -> None:
        """
        What an agent published goes with it, and is told.
        """
        agent = self.present(an_agent())
        servers = [a_server(agent, "web", "host:web.example"), a_server(agent, "db", "port:5432")]
        for server in servers:
            self.registry.add(server)
        self.assertEqual(self.registry.leave(agent), servers)
        self.assertEqual((self.registry.servers, agent.servers), ({}, {}))
        self.assertIsNone(self.registry.by_name("host", "web.example"))
        self.assertIsNone(self.registry.by_port(5432))

    def test_leave_twice(self) -> None:
        """
        Leaving twice does nothing.
        """
        agent = self.present(an_agent())
        self.registry.leave(agent)
        self.assertEqual(self.registry.leave(agent), [])

    def test_others_stay(self) -> None:
        """
        Other agents stay, with what they publish.
        """
        agent, other = self.present(an_agent()), self.present(an_agent("home"))
        server = a_server(other, "web")
        self.registry.add(server)
        self.registry.leave(agent)
        self.assertEqual(self.registry.agents, {"home": other})
        self.assertEqual(self.registry.servers, {"web": server})

    def test_late_ghost(self) -> None:
        """
        A ghost that leaves once more does not take its successor along.
        """
        ghost = self.present(an_agent(epoch=1))
        self.registry.leave(ghost)
        agent = self.present(an_agent(epoch=2))
        self.registry.add(a_server(agent, "web"))
        self.registry.leave(ghost)
        self.assertEqual(self.registry.agents, {"office": agent})
        self.assertIn("web", self.registry.servers)


class ServerTests(SynchronousTestCase):
    """
    Servers are published and withdrawn (S3, S4).
    """

    def setUp(self) -> None:
        self.registry = Registry(NAMES)
        self.agent, self.other = an_agent(), an_agent("home")
        self.registry.enter(self.agent)
        self.registry.enter(self.other)

    def add(self, connection_id: str, *reach: str) -> PublishedServer:
        server = a_server(self.agent, connection_id, *reach)
        self.registry.add(server)
        return server

    def test_add(self) -> None:
        """
        A server that is published is found by its ID, its host and its port,
        and its agent has it.
        """
        server = self.add("web", "host:www.example", "port:20001")
        self.assertEqual(self.registry.servers, {"web": server})
        self.assertEqual(self.agent.servers, {"web": server})
        self.assertIs(self.registry.by_name("host", "www.example"), server)
        self.assertIs(self.registry.by_port(20001), server)

    def test_ports(self) -> None:
        """
        A server knows the ports of its own.
        """
        self.assertEqual(self.add("web", "name", "port:20001", "port:20003").ports, [20001, 20003])

    def test_conflict(self) -> None:
        """
        A connection ID that another agent has is not to be had.
        """
        server = self.add("web")
        rival = a_server(self.other, "web", "host:rival.example")
        self.assertIs(code_of(self.registry.add, rival), Code.CONFLICT)
        self.assertEqual(self.registry.servers, {"web": server})
        self.assertEqual(self.other.servers, {})
        self.assertIsNone(self.registry.by_name("host", "rival.example"))

    def test_host_conflict(self) -> None:
        """
        Nor is a host name that another server has, be it the same agent's.
        """
        self.add("web", "host:www.example")
        for agent in (self.agent, self.other):
            rival = a_server(agent, "rival", "host:www.example")
            self.assertIs(code_of(self.registry.add, rival), Code.CONFLICT)

    def test_id_of_another(self) -> None:
        """
        No claim shadows the ID of another agent's server, nor is there an ID
        that another's claim would shadow; an agent's own servers may.
        """
        self.add("web.example", "name")
        for way in ("host:web.example", "sni:web.example"):
            rival = a_server(self.other, "rival", way)
            self.assertIs(code_of(self.registry.add, rival), Code.CONFLICT)
        self.add("mine", "host:web.example")
        self.registry.add(a_server(self.other, "theirs", "sni:shop.example"))
        self.assertIs(
            code_of(self.registry.add, a_server(self.agent, "shop.example")), Code.CONFLICT
        )
        self.add("shop.example", "port:20001")

    def test_number_is_no_id(self) -> None:
        """
        A port is not the server whose ID is the same number.
        """
        self.add("20001", "name")
        self.registry.add(a_server(self.other, "ssh", "port:20001"))

    def test_port_taken(self) -> None:
        """
        Nor is a port.
        """
        self.add("web", "port:20001")
        rival = a_server(self.other, "rival", "port:20001")
        self.assertIs(code_of(self.registry.add, rival), Code.PORT_TAKEN)

    def test_all_or_nothing(self) -> None:
        """
        Of a server with one name that is taken, no name is published.
        """
        self.add("web", "host:www.example")
        rival = a_server(self.other, "rival", "name", "host:new.example", "host:www.example")
        self.assertIs(code_of(self.registry.add, rival), Code.CONFLICT)
        self.assertIsNone(self.registry.by_name("host", "new.example"))
        self.assertIsNone(self.registry.by_name("host", "rival"))

    def test_replaced(self) -> None:
        """
        An agent may publish its own server anew, by names that it has and by
        others; what it does not repeat is gone.
        """
        self.add("web", "host:a.example", "host:b.example", "port:20001")
        server = self.add("web", "host:b.example", "host:c.example", "port:20002")
        self.assertEqual(self.registry.servers, {"web": server})
        self.assertIsNone(self.registry.by_name("host", "a.example"))
        self.assertIs(self.registry.by_name("host", "b.example"), server)
        self.assertIs(self.registry.by_name("host", "c.example"), server)
        self.assertIsNone(self.registry.by_port(20001))
        self.assertIs(self.registry.by_port(20002), server)

    def test_replacing_fails(self) -> None:
        """
        If it cannot be published anew, it stays as it was.
        """
        self.registry.add(a_server(self.other, "rival", "host:b.example"))
        server = self.add("web", "host:a.example")
        anew = a_server(self.agent, "web", "host:b.example")
        self.assertIs(code_of(self.registry.add, anew), Code.CONFLICT)
        self.assertIs(self.registry.by_name("host", "a.example"), server)
        self.assertEqual(self.agent.servers, {"web": server})

    def test_remove(self) -> None:
        """
        A server that is removed is not found by any name, and its names are
        free.
        """
        server = self.add("web", "name", "host:a.example", "port:20001")
        self.registry.remove(server)
        self.assertEqual((self.registry.servers, self.agent.servers), ({}, {}))
        self.registry.add(a_server(self.other, "web", "name", "host:a.example", "port:20001"))

    def test_remove_replaced(self) -> None:
        """
        Removing one that was replaced does nothing.
        """
        before = self.add("web", "host:a.example")
        server = self.add("web", "host:a.example")
        self.registry.remove(before)
        self.assertIs(self.registry.by_name("host", "a.example"), server)

    def test_free_port(self) -> None:
        """
        Free are the ports of the range that no server has and the rights allow.
        """
        self.add("web", "port:20001")
        rights = Rights(("*",), ((20000, 20002), (20004, 30000)))
        self.assertEqual(
            list(self.registry.free_port(PortRange(20000, 20005), rights)),
            [20000, 20002, 20004, 20005],
        )

    def test_no_free_port(self) -> None:
        """
        Without rights to any port none is free.
        """
        self.assertEqual(list(self.registry.free_port(PortRange(1, 9), Rights(("*",)))), [])


class FindingTests(SynchronousTestCase):
    """
    How an HTTP Host leads to a server (S6).
    """

    def setUp(self) -> None:
        self.registry = Registry(NAMES)
        self.agent = an_agent()
        self.registry.enter(self.agent)

    def add(self, connection_id: str, *reach: str) -> PublishedServer:
        server = a_server(self.agent, connection_id, *reach)
        self.registry.add(server)
        return server

    def test_nobody(self) -> None:
        """
        Where nothing is published nothing is found.
        """
        self.assertIsNone(self.registry.by_name("host", "web.relay.example"))
        self.assertIsNone(self.registry.by_port(20001))

    def test_by_id(self) -> None:
        """
        A server is found by its ID in front of the relay's name, and by its
        ID alone.
        """
        server = self.add("web")
        self.assertIs(self.registry.by_name("host", "web.relay.example"), server)
        self.assertIs(self.registry.by_name("host", "web"), server)

    def test_each_name(self) -> None:
        """
        Each of the relay's names will do, and localhost; no other does.
        """
        server = self.add("web")
        for name in ("web.apps.example.org", "web.localhost"):
            self.assertIs(self.registry.by_name("host", name), server)
        for name in ("web.example", "web.example.net", "web.relay.example.net", "web.org"):
            self.assertIsNone(self.registry.by_name("host", name))

    def test_by_dotted_id(self) -> None:
        """
        All that comes before the relay's name is the ID.
        """
        short, long = self.add("web"), self.add("web.office")
        self.assertIs(self.registry.by_name("host", "web.office.relay.example"), long)
        self.assertIs(self.registry.by_name("host", "web.relay.example"), short)
        self.assertIsNone(self.registry.by_name("host", "web.home.relay.example"))

    def test_id_anywhere(self) -> None:
        """
        Where an ID is looked for in any name, the longest with which the name
        begins is meant; but not below the relay's name.
        """
        self.registry.names = RelayNames(["relay.example"], id_anywhere=True)
        short, long = self.add("web"), self.add("web.office")
        self.assertIs(self.registry.by_name("host", "web.example.net"), short)
        self.assertIs(self.registry.by_name("host", "web.office.example.net"), long)
        self.assertIsNone(self.registry.by_name("host", "web.home.relay.example"))
        self.assertIsNone(self.registry.by_name("host", "relay.example"))

    def test_own_names(self) -> None:
        """
        The relay's own name is no server's, whatever stands there.
        """
        self.add("any", "host:*.example", "host:*.example.org")
        for name in ("relay.example", "apps.example.org", "localhost"):
            self.assertIsNone(self.registry.by_name("host", name))

    def test_whole_labels(self) -> None:
        """
        An ID is whole labels: C{web} is not meant by C{website}, and not by a
        name that has it further behind.
        """
        self.add("web")
        self.assertIsNone(self.registry.by_name("host", "website.relay.example"))
        self.assertIsNone(self.registry.by_name("host", "www.web.example"))

    def test_not_by_id(self) -> None:
        """
        A server that wants to be reached by its port alone is not found by
        its ID.
        """
        self.add("web", "port:20001")
        self.assertIsNone(self.registry.by_name("host", "web.relay.example"))

    def test_host_before_id(self) -> None:
        """
        The server that claimed the whole name comes before the ID.
        """
        self.add("web")
        server = self.add("other", "host:web.relay.example")
        self.assertIs(self.registry.by_name("host", "web.relay.example"), server)

    def test_wildcard(self) -> None:
        """
        A wildcard stands for one label, neither none nor two.
        """
        server = self.add("web", "host:*.example.net")
        self.assertIs(self.registry.by_name("host", "any.example.net"), server)
        self.assertIsNone(self.registry.by_name("host", "example.net"))
        self.assertIsNone(self.registry.by_name("host", "one.more.example.net"))

    def test_host_before_wildcard(self) -> None:
        """
        The whole name comes before a wildcard.
        """
        self.add("any", "host:*.example.net")
        server = self.add("web", "host:web.example.net")
        self.assertIs(self.registry.by_name("host", "web.example.net"), server)

    def test_id_before_wildcard(self) -> None:
        """
        No wildcard stands for a name that is an ID, alone or below the relay's.
        """
        server = self.add("web.example.net")
        self.add("any", "host:*.example.net", "host:*.relay.example")
        self.assertIs(self.registry.by_name("host", "web.example.net"), server)
        self.assertIs(self.registry.by_name("host", "web.example.net.relay.example"), server)
        self.assertIsNone(self.registry.by_name("host", "web.relay.example"))

    def test_odd_hosts(self) -> None:
        """
        A host without a dot, or without anything, finds nothing by a wildcard.
        """
        self.add("web", "host:*.example.net")
        for host in ("", ".", "example", "*"):
            self.assertIsNone(self.registry.by_name("host", host))

    @settings(deadline=None, max_examples=100)
    @given(st.sets(_hosts, max_size=5), _hosts, st.sampled_from(["", *sorted(NAMES.names)]))
    def test_any_id(self, ids: set[str], host: str, below: str) -> None:
        """
        A name leads to the server whose ID it is, or whose ID stands before a
        name of the relay, and to no other.
        """
        registry, agent = Registry(NAMES), an_agent()
        for connection_id in ids:
            registry.add(a_server(agent, connection_id))
        found = registry.by_name("host", f"{host}.{below}" if below else host)
        self.assertEqual(found and found.connection_id, host if host in ids else None)


class MissingTests(SynchronousTestCase):
    """
    Why a name leads nowhere.
    """

    def setUp(self) -> None:
        self.registry = Registry(NAMES)
        self.agent = an_agent()
        self.registry.enter(self.agent)

    def add(self, connection_id: str, *reach: str) -> PublishedServer:
        server = a_server(self.agent, connection_id, *reach)
        self.registry.add(server)
        return server

    def why(self, host: str) -> Code:
        self.assertIsNone(self.registry.by_name("host", host))
        return self.registry.missing("host", host).code

    def test_never_heard(self) -> None:
        """
        There is no such server under a name that nobody ever had.
        """
        self.assertIs(self.why("web.relay.example"), Code.NO_SUCH_SERVER)

    def test_away(self) -> None:
        """
        When the agent went away, clients that use the ID are told so.
        """
        self.add("web")
        self.registry.leave(self.agent)
        self.assertIs(self.why("web.relay.example"), Code.AGENT_AWAY)

    def test_host_away(self) -> None:
        """
        So are clients that use a host name.
        """
        self.add("web", "host:www.example")
        self.registry.leave(self.agent)
        self.assertIs(self.why("www.example"), Code.AGENT_AWAY)

    def test_wildcard_away(self) -> None:
        """
        So are clients whose host name a wildcard stood for.
        """
        self.add("web", "host:*.example.net")
        self.registry.leave(self.agent)
        self.assertIs(self.why("any.example.net"), Code.AGENT_AWAY)
        self.assertIs(self.why("one.more.example.net"), Code.NO_SUCH_SERVER)

    def test_id_was_no_name(self) -> None:
        """
        The ID of a server that was not reached by it is not remembered.
        """
        self.add("web", "port:20001")
        self.registry.leave(self.agent)
        self.assertIs(self.why("web.relay.example"), Code.NO_SUCH_SERVER)

    def test_back(self) -> None:
        """
        When the agent is back it is no more remembered as away.
        """
        self.add("web")
        self.registry.leave(self.agent)
        server = self.add("web")
        self.registry.forget(server)
        self.assertIs(self.why("web.relay.example"), Code.NO_SUCH_SERVER)

    def test_forgotten(self) -> None:
        """
        Of a server that was withdrawn on purpose nobody is away.
        """
        self.registry.forget(self.add("web", "name", "host:www.example"))
        self.assertIs(self.why("web.relay.example"), Code.NO_SUCH_SERVER)
        self.assertIs(self.why("www.example"), Code.NO_SUCH_SERVER)

    def test_given_up(self) -> None:
        """
        Nor of a name that a server does not have any more since it was
        published anew.
        """
        self.add("web", "name", "host:www.example")
        self.add("web", "host:new.example")
        self.assertIs(self.why("www.example"), Code.NO_SUCH_SERVER)
        self.assertIs(self.why("web.relay.example"), Code.NO_SUCH_SERVER)

    def test_bounded(self) -> None:
        """
        Only so many names are remembered, those of the last to go.
        """
        self.registry.away = AwayMemory(lambda: 0.0, most=2)
        for name in ("a", "b", "c"):
            self.registry.remove(self.add(name))
        self.assertEqual(
            [self.why(name) for name in ("a", "b", "c")],
            [Code.NO_SUCH_SERVER, Code.AGENT_AWAY, Code.AGENT_AWAY],
        )

    def test_away_again(self) -> None:
        """
        A name whose agent went away again is among the last to go.
        """
        self.registry.away = AwayMemory(lambda: 0.0, most=2)
        for name in ("a", "b", "a", "c"):
            self.registry.remove(self.add(name))
        self.assertIs(self.why("a"), Code.AGENT_AWAY)
        self.assertIs(self.why("b"), Code.NO_SUCH_SERVER)

"""
Tests of publishing: what an agent asks for, and what it gets.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.accounts.model import Rights
from relaytunnel.config.access import networks
from relaytunnel.config.limits import Limits
from relaytunnel.config.names import PortRange, Reach
from relaytunnel.errors import Code, Rejection
from relaytunnel.relay.publishing import Publisher
from relaytunnel.relay.registry import Agent, PublishedServer, Registry
from relaytunnel.wire.messages import Register, Registered, decode, encode
from tests.relay.test_registry import NAMES, an_agent, code_of

PORTS = PortRange(20000, 20005)
HASH = "sha256:" + "0f" * 32


class FakeOpener:
    """
    Ports that are open, and those that somebody else has.
    """

    def __init__(self) -> None:
        self.ports: set[int] = set()
        self.foreign: set[int] = set()
        self.tried: list[int] = []

    def open(self, port: int) -> None:
        self.tried.append(port)
        if port in self.foreign:
            raise Rejection(Code.PORT_TAKEN, f"somebody else has the port {port}")
        self.ports.add(port)

    def close(self, port: int) -> None:
        self.ports.discard(port)


def addresses(connection_id: str, way: Reach) -> tuple[str, ...]:
    """
    Say how people type a way to a server, in short.
    """
    return (f"{connection_id}/{way}",)


class PublishingCase(SynchronousTestCase):
    """
    Tests with a relay where servers are published.
    """

    def setUp(self) -> None:
        self.registry = Registry(NAMES)
        self.opener = FakeOpener()
        self.publisher = Publisher(self.registry, Limits(), PORTS, self.opener, addresses)
        self.agent, self.other = an_agent(), an_agent("home")
        self.registry.enter(self.agent)
        self.registry.enter(self.other)

    def publish(
        self,
        connection_id: str,
        *reach: str,
        agent: Agent | None = None,
        protocol: str = "tcp",
        data: str = "tls",
        allow: tuple[str, ...] = (),
    ) -> PublishedServer:
        return self.publisher.publish(
            agent or self.agent,
            Register(
                connection_id=connection_id,
                protocol=protocol,
                reach=reach,
                data=data,
                allow=allow,
            ),
        )

    def state(self) -> object:
        """
        @return: all that can be seen from outside.
        """
        registry = self.registry
        return (
            dict(registry.servers),
            {agent_id: dict(agent.servers) for agent_id, agent in registry.agents.items()},
            {kind: dict(names) for kind, names in registry._names.items()},
            dict(registry._ports),
            dict(registry.away._whose),
            set(self.opener.ports),
        )

    def rejected(self, code: Code, connection_id: str, *reach: str, **more: object) -> None:
        """
        Assert that a server is not published, why, and that nothing changes.
        """
        before = self.state()
        self.assertIs(code_of(lambda: self.publish(connection_id, *reach, **more)), code)  # type: ignore[arg-type]
        self.assertEqual(self.state(), before)


class PublishTests(PublishingCase):
    """
    Servers that are published (S4).
    """

    def test_by_id(self) -> None:
        """
        A server that asks for nothing is reached by its ID.
        """
        server = self.publish("web")
        self.assertEqual((server.reach, server.data, server.allow), ((Reach("name"),), "tls", ()))
        self.assertEqual(self.registry.servers, {"web": server})
        self.assertEqual(self.opener.ports, set())

    def test_every_way(self) -> None:
        """
        A server is reached in all the ways that it asks for.
        """
        server = self.publish("web", "name", "host:www.example", "port:20001")
        self.assertIs(self.registry.by_name("host", "web.relay.example"), server)
        self.assertIs(self.registry.by_name("host", "www.example"), server)
        self.assertIs(self.registry.by_port(20001), server)
        self.assertEqual(self.opener.ports, {20001})

    def test_refused_is_bounded(self) -> None:
        """
        Of what an account does not allow a bounded number is kept for when it
        does, and shown.
        """
        self.agent.rights = Rights(("*",))
        for number in range(100):
            reach = [f"host:a{number}.{claim}.example" for claim in range(20)]
            self.rejected(Code.NOT_ALLOWED, f"s{number}", *reach)
        self.assertEqual(len(self.agent.refused), 64)
        self.assertEqual(len(self.agent.refused_claims), 64)
        self.assertEqual(self.agent.refused_claims[0], "a0.0.example")

    def test_one_spelling(self) -> None:
        """
        IDs and hosts are stored in their one spelling, each once.
        """
        server = self.publish("WEB", "host:WWW.Example.", "host:www.example")
        self.assertEqual(server.connection_id, "web")
        self.assertEqual(server.reach, (Reach("host", "www.example"),))

    def test_data(self) -> None:
        """
        A server may have plain data channels.
        """
        self.assertEqual(self.publish("ssh", data="plain").data, "plain")

    def test_allow(self) -> None:
        """
        The networks that may come in are stored.
        """
        server = self.publish("web", allow=("10.0.0.0/8", "2001:db8::/32"))
        self.assertEqual(server.allow, networks(["10.0.0.0/8", "2001:db8::/32"]))

    def test_addresses(self) -> None:
        """
        A server has an address for each way, with the port that it got.
        """
        self.assertEqual(
            self.publish("web", "name", "port:0").addresses, ("web/name", "web/port:20000")
        )

    def test_addresses_fit(self) -> None:
        """
        No more is said of where a server is than a message can hold.
        """
        self.publisher.addresses = lambda name, way: (
            "x" * 257,
            *(f"http://{name}.example:{port}/" for port in range(100)),
        )
        server = self.publish("web", "name", "host:www.example")
        message = Registered(connection_id="web", reach=server.addresses)
        self.assertEqual(decode(encode(message)), message)
        self.assertEqual(len(server.addresses), 64)

    def test_take_back(self) -> None:
        """
        When a server is taken back its ports close, and no others.
        """
        server = self.publish("web", "port:20001", "port:20002")
        self.publish("other", "port:20003")
        self.registry.forget(server)
        self.publisher.take_back(server)
        self.assertEqual(self.opener.ports, {20003})

    def test_agent_gone(self) -> None:
        """
        When an agent is gone its ports can be had by others.
        """
        self.publish("web", "port:20001")
        for server in self.registry.leave(self.agent):
            self.publisher.take_back(server)
        self.assertEqual(self.opener.ports, set())
        self.publish("web", "port:20001", agent=self.other)
        self.assertEqual(self.opener.ports, {20001})


class ForWhomTests(PublishingCase):
    """
    Whom a server is for, as its agent says.
    """

    def publish_for(self, *reach: str, **said: Any) -> PublishedServer:
        """
        Publish C{web}, for those.
        """
        return self.publisher.publish(
            self.agent, Register(connection_id="web", reach=reach, **said)
        )

    def test_defaults(self) -> None:
        """
        A server that says nothing is for everybody who knows it.
        """
        server = self.publish_for()
        self.assertEqual(
            (server.listed, server.users, server.sessions_per_client, server.wants_address),
            (False, {}, 0, False),
        )

    def test_everything(self) -> None:
        """
        What the agent says of it is kept, and goes when it says something else.
        """
        server = self.publish_for(
            listed=True, users=(("alice", HASH),), sessions_per_client=3, wants_address=True
        )
        self.assertEqual(
            (server.listed, server.users, server.sessions_per_client, server.wants_address),
            (True, {"alice": HASH}, 3, True),
        )
        self.assertNotIn(HASH, repr(server))
        again = self.publish_for()
        self.assertEqual(
            (again.listed, again.users, again.sessions_per_client, again.wants_address),
            (False, {}, 0, False),
        )

    def rejected_for(self, *reach: str, **said: Any) -> str:
        """
        Assert that it is not published, and that nothing changes.

        @return: why.
        """
        before = self.state()
        rejection = self.assertRaises(Rejection, self.publish_for, *reach, **said)
        self.assertIs(rejection.code, Code.INVALID)
        self.assertEqual(self.state(), before)
        return str(rejection.reason)

    def test_faulty_users(self) -> None:
        """
        Users that cannot be are turned down, without a word of their hashes.
        """
        for users in (
            (("a:b", HASH),),
            (("", HASH),),
            (("alice", "hunter2"),),
            (("alice", "scrypt:1048576:32:1:" + "00" * 16 + ":" + "00" * 32),),
            (("alice", "scrypt:131072:8:2:" + "00" * 16 + ":" + "00" * 32),),
            tuple((f"user {number}", HASH) for number in range(65)),
        ):
            self.assertNotIn("hunter2", self.rejected_for(users=users))

    def test_no_place_for_a_password(self) -> None:
        """
        Where no password can be given, a server that asks for one is not
        published: its clients would come in without.
        """
        users = (("alice", HASH),)
        for way in ("port:20000", "port:0", "sni:web.example"):
            self.assertEqual(
                self.rejected_for("name", way, users=users),
                f"no password can be given by {way}",
            )
        self.publish_for("name", "host:web.example", users=users)


class RejectionTests(PublishingCase):
    """
    Servers that are not published.
    """

    def test_invalid_id(self) -> None:
        """
        What is no connection ID is invalid.
        """
        for name in ("", "-web", "a..b", "a" * 64, "w\u00e9b", "web/x"):
            self.rejected(Code.INVALID, name)

    def test_invalid_reach(self) -> None:
        """
        So is what is no way to reach a server.
        """
        for way in ("", "host:", "host:a..b", "port:70000", "port:x", "name:web", "path:/web"):
            self.rejected(Code.INVALID, "web", way)

    def test_invalid_network(self) -> None:
        """
        So is what is no network.
        """
        for network in ("10.0.0.1/8", "everybody", ""):
            self.rejected(Code.INVALID, "web", allow=(network,))

    @settings(deadline=None, max_examples=150)
    @given(
        st.text(max_size=20),
        st.one_of(
            st.text(max_size=30),
            st.tuples(st.sampled_from(["host:", "sni:", "port:", "host:xn--"]), st.text()).map(
                "".join
            ),
        ),
        st.text(max_size=20),
    )
    def test_anything(self, connection_id: str, way: str, network: str) -> None:
        """
        Whatever an agent asks for, it is rejected or done.
        """
        for message in (
            Register(connection_id=connection_id),
            Register(connection_id="web", reach=(way,)),
            Register(connection_id="web", allow=(network,)),
        ):
            try:
                self.publisher.publish(self.agent, message)
            except Rejection as rejection:
                self.assertLessEqual(len(rejection.reason), 256)

    def test_protocol(self) -> None:
        """
        A protocol that is not served is not supported.
        """
        self.rejected(Code.UNSUPPORTED, "dns", protocol="udp")

    def test_unknown_data(self) -> None:
        """
        Nor are data channels of an unknown kind.
        """
        self.rejected(Code.UNSUPPORTED, "web", data="")

    def test_sni(self) -> None:
        """
        A TLS name leads to a server, beside other ways.
        """
        server = self.publish("web", "name", "sni:web.example")
        self.assertIs(self.registry.by_name("sni", "web.example"), server)
        self.assertIs(self.registry.by_name("sni", "web.relay.example"), server)
        self.assertIsNone(self.registry.by_name("host", "www.example"))

    def test_not_this_id(self) -> None:
        """
        An ID that the account may not publish is not allowed.
        """
        self.agent.rights = Rights(("*.office",))
        self.rejected(Code.NOT_ALLOWED, "web")
        self.publish("web.office")

    def test_port_outside_the_range(self) -> None:
        """
        A port that is not for servers is not allowed.
        """
        for port in (19999, 20006, 80):
            self.rejected(Code.NOT_ALLOWED, "web", f"port:{port}")

    def test_port_outside_the_rights(self) -> None:
        """
        Nor is one that the account may not use.
        """
        self.agent.rights = Rights(("*",), ((20001, 20002),))
        self.rejected(Code.NOT_ALLOWED, "web", "port:20003")
        self.publish("web", "port:20002")

    def test_limit(self) -> None:
        """
        An agent publishes so many servers and no more; others may.
        """
        self.publisher.limits = Limits(servers_per_agent=2)
        self.publish("a")
        self.publish("b")
        self.rejected(Code.LIMIT, "c")
        self.publish("c", agent=self.other)

    def test_anew_at_the_limit(self) -> None:
        """
        A server that is published already can be published anew at the limit.
        """
        self.publisher.limits = Limits(servers_per_agent=1)
        self.publish("a")
        self.publish("A", "host:a.example")

    def test_conflict(self) -> None:
        """
        An ID that another agent has is in conflict.
        """
        self.publish("web")
        self.rejected(Code.CONFLICT, "web", "port:20001", agent=self.other)

    def test_host_conflict(self) -> None:
        """
        So is a host that another server has, and the ports stay closed.
        """
        self.publish("web", "host:www.example")
        self.rejected(Code.CONFLICT, "rival", "port:20001", "host:www.example")

    def test_port_of_another(self) -> None:
        """
        A port that another server has is taken.
        """
        self.publish("web", "port:20001")
        self.rejected(Code.PORT_TAKEN, "rival", "host:rival.example", "port:20001")

    def test_port_of_somebody_else(self) -> None:
        """
        So is a port that cannot be opened; those that were opened before it
        close, and the names are free.
        """
        self.opener.foreign = {20002}
        self.rejected(Code.PORT_TAKEN, "web", "name", "port:20001", "port:20002")
        self.publish("web", "port:20001", agent=self.other)


class AnyPortTests(PublishingCase):
    """
    Servers that ask for any port.
    """

    def test_first(self) -> None:
        """
        The first port that is free is chosen.
        """
        self.publish("a", "port:20000")
        self.assertEqual(self.publish("b", "port:0").ports, [20001])
        self.assertEqual(self.opener.ports, {20000, 20001})

    def test_rights(self) -> None:
        """
        It is one that the account may use.
        """
        self.agent.rights = Rights(("*",), ((20004, 20004),))
        self.assertEqual(self.publish("web", "port:0").ports, [20004])

    def test_no_rights(self) -> None:
        """
        An account that may use no port gets none.
        """
        self.agent.rights = Rights(("*",))
        self.rejected(Code.PORT_TAKEN, "web", "port:0")

    def test_next(self) -> None:
        """
        When somebody else has it the next is tried.
        """
        self.opener.foreign = {20000, 20001}
        self.assertEqual(self.publish("web", "name", "port:0").ports, [20002])
        self.assertEqual(self.opener.ports, {20002})

    def test_none_left(self) -> None:
        """
        When all are taken nothing is published.
        """
        self.opener.foreign = set(range(20000, 20006))
        self.rejected(Code.PORT_TAKEN, "web", "name", "port:0")

    def test_two(self) -> None:
        """
        A server that asks twice gets two ports.
        """
        self.opener.foreign = {20001}
        self.assertEqual(self.publish("web", "port:0", "port:0").ports, [20000, 20002])
        self.assertEqual(self.opener.ports, {20000, 20002})

    def test_the_last_two(self) -> None:
        """
        A port that could be had is not lost because another could not.
        """
        self.agent.rights = Rights(("*",), ((20000, 20002),))
        for foreign in (20000, 20001, 20002):
            self.opener.foreign = {foreign}
            server = self.publish("web", "port:0", "port:0")
            self.assertEqual(set(server.ports), {20000, 20001, 20002} - {foreign})
            self.registry.forget(server)
            self.publisher.take_back(server)

    def test_beside_a_port(self) -> None:
        """
        It is another one than a port that the server names.
        """
        for reach in (("port:20000", "port:0"), ("port:0", "port:20000")):
            server = self.publish("web", *reach)
            self.assertEqual(sorted(server.ports), [20000, 20001])
            self.registry.forget(server)
            self.publisher.take_back(server)

    def test_beside_its_port(self) -> None:
        """
        Also when it has that port already.
        """
        self.publish("web", "port:20003")
        self.assertEqual(self.publish("web", "port:20003", "port:0").ports, [20003, 20000])

    def test_named_port_fails(self) -> None:
        """
        When a port that the server names cannot be had, no others are tried
        in vain.
        """
        self.opener.foreign = {20003}
        self.rejected(Code.PORT_TAKEN, "web", "port:20003", "port:0")
        self.assertEqual(self.opener.tried, [20003])


class AnewTests(PublishingCase):
    """
    Servers that are published once more.
    """

    def test_same_port(self) -> None:
        """
        A server that asks for any port again keeps its own.
        """
        before = self.publish("a", "port:0")
        self.publish("b", "port:0")
        self.registry.forget(before)
        self.publisher.take_back(before)
        self.assertEqual(self.publish("b", "port:0").ports, [20001])
        self.assertEqual(self.opener.ports, {20001})

    def test_more_ports(self) -> None:
        """
        One that asks for more ports than it had gets more.
        """
        self.publish("web", "port:20003")
        self.assertEqual(self.publish("web", "port:0", "port:0").ports, [20003, 20000])
        self.assertEqual(self.opener.ports, {20000, 20003})

    def test_fewer_ports(self) -> None:
        """
        The ports that it does not ask for again close.
        """
        self.publish("web", "port:20001", "port:20002")
        self.publish("web", "port:20002", "port:20003")
        self.assertEqual(self.opener.ports, {20002, 20003})

    def test_no_ports(self) -> None:
        """
        All of them do if it asks for none.
        """
        self.publish("web", "port:0")
        self.publish("web")
        self.assertEqual(self.opener.ports, set())

    def test_conflict(self) -> None:
        """
        If its new names are taken it stays as it was.
        """
        self.publish("rival", "host:www.example", agent=self.other)
        self.publish("web", "name", "port:20001")
        self.rejected(Code.CONFLICT, "web", "host:www.example", "port:20001")

    def test_port_fails(self) -> None:
        """
        If a new port cannot be opened it stays as it was.
        """
        self.publish("web", "name", "host:www.example", "port:20001")
        self.opener.foreign = {20003}
        self.rejected(Code.PORT_TAKEN, "web", "port:20001", "port:20002", "port:20003")
        self.assertEqual(self.registry.servers["web"].ports, [20001])

    def test_no_more_ports(self) -> None:
        """
        If there are not as many ports as it asks for it stays as it was.
        """
        self.publish("web", "port:0")
        self.opener.foreign = set(range(20001, 20006))
        self.rejected(Code.PORT_TAKEN, "web", "port:0", "port:0")

    def test_remembered_away(self) -> None:
        """
        A server that could not be published does not make the relay forget
        whose names they were.
        """
        self.publish("web", "host:www.example", agent=self.other)
        self.registry.leave(self.other)
        self.opener.foreign = {20001}
        self.rejected(Code.PORT_TAKEN, "web", "host:www.example", "port:20001")
        self.assertIs(self.registry.missing("host", "www.example").code, Code.AGENT_AWAY)

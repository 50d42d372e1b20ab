"""
Tests of what an agent publishes, and of whom it serves.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.agent.servers import OwnServer, Servers, registration
from relaytunnel.config.access import networks
from relaytunnel.config.names import Reach
from relaytunnel.config.server import ServerConfig
from relaytunnel.errors import Code, Rejection
from relaytunnel.wire.messages import SAME_ENDPOINT, TICKET_BYTES, Notify, Register, Withdraw

HASH = "sha256:" + "0f" * 32
WEB = ServerConfig(id="web", target="tcp:127.0.0.1:8080")
SSH = ServerConfig(
    id="ssh",
    target="tcp:192.168.0.5:22",
    reach=(Reach("name"), Reach("port", "0"), Reach("host", "*.example.net")),
    allow=networks(["10.0.0.0/8", "2001:db8::/32"]),
    data="plain",
)


def a_notify(
    connection_id: str = "web",
    client: str = "198.51.100.1:5000",
    endpoint: str = SAME_ENDPOINT,
    session: int = 1,
) -> Notify:
    """
    Make what the relay says of a client.
    """
    return Notify(
        session=session,
        connection_id=connection_id,
        ticket=bytes(TICKET_BYTES),
        client=client,
        arrived="name",
        endpoint=endpoint,
    )


class ServersTests(SynchronousTestCase):
    """
    Which servers there are.
    """

    def setUp(self) -> None:
        self.servers = Servers([WEB, SSH])

    def ids(self) -> list[str]:
        return [server.config.id for server in self.servers]

    def test_none(self) -> None:
        """
        An agent may begin without a server.
        """
        servers = Servers()
        self.assertEqual((len(servers), list(servers), servers.registrations()), (0, [], []))

    def test_configured(self) -> None:
        """
        The servers of the configuration are there in its order, and none of
        them is registered yet.
        """
        self.assertEqual(list(self.servers), [OwnServer(WEB), OwnServer(SSH)])
        self.assertEqual(len(self.servers), 2)

    def test_get(self) -> None:
        """
        A server is found by its ID.
        """
        self.assertEqual(self.servers.get("ssh"), OwnServer(SSH))
        self.assertIsNone(self.servers.get("db"))

    def test_add(self) -> None:
        """
        One more can be published.
        """
        config = ServerConfig(id="db", target="tcp:127.0.0.1:5432")
        server = self.servers.add(config)
        self.assertIs(server.config, config)
        self.assertIs(self.servers.get("db"), server)
        self.assertEqual(self.ids(), ["web", "ssh", "db"])

    def test_add_anew(self) -> None:
        """
        One that is published anew takes the place of what it was, and is not
        registered until the relay says so.
        """
        self.servers.add(WEB).registered = True
        anew = ServerConfig(id="web", target="tcp:127.0.0.1:9090")
        self.assertEqual(self.servers.add(anew), OwnServer(anew))
        self.assertEqual(self.servers.get("web"), OwnServer(anew))
        self.assertEqual(len(self.servers), 2)

    def test_remove(self) -> None:
        """
        One that is removed is not there any more.
        """
        self.servers.remove("web")
        self.assertIsNone(self.servers.get("web"))
        self.assertEqual(self.ids(), ["ssh"])

    def test_remove_unknown(self) -> None:
        """
        Removing what is not there does nothing.
        """
        self.servers.remove("db")
        self.assertEqual(self.ids(), ["web", "ssh"])

    def test_remove_while_looking(self) -> None:
        """
        Servers may be removed while somebody goes through them.
        """
        for server in self.servers:
            self.servers.remove(server.config.id)
        self.assertEqual(len(self.servers), 0)


class RegistrationTests(SynchronousTestCase):
    """
    What the relay is told of them (S3).
    """

    def test_simple(self) -> None:
        """
        A server that asks for nothing is registered by its ID alone.
        """
        self.assertEqual(registration(WEB), Register(connection_id="web"))

    def test_everything(self) -> None:
        """
        What is configured is asked for, in the form that the relay reads.
        """
        self.assertEqual(
            registration(SSH),
            Register(
                connection_id="ssh",
                reach=("name", "port:0", "host:*.example.net"),
                data="plain",
                allow=("10.0.0.0/8", "2001:db8::/32"),
            ),
        )

    def test_for_whom(self) -> None:
        """
        So is whether it is listed, who may come in, and how often; that its
        server is told of addresses, but not in which version.
        """
        config = ServerConfig(
            id="web",
            target="tcp:127.0.0.1:8080",
            listed=True,
            users=(("alice", HASH),),
            sessions_per_client=3,
            proxy="v2",
        )
        self.assertEqual(
            registration(config),
            Register(
                connection_id="web",
                listed=True,
                users=(("alice", HASH),),
                sessions_per_client=3,
                wants_address=True,
            ),
        )

    def test_hashes_are_not_shown(self) -> None:
        """
        What passwords are compared with does not stand in logs.
        """
        config = ServerConfig(id="web", target="tcp:127.0.0.1:8080", users=(("alice", HASH),))
        shown = repr(registration(config))
        self.assertNotIn("0f0f", shown)
        self.assertIn("alice", shown)

    def test_target_stays_inside(self) -> None:
        """
        Where a server is inside is not told.
        """
        self.assertNotIn("192.168.0.5", repr(registration(SSH)))

    def test_all(self) -> None:
        """
        All servers are registered, in their order.
        """
        servers = Servers([WEB, SSH])
        self.assertEqual(servers.registrations(), [registration(WEB), registration(SSH)])

    def test_closing(self) -> None:
        """
        Those that close are not, also after a reconnect.
        """
        servers = Servers([WEB, SSH])
        servers.close()
        servers.forget_relay()
        self.assertEqual(servers.registrations(), [])


class CheckTests(SynchronousTestCase):
    """
    S8: which clients are served.
    """

    def setUp(self) -> None:
        self.servers = Servers([WEB, SSH])
        for server in self.servers:
            server.registered = True
            server.endpoints = (SAME_ENDPOINT, "node2.relay.example:7000")

    def refused(self, notify: Notify, come: OwnServer | None = None) -> Code:
        """
        Assert that a client is not served.

        @param come: the server as it was when it came.

        @return: why.
        """
        code: Code = self.assertRaises(Rejection, self.servers.check, notify, come).code
        return code

    def test_served(self) -> None:
        """
        A client of a server that is registered is served.
        """
        self.assertIs(self.servers.check(a_notify()), self.servers.get("web"))

    def test_unknown(self) -> None:
        """
        A client of a server that this agent never had is refused.
        """
        self.assertIs(self.refused(a_notify("db")), Code.UNKNOWN_ID)

    def test_other_spelling(self) -> None:
        """
        The ID must be spelled as it was registered.
        """
        self.assertIs(self.refused(a_notify("Web")), Code.UNKNOWN_ID)

    def test_not_registered(self) -> None:
        """
        So is a client of a server that the relay has not confirmed.
        """
        self.servers.add(WEB)
        self.assertIs(self.refused(a_notify()), Code.UNKNOWN_ID)

    def test_removed(self) -> None:
        """
        So is a client of one that is published no more.
        """
        self.servers.remove("web")
        self.assertIs(self.refused(a_notify()), Code.UNKNOWN_ID)

    def test_other_endpoint(self) -> None:
        """
        A data channel may be dialled to each endpoint of the standing request.
        """
        notify = a_notify(endpoint="node2.relay.example:7000")
        self.assertIs(self.servers.check(notify), self.servers.get("web"))

    def test_strange_endpoint(self) -> None:
        """
        And to nowhere else.
        """
        for endpoint in ("evil.example:7000", "node2.relay.example:7001", ""):
            self.assertIs(self.refused(a_notify(endpoint=endpoint)), Code.NOT_ALLOWED)

    def test_no_standing_request(self) -> None:
        """
        Before the standing request came nobody is served.
        """
        self.servers.add(WEB).registered = True
        self.assertIs(self.refused(a_notify()), Code.NOT_ALLOWED)

    def test_relay_forgotten(self) -> None:
        """
        When the control channel is gone, so is all that the relay confirmed.
        """
        self.servers.forget_relay()
        for server in self.servers:
            self.assertEqual((server.registered, server.endpoints), (False, ()))
        self.assertIs(self.refused(a_notify()), Code.UNKNOWN_ID)

    def test_closing(self) -> None:
        """
        A server that closes is withdrawn, and serves only those who have come
        to it as it was; to another of its name they have not come.
        """
        server = self.servers.check(a_notify())
        self.assertEqual(
            self.servers.close(),
            [Withdraw(connection_id=each.config.id, code="shutdown") for each in self.servers],
        )
        server.registered, server.endpoints = False, ()
        self.assertIs(self.servers.check(a_notify(), server), server)
        self.assertIs(self.refused(a_notify()), Code.UNKNOWN_ID)
        self.servers.add(WEB)
        self.assertIs(self.refused(a_notify(), server), Code.UNKNOWN_ID)

    def test_withdrawn_meanwhile(self) -> None:
        """
        One that the relay has withdrawn serves nobody.
        """
        server = self.servers.check(a_notify())
        server.registered, server.endpoints = False, ()
        self.assertIs(self.refused(a_notify(), server), Code.UNKNOWN_ID)

    def test_allowed(self) -> None:
        """
        Clients from the networks that are allowed are served, also if their
        address is written in brackets or in the IPv6 way.
        """
        for client in (
            "10.1.2.3:5000",
            "2001:db8::7:5000",
            "[2001:db8::7]:5000",
            "::ffff:10.1.2.3:5000",
        ):
            self.servers.check(a_notify("ssh", client))

    def test_not_allowed(self) -> None:
        """
        Others are refused, whatever the relay thinks.
        """
        for client in ("198.51.100.1:5000", "[2001:db9::7]:5000", "10.1.2.3", "somebody:1", ""):
            self.assertIs(self.refused(a_notify("ssh", client)), Code.NOT_ALLOWED)


class ShareTests(SynchronousTestCase):
    """
    S8: how many sessions of a server one client has.
    """

    def setUp(self) -> None:
        config = ServerConfig(id="web", target="tcp:127.0.0.1:8080", sessions_per_client=2)
        self.servers = Servers([config, SSH])
        for server in self.servers:
            server.registered = True
            server.endpoints = (SAME_ENDPOINT,)
        web = self.servers.get("web")
        assert web is not None
        self.web = web

    def busy(self, notify: Notify) -> None:
        """
        Assert that a client has as many as it may have.
        """
        rejection = self.assertRaises(Rejection, self.servers.check, notify)
        self.assertIs(rejection.code, Code.BUSY)
        self.assertEqual(rejection.reason, "one client has 2 sessions of web at most")

    def test_share(self) -> None:
        """
        So many, from whatever port, and no more.
        """
        for port in (5000, 5001):
            self.servers.check(a_notify(client=f"198.51.100.1:{port}"))
            self.servers.begin(a_notify(client=f"198.51.100.1:{port}", session=port))
        self.busy(a_notify(client="198.51.100.1:5002"))
        self.servers.check(a_notify(client="198.51.100.2:5002"))

    def test_spellings(self) -> None:
        """
        An address in brackets is the same one.
        """
        self.servers.begin(a_notify(client="[2001:db8::7]:5000", session=1))
        self.servers.begin(a_notify(client="2001:db8::7:5001", session=2))
        self.busy(a_notify(client="[2001:db8::7]:5002"))

    def test_network(self) -> None:
        """
        The addresses of one IPv6 network have one share.
        """
        self.servers.begin(a_notify(client="2001:db8::1:5000", session=1))
        self.servers.begin(a_notify(client="2001:db8::ffff:2:5000", session=2))
        self.busy(a_notify(client="2001:db8::3:5000"))
        self.servers.check(a_notify(client="2001:db8:0:1::3:5000"))

    def test_other_networks(self) -> None:
        """
        Networks may be told apart otherwise from now on: who is served is
        given back to those that it was counted for.
        """
        served = [a_notify(client=f"2001:db8:0:{n}::1:5000", session=n) for n in (1, 2)]
        for notify in served:
            self.servers.begin(notify)
        self.servers.use(48)
        more = [a_notify(client=f"2001:db8:0:{n}::1:5000", session=n) for n in (3, 4)]
        for notify in more:
            self.servers.check(notify)
            self.servers.begin(notify)
        self.busy(a_notify(client="2001:db8:0:5::1:5000"))
        for notify in served + more:
            self.servers.end(notify)
        self.assertEqual(dict(self.servers.clients), {})

    def test_given_back(self) -> None:
        """
        One that is over makes room, and nothing is kept of who has none.
        """
        first, second = a_notify(session=1), a_notify(session=2)
        self.servers.begin(first)
        self.servers.begin(second)
        self.busy(a_notify(session=3))
        self.servers.end(first)
        self.servers.check(a_notify(session=3))
        self.servers.end(second)
        self.assertEqual(dict(self.servers.clients), {})

    def test_no_share(self) -> None:
        """
        Where there is no such limit a client may have as many as it likes.
        """
        self.servers.add(WEB).registered = True
        for session in range(5):
            self.servers.begin(a_notify(session=session))
        for session in range(5):
            self.servers.end(a_notify(session=session))
        self.assertEqual(dict(self.servers.clients), {})

    def test_changed_meanwhile(self) -> None:
        """
        Who is served goes on to count for a server that was changed, also one
        that had no limit before, and counts no more when it is over.
        """
        free = ServerConfig(id="web", target="tcp:127.0.0.1:8080")
        limited = self.web.config
        self.servers.add(free)
        for session in (1, 2):
            self.servers.begin(a_notify(session=session))
        self.web = self.servers.add(limited)
        self.web.registered, self.web.endpoints = True, (SAME_ENDPOINT,)
        self.busy(a_notify())
        self.servers.end(a_notify(session=1))
        self.servers.check(a_notify())
        self.servers.end(a_notify(session=2))
        self.assertEqual(dict(self.servers.clients), {})

    def test_not_allowed_first(self) -> None:
        """
        Who may not come in at all is told that.
        """
        config = ServerConfig(
            id="web",
            target="tcp:127.0.0.1:8080",
            sessions_per_client=1,
            allow=networks(["10.0.0.0/8"]),
        )
        server = self.servers.add(config)
        server.registered, server.endpoints = True, (SAME_ENDPOINT,)
        self.servers.begin(a_notify())
        rejection = self.assertRaises(Rejection, self.servers.check, a_notify())
        self.assertIs(rejection.code, Code.NOT_ALLOWED)


class DescriptorTests(SynchronousTestCase):
    """
    How many sessions an agent has, whatever the relay lets in.
    """

    def test_most(self) -> None:
        """
        When there are as many as there are descriptors for, further clients are
        busy; those of a single source leave some for the others.
        """
        servers = Servers([WEB])
        server = servers.get("web")
        assert server is not None
        server.registered, server.endpoints = True, (SAME_ENDPOINT,)
        servers.sessions.most = 3
        for session in (1, 2):
            servers.check(a_notify(session=session))
            servers.begin(a_notify(session=session))
        rejection = self.assertRaises(Rejection, servers.check, a_notify(session=3))
        self.assertIs(rejection.code, Code.BUSY)
        other = a_notify(client="198.51.100.2:5000", session=4)
        servers.check(other)
        servers.begin(other)
        third = a_notify(client="198.51.100.3:5000", session=5)
        self.assertIs(self.assertRaises(Rejection, servers.check, third).code, Code.BUSY)
        servers.end(a_notify(session=1))
        servers.check(third)

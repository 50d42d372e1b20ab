"""
Tests of which server a client means, and which ones it is told of.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival import Choice, Login, Named
from relaytunnel.config.access import networks
from relaytunnel.config.hosts import RelayNames
from relaytunnel.errors import Code, Failing, Rejection
from relaytunnel.relay.choices import Choices
from relaytunnel.relay.finding import (
    LOGIN_WAYS,
    ClientDirectory,
    Finder,
    Unnamed,
    check_access,
    login_to_compare,
)
from relaytunnel.relay.registry import PublishedServer, Registry
from tests.relay.test_registry import a_server, an_agent

OWN = ("relay.example", "localhost")
OTHER_WAYS = ("connect", "socks5", "socks4", "question")
CLIENT = "203.0.113.9"
SOURCE = "203.0.113.9"
ALICE = Login("alice", "pass")


class FindingCase(SynchronousTestCase):
    """
    A relay with an agent.
    """

    def setUp(self) -> None:
        self.agent = an_agent()
        self.registry = Registry(RelayNames(OWN))
        self.registry.enter(self.agent)
        self.choices = Choices(b"key")
        self.finder = Finder(self.registry, self.choices)

    def publish(self, connection_id: str, *reach: str) -> PublishedServer:
        """
        Publish a server.
        """
        server = a_server(self.agent, connection_id, *reach)
        self.registry.add(server)
        return server

    def found(self, way: str, host: str | None = None, **more: str) -> tuple[str, str]:
        """
        Find a server.

        @return: its ID, and how it was found.
        """
        default = more.pop("default", "")
        chosen = more.get("remembered")
        token = None if chosen is None else self.choices.token(chosen, SOURCE)
        server, how = self.finder.find(Named(way, host, remembered=token), default, SOURCE)
        return server.connection_id, how

    def missing(self, way: str, host: str | None = None, **more: str) -> Code:
        """
        Assert that none is found.

        @return: why.
        """
        code: Code = self.assertRaises(Rejection, self.found, way, host, **more).code
        return code


class NameTests(FindingCase):
    """
    A name that a client gives.
    """

    def test_order(self) -> None:
        """
        Whoever claimed the whole name comes first, then the server whose ID it
        is, then whoever claimed all names that differ in the first label.
        """
        self.publish("wild", "host:*.example.net")
        self.assertEqual(self.found("http", "web.example.net"), ("wild", "host:web.example.net"))
        self.publish("web.example.net", "name")
        self.assertEqual(self.found("http", "web.example.net")[0], "web.example.net")
        self.publish("exact", "host:web.example.net")
        self.assertEqual(self.found("http", "web.example.net")[0], "exact")

    def test_id_in_another_name(self) -> None:
        """
        A name that only begins with an ID does not mean it.
        """
        self.publish("web", "name")
        for way in ("http", "sni", "postgres", *OTHER_WAYS):
            self.assertIs(self.missing(way, "web.example.net"), Code.NO_SUCH_SERVER)

    def test_wildcard(self) -> None:
        """
        A wildcard stands for one label: no more, and no less.
        """
        self.publish("wild", "host:*.example.net")
        self.assertEqual(self.found("http", "a.example.net")[0], "wild")
        for host in ("example.net", "a.b.example.net", "net"):
            self.assertIs(self.missing("http", host), Code.NO_SUCH_SERVER)

    def test_kinds(self) -> None:
        """
        Each protocol has its own claims; those of TLS count for PostgreSQL.
        """
        self.publish("web", "host:a.example")
        self.publish("tls", "sni:a.example")
        self.assertEqual(self.found("http", "a.example"), ("web", "host:a.example"))
        self.assertEqual(self.found("sni", "a.example"), ("tls", "sni:a.example"))
        self.assertEqual(self.found("postgres", "a.example"), ("tls", "sni:a.example"))

    def test_claims_elsewhere(self) -> None:
        """
        In the other ways only IDs are names: who claimed a host name does not
        get what is for its other ports.
        """
        self.publish("web", "host:a.example", "sni:a.example")
        self.publish("ssh", "name")
        for way in OTHER_WAYS:
            self.assertIs(self.missing(way, "a.example"), Code.NO_SUCH_SERVER)
            self.assertEqual(self.found(way, "ssh"), ("ssh", "name:ssh"))
            self.assertEqual(self.found(way, "ssh.relay.example")[0], "ssh")

    def test_id(self) -> None:
        """
        An ID may have dots; it is all that comes before the relay's name.
        """
        self.publish("a", "name")
        self.publish("a.b", "name")
        self.assertEqual(self.found("http", "a.b.relay.example")[0], "a.b")
        self.assertIs(self.missing("http", "a.c.relay.example"), Code.NO_SUCH_SERVER)

    def test_not_by_id(self) -> None:
        """
        A server that did not want to be found by its ID is not.
        """
        self.publish("web", "port:20000")
        for way in ("http", "sni", "postgres", *OTHER_WAYS):
            self.assertIs(self.missing(way, "web"), Code.NO_SUCH_SERVER)

    def test_away(self) -> None:
        """
        A server whose agent is away is told apart from one that never was.
        """
        self.publish("web", "name", "host:*.example.net")
        self.registry.leave(self.agent)
        for host in ("web", "web.relay.example", "a.example.net"):
            self.assertIs(self.missing("http", host), Code.AGENT_AWAY)
        self.assertIs(self.missing("http", "shop"), Code.NO_SUCH_SERVER)


class NobodyTests(FindingCase):
    """
    Clients that name nobody.
    """

    def test_nobody(self) -> None:
        """
        Who names nobody may be asked, in whatever way it came.
        """
        for way in ("http", "sni", "postgres", "unknown", "silence", "question"):
            self.assertRaises(Unnamed, self.finder.find, Named(way, None))

    def test_own_names(self) -> None:
        """
        A Host that is the relay's own, or an address, names nobody; a name
        that nobody has, names somebody else.
        """
        for host in (*OWN, "192.0.2.1", "2001:db8::1"):
            self.assertRaises(Unnamed, self.finder.find, Named("http", host))
        for host in ("a.relay.example", "relay.example.net", "example"):
            error = self.assertRaises(Rejection, self.finder.find, Named("http", host))
            self.assertNotIsInstance(error, Unnamed)

    def test_own_names_elsewhere(self) -> None:
        """
        In other protocols there is no page to be seen at the relay's own name.
        """
        for way in ("sni", "postgres", *OTHER_WAYS):
            error = self.assertRaises(Rejection, self.finder.find, Named(way, "relay.example"))
            self.assertNotIsInstance(error, Unnamed)

    def test_claimed(self) -> None:
        """
        No wildcard of a server stands for the relay's own name.
        """
        self.publish("web", "host:*.example", "sni:*.example")
        self.assertRaises(Unnamed, self.finder.find, Named("http", "relay.example"))
        self.assertIs(self.missing("sni", "relay.example"), Code.NO_SUCH_SERVER)

    def test_remembered(self) -> None:
        """
        What was chosen before counts where nobody is named.
        """
        self.publish("web", "name")
        self.assertEqual(self.found("http", None, remembered="web"), ("web", "chosen:web"))
        for host in (*OWN, "192.0.2.1"):
            self.assertEqual(self.found("http", host, remembered="web"), ("web", "chosen:web"))

    def test_remembered_is_no_name(self) -> None:
        """
        It does not count where somebody is named, and leads nowhere when it is
        gone.
        """
        self.publish("web", "name")
        self.assertIs(self.missing("http", "nowhere", remembered="web"), Code.NO_SUCH_SERVER)
        self.assertRaises(Unnamed, self.found, "http", None, remembered="gone")

    def test_remembered_by_id_alone(self) -> None:
        """
        What can be chosen is an ID, not a claim, and only one that leads to
        its server.
        """
        self.publish("web", "host:a.example")
        for remembered in ("a.example", "web", ""):
            self.assertRaises(Unnamed, self.found, "http", None, remembered=remembered)

    def test_remembered_by_this_relay(self) -> None:
        """
        A choice counts if this relay has signed it, for this source.
        """
        self.publish("web", "name")
        good = self.choices.token("web", SOURCE)
        assert good is not None
        self.finder.find(Named("http", None, remembered=good), "", SOURCE)
        for token, source in (
            (good, "198.51.100.7"),
            ("web", SOURCE),
            ("", SOURCE),
            (Choices(b"another key").token("web", SOURCE), SOURCE),
        ):
            named = Named("http", None, remembered=token)
            self.assertRaises(Unnamed, self.finder.find, named, "", source)

    def test_service_worker(self) -> None:
        """
        No service worker comes from the relay's own name, which all share;
        one that has a name of its own may have one, also the relay's.
        """
        self.publish("web", "name")
        token = self.choices.token("web", SOURCE)
        for host in (None, *OWN, "192.0.2.1"):
            named = Named("http", host, remembered=token, service_worker=True)
            rejection = self.assertRaises(Rejection, self.finder.find, named, "", SOURCE)
            self.assertIs(rejection.code, Code.NOT_ALLOWED)
        self.finder.find(Named("http", "web", service_worker=True))
        self.finder.find(Named("http", None, service_worker=True), "web")


class DefaultTests(FindingCase):
    """
    The server for those who name none that is known.
    """

    def setUp(self) -> None:
        super().setUp()
        self.publish("web", "port:20000")

    def test_nobody(self) -> None:
        """
        Who names nobody, speaks what is not known, or nothing, gets it.
        """
        for way in ("http", "sni", "postgres", "unknown", "silence"):
            self.assertEqual(self.found(way, default="web"), ("web", "default:web"))

    def test_not_known(self) -> None:
        """
        So does who names one that nobody has, by Host or in TLS.
        """
        for way in ("http", "sni", "postgres"):
            self.assertEqual(self.found(way, "nowhere", default="web"), ("web", "default:web"))
        self.assertEqual(self.found("http", "relay.example", default="web")[0], "web")

    def test_never_for_others(self) -> None:
        """
        Who asks for one server by its ID never gets another.
        """
        for way in OTHER_WAYS:
            self.assertIs(self.missing(way, "nowhere", default="web"), Code.NO_SUCH_SERVER)
        self.assertRaises(Unnamed, self.finder.find, Named("question", None), "web")

    def test_never_when_away(self) -> None:
        """
        Nor does who names one whose agent is away.
        """
        other = an_agent("other", peer="192.0.2.2:4000")
        self.registry.enter(other)
        self.registry.add(a_server(other, "shop", "name", "sni:shop.example"))
        self.registry.leave(other)
        self.assertIs(self.missing("http", "shop", default="web"), Code.AGENT_AWAY)
        self.assertIs(self.missing("sni", "shop.example", default="web"), Code.AGENT_AWAY)

    def test_known_first(self) -> None:
        """
        Who names one that is known, or has chosen one, gets that.
        """
        self.publish("shop", "name")
        self.assertEqual(self.found("http", "shop", default="web")[0], "shop")
        self.assertEqual(self.found("http", None, remembered="shop", default="web")[0], "shop")

    def test_not_here(self) -> None:
        """
        When it is not here itself, that is what is told.
        """
        self.assertIs(self.missing("silence", default="shop"), Code.NO_SUCH_SERVER)
        self.publish("shop", "name")
        self.registry.leave(self.agent)
        self.assertIs(self.missing("http", "nowhere", default="shop"), Code.AGENT_AWAY)


class DirectoryTests(FindingCase):
    """
    What a client may know.
    """

    def setUp(self) -> None:
        super().setUp()
        self.directory = ClientDirectory(self.registry, CLIENT, SOURCE, self.choices)

    def test_listed(self) -> None:
        """
        Those that want to be listed are, by their names, with their addresses.
        """
        for name in ("web", "hidden", "shop"):
            server = self.publish(name, "name")
            server.listed = name != "hidden"
            server.addresses = (f"http://{name}.relay.example",)
        self.assertEqual(
            self.directory.listed(),
            [
                Choice("shop", ("http://shop.relay.example",)),
                Choice("web", ("http://web.relay.example",)),
            ],
        )

    def test_not_by_id(self) -> None:
        """
        Who cannot be chosen by its ID is not listed.
        """
        self.publish("web", "port:20000").listed = True
        self.assertEqual(self.directory.listed(), [])

    def test_not_for_this_client(self) -> None:
        """
        Who is not open to this client is not listed for it.
        """
        server = self.publish("web", "name")
        server.listed = True
        server.allow = networks(["10.0.0.0/8"])
        self.assertEqual(self.directory.listed(), [])
        self.assertEqual(
            ClientDirectory(self.registry, "10.1.2.3", SOURCE, self.choices).listed(),
            [Choice("web")],
        )

    def test_refuses(self) -> None:
        """
        Why one cannot be had is what somebody would be told who named it.
        """
        self.publish("web", "name")
        self.publish("office", "name").allow = networks(["10.0.0.0/8"])
        self.publish("ssh", "port:20000")
        self.assertIsNone(self.directory.refuses("web"))
        for name, code in (
            ("office", Code.NOT_ALLOWED),
            ("nowhere", Code.NO_SUCH_SERVER),
            ("ssh", Code.NO_SUCH_SERVER),
        ):
            failing = self.directory.refuses(name)
            assert isinstance(failing, Failing)
            self.assertIs(failing.code, code)
            self.assertIn(name, failing.reason)

    def test_refuses_away(self) -> None:
        """
        One that is away is told to be so.
        """
        self.publish("web", "name")
        self.registry.leave(self.agent)
        failing = self.directory.refuses("web")
        assert failing is not None
        self.assertIs(failing.code, Code.AGENT_AWAY)


class LoginTests(FindingCase):
    """
    S6: who has to say who it is.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server = self.publish("web", "name")
        self.server.users = {"alice": "a hash"}

    def refused(self, way: str, login: Login | None) -> Rejection:
        rejection: Rejection = self.assertRaises(
            Rejection, login_to_compare, self.server, way, login
        )
        return rejection

    def test_nothing_asked(self) -> None:
        """
        Where there are no users nothing is asked, and nothing looked at.
        """
        self.server.users = {}
        for way in ("http", "sni", "question", "silence"):
            self.assertIsNone(login_to_compare(self.server, way, None))
            self.assertIsNone(login_to_compare(self.server, way, ALICE))

    def test_given(self) -> None:
        """
        What is given in HTTP, to a tunnel and in SOCKS5 is to be compared.
        """
        self.assertEqual(LOGIN_WAYS, {"http", "connect", "socks5"})
        for way in LOGIN_WAYS:
            self.assertIs(login_to_compare(self.server, way, ALICE), ALICE)

    def test_not_given(self) -> None:
        """
        Who gives nothing there is asked.
        """
        for way in LOGIN_WAYS:
            self.assertIs(self.refused(way, None).code, Code.LOGIN_NEEDED)

    def test_no_way(self) -> None:
        """
        In the other ways nobody comes in, whatever it claims to be.
        """
        for way in ("sni", "postgres", "socks4", "question", "unknown", "silence", ""):
            for login in (None, ALICE):
                rejection = self.refused(way, login)
                self.assertIs(rejection.code, Code.NOT_ALLOWED)
                self.assertIn("SOCKS5", rejection.reason)

    def test_access(self) -> None:
        """
        Whether an address may come in at all is another matter.
        """
        check_access(self.server, CLIENT)
        self.server.allow = networks(["203.0.113.0/24"])
        check_access(self.server, CLIENT)
        self.server.allow = networks(["10.0.0.0/8"])
        rejection = self.assertRaises(Rejection, check_access, self.server, CLIENT)
        self.assertIs(rejection.code, Code.NOT_ALLOWED)

"""
Tests for L{relaytunnel.relay.agents}.
"""

from __future__ import annotations

from relaytunnel.accounts.model import Rights
from relaytunnel.config.limits import Limits
from relaytunnel.errors import Code, Failing
from relaytunnel.relay.agents import AgentSession
from relaytunnel.wire.messages import (
    Accept,
    Cancel,
    Denied,
    Goodbye,
    Hello,
    Message,
    Notify,
    Refuse,
    Register,
    Registered,
    Rejected,
    StandingRequest,
    Welcome,
    Withdraw,
    Withdrawn,
)
from tests.script import (
    AgentSays,
    Asks,
    Blank,
    Breaks,
    ClosesPort,
    Cues,
    FakeAgentDoor,
    FakeClientDoor,
    FakePorts,
    HangsUp,
    LetsIn,
    OpensPort,
    Pauses,
    RelaySays,
    Script,
    ScriptedTestCase,
    Tells,
    relay_core,
    ticket,
)

HELLO = Hello(version=1, agent="office", secret="s3cret", epoch=5, software="agent 1")
WELCOME = Welcome(relay="relay.example", node="north", sessions=4096, ping=15.0, releases=True)
RIGHTS = Rights(("web", "*.office"), ((20000, 20002),), ("web.example",))

OUT_OF_TURN: tuple[Message, ...] = (
    Register(connection_id="web"),
    Withdraw(connection_id="web"),
    Accept(session=1),
    Refuse(session=1, code="busy", reason=""),
)
"""What only an agent that was let in may say."""


def published(name: str, *reach: str) -> tuple[RelaySays, RelaySays]:
    """
    @return: what the relay says when it publishes a server.
    """
    found = tuple(f"{name} by {way}" for way in reach or ("name",))
    return (
        RelaySays(Registered(connection_id=name, reach=found)),
        RelaySays(StandingRequest(connection_id=name)),
    )


class RelayTestCase(ScriptedTestCase):
    """
    A relay to which agents come.
    """

    limits = Limits()

    def setUp(self) -> None:
        super().setUp()
        self.ports = FakePorts(self.script)
        self.relay = relay_core(self.script, self.clock, self.limits, self.ports)
        self.registry = self.relay.registry

    def meet(self, name: str = "", peer: str = "198.51.100.7:40000") -> Cues:
        """
        An agent dials.

        @return: what else may happen to its stay.
        """
        session = AgentSession(self.relay, FakeAgentDoor(self.script, name, peer))
        self.script.on(AgentSays, name, session.received)
        return Cues("stay", session.stay)

    def let_in(
        self,
        name: str = "",
        hello: Hello = HELLO,
        rights: Rights = RIGHTS,
        peer: str = "198.51.100.7:40000",
    ) -> Cues:
        """
        S1 and S2 of an agent, up to its welcome.
        """
        stay = self.meet(name, peer)
        (
            self.script
            >> AgentSays(hello, name)
            << Asks(hello.agent, "s3cret")
            >> stay.known(rights)
            << LetsIn(15.0, name)
            << RelaySays(WELCOME, name)
        )
        return stay

    def publish(self, name: str, *reach: str) -> Script:
        """
        S3 and S4 of a server of the agent without a name, with no port of its
        own.
        """
        registered, standing = published(name, *reach)
        return (
            self.script
            >> AgentSays(Register(connection_id=name, reach=reach))
            << registered
            << standing
        )

    def client(self, server: str, client: str = "203.0.113.9:50000") -> Cues:
        """
        A client that wants a server.

        @return: C{seek(), client_left()}.
        """
        return Cues("client", _Client(self, server, client))


class _Client:
    def __init__(self, test: RelayTestCase, server: str, client: str) -> None:
        self._visits = test.relay.visits
        self._server = test.registry.servers[server]
        self._door = FakeClientDoor(test.script, client)
        self._visit = self._visits.arrive(self._door)

    def seek(self) -> None:
        self._visits.seek(self._visit, self._door, self._server, "host:web.example")

    def leave(self) -> None:
        self._visit.client_left()


def notified(session: int, server: str = "web") -> Notify:
    """
    @return: what the agent is sent for the client of that session.
    """
    return Notify(
        session=session,
        connection_id=server,
        ticket=ticket(session),
        client="203.0.113.9:50000",
        arrived="host:web.example",
    )


class GreetingTests(RelayTestCase):
    """
    S1: before the agent has said who it is.
    """

    def test_hello(self) -> None:
        """
        The accounts are asked about an agent that says who it is.
        """
        self.meet()
        self.script >> AgentSays(HELLO) << Asks("office", "s3cret")

    def test_version(self) -> None:
        """
        An agent of another protocol is denied before any account is asked.
        """
        self.meet()
        (
            self.script
            >> AgentSays(Hello(version=2, agent="office", secret="s3cret", epoch=5))
            << RelaySays(
                Denied(
                    code="version",
                    reason="this relay speaks version 1 of the protocol, not 2",
                    retry_after=300.0,
                )
            )
            << HangsUp("denied: version")
        )

    def test_out_of_turn(self) -> None:
        """
        Nothing else may be said before Hello.
        """
        self.meet()
        for message in OUT_OF_TURN:
            name = type(message).__name__
            self.script >> AgentSays(message) << Breaks(f"{name} may not be sent now")

    def test_wrong_direction(self) -> None:
        """
        What only a relay says is not taken from an agent, whenever it comes.
        """
        self.meet()
        self.script >> AgentSays(WELCOME) << Breaks("an agent does not send Welcome")
        self.let_in("later")
        for message in (notified(1), Cancel(session=1), Withdrawn(connection_id="web")):
            name = type(message).__name__
            (
                self.script
                >> AgentSays(message, "later")
                << Breaks(f"an agent does not send {name}")
            )

    def test_goodbye(self) -> None:
        """
        An agent that only says goodbye is hung up on.
        """
        self.meet()
        self.script >> AgentSays(Goodbye(code="shutdown")) << HangsUp("the agent said shutdown")

    def test_lost(self) -> None:
        """
        An agent may go without a word.
        """
        stay = self.meet()
        self.script >> stay.lost("gone") >> stay.lost("gone")

    def test_dismissed(self) -> None:
        """
        Nothing is said to a stranger that has to go.
        """
        stay = self.meet()
        (
            self.script
            >> stay.dismiss(Code.SHUTDOWN, "the relay stops")
            << HangsUp("shutdown: the relay stops")
        )


class CheckingTests(RelayTestCase):
    """
    S2: while the accounts are asked.
    """

    def setUp(self) -> None:
        super().setUp()
        self.stay = self.meet()
        self.script >> AgentSays(HELLO) << Asks("office", "s3cret")

    def test_known(self) -> None:
        """
        An agent that is known is let in, and then welcomed.
        """
        (
            self.script
            >> self.stay.known(RIGHTS)
            << LetsIn(15.0)
            << RelaySays(
                Welcome(
                    relay="relay.example", node="north", sessions=4096, ping=15.0, releases=True
                )
            )
        )
        agent = self.registry.agents["office"]
        self.assertEqual((agent.epoch, agent.peer), (5, "198.51.100.7:40000"))
        self.assertEqual((agent.software, agent.peer), ("agent 1", "198.51.100.7:40000"))

    def test_unknown(self) -> None:
        """
        An agent that is not known is told why, and hung up on.
        """
        (
            self.script
            >> self.stay.unknown(Code.AUTH, "nobody knows it", 60.0)
            << RelaySays(Denied(code="auth", reason="nobody knows it", retry_after=60.0))
            << HangsUp("denied: auth")
        )
        self.assertEqual(self.registry.agents, {})

    def test_long_reason(self) -> None:
        """
        A reason is cut to what a message may hold.
        """
        (
            self.script
            >> self.stay.unknown(Code.AUTH, "x" * 300, 60.0)
            << RelaySays(Denied(code="auth", reason="x" * 256, retry_after=60.0))
            << HangsUp("denied: auth")
        )

    def test_out_of_turn(self) -> None:
        """
        Nothing may be said before the welcome, and no second Hello.
        """
        for message in (HELLO, *OUT_OF_TURN):
            name = type(message).__name__
            self.script >> AgentSays(message) << Breaks(f"{name} may not be sent now")

    def test_goodbye(self) -> None:
        """
        An agent may change its mind; the answer of the accounts is late then.
        """
        (
            self.script
            >> AgentSays(Goodbye(code="shutdown"))
            << HangsUp("the agent said shutdown")
            >> self.stay.known(RIGHTS)
            >> self.stay.lost("gone")
        )
        self.assertEqual(self.registry.agents, {})

    def test_lost(self) -> None:
        """
        An agent that is lost meanwhile does not come in.
        """
        (
            self.script
            >> self.stay.lost("gone")
            >> self.stay.known(RIGHTS)
            >> self.stay.unknown(Code.AUTH, "nobody knows it", 60.0)
        )
        self.assertEqual(self.registry.agents, {})

    def test_dismissed(self) -> None:
        """
        An agent that has to go meanwhile does not come in.
        """
        (
            self.script
            >> self.stay.dismiss(Code.SHUTDOWN, "the relay stops")
            << HangsUp("shutdown: the relay stops")
            >> self.stay.known(RIGHTS)
        )
        self.assertEqual(self.registry.agents, {})


class TakeoverTests(RelayTestCase):
    """
    An agent that is here already comes again.
    """

    def setUp(self) -> None:
        super().setUp()
        self.ghost = self.let_in()
        registered, standing = published("web", "port:20000")
        (
            self.script
            >> AgentSays(Register(connection_id="web", reach=("port:20000",)))
            << OpensPort(20000)
            << registered
            << standing
        )

    def again(self, epoch: int) -> tuple[Script, Cues]:
        """
        The agent comes once more, up to the point where it is known.
        """
        stay = self.meet("back", "198.51.100.8:40001")
        hello = Hello(version=1, agent="office", secret="s3cret", epoch=epoch)
        self.script >> AgentSays(hello, "back") << Asks("office", "s3cret") >> stay.known(RIGHTS)
        return self.script, stay

    def test_higher_epoch(self) -> None:
        """
        An agent that was started again puts its own ghost out, and all that
        the ghost had is free before the welcome.
        """
        script, _ = self.again(6)
        (
            script
            << RelaySays(
                Goodbye(code="superseded", reason="the agent is back, from 198.51.100.8:40001")
            )
            << HangsUp("superseded: the agent is back, from 198.51.100.8:40001")
            << ClosesPort(20000)
            << LetsIn(15.0, "back")
            << RelaySays(WELCOME, "back")
        )
        self.assertEqual(self.registry.agents["office"].epoch, 6)
        self.assertEqual(self.registry.servers, {})

    def test_same_epoch(self) -> None:
        """
        An agent whose channel broke unnoticed has the same epoch, and takes
        over too; what its ghost does later hurts nobody.
        """
        script, _ = self.again(5)
        (
            script
            << RelaySays(
                Goodbye(code="superseded", reason="the agent is back, from 198.51.100.8:40001")
            )
            << HangsUp("superseded: the agent is back, from 198.51.100.8:40001")
            << ClosesPort(20000)
            << LetsIn(15.0, "back")
            << RelaySays(WELCOME, "back")
            >> self.ghost.lost("gone")
        )
        self.assertEqual(self.registry.agents["office"].peer, "198.51.100.8:40001")

    def test_stale_epoch(self) -> None:
        """
        An agent that was started earlier than the one that is here is denied,
        and the one that is here stays.
        """
        script, _ = self.again(4)
        (
            script
            << RelaySays(
                Denied(
                    code="stale-epoch",
                    reason="an agent office that was started later is connected"
                    " from 198.51.100.7:40000",
                    retry_after=60.0,
                ),
                "back",
            )
            << HangsUp("denied: stale-epoch", "back")
        )
        self.assertEqual(self.registry.agents["office"].epoch, 5)
        self.assertEqual(list(self.registry.servers), ["web"])


class PublishingTests(RelayTestCase):
    """
    S3 and S4.
    """

    limits = Limits(servers_per_agent=2)

    def setUp(self) -> None:
        super().setUp()
        self.stay = self.let_in()

    def rejected(self, message: Register, code: str, reason: object) -> Script:
        """
        A server that is turned down.
        """
        return (
            self.script
            >> AgentSays(message)
            << RelaySays(
                Rejected(connection_id=message.connection_id, code=code, reason=reason)  # type: ignore[arg-type]
            )
        )

    def test_registered(self) -> None:
        """
        A server is confirmed, and the standing request follows.
        """
        (
            self.script
            >> AgentSays(Register(connection_id="web"))
            << RelaySays(Registered(connection_id="web", reach=("web by name",)))
            << RelaySays(StandingRequest(connection_id="web"))
        )
        self.assertEqual(list(self.registry.servers), ["web"])

    def test_not_allowed(self) -> None:
        """
        A server that the account does not cover is rejected; the others stay.
        """
        self.publish("web")
        self.rejected(
            Register(connection_id="mail"),
            "not-allowed",
            "the account office may not publish mail",
        )
        self.publish("files.office")
        self.assertEqual(list(self.registry.servers), ["web", "files.office"])

    def test_port_not_allowed(self) -> None:
        """
        A port outside the account's or the relay's range is rejected.
        """
        self.rejected(
            Register(connection_id="web", reach=("port:20003",)),
            "not-allowed",
            "the account office may not use the port 20003",
        )
        self.rejected(
            Register(connection_id="web", reach=("port:80",)),
            "not-allowed",
            "servers at this relay may have the ports 20000-20003, not 80",
        )

    def test_invalid(self) -> None:
        """
        What can be no name or no way is rejected, and the agent stays.
        """
        self.rejected(Register(connection_id="-"), "invalid", Blank(str))
        self.rejected(Register(connection_id="web", reach=("door:1",)), "invalid", Blank(str))
        self.rejected(Register(connection_id="web", allow=("all",)), "invalid", Blank(str))
        self.publish("web")

    def test_unsupported(self) -> None:
        """
        What this relay cannot do is rejected as such.
        """
        for message in (
            Register(connection_id="web", protocol="udp"),
            Register(connection_id="web", data="carrier"),
        ):
            self.rejected(message, "unsupported", Blank(str))

    def test_limit(self) -> None:
        """
        An agent publishes so many servers; one that it has may come anew.
        """
        self.publish("web")
        self.publish("a.office")
        self.rejected(
            Register(connection_id="b.office"), "limit", "an agent publishes 2 servers at most"
        )
        self.publish("web", "host:web.example")

    def test_conflict(self) -> None:
        """
        A connection ID belongs to the agent that came first; its server and
        the other agent stay.
        """
        self.publish("web")
        other = Hello(version=1, agent="home", secret="s3cret", epoch=1)
        self.let_in("home", other)
        (
            self.script
            >> AgentSays(Register(connection_id="web"), "home")
            << RelaySays(
                Rejected(
                    connection_id="web", code="conflict", reason="another agent publishes web"
                ),
                "home",
            )
        )
        self.assertEqual(self.registry.servers["web"].agent.agent_id, "office")
        self.assertEqual(sorted(self.registry.agents), ["home", "office"])

    def test_port(self) -> None:
        """
        The relay listens on a port before it says that clients come there.
        """
        registered, standing = published("web", "name", "port:20001")
        (
            self.script
            >> AgentSays(Register(connection_id="web", reach=("name", "port:20001")))
            << OpensPort(20001)
            << registered
            << standing
        )

    def test_any_port(self) -> None:
        """
        Of the ports that are free, the agent gets one that can be had.
        """
        self.ports.taken.add(20000)
        registered, standing = published("web", "port:20001")
        (
            self.script
            >> AgentSays(Register(connection_id="web", reach=("port:0",)))
            << OpensPort(20001)
            << registered
            << standing
        )

    def test_any_port_beside_a_certain_one(self) -> None:
        """
        Any port is another than the one that was named beside it, and all is
        given back in the end.
        """
        registered, standing = published("web", "port:20000", "port:20001")
        message = Register(connection_id="web", reach=("port:20000", "port:0"))
        (
            self.script
            >> AgentSays(message)
            << OpensPort(20000)
            << OpensPort(20001)
            << registered
            << standing
            >> AgentSays(message)
            << registered
            << standing
            >> self.stay.lost("gone")
            << ClosesPort(20000)
            << ClosesPort(20001)
        )
        self.assertEqual(self.registry.agents, {})

    def test_port_taken(self) -> None:
        """
        A port that somebody else has is rejected, and nothing is published.
        """
        self.ports.taken.add(20000)
        self.rejected(
            Register(connection_id="web", reach=("port:20000",)),
            "port-taken",
            "the port 20000 is in use",
        )
        self.assertEqual(self.registry.servers, {})

    def test_published_anew(self) -> None:
        """
        A server that is published again keeps the port that it wants still,
        and gives back the other.
        """
        first = published("web", "port:20000", "port:20001")
        second = published("web", "port:20001", "port:20002")
        (
            self.script
            >> AgentSays(Register(connection_id="web", reach=("port:20000", "port:20001")))
            << OpensPort(20000)
            << OpensPort(20001)
            << first[0]
            << first[1]
            >> AgentSays(Register(connection_id="web", reach=("port:20001", "port:20002")))
            << OpensPort(20002)
            << ClosesPort(20000)
            << second[0]
            << second[1]
        )
        self.assertEqual(self.ports.open_now, {20001, 20002})

    def test_withdraw(self) -> None:
        """
        A server that the agent withdraws does not exist any more, and its
        port is closed.
        """
        registered, standing = published("web", "port:20000")
        (
            self.script
            >> AgentSays(Register(connection_id="web", reach=("port:20000",)))
            << OpensPort(20000)
            << registered
            << standing
            >> AgentSays(Withdraw(connection_id="web"))
            << ClosesPort(20000)
            << RelaySays(Withdrawn(connection_id="web"))
        )
        self.assertEqual(self.registry.servers, {})
        self.assertIs(self.registry.missing("host", "web.relay.example").code, Code.NO_SUCH_SERVER)

    def test_withdraw_nothing(self) -> None:
        """
        Withdrawing what is not published is no fault.
        """
        (
            self.script
            >> AgentSays(Withdraw(connection_id="web"))
            << RelaySays(Withdrawn(connection_id="web"))
        )

    def test_withdraw_of_another(self) -> None:
        """
        Nobody withdraws the server of another agent.
        """
        self.publish("web")
        self.let_in("home", Hello(version=1, agent="home", secret="s3cret", epoch=1))
        (
            self.script
            >> AgentSays(Withdraw(connection_id="web"), "home")
            << RelaySays(Withdrawn(connection_id="web"), "home")
        )
        self.assertEqual(list(self.registry.servers), ["web"])

    def test_second_hello(self) -> None:
        """
        Who was let in does not say so again.
        """
        self.script >> AgentSays(HELLO) << Breaks("Hello may not be sent now")


class RateTests(RelayTestCase):
    """
    How often an agent is told of clients.
    """

    limits = Limits(notify_rate=0.01, notify_burst=1)

    def test_published_anew(self) -> None:
        """
        A server that is published again has no new burst for its clients.
        """
        self.let_in()
        self.publish("web")
        client, other = self.client("web"), self.client("web", "203.0.113.10:50001")
        (
            self.script
            >> client.seek()
            << RelaySays(notified(1))
            >> client.leave()
            << RelaySays(Cancel(session=1))
        )
        self.publish("web")
        (self.script >> other.seek() << Pauses("203.0.113.10:50001", True) >> other.leave())

    def test_withdrawn(self) -> None:
        """
        A server that was withdrawn leaves nothing behind that would count
        against a later one of its name.
        """
        self.let_in()
        self.publish("web")
        client = self.client("web")
        (
            self.script
            >> client.seek()
            << RelaySays(notified(1))
            >> client.leave()
            << RelaySays(Cancel(session=1))
            >> AgentSays(Withdraw(connection_id="web"))
            << RelaySays(Withdrawn(connection_id="web"))
        )
        self.publish("web")
        client = self.client("web")
        (
            self.script
            >> client.seek()
            << RelaySays(notified(2))
            >> client.leave()
            << RelaySays(Cancel(session=2))
        )


class RightsTests(RelayTestCase):
    """
    The account of an agent changes while it is here.
    """

    def test_withdrawn(self) -> None:
        """
        What is allowed no more is withdrawn, name or port, and the rest stays.
        """
        stay = self.let_in()
        self.publish("web")
        for name, port in (("a.office", 20000), ("b.office", 20001)):
            registered, standing = published(name, f"port:{port}")
            (
                self.script
                >> AgentSays(Register(connection_id=name, reach=(f"port:{port}",)))
                << OpensPort(port)
                << registered
                << standing
            )

        def withdrawn(name: str, reason: str) -> RelaySays:
            return RelaySays(Withdrawn(connection_id=name, code="not-allowed", reason=reason))

        (
            self.script
            >> stay.rights_changed(Rights(("*.office",), ((20001, 20001),)))
            << withdrawn("web", "the account office may not publish web")
            << ClosesPort(20000)
            << withdrawn("a.office", "the account office may not use its port any more")
        )
        self.assertEqual(list(self.registry.servers), ["b.office"])
        self.assertIs(self.registry.missing("host", "web").code, Code.NO_SUCH_SERVER)

    def test_claim_is_taken(self) -> None:
        """
        A server whose host name is not its account's any more is withdrawn,
        with the command that would allow it; it is back as soon as it may be,
        unless its agent wants it no more.
        """
        stay = self.let_in()
        names = Register(connection_id="web", reach=("host:web.example",))
        registered, standing = published("web", "host:web.example")
        less, withdrawn = (
            Rights(("web",)),
            RelaySays(
                Withdrawn(
                    connection_id="web",
                    code="not-allowed",
                    reason="the account office may not claim web.example; 'relaytunnel grant"
                    " office --host web.example' at the relay allows it",
                )
            ),
        )
        self.script >> AgentSays(names) << registered << standing
        self.script >> stay.rights_changed(less) << withdrawn
        agent = self.registry.agents["office"]
        self.assertEqual(agent.refused_claims, ["web.example"])
        self.script >> stay.rights_changed(RIGHTS) << registered << standing
        self.assertEqual(agent.refused_claims, [])
        self.script >> stay.rights_changed(less) << withdrawn
        gone = RelaySays(Withdrawn(connection_id="web"))
        self.script >> AgentSays(Withdraw(connection_id="web")) << gone
        self.script >> stay.rights_changed(RIGHTS)
        self.assertEqual(self.registry.servers, {})

    def test_granted(self) -> None:
        """
        A server that was refused is published when its account allows it; one
        that still is not is not refused again and again.
        """
        stay = self.let_in()
        asked = [
            Register(connection_id="web", reach=("sni:shop.example",)),
            Register(connection_id="a.office", reach=("host:*.shop.example",)),
        ]
        for message, claim in zip(asked, ("shop.example", "'*.shop.example'"), strict=True):
            name = claim.strip("'")
            reason = (
                f"the account office may not claim {name}; 'relaytunnel grant office --host"
                f" {claim}' at the relay allows it"
            )
            rejected = Rejected(
                connection_id=message.connection_id, code="not-allowed", reason=reason
            )
            self.script >> AgentSays(message) << RelaySays(rejected)
        registered, standing = published("web", "sni:shop.example")
        more = Rights(("web", "*.office"), hosts=("shop.example",))
        self.script >> stay.rights_changed(more) << registered << standing
        self.script >> stay.rights_changed(more)
        self.assertEqual(self.registry.agents["office"].refused_claims, ["*.shop.example"])

    def test_from_now_on(self) -> None:
        """
        What is published later is measured by the new rights.
        """
        stay = self.let_in()
        (
            self.script
            >> stay.rights_changed(Rights(("mail",)))
            >> AgentSays(Register(connection_id="web"))
            << RelaySays(
                Rejected(
                    connection_id="web",
                    code="not-allowed",
                    reason="the account office may not publish web",
                )
            )
        )
        self.publish("mail")

    def test_found_in_the_registry(self) -> None:
        """
        Who changes accounts reaches the stay through the registry.
        """
        self.let_in()
        self.publish("web")
        agent = Cues("agent", self.registry.agents["office"])
        (
            self.script
            >> agent.recheck(Rights())
            << RelaySays(
                Withdrawn(
                    connection_id="web",
                    code="not-allowed",
                    reason="the account office may not publish web",
                )
            )
            >> agent.dismiss(Code.REVOKED, "the account was revoked")
            << RelaySays(Goodbye(code="revoked", reason="the account was revoked"))
            << HangsUp("revoked: the account was revoked")
        )


class AnsweringTests(RelayTestCase):
    """
    S8 and S9: what the agent says of a client.
    """

    def setUp(self) -> None:
        super().setUp()
        self.stay = self.let_in()
        self.publish("web")
        self.visitor = self.client("web")
        self.script >> self.visitor.seek() << RelaySays(notified(1))

    def finish(self) -> None:
        """
        Let the client go.
        """
        self.script >> self.visitor.leave() << RelaySays(Cancel(session=1))

    def test_accept(self) -> None:
        """
        An agent that is on its way changes nothing to be seen.
        """
        self.script >> AgentSays(Accept(session=1))
        self.finish()

    def test_refuse(self) -> None:
        """
        The client learns the agent's reason.
        """
        (
            self.script
            >> AgentSays(Refuse(session=1, code="refused-by-target", reason="it is down"))
            << Tells("203.0.113.9:50000", Failing(Code.REFUSED_BY_TARGET, "it is down"))
        )

    def test_refuse_in_unknown_words(self) -> None:
        """
        A code that this relay does not know is an internal fault to it.
        """
        (
            self.script
            >> AgentSays(Refuse(session=1, code="out-of-ink", reason="no paper"))
            << Tells("203.0.113.9:50000", Failing(Code.INTERNAL, "no paper"))
        )

    def test_no_such_session(self) -> None:
        """
        What an agent says of a session that is over comes late, and is let
        pass.
        """
        self.finish()
        (
            self.script
            >> AgentSays(Accept(session=1))
            >> AgentSays(Refuse(session=1, code="busy", reason=""))
            >> AgentSays(Accept(session=77))
        )

    def test_session_of_another(self) -> None:
        """
        An agent that meddles with another's session breaks the protocol, and
        the client waits on.
        """
        self.let_in("home", Hello(version=1, agent="home", secret="s3cret", epoch=1))
        (
            self.script
            >> AgentSays(Accept(session=1), "home")
            << Breaks("session 1 is not this agent's")
            >> AgentSays(Refuse(session=1, code="busy", reason=""), "home")
            << Breaks("session 1 is not this agent's")
        )
        self.assertEqual(self.relay.visits.refusals, {})
        self.finish()

    def test_heard_after_a_break(self) -> None:
        """
        An agent that broke the protocol still leaves in good order.
        """
        home = self.let_in("home", Hello(version=1, agent="home", secret="s3cret", epoch=1))
        (
            self.script
            >> AgentSays(Accept(session=1), "home")
            << Breaks("session 1 is not this agent's")
            >> home.lost("gone")
        )
        self.assertEqual(list(self.registry.agents), ["office"])
        self.finish()


class LeavingTests(RelayTestCase):
    """
    The end of a stay.
    """

    def setUp(self) -> None:
        super().setUp()
        self.stay = self.let_in()
        registered, standing = published("web", "port:20000", "name")
        (
            self.script
            >> AgentSays(Register(connection_id="web", reach=("port:20000", "name")))
            << OpensPort(20000)
            << registered
            << standing
            >> self.client("web").seek()
            << RelaySays(notified(1))
        )

    away = Tells("203.0.113.9:50000", Failing(Code.AGENT_AWAY, "the agent office went away"))

    def test_lost(self) -> None:
        """
        When the control channel is lost the ports close, the clients that wait
        are told, and the names are remembered as those of one who is away.
        """
        self.script >> self.stay.lost("gone") << ClosesPort(20000) << self.away
        self.assertEqual((self.registry.agents, self.registry.servers), ({}, {}))
        self.assertIs(self.registry.missing("host", "web.relay.example").code, Code.AGENT_AWAY)

    def test_goodbye(self) -> None:
        """
        An agent that says goodbye is hung up on, and the same follows.
        """
        (
            self.script
            >> AgentSays(Goodbye(code="shutdown", reason="the agent stops"))
            << HangsUp("the agent said shutdown")
            << ClosesPort(20000)
            << self.away
        )
        self.assertEqual(self.registry.agents, {})

    def test_dismissed(self) -> None:
        """
        An agent that has to go is told why, and the same follows.
        """
        (
            self.script
            >> self.stay.dismiss(Code.SHUTDOWN, "x" * 300)
            << RelaySays(Goodbye(code="shutdown", reason="x" * 256))
            << HangsUp(f"shutdown: {'x' * 300}")
            << ClosesPort(20000)
            << self.away
        )
        self.assertEqual(self.registry.agents, {})

    def test_late(self) -> None:
        """
        What was on its way when a stay ended does nothing, and its end neither.
        """
        self.script >> self.stay.lost("gone") << ClosesPort(20000) << self.away
        for message in (*OUT_OF_TURN, Goodbye(code="shutdown")):
            self.script >> AgentSays(message)
        for event in (
            self.stay.known(RIGHTS),
            self.stay.unknown(Code.AUTH, "nobody knows it", 60.0),
            self.stay.rights_changed(Rights()),
            self.stay.dismiss(Code.REVOKED, "the account was revoked"),
            self.stay.lost("gone"),
        ):
            self.script >> event
        self.assertEqual(self.registry.agents, {})

    def test_hello_afterwards(self) -> None:
        """
        No stay begins twice.
        """
        (
            self.script
            >> self.stay.lost("gone")
            << ClosesPort(20000)
            << self.away
            >> AgentSays(HELLO)
            << Breaks("Hello may not be sent now")
        )


class SessionTests(RelayTestCase):
    """
    The session as the control channel sees it.
    """

    def test_lost(self) -> None:
        """
        The control channel says that it is gone, and the stay is over.
        """
        session = AgentSession(self.relay, FakeAgentDoor(self.script))
        self.script.on(AgentSays, "", session.received)
        (
            self.script
            >> AgentSays(HELLO)
            << Asks("office", "s3cret")
            >> Cues("session", session).lost("gone")
            >> Cues("stay", session.stay).known(RIGHTS)
        )
        self.assertEqual(self.registry.agents, {})

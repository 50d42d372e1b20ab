"""
Tests for L{relaytunnel.agent.session}.
"""

from __future__ import annotations

from relaytunnel.agent.backoff import Backoff
from relaytunnel.agent.servers import Servers
from relaytunnel.agent.session import AgentState, RelaySession
from relaytunnel.config.access import networks
from relaytunnel.config.names import Reach
from relaytunnel.config.server import ServerConfig
from relaytunnel.errors import Code, Rejection
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
    Restarting,
    StandingRequest,
    Welcome,
    Withdraw,
    Withdrawn,
)
from tests.script import (
    AgentSays,
    Begins,
    Breaks,
    CallsOff,
    Compares,
    Cues,
    FakeRelayDoor,
    HangsUp,
    IsDenied,
    IsIn,
    NotPublished,
    Published,
    RelaySays,
    Script,
    ScriptedTestCase,
    StopsComparing,
    ticket,
)

HELLO = Hello(version=1, agent="office", secret="s3cret", epoch=5, software="agent 1")
WELCOME = Welcome(relay="relay.example", node="north", sessions=4096, ping=15.0)
NOTIFY = Notify(
    session=1,
    connection_id="web",
    ticket=ticket(1),
    client="203.0.113.9:50000",
    arrived="host:web.example",
)

OUT_OF_TURN: tuple[Message, ...] = (
    Registered(connection_id="web"),
    StandingRequest(connection_id="web"),
    Rejected(connection_id="web", code="conflict", reason=""),
    Withdrawn(connection_id="web"),
    NOTIFY,
    Cancel(session=1),
    Restarting(reconnect_in=5.0, try_for=60.0),
)
"""What a relay may only say to an agent that it has let in."""


class AgentTestCase(ScriptedTestCase):
    """
    An agent with two servers, which dials a relay.
    """

    def setUp(self) -> None:
        super().setUp()
        self.backoff = Backoff(self.clock.seconds, lambda: 1.0)
        self.state = AgentState(
            "office",
            "s3cret",
            5,
            "agent 1",
            Servers(
                [
                    ServerConfig(
                        id="web", target="tcp:127.0.0.1:8080", allow=networks(["203.0.113.8/31"])
                    ),
                    ServerConfig(
                        id="ssh",
                        target="tcp:127.0.0.1:22",
                        reach=(Reach("port", "20000"),),
                        data="plain",
                    ),
                ]
            ),
            self.backoff,
        )
        self.session = self.dial()

    def dial(self) -> Cues:
        """
        The agent dials the relay.

        @return: C{connected()} and C{lost(reason)}.
        """
        session = RelaySession(self.state, FakeRelayDoor(self.script))
        self.script.on(RelaySays, "", session.received)
        return Cues("channel", session)

    def let_in(self) -> Script:
        """
        S1 to S3.
        """
        return (
            self.script
            >> self.session.connected()
            << AgentSays(HELLO)
            >> RelaySays(WELCOME)
            << IsIn("relay.example", 15.0)
            << AgentSays(Register(connection_id="web", allow=("203.0.113.8/31",)))
            << AgentSays(Register(connection_id="ssh", reach=("port:20000",), data="plain"))
        )

    def publish(self, name: str = "web") -> Script:
        """
        S4 of a server.
        """
        return (
            self.script
            >> RelaySays(Registered(connection_id=name, reach=(f"http://{name}.example",)))
            >> RelaySays(StandingRequest(connection_id=name))
            << Published(name, (f"http://{name}.example",))
        )


class GreetingTests(AgentTestCase):
    """
    S1 and S2.
    """

    def test_hello(self) -> None:
        """
        When the channel stands the agent says who it is, and only then.
        """
        (
            self.script
            >> self.session.connected()
            << AgentSays(
                Hello(version=1, agent="office", secret="s3cret", epoch=5, software="agent 1")
            )
        )

    def test_too_early(self) -> None:
        """
        A relay that speaks before Hello breaks the protocol.
        """
        for message in (
            WELCOME,
            Denied(code="auth", reason=""),
            Goodbye(code="shutdown"),
            *OUT_OF_TURN,
        ):
            name = type(message).__name__
            self.script >> RelaySays(message) << Breaks(f"{name} may not be sent now")

    def test_out_of_turn(self) -> None:
        """
        Nothing comes before the welcome but a denial or a goodbye.
        """
        self.script >> self.session.connected() << AgentSays(HELLO)
        for message in OUT_OF_TURN:
            name = type(message).__name__
            self.script >> RelaySays(message) << Breaks(f"{name} may not be sent now")

    def test_wrong_direction(self) -> None:
        """
        What only an agent says is not taken from a relay, whenever it comes.
        """
        self.script >> RelaySays(HELLO) << Breaks("a relay does not send Hello")
        self.let_in()
        for message in (
            HELLO,
            Register(connection_id="web"),
            Withdraw(connection_id="web"),
            Accept(session=1),
            Refuse(session=1, code="busy", reason=""),
        ):
            name = type(message).__name__
            self.script >> RelaySays(message) << Breaks(f"a relay does not send {name}")

    def test_welcome(self) -> None:
        """
        The agent is in, and registers its servers as they are configured.
        """
        (
            self.script
            >> self.session.connected()
            << AgentSays(HELLO)
            >> RelaySays(WELCOME)
            << IsIn("relay.example", 15.0)
            << AgentSays(Register(connection_id="web", allow=("203.0.113.8/31",)))
            << AgentSays(Register(connection_id="ssh", reach=("port:20000",), data="plain"))
        )

    def test_second_welcome(self) -> None:
        """
        An agent is welcomed once, and is not denied any more.
        """
        (
            self.let_in()
            >> RelaySays(WELCOME)
            << Breaks("Welcome may not be sent now")
            >> RelaySays(Denied(code="auth", reason="nobody knows it"))
            << Breaks("Denied may not be sent now")
        )

    def test_healthy(self) -> None:
        """
        A minute after the welcome the failures of before are forgotten.
        """
        self.assertEqual([self.backoff.delay() for _ in range(3)], [0.5, 1.0, 2.0])
        self.let_in()
        self.script >> self.passes.advance(60.0)
        self.assertEqual(self.backoff.delay(), 0.5)

    def test_denied(self) -> None:
        """
        An agent that is denied says so, hangs up, and waits as long as it was
        told to.
        """
        (
            self.script
            >> self.session.connected()
            << AgentSays(HELLO)
            >> RelaySays(Denied(code="auth", reason="nobody knows it", retry_after=60.0))
            << IsDenied("auth", "nobody knows it")
            << HangsUp("denied: auth")
            >> self.session.lost("denied: auth")
        )
        self.assertEqual(self.backoff.delay(), 120.0)

    def test_goodbye(self) -> None:
        """
        A relay may say goodbye instead of a welcome.
        """
        (
            self.script
            >> self.session.connected()
            << AgentSays(HELLO)
            >> RelaySays(Goodbye(code="shutdown", reason="the relay stops"))
            << HangsUp("the relay said shutdown")
            >> self.session.lost("the relay said shutdown")
        )
        self.assertEqual(self.backoff.delay(), 0.5)

    def test_lost(self) -> None:
        """
        The channel may be lost before anything was said, or after Hello.
        """
        self.script >> self.session.lost("gone")
        again = self.dial()
        self.script >> again.connected() << AgentSays(HELLO) >> again.lost("gone")


class PublishingTests(AgentTestCase):
    """
    S3 and S4.
    """

    def setUp(self) -> None:
        super().setUp()
        self.let_in()

    def test_published(self) -> None:
        """
        A server is published when the standing request for it has come.
        """
        (
            self.script
            >> RelaySays(Registered(connection_id="web", reach=("http://web.example",)))
            >> RelaySays(StandingRequest(connection_id="web"))
            << Published("web", ("http://web.example",))
        )
        web, ssh = self.state.servers
        self.assertEqual((web.registered, web.endpoints), (True, ("same",)))
        self.assertEqual((ssh.registered, ssh.endpoints), (False, ()))

    def test_standing_request_first(self) -> None:
        """
        A standing request for a server that was not confirmed means nothing.
        """
        self.script >> RelaySays(StandingRequest(connection_id="web"))
        self.assertEqual([server.endpoints for server in self.state.servers], [(), ()])

    def test_strange_server(self) -> None:
        """
        What the relay says of servers that this agent does not have, or has
        withdrawn meanwhile, means nothing.
        """
        (
            self.script
            >> RelaySays(Registered(connection_id="mail"))
            >> RelaySays(StandingRequest(connection_id="mail"))
            >> RelaySays(Rejected(connection_id="mail", code="conflict", reason=""))
            >> RelaySays(Withdrawn(connection_id="mail"))
        )
        self.assertIsNone(self.state.servers.get("mail"))

    def test_rejected(self) -> None:
        """
        A server that is rejected is told of; the other is published.
        """
        (
            self.script
            >> RelaySays(Rejected(connection_id="web", code="conflict", reason="taken"))
            << NotPublished("web", "conflict", "taken")
        )
        self.publish("ssh")

    def test_withdrawn(self) -> None:
        """
        A server that the relay withdraws takes no clients any more.
        """
        self.publish()
        (
            self.script
            >> RelaySays(Withdrawn(connection_id="web", code="not-allowed", reason="revoked"))
            << NotPublished("web", "not-allowed", "revoked")
            >> RelaySays(NOTIFY)
            << AgentSays(
                Refuse(session=1, code="unknown-id", reason="this agent has not registered web")
            )
        )

    def test_withdrawn_and_back(self) -> None:
        """
        With a server its standing request is void; when the relay confirms it
        once more, another has to come before clients are served.
        """
        self.publish()
        (
            self.script
            >> RelaySays(Withdrawn(connection_id="web"))
            << NotPublished("web", "withdrawn", "")
            >> RelaySays(Registered(connection_id="web"))
            >> RelaySays(NOTIFY)
            << AgentSays(
                Refuse(
                    session=1,
                    code="not-allowed",
                    reason="the standing request does not name this data endpoint",
                )
            )
        )

    def test_published_later(self) -> None:
        """
        A server that is added while the agent runs is confirmed like the
        others, and registered anew on the next channel.
        """
        self.state.servers.add(ServerConfig(id="mail", target="tcp:127.0.0.1:25"))
        self.publish("mail")
        self.script >> self.session.lost("gone")
        self.session = self.dial()
        self.let_in() << AgentSays(Register(connection_id="mail"))


class NotifyTests(AgentTestCase):
    """
    S7 and S8.
    """

    def setUp(self) -> None:
        super().setUp()
        self.let_in()
        self.publish()

    def refused(self, notify: Notify, code: str, reason: str) -> None:
        """
        A client that is refused without anything being dialled.
        """
        (
            self.script
            >> RelaySays(notify)
            << AgentSays(Refuse(session=notify.session, code=code, reason=reason))
        )
        self.assertNotIn(notify.session, self.state.visits)

    def test_served(self) -> None:
        """
        A client of a server of ours is served.
        """
        self.script >> RelaySays(NOTIFY) << Begins(1, "web")
        self.assertEqual(list(self.state.visits), [1])

    def test_not_registered(self) -> None:
        """
        A connection ID that is ours but not confirmed, or none of ours, is
        refused.
        """
        for number, name in enumerate(("ssh", "mail"), 1):
            self.refused(
                Notify(
                    session=number,
                    connection_id=name,
                    ticket=ticket(number),
                    client="203.0.113.9:50000",
                    arrived="name",
                ),
                "unknown-id",
                f"this agent has not registered {name}",
            )

    def test_other_endpoint(self) -> None:
        """
        The relay cannot make the agent dial what the standing request did not
        name.
        """
        self.refused(
            Notify(
                session=1,
                connection_id="web",
                ticket=ticket(1),
                client="203.0.113.9:50000",
                arrived="host:web.example",
                endpoint="tcp:192.0.2.66:25",
            ),
            "not-allowed",
            "the standing request does not name this data endpoint",
        )

    def test_other_network(self) -> None:
        """
        The agent looks itself whether a client may come in.
        """
        self.refused(
            Notify(
                session=1,
                connection_id="web",
                ticket=ticket(1),
                client="203.0.113.10:50000",
                arrived="host:web.example",
            ),
            "not-allowed",
            "web is not open to clients from 203.0.113.10",
        )

    def test_twice(self) -> None:
        """
        A session is notified once; the visit under way is left alone, and the
        channel is still heard.
        """
        (
            self.script
            >> RelaySays(NOTIFY)
            << Begins(1, "web")
            >> RelaySays(NOTIFY)
            << Breaks("session 1 is notified twice")
            >> RelaySays(Cancel(session=1))
            << CallsOff(1)
        )

    def test_cancel(self) -> None:
        """
        A client that went away is called off, and nobody else.
        """
        second = Notify(
            session=2,
            connection_id="web",
            ticket=ticket(2),
            client="203.0.113.8:50001",
            arrived="host:web.example",
        )
        (
            self.script
            >> RelaySays(NOTIFY)
            << Begins(1, "web")
            >> RelaySays(second)
            << Begins(2, "web")
            >> RelaySays(Cancel(session=2))
            << CallsOff(2)
        )

    def test_cancel_late(self) -> None:
        """
        A client that was refused already, or is long over, cannot be called
        off.
        """
        self.script >> RelaySays(Cancel(session=1)) >> RelaySays(Cancel(session=77))


class PasswordTests(AgentTestCase):
    """
    S8 of a server that asks its clients for a password: the agent looks at it
    itself.
    """

    def setUp(self) -> None:
        super().setUp()
        self.let_in()
        self.state.servers.add(
            ServerConfig(
                id="safe", target="tcp:127.0.0.1:80", users=(("alice", "sha256:" + "0f" * 32),)
            )
        )
        self.publish("safe")
        self.publish("web")

    def door(self) -> FakeRelayDoor:
        """
        Dial anew with a door of which the test has hold.
        """
        self.script >> self.session.lost("gone")
        door = FakeRelayDoor(self.script)
        session = RelaySession(self.state, door)
        self.script.on(RelaySays, "", session.received)
        self.session = Cues("channel", session)
        (
            self.let_in()
            << AgentSays(Register(connection_id="safe", users=(("alice", "sha256:" + "0f" * 32),)))
        )
        self.publish("safe")
        return door

    def notify(self, session: int = 1, password: str = "pass") -> RelaySays:
        """
        A client that says it is C{alice}.
        """
        return RelaySays(
            Notify(
                session=session,
                connection_id="safe",
                ticket=ticket(session),
                client="203.0.113.9:50000",
                arrived="name:safe",
                user="alice",
                password=password,
            )
        )

    def test_right(self) -> None:
        """
        Nothing is begun before the password was looked at.
        """
        door = self.door()
        self.script >> self.notify() << Compares("alice", "pass")
        self.assertEqual(self.state.visits, {})
        self.script >> Cues("door", door).compared(None) << Begins(1, "safe")
        self.assertEqual((list(self.state.visits), self.state.comparing), ([1], set()))

    def test_wrong(self) -> None:
        """
        With a wrong one nothing is begun at all.
        """
        door = self.door()
        wrong = Rejection(Code.LOGIN_NEEDED, "the user name or the password is wrong")
        (
            self.script
            >> self.notify(password="guess")
            << Compares("alice", "guess")
            >> Cues("door", door).compared(wrong)
            << AgentSays(
                Refuse(
                    session=1, code="login-needed", reason="the user name or the password is wrong"
                )
            )
        )
        self.assertEqual((self.state.visits, self.state.comparing), ({}, set()))

    def test_not_asked(self) -> None:
        """
        A server without users has none to compare with, whatever the relay
        says of its client.
        """
        (
            self.script
            >> RelaySays(
                Notify(
                    session=1,
                    connection_id="web",
                    ticket=ticket(1),
                    client="203.0.113.9:50000",
                    arrived="name:web",
                    user="alice",
                    password="pass",
                )
            )
            << Begins(1, "web")
        )

    def test_checked_first(self) -> None:
        """
        Who is not served anyway has its password looked at by nobody.
        """
        (
            self.script
            >> RelaySays(Withdrawn(connection_id="safe"))
            << NotPublished("safe", "withdrawn", "")
        )
        (
            self.script
            >> self.notify()
            << AgentSays(
                Refuse(session=1, code="unknown-id", reason="this agent has not registered safe")
            )
        )

    def test_cancelled_meanwhile(self) -> None:
        """
        A client that leaves meanwhile is neither served nor refused.
        """
        door = self.door()
        (
            self.script
            >> self.notify()
            << Compares("alice", "pass")
            >> RelaySays(Cancel(session=1))
            << StopsComparing(1)
            >> Cues("door", door).compared(None)
        )
        self.assertEqual((self.state.visits, self.state.comparing), ({}, set()))

    def test_users_changed_meanwhile(self) -> None:
        """
        A password that was right by users whom the server has no more is of no
        use.
        """
        door = self.door()
        self.script >> self.notify() << Compares("alice", "pass")
        self.state.servers.add(
            ServerConfig(
                id="safe", target="tcp:127.0.0.1:80", users=(("alice", "sha256:" + "1e" * 32),)
            )
        )
        self.publish("safe")
        (
            self.script
            >> Cues("door", door).compared(None)
            << AgentSays(
                Refuse(
                    session=1,
                    code="login-needed",
                    reason="its users have changed; try once more",
                )
            )
        )
        self.assertEqual((self.state.visits, self.state.comparing), ({}, set()))

    def test_lost_meanwhile(self) -> None:
        """
        Nor is one whose relay is gone meanwhile, whatever its password.
        """
        door = self.door()
        wrong = Rejection(Code.LOGIN_NEEDED, "wrong")
        (
            self.script
            >> self.notify()
            << Compares("alice", "pass")
            >> self.session.lost("gone")
            << StopsComparing(1)
            >> Cues("door", door).compared(None)
            >> Cues("door", door).compared(wrong)
        )
        self.assertEqual((self.state.visits, self.state.comparing), ({}, set()))

    def test_twice_meanwhile(self) -> None:
        """
        A session is notified once, also while its password is looked at; the
        first time still counts.
        """
        door = self.door()
        compared = Cues("door", door).compared
        (
            self.script
            >> self.notify()
            << Compares("alice", "pass")
            >> self.notify(password="guess")
            << Breaks("session 1 is notified twice")
            >> compared(None)
            << Begins(1, "safe")
            >> self.notify()
            << Breaks("session 1 is notified twice")
        )

    def test_side_by_side(self) -> None:
        """
        Each client has its own answer, in whatever order they come.
        """
        door = self.door()
        self.script >> self.notify(1) << Compares("alice", "pass")
        first = door.compared
        self.script >> self.notify(2, "guess") << Compares("alice", "guess")
        wrong = Rejection(Code.LOGIN_NEEDED, "wrong")
        (
            self.script
            >> Cues("door", door).compared(wrong)
            << AgentSays(Refuse(session=2, code="login-needed", reason="wrong"))
        )
        door.compared = first
        self.script >> Cues("door", door).compared(None) << Begins(1, "safe")


class PartingTests(AgentTestCase):
    """
    The end of a control channel.
    """

    def setUp(self) -> None:
        super().setUp()
        self.let_in()
        self.publish()

    def test_restarting(self) -> None:
        """
        A relay that restarts gets its agents back over the time it named.
        """
        self.script >> RelaySays(Restarting(reconnect_in=7.0, try_for=60.0))
        self.assertEqual(self.backoff.delay(), 7.0)

    def test_goodbye(self) -> None:
        """
        The agent hangs up when the relay says goodbye, and comes back soon.
        """
        (
            self.script
            >> RelaySays(Goodbye(code="shutdown", reason="the relay stops"))
            << HangsUp("the relay said shutdown")
            >> self.session.lost("the relay said shutdown")
        )
        self.assertEqual(self.backoff.delay(), 0.5)

    def test_unwelcome(self) -> None:
        """
        An agent that was revoked, or has been superseded, comes back late.
        """
        for code in ("revoked", "superseded"):
            (
                self.script
                >> RelaySays(Goodbye(code=code))
                << HangsUp(f"the relay said {code}")
                >> self.session.lost(f"the relay said {code}")
            )
            self.assertEqual(self.backoff.delay(), 300.0)
            self.session = self.dial()
            self.let_in()

    def test_lost(self) -> None:
        """
        When the channel is lost nothing is registered any more; the visits
        under way go on.
        """
        self.script >> RelaySays(NOTIFY) << Begins(1, "web") >> self.session.lost("gone")
        web = self.state.servers.get("web")
        assert web is not None
        self.assertEqual((web.registered, web.endpoints), (False, ()))
        self.assertEqual(list(self.state.visits), [1])

    def test_back(self) -> None:
        """
        On the next channel everything is registered again, in the same epoch,
        and no client is served before that is confirmed.
        """
        self.script >> self.session.lost("gone")
        self.session = self.dial()
        self.let_in()
        (
            self.script
            >> RelaySays(NOTIFY)
            << AgentSays(
                Refuse(session=1, code="unknown-id", reason="this agent has not registered web")
            )
        )
        self.publish()
        self.script >> RelaySays(NOTIFY) << Begins(1, "web")

    def test_late(self) -> None:
        """
        Nothing that was on its way when the channel was lost is heeded.
        """
        self.script >> self.session.lost("gone")
        for message in (
            WELCOME,
            Denied(code="auth", reason=""),
            Goodbye(code="revoked"),
            *OUT_OF_TURN,
        ):
            self.script >> RelaySays(message)
        self.script >> self.session.connected() >> self.session.lost("gone")
        self.assertEqual(self.state.visits, {})
        self.assertEqual(self.backoff.delay(), 0.5)

    def test_late_after_denial(self) -> None:
        """
        The same when the agent was denied.
        """
        self.script >> self.session.lost("gone")
        self.session = self.dial()
        (
            self.script
            >> self.session.connected()
            << AgentSays(HELLO)
            >> RelaySays(Denied(code="auth", reason="nobody knows it"))
            << IsDenied("auth", "nobody knows it")
            << HangsUp("denied: auth")
            >> RelaySays(WELCOME)
            >> RelaySays(NOTIFY)
            >> self.session.lost("denied: auth")
        )

"""
The agents' port of a real relay among many that mean no good.
"""

from __future__ import annotations

import socket
from itertools import cycle

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater

from relaytunnel.channel.descriptors import descriptor_limit, descriptors_in_use
from relaytunnel.errors import Code
from relaytunnel.relay.service import RelayService
from relaytunnel.wire.data import Kind
from relaytunnel.wire.messages import TICKET_BYTES, Cancel, Denied, Goodbye, Notify, Welcome
from tests.running import HOST, RawControl, RunningCase, eventually, reactor, request

SILENT = 500
_PER_SOURCE = 8
_RECONNECTS = 20


class SilentTests(RunningCase):
    """
    Five hundred connections that say nothing, from as many addresses as they
    need; whoever of them is hung up on comes again.
    """

    timeout = 60

    def setUp(self) -> None:
        super().setUp()
        limit = descriptor_limit()
        # Both ends of each are here.
        if limit is not None and limit < descriptors_in_use() + 2 * SILENT + 400:
            self.skipTest(f"{limit} descriptors are too few for {SILENT} connections")
        self.relay = self.start_relay()
        self.sockets: list[socket.socket] = []
        sources = range(1, 2 + SILENT // _PER_SOURCE)
        self.sources = cycle(f"127.1.0.{number}" for number in sources)
        self.again: IDelayedCall | None = None
        self.addCleanup(self.end)

    def end(self) -> None:
        if self.again is not None:
            self.again.cancel()
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()

    def flood(self) -> None:
        """
        Have as many connections as there are to be, now and from now on.
        """
        still = []
        for sock in self.sockets:
            try:
                closed = sock.recv(1) == b""
            except BlockingIOError:
                closed = False
            except OSError:
                closed = True
            if closed:
                sock.close()
            else:
                still.append(sock)
        while len(still) < SILENT:
            sock = socket.socket()
            sock.bind((next(self.sources), 0))
            sock.setblocking(False)
            sock.connect_ex((HOST, self.relay.facts.agents))
            still.append(sock)
        self.sockets = still
        self.again = reactor.callLater(0.1, self.flood)

    async def flooded(self) -> None:
        self.flood()
        # With as many there as that, four of five strangers are turned away.
        await eventually(lambda: self.relay.agents_port.unauthenticated > 420, "they are there")

    async def enters(self) -> RawControl | None:
        """
        Try to come in once.
        """
        control = await self.raw_control(self.relay)
        if control.ready:
            control.say(self.hello(self.first_invitation(self.relay)))
            await eventually(lambda: control.messages or control.lost, "it is in or not")
            if control.messages:
                return control
        return None

    async def test_reconnects(self) -> None:
        """
        An agent that was there before reconnects at its first try, every time,
        and within a second.
        """
        (await self.raw_agent(self.relay)).abort()
        await self.flooded()
        times = []
        for _ in range(_RECONNECTS):
            began = reactor.seconds()
            control = await self.enters()
            times.append(reactor.seconds() - began)
            assert control is not None
            control.abort()
            await eventually(lambda: not self.relay.registry.agents, "it is gone")
        self.assertGreater(self.relay.agents_port.unauthenticated, 400)
        # The worst one may have met with a busy machine: both ends are here.
        self.assertLess(sorted(times)[-2], 1.0, times)

    async def test_session(self) -> None:
        """
        Data channels come through, and sessions do not notice.
        """
        control = await self.raw_agent(self.relay, "web")
        await self.flooded()
        client, notify = await self.session(self.relay, control)
        data = await self.raw_data(self.relay, notify.ticket)
        await data.hears(b"GET")
        data.say(b"undisturbed")
        await client.hears(b"undisturbed")

    async def test_new_agent(self) -> None:
        """
        An agent that was never there gets in by trying again.
        """
        await self.flooded()
        for _ in range(200):
            if await self.enters() is not None:
                break
        self.assertEqual(set(self.relay.registry.agents), {"first"})
        self.assertGreater(self.relay.agents_port.turned_away["dropped early"], 0)


class KnownTests(RunningCase):
    """
    The address of one agent as the flood, beside another agent.
    """

    async def test_session(self) -> None:
        """
        However many connections it opens and leaves, and opens again, the other
        agent's data channels come through.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        relay.agents_port.admission.remember({"127.0.0.66": 3600.0})
        sockets: list[socket.socket] = []

        def leave() -> None:
            for sock in sockets:
                sock.close()

        self.addCleanup(leave)
        for _ in range(3):
            for _ in range(300):
                sock = socket.socket()
                sock.bind(("127.0.0.66", 0))
                sock.setblocking(False)
                sock.connect_ex((HOST, relay.facts.agents))
                sockets.append(sock)
            await deferLater(reactor, 0.2)
            client, notify = await self.session(relay, control)
            data = await self.raw_data(relay, notify.ticket)
            await data.hears(b"GET")
            client.reset()
        leave()
        admission = relay.agents_port.admission
        await eventually(lambda: not relay.agents_port.unauthenticated, "they are gone")
        self.assertGreater(admission.turned_away["nothing shown"], 300)
        self.assertGreater(admission.turned_away["too many unauthenticated from one source"], 400)


class ResettingTests(RunningCase):
    """
    Clients that connect, name a server and reset, again and again.
    """

    async def test_loop(self) -> None:
        """
        The agent hears of their share of a burst and is told that they are
        gone, the others are queued, and nobody is left in the waiting room.
        """
        relay = self.start_relay({"notify_burst": 80, "notify_rate": 0.01})
        control = await self.raw_agent(relay, "web")

        def told(kind: type[Notify] | type[Cancel]) -> int:
            return sum(isinstance(message, kind) for message in control.messages)

        for number in range(100):
            client = await self.client(relay, request("web"))
            await eventually(
                lambda n=number: told(Notify) > n or relay.visits.room.queued,  # type: ignore[misc]
                "it waits, or is queued",
            )
            client.reset()
        await eventually(lambda: not relay.visits.room.waiting, "nobody waits", 1)
        await eventually(lambda: told(Cancel) == 20, "they are called off")
        self.assertEqual(told(Notify), 20)
        await eventually(lambda: not relay.clients.present, "nobody is here")


class LogTests(RunningCase):
    """
    Those who would have the log tell of them without end.
    """

    def setUp(self) -> None:
        super().setUp()
        self.relay = self.start_relay()
        for log in (
            self.relay.clients.refused,
            self.relay.agents_port._refused,
            self.relay.reception.log,
        ):
            log._burst = 3
        self.lines = self.logged()

    async def few_of(self, what: str) -> None:
        """
        Assert that few lines say this, and that the relay counts the others.
        """
        self.relay.clients.journal.close()  # what is on its way to the log
        said = [line for lines in self.lines for line in lines.splitlines() if what in line]
        self.assertEqual(len(said), 3)
        await self.relay.stopService()
        said = [line for lines in self.lines for line in lines.splitlines() if what in line]
        self.assertEqual(len(said), 4)
        self.assertIn("and 6 more like it", said[3])

    async def test_refused_clients(self) -> None:
        """
        Clients of one source that are not served, for one reason.
        """
        for _ in range(10):
            await self.get(self.relay, "nowhere")
        await self.few_of("is not served: no-such-server")

    async def test_tickets(self) -> None:
        """
        Tickets that join nothing, from where an agent is.
        """
        await self.raw_agent(self.relay, "web")
        for _ in range(10):
            data = await self.raw_data(self.relay, b"?" * TICKET_BYTES)
            await eventually(lambda d=data: Kind.RESET in d.kinds, "it is refused")  # type: ignore[misc]
        await self.few_of("presented a ticket that joins nothing")

    async def test_faults(self) -> None:
        """
        Agents that break the protocol, and come again.
        """
        for epoch in range(1, 11):
            control = await self.raw_agent(self.relay, epoch=epoch)
            control.say(Welcome(relay="", node="", sessions=1, ping=1.0))
            await control.hears(Goodbye)
        await self.few_of("broke the protocol")


class GuessingTests(RunningCase):
    """
    Somebody who has no right secret, and an agent that has, behind the same
    address.  One guess is enough here, for longer than a test takes.
    """

    def setUp(self) -> None:
        super().setUp()
        self.relay = self.start_relay({"penalty_auth": 100})
        self.invitation = self.first_invitation(self.relay)

    async def guesses(self, times: int, agent: str = "guest") -> list[str]:
        """
        @return: the codes that the guesses are answered with; nothing for one
            that is not let in to make it.
        """
        codes = []
        for _ in range(times):
            control = await self.raw_control(self.relay)
            if control.ready:
                control.say(self.hello(self.invitation, agent=agent, secret="guessed"))
                await eventually(lambda c=control: c.messages or c.lost, "an answer")  # type: ignore[misc]
            answer = control.messages[0] if control.messages else None
            codes.append(answer.code if isinstance(answer, Denied | Goodbye) else "")
            control.abort()
        return codes

    async def works(self, relay: RelayService, control: RawControl) -> None:
        client, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"GET")
        data.say(b"here you are")
        await client.hears(b"here you are")

    async def test_beside_an_agent(self) -> None:
        """
        Further guesses are put off, not checked; the agent works, and
        reconnects, as if nothing was.
        """
        control = await self.raw_agent(self.relay, "web")
        codes = await self.guesses(20)
        self.assertEqual(codes, [Code.AUTH.value] + [Code.BUSY.value] * 19)
        await self.works(self.relay, control)
        control.abort()
        await eventually(lambda: not self.relay.registry.agents, "it is gone")
        await self.guesses(5)
        await self.works(self.relay, await self.raw_agent(self.relay, "web"))
        self.assertEqual(
            dict(self.relay.agents_port.turned_away),
            {"authentication failed": 1, "in penalty": 24},
        )

    async def test_of_its_name(self) -> None:
        """
        So it does when the guesses are of its own name.
        """
        (await self.raw_agent(self.relay)).abort()
        codes = await self.guesses(20, self.invitation.agent)
        self.assertEqual(codes, [Code.AUTH.value] * 20)
        await self.works(self.relay, await self.raw_agent(self.relay, "web", epoch=2))

    async def test_alone(self) -> None:
        """
        Where no agent ever was nobody else is let in.
        """
        self.assertEqual(await self.guesses(3), [Code.AUTH.value, "", ""])
        self.assertEqual(self.relay.agents_port.turned_away["in penalty"], 2)

    async def test_gone_while_checked(self) -> None:
        """
        A guess costs the same when nobody waits for the answer.
        """
        control = await self.raw_control(self.relay)
        control.say(self.hello(self.invitation, secret="guessed"))
        control.transport.loseConnection()
        turned_away = self.relay.agents_port.turned_away
        await eventually(
            lambda: turned_away["authentication failed"] + turned_away["gave up"], "it is counted"
        )
        self.assertEqual(await self.guesses(1), [""])

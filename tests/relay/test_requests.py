"""
Connections of clients that carry requests for several servers, with real
sockets.
"""

from __future__ import annotations

import gc

from twisted.internet.task import deferLater

from relaytunnel.accounts.secrets import hash_chosen
from relaytunnel.agent.service import AgentService
from relaytunnel.config.access import networks
from relaytunnel.relay.service import RelayService
from tests.cycles import collected
from tests.running import HOST, Peer, RunningCase, Target, eventually, reactor

BODY = b"0123456789" * 20_000


def get(host: str, path: str = "/", *fields: str, method: str = "GET") -> bytes:
    """
    Write a request that keeps its connection.
    """
    lines = (f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, "", "")
    return "\r\n".join(lines).encode()


def answer(text: str, *fields: str) -> bytes:
    lines = ("HTTP/1.1 200 OK", f"Content-Length: {len(text)}", *fields, "", text)
    return "\r\n".join(lines).encode()


class Named:
    """
    A server that answers each request with its name and the path.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, peer: Peer) -> None:
        peer.polite = True
        while b"\r\n\r\n" in peer.received:
            head, _, peer.received = peer.received.partition(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            peer.say(answer(f"{self.name} {path}"))


class RequestsCase(RunningCase):
    """
    Two servers of one agent, over TLS and over plain data channels.
    """

    relay: RelayService
    agent: AgentService
    data = "tls"

    async def start(self, **limits: object) -> None:
        self.relay = self.start_relay(limits)
        self.one, self.two = self.target(Named("one")), self.target(Named("two"))
        given = {"http": "requests", "data": self.data}
        self.agent = await self.start_agent(
            self.relay,
            self.server("one", self.one.address, **given),
            self.server("two", self.two.address, **given),
            self.server("raw", self.one.address, http="raw", data=self.data),
            self.server(
                "locked",
                self.one.address,
                users=(("alice", hash_chosen("open")), ("bob", hash_chosen("open"))),
                **given,
            ),
            self.server("closed", self.one.address, allow=networks(["192.0.2.0/24"]), **given),
        )

    async def asks(self, client: Peer, request: bytes, expected: str) -> None:
        """
        Send a request, and wait for this to be a part of its answer.
        """
        client.received = b""
        client.say(request)
        await client.hears(expected.encode())

    async def quiet(self) -> None:
        """
        Wait until no session runs and none waits.
        """
        visits = self.relay.visits
        await eventually(
            lambda: not (self.relay.clients.splices or visits.sessions or visits.room.waiting),
            "no session is left",
        )


class RoutedTests(RequestsCase):
    """
    Where each request goes.
    """

    async def test_in_turn(self) -> None:
        """
        Each request reaches the server that it names, on one connection of the
        client; one that names the same server uses the same session.
        """
        await self.start()
        client = await self.client(self.relay)
        for number, name in enumerate(("one", "one", "two", "one", "two", "two")):
            await self.asks(client, get(name, f"/{number}"), f"{name} /{number}")
        self.assertEqual((len(self.one.visits), len(self.two.visits)), (2, 2))
        self.assertEqual(len(self.relay.clients.splices), 1)
        client.close()
        await self.quiet()
        self.assertEqual(self.relay.clients.finished, 4)

    async def test_at_once(self) -> None:
        """
        So it is where they come at once; the answers come in their order.
        """
        await self.start()
        names = ("one", "one", "two", "one", "two")
        client = await self.client(
            self.relay, b"".join(get(name, f"/{n}") for n, name in enumerate(names))
        )
        await client.hears(b"two /4")
        expected = b"".join(answer(f"{name} /{n}") for n, name in enumerate(names))
        self.assertEqual(client.received, expected)

    async def test_chosen(self) -> None:
        """
        What was chosen leads each request at the relay's own name there, on one
        session, until another is chosen; a service worker's script comes from
        there at no time.
        """
        await self.start()
        client = await self.client(self.relay)

        def chosen(name: str) -> str:
            token = self.relay.clients.finder.choices.token(name, HOST)
            return f"Cookie: relaytunnel={token}"

        for path in ("/1", "/2"):
            await self.asks(client, get(HOST, path, chosen("one")), f"one {path}")
        self.assertEqual(len(self.one.visits), 1)
        await self.asks(client, get(HOST, "/3", chosen("two")), "two /3")
        script = get(HOST, "/sw.js", chosen("two"), "Service-Worker: script")
        await self.asks(client, script, "HTTP/1.1 403 ")
        self.assertEqual(len(self.two.visits), 1)

    async def test_ended(self) -> None:
        """
        A client that has ended behind its requests gets all their answers, and
        the end behind them.
        """
        await self.start()
        client = await self.client(self.relay, get("one", "/1") + get("two", "/2"))
        client.end()
        # The servers keep their connections, as servers do, until they read the end.
        self.assertEqual(await client.end_of_all(), answer("one /1") + answer("two /2"))

    async def test_proxy(self) -> None:
        """
        A client that takes the relay for its proxy keeps its connection, too.
        """
        await self.start()
        client = await self.client(self.relay)
        for name in ("one", "two", "one"):
            await self.asks(client, get(name, f"http://{name}/x"), f"{name} /x")

    async def test_raw(self) -> None:
        """
        A server that is published so gets all that comes on a connection.
        """
        await self.start()
        client = await self.client(self.relay)
        await self.asks(client, get("raw", "/1"), "one /1")
        await self.asks(client, get("two", "/2"), "one /2")

    async def test_other_names(self) -> None:
        """
        Another name of the same server is no reason for another session.
        """
        await self.start()
        client = await self.client(self.relay)
        for host in ("one", "ONE", "one.localhost", "one:8000"):
            await self.asks(client, get(host), "one /")
        self.assertEqual(len(self.one.visits), 1)

    async def test_large(self) -> None:
        """
        Bodies pass whole in both directions, counted and in chunks, and what
        comes behind them is found.
        """
        await self.start()
        silent = self.target(None)
        self.agent.publish(self.server("big", silent.address, http="requests", data=self.data))
        await self.published(self.agent)
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(BODY), BODY) for _ in range(3)) + b"0\r\n\r\n"
        for field, body in (
            (f"Content-Length: {len(BODY)}", BODY),
            ("Transfer-Encoding: chunked", chunks),
        ):
            seen = len(silent.visits)
            sent = get("big", "/", field, method="POST") + body
            client = await self.client(self.relay, sent + get("one", "/behind"))
            server = await silent.visit(seen)
            await server.hears(sent, 10)
            self.assertEqual(server.received, sent)
            said = b"HTTP/1.1 200 OK\r\n" + field.encode() + b"\r\n\r\n" + body
            server.say(said)
            await client.hears(b"one /behind", 10)
            self.assertEqual(client.received, said + answer("one /behind"))


class PlainRoutedTests(RoutedTests):
    """
    The same over plain data channels.
    """

    data = "plain"


class AccessTests(RequestsCase):
    """
    Who may come in with a later request.
    """

    async def test_not_allowed(self) -> None:
        """
        What the first request would not have got no later one gets; those
        behind it are served as ever, on a connection of their own.
        """
        await self.start()
        for host, status in (("closed", "403"), ("locked", "401"), ("nobody", "404")):
            client = await self.client(self.relay)
            await self.asks(client, get("one"), "one /")
            await self.asks(client, get(host, "/secret"), f"HTTP/1.1 {status} ")
            await client.end_of_all()
            self.assertNotIn(b"/secret\r\n", b"".join(each.received for each in self.one.visits))

    async def test_credentials(self) -> None:
        """
        A login lets in the requests that bring it, and no others.
        """
        await self.start()
        alice, bob = "Authorization: Basic YWxpY2U6b3Blbg==", "Authorization: Basic Ym9iOm9wZW4="
        client = await self.client(self.relay)
        for number in range(3):
            await self.asks(client, get("locked", f"/{number}", alice), f"one /{number}")
        self.assertEqual(len(self.one.visits), 1)
        await self.asks(client, get("locked", "/bob", bob), "one /bob")
        self.assertEqual(len(self.one.visits), 2)
        await self.asks(client, get("locked", "/x"), "HTTP/1.1 401 ")
        client = await self.client(self.relay)
        await self.asks(client, get("locked", "/alice", alice), "one /alice")
        await self.asks(client, get("locked", "/x", alice[:-3] + "x=="), "HTTP/1.1 401 ")

    async def test_withdrawn(self) -> None:
        """
        A server that was withdrawn takes no further request.
        """
        await self.start()
        client = await self.client(self.relay)
        await self.asks(client, get("one"), "one /")
        self.agent.withdraw("one")
        await eventually(lambda: "one" not in self.relay.registry.servers, "it is withdrawn")
        await self.asks(client, get("one", "/again"), "HTTP/1.1 404 ")

    async def test_replaced(self) -> None:
        """
        One that was published anew takes it as what it is now.
        """
        await self.start()
        client = await self.client(self.relay)
        await self.asks(client, get("one"), "one /")
        before = self.relay.registry.servers["one"]
        self.agent.publish(self.server("one", self.two.address, http="requests"))
        await eventually(lambda: self.relay.registry.servers["one"] is not before, "it is new")
        await self.asks(client, get("one", "/again"), "two /again")

    async def test_agent_away(self) -> None:
        """
        While its agent's control channel is away, a session serves on.
        """
        await self.start()
        client = await self.client(self.relay)
        await self.asks(client, get("one"), "one /")
        self.agent.state.backoff.delay = lambda: 60.0  # type: ignore[method-assign]
        assert self.agent.control is not None
        self.agent.control.transport.abortConnection()  # type: ignore[union-attr]
        await eventually(lambda: not self.relay.registry.agents, "the agent is away")
        await self.asks(client, get("one", "/still"), "one /still")
        self.assertEqual(len(self.one.visits), 1)

    async def test_revoked(self) -> None:
        """
        One whose agent was revoked takes no further request.
        """
        await self.start()
        client = await self.client(self.relay)
        await self.asks(client, get("one"), "one /")
        self.accounts(self.relay).revoke("first")
        await eventually(lambda: not self.relay.registry.agents, "it is revoked", 10)
        await self.asks(client, get("one", "/again"), "HTTP/1.1 404 ")
        self.assertEqual(len(self.one.visits), 1)


class FaultTests(RequestsCase):
    """
    What does not go on.
    """

    async def test_no_requests(self) -> None:
        """
        What cannot come behind a request is answered as a faulty first one is.
        """
        await self.start()
        for said, status in (
            (b"GET / HTTP/1.0\r\n\r\n", "400"),
            (b"GET / HTTP/1.1\r\n\r\n", "400"),
            (b"CONNECT two:80 HTTP/1.1\r\nHost: two:80\r\n\r\n", "400"),
            (b"\x16\x03\x01\0\r\n\r\n", "400"),
            (get("one", "/", "Transfer-Encoding: gzip, chunked"), "400"),
            (get("one", "/", "X: " + "y" * 20_000), "431"),
        ):
            client = await self.client(self.relay)
            await self.asks(client, get("one"), "one /")
            await self.asks(client, said, f"HTTP/1.1 {status} ")
            await client.end_of_all()
        await self.quiet()

    async def test_late(self) -> None:
        """
        A head has so much time from its first byte on, and between requests
        there is no such bound.
        """
        await self.start(arrival=0.3)
        client = await self.client(self.relay)
        await self.asks(client, get("one"), "one /")
        await deferLater(reactor, 0.5)
        await self.asks(client, get("one", "/2"), "one /2")
        await self.asks(client, get("one")[:-1], "HTTP/1.1 408 ")
        await client.end_of_all()

    async def test_reset_while_held(self) -> None:
        """
        A client that goes while its next request is held leaves nothing.
        """
        await self.start()
        silent = self.target(None)
        self.agent.publish(self.server("slow", silent.address, http="requests"))
        await self.published(self.agent)
        client = await self.client(self.relay, get("slow") + get("two"))
        server = await silent.visit()
        await server.hears(b"GET")
        client.reset()
        await eventually(lambda: server.lost, "the server hears of it")
        await self.quiet()
        self.assertEqual(self.two.visits, [])

    async def test_out_of_turn(self) -> None:
        """
        What a server says without being asked reaches no client.
        """
        await self.start()
        client = await self.client(self.relay)
        await self.asks(client, get("one"), "one /")
        (server,) = self.one.visits
        server.say(answer("poison"))
        await client.end_of_all()
        self.assertNotIn(b"poison", client.received)
        await self.quiet()

    async def test_unclear_end(self) -> None:
        """
        Where one takes an answer for the last one of its connection and another
        does not, a server answers no request of another's: the client is told
        that it is the last one, and is parted from that server if it goes on.
        """
        await self.start()
        silent = self.target(None)
        self.agent.publish(self.server("evil", silent.address, http="requests", data=self.data))
        await self.published(self.agent)
        client = await self.client(self.relay, get("evil"))
        server = await silent.visit()
        await server.hears(b"GET")
        server.say(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok")
        await client.hears(b"ok")
        self.assertIn(b"\nConnection: close\r\n", client.received)
        client.say(get("two"))
        await client.is_reset()
        server.say(answer("poison"))
        await eventually(lambda: server.lost, "the server hears of it")
        self.assertNotIn(b"poison", client.received)
        self.assertEqual(self.two.visits, [])
        await self.quiet()

    async def test_head_cut_short(self) -> None:
        """
        What a server has said of a head before its end reaches the client.
        """
        await self.start()
        silent = self.target(None)
        self.agent.publish(self.server("short", silent.address, http="requests", data=self.data))
        await self.published(self.agent)
        client = await self.client(self.relay, get("short"))
        server = await silent.visit()
        await server.hears(b"GET")
        server.say(b"HTTP/1.1 200")
        server.end()
        self.assertEqual(await client.end_of_all(), b"HTTP/1.1 200")

    async def test_bad_chunks(self) -> None:
        """
        A body that is not framed as it says ends both connections.
        """
        await self.start()
        client = await self.client(
            self.relay, get("one", "/", "Transfer-Encoding: chunked", method="POST") + b"5\nhello"
        )
        await client.is_reset()
        await self.quiet()

    async def test_closing(self) -> None:
        """
        Behind an answer that is the last one the client's connection ends, and
        what it had said for another server is not served.
        """
        await self.start()

        def last(peer: Peer) -> None:
            if b"\r\n\r\n" in peer.received:
                peer.say(answer("bye", "Connection: close"))
                peer.close()

        target: Target = self.target(last)
        self.agent.publish(self.server("bye", target.address, http="requests"))
        await self.published(self.agent)
        client = await self.client(self.relay, get("bye") + get("two"))
        self.assertEqual(await client.end_of_all(), answer("bye", "Connection: close"))
        client.close()
        await self.quiet()
        self.assertEqual(self.two.visits, [])


class UpgradeTests(RequestsCase):
    """
    Another protocol on the connection.
    """

    async def test_granted(self) -> None:
        """
        When a server grants it, everything passes; the client is not read
        before.
        """
        await self.start()
        target = self.target(None)
        self.agent.publish(self.server("chat", target.address, http="requests"))
        await self.published(self.agent)
        client = await self.client(
            self.relay, get("chat", "/", "Upgrade: chat", "Connection: upgrade") + get("two")
        )
        server = await target.visit()
        await server.hears(b"Upgrade: chat")
        await deferLater(reactor, 0.1)
        self.assertNotIn(b"Host: two", server.received)
        server.say(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\n\r\n\0")
        await server.hears(b"Host: two")
        for _ in range(3):
            client.say(b"\0\r\n\r\n")
            server.say(b"\1HTTP/1.1 200 OK\r\n\r\n")
        await eventually(lambda: server.received.endswith(b"\0\r\n\r\n" * 3), "the server hears")
        await eventually(lambda: client.received.count(b"\1") == 3, "the client hears")
        self.assertEqual(self.two.visits, [])


class LeavingsTests(RequestsCase):
    """
    What sessions that were looked at leave behind.
    """

    async def test_cycles(self) -> None:
        """
        Sessions that give their client's connection to the next one leave
        nothing for the collector, whoever ends first.
        """
        await self.start()

        async def visits() -> None:
            for reset in (False, True):
                client = await self.client(self.relay)
                for name in ("one", "two", "one"):
                    await self.asks(client, get(name), f"{name} /")
                if reset:
                    client.reset()
                else:
                    await self.asks(client, get("nobody"), "HTTP/1.1 404 ")
                    await client.end_of_all()
                    client.close()
                await self.quiet()

        await visits()
        self.addCleanup(gc.enable)
        self.addCleanup(gc.unfreeze)
        gc.disable()
        gc.freeze()
        await visits()
        self.assertEqual(collected(), {})

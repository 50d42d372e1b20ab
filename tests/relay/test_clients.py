"""
Client channels at a real relay: what clients are told, and what they may do
while they wait.
"""

from __future__ import annotations

import re
from base64 import b64encode
from ipaddress import ip_network
from typing import Any

from twisted.internet.defer import Deferred

from relaytunnel.accounts.secrets import hash_chosen
from relaytunnel.config import ClientPort
from relaytunnel.errors import AccountError, Code
from relaytunnel.relay.service import RelayService
from relaytunnel.wire.data import Kind
from relaytunnel.wire.messages import Accept, Cancel, Notify, Refuse, Register
from tests.arrival.test_tls import hello, server_name
from tests.running import (
    ANY_PORT,
    HOST,
    Peer,
    RawControl,
    RawData,
    RunningCase,
    eventually,
    reactor,
    request,
)

CONNECT = b"CONNECT web:22 HTTP/1.1\r\nHost: web:22\r\n\r\n"
CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"

SOCKS_METHODS = b"\x05\x01\x00"
SOCKS_WEB = b"\x05\x01\x00\x03\x03web\x00\x16"
SOCKS_DONE = b"\x05\x00\x00\x01" + bytes(6)

PASSWORD = hash_chosen("pass", cost=2**10)
ALICE = Register(connection_id="web", users=(("alice", PASSWORD),), listed=True, http="raw")


def basic(user: str = "alice", password: str = "pass") -> str:
    """
    Write credentials of HTTP.
    """
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def socks_login(user: bytes = b"alice", password: bytes = b"pass") -> bytes:
    """
    Write what a client of SOCKS5 says that logs in and does not wait.
    """
    login = bytes((1, len(user))) + user + bytes((len(password),)) + password
    return b"\x05\x01\x02" + login + SOCKS_WEB


def notices(control: RawControl) -> list[Notify]:
    """
    @return: the clients that an agent was told of and nobody has asked for.
    """
    return [message for message in control.messages if isinstance(message, Notify)]


class ArrivalTests(RunningCase):
    """
    S5: how a client names its server, or does not.
    """

    async def test_unknown_host(self) -> None:
        """
        A host that no server has is not found.
        """
        answer = await self.get(self.start_relay(), "nowhere.example")
        self.assertTrue(answer.startswith("HTTP/1.1 404 "), answer)
        self.assertIn(Code.NO_SUCH_SERVER.value, answer)
        self.assertIn("nowhere.example", answer)

    async def test_too_many_at_once(self) -> None:
        """
        From one address so many may make up their minds at once; who has done
        so makes room for the next.
        """
        relay = self.start_relay({"arriving_per_client": 2})
        first, second = [await self.client(relay) for _ in range(2)]
        await eventually(lambda: relay.clients.arriving.taken == 2, "they have come")
        await (await self.client(relay)).is_reset()
        first.say(request("nowhere.example"))
        self.assertIn(b"404", await first.end_of_all())
        answer = await self.get(relay, "nowhere.example")
        self.assertTrue(answer.startswith("HTTP/1.1 404 "), answer)
        second.reset()
        await eventually(lambda: not relay.clients.arriving.taken, "nobody arrives")

    async def test_no_host(self) -> None:
        """
        A request without a Host names nobody: its client is asked, with the
        list of those that want to be listed.
        """
        relay = self.start_relay()
        await self.raw_agent(relay, Register(connection_id="web", listed=True), "hidden")
        client = await self.client(relay, b"GET / HTTP/1.0\r\n\r\n")
        answer = await client.end_of_all()
        self.assertTrue(answer.startswith(b"HTTP/1.1 300 Multiple Choices\r\n"), answer)
        self.assertIn(b"\n web ", answer)
        self.assertNotIn(b"hidden", answer)

    async def test_bad_request(self) -> None:
        """
        A request that could be read in two ways is turned down.
        """
        client = await self.client(
            self.start_relay(), b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
        )
        self.assertTrue((await client.end_of_all()).startswith(b"HTTP/1.1 400 "))

    async def test_too_long(self) -> None:
        """
        A head without end is turned down, and not held.
        """
        client = await self.client(self.start_relay(), b"GET / HTTP/1.1\r\nX: " + b"x" * 20000)
        self.assertTrue((await client.end_of_all()).startswith(b"HTTP/1.1 431 "))

    async def test_silent(self) -> None:
        """
        Who says nothing is told so when the time is up.
        """
        relay = self.start_relay({"arrival": 0.1})
        client = await self.client(relay)
        self.assertTrue((await client.end_of_all()).startswith(b"relaytunnel: timeout: "))

    async def test_slow(self) -> None:
        """
        Who begins and does not go on has no longer, and hears HTTP.
        """
        relay = self.start_relay({"arrival": 0.3})
        client = await self.client(relay, b"GET / HTTP/1.1\r\nX: ")

        def drip() -> bool:
            client.say(b"x")
            return client.ended

        await eventually(drip, "it is not listened to any more", 2)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 408 "), client.received)

    async def test_other_protocol(self) -> None:
        """
        Who speaks what is not spoken here is told so in a line of text.
        """
        client = await self.client(self.start_relay(), b"\x00\x01\x02\x03 who knows\r\n")
        self.assertTrue((await client.end_of_all()).startswith(b"relaytunnel: unsupported: "))

    async def test_ends_at_once(self) -> None:
        """
        Who ends without a word is let go.
        """
        relay = self.start_relay()
        client = await self.client(relay)
        client.end()
        self.assertEqual(await client.end_of_all(), b"")
        await eventually(lambda: not relay.clients.present, "nobody is present")

    async def test_resets_at_once(self) -> None:
        """
        Who resets before a word is forgotten.
        """
        relay = self.start_relay()
        client = await self.client(relay, b"GET /")
        await eventually(lambda: relay.clients.present, "it has come")
        client.reset()
        await eventually(lambda: not relay.clients.present, "nobody is present")

    async def test_head_in_pieces(self) -> None:
        """
        A head may come byte by byte, and goes on as it came.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay)
        for byte in request("web"):
            client.say(bytes((byte,)))
        notify = await control.hears(Notify)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(request("web"))

    async def test_subdomain(self) -> None:
        """
        The ID before a name of the relay leads to its server.
        """
        relay = self.start_relay(names=("relay.example",))
        control = await self.raw_agent(relay, "web")
        await self.client(relay, request("web.relay.example:8000"))
        self.assertEqual((await control.hears(Notify)).arrived, "host:web.relay.example")

    async def test_own_port(self) -> None:
        """
        A client of a server's own port need not say a word.
        """
        relay = self.start_relay()
        port = relay.config.ports.first
        control = await self.raw_agent(
            relay, Register(connection_id="web", reach=(f"port:{port}",))
        )
        client = await self.dial(port)
        notify = await control.hears(Notify)
        self.assertEqual(notify.arrived, f"port:{port}")
        data = await self.raw_data(relay, notify.ticket)
        data.say(b"the server speaks first")
        await client.hears(b"the server speaks first")

    async def test_own_port_only(self) -> None:
        """
        A server that has nothing but a port is not to be had by its name.
        """
        relay = self.start_relay()
        port = relay.config.ports.first
        await self.raw_agent(relay, Register(connection_id="web", reach=(f"port:{port}",)))
        self.assertIn("404", await self.get(relay, "web"))


class TunnelTests(RunningCase):
    """
    Clients that take the relay for a proxy.
    """

    async def served(self, relay: RelayService, control: RawControl) -> tuple[Notify, RawData]:
        """
        S7 to S11.
        """
        notify = await control.hears(Notify)
        return notify, await self.raw_data(relay, notify.ticket)

    async def test_connect(self) -> None:
        """
        CONNECT is the relay's alone: the client is told that it stands when
        the server is reached, and the server gets what comes behind.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, CONNECT + b"SSH-2.0-client\r\n")
        notify = await control.hears(Notify)
        self.assertEqual((notify.arrived, client.received), ("name:web", b""))
        data = await self.raw_data(relay, notify.ticket)
        await client.hears(CONNECTED)
        data.say(b"SSH-2.0-server\r\n")
        await client.hears(b"server\r\n")
        self.assertEqual(client.received, CONNECTED + b"SSH-2.0-server\r\n")
        await data.hears(b"client\r\n")
        self.assertEqual(data.received, b"SSH-2.0-client\r\n")

    async def test_connect_server_first(self) -> None:
        """
        A server that speaks first waits for no word of the client's.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, CONNECT)
        _, data = await self.served(relay, control)
        data.say(b"220 mail")
        await client.hears(b"220 mail")
        self.assertEqual(client.received, CONNECTED + b"220 mail")

    async def test_connect_refused(self) -> None:
        """
        A tunnel that cannot be had has the reason in its status line.
        """
        relay = self.start_relay()
        client = await self.client(relay, CONNECT)
        answer = await client.end_of_all()
        self.assertTrue(
            answer.startswith(b"HTTP/1.1 404 Not Found: no server is published as web\r\n"), answer
        )

    async def test_connect_refused_by_agent(self) -> None:
        """
        So has one of which only the agent knows that it cannot be had.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, CONNECT)
        notify = await control.hears(Notify)
        control.say(Refuse(session=notify.session, code="refused-by-target", reason="closed"))
        answer = await client.end_of_all()
        self.assertTrue(answer.startswith(b"HTTP/1.1 502 Bad Gateway: closed\r\n"), answer)

    async def test_connect_not_to_the_default(self) -> None:
        """
        Who asks for a tunnel to one server never gets another.
        """
        relay = self.start_relay(clients=(ClientPort(endpoint=ANY_PORT, default="shop"),))
        control = await self.raw_agent(relay, "shop")
        client = await self.client(relay, CONNECT)
        self.assertTrue((await client.end_of_all()).startswith(b"HTTP/1.1 404 "))
        self.assertEqual(notices(control), [])

    async def test_absolute(self) -> None:
        """
        A request for a proxy reaches its server as one for a server.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        said = b"POST http://web/a HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\n\r\nbody"
        await self.client(relay, said)
        _, data = await self.served(relay, control)
        await data.hears(b"body")
        self.assertEqual(
            data.received,
            b"POST /a HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody",
        )

    async def test_socks5(self) -> None:
        """
        SOCKS5 in steps: the client is told that its server is reached when it
        is, and its own bytes begin behind that.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, SOCKS_METHODS)
        await client.hears(b"\x05\x00")
        client.say(SOCKS_WEB)
        notify = await control.hears(Notify)
        self.assertEqual((notify.arrived, client.received), ("name:web", b"\x05\x00"))
        data = await self.raw_data(relay, notify.ticket)
        await client.hears(b"\x05\x00" + SOCKS_DONE)
        client.say(b"hello")
        await data.hears(b"hello")
        self.assertEqual(data.received, b"hello")

    async def test_socks5_at_once(self) -> None:
        """
        A client that waits for nothing is served the same.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, SOCKS_METHODS + SOCKS_WEB + b"hello")
        _, data = await self.served(relay, control)
        await data.hears(b"hello")
        await client.hears(SOCKS_DONE)
        self.assertEqual((data.received, client.received), (b"hello", b"\x05\x00" + SOCKS_DONE))

    async def test_socks5_refused(self) -> None:
        """
        A server that is not there is told of in SOCKS.
        """
        relay = self.start_relay()
        client = await self.client(relay, SOCKS_METHODS + SOCKS_WEB)
        answer = await client.end_of_all()
        self.assertEqual((answer[:3], len(answer)), (b"\x05\x00\x05", 12))
        self.assertNotEqual(answer[3], 0)

    async def test_leaves_while_it_waits(self) -> None:
        """
        A client whose tunnel does not stand yet can leave as any other.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, CONNECT)
        notify = await control.hears(Notify)
        client.reset()
        self.assertEqual((await control.hears(Cancel)).session, notify.session)


class QuestionTests(RunningCase):
    """
    S5: clients that are asked in text which server they want.
    """

    async def asked(
        self, *servers: Register, limits: dict[str, Any] | None = None
    ) -> tuple[RelayService, RawControl, Peer]:
        """
        A client that says nothing is asked.
        """
        relay = self.start_relay({"silence": 0.05, **(limits or {})})
        control = await self.raw_agent(relay, *servers)
        client = await self.client(relay)
        await client.hears(b"which server? ")
        return relay, control, client

    async def reached(self, relay: RelayService, control: RawControl, name: str) -> None:
        """
        Assert that the client reaches this server, which gets C{hello} alone.
        """
        notify = await control.hears(Notify)
        self.assertEqual((notify.connection_id, notify.arrived), (name, f"name:{name}"))
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"hello")
        self.assertEqual(data.received, b"hello")

    async def test_number(self) -> None:
        """
        A number means the server that stands behind it in the list.
        """
        relay, control, client = await self.asked(
            Register(connection_id="web", listed=True),
            Register(connection_id="shop", listed=True),
            Register(connection_id="hidden"),
        )
        self.assertIn(b"  1) shop\r\n  2) web\r\n", client.received)
        self.assertNotIn(b"hidden", client.received)
        client.say(b"2\nhello")
        await self.reached(relay, control, "web")

    async def test_name(self) -> None:
        """
        A name means its server, listed or not.
        """
        relay, control, client = await self.asked(Register(connection_id="hidden"))
        client.say(b"hidden\r\nhello")
        await self.reached(relay, control, "hidden")

    async def test_three_tries(self) -> None:
        """
        Who names none three times is told so, and let go.
        """
        relay, _, client = await self.asked(Register(connection_id="web", listed=True))
        for number in range(1, 3):
            client.say(b"nowhere\n")
            await eventually(
                lambda n=number: client.received.count(b"which server? ") > n,  # type: ignore[misc]
                "it is asked again",
            )
        client.say(b"nowhere\n")
        answer = await client.end_of_all()
        self.assertEqual(answer.count(b"which server? "), 3)
        self.assertTrue(
            answer.endswith(b"relaytunnel: no-such-server: no server is published as nowhere\r\n"),
            answer,
        )
        self.assertEqual(relay.visits.refusals, {"no-such-server": 1})

    async def test_line_at_once(self) -> None:
        """
        Who begins with a line that is a name is not asked at all, even if
        nothing follows it.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, b"web\n")
        client.end()
        notify = await control.hears(Notify)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears_kind(Kind.EOF)
        self.assertEqual(data.received, b"")
        data.say(b"the page")
        data.end()
        self.assertEqual(await client.end_of_all(), b"the page")

    async def test_begun_and_silent(self) -> None:
        """
        Who has begun a line and pauses goes on with the same line.
        """
        relay = self.start_relay({"silence": 0.05})
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, b"we")
        await eventually(
            lambda: any(
                visit._listener is not None and visit._listener._arrival.way is not None
                for visit in relay.clients.present
            ),
            "it has been silent for long",
        )
        client.say(b"b\nhello")
        await self.reached(relay, control, "web")

    async def test_ends_when_asked(self) -> None:
        """
        Who ends when it is asked is let go without another word.
        """
        relay, _, client = await self.asked(Register(connection_id="web", listed=True))
        said = client.received
        client.end()
        self.assertEqual(await client.end_of_all(), said)
        await eventually(lambda: not relay.clients.present, "nobody is present")

    async def test_time_to_read(self) -> None:
        """
        Who is asked has longer than who has to name its server unasked, but
        not for ever.
        """
        _, _, client = await self.asked(
            Register(connection_id="web"), limits={"arrival": 0.1, "question": 0.4}
        )
        began = reactor.seconds()
        answer = await client.end_of_all()
        self.assertGreater(reactor.seconds() - began, 0.25)
        self.assertTrue(
            answer.endswith(b"\r\nrelaytunnel: timeout: no server was named in time\r\n"), answer
        )

    async def test_not_allowed(self) -> None:
        """
        A server that is not open to a client is neither listed for it nor
        reached by its name; another one may be named then.
        """
        relay, control, client = await self.asked(
            Register(connection_id="web", allow=("10.0.0.0/8",), listed=True),
            Register(connection_id="shop", listed=True),
        )
        self.assertIn(b"  1) shop\r\nwhich", client.received)
        client.say(b"web\n")
        await client.hears(b"not-allowed: web is not open to clients from 127.0.0.1\r\n")
        client.say(b"1\nhello")
        await self.reached(relay, control, "shop")

    async def test_password_asked_for(self) -> None:
        """
        A server with users is not reached this way: there is no place for a
        password in it.
        """
        _, control, client = await self.asked(ALICE)
        client.say(b"web\n")
        self.assertIn(b"relaytunnel: not-allowed: web asks for a user", await client.end_of_all())
        self.assertEqual(notices(control), [])

    async def test_ssh(self) -> None:
        """
        A client of SSH is told at once how it can be done.
        """
        client = await self.client(self.start_relay(), b"SSH-2.0-OpenSSH_9.6\r\n")
        self.assertIn(b"ProxyCommand", await client.end_of_all())


class ChosenTests(RunningCase):
    """
    S5: browsers, which choose once and are remembered.
    """

    def setUp(self) -> None:
        super().setUp()
        self.relay = self.start_relay()

    async def ask(self, path: str, *fields: str, host: str = HOST, method: str = "GET") -> str:
        """
        Ask for a page of the relay's own name.
        """
        lines = (f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, "", "")
        client = await self.client(self.relay, "\r\n".join(lines).encode())
        return (await client.end_of_all()).decode()

    async def test_choice(self) -> None:
        """
        The answer to the question is kept in a cookie, with which the next
        request reaches its server, as it is: the one after it is looked at by
        itself.
        """
        control = await self.raw_agent(self.relay, Register(connection_id="web", listed=True))
        page = await self.ask("/a?b", "Accept: text/html")
        self.assertTrue(page.startswith("HTTP/1.1 300 "), page)
        self.assertIn('value="web"', page)
        taken = await self.ask(
            "/.relaytunnel/?server=web&to=%2Fa%3Fb", f"Origin: http://{HOST}", method="POST"
        )
        self.assertTrue(taken.startswith("HTTP/1.1 303 "), taken)
        self.assertIn("\r\nLocation: /a?b\r\n", taken)
        found = re.search(r"\r\nSet-Cookie: (relaytunnel=\S+\.web); ", taken)
        assert found is not None, taken
        again = f"GET /a?b HTTP/1.1\r\nHost: {HOST}\r\nCookie: {found[1]}\r\n\r\n".encode()
        await self.client(self.relay, again)
        notify = await control.hears(Notify)
        self.assertEqual(notify.arrived, "chosen:web")
        data = await self.raw_data(self.relay, notify.ticket)
        await data.hears(again)

    async def test_chosen_is_gone(self) -> None:
        """
        A server that was chosen and is not here any more is forgotten, and
        the client is told why it is asked again.
        """
        control = await self.raw_agent(self.relay, Register(connection_id="web", listed=True))
        control.abort()
        await eventually(lambda: not self.relay.registry.agents, "it is gone")
        page = await self.ask("/", f"Cookie: relaytunnel={self.choice('web')}")
        self.assertTrue(page.startswith("HTTP/1.1 300 "), page)
        self.assertIn("Set-Cookie: relaytunnel=; Max-Age=0", page)
        self.assertIn("not connected", page)

    async def test_name_wins(self) -> None:
        """
        What was chosen does not count for a request that names its server.
        """
        control = await self.raw_agent(self.relay, "web", "shop")
        cookie = f"Cookie: relaytunnel={self.choice('web')}"
        said = f"GET / HTTP/1.1\r\nHost: shop\r\n{cookie}\r\n\r\n".encode()
        client = await self.client(self.relay, said)
        notify = await control.hears(Notify)
        self.assertEqual(notify.connection_id, "shop")
        data = await self.raw_data(self.relay, notify.ticket)
        await data.hears(said)
        self.assertEqual(data.received, said, "it goes on as it came")
        client.reset()
        page = await self.ask("/", cookie, host="nowhere")
        self.assertTrue(page.startswith("HTTP/1.1 404 "))

    def choice(self, connection_id: str, source: str = HOST) -> str:
        """
        A choice, as the relay signs it.
        """
        token = self.relay.clients.finder.choices.token(connection_id, source)
        assert token is not None
        return token

    async def test_not_by_this_relay(self) -> None:
        """
        A choice that is not signed, or for another source, or one of two, leads
        nowhere: the client is asked again.
        """
        control = await self.raw_agent(self.relay, Register(connection_id="web", listed=True))
        good = f"relaytunnel={self.choice('web')}"
        for cookies in (
            "relaytunnel=web",
            f"relaytunnel={self.choice('web', '192.0.2.1')}",
            f"{good}; {good}",
            f"relaytunnel={'.' * 16000}",
        ):
            page = await self.ask("/", f"Cookie: {cookies}")
            self.assertTrue(page.startswith("HTTP/1.1 300 "), page)
            self.assertIn("Set-Cookie: relaytunnel=; Max-Age=0", page)
        self.assertEqual(notices(control), [])

    async def test_after_a_restart(self) -> None:
        """
        A choice holds beyond a restart of the relay.
        """
        before, state = self.choice("web"), self.relay.config.state
        await self.relay.stopService()
        self.relay = self.start_relay(state=state)
        self.assertEqual(self.choice("web"), before)

    async def test_name_of_its_own(self) -> None:
        """
        At C{localhost} each server has a name of its own, to which the choice
        leads; no cookie is set.
        """
        await self.raw_agent(self.relay, Register(connection_id="web", listed=True))
        taken = await self.ask(
            "/.relaytunnel/?server=web&to=%2Fa",
            "Origin: http://localhost:8000",
            host="localhost:8000",
            method="POST",
        )
        self.assertTrue(taken.startswith("HTTP/1.1 303 "), taken)
        self.assertIn("\r\nLocation: //web.localhost:8000/a\r\n", taken)
        self.assertNotIn("Set-Cookie", taken)

    async def test_service_worker(self) -> None:
        """
        No service worker comes from the relay's own name.
        """
        control = await self.raw_agent(self.relay, "web")
        answer = await self.ask(
            "/sw.js", f"Cookie: relaytunnel={self.choice('web')}", "Service-Worker: script"
        )
        self.assertTrue(answer.startswith("HTTP/1.1 403 "), answer)
        self.assertNotIn("Set-Cookie", answer)
        self.assertEqual(notices(control), [])


class DefaultTests(RunningCase):
    """
    S5: a port with a server for those who do not say which one they want.
    """

    async def with_default(self, *servers: str) -> tuple[RelayService, RawControl]:
        """
        Start a relay on whose port C{web} is the default.
        """
        relay = self.start_relay(
            {"silence": 0.05},
            clients=(ClientPort(endpoint=ANY_PORT, default="web"),),
        )
        return relay, await self.raw_agent(relay, *servers)

    async def test_each(self) -> None:
        """
        It gets every byte of whoever names nobody, or a name that is not
        known, or speaks what is not known.
        """
        relay, control = await self.with_default("web")
        for said in (
            request("nowhere"),
            b"GET / HTTP/1.0\r\n\r\n",
            hello(server_name(b"nowhere.example")),
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"HELO\r\n",
            b"\x00\x01\x02",
        ):
            client = await self.client(relay, said)
            notify = await control.hears(Notify)
            self.assertEqual(notify.arrived, "default:web")
            data = await self.raw_data(relay, notify.ticket)
            await data.hears(said)
            self.assertEqual(data.received, said)
            client.reset()

    async def test_silent(self) -> None:
        """
        Who says nothing reaches it after a while, and hears it speak.
        """
        relay, control = await self.with_default("web")
        client = await self.client(relay)
        notify = await control.hears(Notify)
        self.assertEqual(notify.arrived, "default:web")
        data = await self.raw_data(relay, notify.ticket)
        data.say(b"220 mail")
        await client.hears(b"220 mail")
        self.assertEqual(client.received, b"220 mail")

    async def test_named(self) -> None:
        """
        Who names one that is known reaches that one.
        """
        relay, control = await self.with_default("web", "shop")
        await self.client(relay, request("shop"))
        self.assertEqual((await control.hears(Notify)).arrived, "host:shop")

    async def test_named_is_away(self) -> None:
        """
        Who names one that is away is told so: the default is another server.
        """
        relay, control = await self.with_default("web", "shop")
        relay.registry.remove(relay.registry.servers["shop"])
        self.assertIn("503", await self.get(relay, "shop"))
        self.assertEqual(notices(control), [])

    async def test_default_is_away(self) -> None:
        """
        When it is away itself, that is told, in the client's protocol.
        """
        relay = self.start_relay(clients=(ClientPort(endpoint=ANY_PORT, default="web"),))
        self.assertTrue((await self.get(relay, "nowhere")).startswith("HTTP/1.1 404 "))


class PasswordTests(RunningCase):
    """
    S6: servers that ask their clients for a password.
    """

    async def with_users(self) -> tuple[RelayService, RawControl]:
        """
        Start a relay at which C{web} knows C{alice}.
        """
        relay = self.start_relay()
        return relay, await self.raw_agent(relay, ALICE)

    async def answer(
        self, relay: RelayService, *fields: str, first: str = "GET / HTTP/1.1"
    ) -> str:
        """
        Say this to the relay, and read what it answers itself.
        """
        host = "web:22" if first.startswith("CONNECT") else "web"
        lines = (first, f"Host: {host}", *fields, "", "")
        client = await self.client(relay, "\r\n".join(lines).encode())
        return (await client.end_of_all()).decode()

    async def test_required(self) -> None:
        """
        Who gives none is asked for one, and no agent hears of it.
        """
        relay, control = await self.with_users()
        for answer in (
            await self.answer(relay),
            await self.answer(relay, "Authorization: Bearer x"),
            await self.answer(relay, f"Proxy-Authorization: {basic()}"),
        ):
            self.assertTrue(answer.startswith("HTTP/1.1 401 Unauthorized\r\n"), answer)
            self.assertIn("\r\nWWW-Authenticate: Basic ", answer)
        self.assertEqual(notices(control), [])

    async def test_right(self) -> None:
        """
        Who gives the right one is served, and the agent can look as well.
        """
        relay, control = await self.with_users()
        said = f"GET / HTTP/1.1\r\nHost: web\r\nAuthorization: {basic()}\r\n\r\n".encode()
        await self.client(relay, said)
        notify = await control.hears(Notify)
        self.assertEqual((notify.user, notify.password), ("alice", "pass"))
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(said)

    async def test_wrong(self) -> None:
        """
        A wrong one, and one of nobody's, are turned down in the same words.
        """
        relay, control = await self.with_users()
        answers = {
            await self.answer(relay, f"Authorization: {basic(user, password)}")
            for user, password in (("alice", "Pass"), ("bob", "pass"), ("", ""))
        }
        (answer,) = answers
        self.assertTrue(answer.startswith("HTTP/1.1 401 "), answer)
        self.assertIn("the user name or the password is wrong", answer)
        self.assertEqual(notices(control), [])
        self.assertEqual(relay.clients.present, set())

    async def test_connect(self) -> None:
        """
        A tunnel's client gives it as to a proxy.
        """
        relay, control = await self.with_users()
        first = "CONNECT web:22 HTTP/1.1"
        answer = await self.answer(relay, f"Authorization: {basic()}", first=first)
        self.assertTrue(
            answer.startswith("HTTP/1.1 407 Proxy Authentication Required: web asks for a"), answer
        )
        self.assertIn("\r\nProxy-Authenticate: Basic ", answer)
        said = f"{first}\r\nHost: web:22\r\nProxy-Authorization: {basic()}\r\n\r\n"
        client = await self.client(relay, said.encode())
        notify = await control.hears(Notify)
        self.assertEqual((notify.user, notify.password), ("alice", "pass"))
        await self.raw_data(relay, notify.ticket)
        await client.hears(CONNECTED)

    async def test_socks5(self) -> None:
        """
        A client of SOCKS5 gives it in a step of its own.
        """
        relay, control = await self.with_users()
        client = await self.client(relay, socks_login())
        notify = await control.hears(Notify)
        self.assertEqual((notify.user, notify.password), ("alice", "pass"))
        await self.raw_data(relay, notify.ticket)
        await client.hears(b"\x05\x02\x01\x00" + SOCKS_DONE)

    async def test_socks5_wrong(self) -> None:
        """
        There a wrong one, and none, is answered in SOCKS.
        """
        relay, control = await self.with_users()
        for said, told in (
            (socks_login(password=b"Pass"), b"\x05\x02\x01\x00\x05"),
            (SOCKS_METHODS + SOCKS_WEB, b"\x05\x00\x05"),
        ):
            answer = await (await self.client(relay, said)).end_of_all()
            self.assertTrue(answer.startswith(told), answer)
            self.assertNotEqual(answer[len(told)], 0)
        self.assertEqual(notices(control), [])

    async def test_no_way_to_give_one(self) -> None:
        """
        By the server's name in TLS none can be given, so nobody comes in.
        """
        relay, control = await self.with_users()
        client = await self.client(relay, hello(server_name(b"web")))
        self.assertEqual((await client.end_of_all())[:1], b"\x15")
        self.assertEqual(notices(control), [])

    async def test_too_many(self) -> None:
        """
        While too many of one client are compared, one more is told to come
        again; it is not taken for wrong.
        """
        relay, control = await self.with_users()
        unfinished: list[Deferred[bool]] = []

        def run(*given: object) -> Deferred[bool]:
            unfinished.append(Deferred())
            return unfinished[-1]

        self.patch(relay.hashing._threads, "run", run)
        for number in range(9):
            given = basic(password=f"guess {number}")
            await self.client(
                relay, f"GET / HTTP/1.1\r\nHost: web\r\nAuthorization: {given}\r\n\r\n".encode()
            )
        await eventually(lambda: len(relay.hashing._queue) == 8, "they wait")
        answer = await self.answer(relay, f"Authorization: {basic()}")
        self.assertTrue(answer.startswith("HTTP/1.1 503 "), answer)
        self.assertIn("\r\nX-Relaytunnel-Code: busy\r\n", answer)
        while unfinished:
            unfinished.pop().callback(True)
        for _ in range(9):
            await control.hears(Notify)

    async def test_same_at_once(self) -> None:
        """
        Many clients of one address that give the same one at once all come in,
        and it is compared once.
        """
        relay, control = await self.with_users()
        answer: Deferred[bool] = Deferred()
        asked: list[object] = []

        def run(*given: object) -> Deferred[bool]:
            asked.append(given)
            return answer

        self.patch(relay.hashing._threads, "run", run)
        said = f"GET / HTTP/1.1\r\nHost: web\r\nAuthorization: {basic()}\r\n\r\n".encode()
        for _ in range(14):
            await self.client(relay, said)
        await eventually(lambda: len(relay.clients.present) == 14, "they wait")
        await eventually(lambda: asked, "it is compared")
        answer.callback(True)
        for _ in range(14):
            await control.hears(Notify)
        self.assertEqual(len(asked), 1)

    async def test_turn_given_up(self) -> None:
        """
        Nothing is compared for those who left before their turn.
        """
        relay, control = await self.with_users()
        running: Deferred[bool] = Deferred()
        self.patch(relay.hashing._threads, "run", lambda *given: running)
        clients = [
            await self.client(
                relay,
                f"GET / HTTP/1.1\r\nHost: web\r\n"
                f"Authorization: {basic(password=str(number))}\r\n\r\n".encode(),
            )
            for number in range(4)
        ]
        await eventually(lambda: len(relay.hashing._queue) == 3, "they wait")
        for client in clients:
            client.reset()
        await eventually(lambda: not len(relay.hashing._queue), "none is to be compared")
        self.assertEqual(relay.clients.passwords._compared, {})
        running.callback(True)
        self.assertEqual(notices(control), [])

    async def test_drains_meanwhile(self) -> None:
        """
        A relay that is told to stop does not wait for those whose turn has not
        come: they are told so.
        """
        relay, _ = await self.with_users()
        running: Deferred[bool] = Deferred()
        self.patch(relay.hashing._threads, "run", lambda *given: running)
        first, second = [
            await self.client(
                relay,
                f"GET / HTTP/1.1\r\nHost: web\r\n"
                f"Authorization: {basic(password=word)}\r\n\r\n".encode(),
            )
            for word in ("pass", "guess")
        ]
        await eventually(lambda: len(relay.hashing._queue) == 1, "it waits")
        drained = relay.drain()
        told = await second.end_of_all()
        self.assertTrue(told.startswith(b"HTTP/1.1 503 "), told)
        self.assertIn(b"\r\nX-Relaytunnel-Code: shutdown\r\n", told)
        running.callback(False)
        self.assertTrue((await first.end_of_all()).startswith(b"HTTP/1.1 401 "))
        await drained

    async def compared(self) -> tuple[RelayService, RawControl, Peer, Deferred[bool]]:
        """
        A client whose password is being compared.
        """
        relay, control = await self.with_users()
        answer: Deferred[bool] = Deferred()
        asked: list[object] = []

        def run(*given: object) -> Deferred[bool]:
            asked.append(given)
            return answer

        self.patch(relay.hashing._threads, "run", run)
        said = f"GET / HTTP/1.1\r\nHost: web\r\nAuthorization: {basic()}\r\n\r\n".encode()
        client = await self.client(relay, said)
        await eventually(lambda: asked, "it is compared")
        return relay, control, client, answer

    async def test_leaves_meanwhile(self) -> None:
        """
        Who leaves meanwhile is not waited for.
        """
        relay, control, client, answer = await self.compared()
        client.reset()
        await eventually(lambda: not relay.clients.present, "nobody is present")
        answer.callback(True)
        self.assertEqual(relay.visits.sessions, {})
        self.assertEqual(notices(control), [])

    async def test_agent_leaves_meanwhile(self) -> None:
        """
        A server that goes away meanwhile is away.
        """
        relay, control, client, answer = await self.compared()
        control.abort()
        await eventually(lambda: not relay.registry.agents, "it is gone")
        answer.callback(True)
        self.assertTrue((await client.end_of_all()).startswith(b"HTTP/1.1 503 "))

    async def test_published_anew_meanwhile(self) -> None:
        """
        A server that is published anew meanwhile may have other users.
        """
        relay, control, client, answer = await self.compared()
        control.say(Register(connection_id="web", users=(("bob", PASSWORD),)))
        await eventually(
            lambda: "bob" in relay.registry.servers["web"].users, "it is published anew"
        )
        answer.callback(True)
        self.assertTrue((await client.end_of_all()).startswith(b"HTTP/1.1 503 "))
        self.assertEqual(notices(control), [])

    async def test_talks_meanwhile(self) -> None:
        """
        What a client says meanwhile is held for its server.
        """
        relay, control, client, answer = await self.compared()
        client.say(b"more")
        (visit,) = relay.clients.present
        await eventually(lambda: visit._channel.holding.held.endswith(b"more"), "it is held")
        answer.callback(True)
        notify = await control.hears(Notify)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"\r\n\r\nmore")

    async def test_fault(self) -> None:
        """
        Where comparing fails the client is told that it is not at fault.
        """
        _, _, client, answer = await self.compared()
        answer.errback(ZeroDivisionError("broken"))
        self.assertTrue((await client.end_of_all()).startswith(b"HTTP/1.1 500 "))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_accounts_closed(self) -> None:
        """
        That the relay stops meanwhile is no fault that would be logged.
        """
        _, _, client, answer = await self.compared()
        answer.errback(AccountError("the accounts are closed"))
        self.assertTrue((await client.end_of_all()).startswith(b"HTTP/1.1 500 "))

    async def test_relay_stops_meanwhile(self) -> None:
        """
        A relay that stops meanwhile drops the client.
        """
        relay, _, client, answer = await self.compared()
        await relay.stopService()
        await client.is_reset(2)
        answer.callback(True)

    async def test_remembered(self) -> None:
        """
        One that was right is not compared again for a while.
        """
        relay, control = await self.with_users()
        said = f"GET / HTTP/1.1\r\nHost: web\r\nAuthorization: {basic()}\r\n\r\n".encode()
        await self.client(relay, said)
        await control.hears(Notify)
        self.patch(relay.hashing, "_threads", None)
        await self.client(relay, said)
        await control.hears(Notify)


class AddressTests(RunningCase):
    """
    What the agent is told of the connection.
    """

    async def test_told(self) -> None:
        """
        An agent that asked for it is told where the client connected to.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, Register(connection_id="web", wants_address=True))
        client = await self.client(relay, request("web"))
        notify = await control.hears(Notify)
        self.assertEqual(notify.client, f"{HOST}:{client.port}")
        self.assertEqual(notify.came_to, f"{HOST}:{relay.facts.clients[0]}")

    async def test_not_told(self) -> None:
        """
        One that did not is not, and hears no password that it did not ask for.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        await self.client(
            relay,
            f"GET / HTTP/1.1\r\nHost: web\r\nAuthorization: {basic()}\r\n\r\n".encode(),
        )
        notify = await control.hears(Notify)
        self.assertEqual((notify.came_to, notify.user, notify.password), ("", "", ""))


class AdmissionTests(RunningCase):
    """
    S6: whether this client may reach this server now.
    """

    async def test_not_allowed(self) -> None:
        """
        A server that is not open to this client's address is not shown to it.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, Register(connection_id="web", allow=("10.0.0.0/8",)))
        self.assertIn("403", await self.get(relay, "web"))
        self.assertEqual(notices(control), [])

    async def test_allowed(self) -> None:
        """
        One that is open to it is.
        """
        relay = self.start_relay()
        control = await self.raw_agent(
            relay, Register(connection_id="web", allow=("10.0.0.0/8", "127.0.0.0/8"))
        )
        await self.client(relay, request("web"))
        await control.hears(Notify)

    async def test_agent_checks_again(self) -> None:
        """
        The agent does not rely on the relay for that.
        """
        relay = self.start_relay()
        target = self.target()
        networks = (ip_network("10.0.0.0/8"),)
        await self.start_agent(relay, self.server("web", target.address, allow=networks))
        relay.registry.servers["web"].allow = ()
        answer = await self.get(relay, "web")
        self.assertIn(Code.NOT_ALLOWED.value, answer)
        self.assertEqual(target.visits, [])

    async def test_agent_away(self) -> None:
        """
        A server whose agent is not here is told apart from one that is not.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        control.abort()
        await eventually(lambda: not relay.registry.agents, "it is gone")
        answer = await self.get(relay, "web")
        self.assertTrue(answer.startswith("HTTP/1.1 503 "), answer)
        self.assertIn(Code.AGENT_AWAY.value, answer)
        self.assertIn("Retry-After", answer)

    async def test_too_many_wait(self) -> None:
        """
        When an agent has been notified of as many as may be, the next wait until
        it is their turn, in order, and what they say is not read meanwhile.
        """
        relay = self.start_relay({"waiting_per_server": 2})
        control = await self.raw_agent(relay, "web", "shop")
        sessions = [await self.session(relay, control) for _ in range(2)]
        room, waiting = relay.visits.room, []
        for number in range(2):
            client = await self.client(relay, request("web") + b"%d" % number * 100_000)
            await eventually(lambda n=number: room.queued > n, "it is queued")  # type: ignore[misc]
            waiting.append(client)
        await self.session(relay, control, "shop")
        for client, (before, notify) in zip(waiting, sessions, strict=True):
            data = await self.raw_data(relay, notify.ticket)
            await data.hears(b"GET")
            last = await control.hears(Notify)
            data = await self.raw_data(relay, last.ticket)
            await data.hears(b"GET")
            await data.hears(b"%d" % waiting.index(client) * 100_000)
            data.say(b"here you are")
            await client.hears(b"here you are")
            before.reset()
        self.assertEqual(room.queued, 0)

    async def test_too_many_queued(self) -> None:
        """
        When no more can wait the source that has the most pays.
        """
        relay = self.start_relay({"waiting_per_server": 1, "queued": 2})
        control = await self.raw_agent(relay, "web")
        await self.session(relay, control)
        room = relay.visits.room
        first, last = [await self.client(relay, request("web")) for _ in range(2)]
        await eventually(lambda: room.queued == 2, "they are queued")
        answer = await self.get(relay, "web")
        self.assertTrue(answer.startswith("HTTP/1.1 503 "), answer)
        self.assertIn("2 clients are queued at this relay", answer)
        self.assertIn("Retry-After", answer)
        other = await self.client(relay, request("web"), source="127.0.0.2")
        await last.hears(b"too many clients wait at this relay")
        self.assertEqual((first.received, other.received), (b"", b""))

    async def test_too_many_sessions(self) -> None:
        """
        When too many sessions are running, the next client is told so, and
        one more may come when one has ended.
        """
        relay = self.start_relay({"sessions_per_server": 1})
        control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"GET")
        self.assertIn("503", await self.get(relay, "web"))
        client.reset()
        await data.hears_kind(Kind.RESET)
        await self.session(relay, control)

    async def test_share_of_one_client(self) -> None:
        """
        A server's owner may say how many sessions of it one client has.
        """
        relay = self.start_relay()
        control = await self.raw_agent(
            relay, Register(connection_id="web", sessions_per_client=1), "shop"
        )
        client, _ = await self.session(relay, control)
        answer = await self.get(relay, "web")
        self.assertTrue(answer.startswith("HTTP/1.1 503 "), answer)
        self.assertIn("one client has 1 sessions of web at most", answer)
        await self.session(relay, control, "shop")
        client.reset()
        await control.hears(Cancel)
        await self.session(relay, control)

    async def test_too_fast(self) -> None:
        """
        Clients whose like left before they were served have to wait, and come
        too late when the rate allows no more of them.
        """
        relay = self.start_relay({"notify_burst": 8, "notify_rate": 0.1, "waiting": 1.0})
        control = await self.raw_agent(relay, "web")
        for _ in range(2):  # a quarter of the burst
            client, _ = await self.session(relay, control)
            client.reset()
            await control.hears(Cancel)
        self.assertIn("503", await self.get(relay, "web"))

    async def test_refused_on_an_own_port(self) -> None:
        """
        On a port of its own there is nothing to say: it is reset at once.
        """
        relay = self.start_relay()
        port = relay.config.ports.first
        await self.raw_agent(
            relay,
            Register(connection_id="web", reach=(f"port:{port}",), allow=("10.0.0.0/8",)),
        )
        client = await self.dial(port)
        await client.is_reset(1)


class WaitingTests(RunningCase):
    """
    S7 to S10: what may happen before the data channel comes.
    """

    async def test_reset_is_an_abort(self) -> None:
        """
        A client that resets while it waits is called off at the agent, and
        its place is free.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, control)
        client.reset()
        self.assertEqual((await control.hears(Cancel)).session, notify.session)
        self.assertEqual((relay.visits.room.waiting, relay.visits.sessions), (0, {}))
        data = await self.raw_data(relay, notify.ticket)
        await data.hears_kind(Kind.RESET)

    async def test_reset_while_paused(self) -> None:
        """
        That is noticed within a second also when so much is held that nobody
        reads from it.
        """
        relay = self.start_relay({"held": 1000})
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, request("web") + b"x" * 5000)
        await control.hears(Notify)
        began = reactor.seconds()
        client.reset()
        await control.hears(Cancel)
        self.assertLess(reactor.seconds() - began, 1)
        self.assertEqual(relay.visits.room.waiting, 0)

    async def test_end_is_no_abort(self) -> None:
        """
        A client that has said all and ends still gets its answer.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, request("web"))
        client.end()
        notify = await control.hears(Notify)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears_kind(Kind.EOF)
        self.assertEqual(data.received, request("web"))
        data.say(b"the answer")
        data.end()
        self.assertEqual(await client.end_of_all(), b"the answer")
        self.assertFalse(client.was_reset)

    async def test_held_within_a_bound(self) -> None:
        """
        No more than the limit is held of a client that goes on talking; what
        it says is not lost.
        """
        relay = self.start_relay({"held": 1000})
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, request("web"))
        notify = await control.hears(Notify)
        said = b"x" * 8_000_000
        client.say(said)
        (place,) = relay.visits.sessions.values()
        self.assertTrue(place.waiting)
        data = await self.raw_data(relay, notify.ticket)
        whole = len(said) + len(request("web"))
        await eventually(lambda: sum(len(p) for _, p in data.frames) >= whole, "all of it", 20)

    async def test_agent_does_not_answer(self) -> None:
        """
        When the time is up the client is told that nothing came from the agent.
        """
        relay = self.start_relay({"waiting": 0.2})
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, request("web"))
        notify = await control.hears(Notify)
        answer = await client.end_of_all()
        self.assertTrue(answer.startswith(b"HTTP/1.1 504 "), answer)
        self.assertIn(b"nothing came from the agent", answer)
        self.assertEqual((await control.hears(Cancel)).session, notify.session)
        self.assertEqual(relay.visits.room.waiting, 0)

    async def test_no_data_channel(self) -> None:
        """
        An agent that accepted and opened no data channel is told apart.
        """
        relay = self.start_relay({"waiting": 0.2})
        control = await self.raw_agent(relay, "web")
        client, _ = await self.session(relay, control)
        self.assertIn(b"opened no data channel", await client.end_of_all())

    async def test_refused(self) -> None:
        """
        The agent's reason for a refusal is what the client reads.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, request("web"))
        notify = await control.hears(Notify)
        control.say(
            Accept(session=notify.session),
            Refuse(session=notify.session, code="refused-by-target", reason="closed today"),
        )
        answer = await client.end_of_all()
        self.assertTrue(answer.startswith(b"HTTP/1.1 502 "), answer)
        self.assertIn(b"closed today", answer)
        self.assertEqual(relay.visits.refusals, {"refused-by-target": 1})

    async def test_refused_with_line_ends(self) -> None:
        """
        A reason cannot add anything to the answer's head.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client = await self.client(relay, request("web"))
        notify = await control.hears(Notify)
        control.say(
            Refuse(session=notify.session, code="busy", reason="x\r\nX-Evil: 1\r\n\r\n<script>")
        )
        self.assertNotIn(b"\nX-Evil", await client.end_of_all())

    async def test_agent_goes_away(self) -> None:
        """
        Who waits for an agent that is lost is told.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client, _ = await self.session(relay, control)
        control.abort()
        self.assertIn(b"503", await client.end_of_all())

    async def test_told_although_it_talks(self) -> None:
        """
        A client that goes on sending gets its answer whole, and no reset
        that would overtake it.
        """
        relay = self.start_relay()
        client = await self.client(relay, request("nowhere") + b"x" * 3_000_000)
        answer = await client.end_of_all()
        self.assertTrue(answer.endswith(b"nowhere\n"), answer)
        self.assertFalse(client.was_reset)

    async def test_leaves_when_told(self) -> None:
        """
        A client that never closes is left after the linger limits.
        """
        relay = self.start_relay({"linger_idle": 0.1, "linger": 0.3})
        client = await self.client(relay, request("nowhere"))
        await client.hears(b"404")
        await client.is_gone(2)


class SessionTests(RunningCase):
    """
    S13 to S20, where they do not go well.
    """

    async def test_client_resets(self) -> None:
        """
        A client's reset is one on the data channel.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"GET")
        client.reset()
        await data.hears_kind(Kind.RESET)
        self.assertNotIn(Kind.EOF, data.kinds)
        await eventually(lambda: not relay.clients.splices, "the session is over")
        self.assertEqual(relay.visits.room.served, 0)

    async def test_server_resets(self) -> None:
        """
        A reset on the data channel is one for the client.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"GET")
        data.say_raw(bytes((Kind.RESET, 0, 0)))
        await client.is_reset()

    async def test_truncated(self) -> None:
        """
        A data channel that breaks off is never a clean end.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        data.say(b"half of a")
        await client.hears(b"half of a")
        data.transport.loseConnection()
        await client.is_reset()
        self.assertFalse(client.ended)

    async def test_idle(self) -> None:
        """
        A session in which nothing moves is ended after the limit.
        """
        relay = self.start_relay({"idle": 0.2})
        control = await self.raw_agent(relay, "web")
        client, notify = await self.session(relay, control)
        await self.raw_data(relay, notify.ticket)
        await client.is_reset(2)

    async def test_addresses_in_the_log(self) -> None:
        """
        Who came, to which server, and how it ended stands in the log.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        logged = self.logged()
        client, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        data.end()
        await client.end_of_all()
        client.close()
        await eventually(lambda: relay.clients.finished, "it is over")
        line = next(text for text in logged if "is over" in text)
        self.assertIn(f"{HOST}:", line)
        self.assertIn("with web", line)
        self.assertIn("clean", line)

"""
An agent that wants the clients of another one, on real sockets.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from dataclasses import replace

from msgspec import structs

from relaytunnel.accounts import Rights
from relaytunnel.admin.api import status
from relaytunnel.errors import Code
from relaytunnel.relay.service import RelayService
from relaytunnel.relay.state import StateDirectory
from relaytunnel.wire.messages import (
    Notify,
    Register,
    Registered,
    Rejected,
    StandingRequest,
    Withdraw,
    Withdrawn,
)
from tests.accounts.test_store import first_version
from tests.running import HOST, RawControl, RunningCase, Target, echo, eventually, hello_page

NAME = "relay.example.net"


def client_hello(name: str) -> bytes:
    """
    @return: what a TLS client says first to the server of this name.
    """
    said = ssl.MemoryBIO()
    context = ssl.create_default_context()
    client = context.wrap_bio(ssl.MemoryBIO(), said, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return said.read()


class TheftTests(RunningCase):
    """
    C{owner} publishes C{web}; the account of C{thief} covers C{evil} alone.
    """

    async def start(self) -> tuple[RelayService, Target]:
        """
        Start a relay and the owner's agent.

        @return: the relay and the owner's server, which says what it hears.
        """
        relay = self.start_relay(name=NAME, names=("apps.example.org",))
        target = self.target(echo)
        invitation = self.invite(relay, "owner", ["web"], hosts=["www.example.com"])
        web = self.server(
            "web", target.address, "name", "host:www.example.com", "sni:www.example.com"
        )
        await self.start_agent(relay, web, invitation=replace(invitation, host=HOST))
        return relay, target

    async def thief(self, relay: RelayService, *hosts: str) -> RawControl:
        """
        @return: the thief's control channel.
        """
        return await self.raw_agent(
            relay, invitation=self.invite(relay, "thief", ["evil"], hosts=hosts)
        )

    async def refused(self, control: RawControl, *reach: str) -> Rejected:
        """
        @return: how the relay answers who wants C{evil} to be reached so.
        """
        control.messages.clear()
        control.say(Register(connection_id="evil", reach=reach))
        rejected = await control.hears(Rejected)
        self.assertEqual(rejected.code, Code.NOT_ALLOWED.value, reach)
        return rejected

    async def visits(self, relay: RelayService, thief: RawControl, *names: str) -> None:
        """
        Assert that who comes for these names, by HTTP and by TLS, gets the
        owner's server.
        """
        for name in names:
            hello = client_hello(name)
            for said in (f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode(), hello):
                client = await self.client(relay, said)
                await client.hears(said)
                client.reset()
        self.assertEqual([each for each in thief.messages if isinstance(each, Notify)], [])

    async def test_host_and_sni(self) -> None:
        """
        An agent without a right to a name gets none of its clients: not by
        the name itself, nor by a wildcard, nor by the ID alone.
        """
        relay, _ = await self.start()
        thief = await self.thief(relay)
        for claim in (
            f"web.{NAME}",
            f"WEB.{NAME}.",
            f"*.{NAME}",
            "web.apps.example.org",
            "web.localhost",
            "web",
            "*.example.net",
            "www.example.com",
            "*.example.com",
            NAME,
            "localhost",
            "127.0.0.1",
            "*.com",
        ):
            for kind in ("host", "sni"):
                await self.refused(thief, f"{kind}:{claim}")
                await self.refused(thief, "name", f"{kind}:{claim}")
        thief.say(Register(connection_id="evil"))
        await thief.hears(StandingRequest)
        await self.visits(
            relay, thief, f"web.{NAME}", "web.apps.example.org", "web.localhost", "www.example.com"
        )
        self.assertIn("404", await self.get(relay, "web.example.com"))

    async def test_while_the_owner_is_away(self) -> None:
        """
        Nor when the owner is away: its clients are told so.
        """
        relay = self.start_relay(name=NAME)
        owner = self.invite(relay, "owner", ["web"], hosts=["www.example.com"])
        control = await self.raw_agent(
            relay,
            Register(connection_id="web", reach=("name", "host:www.example.com")),
            invitation=owner,
        )
        control.transport.loseConnection()
        await eventually(lambda: not relay.registry.servers, "the owner is away")
        reservations = relay.publisher.reservations
        await eventually(lambda: reservations.claim("www.example.com", "first"), "it is known")
        everything = await self.raw_agent(relay, invitation=self.first_invitation(relay))
        for agent in (await self.thief(relay), everything):
            for claim in ("www.example.com", "*.example.com", f"web.{NAME}"):
                await self.refused(agent, f"host:{claim}")
        for name in (f"web.{NAME}", "www.example.com"):
            self.assertIn("agent-away", await self.get(relay, name))

    async def test_right_is_given_and_taken(self) -> None:
        """
        A right counts within a second, both ways, for an agent that is
        connected; meanwhile nothing happens to its control channel.
        """
        relay = self.start_relay(name=NAME)
        store = self.accounts(relay)
        thief = await self.thief(relay)
        rejected = await self.refused(thief, "host:www.example.com")
        self.assertIn("'relaytunnel grant thief --host www.example.com'", rejected.reason)
        agent = relay.registry.agents["thief"]
        self.assertEqual(agent.refused_claims, ["www.example.com"])
        thief.messages.clear()
        right = Rights(hosts=("*.example.com",))
        store.grant("thief", right)
        await thief.hears(Registered, 1.5)
        await thief.hears(StandingRequest)
        self.assertEqual(agent.refused_claims, [])
        client = await self.client(relay, b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
        self.assertEqual((await thief.hears(Notify)).connection_id, "evil")
        client.reset()
        store.deny("thief", right)
        withdrawn = await thief.hears(Withdrawn, 1.5)
        self.assertEqual(withdrawn.code, Code.NOT_ALLOWED.value)
        self.assertIn("404", await self.get(relay, "www.example.com"))
        self.assertIs(relay.registry.agents["thief"], agent)

    async def test_right_of_another(self) -> None:
        """
        Who claims what nobody else has a right to gives it up within a second
        when somebody is given the right.
        """
        relay = self.start_relay(name=NAME)
        first = await self.raw_agent(
            relay, Register(connection_id="any", reach=("host:www.example.com",))
        )
        self.invite(relay, "shop", ["shop"], hosts=["www.example.com"])
        withdrawn = await first.hears(Withdrawn, 1.5)
        self.assertEqual((withdrawn.connection_id, withdrawn.code), ("any", "not-allowed"))
        self.accounts(relay).revoke("shop")
        await eventually(
            lambda: not relay.publisher.reservations.claim("www.example.com", "first"),
            "it is free",
        )
        first.messages.clear()
        first.say(Register(connection_id="any", reach=("host:www.example.com",)))
        await first.hears(Registered)

    async def test_not_wanted_any_more(self) -> None:
        """
        A refused server that its agent withdraws does not come when the right
        to its name does.
        """
        relay = self.start_relay(name=NAME)
        thief = await self.thief(relay)
        await self.refused(thief, "host:www.example.com")
        thief.say(Withdraw(connection_id="evil"))
        await thief.hears(Withdrawn)
        self.accounts(relay).grant("thief", Rights(hosts=("www.example.com",)))
        right = relay.registry.agents["thief"]
        await eventually(lambda: right.rights.may_claim("www.example.com"), "it has the right")
        self.assertEqual(relay.registry.servers, {})

    async def test_upgraded(self) -> None:
        """
        After an upgrade nobody may claim anything, but for the first agent: the
        log says so once, and who is refused is listed with the command.
        """
        path = os.path.abspath(self.mktemp())
        StateDirectory(path).prepare()
        secret = first_version(StateDirectory(path).database)
        logged = self.logged()
        relay = self.start_relay(name=NAME, state=path)
        said = [text for text in logged if "need a right now" in text]
        self.assertEqual(len(said), 1)
        self.assertIn("'relaytunnel agents'", said[0])
        office = await self.raw_agent(relay, invitation=relay.facts.invitation("office", secret))
        office.say(
            Register(connection_id="web", reach=("host:www.example.com", "sni:*.example.com")),
            Register(connection_id="a.office"),
        )
        rejected = await office.hears(Rejected)
        command = "relaytunnel grant office --host www.example.com --host '*.example.com'"
        self.assertIn(command, rejected.reason)
        self.assertTrue([text for text in logged if command in text])
        await office.hears(StandingRequest)
        self.assertEqual(list(relay.registry.servers), ["a.office"])
        self.assertEqual(
            status(relay)["agents"][0]["refused_claims"], ["www.example.com", "*.example.com"]
        )
        await relay.stopService()
        del logged[:]
        self.start_relay(name=NAME, state=path)
        self.assertFalse([text for text in logged if "need a right now" in text])

    async def test_id_anywhere(self) -> None:
        """
        With C{id-anywhere} an ID is looked for at the start of any name, which
        the log warns of; without it, it is not.
        """
        logged = self.logged()
        relay = self.start_relay(name=NAME, id_anywhere=True)
        self.assertTrue([text for text in logged if "id-anywhere is on" in text])
        here = replace(self.first_invitation(relay), host=HOST)
        web = self.server("web", self.target(hello_page).address)
        await self.start_agent(relay, web, invitation=here)
        self.assertIn("200", await self.get(relay, "web.example.com"))
        relay.reload(structs.replace(relay.config, id_anywhere=False))
        self.assertIn("404", await self.get(relay, "web.example.com"))
        self.assertIn("200", await self.get(relay, f"web.{NAME}"))

    async def test_new_name(self) -> None:
        """
        A name that the relay is given while it runs is no server's any more,
        nor is one below it.
        """
        relay = self.start_relay(name=NAME)
        control = await self.raw_agent(
            relay,
            Register(connection_id="any", reach=("host:web.example.com",)),
            "apps.example.com",
            "web",
        )
        control.messages.clear()
        changed = relay.reload(
            structs.replace(relay.config, names=("example.com", "apps.example.com"))
        )
        self.assertEqual(changed, ["[relay] names, id-anywhere"])
        await eventually(
            lambda: (
                {each.connection_id for each in control.messages if isinstance(each, Withdrawn)}
                == {"any", "apps.example.com"}
            ),
            "they are withdrawn",
        )
        self.assertEqual(list(relay.registry.servers), ["web"])

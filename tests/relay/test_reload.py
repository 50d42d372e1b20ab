"""
A relay that is given another configuration, and one that lets its sessions end.
"""

from __future__ import annotations

import os

import msgspec

from twisted.internet.error import ConnectError

from relaytunnel.channel.identity import own_identity
from relaytunnel.config import ClientPort, FileAccount, Limits, RelayConfig
from relaytunnel.config.access import networks
from relaytunnel.config.names import PortRange
from relaytunnel.errors import ConfigError, Rejection, StateError
from relaytunnel.relay.service import RelayService
from relaytunnel.wire.messages import Goodbye, Notify, Restarting
from tests.running import (
    ANY_PORT,
    HOST,
    Peer,
    RunningCase,
    echo,
    eventually,
    free_ports,
    reactor,
    request,
)


class _Running(RunningCase):
    """
    A relay with an agent, its server C{web}, and one session that goes on.
    """

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        super().setUp()
        self.relay = self.start_relay()
        self.web = self.target(echo)
        self.agent = await self.start_agent(self.relay, self.server("web", self.web.address))
        self.visitor = await self.begin(b"first")

    async def begin(self, word: bytes) -> Peer:
        """
        Begin a session that says this word and hears it.
        """
        client = await self.client_of(self.relay.facts.clients[0])
        said = request("web") + word
        client.say(said)
        await client.hears(said)
        return client

    async def client_of(self, port: int) -> Peer:
        return await self.dial(port)

    async def goes_on(self) -> None:
        """
        Assert that the session that runs still does.
        """
        self.visitor.say(b"once more")
        await eventually(lambda: self.visitor.received.endswith(b"once more"), "it is heard")

    def changed(self, **given: object) -> RelayConfig:
        return msgspec.structs.replace(self.relay.config, **given)


class ReloadTests(_Running):
    """
    Another configuration.
    """

    async def test_nothing(self) -> None:
        """
        The same configuration changes nothing.
        """
        self.assertEqual(self.relay.reload(self.changed()), [])
        await self.goes_on()

    async def test_limits(self) -> None:
        """
        Other limits hold for who comes from now on.
        """
        limits = msgspec.structs.replace(self.relay.config.limits, sessions_per_server=1)
        self.assertEqual(self.relay.reload(self.changed(limits=limits)), ["[limits]"])
        answer = await self.get(self.relay, "web")
        self.assertTrue(answer.startswith("HTTP/1.1 503 "), answer)
        await self.goes_on()

    async def test_ports(self) -> None:
        """
        A shared port comes, another goes, and what came by it goes on.
        """
        before = self.relay.facts.clients[0]
        new = f"tcp:{free_ports().first}:interface={HOST}"
        self.relay.reload(self.changed(clients=(ClientPort(endpoint=new),)))
        (after,) = self.relay.facts.clients
        self.assertNotEqual(before, after)
        client = await self.dial(after)
        client.say(request("web"))
        await client.hears(request("web"))
        with self.assertRaises(ConnectError):
            await self.dial(before)
        await self.goes_on()

    async def test_port_is_taken(self) -> None:
        """
        A port that cannot be had refuses all of it.
        """
        taken = f"tcp:{self.relay.facts.agents}:interface={HOST}"
        free = f"tcp:{free_ports().first}:interface={HOST}"
        ports = tuple(ClientPort(endpoint=each) for each in (ANY_PORT, free, taken))
        before = self.relay.config
        limits = self.relay.clients.limits
        config = self.changed(clients=ports, limits=Limits(idle=7.0))
        self.assertRaises(StateError, self.relay.reload, config)
        self.assertIs(self.relay.config, before)
        self.assertIs(self.relay.clients.limits, limits)
        with self.assertRaises(ConnectError):
            await self.dial(int(free.split(":")[1]))
        await self.goes_on()

    async def test_default(self) -> None:
        """
        A port's default server may change, without the port.
        """
        (port,) = self.relay.config.clients
        changed = self.relay.reload(
            self.changed(clients=(ClientPort(endpoint=port.endpoint, default="web"),))
        )
        self.assertEqual(changed, [f"[listen] clients: the default of {port.endpoint}"])
        client = await self.client_of(self.relay.facts.clients[0])
        client.say(b"\0binary\n")
        await client.hears(b"\0binary\n")

    async def test_fixed(self) -> None:
        """
        What cannot change while it runs is named, and refuses all of it.
        """
        config = self.changed(name="other.example", state="/nowhere", limits=Limits(idle=7.0))
        with self.assertRaises(ConfigError) as caught:
            self.relay.reload(config)
        self.assertEqual(
            [fault.partition(":")[0] for fault in caught.exception.faults],
            ["[relay] name", "[relay] state"],
        )
        self.assertNotEqual(self.relay.config.limits.idle, 7.0)

    async def test_certificate(self) -> None:
        """
        A renewed certificate is shown to agents that come from now on.
        """
        directory = os.path.abspath(self.mktemp())
        os.mkdir(directory)
        identity = own_identity(directory, HOST)
        names = {name.rpartition(".")[2]: name for name in os.listdir(directory)}
        paths = {name: os.path.join(directory, name) for name in os.listdir(directory)}
        key = next(path for name, path in paths.items() if "key" in name)
        certificate = next(path for name, path in paths.items() if "cert" in name)
        self.assertTrue(names)
        changed = self.relay.reload(self.changed(certificate=certificate, key=key))
        self.assertEqual(changed, ["[tls] the certificate"])
        self.assertEqual(self.relay.facts.pin, identity.pin)
        control = await self.raw_control(self.relay, pin=identity.pin)
        self.assertIs(control.lost, None)
        await self.goes_on()

    async def test_bad_certificate(self) -> None:
        """
        One that cannot be read refuses all of it.
        """
        config = self.changed(certificate="/nowhere/c.pem", key="/nowhere/k.pem")
        self.assertRaises(StateError, self.relay.reload, config)
        await self.goes_on()

    async def test_accounts(self) -> None:
        """
        An account of the file comes, and goes with its agent.
        """
        secret = "sha256:" + "00" * 32
        account = FileAccount(id="office", secret_hash=secret, publish=("*",))
        self.assertEqual(self.relay.reload(self.changed(accounts=(account,))), ["[[agent]]"])
        self.assertEqual(len(self.relay.config.accounts), 1)
        found = await self.relay.accounts.rights("office")
        self.assertTrue(found is not None and found.may_publish("web"))
        reservations = self.relay.publisher.reservations
        shop = FileAccount(id="office", secret_hash=secret, hosts=("www.example",))
        self.relay.reload(self.changed(accounts=(shop,)))
        await eventually(lambda: reservations.claim("www.example", "first"), "it is known")
        self.relay.reload(self.changed(accounts=()))
        self.assertIsNone(await self.relay.accounts.rights("office"))
        await self.goes_on()

    async def test_balancers(self) -> None:
        """
        From now on connections from a network begin with a header.
        """
        self.relay.reload(self.changed(proxies=networks(["127.0.0.0/8"])))
        client = await self.client_of(self.relay.facts.clients[0])
        client.say(request("web"))
        await client.is_reset()
        await self.goes_on()

    async def test_range(self) -> None:
        """
        Servers may ask for ports of another range.
        """
        first = self.relay.config.ports.first
        self.relay.reload(self.changed(ports=PortRange(first, first)))
        await self.agent.publish(self.server("own", self.web.address, f"port:{first}"))
        with self.assertRaises(Rejection):
            await self.agent.publish(self.server("other", self.web.address, f"port:{first + 1}"))
        self.assertEqual(set(self.relay.registry.servers), {"web", "own"})


class DrainTests(_Running):
    """
    Letting sessions end.
    """

    async def drained(self, relay: RelayService) -> list[object]:
        """
        Begin to drain.

        @return: has something in it when that is over.
        """
        over: list[object] = []
        relay.drain().addCallback(over.append)
        return over

    async def test_sessions_end(self) -> None:
        """
        It takes no new clients, and waits for the session that runs.
        """
        port = self.relay.facts.clients[0]
        over = await self.drained(self.relay)
        with self.assertRaises(ConnectError):
            await self.dial(port)
        await self.goes_on()
        self.assertEqual(over, [])
        self.visitor.reset()
        await eventually(lambda: over, "it is over")

    async def test_agents_are_told(self) -> None:
        """
        Agents hear of it, and that the relay comes back.
        """
        control = await self.raw_agent(self.relay, invitation=self.invite(self.relay, "other"))
        await self.drained(self.relay)
        await control.hears(Restarting)
        self.visitor.reset()
        await self.relay.stopService()
        await control.hears(Goodbye)

    async def test_who_waits(self) -> None:
        """
        A client that waits for its agent is served.
        """
        control = await self.raw_agent(
            self.relay, "slow", invitation=self.invite(self.relay, "other")
        )
        client = await self.client(self.relay, request("slow"))
        notify = await control.hears(Notify)
        over = await self.drained(self.relay)
        data = await self.raw_data(self.relay, notify.ticket)
        await data.hears(request("slow"))
        data.say(b"served")
        await client.hears(b"served")
        self.assertEqual(over, [])

    async def test_too_long(self) -> None:
        """
        It waits for so long and no longer.
        """
        limits = msgspec.structs.replace(self.relay.config.limits, drain=0.1)
        self.relay.reload(self.changed(limits=limits))
        began = reactor.seconds()
        await self.relay.drain()
        self.assertGreaterEqual(reactor.seconds() - began, 0.1)
        self.assertTrue(self.relay.clients.splices)


del _Running

"""
A session that is over leaves nothing for the collector to find: what it held
is given back at once, however it ended.
"""

from __future__ import annotations

import gc
from collections import Counter
from functools import partial

from relaytunnel.agent.service import AgentService
from relaytunnel.relay.service import RelayService
from tests.cycles import collected
from tests.running import HOST, Peer, RunningCase, echo, eventually


def _lost(*peers: Peer) -> bool:
    return all(peer.lost is not None for peer in peers)


class CyclesTests(RunningCase):
    """
    Sessions between a real relay and a real agent, without a collector.
    """

    timeout = 60

    async def _leavings(self, data: str) -> Counter[str]:
        relay = self.start_relay()
        port = relay.config.ports.first
        self.servers: dict[bytes, Peer] = {}
        target = self.target(self._heard)
        agent = await self.start_agent(
            relay,
            self.server("echo", target.address, f"port:{port}", data=data),
            self.server("dead", f"{HOST}:1", f"port:{port + 1}", data=data),
        )
        # What is made once is made now.
        await self._visits(relay, agent, port)
        self.addCleanup(gc.enable)
        self.addCleanup(gc.unfreeze)
        gc.disable()
        gc.freeze()  # what other tests have left is none of our business
        for _ in range(3):
            await self._visits(relay, agent, port)
        return collected()

    def _heard(self, peer: Peer) -> None:
        self.servers[peer.received] = peer
        echo(peer)

    async def _visits(self, relay: RelayService, agent: AgentService, port: int) -> None:
        """
        Sessions that end in all ways, and clients that are not served.
        """
        for end in ("client ends", "server closes", "client resets", "server resets"):
            client = await self.dial(port)
            said = b"hello from %d" % client.port
            client.say(said)
            await client.hears(said)
            # Not the last one that came: a client that reset at once may still
            # have had the agent dial.
            server = self.servers[said]
            if end == "client ends":
                client.end()
                await server.end_of_all()
                server.close()
                await client.end_of_all()
                client.close()
            elif end == "server closes":
                server.close()
                await client.end_of_all()
                client.close()
            elif end == "client resets":
                client.reset()
            else:
                server.reset()
            await eventually(partial(_lost, client, server), f"over: {end}")
        client = await self.dial(port + 1)
        await client.is_gone()
        client = await self.dial(port)
        client.reset()
        await eventually(
            lambda: not (relay.clients.splices or relay.clients.present or agent.splices),
            "all visits are over",
        )

    async def test_plain(self) -> None:
        """
        With plain data channels.
        """
        self.assertEqual(await self._leavings("plain"), {})

    async def test_tls(self) -> None:
        """
        With data channels over TLS, which are used again.
        """
        self.assertEqual(await self._leavings("tls"), {})

"""
Through a relay and an agent everything is as it is without them.

C{RELAYTUNNEL_DIFFERENTIAL} says how many scripts are played on each way (the
default is for every day), C{RELAYTUNNEL_DIFFERENTIAL_SEED} with which one to
begin: a failure names the seed of the script that it takes to see it again.
"""

from __future__ import annotations

import os
import socket
from typing import Any, Literal

from twisted.protocols.portforward import ProxyFactory, ProxyServer

from relaytunnel.agent import service as agent_service
from relaytunnel.config import ServerConfig
from relaytunnel.config.names import Reach
from relaytunnel.relay import service as relay_service
from relaytunnel.splice import PairedEngine
from tests import differential
from tests.differential import Observation, make_script, play
from tests.running import HOST, RunningCase, eventually, reactor

_COUNT = int(os.environ.get("RELAYTUNNEL_DIFFERENTIAL", "25"))
_FIRST = int(os.environ.get("RELAYTUNNEL_DIFFERENTIAL_SEED", "1"))
_TELLING = 60
"""Among so many scripts there are some for every fault."""


class _Differential(RunningCase):
    """
    Plays scripts on two ways to the same server.
    """

    timeout = 60 + 2 * _COUNT

    def setUp(self) -> None:
        super().setUp()
        self.listening = socket.create_server((HOST, 0), backlog=64)
        self.listening.setblocking(False)
        self.addCleanup(self.listening.close)
        self.direct: int = self.listening.getsockname()[1]
        self._known: dict[int, list[Observation]] = {}

    async def differences(self, port: int, count: int, first: int) -> list[str]:
        found = []
        for seed in range(first, first + count):
            script = make_script(seed)
            expected = await play(script, self.listening, self.direct)
            self.assertNotEqual(expected[-1][0], "not settled", f"{script}: {expected}")
            observed = await play(script, self.listening, port)
            if observed != expected:
                found.append(f"{script}\n  directly {expected}\n  through  {observed}")
        return found


class RelayedTests(_Differential):
    """
    Through a relay and an agent.
    """

    async def _through(self, data: Literal["tls", "plain"], paired: bool) -> None:
        if paired:
            for service in (relay_service, agent_service):
                self.patch(service, "best_engine", lambda *_: PairedEngine())
        relay = self.start_relay()
        port = relay.config.ports.first
        server = ServerConfig(
            id="differential",
            target=f"{HOST}:{self.direct}",
            reach=(Reach.parse(f"port:{port}"),),
            data=data,
        )
        agent = self.new_agent(self.first_invitation(relay), server)
        self.assertEqual(agent.engine.name, "paired" if paired else "pump")
        await eventually(lambda: _open(port), "the port is open")
        # That was a visit, too.
        await eventually(lambda: _accepted(self.listening), "the visit arrives")
        self.assertEqual(await self.differences(port, _COUNT, _FIRST), [])

    async def test_pump_plain(self) -> None:
        """
        The engine of this platform, with plain data channels.
        """
        await self._through("plain", False)

    async def test_pump_tls(self) -> None:
        """
        The engine of this platform, with data channels over TLS.
        """
        await self._through("tls", False)

    async def test_paired_plain(self) -> None:
        """
        The portable engine, with plain data channels.
        """
        await self._through("plain", True)

    async def test_paired_tls(self) -> None:
        """
        The portable engine, with data channels over TLS.
        """
        await self._through("tls", True)


class _Forgetful(ProxyServer):
    """
    Drops a byte of what is long.
    """

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data[:-1] if len(data) > 10_000 else data)


class FaultsTests(_Differential):
    """
    The scripts find faults where there are some.
    """

    timeout = 300

    async def _faults(self, protocol: type[ProxyServer], seeds: tuple[int, ...]) -> str:
        factory: Any = ProxyFactory(HOST, self.direct)
        factory.noisy = False
        factory.protocol = protocol
        port = reactor.listenTCP(0, factory, interface=HOST)
        self.addCleanup(port.stopListening)
        found = []
        for seed in seeds:
            found += await self.differences(port.getHost().port, 1, seed)
        return "\n".join(found)

    async def test_half_close_and_reset(self) -> None:
        """
        Twisted's port forwarder, which knows neither half-close nor reset, is
        found out on both counts.
        """
        self.patch(differential, "_SETTLED_WITHIN", 1.0)
        seeds = range(1, _TELLING)
        half = next(
            seed
            for seed in seeds
            if any(do.what == "end" for acts in make_script(seed).rounds[:-1] for do in acts)
        )
        reset = next(
            seed
            for seed in seeds
            if any(do.what == "reset" for acts in make_script(seed).rounds for do in acts)
        )
        found = await self._faults(ProxyServer, (half, reset))
        self.assertIn(f"seed {half}", found)
        self.assertIn(f"seed {reset}", found)

    async def test_a_byte(self) -> None:
        """
        So is one that loses a byte.
        """
        self.patch(differential, "_SETTLED_WITHIN", 1.0)
        seed = next(
            seed
            for seed in range(1, _TELLING)
            if any(
                do.what == "send" and do.much > 20_000 and not do.who
                for acts in make_script(seed).rounds[:1]
                for do in acts
            )
        )
        self.assertIn(f"seed {seed}", await self._faults(_Forgetful, (seed,)))


def _open(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex((HOST, port)) == 0


def _accepted(listening: socket.socket) -> bool:
    try:
        listening.accept()[0].close()
    except BlockingIOError:
        return False
    return True

"""
Those who guess do not keep others from being let in: agents with secrets of
relay.toml, and clients of servers that ask for a password.

What the relay's threads are at is counted; nothing here depends on how long a
hash takes.
"""

from __future__ import annotations

import signal
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from relaytunnel.accounts import hash_chosen
from relaytunnel.channel.tls import CONTROL
from relaytunnel.config.model import FileAccount
from relaytunnel.errors import Code
from relaytunnel.relay.service import RelayService
from relaytunnel.wire.control import frame
from relaytunnel.wire.messages import Denied, Hello, Notify, Register, Welcome
from tests.processes import empty_directory, start_relay
from tests.running import Peer, RawControl, RunningCase, eventually

CHOSEN = hash_chosen("horse", cost=2**10)


def says(server: str, password: str, user: str = "alice") -> bytes:
    given = b64encode(f"{user}:{password}".encode()).decode()
    return f"GET / HTTP/1.1\r\nHost: {server}\r\nAuthorization: Basic {given}\r\n\r\n".encode()


class HeldCase(RunningCase):
    """
    A relay whose hashes are computed when the test says so.

    @ivar running: what its threads are at: the secret, and what ends it.
    @ivar begun: all secrets that they were at, in their order.
    """

    def hold(self, relay: RelayService) -> None:
        self.running: dict[str, Callable[[], None]] = {}
        self.begun: list[str] = []

        def run(function: Callable[..., Any], secret: str, stored: str) -> Deferred[Any]:
            answer: Deferred[Any] = Deferred()

            def compute() -> None:
                del self.running[secret]
                answer.callback(function(secret, stored))

            self.begun.append(secret)
            self.running[secret] = compute
            return answer

        self.patch(relay.hashing._threads, "run", run)

    def compute(self) -> None:
        """
        Compute the one that was begun first.
        """
        next(iter(self.running.values()))()


class AgentTests(HeldCase):
    """
    Agents of relay.toml.
    """

    def setUp(self) -> None:
        super().setUp()
        self.relay = self.start_relay(
            accounts=(FileAccount(id="office", secret_hash=CHOSEN, publish=("*",)),)
        )
        self.hold(self.relay)

    async def says_hello(self, secret: str, source: str, agent: str = "office") -> RawControl:
        self.source = source
        control = await self.raw_control(self.relay)
        control.say(Hello(version=1, agent=agent, secret=secret, epoch=time.time_ns() // 1000))
        return control

    async def guesses(self, count: int, net: int) -> list[RawControl]:
        """
        One guess from each of so many addresses, none of which is checked yet
        but the first.
        """
        before = len(self.relay.hashing._queue) + len(self.running)
        found = [
            await self.says_hello(f"guess {number}", f"127.0.{net}.{number + 1}")
            for number in range(count)
        ]
        await eventually(
            lambda: len(self.relay.hashing._queue) + len(self.running) == before + count,
            "they wait",
        )
        return found

    async def test_known_agent(self) -> None:
        """
        An agent that was there comes back at once, whoever guesses.
        """
        control = await self.says_hello("horse", "127.0.2.1")
        await eventually(lambda: self.running, "it is checked")
        self.compute()
        await control.hears(Welcome)
        control.abort()
        await eventually(lambda: not self.relay.registry.agents, "it is gone")
        await self.guesses(60, 1)
        again = await self.says_hello("horse", "127.0.2.1")
        await eventually(lambda: len(self.relay.hashing._queue) == 60, "it waits")
        for _ in range(3):
            self.compute()
        await again.hears(Welcome)

    async def test_new_agent(self) -> None:
        """
        One that comes for the first time is before all sources from which
        wrong secrets have come.
        """
        for guess in await self.guesses(20, 1):
            await eventually(lambda: self.running, "it is checked")
            self.compute()
            await guess.hears(Denied)
        await self.guesses(20, 1)
        control = await self.says_hello("horse", "127.0.2.1")
        await eventually(lambda: len(self.relay.hashing._queue) == 20, "it waits")
        for _ in range(3):
            self.compute()
        await control.hears(Welcome)

    async def test_share_of_a_source(self) -> None:
        """
        One address with many guesses has a turn among others, and no more.
        """
        for number in range(4):
            await self.says_hello(f"guess {number}", "127.0.1.1")
        control = await self.says_hello("horse", "127.0.2.1")
        await eventually(lambda: len(self.relay.hashing._queue) == 4, "they wait")
        for _ in range(3):
            self.compute()
        await control.hears(Welcome)

    async def test_called_off(self) -> None:
        """
        Nothing is checked for those who have left, and it costs them the same.
        """
        guesses = await self.guesses(10, 1)
        for guess in guesses:
            guess.abort()
        await eventually(lambda: not len(self.relay.hashing._queue), "none waits")
        self.compute()
        self.assertEqual(self.begun, ["guess 0"])
        self.assertEqual(dict(self.relay.agents_port.turned_away), {"gave up": 10})
        self.assertGreater(self.relay.agents_port.admission._penalties.left("127.0.1.1"), 0)

    async def test_no_room(self) -> None:
        """
        Where no more can wait, that is the answer, and it costs nothing.
        """
        for net in range(1, 6):
            await self.guesses(13, net)
        late = await self.says_hello("horse", "127.0.20.1")
        await eventually(lambda: late.messages, "an answer")
        (denied,) = late.messages
        assert isinstance(denied, Denied)
        self.assertEqual(denied.code, Code.BUSY.value)
        self.assertEqual(self.relay.agents_port.admission._penalties.left("127.0.20.1"), 0)


class ClientTests(HeldCase):
    """
    Clients of servers that ask for a password.
    """

    async def servers(self) -> tuple[RelayService, RawControl, RawControl]:
        relay = self.start_relay()
        users = (("alice", CHOSEN),)
        agents = []
        for name in ("hostile", "honest"):
            agents.append(
                await self.raw_agent(
                    relay,
                    Register(connection_id=name, users=users),
                    invitation=self.invite(relay, name),
                )
            )
        self.hold(relay)
        return relay, agents[0], agents[1]

    async def comes(self, relay: RelayService, source: str, said: bytes) -> Peer:
        self.source = source
        return await self.client(relay, said)

    async def test_unrelated_login(self) -> None:
        """
        However many guess at one agent's server, and however long its hashes
        take, a login at another agent's begins at once.
        """
        relay, _, honest = await self.servers()
        for number in range(100):
            said = says("hostile", f"guess {number}")
            await self.comes(relay, f"127.0.1.{number + 1}", said)
        await eventually(lambda: len(relay.hashing._queue) == 64, "they wait, or are refused")
        for password in ("horse", "house"):
            client = await self.comes(relay, "127.0.2.1", says("honest", password))
            await eventually(lambda p=password: p in self.running, "it is begun")  # type: ignore[misc]
            self.running[password]()
        await honest.hears(Notify)
        self.assertTrue((await client.end_of_all()).startswith(b"HTTP/1.1 401 "))
        self.assertEqual(self.begun, ["guess 0", "horse", "house"])

    async def test_same_server(self) -> None:
        """
        At the same server, too, another source has its turn.
        """
        relay, hostile, _ = await self.servers()
        for number in range(8):
            await self.comes(relay, "127.0.1.1", says("hostile", f"guess {number}"))
        await eventually(lambda: len(relay.hashing._queue) == 7, "they wait")
        await self.comes(relay, "127.0.2.1", says("hostile", "horse"))
        await eventually(lambda: len(relay.hashing._queue) == 8, "it waits")
        for _ in range(3):
            self.compute()
        await hostile.hears(Notify)
        self.assertLessEqual(self.begun.index("horse"), 2)

    async def test_other_servers_of_the_agent(self) -> None:
        """
        So has each server of one agent.
        """
        relay, hostile, _ = await self.servers()
        hostile.say(Register(connection_id="other", users=(("alice", CHOSEN),)))
        await eventually(lambda: "other" in relay.registry.servers, "it is published")
        for number in range(20):
            said = says("hostile", f"guess {number}")
            await self.comes(relay, f"127.0.1.{number + 1}", said)
        await eventually(lambda: len(relay.hashing._queue) == 19, "they wait")
        await self.comes(relay, "127.0.2.1", says("other", "horse"))
        await eventually(lambda: len(relay.hashing._queue) == 20, "it waits")
        for _ in range(3):
            self.compute()
        await hostile.hears(Notify)


class StoppingTests(TestCase):
    """
    A relay in a process of its own.
    """

    async def test_terminated(self) -> None:
        """
        A relay whose owner chose a hash that takes minutes ends within seconds
        while one is computed.
        """
        directory = empty_directory(self)
        costly = f"scrypt:1048576:4:16:{'ab' * 16}:{'cd' * 32}"
        config = directory / "relay.toml"
        config.write_text(f'[[agent]]\nid = "office"\nsecret-hash = "{costly}"\n')
        # The first start makes the invitation that tells when a relay is ready.
        first = await start_relay(self, directory / "state")
        await first.program.stop()
        relay = await start_relay(self, directory / "state", "--config", str(config))
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols([CONTROL.decode()])
        with (
            socket.create_connection((relay.host, relay.agents_port), 10) as plain,
            context.wrap_socket(plain) as control,
        ):
            said = Hello(version=1, agent="office", secret="guess", epoch=1)
            control.sendall(frame(said))
            deadline = time.monotonic() + 20
            while not _computes(relay.program.pid) and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertTrue(_computes(relay.program.pid), "it is computed")
            began = time.monotonic()
            await relay.program.stop(30, signal.SIGTERM)
            self.assertLess(time.monotonic() - began, 10)


def _computes(pid: int) -> bool:
    """
    Whether a process has the memory that the hash takes.
    """
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096 > 256 << 20

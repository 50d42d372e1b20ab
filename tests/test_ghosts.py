"""
Who is gone is missed: an end that goes on sending to it hears of that at once,
through all four channels.
"""

from __future__ import annotations

import socket
import sys
from typing import Any, Literal

from relaytunnel.agent import service as agent_service
from relaytunnel.channel.sockets import unsent
from relaytunnel.config import ServerConfig
from relaytunnel.config.names import Reach
from relaytunnel.relay import service as relay_service
from relaytunnel.splice import PairedEngine
from tests.channel import Peer as Plain
from tests.channel import until
from tests.running import HOST, RunningCase, eventually, reactor

_SOON = 3.0
"""Seconds within which a reset arrives; it takes milliseconds on a quiet machine."""

Data = Literal["tls", "plain"]


class _Ghosts(RunningCase):
    """
    One of the two ends closes its connection, as a program does that exits.
    """

    data: Data = "tls"
    paired = False

    async def begin(self) -> tuple[Plain, Plain]:
        """
        @return: a client and the server's end of its connection, at the usual
            limits.
        """
        if self.paired:
            for service in (relay_service, agent_service):
                self.patch(service, "best_engine", lambda *_: PairedEngine())
        listening = socket.create_server((HOST, 0), backlog=8)
        listening.setblocking(False)
        self.addCleanup(listening.close)
        self.relay = relay = self.start_relay()
        port = relay.config.ports.first
        server = ServerConfig(
            id="ghosts",
            target=f"{HOST}:{listening.getsockname()[1]}",
            reach=(Reach.parse(f"port:{port}"),),
            data=self.data,
        )
        self.agent = await self.start_agent(relay, server)
        client = Plain(port)
        self.addCleanup(client.close)
        found: list[socket.socket] = []

        def accepted() -> bool:
            try:
                found.append(listening.accept()[0])
            except BlockingIOError:
                return False
            return True

        await until(accepted, client, what="the server is reached")
        served = Plain(0, accepted=found[0])
        self.addCleanup(served.close)
        client.send(b"hello")
        served.send(b"hello")
        await until(lambda: client.received == served.received == 5, client, served)
        return client, served

    async def _test_gone(self, client_goes: bool, sends: int) -> None:
        client, served = await self.begin()
        gone, stays = (client, served) if client_goes else (served, client)
        gone.close()
        await until(lambda: stays.ended, stays, what="the end")
        began = reactor.seconds()

        def missed() -> bool:
            if stays.all_sent and not stays.broken_pipe:
                stays.send(bytes(sends))
            return stays.broken_pipe

        await until(missed, stays, within=_SOON, what="the reset")
        who = "client" if client_goes else "server"
        engine = self.agent.engine.name
        print(
            f"{self.data:6} {engine:7} the {who} is gone, {sends:9,} bytes at a time:"
            f" missed after {1000 * (reactor.seconds() - began):.0f} ms,"
            f" {stays.sent:,} bytes sent to nobody",
            file=sys.stderr,
        )
        await self.nothing_left()

    async def nothing_left(self) -> None:
        await eventually(lambda: not self.relay.clients.splices, "it is over at the relay")
        await eventually(lambda: not self.agent.splices, "it is over at the agent")
        self.assertEqual(self.agent.state.visits, {})
        room: Any = self.relay.visits.room
        self.assertEqual((room.waiting, room.served), (0, 0))

    async def test_client(self) -> None:
        """
        A client that is gone is missed by a server that says something now and
        then.
        """
        await self._test_gone(True, 100)

    async def test_client_of_much(self) -> None:
        """
        And by one that sends as fast as it can.
        """
        await self._test_gone(True, 4 << 20)

    async def test_server(self) -> None:
        """
        A server that is gone is missed by a client that says something.
        """
        await self._test_gone(False, 100)

    async def test_server_of_much(self) -> None:
        """
        And by one that sends as fast as it can.
        """
        await self._test_gone(False, 4 << 20)

    async def test_nothing_is_lost(self) -> None:
        """
        What was sent before is taken at leisure: a client that speaks again
        after the server has closed gets all of its answer; the session counts
        while it takes it.
        """
        client, served = await self.begin()
        client.reading = False
        served.send(bytes(1_000_000))
        served.end()
        await until(
            lambda: served.all_sent and not unsent(served.sock),
            client,
            served,
            what="the answer is on its way",
        )
        served.close()
        client.send(b"one more")
        began = reactor.seconds()
        await until(lambda: reactor.seconds() - began > 0.3, client)
        self.assertEqual(len(self.relay.clients.splices), 1)
        client.reading = True
        await until(lambda: client.over, client, what="the end")
        self.assertEqual(client.received, 1_000_005)
        self.assertTrue(client.ended)
        client.close()
        await self.nothing_left()

    async def test_half_closed(self) -> None:
        """
        A client that has said all, and reads, is not one that is gone.
        """
        client, served = await self.begin()
        client.end()
        await until(lambda: served.ended, client, served, what="the end")
        served.send(bytes(10_000_000))
        served.end()
        await until(lambda: client.ended, client, served, what="the answer")
        self.assertEqual(client.received, 10_000_005)
        await self.nothing_left()


class TLSTests(_Ghosts):
    """
    Data channels over TLS.
    """


class PlainTests(_Ghosts):
    """
    Plain data channels.
    """

    data: Data = "plain"


class PairedTLSTests(_Ghosts):
    """
    The portable engine, over TLS.
    """

    paired = True


class PairedPlainTests(_Ghosts):
    """
    The portable engine, plain.
    """

    data: Data = "plain"
    paired = True


del _Ghosts

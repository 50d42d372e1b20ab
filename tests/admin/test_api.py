"""
The HTTP interface for operators, at a real relay.
"""

from __future__ import annotations

import json
from typing import Any

from relaytunnel.admin.api import status
from relaytunnel.channel.descriptors import descriptor_limit
from relaytunnel.relay.service import RelayService
from relaytunnel.wire.messages import Register
from tests.running import ANY_PORT, HOST, RunningCase, eventually, request


class ApiTests(RunningCase):
    """
    What it answers, and to whom.
    """

    def setUp(self) -> None:
        super().setUp()
        self.relay = self.start_relay(admin=ANY_PORT)

    async def ask(
        self, path: str, *headers: str, method: str = "GET", relay: RelayService | None = None
    ) -> tuple[int, str]:
        """
        @return: the status and the whole answer.
        """
        facts = (relay or self.relay).facts
        client = await self.dial(int(facts.admin.rpartition(":")[2]))
        lines = (f"{method} {path} HTTP/1.1", "Host: relay", "Connection: close", *headers)
        client.say("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n")
        answer = (await client.end_of_all()).decode()
        client.close()
        return int(answer.split()[1]), answer

    def token(self) -> str:
        return f"Authorization: Bearer {self.relay.state.admin_token()}"

    async def status(self) -> Any:
        code, answer = await self.ask("/api/status", self.token())
        self.assertEqual(code, 200)
        body = answer.partition("\r\n\r\n")[2]
        return json.loads(body[body.index("{") : body.rindex("}") + 1])

    async def test_health(self) -> None:
        """
        Whoever asks is told that the relay is well.
        """
        code, answer = await self.ask("/healthz")
        self.assertEqual(code, 200)
        self.assertIn("ok", answer)

    async def test_root(self) -> None:
        """
        Who asks for nothing is told what may be asked.
        """
        code, answer = await self.ask("/")
        self.assertEqual(code, 200)
        self.assertIn("/api/status", answer)

    async def test_unknown(self) -> None:
        """
        What is not there is not found.
        """
        for path in ("/favicon.ico", "/api/agents", "/status"):
            self.assertEqual((await self.ask(path))[0], 404)

    async def test_no_token(self) -> None:
        """
        The status is for those who have the token, and nothing of it is shown
        to others.
        """
        await self.raw_agent(self.relay, "web")
        token = self.relay.state.admin_token()
        for header in (
            "X-Nothing: here",
            "Authorization: Bearer wrong",
            f"Authorization: Basic {token}",
            f"Authorization: Bearer {token}x",
            "Authorization: Bearer ",
        ):
            code, answer = await self.ask("/api/status", header)
            self.assertEqual(code, 401)
            self.assertNotIn("web", answer)
            self.assertNotIn(token, answer)

    async def test_other_methods(self) -> None:
        """
        Questions are answered, orders are not.
        """
        for path in ("/", "/healthz", "/api/status"):
            code, _ = await self.ask(path, self.token(), method="POST")
            self.assertEqual(code, 405)

    async def test_status(self) -> None:
        """
        Agents, servers and what is under way are told.
        """
        control = await self.raw_agent(self.relay, "web")
        _, notify = await self.session(self.relay, control)
        data = await self.raw_data(self.relay, notify.ticket)
        await data.hears(b"GET")
        await self.session(self.relay, control)
        await self.get(self.relay, "nowhere")
        told = await self.status()
        (agent,) = told["agents"]
        self.assertEqual((agent["id"], agent["software"]), ("first", "a test"))
        self.assertEqual([server["id"] for server in agent["servers"]], ["web"])
        (session,) = told["sessions"]
        self.assertEqual((session["server"], session["up"]), ("web", len(request("web"))))
        self.assertEqual((told["waiting"], told["served"], told["finished"]), (1, 1, 0))
        self.assertEqual(told["refused"], {"no-such-server": 1})
        self.assertEqual(told["turned_away"], {})

    async def test_turned_away(self) -> None:
        """
        Connections to the agents' port that were given up are told by reason.
        """
        control = await self.raw_control(self.relay)
        control.say(self.hello(self.first_invitation(self.relay), secret="guessed"))
        await control.is_closed()
        peer = await self.dial(self.relay.facts.agents)
        peer.say(b"GET / HTTP/1.1\r\n")
        await peer.end_of_all()
        await self.raw_data(self.relay)
        told = await self.status()
        self.assertEqual(
            told["turned_away"], {"authentication failed": 1, "neither TLS nor plain": 1}
        )
        self.assertEqual(told["unauthenticated"], 1)

    async def test_descriptors(self) -> None:
        """
        How many descriptors there are is told, and whether anybody is accepted.
        """
        told = (await self.status())["descriptors"]
        self.assertGreater(told["in_use"], 3)
        self.assertEqual(told["limit"], descriptor_limit())
        self.assertEqual((told["paused"], told["pauses"]), (False, 0))

    async def test_idle(self) -> None:
        """
        A relay to which nobody came has nothing to tell.
        """
        told = await self.status()
        self.assertEqual((told["agents"], told["sessions"], told["parked"]), ([], [], 0))

    async def test_no_secret(self) -> None:
        """
        Neither secrets nor tickets are told.
        """
        control = await self.raw_agent(self.relay, Register(connection_id="web", data="plain"))
        _, notify = await self.session(self.relay, control)
        _, answer = await self.ask("/api/status", self.token())
        for hidden in (
            self.first_invitation(self.relay).secret,
            self.relay.state.admin_token(),
            notify.ticket.hex(),
        ):
            self.assertNotIn(hidden, answer)
        self.assertIn("web", str(status(self.relay)))

    async def test_strange_names(self) -> None:
        """
        What an agent says of itself cannot break the answer.
        """
        control = await self.raw_control(self.relay)
        control.say(self.hello(self.first_invitation(self.relay), software='"}\r\n<b>\0\u202e'))
        await eventually(lambda: self.relay.registry.agents, "it is here")
        told = await self.status()
        self.assertEqual(told["agents"][0]["software"], '"}\r\n<b>\0\u202e')

    async def test_token_stays(self) -> None:
        """
        The token is the same after a restart.
        """
        before = self.token()
        await self.relay.stopService()
        self.relay = self.start_relay(admin=ANY_PORT, state=self.relay.state.path)
        self.assertEqual(self.token(), before)
        self.assertEqual((await self.ask("/api/status", before))[0], 200)

    def test_where(self) -> None:
        """
        Where it is stands in the state.
        """
        facts = self.relay.state.read_facts()
        assert facts is not None
        self.assertTrue(facts.admin.startswith(f"{HOST}:"))

    def test_off(self) -> None:
        """
        A relay that is to have none has none, and no token.
        """
        relay = self.start_relay()
        self.assertEqual(relay.facts.admin, "")

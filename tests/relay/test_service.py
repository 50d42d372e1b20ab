"""
A whole relay: how it starts, what it notices while it runs, how it stops.
"""

from __future__ import annotations

import ipaddress
import os
import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from relaytunnel.accounts import AccountStore, Rights
from relaytunnel.channel.identity import own_identity
from relaytunnel.errors import AccountError, Code, StateError
from relaytunnel.relay import control as control_module
from relaytunnel.relay import service as service_module
from relaytunnel.relay.inviting import FIRST_AGENT
from relaytunnel.relay.service import RelayService
from relaytunnel.relay.state import StateDirectory
from relaytunnel.wire.messages import (
    Goodbye,
    Refuse,
    Register,
    Rejected,
    Restarting,
    Welcome,
    Withdrawn,
)
from tests.running import HOST, RunningCase, echo, eventually, hello_page, reactor, request

IMPATIENT = partial(AccountStore, busy_timeout=100)


def locked(path: str) -> Any:
    """
    Hold the lock for writing a database.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


class StartTests(RunningCase):
    """
    What it needs to start, and what it says if that is not there.
    """

    def new_relay(self, **given: Any) -> RelayService:
        self.said: list[str] = []
        relay = RelayService(self.relay_config(**given), reactor, self.said.append)
        self.addCleanup(self.stop, relay)
        return relay

    def refusal(self, kind: type[Exception], **given: Any) -> str:
        with self.assertRaises(kind) as caught:
            self.new_relay(**given).startService()
        return str(caught.exception)

    def test_first_invitation(self) -> None:
        """
        A new relay shows an invitation that only its owner can read later.
        """
        relay = self.new_relay()
        relay.startService()
        invitation = self.first_invitation(relay)
        self.assertIn(str(invitation), self.said[0])
        mode = stat.S_IMODE(os.stat(relay.state.invitation).st_mode)
        self.assertEqual(mode, 0o600)
        self.assertEqual((invitation.agent, invitation.host), (FIRST_AGENT, HOST))
        self.assertEqual(invitation.port, relay.facts.agents)

    async def test_second_start(self) -> None:
        """
        A relay that was started before shows nothing, and its invitation
        stays good, with the port that it has now.
        """
        first = self.new_relay()
        first.startService()
        before = self.first_invitation(first)
        await first.stopService()
        second = self.new_relay(state=first.state.path)
        second.startService()
        self.assertEqual(self.said, [])
        after = self.first_invitation(second)
        self.assertEqual((after.secret, after.pin), (before.secret, before.pin))
        self.assertEqual(after.port, second.facts.agents)
        await self.start_agent(second)

    async def test_without_a_terminal(self) -> None:
        """
        Where nobody sees it the invitation is not printed: it is in its file alone.
        """
        logged = self.logged()
        relay = RelayService(self.relay_config(), reactor, None)
        self.addCleanup(self.stop, relay)
        relay.startService()
        secret = self.first_invitation(relay).secret
        self.assertIn(f"the first agent's invitation is in {relay.state.invitation}", logged)
        self.assertFalse([text for text in logged if secret in text])

    async def test_first_agents_rights(self) -> None:
        """
        The first agent may publish, have and claim anything.
        """
        relay = self.start_relay()
        rights = self.accounts(relay).rights(FIRST_AGENT)
        ports = relay.config.ports
        self.assertEqual(rights, Rights(("*",), ((ports.first, ports.last),), ("*",)))

    async def test_nobody_invited(self) -> None:
        """
        Where it is not wanted, or there was an account before the first start,
        nobody is invited.
        """
        relay = self.new_relay(invite_first=False)
        relay.startService()
        self.assertEqual((self.said, self.accounts(relay).agents()), ([], []))
        self.assertFalse(os.path.exists(relay.state.invitation))
        state = StateDirectory(os.path.abspath(self.mktemp()))
        state.prepare()
        store = AccountStore(state.database)
        store.invite("office")
        store.close()
        relay = self.new_relay(state=state.path)
        relay.startService()
        self.assertEqual(self.said, [])
        self.assertEqual([each.agent for each in self.accounts(relay).agents()], ["office"])

    async def test_revoked_for_good(self) -> None:
        """
        A first agent that was revoked is not invited again, and its invitation
        goes, since it is good for nothing.
        """
        relay = self.new_relay()
        relay.startService()
        self.accounts(relay).revoke(FIRST_AGENT)
        await relay.stopService()
        for _ in range(2):
            again = self.new_relay(state=relay.state.path)
            again.startService()
            self.assertEqual((self.said, self.accounts(again).agents()), ([], []))
            self.assertFalse(os.path.exists(relay.state.invitation))
            await again.stopService()

    async def test_start_ends_no_secret(self) -> None:
        """
        A start does not count as the use of a new secret that is in the file:
        the agent which has the one before it comes back.
        """
        relay = self.start_relay()
        before = self.first_invitation(relay)
        secret = self.accounts(relay).rotate(FIRST_AGENT)
        relay.state.write_invitation(str(relay.facts.invitation(FIRST_AGENT, secret)))
        await relay.stopService()
        again = self.start_relay(state=relay.state.path)
        self.assertEqual(self.first_invitation(again).secret, secret)
        control = await self.raw_control(again)
        control.say(self.hello(before))
        await control.hears(Welcome)

    async def test_damaged_invitation(self) -> None:
        """
        A file that holds no invitation does not keep a relay from starting.
        """
        relay = self.start_relay()
        await relay.stopService()
        Path(relay.state.invitation).write_text("rubbish\n")
        logged = self.logged()
        self.start_relay(state=relay.state.path)
        self.assertTrue([text for text in logged if "holds no invitation" in text])

    def test_facts(self) -> None:
        """
        Where the relay is found stands in its state while it runs.
        """
        relay = self.start_relay(admin=f"tcp:0:interface={HOST}")
        facts = relay.state.read_facts()
        assert facts is not None
        self.assertEqual(facts, relay.facts)
        self.assertEqual(facts.pid, os.getpid())
        self.assertTrue(facts.agents and facts.clients and facts.admin)

    def test_state_below_a_file(self) -> None:
        """
        A state directory that cannot be made is refused, by its name and with
        what to do.
        """
        path = Path(self.mktemp()).absolute()
        path.write_text("a file")
        reason = self.refusal(StateError, state=str(path / "state"))
        self.assertIn(str(path / "state"), reason)
        self.assertIn("--state", reason)

    async def test_port_is_taken(self) -> None:
        """
        A port that somebody else has is named, and all that was opened before
        is closed again.
        """
        taken = self.target().port
        endpoint = f"tcp:{taken}:interface={HOST}"
        config = self.relay_config(agents=endpoint)
        with self.assertRaises(StateError) as caught:
            RelayService(config, reactor, print).startService()
        self.assertIn(endpoint, str(caught.exception))
        self.assertIn("Address already in use", str(caught.exception))

    def test_expired_certificate(self) -> None:
        """
        A certificate that has expired is refused, with the day.
        """
        directory = self.mktemp()
        os.mkdir(directory)
        own_identity(directory, HOST, datetime(2001, 3, 4, tzinfo=UTC))
        certificate = os.path.join(directory, "certificate.pem")
        reason = self.refusal(
            StateError, certificate=certificate, key=os.path.join(directory, "key.pem")
        )
        self.assertIn(certificate, reason)
        self.assertIn("expired on 2011-03-02", reason)

    def test_database_is_locked(self) -> None:
        """
        A database that another program keeps locked is named.
        """
        self.patch(service_module, "AccountStore", IMPATIENT)
        state = os.path.abspath(self.mktemp())
        os.mkdir(state)
        path = os.path.join(state, "accounts.sqlite3")
        connection = locked(path)
        self.addCleanup(connection.close)
        reason = self.refusal(AccountError, state=state)
        self.assertIn(path, reason)
        self.assertIn("locked by another process", reason)

    def test_damaged_database(self) -> None:
        """
        A database that is none is named.
        """
        state = os.path.abspath(self.mktemp())
        os.mkdir(state)
        path = os.path.join(state, "accounts.sqlite3")
        Path(path).write_bytes(b"no database" * 1000)
        self.assertIn(path, self.refusal(AccountError, state=state))

    async def test_certificate_of_an_authority(self) -> None:
        """
        With a certificate of an authority there is no pin: the agent checks
        the name, and trusts the authority that it was told of.
        """
        certificate, key, ca = self.authority()
        relay = self.start_relay(certificate=certificate, key=key)
        invitation = self.first_invitation(relay)
        self.assertIs(invitation.pin, None)
        target = self.target(hello_page)
        agent = self.new_agent(invitation, self.server("web", target.address), ca=ca)
        await self.published(agent)
        self.assertIn("hello", await self.get(relay, "web"))

    async def test_unknown_authority(self) -> None:
        """
        An agent that was told of no authority does not trust such a relay.
        """
        certificate, key, _ = self.authority()
        relay = self.start_relay(certificate=certificate, key=key)
        logged = self.logged()
        agent = self.new_agent(self.first_invitation(relay))
        await eventually(lambda: [t for t in logged if "is not trusted" in t], "it says so")
        self.assertIs(agent.control, None)
        self.assertEqual(relay.registry.agents, {})

    def authority(self) -> tuple[str, str, str]:
        """
        Make an authority, and a certificate of it for loopback.

        @return: the files of certificate, key and authority.
        """
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        now = datetime.now(UTC)
        keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
        names = [
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("CA", "relay")
        ]
        made = []
        for index in (0, 1):
            builder = (
                x509.CertificateBuilder()
                .subject_name(names[index])
                .issuer_name(names[0])
                .public_key(keys[index].public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - timedelta(days=1))
                .not_valid_after(now + timedelta(days=1))
                .add_extension(x509.BasicConstraints(not index, None), critical=True)
            )
            if index:
                name = x509.IPAddress(ipaddress.ip_address(HOST))
                builder = builder.add_extension(x509.SubjectAlternativeName([name]), False)
            made.append(builder.sign(keys[0], hashes.SHA256()))
        files = [str(directory / name) for name in ("relay.pem", "key.pem", "ca.pem")]
        pem = serialization.Encoding.PEM
        Path(files[0]).write_bytes(made[1].public_bytes(pem))
        Path(files[1]).write_bytes(
            keys[1].private_bytes(
                pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        Path(files[2]).write_bytes(made[0].public_bytes(pem))
        return files[0], files[1], files[2]


class AccountTests(RunningCase):
    """
    Accounts that change while agents are connected.
    """

    async def test_revoked(self) -> None:
        """
        The control channel of a revoked agent closes within a second; the
        session that it has goes on.
        """
        relay = self.start_relay()
        target = self.target(echo)
        agent = await self.start_agent(relay, self.server("web", target.address))
        client = await self.client(relay, request("web"))
        await client.hears(b"GET")
        logged = self.logged()
        began = reactor.seconds()
        self.assertTrue(self.accounts(relay).revoke(FIRST_AGENT))
        await eventually(lambda: agent.control is None, "the control channel is closed")
        self.assertLess(reactor.seconds() - began, 1)
        self.assertEqual(relay.registry.agents, {})
        self.assertTrue([text for text in logged if Code.REVOKED.value in text])
        client.say(b"still here")
        await client.hears(b"still here")

    async def test_revoked_agent_stays_out(self) -> None:
        """
        A revoked agent is told so, and cannot come back.
        """
        relay = self.start_relay()
        invitation = self.first_invitation(relay)
        control = await self.raw_agent(relay)
        self.accounts(relay).revoke(FIRST_AGENT)
        self.assertEqual((await control.hears(Goodbye)).code, Code.REVOKED.value)
        await control.is_closed()
        again = await self.raw_control(relay)
        again.say(self.hello(invitation))
        await again.is_closed()
        self.assertEqual(relay.registry.agents, {})

    async def test_rights_are_taken(self) -> None:
        """
        A server that an agent may publish no more is withdrawn; its others
        stay.
        """
        relay = self.start_relay()
        invitation = self.invite(relay, "office", ["web", "shop"])
        control = await self.raw_agent(relay, "web", "shop", invitation=invitation)
        self.accounts(relay).deny("office", Rights(("web",)))
        withdrawn = await control.hears(Withdrawn)
        self.assertEqual((withdrawn.connection_id, withdrawn.code), ("web", "not-allowed"))
        self.assertEqual(set(relay.registry.servers), {"shop"})
        self.assertIn("404", await self.get(relay, "web"))

    async def test_other_agents_are_left_alone(self) -> None:
        """
        A change of one account disturbs no other agent.
        """
        relay = self.start_relay()
        invitation = self.invite(relay, "office", ["web"])
        first = await self.raw_agent(relay, "shop")
        await self.raw_agent(relay, "web", invitation=invitation)
        first.messages.clear()
        self.accounts(relay).revoke("office")
        await eventually(lambda: "office" not in relay.registry.agents, "it is gone")
        self.assertEqual(set(relay.registry.servers), {"shop"})
        self.assertEqual(first.messages, [])

    async def test_locked_while_running(self) -> None:
        """
        An agent that cannot be checked because the database is locked is
        denied for a short while, and comes in when it is free again; the
        relay goes on all the time.
        """
        self.patch(service_module, "AccountStore", IMPATIENT)
        self.patch(control_module, "_INTERNAL_RETRY", 0.1)
        relay = self.start_relay()
        first = await self.start_agent(relay, self.server("web", self.target(echo).address))
        client = await self.client(relay, request("web"))
        await client.hears(b"GET")
        # The first use of a new secret ends the old one, which is written down.
        self.invite(relay, "office")
        secret = self.accounts(relay).rotate("office")
        invitation = relay.facts.invitation("office", secret)
        logged = self.logged()
        with closing(locked(relay.state.database)):
            office = self.new_agent(invitation, self.server("shop", "127.0.0.1:1"))
            await eventually(
                lambda: [text for text in logged if "does not let office in" in text],
                "it is denied",
            )
            self.assertTrue([text for text in logged if "locked by another process" in text])
            client.say(b"goes on")
            await client.hears(b"goes on")
        await self.published(office)
        self.assertIsNot(first.control, None)

    async def test_database_goes_bad(self) -> None:
        """
        A relay whose database cannot be read any more says so once, and looks
        at everybody when it can again.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        logged = self.logged()
        store = self.accounts(relay)

        def broken() -> Any:
            raise AccountError("it is broken")

        revision = relay.accounts.revision
        self.patch(relay.accounts, "revision", lambda: revision().addCallback(lambda _: broken()))
        await eventually(lambda: [t for t in logged if "it is broken" in t], "it says so")
        store.revoke(FIRST_AGENT)
        relay.accounts.revision = revision  # type: ignore[method-assign]
        self.assertEqual((await control.hears(Goodbye)).code, Code.REVOKED.value)
        self.assertEqual(len([t for t in logged if "it is broken" in t]), 1)


class StopTests(RunningCase):
    """
    How it stops, and comes back.
    """

    async def test_restart(self) -> None:
        """
        A relay that comes back on its port finds its agents back, and their
        servers published.
        """
        relay = self.start_relay()
        target = self.target(hello_page)
        agent = await self.start_agent(relay, self.server("web", target.address))
        await relay.stopService()
        await eventually(lambda: agent.control is None, "the agent has noticed")
        again = self.start_relay(
            state=relay.state.path, agents=f"tcp:{relay.facts.agents}:interface={HOST}"
        )
        await self.published(agent)
        self.assertIn("hello", await self.get(again, "web"))

    async def test_agents_are_told(self) -> None:
        """
        Agents hear that the relay restarts, and over which time to come back.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay)
        await relay.stopService()
        self.assertGreater((await control.hears(Restarting)).reconnect_in, 0)
        self.assertEqual((await control.hears(Goodbye)).code, Code.SHUTDOWN.value)

    async def test_sessions_end(self) -> None:
        """
        Running sessions are reset, and so is who has said nothing yet; who
        waits is told.
        """
        relay = self.start_relay()
        control = await self.raw_agent(relay, "web")
        running, notify = await self.session(relay, control)
        data = await self.raw_data(relay, notify.ticket)
        await data.hears(b"GET")
        waiting, _ = await self.session(relay, control)
        silent = await self.client(relay)
        await eventually(lambda: len(relay.clients.present) == 2, "all have come")
        await relay.stopService()
        self.assertIn(b"503", await waiting.end_of_all())
        await running.is_reset()
        await silent.is_reset()

    async def test_nothing_is_left(self) -> None:
        """
        When it has stopped, every connection is closed: also those of nobody
        that is known yet, of an agent that does not read, and of a client
        that was told something and stays.
        """
        relay = self.start_relay()
        unknown = await self.dial(relay.facts.agents)
        silent = await self.raw_control(relay)
        data = await self.raw_data(relay)
        frozen = await self.raw_agent(relay, "web")
        frozen.freeze()
        told = await self.client(relay, request("nowhere"))
        await told.hears(b"404")
        began = reactor.seconds()
        await relay.stopService()
        self.assertLess(reactor.seconds() - began, 3)
        self.assertEqual(relay.agents_port.unauthenticated, 0)
        told.say(b"are you there?")  # a reset behind an end is seen by writing
        await eventually(
            lambda: unknown.lost and silent.lost and data.lost and told.lost, "all are closed", 1
        )

    async def test_facts_stay(self) -> None:
        """
        Where the relay was found stays known, but not as of a process.
        """
        relay = self.start_relay(admin=f"tcp:0:interface={HOST}")
        await relay.stopService()
        facts = relay.state.read_facts()
        assert facts is not None
        self.assertEqual((facts.pid, facts.admin), (0, ""))
        self.assertEqual(facts.agents, relay.facts.agents)


class LogTests(RunningCase):
    """
    What others say stands in the log, and cannot do anything there.
    """

    async def test_escaped(self) -> None:
        """
        Whatever strangers and agents say of themselves, an entry is one line
        in which everything can be printed, and not long.
        """
        logged = self.logged()
        relay = self.start_relay()
        first = self.first_invitation(relay)
        evil = "\r\n2026 [-] agent \x1b[2J\u202e\x9b"
        stranger = await self.raw_control(relay)
        stranger.say(self.hello(first, agent="a" + evil, secret=evil, software=evil))
        await stranger.is_closed()
        control = await self.raw_control(relay)
        control.say(self.hello(first, software=evil + "x" * 30))
        await control.hears(Welcome)
        control.say(Register(connection_id="web" + evil * 8), Register(connection_id="web"))
        await control.hears(Rejected)
        for reason in (evil, evil * 9):
            _, notify = await self.session(relay, control)
            control.say(Refuse(session=notify.session, code="internal", reason=reason))
        await eventually(lambda: not relay.visits.sessions, "they are refused")
        control.say(Register(connection_id="web", reach=(evil,)), Goodbye(code=evil, reason=evil))
        await control.is_closed()
        await eventually(lambda: not relay.registry.agents, "it is gone")
        await relay.stopService()
        for mark in ("is denied", "is here", "cannot publish", "not served", "is gone"):
            self.assertTrue([text for text in logged if mark in text], mark)
        for text in logged:
            for line in text.split("\n"):
                self.assertTrue(line.isprintable(), line)
                self.assertFalse(line.startswith("2026"), line)
                self.assertLess(len(line), 600)


class SecretTests(RunningCase):
    """
    What must not be seen.
    """

    async def test_not_logged(self) -> None:
        """
        Neither secrets nor tickets stand in the log.
        """
        logged = self.logged()
        relay = self.start_relay()
        secret = self.first_invitation(relay).secret
        control = await self.raw_agent(relay, "web")
        _, notify = await self.session(relay, control)
        await self.raw_data(relay, notify.ticket)
        other = await self.raw_control(relay)
        other.say(self.hello(self.first_invitation(relay), agent="nobody"))
        await other.is_closed()
        everything = "\n".join(logged)
        for hidden in (secret, notify.ticket.hex(), repr(notify.ticket)[2:-1]):
            self.assertNotIn(hidden, everything)

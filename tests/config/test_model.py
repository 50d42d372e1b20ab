"""
Tests of the model: what is settled, and what does not fit together.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.config.access import networks
from relaytunnel.config.load import load_relay_text
from relaytunnel.config.model import (
    AgentConfig,
    ClientPort,
    FileAccount,
    RelayConfig,
    default_state,
)
from relaytunnel.config.names import PortRange, Reach
from relaytunnel.config.server import ServerConfig
from relaytunnel.config.users import secret_hash
from relaytunnel.errors import ConfigError

HASH = "sha256:" + "0f" * 32
BAD_HASH = "x"
SCRYPT_END = "00" * 16 + ":" + "ff" * 32


class Faulty(SynchronousTestCase):
    """
    A test case that looks at faults.
    """

    def faults(self, make: Callable[..., object], *args: object, **values: object) -> list[str]:
        error: ConfigError = self.assertRaises(ConfigError, make, *args, **values)
        return error.faults


class StateTests(SynchronousTestCase):
    """
    Where a relay keeps its state when it is not told.
    """

    def test_systemd(self) -> None:
        """
        The first directory that systemd made comes before everything.
        """
        environ = {"STATE_DIRECTORY": "/var/lib/r:/var/lib/s", "XDG_STATE_HOME": "/x"}
        self.assertEqual(default_state(environ, 0), "/var/lib/r")

    def test_root(self) -> None:
        """
        Root keeps state with that of other services.
        """
        self.assertEqual(default_state({"XDG_STATE_HOME": "/x"}, 0), "/var/lib/relaytunnel")

    def test_user(self) -> None:
        """
        Others keep it below the XDG state directory.
        """
        self.assertEqual(default_state({"XDG_STATE_HOME": "/x"}, 7), "/x/relaytunnel")

    def test_home(self) -> None:
        """
        Without one, or with one that is not absolute, it is below the home.
        """
        for environ in ({"HOME": "/h"}, {"HOME": "/h", "XDG_STATE_HOME": "x"}):
            self.assertEqual(default_state(environ, 7), "/h/.local/state/relaytunnel")

    def test_no_home(self) -> None:
        """
        A user that the system does not know has no such directory, and none is
        made that is called "~"; a relay is told to name one, and may.
        """
        self.patch(os, "getuid", lambda: 54321)
        self.patch(os, "environ", {"PATH": "/usr/bin"})
        self.assertEqual(default_state(), "")
        (fault,) = self.assertRaises(ConfigError, RelayConfig).faults
        self.assertIn("[relay] state: a directory is needed", fault)
        self.assertIn("--state", fault)
        self.assertEqual(RelayConfig(state="/s").state, "/s")
        self.assertRaises(ConfigError, load_relay_text, "[relay]\n", "relay.toml")
        named = load_relay_text('[relay]\nstate = "s"\n', "relay.toml", "/d")
        self.assertEqual(named.state, "/d/s")


class SecretHashTests(SynchronousTestCase):
    """
    The stored form of secrets.
    """

    def test_accepted(self) -> None:
        """
        Both forms are taken, in either case of letters.
        """
        self.assertEqual(secret_hash(HASH.upper().replace("SHA", "sha")), HASH)
        text = f"scrypt:131072:8:1:{SCRYPT_END}"
        self.assertEqual(secret_hash(text), text)

    def test_refused(self) -> None:
        """
        Other forms, and parameters that are too weak or too costly, are not.
        """
        for text in (
            "",
            "secret",
            "sha256:00",
            "md5:" + "00" * 32,
            "scrypt:131072:8:1:00:" + "ff" * 32,
            f"scrypt:131071:8:1:{SCRYPT_END}",
            f"scrypt:512:8:1:{SCRYPT_END}",
            f"scrypt:2097152:8:1:{SCRYPT_END}",
            f"scrypt:65536:1:1:{SCRYPT_END}",
            f"scrypt:1048576:8:1:{SCRYPT_END}",
            f"scrypt:1024:33:1:{SCRYPT_END}",
            f"scrypt:1024:8:17:{SCRYPT_END}",
            f"scrypt:1024:0:1:{SCRYPT_END}",
        ):
            self.assertRaises(ValueError, secret_hash, text)

    def test_not_quoted(self) -> None:
        """
        Somebody may have written the secret itself, so it is not shown.
        """
        error = self.assertRaises(ValueError, secret_hash, "hunter2")
        self.assertNotIn("hunter2", str(error))


class RelayTests(Faulty):
    """
    What a relay is told.
    """

    def test_defaults(self) -> None:
        """
        A relay needs to be told nothing.
        """
        config = RelayConfig()
        self.assertEqual(config.name, "localhost")
        self.assertEqual(config.agents, "tcp:7000")
        self.assertEqual(list(map(str, config.clients)), ["tcp:8000"])
        self.assertEqual(config.admin, "tcp:7080:interface=127.0.0.1")
        self.assertEqual(config.ports, PortRange(20000, 20999))

    def test_settled(self) -> None:
        """
        The name comes into its canonical form.
        """
        self.assertEqual(RelayConfig(name="Relay.Example.NET.").name, "relay.example.net")
        self.assertEqual(RelayConfig(name="2001:DB8::1").name, "2001:db8::1")

    def test_no_admin(self) -> None:
        """
        The admin interface can be switched off in two ways, which are the same.
        """
        self.assertEqual(RelayConfig(admin="off"), RelayConfig(admin=""))

    def test_every_fault(self) -> None:
        """
        All faults are told at once, each by its table and key.
        """
        faults = self.faults(
            RelayConfig, name="a b", state="", agents="7000", clients=(), admin="x", key="k"
        )
        self.assertEqual(
            [fault.split(":")[0] for fault in faults],
            [
                "[relay] name",
                "[relay] state",
                "[listen] agents",
                "[listen] admin",
                "[listen] clients",
                "[tls] certificate",
            ],
        )

    def test_pair(self) -> None:
        """
        Certificate and key come together or not at all.
        """
        RelayConfig(certificate="c", key="k")
        self.assertIn("[tls] key: missing", self.faults(RelayConfig, certificate="c")[0])

    def test_twice(self) -> None:
        """
        An endpoint and an account can stand there only once.
        """
        self.assertEqual(
            self.faults(RelayConfig, clients=("tcp:1", "tcp:1")),
            ["[listen] clients: 'tcp:1' is given twice"],
        )
        account = FileAccount(id="office", secret_hash=HASH)
        self.assertEqual(
            self.faults(RelayConfig, accounts=(account, account, account)),
            ["[[agent]] id: 'office' is given twice"],
        )

    def test_replace(self) -> None:
        """
        A copy with other values is checked like the first.
        """
        self.faults(msgspec.structs.replace, RelayConfig(), agents="x")


class ClientPortTests(Faulty):
    """
    A shared port.
    """

    def test_settled(self) -> None:
        """
        Its endpoint and the ID of its default come into their canonical forms.
        """
        port = ClientPort(endpoint="tcp:8000", default="Web")
        self.assertEqual((port.endpoint, port.default, str(port)), ("tcp:8000", "web", "tcp:8000"))
        self.assertEqual(ClientPort(endpoint="tcp:8000").default, "")

    def test_faults(self) -> None:
        """
        Faults of both are told.
        """
        faults = self.faults(ClientPort, endpoint="nonsense:", default="a b")
        self.assertEqual(len(faults), 2)
        self.assertIn("[listen] clients: ", faults[0])
        self.assertIn("default: 'a b'", faults[1])

    def test_of_a_relay(self) -> None:
        """
        An endpoint stands for a port without a default; the same endpoint is
        not listened on twice, whatever its default.
        """
        with_default = ClientPort(endpoint="tcp:25", default="mail")
        config = RelayConfig(clients=("tcp:80", with_default))  # type: ignore[arg-type]
        self.assertEqual(config.clients, (ClientPort(endpoint="tcp:80"), with_default))
        (fault,) = self.faults(
            RelayConfig, clients=(ClientPort(endpoint="tcp:25", default="web"), with_default)
        )
        self.assertIn("'tcp:25' is given twice", fault)
        (fault,) = self.faults(RelayConfig, clients=("nonsense:",))
        self.assertIn("[listen] clients", fault)


class AccountTests(Faulty):
    """
    Accounts that stand in a file.
    """

    def test_settled(self) -> None:
        """
        Patterns come into lower case; by default nothing may be published.
        """
        account = FileAccount(id="Office", secret_hash=HASH, publish=("*.Office",))
        self.assertEqual((account.id, account.publish), ("Office", ("*.office",)))
        self.assertEqual(FileAccount(id="a", secret_hash=HASH).publish, ())

    def test_faults(self) -> None:
        """
        All faults of an account are told, with its ID.
        """
        faults = self.faults(FileAccount, id="a b", secret_hash=BAD_HASH, publish=("**",))
        self.assertEqual(len(faults), 3)
        self.assertTrue(all(fault.startswith("[[agent]] 'a b' ") for fault in faults))


class ServerTests(Faulty):
    """
    One server, also as an option.
    """

    def test_settled(self) -> None:
        """
        ID and target come into their canonical forms.
        """
        server = ServerConfig(id="Web", target="[::1]:80", allow=networks(["::/0"]))
        self.assertEqual((server.id, server.target), ("web", r"tcp:\:\:1:80"))
        self.assertEqual(msgspec.structs.replace(server), server)

    def test_faults(self) -> None:
        """
        All faults of a server are told, with its ID.
        """
        way = Reach.parse("port:1")
        faults = self.faults(ServerConfig, id="a b", target="x", reach=(way, way), data="none")
        self.assertEqual(len(faults), 4)
        self.assertTrue(all(fault.startswith("[[server]] 'a b' ") for fault in faults))

    def test_option(self) -> None:
        """
        NAME=TARGET is a server that is reached by its name everywhere.
        """
        self.assertEqual(
            ServerConfig.from_option("web=127.0.0.1:8080"),
            ServerConfig(id="web", target="tcp:127.0.0.1:8080"),
        )

    def test_option_with_port(self) -> None:
        """
        With a port it is reached by that, too.
        """
        server = ServerConfig.from_option("web=127.0.0.1:8080,port=20001")
        self.assertEqual(server.reach, (Reach("name"), Reach("port", "20001")))
        self.assertEqual(server.target, "tcp:127.0.0.1:8080")

    def test_option_with_endpoint(self) -> None:
        """
        An endpoint may have equals signs and commas of its own.
        """
        server = ServerConfig.from_option("web=unix:path=/run/a,b.sock,port=0")
        self.assertEqual(server.target, "unix:path=/run/a,b.sock")
        self.assertEqual(server.reach[1].port, 0)

    def test_faulty_option(self) -> None:
        """
        A faulty option is quoted, with the reason.
        """
        for option, reason in (
            ("web", "expected NAME=TARGET"),
            ("", "expected NAME=TARGET"),
            ("=h:80", "a connection ID cannot be empty"),
            ("a b=h:80", "'a b'"),
            ("web=", "empty"),
            ("web=h", "write HOST:PORT"),
            ("web=h:80,port=", "a port is a number"),
            ("web=h:80,port=x", "a port is a number"),
            ("web=h:80,port=70000", "a port is a number"),
        ):
            (fault,) = self.faults(ServerConfig.from_option, option)
            self.assertTrue(fault.startswith(f"--publish {option!r}: "), fault)
            self.assertIn(reason, fault)


class AgentTests(Faulty):
    """
    What an agent is told.
    """

    def server(self, name: str, *ways: str) -> ServerConfig:
        return ServerConfig(id=name, target="h:80", reach=tuple(map(Reach.parse, ways)))

    def test_one_invitation(self) -> None:
        """
        There can be one invitation at most, and in the end there must be one.
        """
        self.assertIn("only one", self.faults(AgentConfig, join="x", join_file="y")[0])
        self.assertIn("missing", self.faults(AgentConfig().complete)[0])
        for config in (AgentConfig(join="x"), AgentConfig(join_file="y")):
            self.assertIs(config.complete(), config)

    def test_hidden(self) -> None:
        """
        The invitation has a secret in it, so it is not shown.
        """
        self.assertNotIn("hunter2", repr(AgentConfig(join="hunter2")))
        self.assertIn("hidden", repr(AgentConfig(join="hunter2")))

    def test_same_id(self) -> None:
        """
        Two servers cannot have one ID, in whatever case.
        """
        self.assertEqual(
            self.faults(AgentConfig, servers=(self.server("web"), self.server("WEB"))),
            ["[[server]] id: 'web' is given twice"],
        )

    def test_same_way(self) -> None:
        """
        A host, SNI or port leads to one server only.
        """
        for way in ("host:a.example", "sni:*.example", "port:20001"):
            self.assertEqual(
                self.faults(
                    AgentConfig, servers=(self.server("web", way), self.server("api", way))
                ),
                [f"[[server]] 'api' reach: '{way}' is already that of 'web'"],
            )

    def test_shared_ways(self) -> None:
        """
        By name, by any port, and the same name in HTTP and TLS is no conflict.
        """
        AgentConfig(
            servers=(
                self.server("web", "name", "port:0", "host:a.example"),
                self.server("api", "name", "port:0", "sni:a.example"),
            )
        )

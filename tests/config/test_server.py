"""
Tests of one server as it is configured, also as an option.
"""

from __future__ import annotations

from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from relaytunnel.config.names import Reach
from relaytunnel.config.server import MOST_SESSIONS, ServerConfig, proxy_version
from relaytunnel.errors import ConfigError
from tests.config.test_model import Faulty

HASH = "sha256:" + "0f" * 32
TARGET = "tcp:127.0.0.1:8080"


class ForWhomTests(Faulty):
    """
    Whom a server is for, and what it is told of them.
    """

    def test_defaults(self) -> None:
        """
        A server that says nothing is listed nowhere, asks for no password, and
        is told of no address.
        """
        server = ServerConfig(id="web", target=TARGET)
        self.assertEqual(
            (server.listed, server.users, server.sessions_per_client, server.proxy),
            (False, (), 0, ""),
        )

    def test_settled(self) -> None:
        """
        Users and the version come into their canonical forms.
        """
        server = ServerConfig(
            id="web",
            target=TARGET,
            users=(("alice", HASH.upper().replace("SHA", "sha")),),
            proxy="off",  # type: ignore[arg-type]
        )
        self.assertEqual((server.users, server.proxy), ((("alice", HASH),), ""))

    def test_proxy_and_tls(self) -> None:
        """
        Ahead of TLS with its target an agent says nothing.
        """
        for text in ("https://web.example", "tls:web.example:443", "ssl:web.example:443"):
            faults = self.faults(ServerConfig, id="web", target=text, proxy="v2")
            self.assertIn("leave one of them out", faults[0])

    def test_faults(self) -> None:
        """
        Each fault has its line, and no hash is in it.
        """
        faults = self.faults(
            ServerConfig,
            id="web",
            target=TARGET,
            users=(("alice", "hunter2"),),
            proxy="v3",
            sessions_per_client=-1,
        )
        self.assertEqual(len(faults), 3)
        for fault, key in zip(faults, ("users", "proxy", "sessions-per-client"), strict=True):
            self.assertTrue(fault.startswith(f"[[server]] 'web' {key}: "), fault)
            self.assertNotIn("hunter2", fault)

    def test_sessions(self) -> None:
        """
        A client may have from one to a million sessions; nought is no limit.
        """
        for most in (0, 1, MOST_SESSIONS):
            self.assertEqual(
                ServerConfig(
                    id="web", target=TARGET, sessions_per_client=most
                ).sessions_per_client,
                most,
            )
        for most in (-1, MOST_SESSIONS + 1):
            self.faults(ServerConfig, id="web", target=TARGET, sessions_per_client=most)

    def test_no_place_for_a_password(self) -> None:
        """
        A server with users is not reached in ways that carry no password: its
        owner would think that it is safe, or that it is open.
        """
        users = (("alice", HASH),)
        for way in ("port:20000", "port:0", "sni:web.example"):
            reach = (Reach("name"), Reach.parse(way))
            (fault,) = self.faults(ServerConfig, id="web", target=TARGET, users=users, reach=reach)
            self.assertIn(f"users: no password can be given by {way}", fault)
            ServerConfig(id="web", target=TARGET, reach=reach)
        for way in ("name", "host:web.example"):
            ServerConfig(id="web", target=TARGET, users=users, reach=(Reach.parse(way),))

    def test_proxy_version(self) -> None:
        """
        There are two versions, and none.
        """
        self.assertEqual(
            [proxy_version(text) for text in ("v1", "v2", "off", "")], ["v1", "v2", "", ""]
        )
        for text in ("v3", "1", "V1", "on", "true"):
            self.assertRaises(ValueError, proxy_version, text)


class OptionTests(Faulty):
    """
    C{--publish}.
    """

    def test_each(self) -> None:
        """
        Each wish behind the target has its meaning.
        """
        plain = ServerConfig.from_option("web=127.0.0.1:8080")
        self.assertEqual((plain.reach, plain.listed, plain.proxy), ((), False, ""))
        self.assertTrue(ServerConfig.from_option("web=127.0.0.1:8080,listed").listed)
        for version in ("v1", "v2"):
            option = f"web=127.0.0.1:8080,proxy={version}"
            self.assertEqual(ServerConfig.from_option(option).proxy, version)
        self.assertEqual(ServerConfig.from_option("web=127.0.0.1:8080,proxy=off").proxy, "")

    def test_any_order(self) -> None:
        """
        They may stand in any order, each of them once.
        """
        expected = ServerConfig(
            id="web",
            target=TARGET,
            reach=(Reach("name"), Reach("port", "20001")),
            listed=True,
            proxy="v2",
        )
        for order in permutations((",listed", ",proxy=v2", ",port=20001")):
            option = "web=127.0.0.1:8080" + "".join(order)
            self.assertEqual(ServerConfig.from_option(option), expected, option)

    def test_endpoint(self) -> None:
        """
        What stands in the middle of an endpoint is the endpoint's.
        """
        server = ServerConfig.from_option("web=unix:path=/run/a,listed/b,port=1/c.sock,listed")
        self.assertEqual(server.target, "unix:path=/run/a,listed/b,port=1/c.sock")
        self.assertTrue(server.listed)

    def test_faulty(self) -> None:
        """
        What is no wish is not let pass as one.
        """
        for end in (
            ",proxy=v3",
            ",proxy",
            ",listed=yes",
            ",Listed",
            ", listed",
            ",port=x,listed",
            ",hidden",
            ",",
            ",listed,",
        ):
            (fault,) = self.faults(ServerConfig.from_option, f"web=127.0.0.1:8080{end}")
            self.assertIn("--publish", fault)

    def test_twice(self) -> None:
        """
        None of them stands there twice, not even if it says the same.
        """
        for wish in ("port=1", "proxy=v2", "listed"):
            option = f"web=127.0.0.1:8080,{wish},{wish}"
            (fault,) = self.faults(ServerConfig.from_option, option)
            self.assertIn(f"{wish.partition('=')[0]} is given twice", fault)

    @given(st.text("web=127.0.0.1:80,listedproxyv2 ", max_size=40))
    @settings(deadline=None, max_examples=100)
    def test_anything(self, option: str) -> None:
        """
        Whatever is given, it is a server or a fault.
        """
        try:
            self.assertIsInstance(ServerConfig.from_option(option), ServerConfig)
        except ConfigError as error:
            self.assertTrue(error.faults)

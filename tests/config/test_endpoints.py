"""
Tests of the form of endpoint descriptions.
"""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.config.endpoints import Kind, endpoint_description, target

modest = settings(deadline=None, max_examples=100)

SERVERS = (
    "tcp:0",
    "tcp:7080:interface=127.0.0.1",
    r"tcp:port=80:interface=\:\::backlog=5",
    "unix:/run/x.sock:mode=600",
    "unix:address=/run/x.sock",
)
CLIENTS = (
    "tcp:127.0.0.1:8080",
    "tcp:host=localhost:port=80:timeout=3",
    "unix:/run/x.sock",
    "unix:path=/run/x.sock",
    r"unix:/run/a\=b\:c",
)


class DescriptionTests(SynchronousTestCase):
    """
    What may be an endpoint.
    """

    def refused(self, text: str, kind: Kind, reason: str) -> None:
        error = self.assertRaises(ValueError, endpoint_description, text, kind)
        self.assertIn(reason, str(error))

    def test_as_twisted(self) -> None:
        """
        What is taken comes back unchanged, and Twisted takes it as well.
        """
        reactor = MemoryReactorClock()
        for text in SERVERS:
            self.assertEqual(endpoint_description(text, "server"), text)
            serverFromString(reactor, text)
        for text in CLIENTS:
            self.assertEqual(endpoint_description(text, "client"), text)
            clientFromString(reactor, text)

    def test_plugins(self) -> None:
        """
        Descriptions of other kinds are left to their plugins.
        """
        for text in ("systemd:domain=INET:index=0", "haproxy:tcp:8000", "onion:80:x=y:z"):
            self.assertEqual(endpoint_description(text, "server"), text)

    def test_no_endpoint(self) -> None:
        """
        Text that does not begin with the name of a plugin is refused.
        """
        self.refused("", "server", "empty")
        self.refused("tcp", "server", "not an endpoint")
        self.refused("a-b:80", "server", "does not begin")
        self.refused("tcp:", "server", "nothing follows")
        self.refused("tcp:80\n", "server", "control characters")

    def test_bare_port(self) -> None:
        """
        A bare port is refused, and the endpoint that was meant proposed.
        """
        self.refused("8000", "server", "did you mean 'tcp:8000'?")

    def test_ports(self) -> None:
        """
        One listens on 0 to 65535, but dials 1 to 65535.
        """
        self.refused("tcp:65536", "server", "from 0 to 65535")
        self.refused("tcp:http", "server", "'http'")
        self.refused("tcp:h:0", "client", "from 1 to 65535")
        self.refused("tcp:h:x", "client", "'x'")

    def test_missing(self) -> None:
        """
        The argument that is missing is named.
        """
        self.refused("tcp:interface=::1", "server", "given twice")
        self.refused("tcp:interface=x", "server", "the port is missing")
        self.refused("tcp:h", "client", "the port is missing")
        self.refused("tcp::80", "client", "the host is missing")
        self.refused("unix:timeout=3", "client", "the path is missing")
        self.refused("tcp:a b:80", "client", "no blanks")

    def test_unknown_argument(self) -> None:
        """
        An unknown argument is named, with the nearest that there is.
        """
        self.refused("tcp:80:interfaces=x", "server", "did you mean 'interface'?")
        self.refused("tcp:80:x:5:6", "server", "too many arguments")

    def test_numbers(self) -> None:
        """
        Arguments of which Twisted makes numbers have to be some.
        """
        self.refused("tcp:80:backlog=x", "server", "the backlog is not a number")
        self.refused("tcp:80::", "server", "the backlog is not a number")
        self.refused("unix:/x:mode=9", "server", "the mode is not a number")
        self.refused("tcp:h:80:timeout=", "client", "the timeout is not a number")

    def test_backslash(self) -> None:
        """
        A backslash at the end escapes nothing.
        """
        self.refused("tcp:80\\", "server", "backslash")

    @modest
    @given(st.text("tcpunix:=\\0189/[]. ", max_size=30))
    def test_any_text(self, text: str) -> None:
        """
        Any text is either taken or a L{ValueError}.
        """
        for check in (
            lambda: endpoint_description(text, "client"),
            lambda: endpoint_description(text, "server"),
            lambda: target(text),
        ):
            with contextlib.suppress(ValueError):
                check()

    @modest
    @given(st.text("tcp:=\\0189ab", max_size=20).map(lambda text: f"tcp:{text}"))
    def test_no_more_than_twisted(self, text: str) -> None:
        """
        No description to listen on is taken that Twisted then refuses.
        """
        try:
            endpoint_description(text, "server")
        except ValueError:
            return
        serverFromString(MemoryReactorClock(), text)


class TargetTests(SynchronousTestCase):
    """
    Where a server is inside.
    """

    def test_host_and_port(self) -> None:
        """
        HOST:PORT becomes a TCP endpoint.
        """
        self.assertEqual(target("127.0.0.1:8080"), "tcp:127.0.0.1:8080")
        self.assertEqual(target("my_service:80"), "tcp:my_service:80")

    def test_ipv6(self) -> None:
        """
        An IPv6 address in brackets becomes one that Twisted understands.
        """
        text = target("[::1]:80")
        self.assertEqual(text, r"tcp:\:\:1:80")
        reactor = MemoryReactorClock()
        endpoint = clientFromString(reactor, text)
        self.assertEqual((endpoint._host, endpoint._port), ("::1", 80))

    def test_endpoint(self) -> None:
        """
        An endpoint stays as it is, so that settling twice changes nothing.
        """
        for text in ("unix:/run/x.sock", "tcp:h:80", r"tcp:\:\:1:80", "tls:h:443", "unix:80"):
            self.assertEqual(target(text), text)
            self.assertEqual(target(target(text)), text)

    def test_refused(self) -> None:
        """
        What is neither is refused with a hint to what is missing.
        """
        for text, reason in (
            ("", "empty"),
            ("localhost", "write HOST:PORT"),
            ("8080", "write HOST:PORT"),
            ("localhost:0", "from 1 to 65535"),
            ("localhost:99999", "from 1 to 65535"),
            ("::1:80", "brackets"),
            ("[::1]", "not an endpoint"),
            ("[1.2.3.4]:80", "no IPv6 address"),
            ("tcp:80", "port is missing"),
        ):
            error = self.assertRaises(ValueError, target, text)
            self.assertIn(reason, str(error))


class URLTests(SynchronousTestCase):
    """
    Targets as people copy them from a browser, or by habit.
    """

    def refused(self, text: str, reason: str) -> None:
        error = self.assertRaises(ValueError, target, text)
        self.assertIn(reason, str(error))

    def test_meant(self) -> None:
        """
        A URL of host and port is an endpoint, over TLS if it says so.
        """
        for text, meant in (
            ("http://127.0.0.1:8080", "tcp:127.0.0.1:8080"),
            ("HTTP://localhost/", "tcp:localhost:80"),
            ("https://web.example", "tls:web.example:443"),
            ("https://web.example:8443/", "tls:web.example:8443"),
            ("http://[::1]:80/", r"tcp:\:\:1:80"),
            (":8080", "tcp:localhost:8080"),
        ):
            self.assertEqual(target(text), meant)

    def test_did_you_mean(self) -> None:
        """
        What cannot be is refused with what may have been meant.
        """
        for text, meant in (
            ("http://a:80/path", "'http://a:80/'"),
            ("http://user:word@a:80", "'http://a:80/'"),
            ("http://a:80?x", "'http://a:80/'"),
            ("wss://a:1/x", "'https://a:1'"),
            ("ssh://a:22", "'a:22'"),
            ("localhost:80/", "'localhost:80'"),
            ("tcp6:localhost:80", "'tcp:localhost:80'"),
            ("https:a.example", "'https://a.example'"),
            ("8080", "':8080'"),
            ("/run/web.sock", "'unix:/run/web.sock'"),
        ):
            self.refused(text, f"did you mean {meant}?")
        for text in ("http://", "https://:443", "http://a:x", "http://a:0", "http://[a]:80"):
            self.refused(text, text)

    def test_names(self) -> None:
        """
        Hosts that no resolver could be asked for are refused in any form.
        """
        for host in ("a" * 64, ".".join(["a" * 60] * 5), "a..b", ".", "\u2028x"):
            for text in (f"{host}:80", f"tcp:{host}:80", f"http://{host}", f"tls:{host}:1"):
                self.assertRaises(ValueError, target, text)
        self.assertEqual(target("my_service:80"), "tcp:my_service:80")

    def test_paths(self) -> None:
        """
        So are paths of UNIX sockets that no kernel would take.
        """
        self.refused("unix:/" + "x" * 200, "bytes at most")
        self.refused("unix:/" + "\u00e4" * 100, "bytes at most")
        self.assertEqual(target("unix:/" + "x" * 90), "unix:/" + "x" * 90)

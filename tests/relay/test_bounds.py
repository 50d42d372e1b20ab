"""
What a client says is bounded before it is used: the longest value of each kind,
of the costliest shape, costs a bounded number of steps and bytes.

Steps are calls of functions, of Python and of C; time is not looked at.
"""

from __future__ import annotations

import contextlib
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival import DEFAULT_LIMITS, Arrival, Malformed, Named
from relaytunnel.config.access import networks
from relaytunnel.config.hosts import RelayNames
from relaytunnel.config.names import Reach
from relaytunnel.config.users import users
from relaytunnel.errors import Failing, ProtocolError, Rejection
from relaytunnel.relay.choices import Choices
from relaytunnel.relay.finding import ClientDirectory, Finder, Unnamed
from relaytunnel.relay.registry import Registry
from relaytunnel.wire.proxied import ProxyReader
from tests.arrival.test_tls import hello, server_name
from tests.relay.test_registry import a_server, an_agent

MOST = DEFAULT_LIMITS.max_head
SOURCE = "203.0.113.9"
SERVERS = 50

STEPS = 12_000
"""Nearly twice what the costliest takes: two thousand characters of a path, quoted twice."""

STEPS_OF_OTHERS = 60_000
"""The same for a whole message: it may have sixteen names in another script."""

MEMORY = 1 << 20
"""Bytes in use at a time beyond those that were before."""


def field(name: str, value: str, line: str = "GET / HTTP/1.1", host: str = "relay") -> bytes:
    """
    A head with this field, as long as one may be, if its value is repeated.
    """
    start = f"{line}\r\nHost: {host}\r\n{name}: "
    room = MOST - len(start) - 4
    return (start + (value * (room // len(value) + 1))[:room] + "\r\n\r\n").encode()


def path(query: str, line: str = "GET") -> bytes:
    """
    A head whose path asks the question, with a query of this repeated.
    """
    start, end = f"{line} /.relaytunnel/?", " HTTP/1.1\r\nHost: relay\r\n\r\n"
    room = MOST - len(start) - len(end)
    return (start + (query * (room // len(query) + 1))[:room] + end).encode()


DOTS = "a." * 126 + "a"
LABELS = ".".join(["a" * 62] * 4)

SAID: dict[str, bytes] = {
    "cookie of dots": field("Cookie", "relaytunnel=" + "." * MOST),
    "cookie of labels": field("Cookie", "relaytunnel=" + "a." * MOST),
    "many cookies": field("Cookie", "a;"),
    "many of ours": field("Cookie", "relaytunnel=a;"),
    "almost ours": field("Cookie", "; relaytunnel"),
    "blanks in cookies": field("Cookie", "; "),
    "offers": field("Accept", ","),
    "offers with parameters": field("Accept", "text/html;q=0.1;"),
    "weights": field("Accept", "text/html;" + "q=1;" * MOST),
    "json of many kinds": field("Accept", "a+json,"),
    "options": field("Connection", ","),
    "protocols": field("Upgrade", "a,"),
    "origin": field("Origin", "http://" + "a." * MOST, "POST /.relaytunnel/?server=a HTTP/1.1"),
    "credentials": field("Authorization", "Basic " + "YTpi" * MOST),
    "digits": field("Content-Length", "1"),
    "many fields": b"GET / HTTP/1.1\r\nHost: relay\r\n" + b"a: b\r\n" * 99 + b"\r\n",
    "host of dots": b"GET / HTTP/1.1\r\nHost: " + DOTS.encode() + b"\r\n\r\n",
    "host of labels": b"GET / HTTP/1.1\r\nHost: " + LABELS.encode() + b"\r\n\r\n",
    "host too long": b"GET / HTTP/1.1\r\nHost: " + b"a." * 8000 + b"\r\n\r\n",
    "host of colons": b"GET / HTTP/1.1\r\nHost: [" + b":" * 16000 + b"]\r\n\r\n",
    "path": b"GET /" + b"%20" * 5400 + b" HTTP/1.1\r\nHost: relay\r\n\r\n",
    "words": path("q=" + "a+" * MOST),
    "choice": path("server=" + "a." * MOST),
    "choice of dots": path("server=" + DOTS + "&to=/", "POST"),
    "many parameters": path("a=b&"),
    "percents": path("q=" + "%41" * MOST),
    "way there": path("to=/" + "%25" * MOST),
    "absolute": b"GET http://"
    + DOTS.encode()
    + b"/ HTTP/1.1\r\nHost: "
    + DOTS.encode()
    + b"\r\n\r\n",
    "tunnel": b"CONNECT " + DOTS.encode() + b":22 HTTP/1.1\r\n\r\n",
    "sni": hello(server_name(DOTS.encode())),
    "socks5": b"\x05\x01\x00\x05\x01\x00\x03" + bytes([len(DOTS)]) + DOTS.encode() + b"\0\x16",
    "socks4": b"\x04\x01\x00\x16\x00\x00\x00\x01\x00" + DOTS.encode() + b"\x00",
    "postgres": b"\x00\x00\x00\x08\x04\xd2\x16\x2f" + hello(server_name(DOTS.encode())),
    "line": DOTS.encode() + b"\n",
    "line of digits": b"9" * 500 + b"\n",
}
"""The costliest that was thought of, of each kind that there is."""


WORD = 256
"""As many characters a text of a message has at most."""


def proxied(data: bytes) -> bytes:
    reader = ProxyReader()
    reader.feed(data)
    return b""


AGREED: dict[str, Callable[[], object]] = {
    "reach of dots": lambda: [Reach.parse(f"host:{DOTS}"[:WORD]) for _ in range(16)],
    "reach in another script": lambda: [
        Reach.parse("host:" + "\u00e4." * 30 + "\u00e4") for _ in range(16)
    ],
    "reach of one label": lambda: [Reach.parse("sni:" + "\u4e2d" * 18) for _ in range(16)],
    "digits of a port": lambda: [Reach.parse("port:" + "9" * 250) for _ in range(16)],
    "networks": lambda: networks(["1:" * 127 for _ in range(64)]),
    "longest networks": lambda: networks(["2001:db8:1:2:3:4:5:6/128"] * 64),
    "users": lambda: users((f"{at}" + "\u4e2d" * 60, f"sha256:{'0' * 64}") for at in range(64)),
    "hashes": lambda: users((f"{at}", "scrypt:131072:8:1:" + "0" * 230) for at in range(64)),
    "PROXY line": lambda: proxied(b"PROXY TCP4 " + b"1" * 4000),
    "PROXY block": lambda: proxied(
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + (4080).to_bytes(2, "big") + b"\x00" * 4080
    ),
}
"""The same of what agents register, and of what balancers say."""


class BoundsTests(SynchronousTestCase):
    """
    Each of them at a relay with some servers.
    """

    def setUp(self) -> None:
        self.registry = Registry(RelayNames(("relay",)))
        agent = an_agent()
        self.registry.enter(agent)
        for number in range(SERVERS):
            server = a_server(agent, f"server-{number}", "name")
            server.listed = True
            self.registry.add(server)
        choices = Choices(b"key")
        self.finder = Finder(self.registry, choices)
        self.directory = ClientDirectory(
            self.registry, SOURCE, SOURCE, choices, lambda host: host == "relay"
        )

    def served(self, said: bytes) -> bytes:
        """
        Hear a client out, find its server, and answer or ask it.
        """
        arrival = Arrival()
        outcome = arrival.feed(said)
        if isinstance(outcome, Malformed):
            return outcome.answer
        if not isinstance(outcome, Named):
            return arrival.timed_out()
        try:
            self.finder.find(outcome, "", SOURCE)
        except Rejection as why:
            failing = Failing(why.code, why.reason)
            asked = arrival.ask(self.directory, None if isinstance(why, Unnamed) else failing)
            return arrival.answer(failing) if asked is None else asked.data
        return b""

    def steps(self, act: Callable[[], object]) -> int:
        """
        @return: how many functions are called meanwhile.
        """
        count = 0

        def called(frame: Any, event: str, argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(called)
        try:
            act()
        finally:
            sys.setprofile(before)
        return count

    def memory(self, act: Callable[[], object]) -> int:
        """
        @return: the bytes that it took meanwhile, at most.
        """
        tracemalloc.start()
        try:
            act()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def test_steps(self) -> None:
        """
        None takes more steps than a long page does.
        """
        self.served(SAID["words"])
        for what, said in SAID.items():
            self.assertLessEqual(len(said), MOST, what)
            steps = self.steps(lambda said=said: self.served(said))  # type: ignore[misc]
            self.assertLess(steps, STEPS, what)

    def test_steps_of_others(self) -> None:
        """
        Nor does what agents and balancers say, right or wrong.
        """

        def tried(act: Callable[[], object]) -> None:
            with contextlib.suppress(ValueError, ProtocolError):
                act()

        for what, act in AGREED.items():
            tried(act)
            steps = self.steps(lambda act=act: tried(act))  # type: ignore[misc]
            self.assertLess(steps, STEPS_OF_OTHERS, what)
            self.assertLess(self.memory(lambda act=act: tried(act)), MEMORY, what)  # type: ignore[misc]

    def test_memory(self) -> None:
        """
        None takes more bytes than that, either.
        """
        self.served(SAID["words"])
        for what, said in SAID.items():
            taken = self.memory(lambda said=said: self.served(said))  # type: ignore[misc]
            self.assertLess(taken, MEMORY, what)

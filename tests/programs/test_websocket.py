"""
HTTP that is more than a request and its answer: WebSockets, long polls, uploads
without a length, and requests that do not wait for the answers before.
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.processes import (
    Program,
    empty_directory,
    free_port,
    missing_programs,
    random_file,
    run,
    start_agent,
    start_relay,
)
from tests.programs.inside import start_nginx
from tests.programs.test_browser import browse
from tests.programs.test_netcat import unusable as netcat_unusable

HERE = Path(__file__).parent

TALKS = """
new Promise((done, failed) => {
  const socket = new WebSocket("%s");
  const long = "x".repeat(70000);
  const said = ["one", "two", long], heard = [];
  socket.onopen = () => said.forEach(each => socket.send(each));
  socket.onerror = () => failed("no socket");
  socket.onmessage = (event) => {
    heard.push(event.data === long.toUpperCase() ? "LONG" : event.data);
    if (heard.length > said.length) socket.close(4000, "enough");
  };
  socket.onclose = (event) => done([...heard, event.code, event.reason]);
})
"""

SIZE = 5_000_000


class WebSocketTests(TestCase):
    """
    A server that talks, and clients that know it by its Host.
    """

    skip = missing_programs("curl")

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        port = free_port()
        server = Program.start(self, sys.executable, HERE / "websocket_server.py", str(port))
        await server.wait_for("serving")
        self.relay = await start_relay(self, empty_directory(self) / "relay")
        await start_agent(self, self.relay.invitation, [f"talk=127.0.0.1:{port}"])
        self.place = f"talk.localhost:{self.relay.clients_port}"

    async def talks(self, *options: str, page: str, place: str) -> None:
        """
        Open a WebSocket in Chromium; it must pass in both directions, up to
        the reason of its end.
        """
        steps: list[list[Any]] = [["visit", f"http://{page}"], ["ask", TALKS % place]]
        [heard] = await browse(self, *steps, options=options)
        self.assertEqual(heard, ["welcome", "ONE", "TWO", "LONG", 4000, "enough"])

    async def test_by_host(self) -> None:
        """
        A browser's WebSocket reaches the server that its Host names.
        """
        await self.talks(page=f"{self.place}/", place=f"ws://{self.place}/chat")

    async def test_by_tunnel(self) -> None:
        """
        A browser that has a proxy opens a tunnel for its WebSocket.
        """
        proxy = f"--proxy-server=http://{self.relay.clients}"
        await self.talks(proxy, page="talk/", place="ws://talk/chat")

    async def test_chosen(self) -> None:
        """
        The cookie of a choice leads a WebSocket to the server, too.
        """
        url = f"http://{self.relay.clients}"
        [heard] = await browse(
            self,
            ["visit", f"{url}/.relaytunnel/?server=talk"],
            ["press", "li [value=talk]"],
            ["ask", TALKS % f"ws://{self.relay.clients}/chat"],
        )
        self.assertEqual(heard, ["welcome", "ONE", "TWO", "LONG", 4000, "enough"])

    test_by_host.skip = test_by_tunnel.skip = test_chosen.skip = (  # type: ignore[attr-defined]
        skip or missing_programs("chromium")
    )

    async def upgrades(self, *options: str) -> None:
        """
        Ask for a WebSocket with curl, which shows what it gets by then.
        """
        program = Program.start(
            self,
            *("curl", "--silent", "--show-error", "--http1.1", "--no-buffer", "--include"),
            *("--max-time", "20", "--header", "Connection: Upgrade"),
            *("--header", "Upgrade: websocket", "--header", "Sec-WebSocket-Version: 13"),
            *("--header", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *options),
        )
        # Key and answer are those of RFC 6455 1.3.
        await program.wait_for(
            r"^HTTP/1\.1 101 (?s:.*)Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo="
            r"(?s:.*)\r\n\r\n.\x07welcome"
        )

    async def test_curl(self) -> None:
        """
        An upgrade passes as it is: by Host, by a tunnel, and without one.
        """
        proxy = ("--proxy", f"http://{self.relay.clients}")
        await self.upgrades(f"http://{self.place}/chat")
        await self.upgrades(*proxy, "--proxytunnel", "http://talk/chat")
        await self.upgrades(*proxy, "http://talk/chat")

    async def test_long_poll(self) -> None:
        """
        An answer that takes its time comes when it comes.
        """
        began = time.monotonic()
        done = await run(
            self, *("curl", "--silent", "--max-time", "20", f"http://{self.place}/later")
        )
        self.assertEqual((done.code, done.out), (0, "at last\n"))
        self.assertGreaterEqual(time.monotonic() - began, 1.5)


class RefusedWebSocketTests(TestCase):
    """
    A WebSocket that a server does not grant.
    """

    skip = missing_programs("curl", "nginx")

    async def test_next_request(self) -> None:
        """
        What its client then asks the same proxy for is not sent to that server.
        """
        ports = [free_port(), free_port()]
        await start_nginx(
            self,
            ports,
            "".join(
                f'server {{ listen 127.0.0.1:{port}; return 200 "{port} $http_upgrade\\n"; }}\n'
                for port in ports
            ),
        )
        relay = await start_relay(self, empty_directory(self) / "relay")
        servers = [f"{name}=127.0.0.1:{port}" for name, port in zip("ab", ports, strict=True)]
        await start_agent(self, relay.invitation, servers)
        proxy = ("--silent", "--show-error", "--max-time", "20", "--proxy", relay.clients)
        wanted = ("--header", "Connection: Upgrade", "--header", "Upgrade: websocket")
        done = await run(
            self, *("curl", *proxy, *wanted, "http://a/"), *("--next", *proxy, "http://b/")
        )
        self.assertEqual(done.out, f"{ports[0]} websocket\n{ports[1]} \n", done.err)


class BodyTests(TestCase):
    """
    A server that says what it has got.
    """

    skip = missing_programs("curl") or netcat_unusable()

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.directory = empty_directory(self)
        self.file = self.directory / "file"
        self.digest = random_file(self.file, SIZE)
        port = free_port()
        server = Program.start(self, sys.executable, HERE / "http_server.py", str(port), self.file)
        await server.wait_for("serving")
        self.relay = await start_relay(self, self.directory / "relay")
        await start_agent(self, self.relay.invitation, [f"web=127.0.0.1:{port}"])

    async def test_stream(self) -> None:
        """
        What curl reads from its standard input, and sends in chunks as it
        reads, arrives unchanged; by Host, by a tunnel, and without one.
        """
        proxy = ("--proxy", f"http://{self.relay.clients}")
        for options in (
            (f"http://web.localhost:{self.relay.clients_port}/",),
            (*proxy, "--proxytunnel", "http://web/"),
            (*proxy, "http://web/"),
        ):
            done = await run(
                self,
                *("curl", "--silent", "--show-error", "--max-time", "20"),
                *("--header", "Transfer-Encoding: chunked", "--upload-file", "-", *options),
                stdin=self.file,
            )
            self.assertEqual(done.out, f"PUT chunked {SIZE} {self.digest}\n", done.err)

    async def test_pipelined(self) -> None:
        """
        Requests that do not wait for the answers before them, bodies and all,
        are answered in their order, over one connection.
        """
        host = b"Host: web\r\n"
        body = self.file.read_bytes()[:100_000]
        requests = self.directory / "requests"
        requests.write_bytes(
            b"GET /visit/one HTTP/1.1\r\n" + host + b"\r\n"
            b"PUT / HTTP/1.1\r\n"
            + host
            + b"Content-Length: 100000\r\n\r\n"
            + body
            + b"GET /visit/two HTTP/1.1\r\n"
            + host
            + b"\r\n"
            b"GET /visit/three HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n"
        )
        port = str(self.relay.clients_port)
        done = await run(self, *("nc", "127.0.0.1", port), stdin=requests)
        self.assertEqual(done.code, 0, done.err)
        self.assertEqual(done.out.count("HTTP/1.1 200 OK"), 4)
        said = re.findall(
            r"^(?:(\w+) is request \d from port (\d+)|PUT \w+ (\d+) (\w+))$", done.out, re.M
        )
        [port] = {each[1] for each in said if each[1]}
        digest = hashlib.sha256(body).hexdigest()
        self.assertEqual(
            said,
            [
                ("one", port, "", ""),
                ("", "", "100000", digest),
                ("two", port, "", ""),
                ("three", port, "", ""),
            ],
        )

"""
curl and an HTTP server through relay and agent: uploads, downloads, and the
ways in which curl can say which server it wants.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.processes import (
    Program,
    empty_directory,
    free_port,
    missing_programs,
    own_port,
    random_file,
    run,
    sha256_of,
    start_agent,
    start_relay,
)

SIZE = 64 << 20
"""How much is uploaded and downloaded, in bytes."""

SERVER = Path(__file__).with_name("http_server.py")


class CurlTests(TestCase):
    """
    An unchanged client and a server that knows nothing of the tunnel.
    """

    skip = missing_programs("curl")

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.directory = empty_directory(self)
        self.file = self.directory / "file"
        self.digest = random_file(self.file, SIZE)
        port = free_port()
        server = Program.start(self, sys.executable, SERVER, str(port), self.file)
        await server.wait_for("serving")
        self.relay = await start_relay(self, self.directory / "relay")
        self.port = own_port()
        target = f"127.0.0.1:{port}"
        await start_agent(
            self, self.relay.invitation, [f"web={target}", f"own={target},port={self.port}"]
        )
        self.web = f"http://web.localhost:{self.relay.clients_port}"

    async def curl(self, *options: str | Path) -> tuple[str, str]:
        """
        Run curl, which must succeed.

        @return: its standard output and standard error.
        """
        done = await run(
            self, *("curl", "--silent", "--show-error", "--fail", "--max-time", "30"), *options
        )
        self.assertEqual(done.code, 0, done.err)
        return done.out, done.err

    async def uploads(self, method: str, coding: str, *options: str | Path) -> None:
        """
        Upload the file; its size and hash must be the same at the server, and
        curl must not have begun before the server asked it to go on.
        """
        # curl would go on by itself after the timeout: here later than it may run.
        said, log = await self.curl(
            *("--verbose", "--header", "Expect: 100-continue", "--expect100-timeout", "300"),
            *options,
            f"{self.web}/upload",
        )
        self.assertEqual(said, f"{method} {coding} {SIZE} {self.digest}\n")
        self.assertRegex(log, r"(?m)^< HTTP/1\.1 100 Continue")

    async def test_put(self) -> None:
        """
        What curl puts, with a length known in advance, arrives unchanged.
        """
        await self.uploads("PUT", "identity", "--upload-file", self.file)

    async def test_post_in_chunks(self) -> None:
        """
        What curl posts in chunks, its length unknown, arrives unchanged.
        """
        await self.uploads(
            *("POST", "chunked"),
            *("--request", "POST", "--header", "Transfer-Encoding: chunked"),
            *("--upload-file", self.file),
        )

    async def test_download(self) -> None:
        """
        What curl fetches is what the server has, by the shared port and by
        the server's own.
        """
        for number, url in enumerate([self.web, f"http://127.0.0.1:{self.port}"]):
            fetched = self.directory / f"fetched-{number}"
            await self.curl("--output", fetched, f"{url}/file")
            self.assertEqual(fetched.stat().st_size, SIZE)
            self.assertEqual(sha256_of(fetched), self.digest)

    async def test_keep_alive(self) -> None:
        """
        Several requests go over one connection, from the client to the server.
        """
        words = [f"word-{number}" for number in range(20)]
        out, _ = await self.curl(
            *("--write-out", "%{num_connects}\\n"), *(f"{self.web}/visit/{word}" for word in words)
        )
        lines = out.splitlines()
        self.assertEqual(lines[1::2], ["1"] + ["0"] * 19)
        [port] = set(re.findall(r"from port (\d+)$", out, re.MULTILINE))
        self.assertEqual(
            lines[0::2],
            [
                f"{word} is request {number} from port {port}"
                for number, word in enumerate(words, 1)
            ],
        )

    async def greets(self, *way: str) -> None:
        """
        Fetch one word from the server, which must be reached this way.
        """
        out, _ = await self.curl(*way)
        self.assertRegex(out, r"^hello is request 1 from port \d+\n$")

    async def test_by_host(self) -> None:
        """
        The first label of the Host names the server, whatever comes after it.
        """
        await self.greets(f"{self.web}/visit/hello")
        url = f"http://{self.relay.clients}/visit/hello"
        await self.greets("--header", "Host: web.localhost", url)

    async def test_by_own_port(self) -> None:
        """
        By its own port the server needs no name.
        """
        await self.greets(f"http://127.0.0.1:{self.port}/visit/hello")

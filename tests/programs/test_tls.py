"""
TLS through relay and agent: the server's name is in the ClientHello, and all
else is between curl or openssl and nginx.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.processes import (
    Finished,
    Program,
    empty_directory,
    free_port,
    missing_programs,
    run,
    start_relay,
)
from tests.programs.inside import own_certificate, publish, start_nginx

DRIPPING = Path(__file__).with_name("dripping.py")

NGINX = """
server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    return 200 "$ssl_server_name in $server_protocol over $ssl_protocol\\n";
}}
"""

AGENT = """
[[server]]
id = "web"
target = "tcp:127.0.0.1:{port}"

[[server]]
id = "site"
target = "tcp:127.0.0.1:{port}"
reach = ["sni:web.example.test"]

[[server]]
id = "apps"
target = "tcp:127.0.0.1:{port}"
reach = ["sni:*.apps.example.test"]
data = "plain"
"""

NAMES = (
    *("web.example.test", "site.example.test", "unknown.example.test", "web.localhost"),
    *("*.apps.example.test", "one.more.apps.example.test", "apps.example.test"),
)
"""For more names than lead to a server, so that no certificate is to blame."""

CANNOT_CONNECT_IN_TLS = 35


class TLSTests(TestCase):
    """
    nginx, whose key nobody else has, and clients that take no other certificate
    than its own: whoever decrypted on the way would be found out.
    """

    skip = missing_programs("curl", "nginx", "openssl")

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.directory = empty_directory(self)
        port = free_port()
        self.certificate, key = own_certificate(self.directory, *NAMES)
        await start_nginx(
            self, [port], NGINX.format(port=port, certificate=self.certificate, key=key)
        )
        self.relay = await start_relay(self, self.directory / "relay")
        await publish(self, self.relay, AGENT.format(port=port))

    async def curl(self, name: str, *options: str, port: int | None = None) -> Finished:
        """
        Fetch the page of a server, of which curl believes that it is at the relay.
        """
        place = f"127.0.0.1:{port or self.relay.clients_port}"
        return await run(
            self,
            *("curl", "--silent", "--show-error", "--max-time", "20"),
            *("--cacert", str(self.certificate), "--connect-to", f"::{place}", *options),
            *("--write-out", "%{http_version}", f"https://{name}/"),
        )

    async def reaches(self, name: str, *options: str, port: int | None = None) -> tuple[str, str]:
        """
        Fetch the page of a server, which must be that of this name.

        @return: the version of HTTP that curl spoke, and that of TLS.
        """
        done = await self.curl(name, *options, port=port)
        self.assertEqual((done.code, done.err), (0, ""))
        page, version = done.out.splitlines()
        said = re.fullmatch(rf"{name} in HTTP/{version}(?:\.0)? over TLSv(1\.[23])", page)
        self.assertIsNotNone(said, page)
        return version, said[1] if said else ""

    async def openssl(self, *options: str) -> Finished:
        """
        Ask for the page with C{openssl s_client}.
        """
        request = self.directory / "request"
        request.write_bytes(
            b"GET / HTTP/1.1\r\nHost: web.example.test\r\nConnection: close\r\n\r\n"
        )
        return await run(
            self,
            *("openssl", "s_client", "-connect", self.relay.clients, "-ign_eof"),
            *("-CAfile", str(self.certificate), "-verify_return_error", *options),
            stdin=request,
        )

    async def test_versions(self) -> None:
        """
        Client and server agree on HTTP/1.1 or HTTP/2 among themselves, as they
        do on TLS 1.2 or 1.3.
        """
        for options, versions in (
            (["--http1.1"], ("1.1", "1.3")),
            (["--http2"], ("2", "1.3")),
            (["--http2", "--tls-max", "1.2"], ("2", "1.2")),
        ):
            self.assertEqual(await self.reaches("web.example.test", *options), versions)

    async def test_resolved(self) -> None:
        """
        A name that leads to the relay's address is all that a client needs.
        """
        port = self.relay.clients_port
        done = await run(
            self,
            *("curl", "--silent", "--show-error", "--max-time", "20"),
            *("--cacert", self.certificate),
            *("--resolve", f"web.example.test:{port}:127.0.0.1"),
            f"https://web.example.test:{port}/",
        )
        self.assertEqual(done.code, 0, done.err)
        self.assertTrue(done.out.startswith("web.example.test in HTTP/2"), done.out)

    async def test_certificate(self) -> None:
        """
        A client that does not know the server's certificate turns away: it is
        the server's own that comes, and nobody vouches for it.
        """
        other = self.directory / "other"
        other.mkdir()
        unknown, _ = own_certificate(other, *NAMES)
        done = await self.curl("web.example.test", "--cacert", str(unknown))
        self.assertEqual(done.code, 60, done.err)
        self.assertRegex(done.err, "self.signed certificate|certificate signature failure")

    async def test_by_id(self) -> None:
        """
        A server that names no ways is reached by its ID as the first label.
        """
        await self.reaches("web.localhost")

    async def test_only_by_name(self) -> None:
        """
        A server that names its ways is not reached by its ID.
        """
        done = await self.curl("site.example.test")
        self.assertEqual(done.code, CANNOT_CONNECT_IN_TLS, done.err)

    async def test_wildcard(self) -> None:
        """
        A wildcard stands for one label: neither for two, nor for none.
        """
        await self.reaches("one.apps.example.test")
        await self.reaches("two.apps.example.test")
        for name in ("one.more.apps.example.test", "apps.example.test"):
            done = await self.curl(name)
            self.assertEqual(done.code, CANNOT_CONNECT_IN_TLS, done.err)

    async def test_unknown_name(self) -> None:
        """
        A name that leads to no server is answered with the alert that says so.
        """
        done = await self.curl("unknown.example.test")
        self.assertEqual(done.code, CANNOT_CONNECT_IN_TLS, done.err)
        self.assertIn("unrecognized name", done.err)
        done = await self.openssl("-servername", "unknown.example.test")
        self.assertEqual(done.code, 1)
        self.assertRegex(done.err, "unrecognized name.*SSL alert number 112")

    async def test_no_name(self) -> None:
        """
        A client that names no server is told that it has to.
        """
        done = await self.openssl("-noservername")
        self.assertEqual(done.code, 1)
        self.assertRegex(done.err, "missing extension.*SSL alert number 109")

    async def test_dripping(self) -> None:
        """
        A ClientHello that comes in segments of a few bytes is put together,
        and so is all that follows.
        """
        port = free_port()
        dripping = Program.start(
            self, sys.executable, DRIPPING, str(port), str(self.relay.clients_port)
        )
        await dripping.wait_for("serving")
        await self.reaches("web.example.test", port=port)

    async def test_large_hello(self) -> None:
        """
        A ClientHello of several segments is understood.
        """
        protocols = ",".join(f"{number:03}{'x' * 200}" for number in range(40))
        done = await self.openssl(
            *("-servername", "web.example.test", "-alpn", f"{protocols},http/1.1"),
        )
        self.assertEqual(done.code, 0, done.err)
        self.assertRegex(done.out, r"written [89]\d\d\d bytes")
        self.assertIn("web.example.test in HTTP/1.1 over TLSv1.3", done.out)

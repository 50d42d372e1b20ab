"""
Clients that take the relay for a proxy, and have no more to do than name the
server: curl, ncat and git, by HTTP CONNECT, plain HTTP and SOCKS.

ssh does so in C{test_ssh}.
"""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from relaytunnel.accounts.secrets import hash_generated
from tests.processes import (
    Finished,
    empty_directory,
    free_port,
    missing_programs,
    random_file,
    run,
    sha256_of,
    start_relay,
)
from tests.programs.inside import own_certificate, publish, start_nginx

PAGES = """
server {{
    listen 127.0.0.1:{web};
    return 200 "web got $request for $host $http_proxy_authorization\\n";
}}
server {{
    listen 127.0.0.1:{other};
    return 200 "other got $request for $host $http_proxy_authorization\\n";
}}
"""

AGENT = """
[[server]]
id = "web"
target = "tcp:127.0.0.1:{web}"

[[server]]
id = "other"
target = "tcp:127.0.0.1:{other}"

[[server]]
id = "closed"
target = "tcp:127.0.0.1:{web}"
users = {{ alice = "{hash}" }}
"""

PASSWORD = "correct horse: battery staple"

# What curl exits with.
NO_TUNNEL = 56
NO_SOCKS = 97


class CurlProxyTests(TestCase):
    """
    curl and ncat, with the relay as their proxy of any kind.
    """

    skip = missing_programs("curl", "nginx")

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.directory = empty_directory(self)
        web, other = free_port(), free_port()
        await start_nginx(self, [web, other], PAGES.format(web=web, other=other))
        self.relay = await start_relay(self, self.directory / "relay")
        self.proxy = f"http://{self.relay.clients}"
        await publish(
            self, self.relay, AGENT.format(web=web, other=other, hash=hash_generated(PASSWORD))
        )

    async def curl(self, *options: str) -> Finished:
        """
        Run curl to its end, whatever that is.
        """
        return await run(self, *("curl", "--silent", "--show-error", "--max-time", "20"), *options)

    async def fetches(self, *options: str, server: str = "web", name: str = "web") -> None:
        """
        Fetch C{/page}, which must come from this server, asked as if directly.
        """
        done = await self.curl("--fail", *options)
        self.assertEqual(done, (0, f"{server} got GET /page HTTP/1.1 for {name} \n", ""), done.err)

    async def refused(self, code: int, reason: str, *options: str) -> None:
        """
        Fetch nothing: curl must end with this code, and say this.
        """
        done = await self.curl(*options)
        self.assertEqual((done.code, done.out), (code, ""), done.err)
        self.assertIn(reason, done.err)

    async def test_connect(self) -> None:
        """
        Through a tunnel a server is reached by its ID, on any port.
        """
        tunnel = ("--proxy", self.proxy, "--proxytunnel")
        await self.fetches(*tunnel, "http://web/page")
        await self.fetches(*tunnel, "http://other:1234/page", server="other", name="other")

    async def test_connect_to_nobody(self) -> None:
        """
        A tunnel to nobody is refused with the reason in the status line, where
        curl shows it.
        """
        done = await self.curl(
            *("--proxy", self.proxy, "--proxytunnel", "--verbose", "http://nobody/page")
        )
        self.assertEqual(done.code, NO_TUNNEL, done.err)
        self.assertIn("< HTTP/1.1 404 Not Found: no server is published as nobody", done.err)

    async def test_absolute(self) -> None:
        """
        Without a tunnel, each of several requests in a row gets to its own
        server, in the form that is meant for servers.
        """
        done = await self.curl(
            *("--proxy", self.proxy, "--fail"),
            *("http://web/one", "http://other/two", "http://web/three"),
        )
        self.assertEqual(done.code, 0, done.err)
        self.assertEqual(
            done.out.splitlines(),
            [
                "web got GET /one HTTP/1.1 for web ",
                "other got GET /two HTTP/1.1 for other ",
                "web got GET /three HTTP/1.1 for web ",
            ],
        )

    async def test_socks5(self) -> None:
        """
        By SOCKS5 with names, a server is reached by its ID.
        """
        socks = ("--socks5-hostname", self.relay.clients)
        await self.fetches(*socks, "http://web/page")
        await self.fetches(*socks, "http://other:1234/page", server="other", name="other")
        await self.refused(NO_SOCKS, "SOCKS5", *socks, "http://nobody/page")

    async def test_socks4a(self) -> None:
        """
        By SOCKS4A, too.
        """
        socks = ("--proxy", f"socks4a://{self.relay.clients}")
        await self.fetches(*socks, "http://web/page")
        await self.refused(NO_SOCKS, "rejected", *socks, "http://nobody/page")

    async def test_ncat(self) -> None:
        """
        ncat leaves the name to any kind of proxy without being told to.
        """
        request = self.directory / "request"
        request.write_bytes(b"GET /page HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
        for kind in ("http", "socks5", "socks4"):
            done = await run(
                self,
                *("ncat", "--proxy", self.relay.clients, "--proxy-type", kind, "web", "80"),
                stdin=request,
            )
            self.assertEqual(done.code, 0, done.err)
            self.assertTrue(done.out.endswith("web got GET /page HTTP/1.1 for web \n"), done.out)

    test_ncat.skip = skip or missing_programs("ncat")  # type: ignore[attr-defined]

    async def test_socks_by_address(self) -> None:
        """
        An address names no server: SOCKS5 has a reply for that, and the relay's
        log says what to do.
        """
        await self.refused(
            *(NO_SOCKS, "(8)", "--socks5", self.relay.clients, "http://127.0.0.1/page")
        )
        await self.relay.program.wait_for(
            r"servers have names here; let the proxy look them up \(socks5h, socks4a\)"
        )

    async def test_connect_with_password(self) -> None:
        """
        A tunnel to a server with users takes one of them and the password.
        """
        options = ("--proxy", self.proxy, "--proxytunnel", "http://closed/page")
        await self.fetches("--proxy-user", f"alice:{PASSWORD}", *options, name="closed")
        for login in ([], ["--proxy-user", "alice:wrong"], ["--proxy-user", f"bob:{PASSWORD}"]):
            await self.refused(NO_TUNNEL, "407", *login, *options)

    async def test_absolute_with_password(self) -> None:
        """
        Without a tunnel it is the same, and the password, which was for the
        relay, does not reach the server.
        """
        options = ("--proxy", self.proxy, "http://closed/page")
        await self.fetches("--proxy-user", f"alice:{PASSWORD}", *options, name="closed")
        status = ("--output", "/dev/null", "--write-out", "%{http_code}")
        for login in ([], ["--proxy-user", "alice:wrong"]):
            done = await self.curl(*status, *login, *options)
            self.assertEqual((done.code, done.out), (0, "407"), done.err)

    async def test_socks5_with_password(self) -> None:
        """
        SOCKS5 takes them as well, and who gives them in vain is not allowed in.
        """
        options = ("--socks5-hostname", self.relay.clients, "http://closed/page")
        await self.fetches("--proxy-user", f"alice:{PASSWORD}", *options, name="closed")
        for login in ([], ["--proxy-user", "alice:wrong"]):
            await self.refused(NO_SOCKS, "(2)", *login, *options)

    async def test_password_nobody_asks_for(self) -> None:
        """
        Where no password is asked for, one that is given does no harm.
        """
        login = ("--proxy-user", "any:thing")
        for proxy in ("http", "socks5h"):
            where = f"{proxy}://{self.relay.clients}"
            await self.fetches("--proxy", where, *login, "http://web/page")

    async def test_host_with_password(self) -> None:
        """
        By Host they are given as to any other server that asks for them.
        """
        url = f"http://closed.localhost:{self.relay.clients_port}/page"
        await self.fetches("--user", f"alice:{PASSWORD}", url, name="closed.localhost")
        # Only once it was asked.
        await self.fetches(
            "--anyauth", "--user", f"alice:{PASSWORD}", url, name="closed.localhost"
        )
        for login in ([], ["--user", "alice:wrong"]):
            done = await self.curl("--include", *login, url)
            self.assertEqual(done.code, 0, done.err)
            self.assertTrue(done.out.startswith("HTTP/1.1 401 "), done.out)
            self.assertIn('WWW-Authenticate: Basic realm="relaytunnel"', done.out)


GIT_PAGES = """
server {{
    listen 127.0.0.1:{plain};
    listen 127.0.0.1:{tls} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    root {root};
}}
"""

GIT_AGENT = """
[[server]]
id = "code"
target = "tcp:127.0.0.1:{plain}"

[[server]]
id = "safe"
target = "tcp:127.0.0.1:{tls}"
"""

SIZE = 1_000_000


class GitProxyTests(TestCase):
    """
    git, with the relay as its C{http.proxy}.
    """

    skip = missing_programs("git", "nginx")

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.directory = empty_directory(self)
        source, root = self.directory / "source", self.directory / "root"
        self.certificate, key = own_certificate(self.directory, "safe")
        await self.git("init", "--quiet", str(source))
        self.digest = random_file(source / "file", SIZE)
        await self.git("-C", str(source), "add", "file")
        await self.git(
            *("-C", str(source), "-c", "user.name=tester", "-c", "user.email=tester@localhost"),
            *("commit", "--quiet", "--message", "a file"),
        )
        repository = str(root / "repository")
        await self.git("clone", "--quiet", "--bare", str(source), repository)
        await self.git("-C", repository, "update-server-info")
        plain, tls = free_port(), free_port()
        await start_nginx(
            self,
            [plain, tls],
            GIT_PAGES.format(
                plain=plain, tls=tls, certificate=self.certificate, key=key, root=root
            ),
        )
        self.relay = await start_relay(self, self.directory / "relay")
        await publish(self, self.relay, GIT_AGENT.format(plain=plain, tls=tls))

    async def git(self, *words: str) -> None:
        """
        Run git, which must succeed.
        """
        done = await run(
            self,
            *("git", *words),
            environment={
                "GIT_CONFIG_GLOBAL": "/dev/null",
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_TERMINAL_PROMPT": "0",
                # Wins over http.sslCAInfo where it is set already.
                "GIT_SSL_CAINFO": str(self.certificate),
            },
        )
        self.assertEqual(done.code, 0, done.err)

    async def clones(self, url: str, proxy: str) -> None:
        """
        Clone the repository, which must have the file in it.
        """
        clone = self.directory / proxy
        await self.git(
            *("-c", f"http.proxy={proxy}://{self.relay.clients}"),
            *("clone", "--quiet", url, str(clone)),
        )
        self.assertEqual(sha256_of(clone / "file"), self.digest)

    async def test_http(self) -> None:
        """
        A repository is cloned by HTTP, which asks the proxy for each file.
        """
        await self.clones("http://code/repository", "http")

    async def test_https(self) -> None:
        """
        By HTTPS the server's name is that of its certificate, inside a tunnel.
        """
        await self.clones("https://safe/repository", "http")

    async def test_socks5(self) -> None:
        """
        By SOCKS5 with names, both ways.
        """
        await self.clones("http://code/repository", "socks5h")

"""
A browser that comes to the relay: the question which server is wanted, the
choice that is remembered, the relay as a proxy, and how its pages look.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.processes import (
    empty_directory,
    free_port,
    missing_programs,
    run,
    start_relay,
)
from tests.programs.inside import publish, start_nginx

BROWSING = Path(__file__).with_name("browsing.py")

PAGES = """
server {{
    listen 127.0.0.1:{port};
    default_type text/html;
    location / {{ return 200 "<title>$host</title><p>web has $request_uri"; }}
}}
server {{
    listen 127.0.0.1:{other};
    default_type text/html;
    location / {{ return 200 "<title>$host</title><p>other has $request_uri"; }}
}}
"""

SERVER = """
[[server]]
id = "{name}"
target = "tcp:127.0.0.1:{port}"
listed = {listed}
"""

TITLE = "document.title"
TEXT = "document.body.innerText"
NAMES = "[...document.querySelectorAll('li button')].map(each => each.value)"
SCRIPTS = """
document.scripts.length + [...document.querySelectorAll('*')].filter(
  each => each.getAttributeNames().some(name => name.startsWith('on'))
).length
"""
# The window of a telephone becomes wider, and smaller, with what does not fit.
WIDEST = """
Math.ceil(Math.max(
  ...[...document.querySelectorAll('*')].map(each => each.getBoundingClientRect().right)
))
"""

PHONE, DESKTOP = (390, 844), (1280, 800)


async def browse(
    testcase: TestCase, *steps: list[Any], options: tuple[str, ...] = ()
) -> list[Any]:
    """
    Start a browser that nobody has used before, and go these steps with it.

    @param steps: see C{browsing.py}.
    @param options: of Chromium.

    @return: what became of each step that asks.
    """
    directory = empty_directory(testcase)
    script = directory / "steps"
    script.write_text("".join(json.dumps(step) + "\n" for step in steps))
    done = await run(testcase, sys.executable, BROWSING, directory, *options, stdin=script)
    testcase.assertEqual(done.code, 0, done.err)
    results = [json.loads(line) for line in done.out.splitlines()]
    return [result for step, result in zip(steps, results, strict=True) if step[0] == "ask"]


def picture_size(picture: bytes) -> tuple[int, int]:
    """
    @return: width and height of a PNG; zeros if it is of one colour.
    """
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    data, at = b"", 8
    while at < len(picture):
        length, kind = struct.unpack_from(">I4s", picture, at)
        if kind == b"IDAT":
            data += picture[at + 8 : at + 8 + length]
        at += 12 + length
    # However its lines are filtered: a handful of different bytes, which are
    # filters, that one colour, and no difference from it.
    if len(set(zlib.decompress(data))) < 20:
        return 0, 0
    width, height = struct.unpack_from(">II", picture, 16)
    return width, height


class BrowserCase(TestCase):
    """
    Two pages inside, and Chromium outside.
    """

    skip = missing_programs("chromium", "nginx")

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.port, self.other = free_port(), free_port()
        await start_nginx(
            self, [self.port, self.other], PAGES.format(port=self.port, other=self.other)
        )
        self.relay = await start_relay(self, empty_directory(self) / "relay")
        self.url = f"http://{self.relay.clients}"

    async def publish(self, *listed: str) -> None:
        """
        Publish these servers, and C{private} and C{other}, which are not listed.
        """
        tables = [SERVER.format(name=name, port=self.port, listed="true") for name in listed]
        tables.append(SERVER.format(name="private", port=self.port, listed="false"))
        tables.append(SERVER.format(name="other", port=self.other, listed="false"))
        await publish(self, self.relay, "".join(tables))


class QuestionTests(BrowserCase):
    """
    Somebody who types the relay's address into a browser.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        await self.publish("web", "wiki", "a-b.office")

    async def test_listed(self) -> None:
        """
        The page lists the servers whose owners want it, and no others.
        """
        title, names, text = await browse(
            self, ["visit", f"{self.url}/"], ["ask", TITLE], ["ask", NAMES], ["ask", TEXT]
        )
        self.assertEqual(title, "Which server?")
        self.assertEqual(names, ["a-b.office", "web", "wiki"])
        self.assertNotIn("private", text)

    async def test_dumped(self) -> None:
        """
        All of it is in the document as it is sent.
        """
        done = await run(
            self,
            *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu"),
            *(f"--user-data-dir={empty_directory(self)}", "--dump-dom", f"{self.url}/"),
        )
        self.assertEqual(done.code, 0, done.err)
        for name in ("a-b.office", "web", "wiki"):
            self.assertIn(f'<button value="{name}">', done.out)
        self.assertNotIn("private", done.out)

    async def chooses(self, *before: list[Any]) -> None:
        """
        Choose; it must lead to the server, where the visitor wanted to go, and
        be remembered.
        """
        page = "/some/where?x=1&y=%C3%A4"
        said = await browse(
            self,
            *before,
            ["visit", f"{self.url}{page}"],
            ["ask", SCRIPTS],
            ["press", "li [value=web]"],
            ["ask", "location.href"],
            ["ask", TEXT],
            ["visit", f"{self.url}/next"],
            ["ask", TEXT],
        )
        self.assertEqual(said, [0, f"{self.url}{page}", f"web has {page}", "web has /next"])

    async def test_choice(self) -> None:
        """
        Who chooses is led on, and is not asked again.
        """
        await self.chooses()

    async def test_without_scripts(self) -> None:
        """
        There is no script, so nothing is missing in a browser that runs none.
        """
        await self.chooses(["scripts", False])

    async def test_search(self) -> None:
        """
        Who types a whole name may choose a server that is not listed.
        """
        said = await browse(
            self,
            ["visit", f"{self.url}/there"],
            ["type", "[name=q]", "other"],
            ["press", ".search button"],
            ["ask", NAMES],
            ["press", "li [value=other]"],
            ["ask", TEXT],
        )
        self.assertEqual(said, [["other"], "other has /there"])

    async def test_nobody(self) -> None:
        """
        Who chooses a server that is not there is told so, and asked again.
        """
        said = await browse(
            self,
            ["visit", f"{self.url}/.relaytunnel/?server=nobody&to=/there"],
            ["ask", TEXT],
            ["press", "li [value=wiki]"],
            ["ask", TEXT],
        )
        self.assertIn("no server is published as nobody", said[0])
        self.assertEqual(said[1], "web has /there")

    async def test_another_choice(self) -> None:
        """
        Who wants another server may choose anew.
        """
        said = await browse(
            self,
            ["visit", f"{self.url}/.relaytunnel/?server=web"],
            ["press", "li [value=web]"],
            ["ask", TEXT],
            ["visit", f"{self.url}/.relaytunnel/?server=other"],
            ["press", "li [value=other]"],
            ["ask", TEXT],
        )
        self.assertEqual(said, ["web has /", "other has /"])

    async def test_name_of_its_own(self) -> None:
        """
        At C{localhost} the choice leads to the server's own name, and the
        browser keeps nothing for the name that all share.
        """
        port = self.relay.clients_port
        said = await browse(
            self,
            ["visit", f"http://localhost:{port}/there?x=1"],
            ["press", "li [value=web]"],
            ["ask", "location.href"],
            ["ask", TEXT],
            ["visit", f"http://localhost:{port}/"],
            ["ask", TITLE],
        )
        place = f"http://web.localhost:{port}/there?x=1"
        self.assertEqual(said, [place, "web has /there?x=1", "Which server?"])

    async def test_from_another_page(self) -> None:
        """
        A page of another host, also of one below the relay's, chooses nothing.
        """
        port = self.relay.clients_port
        send = """
        (() => {
          const form = document.createElement('form');
          form.method = '%s';
          form.action = '%s/.relaytunnel/?server=other';
          document.body.append(form);
          form.submit();
        })()
        """
        for method in ("post", "get"):
            for url in (self.url, f"http://localhost:{port}"):
                said = await browse(
                    self,
                    ["visit", f"http://web.localhost:{port}/"],
                    ["submit", send % (method, url)],
                    ["ask", TITLE],
                    ["visit", f"{url}/"],
                    ["ask", TITLE],
                )
                self.assertEqual(said, ["Which server?", "Which server?"])

    async def test_by_host(self) -> None:
        """
        By Host nothing is asked; a name that leads nowhere has a page that says
        so.
        """
        port = self.relay.clients_port
        said = await browse(
            self,
            ["visit", f"http://web.localhost:{port}/"],
            ["ask", TEXT],
            ["visit", f"http://nobody.localhost:{port}/"],
            ["ask", TITLE],
        )
        self.assertEqual(said, ["web has /", "There is no such server here"])

    async def test_connected_in_advance(self) -> None:
        """
        A connection that the browser has opened in advance, and on which the
        relay has asked in text because nothing came, does no harm.
        """
        port = self.relay.clients_port
        connect = """
        (async () => {
          const link = document.createElement('link');
          link.rel = 'preconnect';
          link.href = 'http://other.localhost:%d/';
          document.head.append(link);
          // Longer than a client may be silent.
          await new Promise(done => setTimeout(done, 2500));
        })()
        """
        said = await browse(
            self,
            ["visit", f"http://web.localhost:{port}/"],
            ["ask", connect % port],
            ["visit", f"http://other.localhost:{port}/"],
            ["ask", TEXT],
        )
        self.assertEqual(said[1], "other has /")


class ProxyTests(BrowserCase):
    """
    A browser that takes the relay for its proxy.
    """

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        await self.publish("web")

    async def goes_by(self, proxy: str) -> None:
        """
        Visit both servers by their IDs, to and fro.
        """
        said = await browse(
            self,
            *(
                step
                for name in ("web", "other", "web")
                for step in (["visit", f"http://{name}/page"], ["ask", TITLE], ["ask", TEXT])
            ),
            options=(f"--proxy-server={proxy}://{self.relay.clients}",),
        )
        web, other = ["web", "web has /page"], ["other", "other has /page"]
        self.assertEqual(said, [*web, *other, *web])

    async def test_http(self) -> None:
        """
        As an HTTP proxy, the relay leads to each server by its ID.
        """
        await self.goes_by("http")

    async def test_socks5(self) -> None:
        """
        As a SOCKS5 proxy, too: the names are left to it.
        """
        await self.goes_by("socks5")


class LookTests(BrowserCase):
    """
    Pictures of the relay's pages; in the directory C{RELAYTUNNEL_PICTURES}, if
    there is one, they stay for people to look at.
    """

    async def looks(self, name: str, path: str, host: str = "") -> None:
        """
        Take pictures of a page, each of which must show something, and nothing
        that does not fit its width.
        """
        directory = empty_directory(self)
        url = f"http://{host}:{self.relay.clients_port}" if host else self.url
        steps: list[list[Any]] = [["visit", f"{url}{path}"]]
        files = []
        for size in (PHONE, DESKTOP):
            for scheme in ("light", "dark"):
                file = directory / f"{name}-{size[0]}-{scheme}.png"
                steps += [["look", str(file), *size, scheme], ["ask", WIDEST]]
                files.append((file, size))
        widest = await browse(self, *steps)
        kept = os.environ.get("RELAYTUNNEL_PICTURES")
        for (file, size), width in zip(files, widest, strict=True):
            self.assertEqual(picture_size(file.read_bytes()), size)
            self.assertLessEqual(width, size[0], file.name)
            if kept:
                shutil.copy(file, kept)

    async def test_nothing_listed(self) -> None:
        """
        The question without a list.
        """
        await self.publish()
        await self.looks("question-0", "/")

    async def test_three(self) -> None:
        """
        The question with three servers, a search that finds one, one that finds
        none, and the page of an error.
        """
        await self.publish("web", "wiki", "a-server-whose-name-is-long.in-the-office.of-somebody")
        await self.looks("question-3", "/")
        await self.looks("search", "/.relaytunnel/?q=wiki")
        await self.looks("search-nothing", "/.relaytunnel/?q=" + "nothing" * 20)
        await self.looks("error", "/", "nobody.localhost")

    async def test_forty(self) -> None:
        """
        The question with more servers than fit a screen.
        """
        await self.publish(*(f"server-{number:02}.example" for number in range(40)))
        await self.looks("question-40", "/")

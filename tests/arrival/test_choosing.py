"""
Tests for L{relaytunnel.arrival.choosing}: the question in HTTP.
"""

from __future__ import annotations

import json
from email.message import Message
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from hypothesis import example, given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival import Choice
from relaytunnel.arrival.authority import parse_authority
from relaytunnel.arrival.choosing import PATH, Asker, Asking, asking, is_own_page
from relaytunnel.errors import Code, Failing
from tests.arrival.directory import Servers
from tests.arrival.test_answers import BROWSER, parts, tags

quickly = settings(deadline=None, max_examples=100)
anything = st.text(alphabet=st.characters(), max_size=60)
encodable = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)
spiky = st.text(alphabet="<>\"'&/\\:;=%?# \r\n\0\tae\x7f\xa0", max_size=30)

AWAY = Failing(Code.AGENT_AWAY, "the agent that publishes shop is not connected now")

ELSEWHERE = (
    "//evil.example",
    "//evil.example/",
    "///evil.example",
    "/\\evil.example",
    "/\\/evil.example",
    "\\\\evil.example",
    "https://evil.example/",
    "https:evil.example",
    "javascript:alert(1)",
    "evil.example",
    "",
    " /a",
    "/\t/evil.example",
    "/\n/evil.example",
    "/a\r\nSet-Cookie: a=b",
    "/a b",
    "/a\0",
    "/a\x7f",
    "/\xe9",
    "/\u2028",
    "/" + "a" * 2048,
    PATH,
    PATH + "?server=shop",
)
"""Where nobody is sent."""


def path_for(**given: str) -> bytes:
    """
    Write the path of an answer to the question.
    """
    return f"{PATH}?{urlencode(given)}".encode()


class AskingTests(SynchronousTestCase):
    """
    What a path says about the question.
    """

    def test_other_path(self) -> None:
        """
        A path of the server's is where the client is after.
        """
        self.assertEqual(asking(b"/a/b?c=d&server=web"), Asking(to="/a/b?c=d&server=web"))

    def test_own_path(self) -> None:
        """
        The relay's own path asks for the question itself.
        """
        self.assertEqual(asking(PATH.encode()), Asking(direct=True))

    def test_own_path_exactly(self) -> None:
        """
        A path that only begins like it does not, and is no place to go to.
        """
        for path in (b"/.relaytunnel", b"/.relaytunnel/a", b"/.relaytunnel/a?server=web"):
            self.assertFalse(asking(path).direct)
            self.assertIsNone(asking(path).chosen)
        self.assertEqual(asking(b"/.relaytunnel/a").to, "/")

    def test_everything(self) -> None:
        """
        It may say what is searched for, what is chosen, and where to go then.
        """
        self.assertEqual(
            asking(path_for(q=" web  ", server="Web.", to="/a?b=c&d")),
            Asking(to="/a?b=c&d", query="web", chosen="web", direct=True),
        )

    def test_no_name(self) -> None:
        """
        What cannot be a name is not chosen.
        """
        for server in ("", " ", "a b", "../a", "a/b", "é", "a\r\nb", "a;b", "7", "a" * 300):
            self.assertIsNone(asking(path_for(server=server)).chosen)

    def test_elsewhere(self) -> None:
        """
        Nobody is sent to another host, or back to the question.
        """
        for to in ELSEWHERE:
            self.assertEqual(asking(path_for(to=to)).to, "/", to)

    def test_long_query(self) -> None:
        """
        A long search is cut off, and what is too much is not read at all.
        """
        self.assertEqual(asking(path_for(q="a" * 1000)).query, "a" * 255)
        many = "&".join(["x=y"] * 20)
        self.assertEqual(asking(f"{PATH}?server=web&{many}".encode()), Asking(direct=True))

    def test_long_path(self) -> None:
        """
        The longest path that is gone to can be sent along, however it has to be
        written, and the choice behind it is read.
        """
        path = "/" + "%20" * 682 + "!"
        self.assertEqual(len(path), 2048)
        self.assertEqual(asking(path.encode()).to, path)
        asked = asking(path_for(to=path, q="x" * 255, server="web"))
        self.assertEqual((asked.to, asked.chosen), (path, "web"))

    def test_absolute_and_asterisk(self) -> None:
        """
        What is no path leads to the beginning.
        """
        self.assertEqual(asking(b"*"), Asking())

    @given(st.binary(max_size=80))
    @example(b"/.relaytunnel/?server=%ff&to=%00&q=%c3%28")
    @quickly
    def test_any_path(self, path: bytes) -> None:
        """
        Whatever the path is, it can be answered.
        """
        for each in (path, PATH.encode() + b"?" + path):
            for posts in (False, True):
                asker = Asker(accept=BROWSER, posts=posts, same_origin=posts)
                answer = asking(each).answer(Servers("web"), asker)
                self.assertRegex(parts(answer)[0], r"^HTTP/1\.1 (200|300|303) ")


class AnswerCase(SynchronousTestCase):
    """
    A relay with two servers that are listed, and one that is not.
    """

    def setUp(self) -> None:
        self.directory = Servers(
            Choice("shop", ("http://shop.relay.example", "tcp:relay.example:20000")),
            "web",
            unlisted=("hidden",),
            refused={"gone": AWAY},
        )

    def answer(
        self,
        path: bytes = b"/",
        remembered: str | None = None,
        accept: str | None = None,
        head_only: bool = False,
        **more: Any,
    ) -> tuple[str, Message, bytes]:
        """
        Answer a request for this path.
        """
        asker = Asker(token=remembered, accept=accept, head_only=head_only, **more)
        return parts(asking(path).answer(self.directory, asker))

    def chooses(self, server: str, **more: Any) -> tuple[str, Message, bytes]:
        """
        Choose as the page does it.
        """
        values = {"posts": True, "same_origin": True, "accept": BROWSER, **more}
        to = {"to": values.pop("to")} if "to" in values else {}
        return self.answer(path_for(server=server, **to), **values)

    def page(self, path: bytes = b"/", remembered: str | None = None) -> str:
        """
        The page that a browser gets.
        """
        return self.answer(path, remembered, BROWSER)[2].decode()


class QuestionTests(AnswerCase):
    """
    The question.
    """

    def test_status(self) -> None:
        """
        Who is after something else has several choices; who asks for the
        question gets it.
        """
        self.assertEqual(self.answer()[0], "HTTP/1.1 300 Multiple Choices")
        self.assertEqual(self.answer(PATH.encode())[0], "HTTP/1.1 200 OK")

    def test_fields(self) -> None:
        """
        No cache keeps the question, which has a code of its own.
        """
        _, fields, body = self.answer(b"/a")
        self.assertEqual(fields["Cache-Control"], "no-store")
        self.assertEqual(fields["Connection"], "close")
        self.assertEqual(fields["X-Relaytunnel-Code"], "which-server")
        self.assertEqual(int(fields["Content-Length"]), len(body))
        self.assertNotIn("Set-Cookie", fields)
        self.assertNotIn("Location", fields)

    def test_text(self) -> None:
        """
        A program reads what to do, and a line for each server.
        """
        lines = self.answer()[2].decode().splitlines()
        self.assertTrue(lines[0].startswith("which-server: "), lines)
        self.assertEqual(
            lines[1:], [" shop http://shop.relay.example tcp:relay.example:20000", " web"]
        )

    def test_json(self) -> None:
        """
        A program that asks for JSON gets each server with its addresses, and
        the path that chooses it.
        """
        _, fields, body = self.answer(accept="application/json")
        self.assertEqual(fields.get_content_type(), "application/json")
        told = json.loads(body)
        self.assertEqual((told["code"], told["reason"] != ""), ("which-server", True))
        shop, web = told["servers"]
        self.assertEqual(
            web, {"id": "web", "addresses": [], "choose": "/.relaytunnel/?server=web"}
        )
        self.assertEqual(shop["addresses"][1], "tcp:relay.example:20000")
        self.assertEqual(asking(shop["choose"].encode()).chosen, "shop")

    def test_page(self) -> None:
        """
        A browser gets a page with a button for each, and remembers where it
        was going.
        """
        page = self.page(b"/a?b=c&d")
        for name in ("shop", "web"):
            pick = f"{PATH}?to=%2Fa%3Fb%3Dc%26d&amp;server={name}"
            self.assertIn(f'<form action="{pick}" method="post"><button value="{name}">', page)
        self.assertNotIn('value="hidden"', page)
        self.assertIn('name="to" value="/a?b=c&amp;d"', page)
        self.assertIn(f'action="{PATH}"', page)

    def test_long_way(self) -> None:
        """
        However long the path is that all of them lead to, the page is not.
        """
        self.directory = Servers(*(f"server-{number:03}" for number in range(200)))
        for path in ("/" + "a" * 2047, "/" + "%" * 2047):
            page = self.page(path.encode())
            self.assertLess(len(page), 400_000)
            self.assertGreater(page.count("<li>"), 20)

    def test_head(self) -> None:
        """
        The answer to HEAD has the same fields and no body.
        """
        for accept in (None, BROWSER, "application/json"):
            whole, head = self.answer(accept=accept), self.answer(accept=accept, head_only=True)
            self.assertEqual(
                (head[0], head[1].items(), head[2]), (whole[0], whole[1].items(), b"")
            )

    def test_nothing_listed(self) -> None:
        """
        Where nothing is listed every form says as much.
        """
        self.directory = Servers(unlisted=("hidden",))
        self.assertIn("No server is listed here", self.page())
        self.assertEqual(json.loads(self.answer(accept="application/json")[2])["servers"], [])
        self.assertEqual(self.answer()[2].count(b"\n"), 1)

    def test_at_most(self) -> None:
        """
        Two hundred are listed at most, in each form.
        """
        self.directory = Servers(*(f"server-{number:03}" for number in range(300)))
        self.assertEqual(self.page().count("<li>"), 200)
        self.assertEqual(self.answer()[2].count(b"\n"), 201)
        told = json.loads(self.answer(accept="application/json")[2])
        self.assertEqual(told["servers"][199]["id"], "server-199")
        self.assertEqual(len(told["servers"]), 200)


class SearchTests(AnswerCase):
    """
    The search.
    """

    def found(self, query: str) -> list[str]:
        """
        What is found.
        """
        body = self.answer(path_for(q=query), accept="application/json")[2]
        return [server["id"] for server in json.loads(body)["servers"]]

    def test_part(self) -> None:
        """
        A part of the name is enough, in any case of letters, and all words
        have to be in it.
        """
        self.directory = Servers("shop", "web", "web-shop")
        self.assertEqual(self.found("SH"), ["shop", "web-shop"])
        self.assertEqual(self.found("shop we"), ["web-shop"])
        self.assertEqual(self.found(" "), ["shop", "web", "web-shop"])

    def test_nothing(self) -> None:
        """
        What nobody is called is said to be so.
        """
        self.assertEqual(self.found("mail"), [])
        self.assertIn("No server called <b>mail</b> is listed here", self.page(path_for(q="mail")))

    def test_unlisted(self) -> None:
        """
        One that is not listed is found by its whole name alone, and first.
        """
        self.assertEqual(self.found("hidden"), ["hidden"])
        self.assertEqual(self.found("Hidden."), ["hidden"])
        for part in ("hidde", "hidden x", "*", "hidden/"):
            self.assertEqual(self.found(part), [])
        self.directory = Servers("web-shop", unlisted=("web",))
        self.assertEqual(self.found("web"), ["web", "web-shop"])

    def test_listed_by_its_name(self) -> None:
        """
        One that is listed is found once.
        """
        self.assertEqual(self.found("web"), ["web"])

    def test_refused(self) -> None:
        """
        One that this client cannot have is not found, nor told of.
        """
        self.assertEqual(self.found("gone"), [])
        self.assertNotIn("not connected", self.page(path_for(q="gone")))

    def test_unlisted_within_the_most(self) -> None:
        """
        However many are listed, the whole name finds its server.
        """
        names = [f"web-{number:03}" for number in range(300)]
        self.directory = Servers(*names, unlisted=("web",))
        self.assertEqual(self.found("web")[:2], ["web", "web-000"])
        self.assertEqual(len(self.found("web")), 200)

    def test_search_stays(self) -> None:
        """
        What was searched for, and where to go then, stay in the page.
        """
        page = self.page(path_for(q='a"b', to="/c"))
        self.assertIn('name="q" value="a&quot;b"', page)
        self.assertEqual(page.count('name="to" value="/c"'), 1)


class ChoiceTests(AnswerCase):
    """
    The answer.
    """

    def test_taken(self) -> None:
        """
        The choice is kept in a cookie, and the browser goes where it wanted.
        """
        line, fields, body = self.chooses("web", to="/a?b")
        self.assertEqual((line, body), ("HTTP/1.1 303 See Other", b""))
        self.assertEqual(fields["Location"], "/a?b")
        self.assertEqual(fields["Content-Length"], "0")
        self.assertTrue(fields["Set-Cookie"].startswith("relaytunnel=signed.web;"))

    def test_unlisted(self) -> None:
        """
        So is one that is not listed.
        """
        fields = self.chooses("hidden")[1]
        self.assertEqual(fields["Location"], "/")
        self.assertTrue(fields["Set-Cookie"].startswith("relaytunnel=signed.hidden;"))

    def test_name_of_its_own(self) -> None:
        """
        Where each server has a name below the relay's, the choice leads there,
        by the same port and scheme, and no cookie is set.
        """
        self.directory = Servers("web", names_below=("relay.example",))
        for host, place in (
            (b"relay.example", "//web.relay.example/a?b"),
            (b"relay.example:8000", "//web.relay.example:8000/a?b"),
        ):
            line, fields, _ = self.chooses("web", to="/a?b", host=parse_authority(host))
            self.assertEqual(line, "HTTP/1.1 303 See Other")
            self.assertEqual(fields["Location"], place)
            self.assertNotIn("Set-Cookie", fields)
        for elsewhere in (b"192.0.2.1:8000", b"other.example"):
            fields = self.chooses("web", to="/a", host=parse_authority(elsewhere))[1]
            self.assertEqual(fields["Location"], "/a")
            self.assertIn("Set-Cookie", fields)

    def test_name_too_long(self) -> None:
        """
        A name that is too long for either is not taken; the page says why.
        """
        name = ".".join(["a" * 49] * 5)
        self.directory = Servers(name, names_below=("relay.example",))
        line, fields, body = self.chooses(name, host=parse_authority(b"relay.example"))
        self.assertEqual(line, "HTTP/1.1 200 OK")
        self.assertNotIn("Set-Cookie", fields)
        self.assertIn(b"too long", body)

    def test_get(self) -> None:
        """
        To follow a link chooses nothing: the page shows the one that is meant.
        """
        line, fields, body = self.answer(path_for(server="hidden", to="/a"), accept=BROWSER)
        self.assertEqual(line, "HTTP/1.1 200 OK")
        self.assertNotIn("Set-Cookie", fields)
        self.assertNotIn("Location", fields)
        self.assertEqual(body.count(b"<li>"), 1)
        self.assertIn(b'<button value="hidden">', body)

    def test_from_another_page(self) -> None:
        """
        A choice that another page has sent is not taken, nor is one with a
        body; the page says why, and shows the one that is meant.
        """
        for how, why in (
            ({"same_origin": False}, b"made on another page"),
            ({"has_body": True}, b"no body"),
        ):
            line, fields, body = self.chooses("web", **how)
            self.assertEqual(line, "HTTP/1.1 403 Forbidden")
            self.assertNotIn("Set-Cookie", fields)
            self.assertIn(why, body)
            self.assertIn(b'<button value="web">', body)

    def test_not_taken(self) -> None:
        """
        A choice that cannot be had is not kept; the page says why.
        """
        line, fields, body = self.chooses("gone", to="/a")
        self.assertEqual(line, "HTTP/1.1 200 OK")
        self.assertNotIn("Set-Cookie", fields)
        self.assertNotIn("Location", fields)
        self.assertIn(AWAY.reason, tags(body).text)
        self.assertIn(b'name="to" value="/a"', body)
        self.assertIn(AWAY.reason.encode(), self.answer(path_for(server="gone"))[2])
        told = json.loads(self.answer(path_for(server="gone"), accept="application/json")[2])
        self.assertEqual(told["reason"], AWAY.reason)

    def test_never_elsewhere(self) -> None:
        """
        Whatever is asked for, the browser stays at this host.
        """
        for to in ELSEWHERE:
            self.assertEqual(self.chooses("web", to=to)[1]["Location"], "/")

    @given(anything | spiky | st.sampled_from(ELSEWHERE), anything | spiky)
    @quickly
    def test_location(self, to: str, more: str) -> None:
        """
        Whatever is asked for, it is one field, and a path of this host.
        """
        asked = f"{PATH}?server=web&to={quote(to, errors='replace')}{more}"
        line, fields, _ = parts(
            asking(asked.encode("utf-8", "replace")).answer(
                Servers("web"), Asker(posts=True, same_origin=True)
            )
        )
        if line == "HTTP/1.1 303 See Other":
            self.assertRegex(fields["Location"], r"\A/(?![/\\])[!-~]*\Z")
            self.assertEqual(len(fields.get_all("Set-Cookie", [])), 1)

    def test_remembered_gone(self) -> None:
        """
        What was chosen before and cannot be had is forgotten, and said why.
        """
        line, fields, body = self.answer(b"/a", remembered="signed.gone", accept=BROWSER)
        self.assertEqual(line, "HTTP/1.1 300 Multiple Choices")
        self.assertIn("Max-Age=0", fields["Set-Cookie"])
        self.assertIn(AWAY.reason, tags(body).text)

    def test_remembered_nonsense(self) -> None:
        """
        A cookie that somebody made up does no harm, and is forgotten.
        """
        for made_up in ("", "<script>", 'a"b', "\xff\xff", "a" * 4000):
            line, fields, body = self.answer(b"/", remembered=made_up, accept=BROWSER)
            self.assertEqual(line, "HTTP/1.1 300 Multiple Choices")
            self.assertIn("Max-Age=0", fields["Set-Cookie"])
            self.assertNotIn(b"<script", body)
            self.assertIn(b"choose once more", body)


class OwnPageTests(SynchronousTestCase):
    """
    Who has sent a request.
    """

    def own(
        self, origin: bytes | None, site: bytes | None = None, host: bytes = b"relay.example:8000"
    ) -> bool:
        return is_own_page(parse_authority(host), origin, site)

    def test_origin(self) -> None:
        """
        This page has the origin that the request goes to, and no other has.
        """
        self.assertTrue(self.own(b"http://relay.example:8000"))
        for origin in (
            None,
            b"",
            b"null",
            b"http://relay.example",
            b"http://relay.example:8001",
            b"http://evil.relay.example:8000",
            b"http://relay.example.evil:8000",
            b"http://relay.example:8000@evil.example",
            b"http://relay.example:8000/",
            b"file://relay.example:8000",
            b"relay.example:8000",
        ):
            self.assertFalse(self.own(origin), origin)

    def test_default_port(self) -> None:
        """
        The port of the scheme is the same as none.
        """
        for host, origin in (
            (b"relay.example", b"http://relay.example"),
            (b"relay.example:80", b"http://relay.example"),
            (b"relay.example", b"https://relay.example"),
            (b"[::1]:80", b"http://[0::1]"),
        ):
            self.assertTrue(self.own(origin, host=host))
        self.assertFalse(self.own(b"https://relay.example", host=b"relay.example:80"))

    def test_site(self) -> None:
        """
        What a browser says of the site counts more: pages cannot alter it.
        """
        self.assertTrue(self.own(None, b"same-origin"))
        self.assertTrue(self.own(b"null", b"same-origin"))
        for site in (b"same-site", b"cross-site", b"none", b"", b"Same-Origin"):
            self.assertFalse(self.own(b"http://relay.example:8000", site))

    def test_nobody_named(self) -> None:
        """
        Without a host there is no origin to compare with.
        """
        self.assertFalse(is_own_page(None, b"http://relay.example", None))
        self.assertTrue(is_own_page(None, None, b"same-origin"))


class HarmlessTests(SynchronousTestCase):
    """
    What comes from outside stays text.
    """

    @given(anything | spiky, anything | spiky, anything | spiky, anything | spiky)
    @example("<script>", '"><script>', "/\"'><script>", "<script>")
    @quickly
    def test_adds_no_tag(self, query: str, to: str, server: str, reason: str) -> None:
        """
        Whatever is searched for, chosen, gone to and said, the tags of the page
        stay those that they would be.
        """
        given_values = {"q": "x" + query, "to": to, "server": server}
        path = f"{PATH}?{urlencode(given_values, errors='replace')}".encode()
        servers = Servers(refused={"bad": Failing(Code.BUSY, reason)})
        asker = Asker(token="signed.bad", accept=BROWSER)
        usual = asking(path_for(q="xyz", to="/", server="a b")).answer(servers, asker)
        answer = asking(path).answer(servers, asker)
        line, fields, body = parts(answer)
        self.assertEqual(line, "HTTP/1.1 200 OK")
        self.assertEqual(fields.keys(), parts(usual)[1].keys())
        self.assertEqual(
            [tag for tag in tags(body).tags if tag != "p"],
            [tag for tag in tags(parts(usual)[2]).tags if tag != "p"],
        )

    @given(encodable | spiky, encodable | spiky)
    @quickly
    def test_names_and_addresses(self, name: str, address: str) -> None:
        """
        Names and addresses of servers add no tag, no line and no key.
        """
        servers = Servers(Choice(name, ("http://" + address.replace(" ", ""),)))
        page = parts(asking(b"/").answer(servers, Asker(accept=BROWSER)))[2]
        usual = parts(
            asking(b"/").answer(Servers(Choice("a", ("http://b",))), Asker(accept=BROWSER))
        )[2]
        self.assertEqual(tags(page).tags, tags(usual).tags)
        told = json.loads(parts(asking(b"/").answer(servers, Asker(accept="application/json")))[2])
        choose = told["servers"][0]["choose"]
        self.assertTrue(choose.isascii())
        self.assertEqual(
            parse_qs(choose.partition("?")[2], keep_blank_values=True, errors="replace").keys(),
            {"server"},
        )

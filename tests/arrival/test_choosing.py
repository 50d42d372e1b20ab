"""
Tests for L{relaytunnel.arrival.choosing}: the question in HTTP.
"""

from __future__ import annotations

import json
from email.message import Message
from urllib.parse import parse_qs, quote, urlencode

from hypothesis import example, given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival import Choice
from relaytunnel.arrival.choosing import PATH, Asking, asking
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
            answer = asking(each).answer(Servers("web"), None, BROWSER, False)
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
    ) -> tuple[str, Message, bytes]:
        """
        Answer a request for this path.
        """
        return parts(asking(path).answer(self.directory, remembered, accept, head_only))

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
        self.assertIn('<button name="server" value="shop">', page)
        self.assertIn('<button name="server" value="web">', page)
        self.assertNotIn('value="hidden"', page)
        self.assertIn('name="to" value="/a?b=c&amp;d"', page)
        self.assertIn(f'action="{PATH}"', page)

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
        line, fields, body = self.answer(path_for(server="web", to="/a?b"), accept=BROWSER)
        self.assertEqual((line, body), ("HTTP/1.1 303 See Other", b""))
        self.assertEqual(fields["Location"], "/a?b")
        self.assertEqual(fields["Content-Length"], "0")
        self.assertTrue(fields["Set-Cookie"].startswith("relaytunnel=web;"))

    def test_unlisted(self) -> None:
        """
        So is one that is not listed.
        """
        fields = self.answer(path_for(server="hidden"))[1]
        self.assertEqual(fields["Location"], "/")
        self.assertTrue(fields["Set-Cookie"].startswith("relaytunnel=hidden;"))

    def test_not_taken(self) -> None:
        """
        A choice that cannot be had is not kept; the page says why.
        """
        line, fields, body = self.answer(path_for(server="gone", to="/a"), accept=BROWSER)
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
            self.assertEqual(self.answer(path_for(server="web", to=to))[1]["Location"], "/")

    @given(anything | spiky | st.sampled_from(ELSEWHERE), anything | spiky)
    @quickly
    def test_location(self, to: str, more: str) -> None:
        """
        Whatever is asked for, it is one field, and a path of this host.
        """
        asked = f"{PATH}?server=web&to={quote(to, errors='replace')}{more}"
        line, fields, _ = parts(
            asking(asked.encode("utf-8", "replace")).answer(Servers("web"), None, None, False)
        )
        if line == "HTTP/1.1 303 See Other":
            self.assertRegex(fields["Location"], r"\A/(?![/\\])[!-~]*\Z")
            self.assertEqual(len(fields.get_all("Set-Cookie", [])), 1)

    def test_remembered_gone(self) -> None:
        """
        What was chosen before and cannot be had is forgotten, and said why.
        """
        line, fields, body = self.answer(b"/a", remembered="gone", accept=BROWSER)
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
        usual = asking(path_for(q="xyz", to="/", server="a b")).answer(
            servers, "bad", BROWSER, False
        )
        answer = asking(path).answer(servers, "bad", BROWSER, False)
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
        page = parts(asking(b"/").answer(servers, None, BROWSER, False))[2]
        usual = parts(
            asking(b"/").answer(Servers(Choice("a", ("http://b",))), None, BROWSER, False)
        )[2]
        self.assertEqual(tags(page).tags, tags(usual).tags)
        told = json.loads(parts(asking(b"/").answer(servers, None, "application/json", False))[2])
        choose = told["servers"][0]["choose"]
        self.assertTrue(choose.isascii())
        self.assertEqual(
            parse_qs(choose.partition("?")[2], keep_blank_values=True, errors="replace").keys(),
            {"server"},
        )

"""
Tests for L{relaytunnel.arrival.page}.
"""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival import Choice, http_answer
from relaytunnel.arrival.page import question_page
from relaytunnel.errors import Code, Failing
from tests.arrival.test_answers import AWAY, BROWSER, parts, tags

quickly = settings(deadline=None, max_examples=100)
anything = st.text(alphabet=st.characters(), max_size=300)
encodable = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)
spiky = st.text(alphabet="<>\"'&/\\=; {}0abc", max_size=30)

# Those that have no end of their own (HTML, 13.1.2).
_VOID = {"meta", "input", "br", "hr", "img", "link"}


class Structure(HTMLParser):
    """
    Reads a page, and sees that what begins in it also ends.

    @ivar seen: all tags with their attributes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """
        Something begins.
        """
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        self.seen.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """
        Something ends, and it is what began last.
        """
        assert self._open, f"</{tag}> ends nothing"
        began = self._open.pop()
        assert began == tag, f"</{tag}> ends <{began}>"

    def close(self) -> None:
        """
        The page is over, and nothing in it is open any more.
        """
        super().close()
        assert not self._open, f"{self._open} never end"


def structure(page: str) -> Structure:
    """
    Read a page.
    """
    reader = Structure()
    reader.feed(page)
    reader.close()
    return reader


class ErrorPageTests(SynchronousTestCase):
    """
    The page that says why a server cannot be reached.
    """

    def page(self, reason: str, code: Code = Code.AGENT_AWAY) -> bytes:
        """
        Make a page.
        """
        return parts(http_answer(Failing(code, reason), BROWSER, False))[2]

    def test_says_why(self) -> None:
        """
        The page has the reason, the status and the code on it.
        """
        text = tags(self.page("the agent of web is not connected")).text
        self.assertIn("the agent of web is not connected", text)
        self.assertIn("503 Service Unavailable", text)
        self.assertIn("agent-away", text)

    def test_stands_by_itself(self) -> None:
        """
        The page runs nothing and fetches nothing, and forbids both.
        """
        for code in Code:
            page = self.page("why", code)
            self.assertFalse({"script", "link", "img", "iframe"} & set(tags(page).tags))
            self.assertNotIn(b"url(", page)
        fields = parts(http_answer(AWAY, BROWSER, False))[1]
        self.assertIn("default-src 'none'", fields["Content-Security-Policy"])

    def test_small_and_dark(self) -> None:
        """
        The page fits a telephone and the night.
        """
        page = self.page("why")
        self.assertIn(b"width=device-width", page)
        self.assertIn(b"prefers-color-scheme: dark", page)

    def test_script_in_the_reason(self) -> None:
        """
        A script in the reason is shown, not run.
        """
        reason = "<script>alert('x')</script>\"&{0}"
        read = tags(self.page(reason))
        self.assertNotIn("script", read.tags)
        self.assertIn(reason, read.text)

    @given(anything)
    @quickly
    def test_reason_adds_no_tag(self, reason: str) -> None:
        """
        Whatever the reason is, the tags of the page stay the same.
        """
        self.assertEqual(tags(self.page(reason)).tags, tags(self.page("why")).tags)

    def test_well_formed(self) -> None:
        """
        Whatever the code is, what begins in the page ends in it.
        """
        for code in Code:
            seen = structure(self.page("why", code).decode()).seen
            self.assertEqual([tag for tag, _ in seen].count("h1"), 1)


class QuestionPageTests(SynchronousTestCase):
    """
    The page that asks which server is wanted.
    """

    def page(
        self,
        *choices: Choice,
        action: str = "/ask",
        query: str = "",
        to: str = "/",
        why: str = "",
    ) -> str:
        """
        Write the page.
        """
        return question_page(choices, action, f"{action}?server=", query, to, "which-server", why)

    def pages(self) -> list[str]:
        """
        The page in each of its forms.
        """
        web = Choice("web", ("http://web.relay.example", "tcp:relay.example:20000"))
        return [
            self.page(),
            self.page(query="mail"),
            self.page(web, Choice("shop")),
            self.page(web, query="w", why="the agent of shop is not connected"),
        ]

    def test_well_formed(self) -> None:
        """
        What begins in it ends in it; it has a language, a title and a headline.
        """
        for page in self.pages():
            self.assertTrue(page.startswith("<!DOCTYPE html>\n<html lang="))
            names = [tag for tag, _ in structure(page).seen]
            for tag in ("html", "head", "title", "body", "main", "h1"):
                self.assertEqual(names.count(tag), 1, tag)

    def test_stands_by_itself(self) -> None:
        """
        It runs nothing and fetches nothing.
        """
        for page in self.pages():
            for tag, attributes in structure(page).seen:
                self.assertNotIn(tag, ("script", "link", "img", "iframe", "object", "base"))
                for name in attributes:
                    self.assertFalse(name.startswith("on"), name)
                    self.assertNotIn(name, ("src", "href", "style"))
            self.assertNotIn("url(", page)
            self.assertNotIn("@import", page)

    def test_small_and_dark(self) -> None:
        """
        It fits a telephone and the night.
        """
        for page in self.pages():
            metas = [attributes for tag, attributes in structure(page).seen if tag == "meta"]
            self.assertIn(
                {"name": "viewport", "content": "width=device-width, initial-scale=1"}, metas
            )
            self.assertIn({"charset": "utf-8"}, metas)
            self.assertIn("prefers-color-scheme: dark", page)

    def test_labels(self) -> None:
        """
        Everything that can be filled in has a label for those who do not see
        it, and every button a text.
        """
        for page in self.pages():
            inputs = [attributes for tag, attributes in structure(page).seen if tag == "input"]
            shown = [each for each in inputs if each.get("type") != "hidden"]
            self.assertEqual(len(shown), 1)
            self.assertTrue(shown[0].get("aria-label"))
            self.assertNotRegex(page, r"<button[^>]*>\s*</button>")

    def test_forms(self) -> None:
        """
        The search asks the relay's own path, by GET, and knows where to go
        then; each server has a form that is sent by POST, with nothing in it.
        """
        page = self.page(Choice("web"), Choice("a b&c"))
        seen = structure(page).seen
        forms = [attributes for tag, attributes in seen if tag == "form"]
        self.assertEqual(
            [(form["method"], form["action"]) for form in forms],
            [("get", "/ask"), ("post", "/ask?server=web"), ("post", "/ask?server=a%20b%26c")],
        )
        named = [
            each["name"] for tag, each in seen if tag in ("input", "button") and "name" in each
        ]
        self.assertEqual(named, ["q", "to"])

    def test_choices(self) -> None:
        """
        Each server is a button with its name and its first address.
        """
        page = self.page(Choice("web", ("http://web.example", "tcp:x:1")), Choice("shop"))
        buttons = [
            attributes["value"]
            for tag, attributes in structure(page).seen
            if tag == "button" and "value" in attributes
        ]
        self.assertEqual(buttons, ["web", "shop"])
        self.assertIn("<b>web</b><span>http://web.example</span>", page)
        self.assertNotIn("tcp:x:1", page)
        self.assertIn("<b>shop</b></button>", page)

    def test_nothing_to_choose(self) -> None:
        """
        Where there is nothing, the page says what can be done; what was
        searched for is still there.
        """
        self.assertIn("type the name of yours", self.page())
        page = self.page(query="mail")
        self.assertIn("<b>mail</b>", page)
        self.assertIn('name="q" value="mail"', page)

    def test_why(self) -> None:
        """
        Why another one cannot be had is said, if there is anything to say.
        """
        self.assertIn('<p class="status">it is away</p>', self.page(why="it is away"))
        self.assertNotIn('class="status"', self.page())

    @given(encodable | spiky, encodable | spiky, encodable | spiky, encodable | spiky)
    @quickly
    def test_escaped(self, name: str, query: str, to: str, why: str) -> None:
        """
        Whatever is put in, it comes out as the same text, and adds no tag.
        """
        address = "http://" + why.replace(" ", "")
        page = self.page(Choice(name, (address,)), query=query, to=to, why="!" + why)
        usual = self.page(Choice("a", ("http://b",)), query="c", to="/", why="!")
        found, expected = structure(page).seen, structure(usual).seen
        self.assertEqual(
            [(tag, attributes.keys()) for tag, attributes in found],
            [(tag, attributes.keys()) for tag, attributes in expected],
        )
        values = {each.get("name"): each.get("value") for tag, each in found if tag == "input"}
        self.assertEqual((values["q"], values["to"]), (query, to))
        buttons = [each["value"] for tag, each in found if tag == "button" and "value" in each]
        self.assertEqual(buttons, [name])

    def test_braces(self) -> None:
        """
        Braces are text as well.
        """
        page = self.page(Choice("{name}", ("http://{0}",)), query="{", to="/{to}", why="{}")
        for text in (
            "<b>{name}</b><span>http://{0}</span>",
            'value="{"',
            'value="/{to}"',
            ">{}</p>",
        ):
            self.assertIn(text, page)

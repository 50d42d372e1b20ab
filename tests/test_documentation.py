"""
The documentation says what the code does.

Whatever has a name that people type or that goes over the wire is looked for
in the pages of C{doc}; the examples there are read as the programs would read
them.  Whether the pages can be built is a matter of C{tox run -e docs}.
"""

from __future__ import annotations

import contextlib
import io
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_type_hints
from xml.etree import ElementTree

import msgspec

from twisted.python import usage
from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.arrival.answers import http_answer
from relaytunnel.channel.tls import CONTROL, DATA
from relaytunnel.cli import main
from relaytunnel.config import (
    AgentConfig,
    FileAccount,
    Limits,
    RelayConfig,
    ServerConfig,
    load_text,
)
from relaytunnel.config.limits import LIMIT_KEYS
from relaytunnel.errors import Code, Failing
from relaytunnel.tap import agent, relay
from relaytunnel.wire.control import MAX_BODY, MAX_BODY_UNAUTHENTICATED
from relaytunnel.wire.data import MAX_PAYLOAD, PLAIN_MAGIC, PLAIN_PREAMBLE_BYTES, Kind
from relaytunnel.wire.messages import PROTOCOL_VERSION, Message

ROOT = Path(__file__).resolve().parent.parent
DOC = ROOT / "doc"

_TOML = re.compile(r"^\.\. code-block:: toml\n\n((?:   .*\n|\n)+)", re.MULTILINE)
_ROW = re.compile(r"^   \* -(.*(?:\n     .*)*)", re.MULTILINE)
_LITERAL = re.compile(r"``([^`]+)``")
_UNDERLINES = "=-~^"
"""Below titles, the highest first."""
_SVG = "{http://www.w3.org/2000/svg}"


def page(name: str) -> str:
    """
    @return: the source of a page.
    """
    return (DOC / f"{name}.rst").read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """
    @return: what stands below a title, up to the next one that is not below it.
    """
    lines = text.split("\n")
    start = next(
        at
        for at, line in enumerate(lines)
        if line.strip("`") == title and re.fullmatch(r"([=\-~^])\1*", lines[at + 1])
    )
    as_high = _UNDERLINES[: _UNDERLINES.index(lines[start + 1][0]) + 1]
    underline = re.compile(f"[{re.escape(as_high)}]{{3,}}")
    for end in range(start + 2, len(lines)):
        if underline.fullmatch(lines[end]):
            return "\n".join(lines[start + 2 : end - 1])
    return "\n".join(lines[start + 2 :])


def rows(text: str) -> Iterator[list[str]]:
    """
    Yield the rows of the list-tables in a text, each as its cells.
    """
    for row in _ROW.findall(text):
        yield [
            " ".join(cell.split())
            for cell in re.split(r"\n     -(?= |$)", row, flags=re.MULTILINE)
        ]


def literals(text: str) -> set[str]:
    """
    @return: all that is set as code.
    """
    return set(_LITERAL.findall(text))


def printed(*arguments: str) -> str:
    """
    @return: what the command prints with these arguments.
    """
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main(arguments)
    return out.getvalue()


class ConfigurationTests(SynchronousTestCase):
    """
    The configuration reference.
    """

    def setUp(self) -> None:
        self.page = page("configuration")

    def test_limits(self) -> None:
        """
        Every limit stands there with its default and its bounds, and no other
        does.
        """
        hints = get_type_hints(Limits, include_extras=True)
        expected = {}
        for key, name in LIMIT_KEYS.items():
            (meta,) = hints[name].__metadata__
            default = getattr(Limits(), name)
            expected[f"``{key}``"] = [f"{default:.9g}", f"{meta.ge:.9g} to {meta.le:.9g}"]
        found = {
            row[0]: row[1:3]
            for row in rows(section(self.page, "Limits"))
            if row[0].startswith("``")
        }
        self.assertEqual(found, expected)

    def _keys(self, title: str, *kinds: type[msgspec.Struct]) -> None:
        tables = {"limits", "accounts", "servers"}
        expected = [
            field.encode_name
            for kind in kinds
            for field in msgspec.structs.fields(kind)
            if field.encode_name not in tables and not field.name.startswith("_")
        ]
        found = [
            key for row in rows(section(self.page, title)) for key in _LITERAL.findall(row[1])
        ]
        self.assertEqual(sorted(found), sorted(expected))

    def test_relay_toml(self) -> None:
        """
        Every key of relay.toml stands there, and no other does.
        """
        self._keys("relay.toml", RelayConfig, FileAccount)

    def test_agent_toml(self) -> None:
        """
        Every key of agent.toml stands there, and no other does.
        """
        self._keys("agent.toml", AgentConfig, ServerConfig)

    def _options(self, title: str, options: usage.Options) -> None:
        found = " ".join(literals(section(self.page, title)))
        for option in options.longOpt:
            self.assertRegex(found, rf"--{option.rstrip('=')}\b")
        for option in options.shortOpt.replace(":", ""):
            self.assertIn(f"-{option}", found.split())

    def test_relay_options(self) -> None:
        """
        Every option of C{twistd relay} stands there.
        """
        self._options("twistd relay", relay.Options())

    def test_agent_options(self) -> None:
        """
        Every option of C{twistd agent} stands there.
        """
        self._options("twistd agent", agent.Options())

    def test_commands(self) -> None:
        """
        Every subcommand of C{relaytunnel} stands there, with its options.
        """
        text = section(self.page, "relaytunnel")
        found = {row[0]: " ".join(row) for row in rows(text)}
        commands = re.findall(r"^    ([a-z]+) ", printed("--help"), re.MULTILINE)
        self.assertIn("demo", commands)
        for command in commands:
            (row,) = [row for first, row in found.items() if f"``relaytunnel {command}" in first]
            for option in re.findall(r"--[a-z-]+", printed(command, "--help")):
                if option != "--help":
                    self.assertIn(option, row + text.rpartition("\n\n``invite``")[2])


class ExampleTests(SynchronousTestCase):
    """
    Examples can be used as they stand.
    """

    def test_toml(self) -> None:
        """
        Every TOML block is a file for a relay or for an agent without faults.
        """
        count = 0
        for path in sorted(DOC.glob("*.rst")):
            for block in _TOML.findall(path.read_text(encoding="utf-8")):
                load_text(textwrap.dedent(block), path.name, "/etc/relaytunnel")
                count += 1
        self.assertGreaterEqual(count, 4)

    def test_readme(self) -> None:
        """
        The two commands stand in the README.
        """
        readme = (ROOT / "README.md").read_text(encoding="utf-8").split("\n")
        prepare = "python3 -m venv .venv && .venv/bin/pip install tox"
        self.assertIn(f"{prepare} && .venv/bin/tox run -e demo", readme)
        self.assertIn(f"{prepare} && .venv/bin/tox run", readme)

    def test_readme_links(self) -> None:
        """
        What the README links to is there.
        """
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        links = re.findall(r"\]\(([^)#:]+)\)", readme)
        self.assertIn("doc/tutorial.rst", links)
        self.assertEqual([link for link in links if not (ROOT / link).exists()], [])

    def test_modules(self) -> None:
        """
        Files and test modules that the development page names are there.
        """
        named = literals(page("development"))
        paths = [
            name
            for name in named
            if re.fullmatch(r"(?:tests|relaytunnel)/[a-z_/]+(?:\.py)?", name)
        ]
        self.assertIn("tests/test_floors.py", paths)
        self.assertEqual([path for path in paths if not (ROOT / path).exists()], [])

    def test_environments(self) -> None:
        """
        Every tox environment that C{tox run} runs is explained.
        """
        tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
        listed = re.search(r"^env_list = (.*(?:\n[ \t]+.*)*)", tox, re.MULTILINE)
        assert listed is not None
        named = literals(page("development"))
        self.assertEqual(set(re.split(r"[,\s]+", listed[1].strip())) - named, set())


class ProtocolTests(SynchronousTestCase):
    """
    The protocol reference.
    """

    def setUp(self) -> None:
        self.page = page("protocol")

    def test_messages(self) -> None:
        """
        Every message stands there with its tag and all of its fields, and for
        each field whether it may be left out.
        """
        for kind in get_args(Message):
            text = section(self.page, kind.__name__)
            self.assertIn(f"tag ``{kind.__struct_config__.tag}``", text)
            expected = [(f"``{f.name}``", f.required) for f in msgspec.structs.fields(kind)]
            found = [(row[0], "*" not in row[1]) for row in rows(text) if row[0] != "field"]
            self.assertEqual(found, expected, kind.__name__)

    def test_codes(self) -> None:
        """
        Every code stands there, and no other does.
        """
        found = [row[0] for row in rows(section(self.page, "Codes")) if row[0] != "code"]
        self.assertEqual(found, [f"``{code.value}``" for code in Code])

    def test_data_frames(self) -> None:
        """
        Every kind of data frame stands there with its number.
        """
        found = {(row[0], row[1]) for row in rows(section(self.page, "Data channel"))}
        for kind in Kind:
            self.assertIn((str(kind.value), f"``{kind.name}``"), found)

    def test_figures(self) -> None:
        """
        Sizes, magic and names that both ends have to agree on are right.
        """
        for said in (
            f"version {PROTOCOL_VERSION} of",
            f"at most {MAX_BODY:,} bytes",
            f"at most {MAX_BODY_UNAUTHENTICATED:,} before",
            f"1 to {MAX_PAYLOAD:,}",
            f"with {PLAIN_PREAMBLE_BYTES} bytes",
            f"``{PLAIN_MAGIC.decode()}``",
            f"``{CONTROL.decode()}``",
            f"``{DATA.decode()}``",
        ):
            self.assertIn(said, " ".join(self.page.split()))


class OperationsTests(SynchronousTestCase):
    """
    The operations page.
    """

    def test_answers(self) -> None:
        """
        What clients are told stands there with the status that they get.
        """
        faults = {"400", "408", "431", "505"}  # of the request, whatever the code
        found = [
            (code, row[1])
            for row in rows(section(page("operations"), "What a client is told"))
            for code in literals(row[0])
            if row[1] not in faults
        ]
        self.assertGreater(len(found), 7)
        for code, status in found:
            answer = http_answer(Failing(Code(code), ""), None, False)
            self.assertEqual(answer.split()[1].decode(), status, code)


class PromisesTests(SynchronousTestCase):
    """
    What is promised, and where it is tested.
    """

    def test_tests(self) -> None:
        """
        Every promise names a test, and every test, class or module that is
        named is there.
        """
        promises = [row for row in rows(page("promises")) if row[0] != "promise"]
        self.assertGreater(len(promises), 50)
        for what, tests in promises:
            named = [name for name in literals(tests) if name.startswith("tests.")]
            self.assertTrue(named, what)
            for name in named:
                namedAny(name)


class ProcedureTests(SynchronousTestCase):
    """
    How it works.
    """

    def test_steps(self) -> None:
        """
        Every step of the procedure is explained, once and in order.
        """
        found = re.findall(r"^\*\*(S\d+)\*\*$", page("how-it-works"), re.MULTILINE)
        self.assertEqual(found, [f"S{number}" for number in range(1, 21)])

    def test_figures(self) -> None:
        """
        Every figure is well-formed, says in words what it shows, scales, stands
        on a card of its own (so that it can be read on any background), and is
        used.
        """
        pages = "".join(path.read_text(encoding="utf-8") for path in DOC.glob("*.rst"))
        figures = sorted((DOC / "figures").glob("*.svg"))
        self.assertGreaterEqual(len(figures), 4)
        for figure in figures:
            root = ElementTree.parse(figure).getroot()
            self.assertIn("viewBox", root.attrib)
            for element in ("title", "desc"):
                self.assertTrue(root.findtext(_SVG + element), figure.name)
            card = root.find(_SVG + "rect")
            assert card is not None
            self.assertEqual(card.get("class"), "card", figure.name)
            self.assertIn(f".. figure:: figures/{figure.name}", pages)

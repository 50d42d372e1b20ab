"""
How the documentation is built: C{sphinx-build -W --keep-going -n -b html doc OUT}.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parent.parent

project = "relaytunnel"
author = "the relaytunnel authors"
copyright = "the relaytunnel authors"  # noqa: A001  # Sphinx asks for this name

exclude_patterns = ["_build"]
nitpicky = True
highlight_language = "text"

html_theme = "furo"
html_title = "relaytunnel"
html_show_copyright = False
html_copy_source = False


class News(SphinxDirective):
    """
    What changed: the news fragments of the next release, and those before it.
    """

    def run(self) -> list[nodes.Node]:
        found: list[nodes.Node] = []
        changes = nodes.bullet_list()
        for fragment in sorted((ROOT / "newsfragments").glob("*.md")):
            self.env.note_dependency(str(fragment))
            item = nodes.list_item()
            lines = StringList(fragment.read_text("utf-8").splitlines(), str(fragment))
            self.state.nested_parse(lines, 0, item)
            changes += item
        if changes.children:
            found += [nodes.rubric(text="Not released yet"), changes]
        released = ROOT / "NEWS.md"
        if released.exists():
            self.env.note_dependency(str(released))
            text = released.read_text("utf-8")
            found += [nodes.rubric(text="Released"), nodes.literal_block(text, text)]
        return found


def setup(app: Sphinx) -> None:
    """
    What Sphinx calls.
    """
    app.add_directive("news", News)

"""
The pages that a browser shows: why a server cannot be reached, and the
question which one is wanted.

They stand by themselves: no script, no picture, nothing to fetch, readable on a
telephone and at night.  Everything that is not written here is escaped.  When
they are sent, and with which fields, is said in L{relaytunnel.arrival.answers}
and L{relaytunnel.arrival.choosing}.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from http import HTTPStatus
from urllib.parse import quote

from relaytunnel.arrival.ways import Choice
from relaytunnel.errors import Code

__all__ = ["error_page", "question_page"]

_AGAIN = "Please try again in a moment."
_OWNER = "If this goes on, tell whoever runs the server."

# What happened, in the words of somebody who only wanted to see a page, and
# what can be done about it.
_WORDS = {
    Code.NO_SUCH_SERVER: ("There is no such server here", "Is the address spelt right?"),
    Code.NOT_ALLOWED: ("You may not visit this server", "Its owner decides who may."),
    Code.LOGIN_NEEDED: ("This server asks who you are", "Its owner decides who may visit it."),
    Code.AGENT_AWAY: ("This server is away just now", f"{_AGAIN} {_OWNER}"),
    Code.BUSY: ("This server is busy", _AGAIN),
    Code.SHUTDOWN: ("This relay is about to stop", _AGAIN),
    Code.REFUSED_BY_TARGET: ("This server does not answer", f"{_AGAIN} {_OWNER}"),
    Code.TARGET_UNREACHABLE: ("This server cannot be reached", f"{_AGAIN} {_OWNER}"),
    Code.UNKNOWN_ID: ("This server is not known behind the firewall", _OWNER),
    Code.TIMEOUT: ("That took too long", _AGAIN),
    Code.INTERNAL: ("Something went wrong here", f"{_AGAIN} It is not your fault."),
}
_OTHER_WORDS = ("This request was not understood", "The program that sent it is at fault.")

_FRAME = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ --paper: #f6f7f9; --card: #fff; --ink: #1c2330; --soft: #5a6475; --line: #dfe3ea;
  --mark: #b4541a; --field: #848d9c; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #12151b; --card: #1b2029; --ink: #e8ebf1; --soft: #a0aabb; --line: #2d3440;
    --mark: #f0a468; --field: #7d879a; }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }}
main {{ width: 100%; min-width: 0; max-width: 34rem; padding: clamp(1.5rem, 5vw, 2.5rem);
  background: var(--card); border: 1px solid var(--line); border-radius: .75rem; }}
h1 {{ margin: 0 0 .75rem; font-size: clamp(1.35rem, 5vw, 1.75rem); line-height: 1.25; }}
p {{ margin: 0 0 1rem; overflow-wrap: anywhere; }}
.status {{ color: var(--mark); font-weight: 600; margin-bottom: .5rem; }}
.hint {{ color: var(--soft); }}
footer {{ border-top: 1px solid var(--line); padding-top: 1rem; color: var(--soft);
  font-size: .875rem; }}
code {{ font-family: ui-monospace, monospace; }}
{style}</style>
</head>
<body>
<main>
{content}
<footer>relaytunnel &middot; <code>{code}</code></footer>
</main>
</body>
</html>
"""

_FAILURE = """\
<p class="status">{status} {phrase}</p>
<h1>{title}</h1>
<p>{reason}</p>
<p class="hint">{hint}</p>"""

_QUESTION_STYLE = """\
form { margin: 0; }
.search { display: flex; gap: .5rem; margin-bottom: 1rem; }
input, button { font: inherit; color: inherit; border-radius: .5rem; min-height: 2.75rem; }
input { flex: 1; min-width: 0; padding: .5rem .75rem; background: var(--paper);
  border: 1px solid var(--field); }
::placeholder { color: var(--soft); opacity: 1; }
button { cursor: pointer; padding: .5rem .9rem; background: var(--paper);
  border: 1px solid var(--field); }
button:hover, button:focus-visible { border-color: var(--mark); }
ul { list-style: none; margin: 0 0 1rem; padding: 0; display: grid; gap: .5rem; }
li button { width: 100%; text-align: left; overflow-wrap: anywhere; }
li b { display: block; }
li span { color: var(--soft); font-size: .875rem; }
"""

_QUESTION = """\
<h1>Which server?</h1>
{why}<form class="search" action="{action}" method="get">
<input type="search" name="q" value="{query}" aria-label="Name of a server"
 placeholder="Name of a server" autocomplete="off" autocapitalize="none" spellcheck="false">
<input type="hidden" name="to" value="{to}">
<button>Search</button>
</form>
{choices}"""

_CHOICES = """\
<ul>
{items}
</ul>
<p class="hint">The choice is remembered until this browser is closed.</p>"""

# Nothing has a name: the body is empty.
_CHOICE = (
    '<li><form action="{pick}" method="post">'
    '<button value="{name}"><b>{name}</b>{address}</button></form></li>'
)


def error_page(status: HTTPStatus, code: Code, reason: str) -> str:
    """
    Write the page.

    @param status: the status of the response that carries it.
    @param code: decides the headline and the hint below.
    @param reason: a sentence; it may come from anywhere, and is escaped.
    """
    title, hint = _WORDS.get(code, _OTHER_WORDS)
    return _FRAME.format(
        title=escape(title),
        style="",
        content=_FAILURE.format(
            status=status.value,
            phrase=escape(status.phrase),
            title=escape(title),
            reason=escape(reason),
            hint=escape(hint),
        ),
        code=escape(code.value),
    )


def _typed(addresses: Sequence[str]) -> list[str]:
    """
    @return: those that can be typed into a browser.
    """
    return [each for each in addresses if each.startswith("http") and " " not in each]


def question_page(
    choices: Sequence[Choice],
    action: str,
    pick: str,
    query: str,
    to: str,
    code: str,
    why: str = "",
) -> str:
    """
    Write the page that asks which server is wanted (S5).

    @param choices: the servers among which to choose.
    @param action: the path that takes C{q}, to search, with C{to}.
    @param pick: the path that takes the choice, but for the connection ID.
    @param query: what was searched for, if anything was.
    @param to: the path to go to afterwards.
    @param code: what programs know this page by.
    @param why: a sentence on why the server that was wanted cannot be had.
    """
    action, pick, to = escape(action), escape(pick), escape(to)
    if choices:
        items = "\n".join(
            _CHOICE.format(
                pick=pick + quote(choice.connection_id, safe=""),
                name=escape(choice.connection_id),
                address="".join(
                    f"<span>{escape(address)}</span>" for address in _typed(choice.addresses)[:1]
                ),
            )
            for choice in choices
        )
        listed = _CHOICES.format(items=items)
    elif query:
        listed = f"<p>No server called <b>{escape(query)}</b> is listed here.</p>"
    else:
        listed = '<p class="hint">No server is listed here; type the name of yours.</p>'
    return _FRAME.format(
        title="Which server?",
        style=_QUESTION_STYLE,
        content=_QUESTION.format(
            why=f'<p class="status">{escape(why)}</p>\n' if why else "",
            action=action,
            query=escape(query),
            to=to,
            choices=listed,
        ),
        code=escape(code),
    )

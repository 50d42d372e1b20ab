"""
The page that a browser shows when a server cannot be reached.

It stands by itself: no script, no picture, nothing to fetch, readable on a
telephone and at night.  Everything that is not written here is escaped.  When
it is sent, and with which fields, is said in L{relaytunnel.arrival.answers}.
"""

from __future__ import annotations

from html import escape
from http import HTTPStatus

from relaytunnel.errors import Code

__all__ = ["error_page"]

_AGAIN = "Please try again in a moment."
_OWNER = "If this goes on, tell whoever runs the server."

# What happened, in the words of somebody who only wanted to see a page, and
# what can be done about it.
_WORDS = {
    Code.NO_SUCH_SERVER: ("There is no such server here", "Is the address spelt right?"),
    Code.NOT_ALLOWED: ("You may not visit this server", "Its owner decides who may."),
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

_PAGE = """\
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
  --mark: #b4541a; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #12151b; --card: #1b2029; --ink: #e8ebf1; --soft: #a0aabb; --line: #2d3440;
    --mark: #f0a468; }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }}
main {{ width: 100%; max-width: 34rem; padding: clamp(1.5rem, 5vw, 2.5rem);
  background: var(--card); border: 1px solid var(--line); border-radius: .75rem; }}
h1 {{ margin: 0 0 .75rem; font-size: clamp(1.35rem, 5vw, 1.75rem); line-height: 1.25; }}
p {{ margin: 0 0 1rem; overflow-wrap: anywhere; }}
.status {{ color: var(--mark); font-weight: 600; margin-bottom: .5rem; }}
.hint {{ color: var(--soft); }}
footer {{ border-top: 1px solid var(--line); padding-top: 1rem; color: var(--soft);
  font-size: .875rem; }}
code {{ font-family: ui-monospace, monospace; }}
</style>
</head>
<body>
<main>
<p class="status">{status} {phrase}</p>
<h1>{title}</h1>
<p>{reason}</p>
<p class="hint">{hint}</p>
<footer>relaytunnel &middot; <code>{code}</code></footer>
</main>
</body>
</html>
"""


def error_page(status: HTTPStatus, code: Code, reason: str) -> str:
    """
    Write the page.

    @param status: the status of the response that carries it.
    @param code: decides the headline and the hint below.
    @param reason: a sentence; it may come from anywhere, and is escaped.
    """
    title, hint = _WORDS.get(code, _OTHER_WORDS)
    return _PAGE.format(
        title=escape(title),
        status=status.value,
        phrase=escape(status.phrase),
        reason=escape(reason),
        hint=escape(hint),
        code=escape(code.value),
    )

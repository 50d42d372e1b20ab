"""
What is written to the terminal of a person.

Much of it was said by somebody else: a relay, an agent, another process.  A
control sequence in it could move the cursor, rewrite lines, or make the
terminal type; so all text goes through here.
"""

from __future__ import annotations

import sys
from typing import TextIO

from relaytunnel.config.names import printable

__all__ = ["error", "safe", "say"]


def safe(text: str) -> str:
    """
    @return: the text, in which controls (C0, C1), formats (bidirectional ones
        too) and whatever else cannot be printed are escaped; its lines stay.
    """
    if text.isprintable():
        return text
    return "\n".join(printable(line, len(line) * 10) for line in text.split("\n"))


def say(text: object = "", file: TextIO | None = None) -> None:
    """
    Print a text, at once.

    @param file: where, if not standard output.
    """
    print(safe(str(text)), file=file or sys.stdout, flush=True)


def error(text: object) -> None:
    """
    Print a text on standard error.
    """
    say(text, sys.stderr)

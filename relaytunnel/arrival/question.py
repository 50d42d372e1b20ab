"""
The question in plain text: which server?

It is put to a client that says nothing, or a line of which no other way can
make anything: somebody at a terminal, most likely.  A line answers it, with a
name or a number of the list.  The bytes of the answers are the relay's; what
comes behind the last one is the server's.
"""

from __future__ import annotations

from relaytunnel.arrival.authority import parse_host
from relaytunnel.arrival.plain import one_line, text_line, too_late
from relaytunnel.arrival.ways import (
    DEFAULT_LIMITS,
    Asked,
    Choice,
    Directory,
    Limits,
    Malformed,
    Named,
    Opening,
)
from relaytunnel.errors import Code, Failing, ProtocolError

__all__ = ["QUESTION", "QuestionArrival"]

_TRIES = 3
_MAX_LINE = 512
_MAX_LISTED = 100
_TEXT = frozenset(b"\t\n\r" + bytes(range(0x20, 0x7F)))


class QuestionArrival:
    """
    One client that is asked in text.
    """

    name = "question"

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        """
        @param limits: of no use here; every way is begun with them.
        """
        self._at = 0
        self._tries = 0
        self._shown: tuple[Choice, ...] = ()
        self._unreadable: Failing | None = None
        self._outcome: Named | Malformed | None = None

    def feed(self, buffer: bytes) -> Named | Malformed | None:
        """
        Read the next line, once it is complete; see L{Way.feed}.
        """
        if self._outcome is None:
            end = buffer.find(b"\n", self._at, self._at + _MAX_LINE)
            if end >= 0:
                line = buffer[self._at : end].strip(b" \t\r")
                self._at = end + 1
                self._outcome = self._read(line)
            elif len(buffer) - self._at >= _MAX_LINE:
                failing = Failing(Code.INVALID, f"a line has {_MAX_LINE} bytes at most")
                self._outcome = Malformed(failing.reason, text_line(failing))
        return self._outcome

    def _read(self, line: bytes) -> Named | Malformed:
        self._unreadable = None
        if line.startswith(b"SSH-"):
            failing = Failing(
                Code.UNSUPPORTED,
                "ssh does not say which server it wants; give it a ProxyCommand, such as"
                " 'nc -X connect -x RELAY:PORT %h %p'",
            )
            return Malformed(failing.reason, text_line(failing))
        if line.isdigit() and len(line) < 10 and 0 < int(line) <= len(self._shown):
            return self._named(self._shown[int(line) - 1].connection_id)
        try:
            return self._named(parse_host(line) if line else None)
        except ProtocolError as error:
            self._unreadable = Failing(Code.INVALID, f"that is no server's name: {error}")
            return self._named(None)

    def _named(self, host: str | None) -> Named:
        return Named(self.name, host, consumed=self._at)

    def take_reply(self) -> bytes:
        """
        Nothing: what is said is the question.
        """
        return b""

    def ask(self, directory: Directory, why: Failing | None) -> Asked | None:
        """
        A list of those that may be known, and a prompt; three times.
        """
        why = why or self._unreadable
        if self._tries == _TRIES:
            why = why or Failing(Code.NO_SUCH_SERVER, "no server was named")
            return Asked(text_line(why), over=True)
        self._tries += 1
        self._outcome = None
        lines = []
        if why is not None:
            lines.append(f"{why.code.value}: {one_line(why.reason)}")
        if self._tries == 1:
            self._shown = tuple(directory.listed())[:_MAX_LISTED]
            lines += _list(self._shown)
        return Asked("".join(f"{line}\r\n" for line in lines).encode() + b"which server? ", False)

    def answer(self, failing: Failing) -> bytes:
        """
        One line of text.
        """
        return text_line(failing)

    def timed_out(self) -> bytes:
        """
        One line of text.
        """
        return (b"\r\n" if self._tries else b"") + too_late()


def _list(choices: tuple[Choice, ...]) -> list[str]:
    if not choices:
        return ["This relay lists no servers; type the name of yours."]
    return [
        "This relay leads to these servers; type a number, or a name.",
        *(f"  {number}) {choice.connection_id}" for number, choice in enumerate(choices, 1)),
    ]


def _fits(prefix: bytes) -> bool | None:
    return prefix[0] in _TEXT if prefix else None


QUESTION = Opening("question", _fits, QuestionArrival)

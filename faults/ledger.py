"""
What became of the sessions, as both of their ends tell it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Ledger", "Tally", "judge"]

_MOST_NOTES = 50

_SLOW = 60.0
"""So many seconds behind its client a server may still read, and be killed."""

Told = dict[str, Any]


@dataclass
class Tally:
    """
    Sessions, counted.

    @ivar failed: how many, by how it came to the client (or to the server, if
        the client does not know).
    @ivar died: those of which an end died by its plan.
    @ivar lost: bytes that were sent, and behind which a clean end was sent,
        and that did not come though the end did.
    @ivar false_ends: clean ends that nobody had sent.
    @ivar mixed_up: sessions in which something came that was not theirs.
    @ivar notes: what these were.
    """

    tried: int = 0
    survived: int = 0
    died: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    false_ends: int = 0
    mixed_up: int = 0
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """
        Remember this, if it is not too much.
        """
        if len(self.notes) < _MOST_NOTES:
            self.notes.append(text)


def judge(
    session: int, ends: Sequence[Told | None], began: bool, killed: bool, tally: Tally
) -> None:
    """
    Count one session.

    @param ends: what its client and its server tell; C{None} if that one tells
        nothing.
    @param began: whether the server has seen it.
    @param killed: whether servers were killed meanwhile: the kernel sends an
        end then, for which nobody else can be blamed.
    """
    client, server = ends
    for side, here in enumerate(ends):
        if here is None:
            continue
        if here.get("strange"):
            tally.mixed_up += 1
            tally.note(f"session {session}: {_name(side)} got {here['strange']}")
        elif here.get("got_end"):
            _judge_end(session, side, here, ends[1 - side], began, killed, tally)
    whys = [None if each is None else str(each["why"]) for each in ends]
    if "done" in whys and whys[0] == whys[1]:
        tally.survived += 1
    elif any(why is not None and why.startswith("died") for why in whys):
        tally.died += 1
    elif client is None:
        tally.failed["never over"] += 1
    elif whys[0] != "done":
        tally.failed[str(whys[0])] += 1
    elif server is None:
        tally.failed["server was killed" if killed else "server never saw it"] += 1
    else:
        tally.failed[f"server: {whys[1]}"] += 1


def _judge_end(
    session: int,
    side: int,
    here: Told,
    there: Told | None,
    began: bool,
    killed: bool,
    tally: Tally,
) -> None:
    kind = here["kind"]
    if there is None:
        if not killed:
            tally.false_ends += 1
            known = "had begun with" if began else "never saw"
            tally.note(
                f"session {session} ({kind}): {_name(side)} got an end after"
                f" {here['got']} bytes; the other one {known} it and told nothing"
            )
    elif not there.get("sent_end"):
        tally.false_ends += 1
        tally.note(
            f"session {session} ({kind}): {_name(side)} got an end after {here['got']} bytes;"
            f" the other one had sent {there.get('sent', 0)} and no end ({there['why']})"
        )
    elif here["got"] < there["sent"]:
        tally.lost += there["sent"] - here["got"]
        tally.note(
            f"session {session} ({kind}): {_name(side)} got an end after {here['got']} of"
            f" {there['sent']} bytes ({there['sent_end']}; {here['why']}, {there['why']})"
        )
    elif (here["got"], here["got_hash"]) != (there["sent"], there["sent_hash"]):
        tally.mixed_up += 1
        tally.note(f"session {session} ({kind}): {_name(side)} got other bytes than were sent")


def _name(side: int) -> str:
    return ("the client", "the server")[side]


class Ledger:
    """
    Reads the records of both ends, as they grow.

    @ivar tally: of the sessions that are settled.
    @ivar kills: when servers were killed: each since and until when.
    @ivar survivors: when each began and ended, its kind and its server's name.
    @ivar failures: when each began and ended.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        """
        @param files: what is in them already is not read.
        """
        self._files = [(each, [each.stat().st_size if each.exists() else 0]) for each in files]
        self.tally = Tally()
        self.kills: list[tuple[float, float]] = []
        self._tried: set[int] = set()
        self._began: dict[int, float] = {}
        self._told: tuple[dict[int, Told], dict[int, Told]] = ({}, {})
        self.survivors: list[tuple[float, float, str, str]] = []
        self.failures: list[tuple[float, float]] = []

    @property
    def pending(self) -> int:
        """
        How many sessions a server has begun and not told the end of, though it
        was not killed since.
        """
        told = self._told[1]
        killed = max((until for _, until in self.kills), default=0.0)
        return sum(session not in told and at > killed for session, at in self._began.items())

    def read(self) -> None:
        """
        Take in what was written since, and settle what both ends have told.
        """
        for file, at in self._files:
            if not file.exists():
                continue
            with file.open("rb") as lines:
                lines.seek(at[0])
                data = lines.read()
            whole = data.rfind(b"\n") + 1
            at[0] += whole
            for line in data[:whole].splitlines():
                self._take(json.loads(line))
        both = self._told[0].keys() & self._told[1].keys()
        for session in both:
            self._settle(session)

    def _take(self, told: Told) -> None:
        if "tried" in told:
            self._tried.add(told["tried"])
            self.tally.tried += 1
        elif "began" in told and "side" not in told:
            self._began[told["began"]] = told["at"]
        elif "stray" in told:
            self.tally.mixed_up += 1
            self.tally.note(f"the server got something of no session: {told['stray']}")
        else:
            self._told[told["side"]][told["session"]] = told

    def _settle(self, session: int) -> None:
        ends = [told.pop(session, None) for told in self._told]
        began = session in self._began
        before = self.tally.survived
        client = ends[0]
        killed = client is not None and any(
            client["began"] <= until and since <= client["over"] + _SLOW
            for since, until in self.kills
        )
        judge(session, ends, began, killed, self.tally)
        self._began.pop(session, None)
        self._tried.discard(session)
        if client is None:
            return
        if self.tally.survived > before:
            self.survivors.append(
                (client["began"], client["over"], client["kind"], client["server"])
            )
        elif not str(client["why"]).startswith("died"):
            self.failures.append((client["began"], client["over"]))

    def forget(self) -> None:
        """
        Keep the counts and let go of when it was.
        """
        self.survivors.clear()
        self.failures.clear()

    def close(self) -> None:
        """
        Settle all that is left: what was not told yet will not be.
        """
        self.read()
        for session in list(self._tried | self._told[0].keys() | self._told[1].keys()):
            self._settle(session)

"""
One fault: what runs before it, under it and behind it, and what is found.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from typing import Any

from faults.injections import Fault, Scene
from faults.ledger import Ledger, Tally
from faults.stack import CampaignFailed, Stack, State

__all__ = ["SHORT_LIMITS", "Result", "Terms", "finish", "run", "suffer", "warm"]

_WARM = 1.5
_BEFORE = 1.0
_BEHIND = 1.5
_RECOVERED_WITHIN = 90.0
_FIRST = 1_000_000

SHORT_LIMITS = """
parked = 2
ping = 2
dead = 8
linger-idle = 2
linger = 4
close = 3
half-closed = 6
"""
"""So that a short campaign need not wait for what passes by itself."""


@dataclass(frozen=True)
class Terms:
    """
    How a fault is run.

    @ivar seconds: how long it lasts, if it does not say so itself.
    @ivar quiet: seconds for everything to be back at its start.
    @ivar rate: sessions in a second.
    @ivar scale: how much they say, beside what is usual.
    @ivar silence: the longest silence in one of them, in seconds.
    @ivar usual: whether the limits are those that people have.
    """

    seconds: float = 5.0
    quiet: float = 5.0
    patience: float = 8.0
    rate: float = 20.0
    seed: int = 1
    scale: float = 1.0
    silence: float = 3.0
    usual: bool = False


@dataclass
class Result:
    """
    What was found.

    @ivar recovery: seconds from the end of the fault until every server was
        reached by a session that began behind it; C{None} if it never was.
    @ivar late: sessions that began behind that, and failed.
    @ivar leaks: what is left of it.
    """

    name: str
    title: str
    tally: Tally = field(default_factory=Tally)
    recovery: float | None = None
    late: int = 0
    leaks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: str = ""
    broken: str = ""

    @property
    def good(self) -> bool:
        """
        Whether nothing was found that must not be.
        """
        tally = self.tally
        wrong = tally.lost or tally.false_ends or tally.mixed_up or self.leaks or self.broken
        wrong = wrong or tally.notes
        return bool(self.skipped) or (not wrong and self.recovery is not None)

    def as_json(self) -> dict[str, Any]:
        """
        @return: the same as plain values.
        """
        tally = self.tally
        return {
            "name": self.name,
            "title": self.title,
            "tried": tally.tried,
            "survived": tally.survived,
            "failed": dict(tally.failed),
            "recovery": self.recovery,
            "late": self.late,
            "lost": tally.lost,
            "false_ends": tally.false_ends,
            "mixed_up": tally.mixed_up,
            "leaks": self.leaks,
            "notes": self.notes + tally.notes,
            "skipped": self.skipped,
            "broken": self.broken,
            "good": self.good,
        }


def run(fault: Fault, terms: Terms) -> Result:
    """
    @return: what has become of it; also when it could not be done.
    """
    result = Result(fault.name, fault.title)
    result.skipped = fault.needs()
    if result.skipped:
        return result
    patience = terms.patience + fault.more_patience
    try:
        with Stack(
            published=fault.agents,
            limits="" if terms.usual else SHORT_LIMITS,
            patience=patience,
        ) as stack:
            _run(fault, terms, stack, result)
    except (CampaignFailed, OSError) as reason:
        result.broken = str(reason)
    return result


def _run(fault: Fault, terms: Terms, stack: Stack, result: Result) -> None:
    fault.before(stack)
    stack.start_relay()
    for agent in stack.published:
        if agent not in stack.invitations:
            stack.invite(agent)
    fault.invited(stack)
    stack.start_server()
    for agent in stack.published:
        stack.start_agent(agent)
    start = warm(stack, _load(fault, terms, stack))
    suffer(fault, terms, stack, start, result)


def _load(fault: Fault, terms: Terms, stack: Stack) -> tuple[object, ...]:
    return (
        *("--rate", terms.rate * fault.rate, "--seed", terms.seed),
        *("--scale", terms.scale * fault.scale),
        *("--silence", min(terms.silence, stack.patience / 3)),
    )


def suffer(fault: Fault, terms: Terms, stack: Stack, start: State, result: Result) -> None:
    """
    Inject a fault into what runs.

    @param start: what there was when nothing had happened yet.
    @param result: is told what is found.
    """
    record = stack.directory / f"{fault.name}.load.jsonl"
    ledger = Ledger([record, *stack.servers.values()])
    result.tally = ledger.tally
    first = _FIRST * (1 + len(list(stack.directory.glob("*.load.jsonl"))))
    load = stack.start_load(record, *_load(fault, terms, stack), "--first", first)
    _pause(_BEFORE, ledger)
    with fault.inject(Scene(stack, ledger, result.notes)):
        _pause(terms.seconds if fault.seconds is None else fault.seconds, ledger)
    lifted = time.monotonic()
    hit, stack.network.hit = stack.network.hit, None
    if hit:
        result.notes.append(f"{hit} packets were dropped or rejected")
    elif hit is not None:
        result.broken = "no packet was dropped or rejected"
    _recover(stack, ledger, lifted, result)
    _pause(_BEHIND, ledger)
    load.send(signal.SIGTERM)
    result.leaks += finish(stack, ledger)
    if result.recovery is not None:
        began = lifted + result.recovery
        result.late = sum(failure[0] > began for failure in ledger.failures)
    _, left = stack.settled(start, terms.quiet + _passes(terms))
    result.leaks += left + stack.troubles()


def _passes(terms: Terms) -> float:
    """
    @return: how long it may take by the limits until what is over is gone.
    """
    return 12.0 if terms.usual else 6.0


def warm(stack: Stack, options: tuple[object, ...]) -> State:
    """
    Let some sessions run before a fault, so that everything is there which is
    made when it is first needed.

    @param options: of the load.

    @return: what there is behind them.
    @raise CampaignFailed: not all of them came through.
    """
    record = stack.directory / "warm.jsonl"
    ledger = Ledger([record, *stack.servers.values()])
    load = stack.start_load(record, *options)
    _pause(_WARM, ledger)
    load.send(signal.SIGTERM)
    left = finish(stack, ledger)
    tally = ledger.tally
    if tally.survived != tally.tried or not tally.tried or left:
        raise CampaignFailed(
            f"before the fault, {tally.survived} of {tally.tried} sessions came through:"
            f" {dict(tally.failed)} {tally.notes} {left}"
        )
    return stack.at_start()


def _pause(seconds: float, ledger: Ledger) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        ledger.read()
        time.sleep(min(0.1, left))


def _recover(stack: Stack, ledger: Ledger, lifted: float, result: Result) -> None:
    names = {each.name for servers in stack.published.values() for each in servers}
    until = lifted + _RECOVERED_WITHIN
    while time.monotonic() < until:
        ledger.read()
        first: dict[str, float] = {}
        for began, over, kind, name in ledger.survivors:
            if began >= lifted and kind == "short":
                first[name] = min(over, first.get(name, over))
        if names <= first.keys():
            result.recovery = max(first.values()) - lifted
            return
        time.sleep(0.05)


def finish(stack: Stack, ledger: Ledger) -> list[str]:
    """
    Wait for all sessions that still run, as long as their ends have patience.

    @return: who did not end, and who did though nobody asked.
    """
    found = []
    load = stack.running["load"]
    until = time.monotonic() + 2 * stack.patience + 20
    while load.alive and time.monotonic() < until:
        _pause(0.1, ledger)
    if load.alive:
        found.append("load: clients had to be ended")
        load.end()
    until = time.monotonic() + stack.patience + 3
    while ledger.pending and time.monotonic() < until:
        _pause(0.1, ledger)
    for name in stack.servers:
        if not stack.running[name].alive:
            found.append(f"{name}: has ended by itself")
    ledger.close()
    return found

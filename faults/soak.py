"""
The command C{python -m faults.soak}: sessions whose ends die, agents that are
killed and servers that come and go, for a long time, and what is left then.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from collections.abc import Sequence

from faults.campaign import finish, warm
from faults.ledger import Ledger
from faults.report import align
from faults.stack import CampaignFailed, Published, Stack, State, end_as_if_interrupted
from tests.lab.topology import unavailable

__all__ = ["main"]

_MIB = 1 << 20
_KILL_EVERY = 20.0
_SERVER_EVERY = 15.0
_SETTLED = 180.0
_MORE = 1.1
_AND = 5 * _MIB
_PUBLISHED = {
    "agent": [Published("web", 20001, 9001)],
    "second": [Published("shop", 20002, 9002)],
    "third": [Published("raw", 20003, 9003, data="plain")],
}
_SERVERS = {"server1": 9001, "server2": 9002, "server3": 9003}
_TITLES = (
    *("minute", "tried", "survived", "died", "failed", "descriptors", "RSS MiB"),
    *("sessions", "waiting", "parked", "delayed"),
)


class _Soak:
    """
    What goes on in one soak.

    @ivar memory: of each process after the first minutes; of an agent, which
        does not live long, the most that was seen until then.
    """

    def __init__(self, stack: Stack, options: argparse.Namespace) -> None:
        self._stack = stack
        self._options = options
        self._dice = random.Random(options.seed)
        self._due: list[tuple[float, str]] = []
        self._unfinished: list[str] = []
        self.memory: dict[str, int] = {}

    def start(self) -> State:
        """
        Start everything, and let some sessions run.
        """
        stack = self._stack
        stack.start_relay()
        for name, port in _SERVERS.items():
            stack.start_server(name, port)
        for agent in _PUBLISHED:
            if agent not in stack.invitations:
                stack.invite(agent)
            stack.start_agent(agent)
        return warm(stack, ("--seed", self._options.seed))

    def run(self, seconds: float) -> Ledger:
        """
        Let them live and die, with a line each minute.
        """
        stack, options = self._stack, self._options
        record = stack.directory / "load.jsonl"
        ledger = Ledger([record, *stack.servers.values()])
        load = stack.start_load(
            *(record, "--rate", options.rate, "--seed", options.seed, "--first", 1_000_000),
            *("--deadly", "--scale", 0.4),
        )
        began = time.monotonic()
        next_kill, next_server = began + _KILL_EVERY, began + _SERVER_EVERY
        measured_at = began + min(180, seconds / 2)
        minute = 0
        print("  ".join(_TITLES), flush=True)
        while (now := time.monotonic()) < began + seconds:
            ledger.read()
            self._bring_back(now)
            if now >= next_kill:
                next_kill += _KILL_EVERY
                self._kill(self._dice.choice(list(_PUBLISHED)), now + self._dice.random() * 3)
            if now >= next_server:
                next_server += _SERVER_EVERY
                name = self._dice.choice(list(_SERVERS))
                by = self._dice.choice((signal.SIGTERM, signal.SIGKILL))
                self._kill(name, now + self._dice.random() * 2, by)
                if by == signal.SIGKILL:
                    ledger.kills.append((now, time.monotonic()))
            if now < measured_at:
                self._measure()
            if now >= began + 60 * (minute + 1):
                minute += 1
                print(
                    align([_TITLES, self._line(str(minute), ledger)]).splitlines()[1], flush=True
                )
                ledger.forget()
            time.sleep(0.1)
        for _, name in self._due:
            self._begin(name)
        load.send(signal.SIGTERM)
        self._unfinished = finish(stack, ledger)
        return ledger

    def _kill(self, name: str, back_at: float, by: int = signal.SIGKILL) -> None:
        if all(name != each for _, each in self._due):
            self._stack.running[name].end(by)
            self._due.append((back_at, name))

    def _bring_back(self, now: float) -> None:
        for due in list(self._due):
            if now >= due[0]:
                self._due.remove(due)
                self._begin(due[1])

    def _begin(self, name: str) -> None:
        if name in _SERVERS:
            self._stack.start_server(name, _SERVERS[name], wait=False)
        else:
            self._stack.start_agent(name, wait=False)

    def _measure(self) -> None:
        for name in ("relay", *_PUBLISHED):
            size = self._stack.running[name].resident()
            # A relay grows until its caches are full; what it has then counts.
            self.memory[name] = max(self.memory.get(name, 0), size)

    def _line(self, minute: str, ledger: Ledger) -> list[str]:
        tally, stack = ledger.tally, self._stack
        names = ("relay", *_PUBLISHED)
        running = [stack.running[name] for name in names]
        told: dict[str, object] = {}
        calls = "-"
        try:
            status = stack.status()
            told = {**status, "sessions": len(status["sessions"])}
            calls = str(len(stack.delayed_calls("relay")))
        except (OSError, CampaignFailed) as fault:
            print(f"the relay does not answer: {fault}", flush=True)
        return [
            *(minute, str(tally.tried), str(tally.survived), str(tally.died)),
            str(sum(tally.failed.values())),
            "/".join(str(sum(each.descriptors().values())) for each in running),
            "/".join(f"{each.resident() / _MIB:.1f}" for each in running),
            *(str(told.get(key, "-")) for key in ("sessions", "waiting", "parked")),
            calls,
        ]

    def left(self, start: State) -> list[str]:
        """
        @return: what is not as it was at the start.
        """
        stack = self._stack
        state, found = stack.settled(start, _SETTLED)
        for name, before in self.memory.items():
            now = stack.running[name].resident()
            print(f"{name}: {before / _MIB:.1f} MiB at first, {now / _MIB:.1f} in the end")
            if now > before * _MORE + _AND:
                found.append(f"{name}: {now} bytes of memory, {before} at first")
        if state.relay["agents"] != len(_PUBLISHED):
            found.append(f"{state.relay['agents']} of {len(_PUBLISHED)} agents are here")
        return self._unfinished + found + stack.troubles()


def main(arguments: Sequence[str] | None = None) -> int:
    """
    @return: the exit code: 0, or 1 if something was lost, mixed up or left.
    """
    parser = argparse.ArgumentParser(prog="python -m faults.soak", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, default=30, metavar="N", help="how long (default: 30)")
    add("--rate", type=float, default=50, metavar="N", help="sessions a second (default: 50)")
    add("--seed", type=int, default=1, metavar="N", help="of all that is random (default: 1)")
    options = parser.parse_args(arguments)
    if not 0 < options.minutes <= 10_000 or not 0 < options.rate <= 1000:
        parser.error("--minutes is from 0 to 10000, --rate from 0 to 1000")
    obstacle = unavailable()
    if obstacle is not None:
        print(f"soak: {obstacle}", file=sys.stderr)
        return 1
    end_as_if_interrupted()
    try:
        with Stack(published=_PUBLISHED, patience=20) as stack:
            return _soak(_Soak(stack, options), options.minutes * 60)
    except (CampaignFailed, OSError) as fault:
        print(f"soak: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _soak(soak: _Soak, seconds: float) -> int:
    start = soak.start()
    ledger = soak.run(seconds)
    left = soak.left(start)
    tally = ledger.tally
    print(
        f"{tally.tried} sessions: {tally.survived} survived, {tally.died} died as planned,"
        f" failed: {dict(tally.failed)}"
    )
    print(
        f"{tally.lost} bytes lost, {tally.false_ends} false ends, {tally.mixed_up} mix-ups,"
        f" {len(left)} things left"
    )
    for note in tally.notes:
        print(f"  WRONG: {note}")
    for each in left:
        print(f"  LEFT: {each}")
    return int(bool(tally.lost or tally.false_ends or tally.mixed_up or left))


if __name__ == "__main__":
    sys.exit(main())

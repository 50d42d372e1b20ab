"""
What is measured, and how good it has to be.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import clients
from bench.flooding import KINDS
from bench.origins import Origins
from bench.processes import (
    BenchFailed,
    Processes,
    cpu_seconds,
    descriptors,
    free_port,
    resident,
    tcp_connections,
    wait_for,
)
from bench.ways import OURS, RAISED, Reached, start_relaytunnel

__all__ = ["ROWS", "Bar", "Metric", "Row", "Setting"]

Figures = dict[str, float]


@dataclass(frozen=True)
class Setting:
    """
    How long, how much, and where.
    """

    processes: Processes
    origins: Origins
    seconds: float
    quick: bool


@dataclass(frozen=True)
class Metric:
    """
    One figure of a row.

    @ivar less: whether less is better.
    """

    name: str
    title: str
    unit: str
    less: bool = False


@dataclass(frozen=True)
class Bar:
    """
    What we want of a figure.

    @ivar than: the way to compare with; C{""} for the figure itself.
    @ivar factor: at least so many times, or at most, where less is better.
    """

    metric: str
    way: str
    factor: float
    than: str = ""


@dataclass(frozen=True)
class Row:
    """
    One kind of work.

    @ivar measure: measures it once, on a way that is open.
    @ivar ways: which ways can be asked; all if C{None}.
    @ivar needs: programs that it takes.
    @ivar once: whether one run shows all there is.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Setting, str, Reached], Figures]
    bars: tuple[Bar, ...] = ()
    ways: tuple[str, ...] | None = None
    needs: tuple[str, ...] = ()
    once: bool = False


def _bulk(setting: Setting, way: str, reached: Reached) -> Figures:
    return {"rate": clients.bulk(reached.ports["iperf"], setting.seconds)}


def _requests(close: bool) -> Callable[[Setting, str, Reached], Figures]:
    def measure(setting: Setting, way: str, reached: Reached) -> Figures:
        found = clients.requests(reached.ports["http"], setting.seconds, 32, close)
        return {"rate": found["rate"], "errors": found["errors"]}

    return measure


def _by_host(setting: Setting, way: str, reached: Reached) -> Figures:
    """
    The same server by its name, its requests looked at and not.
    """
    data = "tls" if way == "ours-tls" else "plain"
    target = setting.origins.ports()["http"]
    echo = ("echo", setting.origins.echo, free_port())  # whose port tells when all is there
    fresh = start_relaytunnel(
        setting.processes, [("looked", target, 0), ("raw", target, 0), echo], data, raw=["raw"]
    )
    rates: dict[str, list[float]] = {"looked": [], "raw": []}
    failed = 0.0
    try:
        for name in ("looked", "raw", "looked", "raw"):
            found = clients.requests(fresh.shared, setting.seconds, 32, False, f"{name}.localhost")
            failed += found["errors"]
            rates[name].append(found["rate"])
    finally:
        setting.processes.stop(fresh.processes)
    looked, raw = (sum(each) / len(each) for each in rates.values())
    return {"rate": looked, "errors": failed, "raw": raw, "ratio": looked / raw}


def _latency(setting: Setting, way: str, reached: Reached) -> Figures:
    return clients.ping(reached.ports["echo"], setting.seconds)


@contextlib.contextmanager
def _saturated(port: int, seconds: float) -> Iterator[None]:
    """
    Somebody else moves as much as there is room for.
    """
    command = ["iperf3", "-c", "127.0.0.1", "-p", str(port), "-t", f"{seconds + 2:.0f}"]
    for _ in range(20):
        load = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        if load.poll() is None:
            break  # or its server is still busy with the last one
    try:
        yield
    finally:
        load.terminate()
        load.wait()
        time.sleep(0.3)


def _fairness(setting: Setting, way: str, reached: Reached) -> Figures:
    with _saturated(reached.ports["iperf"], setting.seconds):
        return clients.ping(reached.ports["echo"], setting.seconds)


def _memory(setting: Setting, way: str, reached: Reached) -> Figures:
    few, many = (200, 800) if setting.quick else (2000, 8000)
    with _of_its_own(setting, way, reached) as fresh:
        port, pid = fresh.ports["echo"], fresh.outer
        with clients.open_sessions(port, 100):
            pass
        time.sleep(0.5)
        before = resident(pid)
        figures = {}
        with clients.open_sessions(port, few):
            time.sleep(0.5)
            figures["few"] = (resident(pid) - before) / few / 1024
            with clients.open_sessions(port, many - few):
                time.sleep(0.5)
                figures["many"] = (resident(pid) - before) / many / 1024
        return figures


@contextlib.contextmanager
def _of_its_own(setting: Setting, way: str, reached: Reached) -> Iterator[Reached]:
    """
    A way that has not served anybody yet, of ours; a peer's is what it is.
    """
    if way not in OURS:
        yield reached
        return
    data = "tls" if way == "ours-tls" else "plain"
    targets = setting.origins.ports()
    fresh = start_relaytunnel(
        setting.processes, [(name, targets[name], free_port()) for name in targets], data, RAISED
    )
    try:
        yield fresh
    finally:
        setting.processes.stop(fresh.processes)


def _is_idle(agent: int) -> bool:
    return tcp_connections(agent) <= 1


def _idle_agent(setting: Setting, way: str, reached: Reached) -> Figures:
    many = 100 if setting.quick else 1000
    sizes, connections = [], 0
    for count in (1, many):
        servers = [(f"server{number}", setting.origins.echo, 0) for number in range(count - 1)]
        port = free_port()
        fresh = start_relaytunnel(
            setting.processes, [*servers, ("echo", setting.origins.echo, port)], "plain"
        )
        try:
            with clients.open_sessions(port, 1):
                pass
            time.sleep(1)
            wait_for(
                setting.processes,
                "the agent's other connections to end",
                partial(_is_idle, fresh.inner),
            )
            connections = tcp_connections(fresh.inner)
            sizes.append(resident(fresh.inner))
        finally:
            setting.processes.stop(fresh.processes)
    return {"connections": connections, "size": (sizes[1] - sizes[0]) / (many - 1) / 1024}


def _growth(setting: Setting, way: str, reached: Reached) -> Figures:
    few, many = (10, 500) if setting.quick else (10, 8000)
    with _of_its_own(setting, way, reached) as fresh:
        costs = []
        _cost_of_session(fresh, 1)  # warm
        for count in (few, many):
            with clients.open_sessions(fresh.ports["echo"], count):
                costs.append(_cost_of_session(fresh, setting.seconds))
        return {"few": costs[0], "many": costs[1], "ratio": costs[1] / costs[0]}


def _cost_of_session(reached: Reached, seconds: float) -> float:
    """
    @return: microseconds of CPU per session, of all processes of the way.
    """
    pids = reached.pids
    before = cpu_seconds(*pids)
    found = clients.requests(reached.ports["http"], seconds, 32, True)
    return (cpu_seconds(*pids) - before) / found["count"] * 1e6


def _stalled(setting: Setting, way: str, reached: Reached) -> Figures:
    count = 100 if setting.quick else 1000
    with _of_its_own(setting, way, reached) as fresh:
        with clients.open_sessions(fresh.ports["echo"], 10):
            pass
        without = clients.ping(fresh.ports["echo"], setting.seconds)
        before = resident(fresh.outer)
        with clients.stalled_sessions(fresh.ports["http"], count):
            size = resident(fresh.outer)
            beside = clients.ping(fresh.ports["echo"], setting.seconds)
        return {
            "size": size / (1 << 20),
            "growth": (size - before) / (1 << 20),
            "ratio": beside["p50"] / without["p50"],
        }


def _burst(setting: Setting, way: str, reached: Reached) -> Figures:
    port, data = free_port(), "tls" if way == "ours-tls" else "plain"
    fresh = start_relaytunnel(setting.processes, [("http", setting.origins.http, port)], data)
    try:
        few, many = clients.burst(port, 100), clients.burst(port, 1000)
    finally:
        setting.processes.stop(fresh.processes)
    return {"few": few["refused"], "many": many["refused"], "seconds": many["seconds"]}


def _flood(setting: Setting, way: str, reached: Reached) -> Figures:
    """
    One agent says more than any good one would, of each kind; another's
    clients are served beside it.
    """
    port, data = free_port(), "tls" if way == "ours-tls" else "plain"
    fresh = start_relaytunnel(setting.processes, [("http", setting.origins.http, port)], data)

    def log() -> int:
        """
        @return: bytes in the log of the one that floods.
        """
        files = fresh.directory.glob("relay.log*")
        return sum(
            len(line)
            for each in files
            for line in each.read_bytes().splitlines(keepends=True)
            if b"flood" in line
        )

    try:
        state = fresh.directory / "state"
        invitation, *others = (_invite(state, f"flood{number}") for number in range(len(KINDS)))
        clients.visits(port, 1.0)  # warm
        quiet = clients.visits(port, setting.seconds)
        worst = written = 0.0
        for kinds in (*((kind,) for kind in KINDS), KINDS):
            with contextlib.ExitStack() as stack:
                for each, kind in zip((invitation, *others), kinds, strict=False):
                    stack.enter_context(_flooding(setting, each, kind))
                before, began = log(), time.monotonic()
                beside = clients.visits(port, setting.seconds)
                passed = time.monotonic() - began
            worst = max(worst, beside / quiet)
            written = max(written, (log() - before) / passed / 1024)
        with _flooding(setting, invitation, "once") as flooding:
            output = setting.processes.output_of(flooding)
            wait_for(setting.processes, "its servers are registered", lambda: "." in output())
            took = float(output().split()[1])
    finally:
        setting.processes.stop(fresh.processes)
    return {"quiet": quiet, "ratio": worst, "log": written, "many": took}


def _invite(state: Path, agent: str) -> str:
    """
    @return: the invitation of an account that may have any name and port.
    """
    command = [sys.executable, "-m", "relaytunnel", "invite", "--state", str(state)]
    rights = ["--publish", "*", "--ports", "20000-20999"]
    done = subprocess.run(
        [*command, *rights, agent], capture_output=True, text=True, timeout=30, check=False
    )
    found = re.search(r"relaytunnel://\S+", done.stdout)
    if found is None:
        raise BenchFailed(f"no invitation for {agent}: {done.stdout[-300:]}{done.stderr[-300:]}")
    return found[0]


@contextlib.contextmanager
def _flooding(setting: Setting, invitation: str, kind: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "bench.flooding", invitation, kind]
    flooding = setting.processes.start("flooding", command)
    output = setting.processes.output_of(flooding)
    try:
        wait_for(setting.processes, f"a flood of {kind}", lambda: "begun" in output())
        time.sleep(0.5)
        yield flooding
    finally:
        setting.processes.stop([flooding])


def _deaths(setting: Setting, way: str, reached: Reached) -> Figures:
    first, count = (300, 2000) if setting.quick else (30_000, 100_000)
    with _of_its_own(setting, way, reached) as fresh:
        deaths = clients.Deaths(fresh.ports["mortal"])
        deaths.run(first)
        pids = (fresh.outer, fresh.inner)
        before, size = _rest(pids)
        deaths.run(count)
        after, grown = _rest(pids)
        clients.verify(fresh.ports)
        return {
            "sessions": float(count),
            "descriptors": float(after - before),
            "growth": (grown - size) / (1 << 20),
        }


_QUIET = 15.0
"""Seconds without a descriptor less; a parked channel stays for 10."""


def _rest(pids: tuple[int, ...]) -> tuple[int, int]:
    """
    Wait until parked channels, and those that linger, are gone.

    @return: how many descriptors are open, and bytes of memory in use.
    """
    least, since = 1 << 30, time.monotonic()
    while time.monotonic() - since < _QUIET:
        now = sum(map(descriptors, pids))
        if now < least:
            least, since = now, time.monotonic()
        time.sleep(0.5)
    return least, sum(map(resident, pids))


_RATE = Metric("rate", "", "/s")

ROWS = [
    Row(
        "bulk",
        "bulk, one connection",
        (Metric("rate", "", "Gbit/s"),),
        _bulk,
        (
            Bar("rate", "ours", 1.0, "haproxy"),
            Bar("rate", "ours", 2.0, "ssh"),
            Bar("rate", "ours-tls", 1.0, "haproxy-tls"),
            Bar("rate", "ours-tls", 1.3, "ssh"),
        ),
        needs=("iperf3",),
    ),
    Row(
        "keepalive",
        "requests on 32 connections",
        (_RATE, Metric("errors", "errors", "", True)),
        _requests(False),
        (
            Bar("rate", "ours", 0.8, "haproxy"),
            Bar("rate", "ours", 3.0, "ssh"),
            Bar("rate", "ours-tls", 0.7, "haproxy-tls"),
            Bar("rate", "ours-tls", 2.5, "ssh"),
        ),
        needs=("wrk",),
    ),
    Row(
        "sessions",
        "new sessions, 32 at a time",
        (_RATE, Metric("errors", "errors", "", True)),
        _requests(True),
        (
            Bar("rate", "ours", 1.0, "ssh"),
            *(Bar("rate", "ours", 1.0, peer) for peer in ("rathole", "frp", "bore", "chisel")),
            Bar("rate", "ours-tls", 2.0, "haproxy-tls"),
        ),
        needs=("wrk",),
    ),
    Row(
        "by-host",
        "requests on 32 connections, by Host",
        (
            _RATE,
            Metric("errors", "errors", "", True),
            Metric("raw", "raw", "/s"),
            Metric("ratio", "ratio", ""),
        ),
        _by_host,
        (Bar("ratio", "ours", 0.7), Bar("ratio", "ours-tls", 0.7)),
        ways=("ours", "ours-tls"),
        needs=("wrk",),
    ),
    Row(
        "latency",
        "round trip of 64 bytes, one connection",
        (Metric("p50", "p50", "ms", True), Metric("p99", "p99", "ms", True)),
        _latency,
        (
            Bar("p50", "ours", 1.15, "haproxy"),
            Bar("p99", "ours", 2.0, "haproxy"),
        ),
    ),
    Row(
        "fairness",
        "the same beside a connection that saturates the way",
        (Metric("p50", "p50", "ms", True), Metric("p99", "p99", "ms", True)),
        _fairness,
        (Bar("p99", "ours", 5.0), Bar("p99", "ours-tls", 5.0)),
        needs=("iperf3",),
    ),
    Row(
        "memory",
        "the relay's memory per idle session",
        (
            Metric("few", "with 2,000", "KiB", True),
            Metric("many", "with 8,000", "KiB", True),
        ),
        _memory,
        (
            *(Bar(metric, "ours", 6.0) for metric in ("few", "many")),
            *(Bar(metric, "ours-tls", 40.0) for metric in ("few", "many")),
        ),
        ways=("ours", "ours-tls"),
    ),
    Row(
        "idle-agent",
        "an idle agent with 1,000 servers",
        (
            Metric("connections", "connections", "", True),
            Metric("size", "memory per server", "KiB", True),
        ),
        _idle_agent,
        (Bar("connections", "ours", 1.0), Bar("size", "ours", 1.0)),
        ways=("ours",),
    ),
    Row(
        "growth",
        "CPU per new session beside 10 and 8,000 open ones",
        (
            Metric("few", "beside 10", "us", True),
            Metric("many", "beside 8,000", "us", True),
            Metric("ratio", "ratio", "", True),
        ),
        _growth,
        (Bar("ratio", "ours", 1.2), Bar("ratio", "ours-tls", 1.2)),
        ways=("ours", "ours-tls"),
        needs=("wrk",),
    ),
    Row(
        "stalled",
        "1,000 sessions whose clients do not read",
        (
            Metric("size", "the relay's memory", "MiB", True),
            Metric("growth", "of it for them", "MiB", True),
            Metric("ratio", "another's p50, compared with before", "", True),
        ),
        _stalled,
        (Bar("size", "ours", 300.0), Bar("size", "ours-tls", 300.0)),
        ways=("ours", "ours-tls"),
    ),
    Row(
        "burst",
        "clients of one address at once, at default limits",
        (
            Metric("few", "refused of 100", "", True),
            Metric("many", "refused of 1,000", "", True),
            Metric("seconds", "until 1,000 were served", "s", True),
        ),
        _burst,
        tuple(
            Bar(metric, way, most)
            for metric, most in (("few", 0.0), ("many", 0.0), ("seconds", 10.0))
            for way in OURS
        ),
        ways=("ours", "ours-tls"),
    ),
    Row(
        "flood",
        "new sessions beside an agent that floods its control channel, at default limits",
        (
            Metric("quiet", "p50 before", "ms", True),
            Metric("ratio", "p50 of the worst flood, compared with it", "", True),
            Metric("log", "written to the log about it", "KiB/s", True),
            Metric("many", "until 1,000 servers are registered", "s", True),
        ),
        _flood,
        tuple(Bar("ratio", way, 3.0) for way in OURS),
        ways=("ours", "ours-tls"),
    ),
    Row(
        "deaths",
        "sessions that die at random, at either end",
        (
            Metric("sessions", "sessions", ""),
            Metric("descriptors", "descriptors left over", "", True),
            Metric("growth", "memory grown by", "MiB", True),
        ),
        _deaths,
        tuple(
            Bar(metric, way, most)
            for metric, most in (("descriptors", 0.0), ("growth", 8.0))
            for way in OURS
        ),
        ways=("ours", "ours-tls"),
        once=True,
    ),
]

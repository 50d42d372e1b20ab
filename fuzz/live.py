"""
A running relay and agent, which serve some while others talk nonsense to them.

C{python -m fuzz.live} starts both as a user does, each a C{twistd} with a log
file.  A checker makes a session by HTTP and one with a server that sends back
what it gets, every 50 ms, and none may fail.  In the end both have to be as
they were in the beginning, and to have nothing to complain of in their logs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import shutil
import socket
import socketserver
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench.processes import (
    BenchFailed,
    Processes,
    answers,
    free_port,
    more_descriptors,
    wait_for,
)
from bench.report import align
from fuzz.hostile import KINDS, Settings
from relaytunnel.wire.invitation import Invitation

_HOME = Path(__file__).resolve().parent.parent
_TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
_CLI = "import sys; from relaytunnel.cli import main; sys.exit(main())"
_CHECKER = "127.201.0."
_EVERY = 0.05
_AT_ONCE = 64
_QUIET = 60.0
_LAST = 20.0
_PAGE = b"hello, world\n" * 50
_COMPLAINTS = re.compile(r"Unhandled|Traceback|our own fault", re.IGNORECASE)

_RELAY = """
[relay]
name = "localhost"
state = "{d}/state"
[listen]
agents = "tcp:{agents}:interface=127.0.0.1"
clients = ["tcp:{clients}:interface=127.0.0.1"]
admin = "off"
[limits]
parked = 2  # so that all is quiet again soon
"""
_AGENT = """
[agent]
join-file = "{d}/state/invitation"
[limits]
parked = 2
[[server]]
id = "checked-page"
target = "127.0.0.1:{page}"
data = "plain"
[[server]]
id = "checked-echo"
target = "127.0.0.1:{echo}"
data = "{data}"
reach = ["port:{port}"]
"""
_VISITED = """
[[server]]
id = "{name}"
target = "127.0.0.1:{echo}"
listed = true
"""
_NAMES = ("web", "web.example", "db.example")
"""What the inputs name: these servers are for those who talk nonsense."""


# Servers


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(1 << 16):
            self.request.sendall(data)


class _Page(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.request.recv(1 << 16)
            if not data:
                return
            head += data
        fields = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(_PAGE)
        self.request.sendall(b"HTTP/1.1 200 OK\r\n" + fields + _PAGE)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, handler: type[socketserver.BaseRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.port: int = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """
        Its client has reset the connection.
        """


# Relay and agent


@dataclass(frozen=True)
class _Running:
    """
    What runs.

    @ivar clients: the port for clients.
    @ivar agents: the port for agents.
    @ivar port: that of the server that sends back what it gets.
    @ivar secret: that of the agent that goes mad.
    """

    directory: Path
    clients: int
    agents: int
    port: int
    secret: str
    processes: dict[str, subprocess.Popen[bytes]]

    def descriptors(self) -> dict[str, Counter[str]]:
        """
        @return: what each process has open: files by name, sockets together;
            without the database, which each thread opens when it needs it.
        """
        state = str(self.directory / "state")
        return {
            name: Counter(
                {what: count for what, count in _open_by(each.pid).items() if state not in what}
            )
            for name, each in self.processes.items()
        }

    def refusals(self) -> list[str]:
        """
        @return: what the relay says of sessions of the checker's that it did
            not serve.
        """
        lines = (self.directory / "relay.log").read_text(errors="replace").splitlines()
        return [line for line in lines if f"client {_CHECKER}" in line and "not served" in line]

    def complaints(self) -> list[str]:
        """
        @return: what the logs should not have in them, with what follows it.
        """
        found = []
        for name in self.processes:
            lines = (self.directory / f"{name}.log").read_text(errors="replace").splitlines()
            for number, line in enumerate(lines):
                if _COMPLAINTS.search(line):
                    found.append("\n".join([f"{name}.log:", *lines[number : number + 30]]))
        return found


def _start(processes: Processes, page: int, echo: int, data: str) -> _Running:
    d = processes.make_directory("fuzz")
    agents, clients, port = free_port(), free_port(), free_port()
    (d / "relay.toml").write_text(_RELAY.format(d=d, agents=agents, clients=clients))
    text = _AGENT.format(d=d, page=page, echo=echo, data=data, port=port)
    visited = (_VISITED.format(name=name, echo=echo) for name in _NAMES)
    (d / "agent.toml").write_text(text + "".join(visited))

    def twistd(plugin: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _TWISTD, "-n", "--pidfile=", f"--logfile={plugin}.log"]
        return processes.start(plugin, [*command, plugin, "--config", f"{plugin}.toml"], d)

    relay = twistd("relay")
    wait_for(processes, "the relay's invitation", (d / "state" / "invitation").exists)
    wait_for(processes, "the relay's port", lambda: answers(agents))
    invite = [sys.executable, "-c", _CLI, "invite", "mad", "--state", str(d / "state")]
    done = subprocess.run(
        [*invite, "--publish", "mad.web"], capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode:
        raise BenchFailed(f"no second agent can be invited: {done.stderr}")
    secret = Invitation.parse(done.stdout).secret
    agent = twistd("agent")
    wait_for(processes, "the agent's server", lambda: answers(port))
    return _Running(d, clients, agents, port, secret, {"relay": relay, "agent": agent})


def _open_by(pid: int) -> Counter[str]:
    found: Counter[str] = Counter()
    with suppress(FileNotFoundError):  # it has ended
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found[os.readlink(each).partition(":[")[0]] += 1
    return found


# The checker


@dataclass
class _Checks:
    """
    What became of the sessions of one kind.

    @ivar took: the seconds of those that came to something.
    """

    took: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, check: Future[float], patience: float) -> None:
        fault = check.exception()
        if fault is not None:
            self.failures.append(f"{type(fault).__name__}: {fault}")
            return
        self.took.append(check.result())
        if self.took[-1] > patience:
            self.failures.append(f"it took {self.took[-1]:.2f} s")

    def row(self) -> list[str]:
        cuts = statistics.quantiles([*self.took, *self.took] or [0, 0], n=100, method="inclusive")
        times = (cuts[49], cuts[98], max(self.took, default=0))
        return [
            f"{len(self.took):,}",
            f"{len(self.failures)}",
            *(f"{1000 * each:,.0f} ms" for each in times),
        ]


def _check_page(running: _Running) -> None:
    with _connect(running.clients) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: checked-page\r\n\r\n")
        heard = _all(sock)
    if not heard.startswith(b"HTTP/1.1 200 OK\r\n") or not heard.endswith(_PAGE):
        raise BenchFailed(f"this came instead of the page: {heard[:300]!r}")


def _check_echo(running: _Running) -> None:
    sent = random.randbytes(random.choice((1, 1000, 30_000, 60_000)))
    with _connect(running.port) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        heard = _all(sock)
    if hashlib.sha256(heard).digest() != hashlib.sha256(sent).digest():
        raise BenchFailed(f"{len(heard)} bytes came back of {len(sent)}, or other ones")


def _connect(port: int) -> socket.socket:
    """
    Connect from one of many addresses, as each has its share of sessions.
    """
    source = f"{_CHECKER}{random.randint(1, 254)}"
    return socket.create_connection(("127.0.0.1", port), _LAST, (source, 0))


def _all(sock: socket.socket) -> bytes:
    heard = bytearray()
    while data := sock.recv(1 << 16):
        heard += data
    return bytes(heard)


_CHECKS: dict[str, Callable[[_Running], None]] = {"page": _check_page, "echo": _check_echo}


def _timed(check: Callable[[_Running], None], running: _Running) -> float:
    began = time.monotonic()
    check(running)
    return time.monotonic() - began


def _check(running: _Running, busy: Callable[[], bool], patience: float) -> dict[str, _Checks]:
    """
    Make sessions as long as somebody is busy.
    """
    under_way: list[tuple[str, Future[float]]] = []
    told = due = time.monotonic()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while busy():
            if pool._work_queue.qsize() < _AT_ONCE:
                under_way += [
                    (name, pool.submit(_timed, check, running)) for name, check in _CHECKS.items()
                ]
            due = max(due + _EVERY, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
            if time.monotonic() - told > 5:
                told = time.monotonic()
                over = sum(each.done() for _, each in under_way)
                _say(f"{over} sessions checked; descriptors: {_listed(running.descriptors())}")
    checks = {name: _Checks() for name in _CHECKS}
    for name, each in under_way:
        checks[name].add(each, patience)
    return checks


# The command


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _listed(figures: dict[str, Counter[str]]) -> str:
    return ", ".join(f"{name} {figure.total()}" for name, figure in figures.items())


def _settle(running: _Running, before: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
    """
    Wait until nobody has more open than before, for a bounded time.
    """
    until = time.monotonic() + _QUIET
    while True:
        now = running.descriptors()
        if all(not now[name] - before[name] for name in before) or time.monotonic() > until:
            return now
        time.sleep(0.2)


def _harass(
    running: _Running, options: argparse.Namespace
) -> tuple[dict[str, int], dict[str, _Checks]]:
    """
    Have nonsense talked, and check sessions meanwhile.

    @return: what was said, and what became of the sessions.
    """
    settings = Settings(
        clients=running.clients,
        agents=running.agents,
        secret=running.secret,
        seconds=options.seconds,
        seed=options.seed,
        connections=options.connections,
    )
    command = [sys.executable, "-m", "fuzz.hostile", msgspec.json.encode(settings).decode()]
    with subprocess.Popen(command, cwd=_HOME, stdout=subprocess.PIPE) as hostile:
        try:
            checks = _check(running, lambda: hostile.poll() is None, options.patience)
        except BaseException:
            hostile.kill()
            raise
        assert hostile.stdout is not None
        said = hostile.stdout.read()
    if hostile.returncode:
        raise BenchFailed(f"those who talk nonsense ended with {hostile.returncode}")
    counts: dict[str, int] = msgspec.json.decode(said)
    return counts, checks


def _run(options: argparse.Namespace) -> int:
    servers = [_Server(_Page), _Server(_Echo)]
    with Processes() as processes:
        data = "plain" if options.plain else "tls"
        running = _start(processes, servers[0].port, servers[1].port, data)
        time.sleep(1)
        before = running.descriptors()
        counts, checks = _harass(running, options)
        after = _settle(running, before)
        faults = [
            f"the {name} has ended with {each.returncode}"
            for name, each in running.processes.items()
            if each.poll() is not None
        ]
        faults += [
            f"the {name} has more open than in the beginning: {dict(more)}"
            for name in before
            if (more := after[name] - before[name])
        ]
        complaints = running.complaints()
        refusals = running.refusals()
        if options.logs is not None:
            options.logs.mkdir(parents=True, exist_ok=True)
            for log in running.directory.glob("*.log"):
                shutil.copy(log, options.logs)
    for server in servers:
        server.shutdown()
        server.server_close()
    for name, each in checks.items():
        faults += [f"{name}: {fault}" for fault in each.failures[:10]]
        if not each.took:
            faults.append(f"{name}: nothing was checked")
    if counts.get("agent", 0) > 3 and not counts.get("let in"):
        faults.append("the agent that goes mad was never let in")
    print(_tables(counts, checks, before, after, complaints))
    for fault in (*faults, *refusals[:5], *complaints[:5]):
        print(f"\n{fault}")
    return int(bool(faults or complaints))


def _tables(
    counts: dict[str, int],
    checks: dict[str, _Checks],
    before: dict[str, Counter[str]],
    after: dict[str, Counter[str]],
    complaints: Sequence[str],
) -> str:
    nonsense = [["nonsense", "connections", "cut off"]]
    for kind in KINDS:
        figures = (counts.get(kind, 0), counts.get(f"{kind} cut off", 0))
        nonsense.append([kind, *(f"{each:,}" for each in figures)])
    checked = [["session", "made", "failed", "p50", "p99", "slowest"]]
    checked += [[name, *each.row()] for name, each in checks.items()]
    state = [["descriptors", "before", "after"]]
    state += [[name, str(before[name].total()), str(after[name].total())] for name in before]
    said = f"  {counts.get('bytes', 0):,} bytes of nonsense, {len(complaints)} complaints in logs"
    return "\n\n".join([*map(align, (nonsense, checked, state)), said])


def main(arguments: Sequence[str] | None = None) -> int:
    """
    @return: the exit code: 0; 1 if something is not as it has to be; 2 for
        options that make no sense.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fuzz.live", description="Talk nonsense to a relay that serves others."
    )
    add = parser.add_argument
    add("--seconds", type=float, metavar="N", default=60.0, help="how long (default: 60)")
    add("--connections", type=int, metavar="N", default=24, help="at a time (default: 24)")
    add("--patience", type=float, metavar="S", default=2.0, help="of a session (default: 2)")
    add("--seed", type=int, metavar="N", default=1, help="of the random numbers (default: 1)")
    add("--plain", action="store_true", help="check sessions on plain data channels only")
    add("--logs", type=Path, metavar="DIR", help="where to put the logs of relay and agent")
    options = parser.parse_args(arguments)
    if not 1 <= options.seconds <= 1_000_000:
        parser.error("--seconds is from 1 to 1000000")
    if not 1 <= options.connections <= 1000:
        parser.error("--connections is from 1 to 1000")
    more_descriptors()
    try:
        return _run(options)
    except BenchFailed as fault:
        print(f"fuzz.live: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

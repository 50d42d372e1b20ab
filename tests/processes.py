"""
Real programs for tests: started, watched, and never left behind.

A L{Program} is one process with its output; L{start_relay} and L{start_agent}
are the two programs of relaytunnel, as people run them.  Everything here
waits for a bounded time and ends with the test.  What the programs are
visited with, and over which network, is the business of C{tests.programs}
and C{tests.lab}.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import shutil
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProcessTransport, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import FailTest, SynchronousTestCase, TestCase

__all__ = [
    "Agent",
    "Finished",
    "Program",
    "ProgramFailed",
    "Relay",
    "empty_directory",
    "free_port",
    "free_row",
    "listening_ports",
    "missing_programs",
    "own_port",
    "random_file",
    "run",
    "sha256_of",
    "start_agent",
    "start_relay",
    "until",
]

_T = TypeVar("_T")

_clock = cast(IReactorTime, _reactor)
_processes = cast(IReactorProcess, _reactor)

OWN_PORTS = range(20000, 21000)
"""The ports of its own that a server may ask a relay for, by default."""

_TEST_PORTS = range(21000, 29000)
_ROWS_OF_PORTS = range(29000, 32000)
_PLACES = 8
"""
Below what Linux gives to outgoing connections (32768 and up), so that no
connection takes a port between our asking for it and the program's listening.
"""

_PAGE = 1 << 20
_TAIL = 4000


class ProgramFailed(FailTest):
    """
    A program did not do what the test waited for.
    """


class Finished(NamedTuple):
    """
    How a program ended: its exit code (negative: the signal that killed it)
    and everything it said.
    """

    code: int
    out: str
    err: str


def missing_programs(*names: str, variable: str = "RELAYTUNNEL_PROGRAMS") -> str | None:
    """
    Say why a test that needs these programs must be skipped, or L{None}.

    With C{require} in the environment variable nothing is skipped: the test
    runs, and fails when it starts the program that is missing.  With C{skip}
    everything is.
    """
    asked = os.environ.get(variable)
    if asked == "require":
        return None
    if asked == "skip":
        return f"{variable} is skip"
    missing = [name for name in names if shutil.which(name) is None]
    return f"not installed here: {', '.join(missing)}" if missing else None


_found_lately: deque[int] = deque(maxlen=32)


def free_port(ports: Sequence[int] = _TEST_PORTS) -> int:
    """
    Find a TCP port on which nobody listens, on any address of this machine,
    and which was not found lately.

    @raise ProgramFailed: after 100 ports that were all taken.
    """
    # Each process of the tests looks in another place: between this look and
    # the moment when somebody listens there, another could find the same port.
    ours = ports[os.getpid() % _PLACES :: _PLACES]
    for port in random.sample(ours, min(100 + len(_found_lately), len(ours))):
        if port in _found_lately:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            _found_lately.append(port)
            return port
    raise ProgramFailed(f"found no free port between {ports[0]} and {ports[-1]}")


def free_row(count: int) -> int:
    """
    Find some ports in a row on which nobody listens on loopback.

    @return: the first of them.
    @raise ProgramFailed: after 100 rows in which somebody did.
    """
    size = len(_ROWS_OF_PORTS) // _PLACES
    start = _ROWS_OF_PORTS.start + os.getpid() % _PLACES * size
    for _ in range(100):
        first = random.randrange(start, start + size - count)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise ProgramFailed(f"found no {count} free ports from {start} to {start + size - 1}")


def own_port() -> int:
    """
    Find a free port that a published server may ask the relay for.
    """
    return free_port(OWN_PORTS)


def empty_directory(testcase: SynchronousTestCase) -> Path:
    """
    Make a directory for this test, with an absolute name; it goes when the test is over.
    """
    directory = Path(testcase.mktemp()).absolute()
    directory.mkdir(parents=True)
    # Some tests leave half a gigabyte.
    testcase.addCleanup(shutil.rmtree, directory, ignore_errors=True)
    return directory


def random_file(path: Path, size: int) -> str:
    """
    Fill a file with C{size} random bytes.

    @return: their SHA-256, in hexadecimal.
    """
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, _PAGE):
            page = os.urandom(min(_PAGE, size - start))
            digest.update(page)
            file.write(page)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """
    The SHA-256 of a file, in hexadecimal.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def until(
    condition: Callable[[], _T | None], seconds: float, what: str, interval: float = 0.05
) -> _T:
    """
    Ask again and again until the answer is true, and return it.

    @raise ProgramFailed: when it is still not true after C{seconds}.
    """
    deadline = _clock.seconds() + seconds
    while True:
        if answer := condition():
            return answer
        if _clock.seconds() >= deadline:
            raise ProgramFailed(f"not within {seconds} s: {what}")
        await deferLater(_clock, interval)


class _Living(NamedTuple):
    """
    A process as the kernel knows it: a process ID may be used again, but not
    with the same starting time.
    """

    pid: int
    started: str

    @classmethod
    def look(cls, pid: int) -> _Living | None:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        # The name stands in parentheses and may contain anything.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] == "Z" else cls(pid, fields[19])

    def kill(self) -> None:
        if _Living.look(self.pid) == self:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def _descendants(pid: int) -> list[_Living]:
    """
    The processes that a process started, and those that they started.
    """
    found: list[_Living] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids = [int(word) for word in children.read_text().split()]
        except OSError:
            continue
        for child in pids:
            living = _Living.look(child)
            if living is not None:
                found.append(living)
            found.extend(_descendants(child))
    return found


def _members(session: int) -> list[_Living]:
    """
    The processes of a session that outlived its leader.
    """
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        pid = int(directory.name)
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(pid) == session and (living := _Living.look(pid)) is not None:
                found.append(living)
    return found


def listening_ports(pid: int) -> set[int]:
    """
    The TCP ports that have a listener in the network namespace of a process.
    """
    ports: set[int] = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()
        except OSError:
            continue
        for line in lines[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":
                ports.add(int(local.rpartition(":")[2], 16))
    return ports


def _network(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return None


class Program(ProcessProtocol):
    """
    One running process and what it has said so far.

    It ends with the test at the latest, together with every process that it
    started; and if the tests are killed, the kernel kills it, too.
    """

    transport: IProcessTransport
    ends_by = signal.SIGTERM

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self.pid = 0
        self.code: int | None = None
        self._ended = False
        self._orphans: list[_Living] = []
        self._streams: dict[int, list[bytes]] = {1: [], 2: []}
        self._both: list[bytes] = []
        self._watchers: list[Deferred[None]] = []

    @classmethod
    def start(
        cls,
        testcase: TestCase,
        *command: str | Path,
        namespace: str | None = None,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: Path | None = None,
        stdout: Path | None = None,
    ) -> Program:
        """
        Start a program.

        @param command: its name, found along PATH, and its arguments.
        @param namespace: the network namespace to run it in.
        @param user: whom to run it as, if not ourselves.
        @param environment: variables beside those that we have.
        @param stdin: the file that it reads as its standard input; without
            it, there is nothing to read.
        @param stdout: the file that takes its standard output, which is then
            not collected here.

        @raise ProgramFailed: when there is no such program.
        """
        words = [str(word) for word in command]
        if namespace is not None:
            words = ["ip", "netns", "exec", namespace, *words]
        # A session of its own, by which we know its offspring when it is gone.
        words = ["setsid", *words]
        words = ["setpriv", "--pdeathsig=KILL", *_as_user(user), "--", *words]
        for name in (words[0], str(command[0])):
            if shutil.which(name) is None:
                raise ProgramFailed(f"there is no program {name}")

        program = cls([str(word) for word in command])
        with open(stdin or os.devnull, "rb") as source, open(stdout or os.devnull, "wb") as sink:
            transport = _processes.spawnProcess(
                program,
                cast(str, shutil.which(words[0])),
                words,
                {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
                childFDs={
                    0: source.fileno(),
                    1: "r" if stdout is None else sink.fileno(),
                    2: "r",
                },
            )
        program.pid = transport.pid
        testcase.addCleanup(program.stop)
        return program

    @property
    def output(self) -> str:
        """
        Standard output and standard error, in the order of their arrival.
        """
        return b"".join(self._both).decode("utf-8", "replace")

    @property
    def running(self) -> bool:
        return self.code is None

    async def wait_for(self, pattern: str, seconds: float = 20) -> re.Match[str]:
        """
        Wait until the program has said something, and return the match.

        @param pattern: a regular expression; C{^} and C{$} match at lines.
        @raise ProgramFailed: when it has not said so in time, or ends.
        """
        expression = re.compile(pattern, re.MULTILINE)

        def said() -> re.Match[str] | None:
            match = expression.search(self.output)
            if match is None and self._ended:
                raise self.failed(f"ended with {self.code} and had not said {pattern!r}")
            return match

        return await self._until(said, seconds, f"did not say {pattern!r}")

    async def finished(self, seconds: float = 45) -> Finished:
        """
        Wait until the program has ended by itself.

        @raise ProgramFailed: when it still runs after C{seconds}.
        """
        await self._until(lambda: self._ended or None, seconds, "did not end")
        return Finished(cast(int, self.code), self._text(1), self._text(2))

    async def stop(self, seconds: float = 10, by: signal.Signals | None = None) -> None:
        """
        End the program: with a signal, and after C{seconds} with SIGKILL.

        @param by: C{ends_by}, if it is not given.

        Nothing happens when it has ended already.
        """
        offspring = _descendants(self.pid) if self.running else []
        if self.running:
            self.transport.signalProcess((by or self.ends_by).name.removeprefix("SIG"))
            try:
                await self._until(lambda: None if self.running else True, seconds, "did not end")
            except ProgramFailed:
                offspring = [*offspring, *_descendants(self.pid)]
                if self.running:
                    self.transport.signalProcess("KILL")
        for living in (*offspring, *self._orphans):
            living.kill()
        try:
            await self._until(lambda: self._ended or None, 10, "did not end when killed")
        finally:
            self.transport.loseConnection()

    def _text(self, stream: int) -> str:
        return b"".join(self._streams[stream]).decode("utf-8", "replace")

    def failed(self, what: str) -> ProgramFailed:
        """
        Make the error that says what this program did, and what it said last.
        """
        said = self.output
        tail = said if len(said) <= _TAIL else "[...]" + said[-_TAIL:]
        return ProgramFailed(f"{' '.join(self.command)}\n{what}; it said:\n{tail}")

    async def _until(self, asked: Callable[[], _T | None], seconds: float, what: str) -> _T:
        deadline = _clock.seconds() + seconds
        while True:
            answer = asked()
            if answer is not None:
                return answer
            left = deadline - _clock.seconds()
            if left <= 0:
                raise self.failed(f"{what} within {seconds} s")
            await self._next_event(left)

    def _next_event(self, seconds: float) -> Deferred[None]:
        event: Deferred[None] = Deferred()
        self._watchers.append(event)
        alarm = _clock.callLater(seconds, self._tell)

        def seen(result: None) -> None:
            if alarm.active():
                alarm.cancel()

        return event.addCallback(seen)

    def _tell(self) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.callback(None)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._streams[childFD].append(data)
        self._both.append(data)
        self._tell()

    def processExited(self, reason: Failure) -> None:
        status = reason.value
        ending = getattr(status, "signal", None)
        self.code = -ending if ending is not None else getattr(status, "exitCode", 0)
        # Now, while nobody else can have got our process ID.
        self._orphans = _members(self.pid)
        self._tell()

    def processEnded(self, reason: Failure) -> None:
        self._ended = True
        self._tell()


def _as_user(user: str | None) -> list[str]:
    if user is None:
        return []
    return [f"--reuid={user}", f"--regid={user}", "--init-groups"]


async def run(
    testcase: TestCase,
    *command: str | Path,
    seconds: float = 45,
    namespace: str | None = None,
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: Path | None = None,
    stdout: Path | None = None,
) -> Finished:
    """
    Start a program (see L{Program.start}) and wait until it has ended.

    By default for less time than trial gives a test (120 s): what trial has
    given up goes on in the background, and disturbs the next test.
    """
    program = Program.start(
        testcase,
        *command,
        namespace=namespace,
        user=user,
        environment=environment,
        stdin=stdin,
        stdout=stdout,
    )
    return await program.finished(seconds)


def _twistd() -> str:
    beside = Path(sys.executable).parent / "twistd"
    return str(beside) if beside.exists() else "twistd"


@dataclass(frozen=True)
class Relay:
    """
    A running relay, and where agents, clients and its owner find it.
    """

    program: Program
    host: str
    agents_port: int
    clients_port: int
    admin_port: int
    state: Path
    invitation: str

    @property
    def clients(self) -> str:
        """
        C{HOST:PORT} of the port that all servers share.
        """
        return f"{self.host}:{self.clients_port}"


@dataclass(frozen=True)
class Agent:
    """
    A running agent, and where it says its servers are reached.
    """

    program: Program
    reached: Mapping[str, str]


async def start_relay(
    testcase: TestCase,
    state: Path,
    *extra: str,
    namespace: str | None = None,
    host: str = "127.0.0.1",
    agents_port: int | None = None,
    clients_port: int | None = None,
    seconds: float = 30,
    before: Sequence[str] = (),
) -> Relay:
    """
    Start C{twistd relay} and wait until agents and clients can connect.

    @param state: its state directory, which need not exist yet.
    @param extra: options beside those that every test needs.
    @param namespace: the network namespace to run it in; it then listens on
        all addresses there, and on loopback otherwise.
    @param host: the address under which agents and clients find it.
    @param before: the words of a command that runs it.
    """
    where = ":interface=127.0.0.1" if namespace is None else ""
    agents_port = agents_port or (free_port() if namespace is None else 7000)
    clients_port = clients_port or (free_port() if namespace is None else 8000)
    admin_port = free_port() if namespace is None else 7080
    program = Program.start(
        testcase,
        *before,
        *(_twistd(), "-n", "--pidfile=", "relay"),
        *("--state", state),
        *("--agents", f"tcp:{agents_port}{where}"),
        *("--clients", f"tcp:{clients_port}{where}"),
        *("--admin", f"tcp:{admin_port}:interface=127.0.0.1"),
        *("--name", host),
        *extra,
        namespace=namespace,
    )
    program.ends_by = signal.SIGINT  # at once, whatever runs
    file = state / "invitation"

    def ready() -> str | None:
        if not program.running:
            raise ProgramFailed(f"ended with {program.code} before it was ready")
        # At first it is still in the namespace of the tests, where other
        # programs may listen on these ports.
        if namespace is not None and _network(program.pid) == _network(os.getpid()):
            return None
        if not {agents_port, clients_port} <= listening_ports(program.pid):
            return None
        return file.read_text().strip() if file.exists() else None

    try:
        invitation = await until(ready, seconds, "listening, with an invitation in its state")
    except ProgramFailed as reason:
        raise program.failed(str(reason)) from None
    return Relay(program, host, agents_port, clients_port, admin_port, state, invitation)


async def start_agent(
    testcase: TestCase,
    invitation: str,
    publishes: Sequence[str],
    *extra: str,
    namespace: str | None = None,
    seconds: float = 30,
    before: Sequence[str] = (),
) -> Agent:
    """
    Start C{twistd agent} and wait until each of its servers is published.

    @param publishes: what to publish, C{NAME=TARGET} or C{NAME=TARGET,port=N}.
    @param extra: options beside those that every test needs.
    @param namespace: the network namespace to run it in.
    @param before: the words of a command that runs it.
    """
    file = empty_directory(testcase) / "invitation"
    file.touch(mode=0o600)
    file.write_text(invitation + "\n")
    options = [word for published in publishes for word in ("--publish", published)]
    program = Program.start(
        testcase,
        *before,
        *(_twistd(), "-n", "--pidfile=", "agent"),
        *("--join-file", file),
        *options,
        *extra,
        namespace=namespace,
    )
    program.ends_by = signal.SIGINT  # at once, whatever runs
    reached = {}
    for published in publishes:
        name = published.partition("=")[0]
        # With the end of the line, so that it has arrived as a whole.
        line = rf"(?:^|\s){re.escape(name)} is reached at (.+)\n"
        match = await program.wait_for(line, seconds)
        reached[name] = match[1]
    return Agent(program, reached)

"""
Processes that a benchmark starts, looks at, and ends.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "BenchFailed",
    "Processes",
    "answers",
    "children",
    "cpu_seconds",
    "descriptors",
    "free_port",
    "more_descriptors",
    "resident",
    "tcp_connections",
    "wait_for",
]

PORTS = range(20000, 21000)
"""Below what Linux gives to outgoing connections, and what a server may ask a relay for."""

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_HOME = str(Path(__file__).resolve().parent.parent)
_taken: set[int] = set()


class BenchFailed(Exception):
    """
    Something could not be measured; the message says what and why.
    """


class Processes:
    """
    What was started, in one temporary directory.  Use it in a C{with}
    statement: behind it all processes, and the directory, are gone.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="relaytunnel-bench-"))
        self._started: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._count = 0

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop([process for _, process in self._started])
        shutil.rmtree(self.directory, ignore_errors=True)

    def make_directory(self, name: str) -> Path:
        """
        @return: a directory for somebody's files.
        """
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.directory))

    def start(
        self, name: str, command: Sequence[object], directory: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """
        Start a program; what it says goes to a file.
        """
        output = self.directory / f"{name}.{self._count}.out"
        self._count += 1
        with output.open("wb") as file:
            process = subprocess.Popen(
                [os.fspath(each) if isinstance(each, Path) else str(each) for each in command],
                cwd=directory or self.directory,
                env=os.environ | {"PYTHONPATH": _HOME},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self._started.append((output.name, process))
        return process

    def output_of(self, process: subprocess.Popen[bytes]) -> Callable[[], str]:
        """
        @return: what tells all that a process has said by then.
        """
        (name,) = (name for name, each in self._started if each is process)
        return lambda: (self.directory / name).read_text(errors="replace")

    def mark(self) -> int:
        """
        @return: what C{stop_since} takes, to end all that is started from now on.
        """
        return len(self._started)

    def stop_since(self, mark: int) -> None:
        """
        End what was started since then.
        """
        self.stop([process for _, process in self._started[mark:]])

    def stop(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        """
        End these, and wait until they are gone.
        """
        for process in reversed(processes):
            if process.poll() is None:
                process.terminate()
        for process in reversed(processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        gone = set(map(id, processes))
        self._started = [each for each in self._started if id(each[1]) not in gone]

    def check(self) -> None:
        """
        @raise BenchFailed: one of them is not running any more.
        """
        for name, process in self._started:
            if process.poll() is not None:
                said = (self.directory / name).read_text(errors="replace")[-2000:]
                raise BenchFailed(f"{process.args!r} ended with {process.returncode}:\n{said}")


def wait_for(
    processes: Processes, what: str, happened: Callable[[], Any], within: float = 20.0
) -> None:
    """
    @raise BenchFailed: it has not happened in so many seconds, or a process
        is gone.
    """
    until = time.monotonic() + within
    while not happened():
        processes.check()
        if time.monotonic() > until:
            raise BenchFailed(f"not within {within:g} s: {what}")
        time.sleep(0.02)


def answers(port: int) -> bool:
    """
    Whether somebody listens there.
    """
    with socket.socket() as attempt:
        attempt.settimeout(1)
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """
    @return: a port that nobody has, and that is not given out again.
    """
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            if port not in _taken:
                _taken.add(port)
                return port
    raise BenchFailed(f"no free port from {PORTS[0]} to {PORTS[-1]}")


def more_descriptors() -> int:
    """
    Raise the soft limit of descriptors to the hard one, for what we start, too.

    @return: how many there may be.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def cpu_seconds(*pids: int) -> float:
    """
    @return: the time that these have computed so far, for themselves and in
        the kernel.
    """
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def resident(pid: int) -> int:
    """
    @return: bytes of memory in use.
    """
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def descriptors(pid: int) -> int:
    """
    @return: how many files a process has open.
    """
    return len(os.listdir(f"/proc/{pid}/fd"))


def tcp_connections(pid: int) -> int:
    """
    @return: how many established TCP connections a process has.
    """
    established = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "01":
                established.add(f"socket:[{fields[9]}]")
    count = 0
    for each in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/{pid}/fd/{each}") in established
    return count


def children(pid: int) -> list[int]:
    """
    @return: a process and all that descend from it.
    """
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{each}/task/{each}/children").read_text()
            found.extend(map(int, text.split()))
    return found

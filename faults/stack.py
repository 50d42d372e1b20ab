"""
Relay, agents, servers and clients of a campaign, as processes on their hosts.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.inspected import ASKED, FILE
from faults.network import CLIENTS, RELAY, SERVER, Network, command
from tests.lab.topology import Host

__all__ = [
    "CampaignFailed",
    "Published",
    "Running",
    "Stack",
    "State",
    "end_as_if_interrupted",
    "wait_for",
]

_HOME = str(Path(__file__).resolve().parent.parent)
_PYTHON = sys.executable
_PAGE = resource.getpagesize()
_TROUBLE = re.compile(r"^.*(?:Traceback|[Cc]ritical failure).*$", re.MULTILINE)
_FAULT = re.compile(r"^\s*[\w.]+(?:Error|Exception|Failure|Interrupt)\b")
_MOST_LINES = 40
_MORE = {"pipe": 32, "file": 4}
"""
Descriptors that a process may have more: empty pipes are kept for later, and
each thread that looks at the accounts opens them when it is first needed.
"""


class CampaignFailed(Exception):
    """
    Something did not start, or did not become ready.
    """


def end_as_if_interrupted() -> None:
    """
    Have SIGTERM do what Ctrl-C does, so that all is cleaned up.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def wait_for(what: str, seconds: float, happened: Callable[[], Any]) -> Any:
    """
    @return: the first answer that is true.
    @raise CampaignFailed: there was none in time.
    """
    until = time.monotonic() + seconds
    while not (answer := happened()):
        if time.monotonic() > until:
            raise CampaignFailed(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return answer


@dataclass
class Running:
    """
    A process.

    @ivar output: the file with all that it has said.
    """

    name: str
    process: subprocess.Popen[bytes]
    output: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        """
        What it has said so far.
        """
        return self.output.read_text(errors="replace")

    def send(self, number: int) -> None:
        """
        Send it a signal.
        """
        if self.alive:
            self.process.send_signal(number)

    def end(self, number: int = signal.SIGKILL, seconds: float = 5) -> None:
        """
        End it, at last with SIGKILL, and wait until it is gone.
        """
        self.send(number)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ready(self, pattern: str, seconds: float = 30) -> re.Match[str]:
        """
        Wait until it has said something.

        @raise CampaignFailed: it has not.
        """
        expression = re.compile(pattern, re.MULTILINE)

        def said() -> re.Match[str] | None:
            match = expression.search(self.said())
            if match is None and not self.alive:
                raise CampaignFailed(f"{self.name} ended:\n{self.said()[-2000:]}")
            return match

        try:
            found: re.Match[str] = wait_for(f"{self.name} says {pattern!r}", seconds, said)
        except CampaignFailed as fault:
            raise CampaignFailed(f"{fault}; it said:\n{self.said()[-2000:]}") from None
        return found

    def descriptors(self) -> Counter[str]:
        """
        What it has open, by kind.
        """
        kinds: Counter[str] = Counter()
        with contextlib.suppress(OSError):
            for each in os.listdir(f"/proc/{self.pid}/fd"):
                with contextlib.suppress(OSError):
                    kind, colon, _ = os.readlink(f"/proc/{self.pid}/fd/{each}").partition(":")
                    kinds[kind if colon else "file"] += 1
        return kinds

    def resident(self) -> int:
        """
        Bytes of memory in use.
        """
        with contextlib.suppress(OSError):
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE
        return 0


@dataclass(frozen=True)
class Published:
    """
    A server, and how it is published.

    @ivar own: its port of the relay.
    @ivar target: its port on its host.
    """

    name: str
    own: int
    target: int = 9000
    data: str = "tls"


@dataclass
class State:
    """
    What relay and agents hold at a moment.
    """

    descriptors: dict[str, Counter[str]] = field(default_factory=dict)
    delayed: dict[str, list[str]] = field(default_factory=dict)
    relay: dict[str, Any] = field(default_factory=dict)
    lingering: list[str] = field(default_factory=list)

    def beyond(self, start: State) -> list[str]:
        """
        @return: what there is more than at the start, a line each.
        """
        found = []
        for name, kinds in self.descriptors.items():
            before = start.descriptors.get(name, Counter())
            for kind, count in kinds.items():
                if count > before[kind] + _MORE.get(kind, 0):
                    found.append(f"{name}: {count} descriptors ({kind}), {before[kind]} at first")
        for name, calls in self.delayed.items():
            more = Counter(calls) - Counter(start.delayed.get(name, []))
            if len(calls) > len(start.delayed.get(name, [])):
                found.append(
                    f"{name}: {len(calls)} delayed calls,"
                    f" {len(start.delayed.get(name, []))} at first; new: {dict(more)}"
                )
        for key, value in self.relay.items():
            if value > start.relay.get(key, 0):
                found.append(f"relay: {value} {key}, {start.relay.get(key, 0)} at first")
        return found + self.lingering


class Stack:
    """
    What runs, on which host, and how it is looked at.

    Use it in a C{with} statement: behind it all of it is gone.

    @ivar running: by name.
    @ivar servers: what each of them has to tell, by its name.
    """

    def __init__(
        self,
        published: Mapping[str, list[Published]] | None = None,
        limits: str = "",
        patience: float = 10,
    ) -> None:
        """
        @param published: what each agent publishes; the agent C{agent} has the
            relay's first invitation.
        @param limits: lines for C{[limits]}.
        @param patience: of clients and servers, in seconds.
        """
        self.published = published or {
            "agent": [Published("web", 20001), Published("raw", 20002, data="plain")]
        }
        self.limits = limits
        self.patience = patience
        self.running: dict[str, Running] = {}
        self.servers: dict[str, Path] = {}
        self.gone: list[Running] = []
        self.environment: dict[str, dict[str, str]] = {}
        self.before: dict[str, list[str]] = {}
        self.tls = ""
        self.invitations: dict[str, str] = {}
        self._exits = contextlib.ExitStack()
        self._count = 0

    def __enter__(self) -> Stack:
        try:
            self.directory = Path(tempfile.mkdtemp(prefix="relaytunnel-faults-"))
            self._exits.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.state = self.directory / "state"
            self.network = Network(self._exits)
            self._exits.callback(self._end_all)
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._exits.close()

    def _end_all(self) -> None:
        for each in self.running.values():
            each.send(signal.SIGCONT)
            each.end()

    def mount(self, size: str) -> None:
        """
        Give the relay's state a file system of its own.
        """
        self.state.mkdir(mode=0o700)
        command("mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "faults", str(self.state))
        self._exits.callback(command, "umount", "-l", str(self.state), may_fail=True)

    def start(self, name: str, host: Host, *words: object, stdin: Any = None) -> Running:
        """
        Start a program on a host.

        It ends with this process at the latest.
        """
        self._count += 1
        output = self.directory / f"{name}.{self._count}.out"
        environment = self.environment.get(name, {})
        settings = [f"{key}={value}" for key, value in environment.items()]
        whole = [
            *("setpriv", "--pdeathsig=KILL", "--", "ip", "netns", "exec", host.namespace),
            *("env", f"{FILE}={self.directory / name}.json", *settings),
            *self.before.get(name, []),
            *map(str, words),
        ]
        with output.open("wb") as file:
            process = subprocess.Popen(
                whole,
                cwd=self.directory,
                env=os.environ | {"PYTHONPATH": _HOME, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        old = self.running.pop(name, None)
        if old is not None:
            self.gone.append(old)
        running = self.running[name] = Running(name, process, output)
        return running

    # What there is to run

    def start_relay(self, wait: bool = True) -> Running:
        """
        Start the relay.
        """
        file = self.directory / "relay.toml"
        file.write_text(
            f'[relay]\nname = "{RELAY}"\nstate = "{self.state}"\n'
            '[listen]\nagents = "tcp:7000"\nclients = ["tcp:8000"]\n'
            f'admin = "unix:{self.directory}/admin.sock"\nports = "20000-20999"\n'
            f"{self.tls}[limits]\n{self.limits}"
        )
        relay = self.start(
            "relay", self.network.relay, _PYTHON, "-m", "faults.inspected", "relay", "-c", file
        )
        if wait:
            relay.ready(r"the relay .* is here")
            if not self.invitations:
                self.invitations["agent"] = (self.state / "invitation").read_text()
        return relay

    def invite(self, agent: str) -> None:
        """
        Make an account for one more agent.

        @raise CampaignFailed: there is none.
        """
        words = (
            *("env", f"PYTHONPATH={_HOME}", _PYTHON, "-m", "relaytunnel.cli"),
            *("invite", agent, "--publish", "*", "--ports", "20000-20999"),
            *("--state", str(self.state)),
        )
        try:
            match = re.search(r"relaytunnel://\S+", command(*words))
        except OSError as fault:
            raise CampaignFailed(f"no invitation for {agent}: {fault}") from None
        if match is None:
            raise CampaignFailed(f"no invitation for {agent}")
        self.invitations[agent] = match[0]

    def start_agent(self, name: str = "agent", wait: bool = True) -> Running:
        """
        Start an agent.
        """
        joining = self.directory / f"{name}.invitation"
        joining.touch(mode=0o600)
        joining.write_text(self.invitations[name] + "\n")
        file = self.directory / f"{name}.toml"
        file.write_text(
            f'[agent]\njoin-file = "{joining}"\n[limits]\n{self.limits}'
            + "".join(
                f'[[server]]\nid = "{each.name}"\ntarget = "tcp:{SERVER}:{each.target}"\n'
                f'reach = ["name", "port:{each.own}"]\ndata = "{each.data}"\n'
                for each in self.published[name]
            )
        )
        agent = self.start(
            name, self.network.agent, _PYTHON, "-m", "faults.inspected", "agent", "-c", file
        )
        if wait:
            for each in self.published[name]:
                agent.ready(rf"(?:^|\s){each.name} is reached at ")
        return agent

    def start_server(self, name: str = "server", *targets: int, wait: bool = True) -> Running:
        """
        Start a server.
        """
        ports = targets or tuple(
            {each.target for servers in self.published.values() for each in servers}
        )
        record = self.servers[name] = self.directory / f"{name}.jsonl"
        server = self.start(
            name,
            self.network.server,
            *(_PYTHON, "-m", "faults.server", record),
            *(self.patience + 2, *ports),
        )
        if wait:
            server.ready("serving")
        return server

    def start_load(self, record: Path, *options: object) -> Running:
        """
        Let clients come.
        """
        servers = ",".join(
            f"{each.name}:{each.own}" for servers in self.published.values() for each in servers
        )
        load = self.start(
            "load",
            self.network.client,
            *(_PYTHON, "-m", "faults.load", "--record", record, "--relay", RELAY),
            *("--servers", servers, "--sources", ",".join(CLIENTS)),
            *("--patience", self.patience, *options),
        )
        load.ready("loading")
        return load

    # How it is looked at

    def status(self) -> dict[str, Any]:
        """
        What the relay's admin interface says.

        @raise OSError: it says nothing.
        """
        token = (self.state / "admin-token").read_text().strip()
        connection = _Local(self.directory / "admin.sock")
        try:
            connection.request("GET", "/api/status", headers={"Authorization": f"Bearer {token}"})
            told: dict[str, Any] = json.loads(connection.getresponse().read())
        except http.client.HTTPException as fault:
            raise OSError(f"the admin interface: {fault!r}") from None
        finally:
            connection.close()
        return told

    def delayed_calls(self, name: str) -> list[str]:
        """
        What the reactor of relay or agent still has to do.
        """
        file = self.directory / f"{name}.json"
        file.unlink(missing_ok=True)
        self.running[name].send(ASKED)
        wait_for(f"{name} tells its delayed calls", 10, file.exists)
        calls: list[str] = json.loads(file.read_text())["delayed"]
        # What a call is bound to is another object each time.
        return [re.sub(r" (?:object )?at 0x[0-9a-f]+", "", each) for each in calls]

    def look(self) -> State:
        """
        @return: what relay and agents hold now.
        """
        state = State()
        told = self.status()
        state.relay = {
            "agents": len(told["agents"]),
            "sessions": len(told["sessions"]),
            **{key: told[key] for key in ("waiting", "parked", "unauthenticated")},
        }
        time.sleep(0.05)  # our own visit is over
        for name in ("relay", *self.published):
            running = self.running[name]
            state.delayed[name] = self.delayed_calls(name)
            state.descriptors[name] = running.descriptors()
        for host in self.network.ends:
            for line in self.network.sockets(host, "close-wait", "fin-wait-2"):
                state.lingering.append(f"{host.name} of the network: {line}")
        return state

    def settled(self, start: State | None, seconds: float) -> tuple[State, list[str]]:
        """
        Wait until nothing is there any more that was not at the start, or for
        so long.

        @return: what there is then, and what there is too much.
        """
        until = time.monotonic() + seconds
        while True:
            state = self.look()
            if start is None:
                busy = {key: value for key, value in state.relay.items() if key != "agents"}
                found = [f"relay: {value} {key}" for key, value in busy.items() if value]
                found += state.lingering
            else:
                found = state.beyond(start)
            if not found or time.monotonic() > until:
                return state, found
            time.sleep(0.25)

    def at_start(self, seconds: float = 30) -> State:
        """
        Look at what there is before anything happens.  What comes and goes
        every moment is taken to be there.

        @raise CampaignFailed: it does not become quiet.
        """
        state, found = self.settled(None, seconds)
        if found:
            raise CampaignFailed(f"not quiet before the fault: {'; '.join(found)}")
        for _ in range(8):
            time.sleep(0.1)
            again = self.look()
            for name, calls in again.delayed.items():
                if len(calls) > len(state.delayed[name]):
                    state.delayed[name] = calls
            for name, kinds in again.descriptors.items():
                state.descriptors[name] |= kinds
        state.lingering = []
        return state

    def troubles(self) -> list[str]:
        """
        Lines of the logs that should not be there.
        """
        found: dict[str, str] = {}
        for each in (*self.gone, *self.running.values()):
            if each.name == "relay" or each.name in self.published:
                said = each.said()
                for match in _TROUBLE.finditer(said):
                    # What happens again and again is told once.
                    lines = said[match.start() :].splitlines()[:_MOST_LINES]
                    last = next((line for line in lines if _FAULT.match(line)), lines[-1])
                    found.setdefault(f"{each.name} {last}", "\n    ".join(lines))
        return [f"{name.partition(' ')[0]} said: {text}" for name, text in found.items()]


class _Local(http.client.HTTPConnection):
    """
    HTTP over a UNIX socket.
    """

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))

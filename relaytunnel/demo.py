"""
The demo: a relay, an agent, a web server and a client, as processes on this
machine, and what happens between them, step by step with times.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from twisted.logger import ILogObserver, textFileLogObserver

from relaytunnel.errors import RelayTunnelError
from relaytunnel.steps import watch
from relaytunnel.terminal import error, say

__all__ = ["Demo", "DemoFailed", "run_demo", "step_log"]

_PATIENCE = 20.0
_BODY_BYTES = 1_000_000
_TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
_MARK = "relaytunnel-step "
_OPENING = ("S5", "S6", "S7", "S8", "S9", "S10", "S11", "S12")


def step_log() -> ILogObserver:
    """
    A log observer factory for C{twistd --logger}: log lines go to standard
    error, and the steps of the procedure to standard output, as JSON.
    """

    def show(step: str, what: str) -> None:
        line = json.dumps({"step": step, "what": what, "time": time.time()})
        sys.__stdout__.write(f"{_MARK}{line}\n")  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]

    watch(show)
    return textFileLogObserver(sys.__stderr__ or sys.stderr)


class DemoFailed(RelayTunnelError):
    """
    Something did not happen; the message says what.
    """


@dataclass(frozen=True)
class _Happening:
    who: str
    step: str
    what: str
    time: float


@dataclass
class _Program:
    """
    One process of the demo.
    """

    name: str
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)


class Demo:
    """
    The processes, and what they report.  Use it in a C{with} statement: all
    of them are gone behind it.
    """

    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="relaytunnel-demo-")
        self._programs: list[_Program] = []
        self._threads: list[threading.Thread] = []
        self._happenings: queue.Queue[_Happening] = queue.Queue()
        self._shown_at = 0.0
        self.body = secrets.token_bytes(_BODY_BYTES)

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, *exception: object) -> None:
        for program in reversed(self._programs):
            if program.process.poll() is None:
                program.process.terminate()
        for program in reversed(self._programs):
            try:
                program.process.wait(5)
            except subprocess.TimeoutExpired:
                program.process.kill()
                program.process.wait()
        for thread in self._threads:
            thread.join(5)
        shutil.rmtree(self._directory, ignore_errors=True)

    # The processes

    def start(self) -> str:
        """
        Start server, relay and agent.

        @return: the address under which clients reach the server.
        @raise DemoFailed: one of them does not start.
        """
        agents, clients, server = _free_ports(3)
        self._clients = clients
        self._start_server(server)
        state = os.path.join(self._directory, "state")
        local = "interface=127.0.0.1"
        self._twistd(
            "relay",
            "--state",
            state,
            "--agents",
            f"tcp:{agents}:{local}",
            "--clients",
            f"tcp:{clients}:{local}",
            "--admin",
            "off",
        )
        invitation = os.path.join(state, "invitation")
        self._wait("the relay's invitation", lambda: os.path.exists(invitation))
        self._wait("the relay's port", lambda: _answers(agents))
        self._twistd("agent", "--join-file", invitation, "--publish", f"web=127.0.0.1:{server}")
        self._show(self._gather("S1", "S2", "S3", "S4"))
        return f"http://web.localhost:{clients}/"

    def _start_server(self, port: int) -> None:
        pages = os.path.join(self._directory, "pages")
        os.mkdir(pages)
        digest = hashlib.sha256(self.body).hexdigest()
        with open(os.path.join(pages, "body"), "wb") as file:
            file.write(self.body)
        with open(os.path.join(pages, "index.html"), "w", encoding="utf-8") as file:
            file.write(
                "<!doctype html><meta name=viewport content='width=device-width'>"
                "<title>relaytunnel demo</title><h1>It works</h1><p>This page came from a server"
                " behind an agent, through the relay that your browser dialled.</p>"
                f"<p><a href=body>1 MB of random bytes</a>, SHA-256 {digest}</p>"
            )
        self._run(
            "server",
            [
                sys.executable,
                "-u",
                "-m",
                "http.server",
                "--protocol",
                "HTTP/1.1",
                "--bind",
                "127.0.0.1",
                "--directory",
                pages,
                str(port),
            ],
        )
        self._wait("the web server's port", lambda: _answers(port))

    def _twistd(self, plugin: str, *arguments: str) -> None:
        self._run(
            plugin,
            [
                sys.executable,
                "-c",
                _TWISTD,
                "-n",
                "--pidfile=",
                "--logger=relaytunnel.demo.step_log",
                plugin,
                *arguments,
            ],
        )

    def _run(self, name: str, command: list[str]) -> _Program:
        process = subprocess.Popen(
            command,
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        program = _Program(name, process)
        self._programs.append(program)
        assert process.stdout is not None
        assert process.stderr is not None
        for stream in (process.stdout, process.stderr):
            thread = threading.Thread(target=self._read, args=(program, stream), daemon=True)
            thread.start()
            self._threads.append(thread)
        return program

    def _read(self, program: _Program, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                if line.startswith(_MARK):
                    found = json.loads(line[len(_MARK) :])
                    self._happenings.put(
                        _Happening(program.name, found["step"], found["what"], found["time"])
                    )
                else:
                    program.lines.append(line.rstrip())
                    if program.name == "server" and '"GET /' in line:
                        what = "the agent has passed the request on; the server answers"
                        self._happenings.put(_Happening("server", "S12", what, time.time()))

    def _wait(self, what: str, met: object) -> None:
        assert callable(met)
        deadline = time.monotonic() + _PATIENCE
        while not met():
            self._check_alive()
            if time.monotonic() > deadline:
                raise DemoFailed(f"{what} did not come within {_PATIENCE:g} s{self._logs()}")
            time.sleep(0.02)

    def _check_alive(self) -> None:
        for program in self._programs:
            code = program.process.poll()
            if code is not None:
                time.sleep(0.2)  # for the last lines
                raise DemoFailed(f"the {program.name} ended with exit code {code}{self._logs()}")

    def _logs(self) -> str:
        return "".join(
            f"\n--- the {program.name}'s last lines\n" + "\n".join(program.lines[-8:])
            for program in self._programs
        )

    # What happens

    def _gather(self, *wanted: str, close: bool = False) -> list[_Happening]:
        """
        Wait until these steps have happened, each as often as it is named: each
        program reports for itself, so a later step may be heard of first.

        @param close: whether it is the server that ends the connection.
        """
        deadline = time.monotonic() + _PATIENCE
        seen: list[_Happening] = []
        missing = Counter(wanted)
        while missing:
            try:
                each = _ending(self._happenings.get(timeout=0.2), close)
            except queue.Empty:
                self._check_alive()
                if time.monotonic() > deadline:
                    steps = ", ".join(sorted(missing))
                    raise DemoFailed(f"{steps} did not happen{self._logs()}") from None
                continue
            seen.append(each)
            missing -= Counter([each.step])
        return seen

    def _show(self, happenings: list[_Happening]) -> None:
        for each in sorted(happenings, key=lambda each: each.time):
            if not self._shown_at:
                self._shown_at = each.time
            after = (each.time - self._shown_at) * 1000
            say(f"  {each.step:8} {after:9.1f} ms  {each.what}")

    def visit(self, close: bool) -> None:
        """
        Fetch the body as a client, and check it.

        @param close: whether the server is asked to end the connection, as in
            S14 to S17; else the client ends it, as in S18 to S20.
        @raise DemoFailed: another body comes back, or none.
        """
        address = f"http://web.localhost:{self._clients}/body"
        target = os.path.join(self._directory, f"received-{secrets.token_hex(4)}")
        began = time.time()
        client = self._run("client", _client_command(address, self._clients, target, close))
        code = client.process.wait(_PATIENCE)
        self._programs.remove(client)
        if code:
            raise DemoFailed(
                f"the client ended with exit code {code}: {' '.join(client.lines[-3:])}"
                + self._logs()
            )
        done = os.stat(target).st_mtime
        with open(target, "rb") as file:
            received = file.read()
        if received != self.body:
            raise DemoFailed(
                f"the client received {len(received)} bytes, SHA-256"
                f" {hashlib.sha256(received).hexdigest()}, and the server sent {len(self.body)},"
                f" SHA-256 {hashlib.sha256(self.body).hexdigest()}"
            )
        happenings = self._collect_visit(close)
        digest = hashlib.sha256(received).hexdigest()[:16]
        what = f"the client has all {len(received)} bytes, SHA-256 {digest}..., as the server sent"
        happenings.append(_Happening("client", "S13", what, done))
        self._shown_at = began
        self._show(happenings)

    def _collect_visit(self, close: bool) -> list[_Happening]:
        """
        Gather the steps of one visit: S5 to S12, and how it ended.
        """
        endings = ("S14-S15", "S16-S17") if close else ("S18-S19", "S20")
        # The answer to the end, which the steps do not count, is two more.
        seen = self._gather(*_OPENING, *endings, "end", "end", close=close)
        return [each for each in seen if each.step != "end"]


_ENDINGS = {
    ("agent", "first", True): ("S14-S15", "the server closes; the agent ends the data channel"),
    ("relay", "second", True): ("S16-S17", "the relay sees it and ends the client channel"),
    ("relay", "first", False): ("S18-S19", "the client closes; the relay ends the data channel"),
    ("agent", "second", False): ("S20", "the agent sees it and ends the server channel"),
}


def _ending(each: _Happening, close: bool) -> _Happening:
    """
    Give the end of a direction its name in the procedure.
    """
    step, what = _ENDINGS.get((each.who, each.what, close), (each.step, each.what))
    return _Happening(each.who, step, what, each.time) if each.step == "end" else each


def _client_command(address: str, port: int, target: str, close: bool) -> list[str]:
    """
    @return: curl if there is one, else Python's own client.
    """
    curl = shutil.which("curl")
    if curl is None:
        code = (
            "import shutil, sys, urllib.request\n"
            "address, port, target, close = sys.argv[1:]\n"
            "request = urllib.request.Request(f'http://127.0.0.1:{port}/body')\n"
            "request.add_header('Host', f'web.localhost:{port}')\n"
            "opened = urllib.request.urlopen(request, timeout=20)\n"
            "shutil.copyfileobj(opened, open(target, 'wb'))\n"
        )
        return [sys.executable, "-c", code, address, str(port), target, str(close)]
    command = [curl, "-sS", "--fail", "--max-time", "20", "--noproxy", "*", "-o", target]
    command += ["--resolve", f"web.localhost:{port}:127.0.0.1"]
    if close:
        command += ["-H", "Connection: close"]
    return [*command, address]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _answers(port: int) -> bool:
    with socket.socket() as attempt:
        attempt.settimeout(1)
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def _headings() -> Iterator[str]:
    yield "A relay, an agent and a web server start; the agent publishes the server:"
    yield "A client visits the server through the relay, and the server closes:"
    yield "Another client comes, and closes by itself:"


def run_demo(once: bool) -> int:
    """
    Run the demo.

    @param once: end after the visits; otherwise stay until interrupted.
    @return: the exit code: 0 only if every client got the very bytes that the
        server sent.
    """
    headings = _headings()
    began = time.monotonic()
    try:
        with Demo() as demo:
            say(next(headings))
            address = demo.start()
            say(f"  the server is reached at {address}\n\n{next(headings)}")
            demo.visit(close=True)
            if shutil.which("curl") is not None:
                say(f"\n{next(headings)}")
                demo.visit(close=False)
            say(f"\nIt works: all of this took {time.monotonic() - began:.1f} s.")
            if not once:
                say(f"Visit {address} with a browser; Ctrl-C ends the demo.")
                with contextlib.suppress(KeyboardInterrupt):
                    threading.Event().wait()
                say()
    except DemoFailed as fault:
        error(f"relaytunnel demo: {fault}")
        return 1
    return 0

"""
The clients: iperf3, wrk, and those of our own that check every byte.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import selectors
import socket
import statistics
import struct
import subprocess
import threading
import time
from collections.abc import Iterator

from bench.origins import BIG, HELLO
from bench.processes import BenchFailed

__all__ = [
    "Deaths",
    "bulk",
    "burst",
    "open_sessions",
    "ping",
    "requests",
    "stalled_sessions",
    "verify",
    "visits",
]

_PATIENCE = 30.0
_RESET = struct.pack("ii", 1, 0)


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def verify(ports: dict[str, int], size: int = 8 << 20) -> None:
    """
    Check that a way passes bytes on as they are: a page, a file, and random
    bytes that a server sends back while they come, with an end behind them.

    @raise BenchFailed: something else came than was sent.
    """
    body = _get(ports["http"], "/")
    if body != HELLO.encode():
        raise BenchFailed(f"the page came as {body[:50]!r}")
    if len(_get(ports["http"], "/big")) != BIG:
        raise BenchFailed("the big file came with another size")
    sent = random.randbytes(size)
    with _connect(ports["echo"]) as sock:

        def say() -> None:
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)

        speaker = threading.Thread(target=say)
        speaker.start()
        digest = hashlib.sha256()
        while data := sock.recv(1 << 16):
            digest.update(data)
        speaker.join()
    if digest.digest() != hashlib.sha256(sent).digest():
        raise BenchFailed(f"of {size} random bytes others came back")


def _get(port: int, path: str) -> bytes:
    with _connect(port) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
        parts = []
        while data := sock.recv(1 << 18):
            parts.append(data)
    return b"".join(parts).partition(b"\r\n\r\n")[2]


def bulk(port: int, seconds: float) -> float:
    """
    @return: Gbit/s of one connection, as iperf3's server has received it.
    """
    command = ["iperf3", "-J", "-c", "127.0.0.1", "-p", str(port), "-t", f"{max(1, seconds):.0f}"]
    said = ""
    for _ in range(10):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds + 30, check=False
            )
        except subprocess.TimeoutExpired:
            raise BenchFailed("iperf3 did not end") from None
        if done.returncode == 0:
            received = json.loads(done.stdout)["end"].get("sum_received")
            if received is not None:
                return float(received["bits_per_second"]) / 1e9
        said = done.stdout[-300:] + done.stderr[-300:]
        time.sleep(0.3)  # its server is busy with the last one's end
    raise BenchFailed(f"iperf3: {said}")


def requests(
    port: int, seconds: float, connections: int, close: bool, host: str = ""
) -> dict[str, float]:
    """
    Ask for a small page over and over, with wrk.

    @param close: whether each request has a connection of its own.
    @param host: the Host that is asked for, if not the address.
    @return: requests per second as C{rate}, and how many failed as C{errors}.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, seconds):.0f}s"]
    if close:
        command += ["-H", "Connection: close"]
    if host:
        command += ["-H", f"Host: {host}"]
    try:
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{port}/"],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchFailed("wrk did not end") from None
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    count = re.search(r"(\d+) requests in", done.stdout)
    if done.returncode or found is None or count is None:
        raise BenchFailed(f"wrk: {done.stdout[-300:]}{done.stderr[-300:]}")
    errors = sum(
        int(number)
        for line in re.findall(r"Socket errors:(.*)|Non-2xx.*:(.*)", done.stdout)
        for number in re.findall(r"\d+", " ".join(line))
    )
    return {"rate": float(found[1]), "count": float(count[1]), "errors": float(errors)}


def burst(port: int, count: int) -> dict[str, float]:
    """
    Ask for a small page on so many connections that are opened at the same time.

    @return: how many of them had no page as C{refused}, and after how many
        C{seconds} the last one had its own.
    """
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answers: dict[socket.socket, bytes] = {}
    began = time.monotonic()
    served = 0
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            selector.register(sock, selectors.EVENT_WRITE)
            answers[sock] = b""
        while selector.get_map() and time.monotonic() - began < _PATIENCE:
            for key, events in selector.select(1.0):
                sock = key.fileobj  # type: ignore[assignment]
                try:
                    if events & selectors.EVENT_WRITE:
                        sock.send(request)
                        selector.modify(sock, selectors.EVENT_READ)
                        continue
                    data = sock.recv(1 << 16)
                except OSError:
                    data = b""
                answers[sock] += data
                if not data:
                    selector.unregister(sock)
                    served += answers[sock].endswith(HELLO.encode())
    return {"refused": float(count - served), "seconds": time.monotonic() - began}


def visits(port: int, seconds: float) -> float:
    """
    Ask for a small page, each time on a connection of its own, one after the
    other.

    @return: milliseconds that half of them did not exceed.
    """
    took: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or not took:
        began = time.perf_counter()
        if _get(port, "/") != HELLO.encode():
            raise BenchFailed("a visit came to nothing")
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


def ping(port: int, seconds: float, size: int = 64) -> dict[str, float]:
    """
    Send a few bytes to the echo server and wait for them, over and over, on
    one connection.

    @return: milliseconds that half, and that all but one in a hundred, did not
        exceed, as C{p50} and C{p99}.
    """
    took = []
    sent = random.randbytes(size)
    with _connect(port) as sock:
        until = time.perf_counter() + seconds
        now = 0.0
        while now < until:
            began = time.perf_counter()
            sock.sendall(sent)
            back = b""
            while len(back) < size:
                data = sock.recv(size)
                if not data:
                    raise BenchFailed("the connection ended during a ping")
                back += data
            now = time.perf_counter()
            if back != sent:
                raise BenchFailed("other bytes came back")
            took.append(now - began)
    took = took[len(took) // 20 :]  # the first ones find everything cold
    if len(took) < 20:
        raise BenchFailed(f"only {len(took)} pings in {seconds:g} s")
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    return {"p50": cuts[49] * 1000, "p99": cuts[98] * 1000}


@contextlib.contextmanager
def open_sessions(port: int, count: int) -> Iterator[list[socket.socket]]:
    """
    So many sessions with the echo server; each has sent and received a byte,
    and is quiet now.
    """
    with contextlib.ExitStack() as stack:
        opened: list[socket.socket] = []
        while len(opened) < count:
            some = [
                stack.enter_context(_connect(port)) for _ in range(min(32, count - len(opened)))
            ]
            for sock in some:
                sock.sendall(b"?")
            for sock in some:
                if sock.recv(1) != b"?":
                    raise BenchFailed(f"session {len(opened)} was not served")
            opened += some
        yield opened


@contextlib.contextmanager
def stalled_sessions(port: int, count: int) -> Iterator[None]:
    """
    So many sessions that have asked for a big file and do not read it.
    """
    with contextlib.ExitStack() as stack:
        for number in range(count):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(_PATIENCE)
            sock.connect(("127.0.0.1", port))
            sock.sendall(b"GET /big HTTP/1.1\r\nHost: bench\r\n\r\n")
            if number % 16 == 15:
                sock.recv(1)  # so that not too many wait at once
        time.sleep(2)
        yield


class Deaths:
    """
    Sessions that live for a moment and die in one of many ways, at either end.
    """

    def __init__(self, port: int, seed: int = 1) -> None:
        self._port = port
        self._random = random.Random(seed)
        self._selector = selectors.DefaultSelector()
        self.begun = 0

    def run(self, count: int, together: int = 256) -> None:
        """
        Let so many sessions begin and end.

        @raise BenchFailed: the relay takes no more connections.
        """
        living: dict[socket.socket, float] = {}
        try:
            until = self.begun + count
            last = time.monotonic()
            while self.begun < until or living:
                while self.begun < until and len(living) < together:
                    sock = socket.socket()
                    sock.setblocking(False)
                    sock.connect_ex(("127.0.0.1", self._port))
                    self.begun += 1
                    if self._random.random() < 0.05:
                        self._die(sock)  # before it has said a word
                        continue
                    self._selector.register(sock, selectors.EVENT_WRITE)
                    living[sock] = time.monotonic() + 5
                happened = self._selector.select(0.5)
                now = time.monotonic()
                for key, _ in happened:
                    sock = key.fileobj  # type: ignore[assignment]
                    last = now
                    if not self._go_on(sock, key.events):
                        self._selector.unregister(sock)
                        del living[sock]
                        self._die(sock)
                for sock in [each for each, end in living.items() if end < now]:
                    self._selector.unregister(sock)
                    del living[sock]
                    self._die(sock)
                if now - last > _PATIENCE:
                    raise BenchFailed(f"nothing happens any more after {self.begun} sessions")
        finally:
            for sock in living:
                sock.close()

    def _go_on(self, sock: socket.socket, events: int) -> bool:
        """
        @return: whether it lives on.
        """
        try:
            if events & selectors.EVENT_WRITE:
                sock.send(b"x" * self._random.choice((1, 100, 2000, 60_000, 200_000)))
                what = self._random.random()
                if what < 0.25:
                    return False
                if what < 0.5:
                    sock.shutdown(socket.SHUT_WR)
                self._selector.modify(sock, selectors.EVENT_READ)
                return True
            return bool(sock.recv(1 << 16)) and self._random.random() < 0.7
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _die(self, sock: socket.socket) -> None:
        if self._random.random() < 0.5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.close()

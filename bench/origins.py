"""
The servers that all ways lead to.

C{python -m bench.origins PORT} is one of them: it sends back what it gets, and
on the next port it does so too, but dies now and then, in various manners.
"""

from __future__ import annotations

import random
import selectors
import socket
import struct
import sys
from dataclasses import dataclass
from functools import partial

from bench.processes import Processes, answers, free_port, wait_for

__all__ = ["BIG", "HELLO", "Origins", "start_origins"]

HELLO = "hello, " * 14 + "world\n"
"""What the web server answers to /."""
BIG = 64 << 20
"""The size of its /big, in bytes."""

_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Origins:
    """
    The ports of the servers.

    @ivar http: nginx, with a small page and a big file.
    @ivar iperf: iperf3.
    @ivar echo: sends back what it gets.
    @ivar mortal: the same, and dies now and then.
    """

    http: int
    iperf: int
    echo: int
    mortal: int

    def ports(self) -> dict[str, int]:
        """
        @return: the ports by name.
        """
        return {each: getattr(self, each) for each in ("http", "iperf", "echo", "mortal")}


_NGINX = """
daemon off; worker_processes 1; pid {d}/nginx.pid; error_log {d}/error.log;
events {{ worker_connections 20000; }}
http {{
    access_log off; keepalive_requests 1000000000; sendfile on; root {d};
    client_body_temp_path {d}/t1; proxy_temp_path {d}/t2; fastcgi_temp_path {d}/t3;
    uwsgi_temp_path {d}/t4; scgi_temp_path {d}/t5;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = / {{ return 200 "{hello}"; }}
    }}
}}
"""


def start_origins(processes: Processes) -> Origins:
    """
    Start them all, and wait until they answer.
    """
    origins = Origins(*(free_port() for _ in range(4)))
    directory = processes.make_directory("origin")
    directory.chmod(0o755)
    processes.directory.chmod(0o755)
    config = directory / "nginx.conf"
    hello = HELLO.replace("\n", "\\n")
    config.write_text(_NGINX.format(d=directory, port=origins.http, hello=hello))
    with (directory / "big").open("wb") as file:
        block = random.Random(1).randbytes(1 << 20)
        for _ in range(BIG >> 20):
            file.write(block)
    processes.start("origin-nginx", ["nginx", "-c", config])
    processes.start("origin-iperf3", ["iperf3", "-s", "-B", "127.0.0.1", "-p", origins.iperf])
    command = [sys.executable, "-m", "bench.origins", origins.echo, origins.mortal]
    processes.start("origin-echo", command)
    for port in (origins.http, origins.echo, origins.mortal):
        wait_for(processes, f"a server on port {port}", partial(answers, port))
    return origins


class _Echo:
    """
    One connection of the echo server.
    """

    def __init__(self, sock: socket.socket, mortal: bool) -> None:
        self.sock = sock
        self.waiting = bytearray()
        self.ended = False
        self.lives_until = random.choice((0, 1, 1000, 100_000)) if mortal else None
        self.death = random.choice(("reset", "close", "end"))
        self.said = 0

    def go_on(self) -> int:
        """
        @return: the events to wait for; 0 when it is over.
        """
        try:
            if not self.ended and len(self.waiting) < 1 << 18:
                data = self.sock.recv(1 << 16)
                self.ended = not data
                self.waiting += data
        except BlockingIOError:
            pass
        except OSError:
            return 0
        try:
            if self.waiting:
                sent = self.sock.send(self.waiting)
                self.said += sent
                del self.waiting[:sent]
        except BlockingIOError:
            pass
        except OSError:
            return 0
        if self.lives_until is not None and self.said >= self.lives_until:
            if self.death == "reset":
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            elif self.death == "end":
                try:
                    self.sock.shutdown(socket.SHUT_WR)
                except OSError:
                    return 0
                self.lives_until = None
                return selectors.EVENT_READ
            return 0
        if self.ended and not self.waiting:
            return 0
        reads = not self.ended and len(self.waiting) < 1 << 18
        return (selectors.EVENT_READ if reads else 0) | (
            selectors.EVENT_WRITE if self.waiting else 0
        )


def serve(echo: int, mortal: int) -> None:
    """
    Be the echo server, until somebody ends the process.
    """
    selector = selectors.DefaultSelector()
    for port in (echo, mortal):
        listening = socket.create_server(("127.0.0.1", port), backlog=4096)
        listening.setblocking(False)
        selector.register(listening, selectors.EVENT_READ, port == mortal)
    while True:
        for key, _ in selector.select():
            if isinstance(key.data, bool):
                try:
                    sock, _ = key.fileobj.accept()  # type: ignore[union-attr]
                except OSError:
                    continue
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(sock, selectors.EVENT_READ, _Echo(sock, key.data))
                continue
            connection = key.data
            events = connection.go_on()
            if not events:
                selector.unregister(connection.sock)
                connection.sock.close()
            elif events != key.events:
                selector.modify(connection.sock, events, connection)


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))

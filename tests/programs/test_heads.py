"""
Tricky heads of HTTP requests, as we read them and as HAProxy and nginx do.

Whatever we let pass must be read in the same way by others: a server behind
the relay may be one of them.  That we turn down what they accept is fine.
"""

from __future__ import annotations

import socket
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from relaytunnel.arrival import HttpArrival, Named
from tests.processes import (
    Program,
    empty_directory,
    free_port,
    listening_ports,
    missing_programs,
    until,
)
from tests.programs.heads import HEADS

_HAPROXY = """\
defaults
  mode http
  timeout client 5s
  timeout connect 5s
  timeout server 5s
frontend reads
  bind 127.0.0.1:{port}
  http-request return status 200 content-type text/plain lf-string "<%[req.hdr(host),host_only]>"
"""

_NGINX = """\
daemon off;
pid {directory}/nginx.pid;
error_log stderr;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port};
    server_name "";
    location / {{ return 200 "<$host>"; }}
  }}
}}
"""


def ours(head: bytes) -> tuple[str, bytes] | None:
    """
    @return: the host that we take a head to name, empty for nobody, and what a
        server gets of it; L{None} if it is turned down.
    """
    found = HttpArrival().feed(head)
    if not isinstance(found, Named):
        return None
    return found.host or "", found.instead + head[found.consumed :]


def theirs(port: int, head: bytes) -> str | None:
    """
    @return: the same as a server says it.
    """
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(5)
        client.sendall(head)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while b"\r\n\r\n" not in answer or b">" not in answer.partition(b"\r\n\r\n")[2]:
            try:
                part = client.recv(65536)
            except OSError:
                break
            if not part:
                break
            answer += part
    head_of_answer, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head_of_answer.partition(b"\r\n")[0]:
        return None
    name = body.decode("latin-1").strip()[1:-1]
    return name.lower().removesuffix(".").strip("[]")


class _Heads:
    """
    One program that is asked for its reading.
    """

    def start(self, directory: Path, port: int) -> tuple[str, ...]:
        raise NotImplementedError

    async def compare(self: TestCase) -> None:  # type: ignore[misc]
        directory, port = empty_directory(self), free_port()
        program = Program.start(self, *self.start(directory, port))  # type: ignore[attr-defined]
        await until(lambda: port in listening_ports(program.pid), 10, "it listens")
        passed = [found for head in HEADS if (found := ours(head)) is not None]
        self.assertGreater(len(passed), 100)
        answers: Deferred[list[str | None]] = deferToThread(
            lambda: [theirs(port, head) for _, head in passed]
        )
        read = list(zip(passed, await answers, strict=True))
        self.assertGreater(len([other for _, other in read if other is not None]), 50)
        differ = [(head, mine, other) for (mine, head), other in read if other not in (None, mine)]
        self.assertEqual(differ, [])


class HAProxyTests(TestCase, _Heads):
    """
    HAProxy.
    """

    skip = missing_programs("haproxy")

    def start(self, directory: Path, port: int) -> tuple[str, ...]:
        (directory / "haproxy.cfg").write_text(_HAPROXY.format(port=port))
        return ("haproxy", "-db", "-f", str(directory / "haproxy.cfg"))

    async def test_same(self) -> None:
        """
        HAProxy reads every head that we let pass as we do, or turns it down.
        """
        await self.compare()


class NginxTests(TestCase, _Heads):
    """
    nginx.
    """

    skip = missing_programs("nginx")

    def start(self, directory: Path, port: int) -> tuple[str, ...]:
        config = directory / "nginx.conf"
        config.write_text(_NGINX.format(directory=directory, port=port))
        return ("nginx", "-e", "stderr", "-c", str(config))

    async def test_same(self) -> None:
        """
        So does nginx.
        """
        await self.compare()

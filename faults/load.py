"""
The clients of the sessions: C{python -m faults.load}.

SIGTERM has it begin no more; it ends when all sessions have.
"""

from __future__ import annotations

import argparse
import errno
import random
import re
import select
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faults.ends import End, Loop, Record, reset
from faults.plans import Header, any_kind, plans

__all__: list[str] = []

_SHARED = 0.6
"""So many of them name their server by CONNECT; the others come to its port."""
_MOST_HEAD = 16 * 1024
_CODE = re.compile(rb"\r\nX-Relaytunnel-Code: ([\w-]+)")


class _Client:
    """
    A client, from before it is connected.
    """

    def __init__(
        self, sock: socket.socket, header: Header, name: str, shared: bool, load: _Load
    ) -> None:
        self.sock = sock
        self._header = header
        self._name = name
        self._shared = shared
        self._load = load
        self._connected = False
        self._answer = b""
        self._end: End | None = None
        self.began = time.monotonic()

    def go_on(self, events: int) -> int | None:
        if self._end is not None:
            return self._end.go_on(events)
        try:
            return self._arrive()
        except BlockingIOError:
            return select.EPOLLIN
        except OSError as fault:
            refused = fault.errno == errno.ECONNREFUSED or not self._connected
            return self._fail("no connection" if refused else "reset")

    def _arrive(self) -> int | None:
        if time.monotonic() - self.began > self._load.patience:
            return self._fail("timed out" if self._connected else "no connection")
        if not self._connected:
            fault = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if fault:
                raise OSError(fault, "connect")
            try:
                self.sock.getpeername()
            except OSError:
                return select.EPOLLOUT
            self._connected = True
            if not self._shared:
                return self._begin(b"")
            self.sock.send(
                f"CONNECT {self._name}:1 HTTP/1.1\r\nHost: {self._name}\r\n\r\n".encode()
            )
        data = self.sock.recv(_MOST_HEAD)
        if not data:
            return self._fail("closed before an answer")
        self._answer += data
        head, end, rest = self._answer.partition(b"\r\n\r\n")
        if not end:
            return select.EPOLLIN if len(head) < _MOST_HEAD else self._fail("no answer")
        if b" 200 " not in head.partition(b"\r\n")[0] + b" ":
            code = _CODE.search(head)
            said = code[1] if code else head.partition(b"\r\n")[0]
            return self._fail(f"refused: {said.decode('ascii', 'replace')}")
        return self._begin(rest)

    def _begin(self, first: bytes) -> int | None:
        plan = plans(self._header)[0]
        self._end = End(self.sock, self._header, 0, plan, self._load.patience, self._over)
        self._end.began = self.began
        if first:
            self._end.take(first)
        return self._end.go_on(0)

    def _over(self, end: End) -> None:
        self._load.record.add(end.record() | {"server": self._name})

    def _fail(self, why: str) -> int | None:
        reset(self.sock)
        header = self._header
        self._load.record.add(
            {
                "session": header.session,
                "kind": header.kind,
                "side": 0,
                "began": self.began,
                "over": time.monotonic(),
                "why": why,
                "server": self._name,
            }
        )
        return None


class _Load:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.record = Record(options.record)
        self.patience: float = options.patience
        self.ending = False
        self._dice = random.Random(options.seed)
        self._session = options.first
        self._servers = [each.split(":") for each in options.servers.split(",")]
        self._sources = options.sources.split(",")

    def begin(self, loop: Any) -> None:
        """
        One more client comes.
        """
        options, dice = self.options, self._dice
        self._session += 1
        name, port = dice.choice(self._servers)
        kind = any_kind(dice)
        header = Header(
            self._session, options.seed, kind, options.scale, options.silence, options.deadly
        )
        shared = dice.random() < _SHARED
        sock = socket.socket()
        sock.setblocking(False)
        if kind == "slow":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        self.record.add({"tried": header.session})
        client = _Client(sock, header, name, shared, self)
        try:
            sock.bind((dice.choice(self._sources), 0))
            fault = sock.connect_ex((options.relay, options.shared if shared else int(port)))
        except OSError as reason:
            fault = reason.errno or errno.EIO
        if fault not in (0, errno.EINPROGRESS):
            client.go_on(0)
            if sock.fileno() >= 0:
                client._fail("no connection")
            return
        loop.add(client)

    def end(self, *_: object) -> None:
        """
        Let no more come.
        """
        self.ending = True


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Let clients come until a signal does, and wait for their ends.
    """
    parser = argparse.ArgumentParser(prog="python -m faults.load")
    add = parser.add_argument
    add("--record", type=Path, required=True)
    add("--relay", required=True)
    add("--shared", type=int, default=8000)
    add("--servers", required=True, help="NAME:PORT,NAME:PORT")
    add("--sources", default="0.0.0.0", help="addresses to come from")
    add("--rate", type=float, default=20, help="sessions in a second")
    add("--seed", type=int, default=1)
    add("--first", type=int, default=0, help="the number before the first session's")
    add("--patience", type=float, default=10)
    add("--scale", type=float, default=1)
    add("--silence", type=float, default=3)
    add("--deadly", action="store_true", help="ends die at random")
    load = _Load(parser.parse_args(arguments))
    signal.signal(signal.SIGTERM, load.end)
    loop = Loop()
    due = time.monotonic()
    print("loading", flush=True)
    while not load.ending or loop.ends:
        loop.turn()
        now = time.monotonic()
        if now - due > 1:  # after a pause of the machine, do not catch up
            due = now
        while now >= due and not load.ending:
            due += 1 / load.options.rate
            load.begin(loop)


if __name__ == "__main__":
    main()

"""
The server of the sessions: C{python -m faults.server RECORD PATIENCE PORT...}.

SIGTERM has it reset all of them, and end.
"""

from __future__ import annotations

import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from faults.ends import End, Loop, Record, reset
from faults.plans import HEADER, Header, plans

__all__: list[str] = []


class _Listener:
    def __init__(self, port: int, serving: _Serving) -> None:
        self.sock = socket.create_server(("0.0.0.0", port), backlog=1024)
        self.sock.setblocking(False)
        self._serving = serving

    def go_on(self, events: int) -> int:
        for _ in range(64):
            try:
                accepted, _ = self.sock.accept()
            except BlockingIOError:
                break
            accepted.setblocking(False)
            self._serving.arrived.append(accepted)
        return select.EPOLLIN

    def die(self) -> None:
        self.sock.close()


class _Arriving:
    """
    A connection that has not said yet which session it is of.
    """

    def __init__(self, sock: socket.socket, serving: _Serving) -> None:
        self.sock = sock
        self._serving = serving
        self._data = b""
        self._until = time.monotonic() + serving.patience
        self._end: End | None = None

    def go_on(self, events: int) -> int | None:
        if self._end is not None:
            return self._end.go_on(events)
        try:
            data = self.sock.recv(HEADER - len(self._data))
        except BlockingIOError:
            if time.monotonic() < self._until:
                return select.EPOLLIN
            return self._leave()
        except OSError:
            return self._leave()
        self._data += data
        if not data:
            return self._leave()
        if len(self._data) < HEADER:
            return select.EPOLLIN
        header = Header.unpacked(self._data)
        if header is None:
            self._serving.record.add({"stray": self._data.hex()})
            return self._leave()
        self._serving.record.add({"began": header.session, "at": time.monotonic()})
        plan = plans(header)[1]
        self._end = End(self.sock, header, 1, plan, self._serving.patience, self._serving.over)
        self._end.take(self._data)
        return self._end.go_on(0)

    def _leave(self) -> int | None:
        reset(self.sock)
        return None

    def die(self) -> None:
        if self._end is None:
            self._leave()
        else:
            self._end.die()


class _Serving:
    def __init__(self, record: Record, patience: float) -> None:
        self.record = record
        self.patience = patience
        self.arrived: list[socket.socket] = []
        self.ending = False

    def end(self, *_: object) -> None:
        self.ending = True

    def over(self, end: End) -> None:
        self.record.add(end.record())


def main(arguments: list[str]) -> None:
    """
    Serve until a signal comes.
    """
    record, patience, *ports = arguments
    serving = _Serving(Record(Path(record)), float(patience))
    loop: Any = Loop()
    for port in ports:
        loop.add(_Listener(int(port), serving))
    signal.signal(signal.SIGTERM, serving.end)
    print("serving", flush=True)
    while not serving.ending:
        loop.turn()
        while serving.arrived:
            loop.add(_Arriving(serving.arrived.pop(), serving))
    for each in list(loop.ends.values()):
        each.die()


if __name__ == "__main__":
    main(sys.argv[1:])

"""
HTTP clients that mean no good, run by the tests as a program of their own.

They know nothing of relaytunnel.  C{stay}: as many as it can have open ask for
something that is never answered, and whoever is hung up on comes again.
C{reset}: each asks and resets at once, a few hundred at a time, without end.

Usage: C{hostile.py PORT HOST stay|reset SOURCE}
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time

_MOST = 1500
_AT_A_TIME = 200
_PAUSE = 0.05
_RESET = struct.pack("ii", 1, 0)


def _connect(port: int, source: str) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.bind((source, 0))
    sock.setblocking(False)
    sock.connect_ex(("127.0.0.1", port))
    return sock


def _alive(sock: socket.socket) -> bool:
    try:
        return sock.recv(4096) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _run(port: int, host: str, stays: bool, source: str) -> None:
    request = f"GET /stay HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    there: list[socket.socket] = []
    rounds = 0
    while True:
        began = time.monotonic()
        come = [_connect(port, source) for _ in range(min(_AT_A_TIME, _MOST - len(there)))]
        time.sleep(_PAUSE)
        for sock in come:
            with contextlib.suppress(OSError):
                sock.send(request)
        if not stays:
            time.sleep(_PAUSE)
        still = there + come if stays else []
        for sock in there + come:
            if not stays or not _alive(sock):
                sock.close()
                if stays:
                    still.remove(sock)
        there = still
        rounds += 1
        if rounds == _MOST // _AT_A_TIME + 1:
            print("begun", flush=True)
        time.sleep(max(0.0, _PAUSE - (time.monotonic() - began)))


if __name__ == "__main__":
    _port, _host, _what, _source = sys.argv[1:]
    _run(int(_port), _host, _what == "stay", _source)

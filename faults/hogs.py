"""
Clients that connect and say nothing: C{python -m faults.hogs HOST PORT COUNT}.

Those that are closed come again, until a signal ends them all.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time

__all__: list[str] = []


def main(arguments: list[str]) -> None:
    """
    Be there until a signal comes.
    """
    host, port, count = arguments[0], int(arguments[1]), int(arguments[2])
    hogs: list[socket.socket] = []
    print("hogging", flush=True)
    while True:
        hogs = [each for each in hogs if not _is_closed(each)]
        while len(hogs) < count:
            hog = socket.socket()
            hog.setblocking(False)
            with contextlib.suppress(OSError):
                hog.connect((host, port))
            hogs.append(hog)
        time.sleep(0.1)


def _is_closed(hog: socket.socket) -> bool:
    try:
        closed = not hog.recv(65536)
    except BlockingIOError:
        return False
    except OSError:
        closed = True
    if closed:
        hog.close()
    return closed


if __name__ == "__main__":
    main(sys.argv[1:])

"""
A server that hears its client out, run by the tests as a program of its own.

It reads until the client has ended its direction of the connection, and only
then answers, with a file. For each client it prints how much it has read, and
the SHA-256 of it.

Usage: C{reply_server.py PORT FILE}
"""

from __future__ import annotations

import hashlib
import socketserver
import sys
from pathlib import Path


class Hearing(socketserver.BaseRequestHandler):
    """
    One client.
    """

    file: Path

    def handle(self) -> None:
        digest, size = hashlib.sha256(), 0
        while piece := self.request.recv(1 << 16):
            digest.update(piece)
            size += len(piece)
        print(f"heard {size} {digest.hexdigest()}", flush=True)
        with self.file.open("rb") as file:
            self.request.sendfile(file)


class Server(socketserver.ThreadingTCPServer):
    """
    A thread for each client, none of which outlives the server.
    """

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    Hearing.file = Path(sys.argv[2])
    with Server(("127.0.0.1", int(sys.argv[1])), Hearing) as server:
        print("serving", flush=True)
        server.serve_forever()

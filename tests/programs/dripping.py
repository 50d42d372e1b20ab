"""
A way to a server on which nothing that is said in one piece arrives in one
piece, run by the tests as a program of its own.

What a client says goes on in segments of 1 to 7 bytes, with a pause behind
each; what the server says goes back as it comes.

Usage: C{dripping.py PORT SERVER_PORT}
"""

from __future__ import annotations

import itertools
import socket
import socketserver
import sys
import threading
import time

PAUSE = 0.001
"""Longer than the other side takes to read a segment, in seconds."""


class Dripping(socketserver.BaseRequestHandler):
    """
    One connection, both ways.
    """

    server_port: int

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server_port)) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=self._back, args=[server], daemon=True)
            back.start()
            sizes = itertools.cycle(range(1, 8))
            while said := self.request.recv(1 << 16):
                while said:
                    size = next(sizes)
                    server.sendall(said[:size])
                    said = said[size:]
                    time.sleep(PAUSE)
            server.shutdown(socket.SHUT_WR)
            back.join()

    def _back(self, server: socket.socket) -> None:
        while piece := server.recv(1 << 16):
            self.request.sendall(piece)
        self.request.shutdown(socket.SHUT_WR)


class Server(socketserver.ThreadingTCPServer):
    """
    A thread for each client, none of which outlives the server.
    """

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    Dripping.server_port = int(sys.argv[2])
    with Server(("127.0.0.1", int(sys.argv[1])), Dripping) as server:
        print("serving", flush=True)
        server.serve_forever()

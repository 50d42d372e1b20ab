"""
An HTTP/1.1 server that says its own name, run by the tests as a program of its
own.

It answers every request with its name, the method, the path and the SHA-256 of
the body, keeps its connections, and passes over C{Connection: close}.

Usage: C{named_server.py PORT NAME}
"""

from __future__ import annotations

import hashlib
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Named(BaseHTTPRequestHandler):
    """
    One connection and the requests that come over it.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    name = ""

    def do_GET(self) -> None:
        self._say(b"")

    def do_POST(self) -> None:
        self._say(self.rfile.read(int(self.headers["Content-Length"])))

    def _say(self, body: bytes) -> None:
        self.close_connection = False
        digest = hashlib.sha256(body).hexdigest()
        text = f"{self.name} {self.command} {self.path} {digest}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """
        Say nothing: the answers say it all.
        """


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


if __name__ == "__main__":
    Named.name = sys.argv[2]
    Server(("127.0.0.1", int(sys.argv[1])), Named).serve_forever()

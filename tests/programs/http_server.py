"""
A small HTTP/1.1 server, run by the tests as a program of its own.

It knows nothing of relaytunnel. C{GET /file} sends a file, C{GET /visit/WORD}
says the word and over which connection it was asked, and whatever is put or
posted is answered with its size and its SHA-256.

Usage: C{http_server.py PORT FILE}
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, cast

_PIECE = 1 << 16


class Visit(BaseHTTPRequestHandler):
    """
    One connection and the requests that come over it.
    """

    protocol_version = "HTTP/1.1"
    file: Path
    requests = 0

    def do_GET(self) -> None:
        if self.path == "/file":
            self._send_file()
        elif self.path.startswith("/visit/"):
            self.requests += 1
            word = self.path.removeprefix("/visit/")
            self._say(f"{word} is request {self.requests} from port {self.client_address[1]}\n")
        else:
            self.send_error(404)

    def do_PUT(self) -> None:
        digest, size = hashlib.sha256(), 0
        for piece in self._body():
            digest.update(piece)
            size += len(piece)
        coding = self.headers.get("Transfer-Encoding", "identity")
        self._say(f"{self.command} {coding} {size} {digest.hexdigest()}\n")

    do_POST = do_PUT

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """
        Say nothing: the answers say it all.
        """

    def _body(self) -> Iterator[bytes]:
        stream = cast(BinaryIO, self.rfile)
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            yield from _pieces(stream, int(self.headers.get("Content-Length", "0")))
            return
        # RFC 9112, section 7.1; nobody sends us extensions or trailers.
        while size := int(stream.readline().strip(), 16):
            yield from _pieces(stream, size)
            stream.readline()
        stream.readline()

    def _send_file(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(self.file.stat().st_size))
        self.end_headers()
        with self.file.open("rb") as file:
            shutil.copyfileobj(file, self.wfile, _PIECE)

    def _say(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


def _pieces(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0:
        piece = stream.read(min(_PIECE, size))
        if not piece:
            raise EOFError(f"{size} bytes of the body are missing")
        size -= len(piece)
        yield piece


if __name__ == "__main__":
    Visit.file = Path(sys.argv[2])
    with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Visit) as server:
        print("serving", flush=True)
        server.serve_forever()

"""
A server of WebSockets, run by the tests as a program of its own.

It knows nothing of relaytunnel.  C{GET /chat} becomes a WebSocket (RFC 6455)
that greets, and sends every text back in capitals until the client closes it;
C{GET /later} is answered after a while; all else is an empty page.

Usage: C{websocket_server.py PORT}
"""

from __future__ import annotations

import base64
import hashlib
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WHILE = 1.5
"""How long C{/later} takes, in seconds."""

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _CLOSE = 1, 8


class Conversation(BaseHTTPRequestHandler):
    """
    One connection.
    """

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/chat":
            self._chat()
            return
        if self.path == "/later":
            time.sleep(WHILE)
        page = b"" if self.path != "/later" else b"at last\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """
        Say nothing: the answers say it all.
        """

    def _chat(self) -> None:
        if self.headers.get("Upgrade", "").lower() != "websocket":
            self.send_error(426)
            return
        key = self.headers["Sec-WebSocket-Key"].encode()
        accepted = base64.b64encode(hashlib.sha1(key + _MAGIC).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accepted)
        self.end_headers()
        self._send(_TEXT, b"welcome")
        while True:
            kind, content = self._receive()
            if kind == _CLOSE:
                self._send(_CLOSE, content)
                break
            self._send(kind, content.upper())
        self.close_connection = True

    def _receive(self) -> tuple[int, bytes]:
        """
        Read a frame (RFC 6455 5.2), which is whole and masked here.
        """
        first, second = self._exactly(2)
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(self._exactly(2 if length == 126 else 8), "big")
        mask = self._exactly(4)
        masked = self._exactly(length)
        return first & 0x0F, bytes(b ^ mask[i % 4] for i, b in enumerate(masked))

    def _send(self, kind: int, content: bytes) -> None:
        if len(content) < 126:
            length = bytes([len(content)])
        else:
            length = bytes([127]) + len(content).to_bytes(8, "big")
        self.wfile.write(bytes([0x80 | kind]) + length + content)

    def _exactly(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) < size:
            raise EOFError("the client left in the middle of a frame")
        return data


class Server(ThreadingHTTPServer):
    """
    A thread for each client, none of which outlives the server.
    """

    daemon_threads = True


if __name__ == "__main__":
    with Server(("127.0.0.1", int(sys.argv[1])), Conversation) as server:
        print("serving", flush=True)
        server.serve_forever()

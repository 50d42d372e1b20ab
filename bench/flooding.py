"""
An agent that says more on its control channel than any good one would.

C{python -m bench.flooding INVITATION KIND} says one thing over and over, as
fast as the relay takes it, and reads the answers: C{pings}, C{registers} of one
server, C{withdraws} (of a server that it registers again), C{ports} (any free
one, of one server after the other), or C{refused} registrations.  With C{once}
it registers a thousand servers, and says after how many seconds all answers
were there.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from itertools import count

from relaytunnel.channel.tls import CONTROL
from relaytunnel.wire.control import MAX_BODY, MessageReader, frame
from relaytunnel.wire.invitation import Invitation
from relaytunnel.wire.messages import (
    PROTOCOL_VERSION,
    Hello,
    Message,
    Ping,
    Register,
    StandingRequest,
    Welcome,
    Withdraw,
)

__all__ = ["KINDS"]

KINDS = ("pings", "registers", "withdraws", "ports", "refused")
_AT_ONCE = 32 * 1024
_MANY = 1000


def _messages(kind: str) -> Iterator[Message]:
    for number in count(1):
        if kind == "pings":
            yield Ping(number=number)
        elif kind == "refused":
            yield Register(connection_id="flood", reach=("port:1",))
        elif kind == "ports":
            name = f"flood-{number % 200}"
            yield Register(connection_id=name, reach=("port:0",))
            yield Withdraw(connection_id=f"flood-{(number + 100) % 200}")
        else:
            yield Register(connection_id="flood")
            if kind == "withdraws":
                yield Withdraw(connection_id="flood")


def _connect(invitation: Invitation) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # loopback, and nothing secret is said
    context.set_alpn_protocols([CONTROL.decode()])
    sock = context.wrap_socket(
        socket.create_connection((invitation.host, invitation.port)),
        server_hostname=invitation.host,
    )
    sock.sendall(
        frame(
            Hello(
                version=PROTOCOL_VERSION,
                agent=invitation.agent,
                secret=invitation.secret,
                epoch=time.time_ns() // 1000,
                software="flood",
            )
        )
    )
    reader = MessageReader(MAX_BODY)
    while not any(isinstance(message, Welcome) for message in reader.feed(sock.recv(4096))):
        pass
    print("begun", flush=True)
    return sock


def _flood(sock: ssl.SSLSocket, kind: str) -> None:
    sock.setblocking(False)
    messages, waiting = _messages(kind), b""
    while True:
        readable, writable, _ = select.select([sock], [sock], [])
        if readable:
            with contextlib.suppress(ssl.SSLWantReadError):
                while sock.recv(1 << 16):
                    pass
        if writable:
            while len(waiting) < _AT_ONCE:
                waiting += frame(next(messages))
            with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
                waiting = waiting[sock.send(waiting) :]


def _once(sock: ssl.SSLSocket) -> None:
    began = time.monotonic()
    sock.sendall(
        b"".join(frame(Register(connection_id=f"many-{number}")) for number in range(_MANY))
    )
    reader, answers = MessageReader(MAX_BODY), 0
    while answers < _MANY:
        for message in reader.feed(sock.recv(1 << 16)):
            answers += isinstance(message, StandingRequest)
    print(f"{time.monotonic() - began:.4f}", flush=True)


def _main(text: str, kind: str) -> None:
    sock = _connect(Invitation.parse(text))
    if kind == "once":
        _once(sock)
    else:
        _flood(sock, kind)


if __name__ == "__main__":
    _main(*sys.argv[1:])

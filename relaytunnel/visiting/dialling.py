"""
Reaching a server by way of a relay, without a reactor: dial, ask, and wait for
the answer.
"""

from __future__ import annotations

import socket
import time

from relaytunnel.channel.sockets import tune_socket
from relaytunnel.errors import ProtocolError
from relaytunnel.visiting.asking import PATIENCE, Answer, AnswerReader, HostPort, NotServed

__all__ = ["NO_SIGNAL", "dial"]

NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
"""For C{send}: a peer that is gone is an error, whatever SIGPIPE does."""

_DIALLING = 10.0
"""Seconds for each address that the relay's name stands for."""
_SIZE = 64 * 1024


def dial(
    relay: HostPort, request: bytes, patience: float = PATIENCE
) -> tuple[socket.socket, bytes]:
    """
    Connect to a relay and have it connect us to a server.

    @return: the connection, and what has come from the server already.
    @raise NotServed: it does not.
    """
    until = time.monotonic() + patience
    try:
        sock = socket.create_connection((relay.host, relay.port), min(_DIALLING, patience))
    except OSError as fault:
        raise NotServed(f"cannot reach the relay at {relay}: {fault.strerror or fault}") from None
    try:
        tune_socket(sock)
        reader = AnswerReader()
        answer = _await(sock, request, reader, until)
        if not answer.granted:
            raise NotServed(f"the relay at {relay} says {answer}")
        sock.settimeout(None)
    except ProtocolError as fault:
        sock.close()
        raise NotServed(f"what is at {relay} does not answer as a relay: {fault}") from None
    except BaseException:
        sock.close()
        raise
    return sock, reader.rest


def _await(sock: socket.socket, request: bytes, reader: AnswerReader, until: float) -> Answer:
    answer: Answer | None = None
    try:
        sock.sendall(request, NO_SIGNAL)
        while answer is None:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
            data = sock.recv(_SIZE)
            answer = reader.feed(data) if data else reader.cut_off("it closed the connection")
    except TimeoutError:
        return reader.cut_off("it took too long")
    except OSError as fault:
        return reader.cut_off(f"{fault.strerror or fault}")
    return answer

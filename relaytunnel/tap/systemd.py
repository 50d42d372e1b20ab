"""
What a service tells the service manager that started it, systemd for one
(sd_notify(3)): a datagram to the socket that C{$NOTIFY_SOCKET} names.
"""

from __future__ import annotations

import contextlib
import os
import socket

__all__ = ["notify"]


def notify(*states: str) -> None:
    """
    Tell the service manager this, such as C{READY=1}; nothing happens if there
    is none, or it does not listen.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    if address.startswith("@"):  # an abstract one
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
    ):
        sock.sendto("\n".join(states).encode(), address)

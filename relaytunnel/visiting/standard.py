"""
A visit between standard input and output and a server.

No reactor: whatever standard input and output are (pipes, sockets, files, a
terminal), a thread reads and writes them as they are.  A reactor would have to
make them non-blocking, for everybody who shares them, and cannot wait for a
file.  A thread that waits for one side reads nothing from the other, so no
more than one buffer a direction is ever held.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import stat
import struct
from collections.abc import Callable
from threading import Thread

from relaytunnel.visiting.asking import HostPort, NotServed
from relaytunnel.visiting.dialling import NO_SIGNAL, dial

__all__ = ["run_connect"]

_STDIN, _STDOUT = 0, 1
_SIZE = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_END_ON_CLOSE = struct.pack("ii", 0, 0)


def run_connect(relay: HostPort, connection_id: str, request: bytes) -> int:
    """
    Visit a server until both directions have ended.

    SIGINT and SIGTERM end the process as they do by default, and a reader of
    standard output that is gone ends it by SIGPIPE; the server sees a reset.

    @param request: as made by C{asking_for}.
    @return: the exit code, 0.
    @raise NotServed: the server was not reached, or reset the connection.
    """
    _open_what_is_closed()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sock, first = dial(relay, request)
    if not _Joined(sock, connection_id).run(first):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    return 0


def _open_what_is_closed() -> None:
    """
    See that no socket of ours becomes standard input, output or error.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


class _Joined:
    """
    Standard input and output, and a connection to the server.

    Two threads carry the bytes.  Who waits for them here sees what a thread
    that is blocked on one side does not: a reset on the other.
    """

    def __init__(self, sock: socket.socket, connection_id: str) -> None:
        self._sock = sock
        self._id = connection_id
        self._wakened, self._waker = os.pipe()
        self._sent = False
        self._received = False
        self._lost: str | None = None
        self._unheard = False
        self._failed: str | None = None
        # Should we be killed, the server must not take it for an end.
        self._linger(_RESET_ON_CLOSE)

    def run(self, first: bytes) -> bool:
        """
        Carry the bytes until both directions have ended.

        @param first: what the server has said already.
        @return: whether somebody was there to take what the server says.
        @raise NotServed: the server, or standard input or output, fails.
        """
        self._start(self._send)
        self._start(lambda: self._receive(first))
        self._watch()
        if self._failed is not None:
            raise NotServed(self._failed)
        if self._lost is not None:
            raise NotServed(f"the connection to {self._id} {self._lost}")
        if self._sent:
            # What is still in the socket is delivered behind our back.
            self._linger(_END_ON_CLOSE)
            self._sock.close()
        return not self._unheard

    def _linger(self, how: bytes) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)

    def _lose(self, code: int | None) -> None:
        if self._lost is None:
            was_reset = code in (errno.ECONNRESET, errno.EPIPE)
            self._lost = "was reset" if was_reset else f"is lost: {os.strerror(code or 0)}"

    # The threads

    def _start(self, carry: Callable[[], None]) -> None:
        def carry_and_wake() -> None:
            try:
                carry()
            except OSError as fault:
                self._lose(fault.errno)
            finally:
                os.write(self._waker, b".")

        # Nobody waits for a thread that waits for a terminal.
        Thread(target=carry_and_wake, daemon=True).start()

    def _send(self) -> None:
        while True:
            try:
                data = _read(_STDIN)
            except OSError as fault:
                self._failed = f"standard input: {fault.strerror}"
                return
            if not data:
                break
            # Whoever is told of a reset here is not told again by "recv",
            # which then reads an end.
            self._sock.sendall(data, NO_SIGNAL)
        self._sock.shutdown(socket.SHUT_WR)
        self._sent = True

    def _receive(self, data: bytes) -> None:
        while True:
            try:
                _write(_STDOUT, data)
            except BrokenPipeError:
                self._unheard = True
                return
            except OSError as fault:
                self._failed = f"standard output: {fault.strerror}"
                return
            try:
                data = self._sock.recv(_SIZE)
            except OSError as fault:
                self._lose(fault.errno)
                data = b""
            if not data:
                # First, as a socket that ends both ways looks as if it had
                # nobody who reads it.
                self._received = True
                _end_output()
                return

    # Who waits for them

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._wakened, select.POLLIN)
        poll.register(self._sock, 0)
        poll.register(_STDOUT, 0)
        gone = False
        while not self._over(gone):
            for descriptor, _ in poll.poll():
                if descriptor == self._wakened:
                    os.read(self._wakened, 1)
                    continue
                poll.unregister(descriptor)
                if descriptor == _STDOUT:
                    gone = True
                elif code := self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    self._lose(code)
        if not self._received:
            self._unheard = self._unheard or gone

    def _over(self, gone: bool) -> bool:
        """
        @param gone: whether nobody reads what we write.
        """
        if self._failed is not None or self._unheard:
            return True
        return (self._received or gone) and (self._sent or self._lost is not None)


def _read(descriptor: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, _SIZE)
        except BlockingIOError:  # others have made it so
            _wait(descriptor, select.POLLIN)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            _wait(descriptor, select.POLLOUT)


def _wait(descriptor: int, event: int) -> None:
    waiting = select.poll()
    waiting.register(descriptor, event)
    waiting.poll()


def _end_output() -> None:
    """
    Close standard output, so that its reader sees the end.
    """
    if os.path.sameopenfile(_STDIN, _STDOUT) and stat.S_ISSOCK(os.fstat(_STDOUT).st_mode):
        # To close one of the two ends nothing.
        with socket.socket(fileno=os.dup(_STDOUT)) as both, contextlib.suppress(OSError):
            both.shutdown(socket.SHUT_WR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDOUT)
    os.close(nowhere)

"""
TLS records, read into and written from memory that is always the same.

pyOpenSSL allocates and copies for each read, asks for an error after each call
and raises an exception whenever there is nothing to read: for a small message
that costs three times what OpenSSL does.  So an engine calls OpenSSL's two
functions itself, as pyOpenSSL's own C{lib} has them; where these are not to be
had, since pyOpenSSL does not promise them, it goes through pyOpenSSL.

Only established connections come here; handshakes and ends are pyOpenSSL's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from OpenSSL import SSL

try:
    from OpenSSL._util import ffi as _ffi
    from OpenSSL._util import lib as _lib
except ImportError:  # a pyOpenSSL that we do not know
    _ffi = _lib = None

__all__ = [
    "CAREFUL",
    "DIRECT",
    "RECORD",
    "Calls",
    "Memory",
    "Stopped",
    "calls_for",
    "forget_errors",
    "receiver",
    "sender",
]

RECORD = 16 * 1024
"""The most bytes in a TLS record."""


def forget_errors() -> None:
    """
    Empty OpenSSL's queue of errors.

    There is one for all connections of a thread, and what stands in it counts
    as the next one's.  pyOpenSSL leaves it filled when a call fails with
    C{SysCallError} (25.1): in a relay that was told nonsense by strangers, the
    control channels of good agents died of it.
    """
    clear = getattr(_lib, "ERR_clear_error", None)
    if clear is not None:
        clear()


class Stopped(Enum):
    """
    Why nothing was read or written.
    """

    WANT_READ = 0
    """Something has to come in first."""
    WANT_WRITE = 1
    """Something has to go out first."""
    OVER = 2
    """The peer has ended its direction, or all is lost."""


class Memory:
    """
    Memory for some records, one behind the other.

    @ivar view: all of it.
    @ivar at: where each of them begins, for L{Calls}.
    """

    def __init__(self, count: int) -> None:
        size = count * RECORD
        if _ffi is None:
            self.view = memoryview(bytearray(size))
            self.at: list[Any] = [self.view[each * RECORD :] for each in range(count)]
        else:
            memory = _ffi.new("char[]", size)
            self.view = memoryview(_ffi.buffer(memory)).cast("B")
            self._memory = memory  # a pointer into it does not keep it
            self.at = [memory + each * RECORD for each in range(count)]


@dataclass(frozen=True)
class Calls:
    """
    How records are read and written.

    @ivar handle: what C{read}, C{write} and C{why} know a connection by.
    @ivar read: takes a handle, a place in a L{Memory} and a number of bytes;
        returns how many came, and less than 1 if there was nothing to read.
    @ivar write: takes the same; returns how many went, and less than 1 if none.
        A write that went nowhere has to be tried again with the same bytes.
    @ivar why: takes a handle and what a call for it has just returned, and says
        why it was less than 1.
    """

    handle: Callable[[SSL.Connection], Any]
    read: Callable[[Any, Any, int], int]
    write: Callable[[Any, Any, int], int]
    why: Callable[[Any, int], Stopped]


# By OpenSSL's own functions.


def _direct() -> Calls | None:
    try:
        read, write, get_error = _lib.SSL_read, _lib.SSL_write, _lib.SSL_get_error
        reasons = {
            _lib.SSL_ERROR_WANT_READ: Stopped.WANT_READ,
            _lib.SSL_ERROR_WANT_WRITE: Stopped.WANT_WRITE,
        }
        SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)._ssl  # noqa: B018
    except AttributeError:
        return None

    def why(ssl: Any, result: int) -> Stopped:
        reason = reasons.get(get_error(ssl, result))
        if reason is None:
            forget_errors()
            return Stopped.OVER
        return reason

    return Calls(lambda connection: connection._ssl, read, write, why)


DIRECT = _direct()
"""By OpenSSL's own functions; C{None} where pyOpenSSL has none that we know."""


# By pyOpenSSL's methods.


class _Careful:
    """
    A connection, and why its last call came to nothing.
    """

    __slots__ = ("connection", "why")

    def __init__(self, connection: SSL.Connection) -> None:
        self.connection = connection
        self.why = Stopped.OVER

    def call(self, method: Callable[..., int], *arguments: Any) -> int:
        try:
            return method(*arguments)
        except SSL.WantReadError:
            self.why = Stopped.WANT_READ
        except SSL.WantWriteError:
            self.why = Stopped.WANT_WRITE
        except SSL.Error:
            forget_errors()
            self.why = Stopped.OVER
        return -1


def _bytes_at(at: Any, size: int) -> memoryview:
    return at[:size] if isinstance(at, memoryview) else memoryview(_ffi.buffer(at, size)).cast("B")


CAREFUL = Calls(
    _Careful,
    lambda one, at, size: one.call(one.connection.recv_into, _bytes_at(at, size)),
    lambda one, at, size: one.call(one.connection.send, _bytes_at(at, size)),
    lambda one, result: one.why,
)
"""By pyOpenSSL's methods."""


# For whoever speaks of bytes and exceptions, as pyOpenSSL does.


def receiver(connection: SSL.Connection) -> Callable[[int], bytes]:
    """
    @return: what reads like C{connection.recv}, at most L{RECORD} bytes at a
        time, and is quicker.
    """
    fail = getattr(connection, "_raise_ssl_error", None)
    if DIRECT is None or fail is None:
        return connection.recv
    handle, read, get_error = DIRECT.handle(connection), DIRECT.read, _lib.SSL_get_error
    at, view, nothing_yet = _MEMORY.at[0], _MEMORY.view, _lib.SSL_ERROR_WANT_READ

    def recv(most: int) -> bytes:
        got = read(handle, at, min(most, RECORD))
        if got > 0:
            return bytes(view[:got])
        if get_error(handle, got) == nothing_yet:
            raise SSL.WantReadError
        fail(handle, got)
        raise AssertionError("OpenSSL has failed without an error")

    return recv


def sender(connection: SSL.Connection) -> Callable[[bytes | memoryview], int]:
    """
    @return: what writes like C{connection.send}, and is quicker for bytes.
    """
    careful = connection.send
    if DIRECT is None:
        return careful
    handle, write = DIRECT.handle(connection), DIRECT.write

    def send(data: bytes | memoryview) -> int:
        if type(data) is bytes and 0 < len(data) <= RECORD:
            sent = write(handle, data, len(data))
            if sent > 0:
                return sent
        # What has gone nowhere is tried once more, and fails for the same reason.
        return careful(data)

    return send


_MEMORY = Memory(1)


def calls_for() -> Calls:
    """
    @return: the fastest way that there is.
    """
    return DIRECT or CAREFUL

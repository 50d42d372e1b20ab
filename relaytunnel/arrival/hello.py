"""
The grammar of a ClientHello (RFC 8446 4.1.2, RFC 6066 3), strictly.

Here a whole one is read for the server that it names; whatever a server behind
the relay might read differently is a L{Fault}.  How it is put together from
its records is the business of L{relaytunnel.arrival.tls}.
"""

from __future__ import annotations

from enum import IntEnum

from relaytunnel.arrival.authority import parse_host
from relaytunnel.errors import ProtocolError

__all__ = ["MAJOR", "Alert", "Fault", "alert", "server_name"]

MAJOR = 3
"""The first byte of every version of TLS."""

_SERVER_NAME = 0
_HOST_NAME = 0


class Alert(IntEnum):
    """
    What a relay that cannot decrypt may have to say (RFC 8446 6.2).
    """

    UNEXPECTED_MESSAGE = 10
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    ILLEGAL_PARAMETER = 47
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    PROTOCOL_VERSION = 70
    INTERNAL_ERROR = 80
    MISSING_EXTENSION = 109
    UNRECOGNIZED_NAME = 112


def alert(description: int) -> bytes:
    """
    Say in TLS why a handshake ends.

    @param description: an L{Alert}, or any other number of RFC 8446 6.

    @return: a record with one fatal alert.
    """
    # RFC 8446 5.1 has every record say 1.2.  Who speaks an older version takes
    # it too, as none has been agreed on yet.
    return bytes((21, 3, 3, 0, 2, 2, description))


class Fault(ProtocolError):
    """
    A hello that is not served.

    @ivar alert: what tells the client so.
    """

    def __init__(self, alert: Alert, reason: str) -> None:
        super().__init__(reason)
        self.alert = alert


class _Fields:
    """
    The fields of a message, from the first to the last (RFC 8446 3).
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise Fault(Alert.DECODE_ERROR, "a length in the ClientHello leads past its end")
        self._at += size
        return taken

    def vector(self, head: int, shortest: int = 0, longest: int = 65535) -> bytes:
        """
        Read a field that has its length before it, in as many bytes as
        C{head} says.
        """
        size = int.from_bytes(self.take(head), "big")
        if not shortest <= size <= longest:
            raise Fault(Alert.DECODE_ERROR, "a field of the ClientHello has an impossible length")
        return self.take(size)

    def last(self, shortest: int = 0) -> _Fields:
        """
        Read the fields in a field that ends where these do.
        """
        inner = _Fields(self.vector(2, shortest))
        if self.more:
            raise Fault(Alert.DECODE_ERROR, "the lengths in the ClientHello do not add up")
        return inner


def server_name(body: bytes) -> str | None:
    """
    Read a ClientHello without its head (RFC 8446 4.1.2, RFC 5246 7.4.1.2).

    @return: the host that it names, if it does.
    @raise Fault: it is no ClientHello.
    """
    fields = _Fields(body)
    if fields.take(2)[0] != MAJOR:
        raise Fault(Alert.PROTOCOL_VERSION, "the version of the ClientHello is none of TLS")
    fields.take(32)
    fields.vector(1, longest=32)
    if len(fields.vector(2, 2)) % 2:
        raise Fault(Alert.DECODE_ERROR, "there is half a cipher suite in the ClientHello")
    fields.vector(1, 1)
    # Before TLS 1.3 a hello could do without extensions.
    if not fields.more:
        return None
    extensions = fields.last()
    seen: dict[int, bytes] = {}
    while extensions.more:
        kind = int.from_bytes(extensions.take(2), "big")
        # Even twice the same: who comes later may look at another one.
        if kind in seen:
            raise Fault(Alert.ILLEGAL_PARAMETER, f"the extension {kind} is there twice")
        seen[kind] = extensions.vector(2)
    return _host(seen[_SERVER_NAME]) if _SERVER_NAME in seen else None


def _host(data: bytes) -> str:
    """
    Read a ServerNameList (RFC 6066 3).

    No other type of name than a host's has ever been defined, and OpenSSL
    takes no list that has more than one name in it.
    """
    names = _Fields(data).last(1)
    kind = names.take(1)[0]
    name = names.vector(2, 1)
    if kind != _HOST_NAME or names.more:
        raise Fault(Alert.ILLEGAL_PARAMETER, "the server_name is not a single host name")
    try:
        # A trailing dot should not be there, but means the same host.
        host = parse_host(name)
    except ProtocolError as error:
        raise Fault(Alert.ILLEGAL_PARAMETER, f"in the server_name, {error}") from None
    if host.rpartition(".")[2].isdigit():
        raise Fault(Alert.ILLEGAL_PARAMETER, "the server_name is an IP address")
    return host

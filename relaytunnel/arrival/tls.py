"""
TLS: the client names its server by the server_name of its ClientHello.

Nothing is decrypted here, and no TLS is spoken but a single alert: the first
message, which is in clear, is put together from its records and read (RFC
8446 4.1.2, RFC 6066 3), and then goes on to the server as it came.  What a
name may look like is said in L{relaytunnel.arrival.authority}.
"""

from __future__ import annotations

from enum import IntEnum

from relaytunnel.arrival.authority import parse_host
from relaytunnel.arrival.ways import DEFAULT_LIMITS, Limits, Malformed, Named, Opening, Quiet
from relaytunnel.errors import Code, Failing, ProtocolError

__all__ = ["SNI", "Alert", "SniArrival", "alert"]

_HANDSHAKE = 22
_MAJOR = 3
_CLIENT_HELLO = 1
_RECORD_HEAD = 5
_MESSAGE_HEAD = 4
_MAX_FRAGMENT = 2**14
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


class _Fault(ProtocolError):
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
            raise _Fault(Alert.DECODE_ERROR, "a length in the ClientHello leads past its end")
        self._at += size
        return taken

    def vector(self, head: int, shortest: int = 0, longest: int = 65535) -> bytes:
        """
        Read a field that has its length before it, in as many bytes as
        C{head} says.
        """
        size = int.from_bytes(self.take(head), "big")
        if not shortest <= size <= longest:
            raise _Fault(Alert.DECODE_ERROR, "a field of the ClientHello has an impossible length")
        return self.take(size)

    def last(self, shortest: int = 0) -> _Fields:
        """
        Read the fields in a field that ends where these do.
        """
        inner = _Fields(self.vector(2, shortest))
        if self.more:
            raise _Fault(Alert.DECODE_ERROR, "the lengths in the ClientHello do not add up")
        return inner


class SniArrival(Quiet):
    """
    One client's ClientHello, while it is read and answered.

    Of an Encrypted ClientHello (RFC 9849) this sees the outer one: its
    server_name is taken like any other.
    """

    name = "sni"

    def __init__(self, limits: Limits = DEFAULT_LIMITS, start: int = 0) -> None:
        """
        @param limits: the bound of the head counts the heads of its records
            too, so many tiny records are no way around it.
        @param start: how many bytes the client sends before its TLS begins.
        """
        self._max_head = limits.max_head
        self._outcome: Named | Malformed | None = None
        self._hello = bytearray()
        # Where the first byte is that was not read yet, and how many bytes of
        # its record there are from it on.
        self._at = self._start = start
        self._left = 0

    def feed(self, buffer: bytes) -> Named | Malformed | None:
        """
        Read the records that came by now; see L{Way.feed}.
        """
        if self._outcome is None:
            try:
                self._outcome = self._read(buffer)
            except _Fault as fault:
                self._outcome = Malformed(str(fault), alert(fault.alert))
            if self._outcome is not None:
                self._hello.clear()
        return self._outcome

    def answer(self, failing: Failing) -> bytes:
        """
        A fatal alert that says as much as an alert can.
        """
        if failing.code is Code.NO_SUCH_SERVER:
            if isinstance(self._outcome, Named) and self._outcome.host is None:
                return alert(Alert.MISSING_EXTENSION)
            return alert(Alert.UNRECOGNIZED_NAME)
        if failing.code is Code.NOT_ALLOWED:
            return alert(Alert.ACCESS_DENIED)
        return alert(Alert.INTERNAL_ERROR)

    def timed_out(self) -> bytes:
        """
        A handshake_failure.

        TLS has no word for it.  The others put it down to the relay
        (internal_error), to the user (user_canceled) or to a field that
        nobody has seen; that the handshake has failed is at least true.
        """
        return alert(Alert.HANDSHAKE_FAILURE)

    def _read(self, buffer: bytes) -> Named | None:
        """
        Read on from where the last call stopped.

        @raise _Fault: at the first byte that makes sure that there is one.
        """
        while self._left or self._begin_record(buffer):
            piece = buffer[self._at : self._at + self._left]
            if not piece:
                return None
            self._hello += piece
            self._at += len(piece)
            self._left -= len(piece)
            if self._is_complete():
                return Named(self.name, _server_name(bytes(self._hello[_MESSAGE_HEAD:])))
        return None

    def _begin_record(self, buffer: bytes) -> bool:
        """
        Read the head of a record (RFC 8446 5.1), if all of it is there.
        """
        head = buffer[self._at : self._at + _RECORD_HEAD]
        if head and head[0] != _HANDSHAKE:
            # RFC 5246 E.2: what begins an SSL 2.0 hello has its highest bit set.
            if self._at == self._start and head[0] & 0x80:
                raise _Fault(Alert.PROTOCOL_VERSION, "an SSL 2.0 hello is not served")
            raise _Fault(Alert.UNEXPECTED_MESSAGE, "there is another record than a handshake's")
        if len(head) > 1 and head[1] != _MAJOR:
            raise _Fault(Alert.PROTOCOL_VERSION, "the version of a record is none of TLS")
        if len(head) < _RECORD_HEAD:
            return False
        size = int.from_bytes(head[3:], "big")
        if size == 0:
            raise _Fault(Alert.DECODE_ERROR, "there is a handshake record with nothing in it")
        if size > _MAX_FRAGMENT:
            raise _Fault(Alert.RECORD_OVERFLOW, "a record is longer than 16384 bytes")
        self._at += _RECORD_HEAD
        self._left = size
        return True

    def _is_complete(self) -> bool:
        """
        Whether the ClientHello is there up to its end.

        The bound is checked against the length that is announced, so nothing
        is collected that will not be read.
        """
        if self._hello[0] != _CLIENT_HELLO:
            raise _Fault(Alert.UNEXPECTED_MESSAGE, "the first message is no ClientHello")
        if len(self._hello) < _MESSAGE_HEAD:
            return False
        size = _MESSAGE_HEAD + int.from_bytes(self._hello[1:_MESSAGE_HEAD], "big")
        missing = size - len(self._hello)
        next_head = 0 if self._left or not missing else _RECORD_HEAD
        if self._at + next_head + missing > self._max_head:
            # Not record_overflow: that is about one record.  OpenSSL and
            # BoringSSL say this of a message that they find excessive.
            reason = f"the ClientHello does not end within {self._max_head} bytes"
            raise _Fault(Alert.ILLEGAL_PARAMETER, reason)
        # The keys may change behind a ClientHello, so it has to end with its
        # record (RFC 8446 5.1).
        if self._left > missing:
            raise _Fault(Alert.UNEXPECTED_MESSAGE, "the ClientHello's record goes on behind it")
        return not missing


def _server_name(body: bytes) -> str | None:
    """
    Read a ClientHello without its head (RFC 8446 4.1.2, RFC 5246 7.4.1.2).

    @return: the host that it names, if it does.
    """
    fields = _Fields(body)
    if fields.take(2)[0] != _MAJOR:
        raise _Fault(Alert.PROTOCOL_VERSION, "the version of the ClientHello is none of TLS")
    fields.take(32)
    fields.vector(1, longest=32)
    if len(fields.vector(2, 2)) % 2:
        raise _Fault(Alert.DECODE_ERROR, "there is half a cipher suite in the ClientHello")
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
            raise _Fault(Alert.ILLEGAL_PARAMETER, f"the extension {kind} is there twice")
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
        raise _Fault(Alert.ILLEGAL_PARAMETER, "the server_name is not a single host name")
    try:
        # A trailing dot should not be there, but means the same host.
        host = parse_host(name)
    except ProtocolError as error:
        raise _Fault(Alert.ILLEGAL_PARAMETER, f"in the server_name, {error}") from None
    if host.rpartition(".")[2].isdigit():
        raise _Fault(Alert.ILLEGAL_PARAMETER, "the server_name is an IP address")
    return host


def _fits(prefix: bytes) -> bool | None:
    """
    Whether a record of a TLS handshake begins here.
    """
    if prefix in (b"", bytes((_HANDSHAKE,))):
        return None
    return prefix.startswith(bytes((_HANDSHAKE, _MAJOR)))


SNI = Opening("sni", _fits, SniArrival)

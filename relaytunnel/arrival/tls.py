"""
TLS: the client names its server by the server_name of its ClientHello.

Nothing is decrypted here, and no TLS is spoken but a single alert: the first
message, which is in clear, is put together from its records (RFC 8446 5.1)
and read, and then goes on to the server as it came.  What it may look like is
said in L{relaytunnel.arrival.hello}.
"""

from __future__ import annotations

from relaytunnel.arrival.hello import MAJOR, Alert, Fault, alert, server_name
from relaytunnel.arrival.ways import DEFAULT_LIMITS, Limits, Malformed, Named, Opening, Quiet
from relaytunnel.errors import Code, Failing

__all__ = ["SNI", "SniArrival"]

_HANDSHAKE = 22
_CLIENT_HELLO = 1
_RECORD_HEAD = 5
_MESSAGE_HEAD = 4
_MAX_FRAGMENT = 2**14


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
            except Fault as fault:
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

        @raise Fault: at the first byte that makes sure that there is one.
        """
        while self._left or self._begin_record(buffer):
            piece = buffer[self._at : self._at + self._left]
            if not piece:
                return None
            self._hello += piece
            self._at += len(piece)
            self._left -= len(piece)
            if self._is_complete():
                return Named(self.name, server_name(bytes(self._hello[_MESSAGE_HEAD:])))
        return None

    def _begin_record(self, buffer: bytes) -> bool:
        """
        Read the head of a record (RFC 8446 5.1), if all of it is there.
        """
        head = buffer[self._at : self._at + _RECORD_HEAD]
        if head and head[0] != _HANDSHAKE:
            # RFC 5246 E.2: what begins an SSL 2.0 hello has its highest bit set.
            if self._at == self._start and head[0] & 0x80:
                raise Fault(Alert.PROTOCOL_VERSION, "an SSL 2.0 hello is not served")
            raise Fault(Alert.UNEXPECTED_MESSAGE, "there is another record than a handshake's")
        if len(head) > 1 and head[1] != MAJOR:
            raise Fault(Alert.PROTOCOL_VERSION, "the version of a record is none of TLS")
        if len(head) < _RECORD_HEAD:
            return False
        size = int.from_bytes(head[3:], "big")
        if size == 0:
            raise Fault(Alert.DECODE_ERROR, "there is a handshake record with nothing in it")
        if size > _MAX_FRAGMENT:
            raise Fault(Alert.RECORD_OVERFLOW, "a record is longer than 16384 bytes")
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
            raise Fault(Alert.UNEXPECTED_MESSAGE, "the first message is no ClientHello")
        if len(self._hello) < _MESSAGE_HEAD:
            return False
        size = _MESSAGE_HEAD + int.from_bytes(self._hello[1:_MESSAGE_HEAD], "big")
        missing = size - len(self._hello)
        next_head = 0 if self._left or not missing else _RECORD_HEAD
        if self._at + next_head + missing > self._max_head:
            # Not record_overflow: that is about one record.  OpenSSL and
            # BoringSSL say this of a message that they find excessive.
            reason = f"the ClientHello does not end within {self._max_head} bytes"
            raise Fault(Alert.ILLEGAL_PARAMETER, reason)
        # The keys may change behind a ClientHello, so it has to end with its
        # record (RFC 8446 5.1).
        if self._left > missing:
            raise Fault(Alert.UNEXPECTED_MESSAGE, "the ClientHello's record goes on behind it")
        return not missing


def _fits(prefix: bytes) -> bool | None:
    """
    Whether a record of a TLS handshake begins here.
    """
    if prefix in (b"", bytes((_HANDSHAKE,))):
        return None
    return prefix.startswith(bytes((_HANDSHAKE, MAJOR)))


SNI = Opening("sni", _fits, SniArrival)

"""
PostgreSQL: the client asks for TLS, and names its server in its ClientHello.

A libpq that connects with TLS first sends an SSLRequest, and waits for one
byte before it says hello.  A server takes nothing that comes before it has
given that byte itself, so the relay gives it in the server's stead, and has
the server asked again when it is known which one that is.  How a ClientHello
is read is said in L{relaytunnel.arrival.tls}; a client that begins with it
(C{sslnegotiation=direct}) never comes here.  The messages are those of
chapter "Frontend/Backend Protocol" in the PostgreSQL documentation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from relaytunnel.arrival.plain import text_line, too_late
from relaytunnel.arrival.tls import SniArrival
from relaytunnel.arrival.ways import (
    DEFAULT_LIMITS,
    Limits,
    Malformed,
    Named,
    Opening,
    Prelude,
    Quiet,
)
from relaytunnel.errors import Code, Failing

__all__ = ["POSTGRES", "PostgresArrival"]

_HEAD = 8
# SQLSTATEs.
_UNABLE = "08001"
_REJECTED = "08004"
_VIOLATION = "08P01"


@dataclass(frozen=True)
class _Packet:
    """
    A message that a client may begin with: its length, and a code.

    @ivar code: what follows the length, as far as it is fixed.
    @ivar shortest: the least length.
    @ivar longest: the greatest one.
    """

    code: bytes
    shortest: int
    longest: int

    def fits(self, head: bytes) -> bool:
        """
        Whether a message that begins with up to eight such bytes may be this.
        """
        length = head[:4]
        low, high = (
            bound.to_bytes(4, "big")[: len(length)] for bound in (self.shortest, self.longest)
        )
        return low <= length <= high and self.code.startswith(head[4 : 4 + len(self.code)])


_SSL = _Packet(b"\x04\xd2\x16\x2f", _HEAD, _HEAD)
_GSS = _Packet(b"\x04\xd2\x16\x30", _HEAD, _HEAD)
# The key may be up to 256 bytes long since protocol 3.2.
_CANCEL = _Packet(b"\x04\xd2\x16\x2e", 16, 268)
# PostgreSQL itself takes no more than 10000 bytes, of any protocol 3.
_STARTUP = _Packet(b"\x00\x03", _HEAD, 10000)
_PACKETS = (_SSL, _GSS, _CANCEL, _STARTUP)

_SSL_REQUEST = _SSL.shortest.to_bytes(4, "big") + _SSL.code
_WILLING = b"S"
_UNWILLING = b"N"


class PostgresArrival(Quiet):
    """
    One client's requests and its ClientHello, while they are read and answered.

    A client should wait for the answer to its SSLRequest.  What one sends
    behind it without waiting looks the same as what it sends later, and is
    taken: a server must not do so, because it would take for encrypted what
    anybody on the way may have put in (CVE-2021-23214).  The relay takes
    nothing for encrypted.  It reads a hello, which is in clear in any case,
    and the server gets these bytes behind an answer of its own, as TLS.
    """

    name = "postgres"

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._outcome: Named | Malformed | None = None
        # Where the first message begins that was not read yet.
        self._at = 0
        self._reply = b""
        # What reads the hello; and again, once the client was told to say it.
        self._tls: SniArrival | None = None
        self._promised: SniArrival | None = None

    def feed(self, buffer: bytes) -> Named | Malformed | None:
        """
        Read the messages that are complete by now; see L{Way.feed}.
        """
        if self._outcome is None:
            self._outcome = self._read(buffer)
        return self._outcome

    def take_reply(self) -> bytes:
        """
        One byte for each request: C{S}, that TLS is spoken, or C{N}, that
        GSSAPI is not.
        """
        reply, self._reply = self._reply, b""
        if _WILLING in reply:
            self._promised = self._tls
        return reply

    def answer(self, failing: Failing) -> bytes:
        """
        An ErrorResponse, or an alert once the client was told to speak TLS.
        """
        if self._promised is not None:
            return self._promised.answer(failing)
        return _error_response(_UNABLE, text_line(failing))

    def timed_out(self) -> bytes:
        """
        An ErrorResponse, or an alert once the client was told to speak TLS.
        """
        if self._promised is not None:
            return self._promised.timed_out()
        return _error_response(_UNABLE, too_late())

    def _read(self, buffer: bytes) -> Named | Malformed | None:
        """
        Read on from where the last call stopped.
        """
        while self._tls is None:
            head = buffer[self._at : self._at + _HEAD]
            packet = next((packet for packet in _PACKETS if packet.fits(head)), None)
            if packet is not None and len(head) < _HEAD:
                return None
            if packet is _SSL:
                self._at += _HEAD
                self._reply += _WILLING
                self._tls = SniArrival(self._limits, self._at)
            elif packet is _GSS and self._at == 0:
                self._at += _HEAD
                self._reply += _UNWILLING
            else:
                return _turned_away(packet)
        found = self._tls.feed(buffer)
        if isinstance(found, Named):
            prelude = Prelude(says=_SSL_REQUEST, hears=_WILLING)
            return replace(found, way=self.name, consumed=self._at, prelude=prelude)
        return found


def _turned_away(packet: _Packet | None) -> Malformed:
    if packet is _CANCEL:
        # A server does not answer it either, and no client waits for more.
        return Malformed("a query cannot be cancelled here without TLS", b"")
    if packet is _STARTUP:
        state, code = _REJECTED, Code.UNSUPPORTED
        reason = (
            "without TLS nobody can tell which server is meant;"
            " use sslmode=require and the server's host name"
        )
    else:
        state, code = _VIOLATION, Code.PROTOCOL_ERROR
        reason = "this is no message that a PostgreSQL client may begin with"
    return Malformed(reason, _error_response(state, text_line(Failing(code, reason))))


def _error_response(state: str, line: bytes) -> bytes:
    """
    Say in the PostgreSQL protocol why a client cannot be served.

    @param state: the SQLSTATE.
    @param line: the message, as a line of text.
    """
    fields = (b"SFATAL", b"VFATAL", b"C" + state.encode("ascii"), b"M" + line.rstrip(), b"")
    body = b"".join(field + b"\0" for field in fields)
    return b"E" + (4 + len(body)).to_bytes(4, "big") + body


def _fits(prefix: bytes) -> bool | None:
    """
    Whether one of the messages begins here that a client may begin with.
    """
    head = prefix[:_HEAD]
    if not any(packet.fits(head) for packet in _PACKETS):
        return False
    return True if len(head) == _HEAD else None


POSTGRES = Opening("postgres", _fits, PostgresArrival)

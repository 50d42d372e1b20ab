"""
SOCKS5 and SOCKS4A: the client names its server to a proxy, which is the relay.

Here are the heads of RFC 1928 with RFC 1929 and of SOCKS4A, read up to the
first byte that is the server's.  Nobody's password is checked here: whom a
login has to satisfy is known only when the server is.

What the owner of the client channel gets by C{take_reply} goes out before
anything else that a way says: before an answer, and before a welcome.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from functools import partial
from ipaddress import ip_address

from relaytunnel.arrival.authority import parse_host
from relaytunnel.arrival.ways import (
    DEFAULT_LIMITS,
    Limits,
    Login,
    Malformed,
    Named,
    Opening,
    Quiet,
)
from relaytunnel.errors import Code, Failing, ProtocolError

__all__ = ["SOCKS4", "SOCKS5", "Socks4Arrival", "Socks5Arrival"]

_CONNECT = 1
_IPV4, _DOMAIN_NAME, _IPV6 = 1, 3, 4
_NO_AUTHENTICATION, _PASSWORD = 0, 2
# SOCKS4 sets no bound; this is the one of SOCKS5, by its length octets.
_MAX_TEXT = 255
_BY_ADDRESS = "servers have names here; let the proxy look them up (socks5h, socks4a)"


class _Rep(IntEnum):
    """
    What became of a request (RFC 1928 6).
    """

    SUCCEEDED = 0
    FAILED = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    REFUSED = 5
    TTL_EXPIRED = 6
    NO_SUCH_COMMAND = 7
    NO_SUCH_ADDRESS_TYPE = 8


_REPS = {
    Code.NO_SUCH_SERVER: _Rep.HOST_UNREACHABLE,
    Code.AGENT_AWAY: _Rep.NETWORK_UNREACHABLE,
    Code.NOT_ALLOWED: _Rep.NOT_ALLOWED,
    Code.LOGIN_NEEDED: _Rep.NOT_ALLOWED,
    Code.UNKNOWN_ID: _Rep.HOST_UNREACHABLE,
    Code.REFUSED_BY_TARGET: _Rep.REFUSED,
    Code.TARGET_UNREACHABLE: _Rep.HOST_UNREACHABLE,
    Code.TIMEOUT: _Rep.TTL_EXPIRED,
}


class _Fault(ProtocolError):
    """
    A head that is not served.

    @ivar rep: what tells the client so, if it has come as far as a request.
    """

    def __init__(self, rep: _Rep, reason: str) -> None:
        super().__init__(reason)
        self.rep = rep


class _Socks(Quiet):
    """
    What both versions have in common.
    """

    name: str

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        """
        @param limits: of no use here; the form of a head bounds it to 1 KiB.
        """
        self._outcome: Named | Malformed | None = None

    def feed(self, buffer: bytes) -> Named | Malformed | None:
        """
        Read the messages that are complete by now; see L{Way.feed}.

        The answer to a fault does not contain what C{take_reply} still has.
        """
        if self._outcome is None:
            try:
                self._outcome = self._read(buffer)
            except _Fault as fault:
                self._outcome = Malformed(str(fault), self._reply_with(fault.rep))
        return self._outcome

    def answer(self, failing: Failing) -> bytes:
        """
        The reply that says as much as a code of this version can.
        """
        return self._reply_with(_REPS.get(failing.code, _Rep.FAILED))

    def timed_out(self) -> bytes:
        """
        The same reply as to any other delay.
        """
        return self._reply_with(_Rep.TTL_EXPIRED)

    def _read(self, buffer: bytes) -> Named | None:
        raise NotImplementedError

    def _reply_with(self, rep: _Rep) -> bytes:
        raise NotImplementedError

    def _named(self, host: bytes, port: bytes, consumed: int, login: Login | None = None) -> Named:
        return Named(
            self.name,
            _server_name(host),
            int.from_bytes(port, "big") or None,
            consumed=consumed,
            welcome=self._reply_with(_Rep.SUCCEEDED),
            login=login,
        )


_Stage = Enum("_Stage", ["METHODS", "LOGIN", "REQUEST"])
"""Which message of a SOCKS5 client is due."""


class Socks5Arrival(_Socks):
    """
    One client's SOCKS5 handshake.

    A client that offers a user name and a password is asked for them, and is
    told that they are fine, or it would not go on to name its server.  Some
    clients offer them always, and send an empty password.
    """

    name = "socks5"

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        super().__init__(limits)
        self._stage = _Stage.METHODS
        # Where the message begins that is due.
        self._at = 0
        self._login: Login | None = None
        self._reply = b""

    def take_reply(self) -> bytes:
        """
        The choice of a method, and later that the login is fine; both at once
        if the client did not wait.
        """
        reply, self._reply = self._reply, b""
        return reply

    def _read(self, buffer: bytes) -> Named | None:
        if self._stage is _Stage.METHODS:
            self._read_methods(buffer)
        if self._stage is _Stage.LOGIN:
            self._read_login(buffer)
        return self._read_request(buffer) if self._stage is _Stage.REQUEST else None

    def _read_methods(self, buffer: bytes) -> None:
        """
        Choose among the methods that the client offers (RFC 1928 3).
        """
        _expect(5, buffer, 0)
        methods = _counted(buffer, 1)
        if methods is None:
            return
        if _PASSWORD in methods:
            self._go_on(_Stage.LOGIN, 2 + len(methods), bytes([5, _PASSWORD]))
        elif _NO_AUTHENTICATION in methods:
            self._go_on(_Stage.REQUEST, 2 + len(methods), bytes([5, _NO_AUTHENTICATION]))
        else:
            raise _Fault(_Rep.FAILED, "no way to log in is offered that is known here")

    def _read_login(self, buffer: bytes) -> None:
        """
        Take the user name and the password (RFC 1929 2), empty ones too.
        """
        _expect(1, buffer, self._at)
        user = _counted(buffer, self._at + 1)
        password = None if user is None else _counted(buffer, self._at + 2 + len(user))
        if user is None or password is None:
            return
        try:
            self._login = Login(user.decode("utf-8"), password.decode("utf-8"))
        except UnicodeDecodeError:
            # No encoding is set.  As in HTTP, another one counts as not said.
            self._login = None
        self._go_on(_Stage.REQUEST, 3 + len(user) + len(password), b"\x01\x00")

    def _read_request(self, buffer: bytes) -> Named | None:
        """
        Read which server the client wants (RFC 1928 4).
        """
        _expect(5, buffer, self._at)
        if len(buffer) < self._at + 4:
            return None
        command, reserved, kind = buffer[self._at + 1 : self._at + 4]
        if command != _CONNECT:
            raise _Fault(_Rep.NO_SUCH_COMMAND, "only the command CONNECT is served")
        if reserved != 0:
            raise _Fault(_Rep.FAILED, "the reserved byte of the request is not 0")
        if kind in (_IPV4, _IPV6):
            raise _Fault(_Rep.NO_SUCH_ADDRESS_TYPE, _BY_ADDRESS)
        if kind != _DOMAIN_NAME:
            raise _Fault(_Rep.NO_SUCH_ADDRESS_TYPE, "the type of the address is not known")
        host = _counted(buffer, self._at + 4)
        if host is None or len(buffer) < self._at + 7 + len(host):
            return None
        end = self._at + 7 + len(host)
        return self._named(host, buffer[end - 2 : end], end, self._login)

    def _go_on(self, stage: _Stage, length: int, reply: bytes) -> None:
        self._stage = stage
        self._at += length
        self._reply += reply

    def _reply_with(self, rep: _Rep) -> bytes:
        """
        As long as there is no request, no in the form that the client awaits.
        """
        if self._stage is _Stage.METHODS:
            return b"\x05\xff"
        if self._stage is _Stage.LOGIN:
            return b"\x01\x01"
        # Bound to 0.0.0.0 port 0, as where the server is, is not told.
        return bytes([5, rep, 0, _IPV4]) + bytes(6)


class Socks4Arrival(_Socks):
    """
    One client's SOCKS4A request; its user ID is no login, as nothing proves it.
    """

    name = "socks4"

    def _read(self, buffer: bytes) -> Named | None:
        _expect(4, buffer, 0)
        if len(buffer) < 8:
            return None
        if buffer[1] != _CONNECT:
            raise _Fault(_Rep.NO_SUCH_COMMAND, "only the command CONNECT is served")
        # 0.0.0.x, where x is not 0, says that a name follows.
        if buffer[4:7] != bytes(3) or buffer[7] == 0:
            raise _Fault(_Rep.NO_SUCH_ADDRESS_TYPE, _BY_ADDRESS)
        user = _ended(buffer, 8)
        host = None if user is None else _ended(buffer, 9 + len(user))
        if user is None or host is None:
            return None
        return self._named(host, buffer[2:4], 10 + len(user) + len(host))

    def _reply_with(self, rep: _Rep) -> bytes:
        """
        Granted, or rejected; the other codes are about identd.
        """
        return bytes([0, 0x5A if rep is _Rep.SUCCEEDED else 0x5B]) + bytes(6)


def _expect(version: int, buffer: bytes, at: int) -> None:
    if len(buffer) > at and buffer[at] != version:
        raise _Fault(_Rep.FAILED, f"a message does not begin with its version, {version}")


def _counted(buffer: bytes, at: int) -> bytes | None:
    """
    @return: the string behind the octet at C{at}, which is its length; L{None}
        if it is not complete.
    """
    if len(buffer) <= at:
        return None
    end = at + 1 + buffer[at]
    return buffer[at + 1 : end] if len(buffer) >= end else None


def _ended(buffer: bytes, at: int) -> bytes | None:
    """
    @return: the string from C{at} up to a NUL; L{None} if it is not complete.
    """
    end = buffer.find(b"\0", at, at + _MAX_TEXT + 1)
    if end < 0 and len(buffer) > at + _MAX_TEXT:
        raise _Fault(_Rep.FAILED, f"the user ID or the name is longer than {_MAX_TEXT} bytes")
    return None if end < 0 else buffer[at:end]


def _server_name(data: bytes) -> str:
    """
    @raise _Fault: if it is no domain name, or an address in place of one.
    """
    try:
        ip_address(data.decode("latin-1").removesuffix(".").strip("[]"))
    except ValueError:
        pass
    else:
        raise _Fault(_Rep.NO_SUCH_ADDRESS_TYPE, _BY_ADDRESS)
    try:
        return parse_host(data)
    except ProtocolError as error:
        raise _Fault(_Rep.FAILED, str(error)) from None


def _fits(version: int, prefix: bytes) -> bool | None:
    return prefix[0] == version if prefix else None


SOCKS5 = Opening("socks5", partial(_fits, 5), Socks5Arrival)
SOCKS4 = Opening("socks4", partial(_fits, 4), Socks4Arrival)

"""
The PROXY protocol's header: whose connection a proxy passes on.

Versions 1 and 2, written for a server behind us and read from a balancer
before us; sections are those of HAProxy's C{proxy-protocol.txt}.  TCP over
IPv4 and IPv6 only.  Which peers may send a header, and how long one may take,
is up to those who listen: a header is as true as its sender is trusted.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from relaytunnel.errors import ProtocolError

__all__ = ["MAX_BLOCK", "MAX_LINE", "Proxied", "ProxyReader", "proxy_header"]

MAX_LINE = 107
"""The longest header of version 1, with its CRLF (section 2.1)."""

MAX_BLOCK = 4096 - 16
"""
The most that may follow the 16 bytes that version 2 starts with: 4,096 bytes
in all, as in nginx (C{NGX_PROXY_PROTOCOL_MAX_HEADER}).  Names need some hundred
bytes, but a balancer that ends TLS may append the client's certificate.
"""

_STARTS = (b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN")
_SO_FAR = re.compile(rb"PROXY (?:TCP[46] [0-9A-Fa-f:. ]*\r?|UNKNOWN.*)", re.DOTALL)
_TCP = re.compile(
    rb"PROXY TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+)"
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n"
)
_LAST_PORT = 65535
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16
_LOCAL, _PROXY = 0x20, 0x21  # the upper half of the byte is the version, 2
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_FORMS = {_TCP4: struct.Struct("!4s4sHH"), _TCP6: struct.Struct("!16s16sHH")}
_ADDRESS_BYTES = {_UNSPEC: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}

_AUTHORITY, _CHECKSUM = 0x02, 0x03


@dataclass(frozen=True)
class Proxied:
    """
    The ends of the connection that a proxy passes on.

    @ivar source: the client's IP address in its canonical text, and its port;
        C{None} if the connection is the proxy's own (a health check), or not
        TCP over IP.  The real peer counts then (section 2.2, LOCAL).
    @ivar destination: where the client connected to; C{None} with C{source}.
    """

    source: tuple[str, int] | None
    destination: tuple[str, int] | None


def proxy_header(
    version: Literal["v1", "v2"],
    source: tuple[str, int] | None,
    destination: tuple[str, int] | None,
    authority: str | None = None,
) -> bytes:
    """
    Write the header that goes before the first byte of a connection.

    What is not two IP addresses with TCP ports becomes C{UNKNOWN}, in version
    2 C{LOCAL}: HAProxy (2.6) reads no C{PROXY} without addresses.  A mapped
    IPv4 address is IPv4, and IPv4 is mapped only if the other end is IPv6.
    Zones are left out; they mean nothing elsewhere.

    @param authority: the host name that the client asked for; version 1 has
        no place for it.
    @raise ProtocolError: it takes more than 255 bytes.
    """
    near, far = _end(source), _end(destination)
    if near is None or far is None:
        family, line, block = _UNSPEC, "PROXY UNKNOWN\r\n", b""
    else:
        family = _TCP4 if near[0].version == far[0].version == 4 else _TCP6
        near_text, near_bytes = _written(near[0], family)
        far_text, far_bytes = _written(far[0], family)
        name = "TCP4" if family == _TCP4 else "TCP6"
        line = f"PROXY {name} {near_text} {far_text} {near[1]} {far[1]}\r\n"
        block = _FORMS[family].pack(near_bytes, far_bytes, near[1], far[1])
    if version == "v1":
        return line.encode("ascii")
    if authority:
        value = authority.encode()
        if len(value) > 255:  # HAProxy refuses a header with a longer one
            raise ProtocolError(f"a host name of {len(value)} bytes in a PROXY header")
        block += bytes((_AUTHORITY, 0, len(value))) + value
    command = _LOCAL if family == _UNSPEC else _PROXY
    return _SIGNATURE + bytes((command, family)) + len(block).to_bytes(2, "big") + block


def _end(end: tuple[str, int] | None) -> tuple[IPv4Address | IPv6Address, int] | None:
    if end is None or not 0 <= end[1] <= _LAST_PORT:
        return None
    try:
        return _plain(ip_address(end[0])), end[1]
    except ValueError:
        return None


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or IPv6Address(address.packed)  # without its zone


def _written(address: IPv4Address | IPv6Address, family: int) -> tuple[str, bytes]:
    if address.version == 4 and family == _TCP6:
        # str() of a mapped one would write the quad only from Python 3.13 on.
        return f"::ffff:{address}", IPv6Address(f"::ffff:{address}").packed
    return str(address), address.packed


class ProxyReader:
    """
    Reads the header that a connection has to start with, whatever its chunks.

    Both versions are taken, none is not: a receiver must not guess whether
    there is a header, or else anybody could claim any address (section 2).
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> tuple[Proxied, bytes] | None:
        """
        Take the next bytes; not to be called again once there was a header.

        @return: the header and the bytes behind it, or C{None} while more
            bytes are needed.
        @raise ProtocolError: whatever follows, this is no header.
        """
        buffer = self._buffer
        buffer += data
        text = buffer.startswith(b"P")
        end = _end_of_line(buffer) if text else _end_of_block(buffer)
        if end is None:
            return None
        header = bytes(buffer[:end])
        return _read_line(header) if text else _read_block(header), bytes(buffer[end:])


def _end_of_line(buffer: bytearray) -> int | None:
    end = buffer.find(b"\r\n", 0, MAX_LINE) + 2
    if end >= 2:
        return end
    start = bytes(buffer[:MAX_LINE])
    # A lone CR or LF is among what the pattern refuses (section 2.1).
    if not _SO_FAR.fullmatch(start) and not any(full.startswith(start) for full in _STARTS):
        raise ProtocolError(f"the start of no PROXY line: {start!r}")
    if len(buffer) >= MAX_LINE:
        raise ProtocolError(f"a PROXY line without an end in {MAX_LINE} bytes")
    return None


def _read_line(line: bytes) -> Proxied:
    if line.startswith(b"PROXY UNKNOWN"):
        return Proxied(None, None)
    parts = _TCP.fullmatch(line)
    if parts is None:
        raise ProtocolError(f"no PROXY line: {line!r}")
    family: type[IPv4Address | IPv6Address] = IPv4Address if parts[1] == b"4" else IPv6Address
    near, far = int(parts[4]), int(parts[5])
    try:
        source, destination = (str(_plain(family(parts[n].decode("ascii")))) for n in (2, 3))
    except ValueError:
        raise ProtocolError(f"a PROXY line with a wrong address: {line!r}") from None
    if max(near, far) > _LAST_PORT:
        raise ProtocolError(f"a PROXY line with a port above {_LAST_PORT}: {line!r}")
    return Proxied((source, near), (destination, far))


def _end_of_block(buffer: bytearray) -> int | None:
    if not _SIGNATURE.startswith(buffer[: len(_SIGNATURE)]):
        raise ProtocolError("the connection does not start with a PROXY header")
    if len(buffer) > 12 and buffer[12] not in (_LOCAL, _PROXY):
        raise ProtocolError(f"a PROXY header of the unknown version or command {buffer[12]:#04x}")
    if len(buffer) > 13 and buffer[12] == _PROXY and buffer[13] not in _ADDRESS_BYTES:
        raise ProtocolError(f"a PROXY header for something else than TCP, {buffer[13]:#04x}")
    if len(buffer) < _FIXED:
        return None
    length = int.from_bytes(buffer[14:_FIXED], "big")
    if length > MAX_BLOCK:
        raise ProtocolError(f"a PROXY header of {length} bytes; at most {MAX_BLOCK} are allowed")
    if buffer[12] == _PROXY and length < _ADDRESS_BYTES[buffer[13]]:
        raise ProtocolError(f"a PROXY header of {length} bytes, too few for its addresses")
    end = _FIXED + length
    return end if len(buffer) >= end else None


def _read_block(block: bytes) -> Proxied:
    family = block[13]
    # What follows is to be ignored, and nothing tells how much of it are addresses.
    if block[12] == _LOCAL or family == _UNSPEC:
        return Proxied(None, None)
    _check_extensions(block, _FIXED + _ADDRESS_BYTES[family])
    if family == _UNIX:
        return Proxied(None, None)
    *packed, near, far = _FORMS[family].unpack_from(block, _FIXED)
    # The number of bytes tells ip_address() the family.
    source, destination = (str(_plain(ip_address(address))) for address in packed)
    return Proxied((source, near), (destination, far))


def _check_extensions(block: bytes, position: int) -> None:
    # Each is type:u8 length:u16be value; only the checksum must be heeded (section 2.2.3).
    checksum = None
    while position < len(block):
        kind = block[position]
        start = position + 3
        position = start + int.from_bytes(block[position + 1 : start], "big")
        if position > len(block):
            raise ProtocolError("a PROXY header that ends within an extension")
        if kind == _CHECKSUM:
            if checksum is not None or position - start != 4:
                raise ProtocolError("a PROXY header with two checksums, or one of a wrong length")
            checksum = start
    if checksum is not None:
        stated = int.from_bytes(block[checksum : checksum + 4], "big")
        if _crc32c(block[:checksum] + bytes(4) + block[checksum + 4 :]) != stated:
            raise ProtocolError("a PROXY header with a wrong checksum")


def _remainder(crc: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


_REMAINDERS = tuple(map(_remainder, range(256)))


def _crc32c(data: bytes) -> int:
    """
    @return: the checksum of RFC 4960, appendix B; that of C{zlib} is another.
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _REMAINDERS[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF

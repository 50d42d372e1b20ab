"""
Targets: what agents and relays, balancers and invitations say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fuzz.targets import Target, cut, holds, same
from relaytunnel.errors import InvitationError, ProtocolError
from relaytunnel.wire.control import (
    MAX_BODY,
    MessageReader,
    frame,
)
from relaytunnel.wire.data import (
    EOF_FRAME,
    MAX_PAYLOAD,
    PLAIN_MAGIC,
    PLAIN_PREAMBLE_BYTES,
    RESET_FRAME,
    STOP_FRAME,
    FrameReader,
    Kind,
    data_frames,
    join_frame,
    plain_preamble,
    read_plain_preamble,
)
from relaytunnel.wire.invitation import Invitation
from relaytunnel.wire.messages import Hello, Notify, decode, encode
from relaytunnel.wire.proxied import MAX_BLOCK, Proxied, ProxyReader, proxy_header

__all__ = ["TARGETS"]

_HEADER = 3
_REFUSED = "refused"


def _alike(read: Callable[[list[bytes]], Any], chunks: list[bytes]) -> Any:
    """
    @return: what was read, which does not depend on how it was cut.
    """
    whole = read([b"".join(chunks)])
    same(read(chunks), whole, "cut and whole")
    return whole


# Control channels


def _control(data: bytes) -> None:
    """
    Messages come out of their frames, or it is said that they do not.
    """
    _, chunks = cut(data)
    found = _alike(_messages, chunks)
    for message in found:
        if message != _REFUSED:
            same(list(MessageReader(MAX_BODY).feed(frame(message))), [message], "framed again")


def _messages(chunks: list[bytes]) -> list[Any]:
    reader = MessageReader()
    found: list[Any] = []
    for chunk in chunks:
        try:
            for message in reader.feed(chunk):
                found.append(message)
                if isinstance(message, Hello):  # as if the agent was known
                    reader.max_body = MAX_BODY
        except ProtocolError:
            return [*found, _REFUSED]
        holds(len(reader._buffer) < _HEADER + reader.max_body, "what is kept is bounded")
    return found


def _message(data: bytes) -> None:
    """
    A message is the same when it is written and read again.
    """
    try:
        message = decode(data)
    except ProtocolError:
        return
    if message is None:
        return
    same(decode(encode(message)), message, "written and read")
    said = repr(message)
    if isinstance(message, Hello) and len(message.secret) > 20:
        holds(message.secret not in said or message.secret in message.agent, "no secret is shown")
    if isinstance(message, Notify):
        same(said, repr(Notify(**_without_secrets(message))), "no ticket is shown")


def _without_secrets(notify: Notify) -> dict[str, Any]:
    told = {name: getattr(notify, name) for name in notify.__struct_fields__}
    return told | {"ticket": bytes(32), "password": "", "user": "", "client": ""}


# Data channels


def _data(data: bytes) -> None:
    """
    Frames come out as they went in, and a plain channel begins with a ticket.
    """
    flags, chunks = cut(data)
    whole = b"".join(chunks)
    if flags & 1:
        _plain(whole)
        return
    found, rest = _alike(_frames, chunks)
    refused = _REFUSED in found
    written = b"".join(_written(*each) for each in found if each != _REFUSED)
    same(written, whole[: len(written)], "written again")
    if not refused:
        same(written + rest, whole, "what was read and what is kept")


def _frames(chunks: list[bytes]) -> tuple[list[Any], bytes]:
    reader = FrameReader()
    found: list[Any] = []
    for chunk in chunks:
        try:
            found.extend(reader.feed(chunk))
        except ProtocolError:
            return [*found, _REFUSED], b""
        holds(len(reader._buffer) < _HEADER + MAX_PAYLOAD, "what is kept is bounded")
        same(reader.between, not reader._buffer, "between two frames nothing is kept")
    return found, reader._buffer


def _written(kind: Kind, payload: bytes) -> bytes:
    if kind is Kind.JOIN:
        return join_frame(payload)
    if kind is Kind.DATA:
        return data_frames(payload)
    same(payload, b"", "nothing is in a frame that ends")
    return {Kind.EOF: EOF_FRAME, Kind.RESET: RESET_FRAME, Kind.STOP: STOP_FRAME}[kind]


def _plain(data: bytes) -> None:
    outcomes = []
    for end in range(min(len(data), PLAIN_PREAMBLE_BYTES + 2) + 1):
        try:
            found = read_plain_preamble(data[:end])
        except ProtocolError:
            outcomes.append(-1)
            continue
        outcomes.append(0 if found is None else 1)
        if found is not None:
            same(plain_preamble(found[0]) + found[1], data[:end], "written again")
    refused = [number for number, each in enumerate(outcomes) if each < 0]
    if refused:
        holds(set(outcomes[refused[0] :]) == {-1}, "once refused, always refused")
        holds(refused[0] <= len(PLAIN_MAGIC), "refused with the first wrong byte")
    elif len(data) >= PLAIN_PREAMBLE_BYTES:
        same(outcomes[PLAIN_PREAMBLE_BYTES:][0], 1, "a whole preamble is found")


# Balancers


def _proxied(data: bytes) -> None:
    """
    A header says the same when it is written and read again.
    """
    flags, chunks = cut(data)
    found = _alike(_header, chunks)
    if not isinstance(found, tuple):
        holds(found == _REFUSED or sum(map(len, chunks)) < 16 + MAX_BLOCK, "it ends somewhere")
        return
    proxied, rest = found
    holds(b"".join(chunks).endswith(rest), "what stands behind it is left")
    for version in ("v1", "v2"):
        authority = "web.example" if flags & 1 else None
        header = proxy_header(version, proxied.source, proxied.destination, authority)
        same(ProxyReader().feed(header + b"x"), (proxied, b"x"), f"written as {version}, and read")


def _header(chunks: list[bytes]) -> tuple[Proxied, bytes] | str | None:
    reader = ProxyReader()
    for number, chunk in enumerate(chunks):
        try:
            found = reader.feed(chunk)
        except ProtocolError:
            return _REFUSED
        if found is not None:
            return found[0], found[1] + b"".join(chunks[number + 1 :])
    return None


# Invitations


def _invitation(data: bytes) -> None:
    """
    An invitation is the same when it is written and read again, and shows its
    secret nowhere else.
    """
    text = data.decode("utf-8", "surrogateescape")  # as in the arguments of a command
    try:
        invitation = Invitation.parse(text)
    except InvitationError as error:
        holds(str(error).isascii() and str(error).isprintable(), "the message is a line")
        return
    same(Invitation.parse(str(invitation)), invitation, "written and read")
    other = Invitation(
        invitation.agent, "another", invitation.host, invitation.port, invitation.pin
    )
    same(repr(invitation), repr(other), "no secret is shown")
    digest = invitation.pin_digest
    holds(digest is None or len(digest) == 32, "a digest has 32 bytes")


_FIELDS = (
    *(b"t", b"version", b"agent", b"secret", b"epoch", b"software", b"relay", b"node"),
    *(b"sessions", b"ping", b"code", b"reason", b"retry_after", b"connection_id", b"protocol"),
    *(b"reach", b"data", b"allow", b"listed", b"users", b"sessions_per_client", b"endpoints"),
    *(b"session", b"ticket", b"client", b"arrived", b"endpoint", b"deadline", b"came_to"),
    *(b"user", b"password", b"channel", b"number", b"reconnect_in", b"try_for"),
    *(b"wants_address", b"\xa1t\xa5hello", b"\xa1t\xa8register", b"\xa1t\xa6notify"),
)

TARGETS = [
    Target("control", _control, _FIELDS),
    Target("message", _message, _FIELDS),
    Target(
        "data",
        _data,
        (b"\x01\x00\x20", b"\x02\x00\x01", EOF_FRAME, RESET_FRAME, STOP_FRAME, PLAIN_MAGIC),
    ),
    Target(
        "proxied",
        _proxied,
        (
            *(b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN", b"\r\n", b"1.2.3.4 ", b"::1 "),
            *(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c", b"\x20\x00\x00\x00", b"\x21\x21\x00\x24"),
            *(b"\x03\x00\x04", b"\x02\x00\x03web", b"::ffff:1.2.3.4 "),
        ),
        512,
    ),
    Target(
        "invitation",
        _invitation,
        (b"relaytunnel://", b"/?pin=sha256:", b"@localhost:7000", b"[::1]", b"%41", b"agent:"),
        2100,
    ),
]

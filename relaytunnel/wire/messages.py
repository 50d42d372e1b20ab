"""
The messages of the control channel, as typed structures, and their encoding.

Each message is a msgpack map tagged with its name in C{t}.  Decoding is
strict about what is known (types, lengths, missing fields) and lets later
versions add optional fields.  How messages are framed is in
L{relaytunnel.wire.control}.
"""

from __future__ import annotations

from typing import Annotated, get_args

import msgspec

from relaytunnel.errors import ProtocolError

__all__ = [
    "FRESH",
    "LONGEST_ADDRESS",
    "LONGEST_GIVEN",
    "MOST_ADDRESSES",
    "PROTOCOL_VERSION",
    "SAME_ENDPOINT",
    "TICKET_BYTES",
    "Accept",
    "Cancel",
    "Denied",
    "Goodbye",
    "Hello",
    "Message",
    "Notify",
    "Ping",
    "Pong",
    "Refuse",
    "Register",
    "Registered",
    "Rejected",
    "Restarting",
    "StandingRequest",
    "Welcome",
    "Withdraw",
    "Withdrawn",
    "decode",
    "encode",
]

PROTOCOL_VERSION = 1

TICKET_BYTES = 32
"""The length of a ticket: 256 random bits."""

SAME_ENDPOINT = "same"
"""The data endpoint that means: where the control channel was dialled."""

FRESH = 0
"""L{Accept.channel} when the agent opens a new data channel for the session."""

LONGEST_ADDRESS = 256
"""How many characters of an address under which clients find a server."""

MOST_ADDRESSES = 64
"""How many of them a server has, L{Registered.reach}."""

LONGEST_GIVEN = 1024
"""How many characters a user name, or a password, that a client gives may have."""

_Code = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
_Reason = Annotated[str, msgspec.Meta(max_length=256)]
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
_Agent = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Text = Annotated[str, msgspec.Meta(max_length=256)]
_PORT = r"(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_ZONE = r"(?:%[0-9A-Za-z_.-]{1,32})?"
_Peer = Annotated[
    str,
    msgspec.Meta(
        max_length=96, pattern=rf"\A(?:|unix|\[?[0-9A-Fa-f:.]{{2,45}}{_ZONE}\]?:{_PORT})\Z"
    ),
]
_Address = Annotated[str, msgspec.Meta(max_length=LONGEST_ADDRESS)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=86400)]
_Ticket = Annotated[bytes, msgspec.Meta(min_length=TICKET_BYTES, max_length=TICKET_BYTES)]
_Hash = Annotated[str, msgspec.Meta(max_length=256)]
_Given = Annotated[str, msgspec.Meta(max_length=LONGEST_GIVEN)]
_Few = msgspec.Meta(max_length=16)
_Rules = msgspec.Meta(max_length=64)


class _Message(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=str.lower, omit_defaults=True
):
    pass


class Hello(_Message, frozen=True):
    """
    S1, agent to relay: who I am.

    @ivar epoch: grows at every start of the agent, so that the relay can tell
        an agent from its own ghost.
    @ivar software: name and version, for the operator's eyes only.
    """

    version: Annotated[int, msgspec.Meta(ge=1, le=255)]
    agent: _Agent
    secret: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    epoch: _Number
    software: Annotated[str, msgspec.Meta(max_length=64)] = ""

    def __repr__(self) -> str:
        return f"Hello(version={self.version}, agent={self.agent!r}, epoch={self.epoch}, ...)"


class Welcome(_Message, frozen=True):
    """
    S2, relay to agent: you are known.

    @ivar relay: the relay's public name.
    @ivar node: which node of the relay this is.
    @ivar sessions: how many sessions this agent may have at once.
    @ivar ping: seconds between pings.
    @ivar releases: whether STOP follows every session on a data channel that
        stays; before it, the channel cannot carry another one.
    """

    relay: _Text
    node: _Text
    sessions: _Number
    ping: Annotated[float, msgspec.Meta(ge=0.01, le=86400)]
    releases: bool = False


class Denied(_Message, frozen=True):
    """
    S2, relay to agent: you may not come in; the relay closes behind it.

    @ivar retry_after: seconds before another try makes sense.
    """

    code: _Code
    reason: _Reason
    retry_after: _Seconds = 0.0


class Register(_Message, frozen=True):
    """
    S3, agent to relay: publish this server.

    @ivar protocol: C{"tcp"}.
    @ivar reach: how clients shall reach it (C{"name"}, C{"host:..."},
        C{"port:..."}, C{"sni:..."}); empty means by its ID.
    @ivar data: C{"tls"}, or C{"plain"} for payloads that are encrypted already.
    @ivar allow: the client networks that may come in; empty means all.
    @ivar listed: whether clients that name nobody are told of it.
    @ivar users: who may come in, each with the hash of a password; empty means
        that none is asked for.
    @ivar sessions_per_client: how many sessions one client address may have;
        0 is as many as the relay allows.
    @ivar wants_address: whether L{Notify.came_to} is of use.
    @ivar http: C{"requests"} if each request of an HTTP connection is routed
        and let in by itself, C{"raw"} if the first one stands for all.
    """

    connection_id: _Id
    protocol: Annotated[str, msgspec.Meta(max_length=8)] = "tcp"
    reach: Annotated[tuple[_Text, ...], _Few] = ()
    data: Annotated[str, msgspec.Meta(max_length=8)] = "tls"
    allow: Annotated[tuple[_Text, ...], _Rules] = ()
    listed: bool = False
    users: Annotated[tuple[tuple[_Text, _Hash], ...], _Rules] = ()
    sessions_per_client: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    wants_address: bool = False
    http: Annotated[str, msgspec.Meta(max_length=8)] = "requests"

    def __repr__(self) -> str:
        users = tuple(name for name, _ in self.users)
        return (
            f"Register(connection_id={self.connection_id!r}, protocol={self.protocol!r},"
            f" reach={self.reach!r}, data={self.data!r}, allow={self.allow!r},"
            f" listed={self.listed}, users={users!r},"
            f" sessions_per_client={self.sessions_per_client},"
            f" wants_address={self.wants_address}, http={self.http!r})"
        )


class Registered(_Message, frozen=True):
    """
    S4, relay to agent: the server is stored.

    @ivar reach: the addresses under which clients now find it.
    """

    connection_id: _Id
    reach: Annotated[tuple[_Address, ...], msgspec.Meta(max_length=MOST_ADDRESSES)] = ()


class StandingRequest(_Message, frozen=True):
    """
    S4, relay to agent: whenever I notify you of a client of this server, open
    a data channel and tell me which client it is for.

    @ivar endpoints: where the agent may be told to dial for data channels;
        L{SAME_ENDPOINT} is where it dialled for this control channel.
    """

    connection_id: _Id
    endpoints: Annotated[tuple[_Text, ...], _Few] = (SAME_ENDPOINT,)


class Rejected(_Message, frozen=True):
    """
    S4, relay to agent: this server is not published; the others stay.
    """

    connection_id: _Id
    code: _Code
    reason: _Reason


class Withdraw(_Message, frozen=True):
    """
    Agent to relay: stop publishing this server.

    @ivar code: why; C{shutdown} if the agent is about to stop, and the server
        may well be published again.
    """

    connection_id: _Id
    code: _Code = "withdrawn"


class Withdrawn(_Message, frozen=True):
    """
    Relay to agent: this server is published no more.
    """

    connection_id: _Id
    code: _Code = "withdrawn"
    reason: _Reason = ""


class Notify(_Message, frozen=True):
    """
    S7, relay to agent: a client is waiting.

    @ivar session: the relay's number for the session.
    @ivar ticket: the one-time secret that joins a data channel to it.
    @ivar client: address of the client, C{host:port}; C{unix} or nothing if it
        has none.
    @ivar arrived: how it named the server, e.g. C{host:web.example.net}.
    @ivar endpoint: where to dial, one of the standing request's.
    @ivar deadline: seconds until the ticket expires.
    @ivar came_to: the relay's address that the client connected to,
        C{host:port}; empty if it has none, or the agent did not ask for it.
    @ivar user: who the client says it is, if the server asks for that.
    @ivar password: what it gave as the proof.
    """

    session: _Number
    connection_id: _Id
    ticket: _Ticket
    client: _Peer
    arrived: _Text
    endpoint: _Text = SAME_ENDPOINT
    deadline: _Seconds = 10.0
    came_to: _Peer = ""
    user: _Given = ""
    password: _Given = ""

    def __repr__(self) -> str:
        return f"Notify(session={self.session}, connection_id={self.connection_id!r}, ...)"


class Accept(_Message, frozen=True):
    """
    S8, agent to relay: the connection ID is one of mine, I am on my way.

    @ivar channel: L{FRESH}, or the number of the parked data channel that
        will carry the session.
    """

    session: _Number
    channel: _Number = FRESH


class Refuse(_Message, frozen=True):
    """
    S8 or S9, agent to relay: this session cannot be, and why.
    """

    session: _Number
    code: _Code
    reason: _Reason


class Cancel(_Message, frozen=True):
    """
    Relay to agent: the client went away before it was served.
    """

    session: _Number


class Ping(_Message, frozen=True):
    """
    Either way: are you there?
    """

    number: _Number


class Pong(_Message, frozen=True):
    """
    The answer to L{Ping}, with its number.
    """

    number: _Number


class Restarting(_Message, frozen=True):
    """
    Relay to agent: a planned restart; come back spread over this time.

    @ivar reconnect_in: seconds over which reconnects shall be spread.
    @ivar try_for: seconds during which failing to connect is expected.
    """

    reconnect_in: _Seconds
    try_for: _Seconds


class Goodbye(_Message, frozen=True):
    """
    Either way: I close this control channel, and why.
    """

    code: _Code
    reason: _Reason = ""


Message = (
    Hello
    | Welcome
    | Denied
    | Register
    | Registered
    | StandingRequest
    | Rejected
    | Withdraw
    | Withdrawn
    | Notify
    | Accept
    | Refuse
    | Cancel
    | Ping
    | Pong
    | Restarting
    | Goodbye
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message, strict=True)


class _TagOnly(msgspec.Struct):
    t: Annotated[str, msgspec.Meta(max_length=32)]


_tag_decoder = msgspec.msgpack.Decoder(_TagOnly, strict=True)
_known_tags = frozenset(str(kind.__struct_config__.tag) for kind in get_args(Message))


def encode(message: Message) -> bytes:
    """
    @return: the body of the frame that carries the message.
    """
    return _encoder.encode(message)


def decode(body: bytes) -> Message | None:
    """
    @return: the message, or C{None} for a well-formed one of an unknown kind.
    @raise ProtocolError: the body is no message.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        try:
            tag = _tag_decoder.decode(body).t
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ProtocolError("a frame that holds no message") from None
        if tag in _known_tags:
            raise ProtocolError(f"a malformed {tag} message: {fault}") from None
        return None

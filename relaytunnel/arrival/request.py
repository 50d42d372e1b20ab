"""
An HTTP/1 request as it goes on to its server: how long its body is, whether it
asks for another protocol, and the form of its head.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from relaytunnel.arrival.body import Body, ChunkedBody, CountedBody
from relaytunnel.arrival.head import Fields, RequestLine

__all__ = ["Request"]

_NOT_FOR_SERVERS = (b"proxy-connection", b"proxy-authorization", b"http2-settings")
"""What a client says to a proxy alone (RFC 9110 11.7.2, RFC 9113 3.1)."""

_HOP_BY_HOP = (b"connection", b"keep-alive", b"upgrade", *_NOT_FOR_SERVERS)
"""What a proxy does not pass on as it is (RFC 9110 7.6.1)."""


@dataclass(frozen=True, eq=False)
class Request:
    """
    One request, whose head has been found faultless.

    @ivar line: its first line.
    @ivar fields: what its fields say.
    @ivar head: the head as it was sent, with the empty line.
    @ivar to_proxy: whether the client takes the relay for a proxy.
    """

    line: RequestLine
    fields: Fields = field(repr=False)
    head: bytes = field(repr=False)

    @property
    def to_proxy(self) -> bool:
        return self.line.authority is not None

    @property
    def head_only(self) -> bool:
        """Whether its answer has no body (RFC 9110 9.3.2)."""
        return self.line.method == b"HEAD"

    @property
    def switches(self) -> bool:
        """Whether its answer may begin another protocol (RFC 9110 7.8)."""
        return bool(self.fields.offers)

    def body(self) -> Body | None:
        """
        @return: what measures its body; C{None} if it has none.
        """
        if self.fields.chunked:
            return ChunkedBody()
        return CountedBody(self.fields.length) if self.fields.length else None

    @cached_property
    def forwarded(self) -> bytes:
        """
        The head that goes on to the server, on a connection whose requests are
        routed one by one.

        What was sent to a proxy becomes what a server expects (RFC 9112
        3.2.1).  Offers of another HTTP or of TLS are taken out: what they
        begin could not be routed.  All else goes on as it was sent.
        """
        fields = self.fields
        if not self.to_proxy and not fields.rewritten:
            return self.head
        return self._rewritten(_HOP_BY_HOP, _options(fields, self.to_proxy))

    @cached_property
    def last(self) -> bytes:
        """
        The head that goes on to the server, on a connection that is the
        server's own from then on.

        A client may send its next request to the same proxy though it is for
        another server.  So this is the last one: the server is asked to close,
        which means nothing to one that grants a WebSocket (RFC 9112 9.6), and
        holds for one that refuses it and reads lists, as HTTP/1.1 asks of it
        (RFC 9110 5.6.1).  Offers of other protocols are not passed on.
        """
        if self.fields.upgrades:
            dropped = tuple(each for each in _HOP_BY_HOP if each != b"upgrade")
            return self._rewritten(dropped, [b"Connection: Upgrade, close"])
        return self._rewritten(_HOP_BY_HOP, [b"Connection: close"])

    def _rewritten(self, dropped: tuple[bytes, ...], options: list[bytes]) -> bytes:
        line, fields = self.line, self.fields
        lines = self.head.removeprefix(b"\r\n").split(b"\r\n")
        kept = [b" ".join((line.method, line.path, line.version))]
        if fields.host is None and line.authority is not None:
            kept.append(b"Host: " + str(line.authority).encode("ascii"))
        for each in lines[1:-2]:
            if each.partition(b":")[0].lower() not in dropped:
                kept.append(each)
        return b"\r\n".join((*kept, *options, b"", b""))


def _options(fields: Fields, to_proxy: bool) -> list[bytes]:
    """
    @return: the lines in place of those that are for one connection alone.
    """
    offers = fields.offers
    options = [b"Upgrade: " + b", ".join(offers)] if offers else []
    if to_proxy:
        asked = [each for each in fields.connection if each in (b"close", b"keep-alive")]
    else:
        # What else it names is the client's and the server's business.
        asked = [each for each in fields.connection if each not in (b"upgrade", b"http2-settings")]
    if offers:
        asked.append(b"Upgrade")
    if asked:
        options.append(b"Connection: " + b", ".join(dict.fromkeys(asked)))
    return options

"""
Targets as endpoints: what Twisted makes of their descriptions, and how a
server channel is opened to one.

An endpoint comes from a description that its owner wrote, from a plugin that
anybody may have written, and from files that may be gone by now.  So whatever
it raises is an answer here.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from OpenSSL import SSL, crypto
from zope.interface import implementer

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TimeLimit
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import (
    ConnectError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    TCPTimedOutError,
    TimeoutError,
)
from twisted.internet.interfaces import (
    IHandshakeListener,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.plugin import getPlugins
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.tcp import TCPChannel
from relaytunnel.config import Limits, ServerConfig
from relaytunnel.config.endpoints import literal
from relaytunnel.config.names import printable, shown
from relaytunnel.errors import Code, ConfigError, Failing

__all__ = ["check_targets", "describe_target", "dial_target", "target_endpoint"]

_BUILT_IN = ("tcp", "ssl", "tls", "unix")


def target_endpoint(reactor: Any, description: str) -> IStreamClientEndpoint:
    """
    Make an endpoint of a target's description.  Nothing is dialled.

    @raise ValueError: it cannot be made, and why.
    """
    try:
        endpoint: IStreamClientEndpoint = clientFromString(reactor, description)
    except Exception as fault:
        raise ValueError(f"{shown(description)}: {_why_not(description, fault)}") from fault
    return endpoint


def _why_not(description: str, fault: Exception) -> str:
    prefix = description.partition(":")[0].lower()
    known = {*_BUILT_IN}
    for plugin in getPlugins(IStreamClientEndpointStringParserWithReactor):
        known.add(str(plugin.prefix).lower())
    if prefix not in known:
        near = get_close_matches(prefix, sorted(known), n=1)
        rest = description.partition(":")[2]
        meant = f"{near[0]}:{rest}" if near else "HOST:PORT"
        return (
            f"no endpoint begins with '{prefix}:'; did you mean {shown(meant) if near else meant}?"
        )
    if isinstance(fault, SSL.Error | crypto.Error):
        return f"its certificate or key cannot be used: {_tls_words(fault) or 'it is faulty'}"
    if isinstance(fault, OSError):
        of = f"{fault.filename}: " if fault.filename else ""
        return printable(f"{of}{fault.strerror or fault}")
    return printable(str(fault)) or type(fault).__name__


def check_targets(reactor: Any, servers: Iterable[ServerConfig]) -> None:
    """
    Have Twisted make an endpoint of each target, without dialling any.

    @raise ConfigError: of some it cannot, with a line for each.
    """
    faults = []
    for server in servers:
        if literal(server.target) is None:
            try:
                target_endpoint(reactor, server.target)
            except ValueError as fault:
                faults.append(f"[[server]] {shown(server.id)} target: {fault}")
    if faults:
        raise ConfigError(faults)


@implementer(IHandshakeListener)
class _ServerChannel(TCPChannel):
    """
    A channel to a target, which over TLS stands when the handshake is done.
    """

    def __init__(
        self, reactor: Any, limits: Limits, edges: EdgeWatch, stands: Deferred[TCPChannel]
    ) -> None:
        super().__init__(reactor, limits, edges)
        self._stands: Deferred[TCPChannel] | None = stands

    def connectionMade(self) -> None:
        super().connectionMade()
        if not isinstance(self.transport, TLSMemoryBIOProtocol):
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        stands, self._stands = self._stands, None
        if stands is not None and not stands.called:
            stands.callback(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        stands, self._stands = self._stands, None
        super().connectionLost(reason)
        if stands is not None and not stands.called:
            stands.errback(reason)

    def _half_close(self) -> None:
        """
        End the outgoing direction alone: over TLS with its closing alert, which
        says that nothing more is sent (RFC 8446, section 6.1).
        """
        transport: Any = self.transport
        if isinstance(transport, TLSMemoryBIOProtocol):
            transport.unregisterProducer()
            transport.loseConnection()
            self.writeConnectionLost()
        else:
            super()._half_close()


class _Once(Factory):
    noisy = False

    def __init__(self, channel: TCPChannel) -> None:
        self._channel = channel

    def buildProtocol(self, addr: object) -> TCPChannel:
        return self._channel


def dial_target(
    reactor: Any, limits: Limits, edges: EdgeWatch, description: str
) -> Deferred[TCPChannel]:
    """
    Open a channel to a target.

    @return: fires with the channel when it stands, over TLS behind the
        handshake.  Fails with whatever came in between; nothing is raised.
    """
    connecting: list[Deferred[Any]] = []

    def give_up(stands: Deferred[TCPChannel]) -> None:
        for each in connecting:
            each.cancel()
        if getattr(channel, "holding", None) is not None:
            channel.reset()

    def failed(failure: Failure) -> None:
        if not stands.called:
            stands.errback(failure)

    stands: Deferred[TCPChannel] = Deferred(give_up)
    channel = _ServerChannel(reactor, limits, edges, stands)
    try:
        dialling = target_endpoint(reactor, description).connect(_Once(channel))
    except Exception:
        stands.errback(Failure())
        return stands
    connecting.append(dialling)
    dialling.addErrback(failed)
    return stands


def describe_target(failure: Failure, limit: float) -> Failing:
    """
    Say why a target could not be reached, so that the client may read it: no
    address from inside is in it.

    @param limit: seconds after which it was given up.
    """
    if failure.check(ConnectionRefusedError):
        return Failing(Code.REFUSED_BY_TARGET, "the target refused the connection")
    if failure.check(TimeoutError, TCPTimedOutError, TimeLimit):
        return Failing(Code.TIMEOUT, f"the target did not answer within {limit:g} s")
    if failure.check(DNSLookupError):
        return Failing(Code.TARGET_UNREACHABLE, "the target's name is unknown to the agent")
    if failure.check(ConnectionDone, ConnectionLost, ConnectionAborted):
        return Failing(Code.REFUSED_BY_TARGET, "the target ended the connection at once")
    if failure.check(ConnectError):
        return Failing(
            Code.TARGET_UNREACHABLE,
            f"the target cannot be reached: {failure.value.__doc__ or 'no route'}".rstrip("."),
        )
    if isinstance(failure.value, SSL.Error):
        return Failing(
            Code.TARGET_UNREACHABLE,
            f"there is no TLS with the target: {_tls_words(failure.value) or 'no handshake'}",
        )
    if type(failure.value).__name__ in ("VerificationError", "CertificateError"):
        return Failing(
            Code.TARGET_UNREACHABLE, "the target's certificate is for another name than its own"
        )
    return Failing(Code.TARGET_UNREACHABLE, "the target cannot be reached")


def _tls_words(fault: BaseException) -> str:
    """
    @return: what OpenSSL says of a fault; its words name no address.
    """
    entries = fault.args[0] if fault.args and isinstance(fault.args[0], list) else []
    return ", ".join(entry[-1] for entry in entries if entry and entry[-1])

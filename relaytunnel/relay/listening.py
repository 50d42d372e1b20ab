"""
The ports that a relay listens on: those of its configuration, and those that
servers have of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from relaytunnel.channel.accepting import accept_with
from relaytunnel.channel.descriptors import Descriptors
from relaytunnel.channel.edges import EdgeWatch
from relaytunnel.channel.ports import UnloggedPort
from relaytunnel.channel.sockets import EdgeConnection
from relaytunnel.channel.tcp import socket_of, tune
from relaytunnel.config.names import Reach
from relaytunnel.errors import Code, Rejection, StateError
from relaytunnel.relay.inheriting import Inheritance, adopt, let_go, path_of, take_name

__all__ = ["Listeners", "addresses", "tcp_port"]

_BACKLOG = 1024

_K = TypeVar("_K")


class Listeners:
    """
    Opens and closes ports.

    @ivar interface: where the ports of servers are opened.
    @ivar descriptors: says when nobody is accepted.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, edges: EdgeWatch, inherited: Inheritance | None = None
    ) -> None:
        """
        @param inherited: the sockets that another process has left; nobody is
            accepted before L{resume} then.
        """
        self._reactor = reactor
        self._edges = edges
        self._inherited = inherited or Inheritance()
        self._paused = inherited is not None
        # Those that another process has, too, which may be the one to go on.
        self._others: set[IListeningPort] = set()
        self._ways: dict[IListeningPort, tuple[type[EdgeConnection], Descriptors]] = {}
        self._stops: dict[IListeningPort, Callable[[], None]] = {}
        self._ports: dict[str, IListeningPort] = {}
        self._shared: dict[str, IListeningPort] = {}
        self._own: dict[int, IListeningPort] = {}
        self.descriptors = Descriptors(reactor)
        self._last_ones = Descriptors(reactor, full=1.0, room_again=1.0)
        self.interface = ""
        self.own_factory: Callable[[int], IProtocolFactory] | None = None

    def listen(
        self,
        description: str,
        factory: IProtocolFactory,
        kind: type[EdgeConnection] = EdgeConnection,
        shared: bool = False,
        to_the_last: bool = False,
    ) -> IListeningPort | None:
        """
        Listen on an endpoint.

        @param kind: what connections are to be, where they can be.
        @param shared: whether it is one that clients dial.
        @param to_the_last: whether it accepts as long as there is a descriptor,
            for those who want to know why the others do not.
        @return: the port, or C{None} for an endpoint that takes its time; what
            goes wrong with it then is logged.
        @raise StateError: it cannot be listened on.
        """
        descriptors = self._last_ones if to_the_last else self.descriptors
        if shared:
            heirloom = self._inherited.shared.pop(description, None)
        else:
            heirloom = self._inherited.other.pop(self._other(description), None)
        if heirloom is not None:
            adopted = adopt(self._reactor, heirloom, factory)
            if self._paused:
                self._others.add(adopted)
            else:
                take_name(adopted)
            return self._listening(description, adopted, kind, shared, descriptors)
        whole = description
        if description.partition(":")[0] in ("tcp", "tcp6") and "backlog=" not in description:
            whole += f":backlog={_BACKLOG}"
        try:
            asked: Deferred[IListeningPort] = serverFromString(self._reactor, whole).listen(
                factory
            )
        except (ValueError, TypeError, AttributeError, KeyError) as fault:
            raise StateError(f"{description}: is no endpoint to listen on: {fault}") from None
        done: list[IListeningPort | Failure] = []
        asked.addBoth(done.append)
        if not done:
            asked.addBoth(lambda _: self._late(description, done[0], kind, shared, descriptors))
            return None
        return self._listening(description, done[0], kind, shared, descriptors)

    def _listening(
        self,
        description: str,
        result: IListeningPort | Failure,
        kind: type[EdgeConnection],
        shared: bool,
        descriptors: Descriptors,
    ) -> IListeningPort:
        if not isinstance(result, Failure):
            self._adopt(result, kind, descriptors)
            if shared:
                self._shared[description] = result
            else:
                self._ports[self._other(description)] = result
            return result
        fault = result.value
        if isinstance(fault, CannotListenError):
            reason: object = getattr(fault.socketError, "strerror", None) or fault.socketError
        else:
            reason = fault
        raise StateError(f"cannot listen on {description}: {reason}")

    def _other(self, description: str) -> str:
        """
        @return: what the next port is kept under that no client dials.  Two of
            them may have the same endpoint, C{tcp:0}.
        """
        return f"{len(self._ports)} {description}"

    def _late(
        self,
        description: str,
        result: IListeningPort | Failure,
        kind: type[EdgeConnection],
        shared: bool,
        descriptors: Descriptors,
    ) -> None:
        try:
            self._listening(description, result, kind, shared, descriptors)
        except StateError as fault:
            self._log.error("{fault}", fault=str(fault))

    def open(self, port: int) -> None:
        """
        Listen on a port of a server's own, on the interface of the shared ones.

        @raise Rejection: it cannot be had.
        """
        if port in self._own:
            return
        assert self.own_factory is not None
        heirloom = self._inherited.own.pop(port, None)
        try:
            if heirloom is not None:
                own = adopt(self._reactor, heirloom, self.own_factory(port))
            else:
                own = UnloggedPort(
                    port, self.own_factory(port), _BACKLOG, self.interface, self._reactor
                )
                own.startListening()
        except CannotListenError as fault:
            raise Rejection(
                Code.PORT_TAKEN,
                f"the port {port} cannot be had at the relay:"
                f" {getattr(fault.socketError, 'strerror', None) or fault.socketError}",
            ) from None
        self._adopt(own, EdgeConnection, self.descriptors)
        self._own[port] = own

    def _adopt(
        self, port: IListeningPort, kind: type[EdgeConnection], descriptors: Descriptors
    ) -> None:
        """
        What it accepts is as quick as it can be.
        """
        tune(port)
        # Shutting it down would end it for another process that has it, too.
        port._shouldShutdown = False  # type: ignore[attr-defined]
        self._ways[port] = kind, descriptors
        if self._paused:
            port.stopReading()  # type: ignore[attr-defined]
        else:
            self._accept(port)

    def _accept(self, port: IListeningPort) -> None:
        self._stops[port] = accept_with(self._edges, port, *self._ways[port])

    # From one process to the next

    def leave(self, agents: Collection[str], known: dict[str, float]) -> Inheritance:
        """
        @param agents: those that are present.
        @param known: from where agents have come lately.
        @return: what another process needs to take over.
        """
        return Inheritance(
            shared=_descriptors(self._shared),
            other=_descriptors(self._ports),
            own=_descriptors(self._own),
            agents=tuple(agents),
            known=known,
        )

    def pause(self, *, agents: bool) -> None:
        """
        Accept no clients for a while; who comes waits in the kernel's queue.

        @param agents: whether nobody else is accepted, either.
        """
        self._paused = agents
        kept = () if agents else self._ports.values()
        for port in self._stops.keys() - set(kept):
            self._stops.pop(port)()

    def resume(self) -> None:
        """
        Accept who has come meanwhile, and who comes.
        """
        self._paused = False
        self._others.clear()
        for port in self._ways:
            take_name(port)
        for port in self._ways.keys() - self._stops.keys():
            self._accept(port)

    def handed_over(self) -> None:
        """
        Another process accepts from now on.
        """
        self._others.update(self._ways)

    def close_inherited(self) -> None:
        """
        What no server has asked for by now is for nobody.
        """
        self._inherited.close(forever=True, kept=[path_of(port) for port in self._ways])

    def close(self, port: int) -> None:
        """
        Stop listening on a port of a server's own.
        """
        listening = self._own.pop(port, None)
        if listening is not None:
            self._stop(listening)
            # The reactor closes it a turn later; until then nobody could have
            # the port, not even the same server again.
            sock = socket_of(listening)
            if sock is not None:
                sock.close()

    def port(self, description: str) -> IListeningPort | None:
        """
        @return: what listens on an endpoint that clients dial.
        """
        return self._shared.get(description)

    def unlisten(self, description: str) -> None:
        """
        Listen on an endpoint that clients dial no more.
        """
        listening = self._shared.pop(description, None)
        if listening is not None:
            self._stop(listening)

    def stop_clients(self) -> None:
        """
        Take no client any more, on shared ports or on those of servers.
        """
        for description in list(self._shared):
            self.unlisten(description)
        for port in list(self._own):
            self.close(port)

    def stop(self) -> Deferred[Any]:
        """
        Listen nowhere any more.

        @return: fires when all ports are closed.
        """
        self._inherited.close(forever=not self._paused)
        self.descriptors.close()
        self._last_ones.close()
        listening = [*self._ports.values(), *self._shared.values(), *self._own.values()]
        self._ports.clear()
        self._shared.clear()
        self._own.clear()
        return gatherResults([self._stop(port) for port in listening])

    def _stop(self, port: IListeningPort) -> Deferred[Any]:
        self._ways.pop(port, None)
        self._stops.pop(port, None)
        sock = socket_of(port)
        if sock is not None:
            self._edges.closed(sock.fileno())
        if port in self._others and let_go(port):
            return succeed(None)
        return maybeDeferred(port.stopListening)


def _descriptors(ports: Mapping[_K, IListeningPort]) -> dict[_K, int]:
    found = {}
    for key, port in ports.items():
        sock = socket_of(port)
        if sock is not None:
            found[key] = sock.fileno()
    return found


def tcp_port(port: IListeningPort | None) -> int:
    """
    @return: the number of a TCP port; 0 if it is something else.
    """
    return 0 if port is None else getattr(port.getHost(), "port", 0)


def addresses(name: str, clients: tuple[int, ...]) -> Callable[[str, Reach], tuple[str, ...]]:
    """
    Make what says how people type a way to a server.

    @param name: the relay's public name or address.
    @param clients: the shared TCP ports.
    """
    literal = name.replace(".", "").isdigit() or ":" in name
    host = f"[{name}]" if ":" in name else name
    shared = [f"{port}" for port in clients if port]

    def say(connection_id: str, way: Reach) -> tuple[str, ...]:
        if way.kind == "port":
            return (f"tcp://{host}:{way.port}",)
        if way.kind == "sni":
            return tuple(f"tls://{way.value}:{port}" for port in shared)
        if way.kind == "host":
            return tuple(f"http://{way.value}{_suffix(port)}/" for port in shared)
        if literal:  # no name can stand in front of an address
            return tuple(
                f"http://{host}{_suffix(port)}/ with the header 'Host: {connection_id}'"
                for port in shared
            )
        return tuple(f"http://{connection_id}.{name}{_suffix(port)}/" for port in shared)

    return say


def _suffix(port: str) -> str:
    return "" if port == "80" else f":{port}"

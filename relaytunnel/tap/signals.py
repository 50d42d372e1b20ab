"""
What signals do to a relay or an agent: SIGHUP has it read its configuration
again, SIGTERM has it let its sessions end before it stops, and SIGUSR2 has a
relay hand over to a new process.

SIGINT stops it at once, and so does a second SIGTERM; what comes while it stops
changes nothing.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure

from relaytunnel.errors import ConfigError, RelayTunnelError
from relaytunnel.tap.systemd import notify

__all__ = ["Reloadable", "Signals", "stop"]


def stop(reactor: Any) -> None:
    """
    Stop a reactor, unless it is stopping already.
    """
    with contextlib.suppress(ReactorNotRunning):
        reactor.stop()


class Reloadable(Protocol):
    """
    A service that can take another configuration, and let its sessions end.
    """

    def reload(self, config: Any) -> list[str]:
        """
        Take it, or refuse it whole.

        @return: what has changed.
        @raise RelayTunnelError: why it is refused.
        """

    def drain(self) -> Deferred[Any]:
        """Take no new sessions, and wait for those that run."""


class Signals:
    """
    Passes the signals of this process on to its service.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        service: Reloadable,
        reread: Callable[[], Any] | None,
        hand_over: Callable[[], Deferred[Any]] | None = None,
    ) -> None:
        """
        @param reread: reads the configuration again; C{None} if it came from
            options alone.
        @param hand_over: starts another process, and fires when it has taken
            over and nothing runs in this one.
        """
        self._reactor = reactor
        self._service = service
        self._reread = reread
        self._hand_over = hand_over
        self._draining = False
        self._handing_over = False
        self._ending = False

    def install(self) -> None:
        """
        Take the signals, once the reactor has taken its own.
        """
        signal.signal(signal.SIGHUP, self._handler(self.reload))
        signal.signal(signal.SIGTERM, self._handler(self.stop))
        if self._hand_over is not None:
            signal.signal(signal.SIGUSR2, self._handler(self.hand_over))
        interrupted = signal.getsignal(signal.SIGINT)
        if callable(interrupted):  # by the reactor; ignored below nohup
            signal.signal(signal.SIGINT, partial(self._interrupt, interrupted))
        notify("READY=1")

    def _handler(self, act: Callable[[], None]) -> Callable[[int, Any], None]:
        return lambda number, frame: self._reactor.callFromThread(act)

    def _interrupt(self, handler: Callable[[int, Any], object], number: int, frame: Any) -> None:
        """
        Have the reactor's own handler stop it, unless it is stopping already.

        @param handler: it remembers the signal as well, by which C{twistd} ends
            then.
        """
        if not self._ending:
            self._ending = True
            handler(number, frame)

    def reload(self) -> None:
        """
        Read the configuration again, and do what it says; a faulty one changes
        nothing.
        """
        if self._reread is None:
            self._log.warn("there is no file to read again: everything was said in options")
            return
        try:
            changed = self._service.reload(self._reread())
        except ConfigError as fault:
            for line in fault.faults:
                self._log.error("not reloaded: {fault}", fault=line)
        except RelayTunnelError as fault:
            self._log.error("not reloaded: {fault}", fault=str(fault))
        else:
            for line in changed:
                self._log.info("reloaded: {change}", change=line)
            if not changed:
                self._log.info("reloaded: nothing has changed")

    def stop(self) -> None:
        """
        Let the sessions end, then stop; at once when this is said again.
        """
        if self._draining:
            self._end()
            return
        self._draining = True
        notify("STOPPING=1")
        self._log.info("stopping, when the sessions that run are over or their time is")
        draining = self._service.drain()
        draining.addErrback(self._failed)
        draining.addCallback(lambda _: self._end())

    def hand_over(self) -> None:
        """
        Let another process take over, and end with what runs in this one.
        """
        if self._hand_over is None or self._handing_over or self._draining:
            return
        self._handing_over = True
        handing_over = maybeDeferred(self._hand_over)
        handing_over.addCallbacks(lambda _: self._end(), self._not_handed_over)

    def _not_handed_over(self, failure: Failure) -> None:
        self._handing_over = False
        if failure.check(RelayTunnelError):
            self._log.error("{fault}; this one goes on", fault=str(failure.value))
        else:
            self._log.failure("handing over failed by our own fault", failure)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("draining failed by our own fault", failure)

    def _end(self) -> None:
        if not self._ending:
            self._ending = True
            stop(self._reactor)

"""
What both plugins share: options whose faults are told in one line, and a service
whose refusal to start is.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.logger import Logger
from twisted.python import usage

from relaytunnel import __version__
from relaytunnel.channel.descriptors import raise_descriptor_limit
from relaytunnel.errors import RelayTunnelError
from relaytunnel.tap import pid_file
from relaytunnel.terminal import error, safe, say

__all__ = [
    "PluginOptions",
    "StartupError",
    "Told",
    "has_terminal",
    "keep_time",
    "take_descriptors",
    "to_terminal",
]

_TWISTD_DEFAULT = "twistd.pid"
_NO_PID_FILE = "--pidfile="

_OF_SELECT = 1024
"""Descriptors that select(2) can look at."""
_OBJECTS_BETWEEN_COLLECTIONS = 20_000
"""A session leaves no cycles, so there is little for the collector to find."""


class StartupError(SystemExit, Exception):
    """
    A service cannot start, for a reason that is no fault of the program.

    To Python it is the end of the process, with a line instead of a traceback
    and exit code 1.  To C{twistd} it is an exception as well, since it passes
    over a bare L{SystemExit}: its PID file would stay, and the command that
    waits for a daemon to start would wait for ever.
    """


class Told(MultiService):
    """
    Starts a service, and turns an error that we raise on purpose into the
    last line that C{twistd} prints, with exit code 1.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        service: IService,
        started: Callable[[], object] = lambda: None,
        daemon: bool = False,
    ) -> None:
        """
        @param started: called when the service has been started.
        @param daemon: whether the process will leave its terminal before that;
            the reason why it cannot start is shown there all the same.
        """
        super().__init__()
        self._name = name
        self._started = started
        self._terminal = _copy_of_stderr() if daemon else -1
        self.addService(service)

    def startService(self) -> None:
        try:
            super().startService()
        except RelayTunnelError as fault:
            reason = f"{self._name}: {fault}"
            if self._terminal >= 0:
                self._log.critical("{reason}", reason=reason)
                with contextlib.suppress(OSError):  # a terminal that is gone
                    os.write(self._terminal, f"{reason}\n".encode(errors="backslashreplace"))
            raise StartupError(reason) from None
        finally:
            if self._terminal >= 0:
                os.close(self._terminal)
                self._terminal = -1
        _collect_seldom()
        self._started()


def _copy_of_stderr() -> int:
    try:
        return os.dup(2)
    except OSError:  # it was closed
        return -1


def _collect_seldom() -> None:
    """
    Spare the collector what stays for good, and 4 % of a session's cost.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, *gc.get_threshold()[1:])


def keep_time(reactor: Any) -> None:
    """
    Have a reactor that has nothing to do yet count its time by a clock that
    nobody can set.  By the wall clock, as it does, every deadline would wait
    for an hour when the clock is set back by one.
    """
    if not (reactor.running or reactor.getDelayedCalls()):
        reactor.seconds = time.monotonic


def has_terminal() -> bool:
    """
    Whether what this process prints is seen at a terminal, and not kept in a
    file, a journal or by a supervisor.
    """
    return sys.__stdout__ is not None and sys.__stdout__.isatty()


def take_descriptors(reactor: Any) -> None:
    """
    Have as many descriptors as there may be, and as the reactor can look at.
    """
    if type(reactor).__name__ == "SelectReactor":
        raise_descriptor_limit(_OF_SELECT)
    else:
        raise_descriptor_limit()


def to_terminal(text: str) -> None:
    """
    Show a text to whoever started this process, past the log.
    """
    if sys.__stdout__ is not None:
        sys.__stdout__.write(safe(text))
        sys.__stdout__.flush()


class PluginOptions(usage.Options):
    """
    The command line of a plugin, behind that of C{twistd}.

    @cvar plugin: the name of the plugin.
    """

    plugin = ""

    def opt_version(self) -> None:
        """Show relaytunnel's version and exit."""
        say(f"relaytunnel {__version__}")
        raise SystemExit(0)

    def parseOptions(self, options: Any = None) -> None:
        """
        Parse the options that stand behind the plugin's name.

        What is wrong with them is told in the last line, and the exit code is
        1: C{twistd} itself shows its own options and, before 26.10, ends as if
        nothing had happened.

        @raise usage.UsageError: an option is faulty, and this is not C{twistd}.
        """
        self._own_pid_file()
        self._words = len(options or ())
        try:
            super().parseOptions(options)
            self._check_directory()
        except usage.UsageError as fault:
            if self.parent is None:
                raise
            error(f"See 'twistd {self.plugin} --help'.")
            error(f"twistd {self.plugin}: {fault}")
            raise SystemExit(1) from None
        if self.pid_file:
            # Before twistd looks at it, which it does once all options are read.
            pid_file.remove_stale(self.pid_file, self.plugin, os.getpid())

    @staticmethod
    def _check_directory() -> None:
        """
        @raise usage.UsageError: the working directory was removed, or cannot be
            entered; C{twistd} would end with a traceback.
        """
        try:
            os.getcwd()
        except OSError as fault:
            raise usage.UsageError(
                f"the working directory cannot be used: {fault.strerror}; change to another"
            ) from None

    @property
    def daemon(self) -> bool:
        """Whether C{twistd} leaves the terminal before the service starts."""
        return self.parent is not None and not (
            self.parent.get("nodaemon") or self.parent.get("debug")
        )

    def keep_pid_file(self) -> None:
        """
        Let the PID file stay when this process ends: it is another's by now.
        """
        if self.parent is not None:
            self.parent["pidfile"] = ""

    @property
    def pid_file(self) -> str:
        """The absolute path of the file with the process number, if any."""
        path = "" if self.parent is None else self.parent.get("pidfile") or ""
        return os.path.abspath(path) if path else ""

    def command(self) -> list[str]:
        """
        @return: how this process was started, with another one in mind that
            keeps no file of its own with its number.
        """
        words = list(sys.orig_argv)
        at = len(words) - self._words - 1
        if words[at - 1] != _NO_PID_FILE:
            words.insert(at, _NO_PID_FILE)
        return words

    def _own_pid_file(self) -> None:
        """
        Let a relay and an agent run from one directory: C{twistd} gives both
        the same file for their process number, unless it is told otherwise.
        """
        if self.parent is not None and self.parent.get("pidfile") == _TWISTD_DEFAULT:
            self.parent["pidfile"] = f"twistd-{self.plugin}.pid"

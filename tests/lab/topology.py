"""
Small internets, made of network namespaces, for tests with real firewalls.

A L{Lab} has segments (a bridge each) and hosts, which are attached to
segments and may have a ruleset of nftables.  It needs root and Linux, and it
is gone when the test is.  Which hosts there are, and what is tried between
them, is the business of the tests.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from twisted.trial.unittest import FailTest

__all__ = ["Cleaning", "Host", "Lab", "LabError", "Segment", "unavailable"]

_numbers = itertools.count(1)

_NAMES = Path("/run/netns")
"""
Where C{ip netns} keeps the namespaces that have a name.
"""

_SECONDS = 20
"""
The longest time that one command of C{ip} or C{nft} may take.
"""


class LabError(FailTest):
    """
    A network could not be made, or could not be removed.
    """


def _command(*words: str, stdin: str = "") -> str:
    done = subprocess.run(
        words, input=stdin, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode != 0:
        raise LabError(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@functools.cache
def _obstacle() -> str | None:
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in ("ip", "nft", "unshare") if shutil.which(name) is None]
    if missing:
        return f"not installed here: {', '.join(missing)}"
    try:
        _command("unshare", "--net", "--mount", "nft", "add", "table", "inet", "probe")
    except LabError as reason:
        return f"no network namespaces with nftables here: {reason}"
    return None


def unavailable() -> str | None:
    """
    Say why there can be no lab on this machine, or L{None}.

    With C{RELAYTUNNEL_LAB=require} in the environment the answer is always
    L{None}, and the tests fail where they would have been skipped.
    """
    asked = os.environ.get("RELAYTUNNEL_LAB")
    if asked == "skip":
        return "RELAYTUNNEL_LAB is skip"
    return None if asked == "require" else _obstacle()


class Cleaning(Protocol):
    """
    What a lab asks of a test: to clean up behind itself, however it ends.
    """

    def addCleanup(self, function: Callable[..., Any], /, *args: Any) -> Any:
        """Call this in the end."""


@dataclass(frozen=True)
class Segment:
    """
    A network that hosts are attached to: one bridge, in its own namespace.
    """

    name: str
    namespace: str


@dataclass
class Host:
    """
    A machine with its own interfaces, routes and firewall.

    Its interface on a segment has that segment's name.
    """

    name: str
    namespace: str
    addresses: dict[str, str] = field(default_factory=dict)

    def ip(self, *words: str) -> str:
        """
        Run C{ip} on this host.
        """
        return _command("ip", "-n", self.namespace, *words)

    def route(self, network: str, via: str) -> None:
        """
        Reach a network (or C{default}) by way of a neighbour.
        """
        self.ip("route", "add", network, "via", via)

    def forward(self) -> None:
        """
        Become a router: pass on what is meant for others.
        """
        self._run("sysctl", "-qw", "net.ipv4.ip_forward=1")

    def filter(self, ruleset: str) -> None:
        """
        Load a ruleset of nftables in place of the one there was.
        """
        self._run("nft", "-f", "-", stdin=f"flush ruleset\n{ruleset}")

    def connections(self, state: str = "established") -> list[str]:
        """
        The TCP sockets of this host in a state (a word of C{ss}), a line each.
        """
        listing = self._run("ss", "-Htn", "state", state)
        return [line.strip() for line in listing.splitlines() if line.strip()]

    def _run(self, *words: str, stdin: str = "") -> str:
        return _command("ip", "netns", "exec", self.namespace, *words, stdin=stdin)


class Lab:
    """
    The segments and hosts of one test.

    Namespaces carry the process ID and a number in their names, so that labs
    do not meet; exactly these are removed when the test ends, also if it
    failed while it built them.
    """

    def __init__(self, testcase: Cleaning) -> None:
        """
        @raise LabError: when this machine cannot have one.
        """
        obstacle = _obstacle()
        if obstacle is not None:
            raise LabError(obstacle)
        self._prefix = f"rt{os.getpid()}x{next(_numbers)}"
        self._namespaces: list[str] = []
        testcase.addCleanup(self.remove)

    def segment(self, name: str) -> Segment:
        """
        Make a network without hosts.
        """
        segment = Segment(name, self._namespace(name))
        _command("ip", "-n", segment.namespace, "link", "add", "bridge", "type", "bridge")
        _command("ip", "-n", segment.namespace, "link", "set", "bridge", "up")
        return segment

    def host(self, name: str, attached: dict[Segment, str], gateway: str | None = None) -> Host:
        """
        Make a host.

        @param attached: the segments it is attached to, with its address and
            prefix length on each, C{198.51.100.10/24}.
        @param gateway: the neighbour to which everything else is sent; without
            it, the host can reach its own segments only.
        """
        host = Host(name, self._namespace(name))
        for segment, address in attached.items():
            plug = f"to-{name}"
            _command(
                *("ip", "link", "add", segment.name, "netns", host.namespace, "type", "veth"),
                *("peer", "name", plug, "netns", segment.namespace),
            )
            _command("ip", "-n", segment.namespace, "link", "set", plug, "master", "bridge", "up")
            host.ip("address", "add", address, "dev", segment.name)
            host.ip("link", "set", segment.name, "up")
            host.addresses[segment.name] = address.partition("/")[0]
        if gateway is not None:
            host.route("default", gateway)
        return host

    def remove(self) -> None:
        """
        End what still runs in the namespaces, and delete them all.
        """
        faults = []
        while self._namespaces:
            namespace = self._namespaces.pop()
            if not (_NAMES / namespace).exists():
                continue
            try:
                for pid in _command("ip", "netns", "pids", namespace).split():
                    _kill(int(pid))
            except (LabError, subprocess.TimeoutExpired) as fault:
                faults.append(str(fault))
            try:
                _command("ip", "netns", "delete", namespace)
            except (LabError, subprocess.TimeoutExpired) as fault:
                faults.append(str(fault))
        if faults:
            raise LabError("; ".join(faults))

    def _namespace(self, name: str) -> str:
        namespace = f"{self._prefix}-{name}"
        # Remembered first: a command that fails may have done half its work.
        self._namespaces.append(namespace)
        _command("ip", "netns", "add", namespace)
        _command("ip", "-n", namespace, "link", "set", "lo", "up")
        return namespace

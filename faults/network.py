"""
The network of a campaign, and what can be done to it.

Outside are the client and the relay, inside are the agent and the server, and
between them a router with NAT that lets nothing in::

    client 198.51.100.10 --+-- relay 198.51.100.20
                           |
                     router 198.51.100.30 | 192.168.7.1
                           |
    agent 192.168.7.2 -----+-- server 192.168.7.3
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

from tests.lab.topology import Host, Lab

__all__ = ["CLIENTS", "RELAY", "SERVER", "Network", "command"]

CLIENT, RELAY = "198.51.100.10", "198.51.100.20"
AGENT, SERVER = "192.168.7.2", "192.168.7.3"
CLIENTS = [f"198.51.100.{number}" for number in range(101, 133)]
"""Addresses that clients come from: one alone may not have many sessions at once."""

_FIREWALL = """
flush ruleset
table inet firewall {
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname "inside" ct state new accept
    }
    chain input {
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        iifname "inside" accept
    }
}
table ip translation {
    chain leaving {
        type nat hook postrouting priority 100;
        oifname "outside" masquerade
    }
}
"""

_REDIRECTION = """
table ip redirection {
    chain arriving {
        type nat hook prerouting priority -100;
        iifname "inside" ip daddr 198.51.100.20 tcp dport 7000 redirect to :7999
    }
}
"""

_FAULT = """
table inet fault {
    chain input { type filter hook input priority -10; iifname "lo" accept; RULE; }
}
"""

_PATIENCE = 20


def command(*words: str, stdin: str = "", may_fail: bool = False) -> str:
    """
    Run a command and return what it says.

    @raise OSError: it failed, or did not end.
    """
    try:
        done = subprocess.run(
            words, input=stdin, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{' '.join(words)}: not done within {_PATIENCE} s") from None
    if done.returncode and not may_fail:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


class _Cleanups:
    """
    What a test case does for a L{Lab}, without a test.
    """

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def addCleanup(self, function: Callable[..., Any], *args: Any) -> None:
        self._stack.callback(function, *args)


class Network:
    """
    The hosts, up and connected.

    @ivar hit: packets that rules were applied to; C{None} if there was no rule.
    """

    hit: int | None = None

    def __init__(self, stack: contextlib.ExitStack) -> None:
        """
        @param stack: removes it all in the end.
        """
        lab = Lab(_Cleanups(stack))
        outside, inside = lab.segment("outside"), lab.segment("inside")
        self.router = lab.host("router", {outside: "198.51.100.30/24", inside: "192.168.7.1/24"})
        self._nft(self.router, _FIREWALL)
        self.router.forward()
        self.client = lab.host("client", {outside: f"{CLIENT}/24"})
        for address in CLIENTS:
            self.client.ip("address", "add", f"{address}/24", "dev", "outside")
        self.relay = lab.host("relay", {outside: f"{RELAY}/24"})
        self.agent = lab.host("agent", {inside: f"{AGENT}/24"}, "192.168.7.1")
        self.server = lab.host("server", {inside: f"{SERVER}/24"}, "192.168.7.1")

    @property
    def ends(self) -> tuple[Host, ...]:
        """All hosts that have sockets."""
        return (self.client, self.relay, self.agent, self.server)

    @staticmethod
    def run(host: Host, *words: str, stdin: str = "", may_fail: bool = False) -> str:
        """
        Run a command on a host.
        """
        whole = ("ip", "netns", "exec", host.namespace, *words)
        return command(*whole, stdin=stdin, may_fail=may_fail)

    def _nft(self, host: Host, rules: str) -> None:
        self.run(host, "nft", "-f", "-", stdin=rules)

    @contextlib.contextmanager
    def rule(self, rule: str, *hosts: Host) -> Iterator[None]:
        """
        Have a rule of nft for what comes to these hosts.
        """
        done = []
        try:
            for host in hosts:
                counted = re.sub(r"\b(drop|reject)\b", r"counter \1", rule)
                self._nft(host, _FAULT.replace("RULE", counted))
                done.append(host)
            yield
        finally:
            for host in done:
                listed = self.run(host, "nft", "list", "table", "inet", "fault")
                self.hit = (self.hit or 0) + sum(
                    map(int, re.findall(r"counter packets (\d+)", listed))
                )
                self._nft(host, "delete table inet fault")

    @contextlib.contextmanager
    def slow(self, rate: str) -> Iterator[None]:
        """
        Let no more than this through the router, in each direction.
        """
        words = ("root", "tbf", "rate", rate, "burst", "16kbit", "latency", "200ms")
        done = []
        try:
            for device in ("outside", "inside"):
                self.run(self.router, "tc", "qdisc", "add", "dev", device, *words)
                done.append(device)
            yield
        finally:
            for device in done:
                self.run(self.router, "tc", "qdisc", "delete", "dev", device, "root")

    @contextlib.contextmanager
    def narrow(self, size: int) -> Iterator[None]:
        """
        Let no packets through the outer network that are larger.
        """
        hosts = (self.router, self.relay, self.client)
        try:
            for host in hosts:
                host.ip("link", "set", "outside", "mtu", str(size))
            yield
        finally:
            for host in hosts:
                host.ip("link", "set", "outside", "mtu", "1500")

    def forget_translations(self) -> None:
        """
        Have the router forget what belongs to whom, and take up no connection
        that it has not seen begin.
        """
        loose = "net.netfilter.nf_conntrack_tcp_loose=0"
        self.run(self.router, "sysctl", "-qw", loose)
        self.run(self.router, "conntrack", "-F", may_fail=True)

    def redirect(self) -> None:
        """
        Lead what is for the agents' port of the relay to port 7999 of the router.
        """
        self._nft(self.router, _REDIRECTION)

    def sockets(self, host: Host, *states: str) -> list[str]:
        """
        The TCP sockets of a host that are in one of these states.
        """
        words = [word for state in states for word in ("state", state)]
        listing = self.run(host, "ss", "-Htan", *words)
        return [" ".join(line.split()) for line in listing.splitlines() if line.strip()]

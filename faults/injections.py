"""
The faults, each as something that is done to what runs and undone behind it.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from faults.ledger import Ledger
from faults.network import CLIENTS, RELAY, SERVER
from faults.stack import CampaignFailed, Published, Stack

__all__ = ["FAULTS", "Fault", "Scene"]

_DESCRIPTORS = 400
_HOGS = 600
_VALID = 14
"""Seconds that the certificate is valid which expires: enough to start everything."""


@dataclass
class Scene:
    """
    What a fault happens to.
    """

    stack: Stack
    ledger: Ledger
    notes: list[str]


def _nothing(stack: Stack) -> None:
    pass


@dataclass(frozen=True)
class Fault:
    """
    @ivar inject: makes it, and behind the C{with} statement it is no more.
    @ivar seconds: how long it lasts; C{None} for as long as is asked for.
    @ivar more_patience: seconds, for clients and servers.
    @ivar rate: sessions in a second, beside what is usual.
    @ivar scale: how much they say, beside what is usual.
    @ivar before: is done before anything runs.
    @ivar invited: is done when the relay runs and its agents do not.
    @ivar agents: what they publish, if it is not the usual.
    @ivar needs: a reason why it cannot be had on this machine, or nothing.
    @ivar long: whether it is for the long campaign only.
    """

    name: str
    title: str
    inject: Callable[[Scene], AbstractContextManager[None]]
    seconds: float | None = None
    more_patience: float = 0
    rate: float = 1
    scale: float = 1
    before: Callable[[Stack], None] = _nothing
    invited: Callable[[Stack], None] = _nothing
    agents: dict[str, list[Published]] | None = None
    needs: Callable[[], str] = lambda: ""
    long: bool = False


# Of the network


def _loses(percent: int) -> Callable[[Scene], AbstractContextManager[None]]:
    def inject(scene: Scene) -> AbstractContextManager[None]:
        network = scene.stack.network
        return network.rule(f"numgen random mod 100 < {percent} drop", *network.ends)

    return inject


@contextlib.contextmanager
def _both_ways(scene: Scene, ours: str, theirs: tuple[str, str], verdict: str) -> Iterator[None]:
    """
    @param ours: which packets that come to a host, with the host's name before
        a colon.
    @param theirs: the same, for one or two others.
    """
    network = scene.stack.network
    with contextlib.ExitStack() as rules:
        for each in (ours, *theirs):
            host, _, packets = each.partition(": ")
            if host:
                rules.enter_context(network.rule(f"{packets} {verdict}", getattr(network, host)))
        yield


def _blackhole(scene: Scene) -> AbstractContextManager[None]:
    from_relay = f"ip saddr {RELAY}"
    theirs = (f"client: {from_relay}", f"agent: {from_relay}")
    return _both_ways(scene, "relay: meta l4proto tcp", theirs, "drop")


def _resets(one: str, other: str) -> Callable[[Scene], AbstractContextManager[None]]:
    # A reset that was made on the other side has to arrive.
    verdict = "tcp flags & rst == 0 reject with tcp reset"
    return lambda scene: _both_ways(scene, one, (other, ""), verdict)


def _slow(scene: Scene) -> AbstractContextManager[None]:
    return scene.stack.network.slow("1mbit")


def _narrow(scene: Scene) -> AbstractContextManager[None]:
    return scene.stack.network.narrow(576)


@contextlib.contextmanager
def _nat(scene: Scene) -> Iterator[None]:
    scene.stack.network.forget_translations()
    yield


def _needs_conntrack() -> str:
    return "" if shutil.which("conntrack") else "conntrack is not installed"


def _delaying(stack: Stack) -> None:
    network = stack.network
    network.redirect()
    words = (sys.executable, "-m", "faults.delay", 7999, RELAY, 7000)
    stack.start("delay", network.router, *words, stdin=subprocess.PIPE).ready("delaying")


def _delays(milliseconds: int) -> Callable[[Scene], AbstractContextManager[None]]:
    @contextlib.contextmanager
    def inject(scene: Scene) -> Iterator[None]:
        pipe = scene.stack.running["delay"].process.stdin
        assert pipe is not None
        for each in (milliseconds, 0):
            pipe.write(b"%d\n" % each)
            pipe.flush()
            if each:
                yield

    return inject


# Of processes


def _stops(name: str) -> Callable[[Scene], AbstractContextManager[None]]:
    @contextlib.contextmanager
    def inject(scene: Scene) -> Iterator[None]:
        running = scene.stack.running[name]
        running.send(signal.SIGSTOP)
        try:
            yield
        finally:
            running.send(signal.SIGCONT)

    return inject


def _kills(name: str) -> Callable[[Scene], AbstractContextManager[None]]:
    @contextlib.contextmanager
    def inject(scene: Scene) -> Iterator[None]:
        stack = scene.stack
        since = time.monotonic()
        stack.running[name].end()
        if name == "server":
            scene.ledger.kills.append((since, time.monotonic()))
        yield
        {
            "relay": lambda: stack.start_relay(wait=False),
            "agent": lambda: stack.start_agent(wait=False),
            "server": lambda: stack.start_server(wait=False),
        }[name]()

    return inject


# Of the machine


def _few_descriptors(stack: Stack) -> None:
    stack.before["relay"] = ["prlimit", f"--nofile={_DESCRIPTORS}:{_DESCRIPTORS}"]


@contextlib.contextmanager
def _hogs(scene: Scene) -> Iterator[None]:
    stack = scene.stack
    words = (sys.executable, "-m", "faults.hogs", RELAY, 8000, _HOGS)
    hogs = stack.start("hogs", stack.network.client, *words)
    hogs.ready("hogging")
    most = 0
    until = time.monotonic() + 5
    while time.monotonic() < until and most < _DESCRIPTORS - 1:
        most = max(most, sum(stack.running["relay"].descriptors().values()))
        time.sleep(0.01)
    scene.notes.append(f"the relay had {most} of {_DESCRIPTORS} descriptors open")
    yield
    hogs.end()


def _small_disk(stack: Stack) -> None:
    stack.mount("2m")


def _comes_back(stack: Stack) -> None:
    """
    Have the agent authenticate anew, in the middle of the fault.
    """
    stack.running["agent"].end()
    stack.start_agent(wait=False)


@contextlib.contextmanager
def _full_disk(scene: Scene) -> Iterator[None]:
    filling = scene.stack.state / "filling"
    with contextlib.suppress(OSError), filling.open("wb", buffering=0) as file:
        for size in (64 * 1024, 1024, 1):
            with contextlib.suppress(OSError):
                for _ in range(4096):
                    file.write(bytes(size))
    free = os.statvfs(scene.stack.state).f_bavail
    scene.notes.append(f"{free} pages were free on the relay's disk")
    _comes_back(scene.stack)
    try:
        scene.stack.invite("another")
        scene.notes.append("'relaytunnel invite' had room yet")
    except CampaignFailed as fault:
        scene.notes.append(str(fault))
        if "Traceback" in str(fault):
            scene.ledger.tally.note("'relaytunnel invite' ended with a traceback")
    yield
    filling.unlink()


_LOCKING = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(3600)
"""


@contextlib.contextmanager
def _locked(scene: Scene) -> Iterator[None]:
    stack = scene.stack
    database = stack.state / "accounts.sqlite3"
    words = (sys.executable, "-c", _LOCKING, database)
    lock = stack.start("lock", stack.network.relay, *words)
    lock.ready("locked")
    _comes_back(stack)
    yield
    lock.end()


def _faketime() -> Path | None:
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


def _needs_faketime() -> str:
    return "" if _faketime() else "libfaketime (Debian's faketime) is not installed"


def _other_clock(stack: Stack) -> None:
    file = stack.directory / "clock"
    file.write_text("+0\n")
    for name in ("relay", "agent"):
        stack.environment[name] = {
            "LD_PRELOAD": str(_faketime()),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


def _jumps(seconds: str) -> Callable[[Scene], AbstractContextManager[None]]:
    @contextlib.contextmanager
    def inject(scene: Scene) -> Iterator[None]:
        (scene.stack.directory / "clock").write_text(f"{seconds}\n")
        yield

    return inject


# Certificates


def _certify(stack: Stack, seconds: float) -> None:
    """
    Write a certificate of an authority of its own, valid for so long.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    def kept(name: str) -> ec.EllipticCurvePrivateKey:
        file = stack.directory / name
        if not file.exists():
            made = ec.generate_private_key(ec.SECP256R1())
            file.write_bytes(
                made.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
        key = serialization.load_pem_private_key(file.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key

    def signed(
        subject: str, key: ec.EllipticCurvePrivateKey, until: datetime.datetime
    ) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(named(subject))
            .issuer_name(named("the authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(until)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(RELAY))]), False
            )
            .add_extension(x509.BasicConstraints(subject == "the authority", None), True)
            .sign(authority, hashes.SHA256())
        )

    authority, key = kept("authority.key"), kept("own.key")
    for name, certificate in (
        ("authority.pem", signed("the authority", authority, now + day)),
        ("own.pem", signed(RELAY, key, now + datetime.timedelta(seconds=seconds))),
    ):
        (stack.directory / name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _expiring(stack: Stack) -> None:
    _certify(stack, 3600)
    here = stack.directory
    stack.tls = f'[tls]\ncertificate = "{here}/own.pem"\nkey = "{here}/own.key"\n'
    for agent in ("agent", "chained"):
        stack.environment[agent] = {"SSL_CERT_FILE": str(here / "authority.pem")}


def _pin_one(stack: Stack) -> None:
    from cryptography import x509

    from relaytunnel.channel.identity import pin_of

    own = x509.load_pem_x509_certificate((stack.directory / "own.pem").read_bytes())
    joined = "&" if "?" in stack.invitations["agent"] else "?"
    pin = pin_of(own.public_key())
    stack.invitations["agent"] = f"{stack.invitations['agent'].strip()}{joined}pin={pin}"


@contextlib.contextmanager
def _expired(scene: Scene) -> Iterator[None]:
    """
    The relay is started once more with a certificate that is about to expire,
    and then it does.
    """
    stack = scene.stack
    _certify(stack, _VALID)
    expires = time.monotonic() + _VALID
    stack.running["relay"].end()
    stack.start_relay()
    while time.monotonic() < expires + 1:
        scene.ledger.read()
        time.sleep(0.1)
    yield
    stack.running["relay"].end()
    try:
        stack.start_relay()
        scene.ledger.tally.note("a relay has started with an expired certificate")
    except CampaignFailed as fault:
        scene.notes.append(str(fault).strip().splitlines()[-1])
    _certify(stack, 3600)
    stack.start_relay(wait=False)


_TWO_AGENTS = {
    "agent": [Published("web", 20001), Published("raw", 20002, data="plain")],
    "chained": [Published("checked", 20003)],
}

_TO_CLIENTS_PORTS = "relay: tcp dport { 8000, 20001, 20002 }"

FAULTS = (
    Fault("loss-1", "1 % of all packets are lost", _loses(1)),
    Fault("loss-5", "5 % of all packets are lost", _loses(5)),
    Fault("loss-20", "20 % of all packets are lost", _loses(20), more_patience=10, rate=0.5),
    Fault("blackhole-1", "the relay hears and reaches nobody for 1 s", _blackhole, 1),
    Fault(
        *("blackhole-10", "the same for 10 s", _blackhole),
        seconds=10,
        more_patience=15,
        rate=0.5,
    ),
    Fault(
        *("blackhole-120", "the same for 120 s", _blackhole),
        seconds=120,
        more_patience=130,
        rate=0.2,
        long=True,
    ),
    Fault(
        *("rst-client", "resets between client and relay"),
        _resets(_TO_CLIENTS_PORTS, f"client: ip saddr {RELAY}"),
        seconds=0.5,
    ),
    Fault(
        *("rst-relay", "resets between agent and relay"),
        _resets("relay: tcp dport 7000", f"agent: ip saddr {RELAY}"),
        seconds=0.5,
    ),
    Fault(
        *("rst-server", "resets between agent and server"),
        _resets("server: ", f"agent: ip saddr {SERVER}"),
        seconds=0.5,
    ),
    Fault("slow", "1 Mbit/s at the router", _slow, rate=0.25, scale=0.2, more_patience=10),
    Fault("narrow", "MTU 576 outside", _narrow),
    Fault("delay-50", "50 ms later between agent and relay", _delays(50), before=_delaying),
    Fault("delay-200", "200 ms later between agent and relay", _delays(200), before=_delaying),
    Fault("stop-relay", "SIGSTOP for the relay, 2 s", _stops("relay"), 2),
    Fault("stop-agent", "SIGSTOP for the agent, 2 s", _stops("agent"), 2),
    Fault("stop-server", "SIGSTOP for the server, 2 s", _stops("server"), 2),
    Fault("kill-relay", "SIGKILL for the relay, back after 1 s", _kills("relay"), 1),
    Fault("kill-agent", "SIGKILL for the agent, back after 1 s", _kills("agent"), 1),
    Fault("kill-server", "SIGKILL for the server, back after 1 s", _kills("server"), 1),
    Fault(
        *("descriptors", f"{_HOGS} silent clients at a relay with {_DESCRIPTORS} descriptors"),
        _hogs,
        before=_few_descriptors,
    ),
    Fault("disk-full", "no room in the relay's state", _full_disk, before=_small_disk),
    Fault("locked", "the accounts are locked by somebody else", _locked),
    Fault(
        *("clock-forward", "the wall clock jumps one hour forward", _jumps("+3600")),
        before=_other_clock,
        needs=_needs_faketime,
    ),
    Fault(
        *("clock-back", "the wall clock jumps one hour back", _jumps("-3600")),
        before=_other_clock,
        needs=_needs_faketime,
    ),
    Fault(
        *("certificate", "the relay's certificate expires; one agent pins it, one does not"),
        _expired,
        before=_expiring,
        invited=_pin_one,
        agents=_TWO_AGENTS,
    ),
    Fault(
        *("nat", "the router forgets all its translations", _nat),
        needs=_needs_conntrack,
    ),
)

assert len(CLIENTS) * 16 >= 512  # else the relay's limits would be what is tested

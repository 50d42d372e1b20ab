"""
The ways from a client to a server: ours, and those of our peers.

All are given two hops where they can have two, the first one listening for the
clients; each runs as its own programs on this machine, one thread each unless
it cannot be told so.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.origins import Origins
from bench.processes import Processes, answers, children, free_port, wait_for

__all__ = [
    "OURS",
    "RAISED",
    "TWISTD",
    "WAYS",
    "Reached",
    "Way",
    "make_certificate",
    "start_relaytunnel",
]


@dataclass
class Reached:
    """
    A way that is open.

    @ivar ports: where clients connect, by the name of the origin.
    @ivar outer: the process that the clients connect to.
    @ivar inner: the one that connects to the servers.
    @ivar directory: where they keep what they keep, if it is one of ours.
    @ivar processes: those that were started.
    @ivar shared: the port where clients name their server, of ours.
    """

    ports: dict[str, int]
    outer: int = 0
    inner: int = 0
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    directory: Path = Path()
    shared: int = 0

    @property
    def pids(self) -> list[int]:
        """All processes of it, with those they have begun."""
        return [each for pid in {self.outer, self.inner} if pid for each in children(pid)]


@dataclass(frozen=True)
class Way:
    """
    A way, as it is named in tables.

    @ivar needs: the programs that have to be on PATH.
    @ivar open: starts it.
    @ivar asks_version: the command that prints its version.
    """

    name: str
    what: str
    needs: tuple[str, ...]
    open: Callable[[Processes, Origins], Reached]
    asks_version: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """The programs that it needs and that are not here."""
        return [each for each in self.needs if shutil.which(each) is None]

    def version(self) -> str:
        """
        @return: what it says of its version.
        """
        if not self.asks_version:
            return ""
        try:
            done = subprocess.run(
                self.asks_version, capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        lines = (done.stdout + done.stderr).strip().splitlines()
        return lines[0].strip() if lines else ""


def _ports(origins: Origins) -> dict[str, int]:
    return {name: free_port() for name in origins.ports()}


def _wait(processes: Processes, ports: dict[str, int], who: str) -> None:
    for name, port in ports.items():
        wait_for(processes, f"{who} on port {port} ({name})", partial(answers, port))
    time.sleep(0.2)  # what it asks its other end for may still be under way


def _direct(processes: Processes, origins: Origins) -> Reached:
    return Reached(origins.ports())


# relaytunnel

TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"

_RELAY = """
[relay]
name = "localhost"
state = "{d}/state"
[listen]
agents = "tcp:{agents}:interface=127.0.0.1"
clients = ["tcp:{clients}:interface=127.0.0.1"]
admin = "off"
"""

RAISED = """
[limits]
# For thousands of sessions at a time: one address is all clients here.
waiting-per-client = 10000
waiting-per-server = 10000
waiting-per-agent = 10000
waiting-per-relay = 10000
sessions-per-client = 10000
sessions-per-server = 10000
sessions-per-agent = 10000
notify-rate = 10000
notify-burst = 10000
"""


def start_relaytunnel(
    processes: Processes,
    servers: Sequence[tuple[str, int, int]],
    data: str,
    limits: str = "",
    raw: Collection[str] = (),
) -> Reached:
    """
    Start a relay and an agent, as a user does, each a C{twistd} with a log file.

    @param servers: an ID, the port of the server, and the port for clients or
        0, for each.
    @param data: C{plain} or C{tls}.
    @param limits: a table of them for both; nothing for those they have by default.
    @param raw: the servers whose HTTP requests are not looked at but for the first.
    """
    d = processes.make_directory(f"relaytunnel-{data}")
    agents, clients = free_port(), free_port()
    (d / "relay.toml").write_text(_RELAY.format(d=d, agents=agents, clients=clients) + limits)
    lines = ["[agent]", f'join-file = "{d}/state/invitation"', limits]
    for name, target, port in servers:
        lines += ["[[server]]", f'id = "{name}"', f'target = "127.0.0.1:{target}"']
        lines += [f'data = "{data}"'] + ['http = "raw"'] * (name in raw)
        if port:
            lines += [f'reach = ["port:{port}"]']
    (d / "agent.toml").write_text("\n".join(lines) + "\n")

    def twistd(plugin: str) -> subprocess.Popen[bytes]:
        twistd = [sys.executable, "-c", TWISTD, "-n", "--pidfile=", f"--logfile={plugin}.log"]
        name = f"relaytunnel-{data}-{plugin}"
        return processes.start(name, [*twistd, plugin, "--config", f"{plugin}.toml"], d)

    relay = twistd("relay")
    invitation = d / "state" / "invitation"
    wait_for(processes, "the relay's invitation", invitation.exists)
    wait_for(processes, "the relay's port", lambda: answers(agents))
    agent = twistd("agent")
    ports = {name: port for name, _, port in servers if port}
    _wait(processes, ports, "relaytunnel")
    return Reached(ports, relay.pid, agent.pid, [relay, agent], d, clients)


def _ours(data: str) -> Callable[[Processes, Origins], Reached]:
    def start(processes: Processes, origins: Origins) -> Reached:
        ports = _ports(origins)
        targets = origins.ports()
        return start_relaytunnel(
            processes, [(name, targets[name], port) for name, port in ports.items()], data
        )

    return start


# Two proxies of the same kind, one behind the other.

_HAPROXY = """
global
    nbthread 1
    maxconn 4000
    tune.ssl.cachesize 20000
defaults
    mode tcp
    option splice-auto
    timeout connect 5s
    timeout client 1h
    timeout server 1h
"""


def _haproxy(secure: bool) -> Callable[[Processes, Origins], Reached]:
    def start(processes: Processes, origins: Origins) -> Reached:
        d = processes.make_directory("haproxy-tls" if secure else "haproxy")
        make_certificate(d)
        ports, between = _ports(origins), _ports(origins)
        outer, inner = [_HAPROXY], [_HAPROXY]
        for name, target in origins.ports().items():
            to = f" ssl verify required ca-file {d}/cert.pem" if secure else ""
            by = f" ssl crt {d}/both.pem ssl-min-ver TLSv1.3" if secure else ""
            outer.append(
                f"listen {name}\n    bind 127.0.0.1:{ports[name]} backlog 4096\n"
                f"    server s 127.0.0.1:{between[name]}{to}\n"
            )
            inner.append(
                f"listen {name}\n    bind 127.0.0.1:{between[name]} backlog 4096{by}\n"
                f"    server s 127.0.0.1:{target}\n"
            )
        started = []
        for which, text in (("inner", inner), ("outer", outer)):
            (d / f"{which}.cfg").write_text("".join(text))
            name = f"haproxy-{which}"
            started.append(processes.start(name, ["haproxy", "-db", "-f", d / f"{which}.cfg"]))
        _wait(processes, ports, "haproxy")
        return Reached(ports, started[1].pid, started[0].pid, started)

    return start


_NGINX = """
{module}
daemon off; worker_processes 1; pid {d}/{which}.pid; error_log {d}/{which}.log;
events {{ worker_connections 40000; }}
stream {{
    proxy_timeout 1h; proxy_half_close on;
    {servers}
}}
"""


def _nginx(processes: Processes, origins: Origins) -> Reached:
    d = processes.make_directory("nginx")
    ports, between = _ports(origins), _ports(origins)
    module = "/usr/lib/nginx/modules/ngx_stream_module.so"
    load = f"load_module {module};" if os.path.exists(module) else ""
    started = []
    for which, here, there in (
        ("inner", between, origins.ports()),
        ("outer", ports, between),
    ):
        servers = "\n    ".join(
            f"server {{ listen 127.0.0.1:{here[name]} backlog=4096;"
            f" proxy_pass 127.0.0.1:{there[name]}; }}"
            for name in ports
        )
        file = d / f"{which}.conf"
        file.write_text(_NGINX.format(module=load, d=d, which=which, servers=servers))
        started.append(processes.start(f"nginx-{which}", ["nginx", "-c", file]))
    _wait(processes, ports, "nginx")
    return Reached(ports, started[1].pid, started[0].pid, started)


_SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {d}/host
AuthorizedKeysFile {d}/user.pub
PidFile {d}/pid
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin yes
"""


def _ssh(processes: Processes, origins: Origins) -> Reached:
    d = processes.make_directory("ssh")
    for each in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", d / each], check=True, timeout=20
        )
    port = free_port()
    (d / "sshd_config").write_text(_SSHD.format(port=port, d=d))
    os.makedirs("/run/sshd", exist_ok=True)  # where sshd locks itself in
    # sshd insists on an absolute path of its own.
    server = processes.start("sshd", [shutil.which("sshd"), "-D", "-e", "-f", d / "sshd_config"])
    wait_for(processes, "sshd", lambda: answers(port))
    ports = _ports(origins)
    forwards = [
        part
        for name, target in origins.ports().items()
        for part in ("-R", f"127.0.0.1:{ports[name]}:127.0.0.1:{target}")
    ]
    options = {
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": d / "known",
        "IdentitiesOnly": "yes",
        "ExitOnForwardFailure": "yes",
        "BatchMode": "yes",
    }
    client = processes.start(
        "ssh",
        ["ssh", "-F", "none", "-N", "-i", d / "user", "-p", port]
        + [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
        + [*forwards, "127.0.0.1"],
    )
    _wait(processes, ports, "ssh -R")
    return Reached(ports, server.pid, client.pid, [server, client])


# What may be on PATH.


def _frp(processes: Processes, origins: Origins) -> Reached:
    d = processes.make_directory("frp")
    port, ports = free_port(), _ports(origins)
    (d / "frps.toml").write_text(f'bindAddr = "127.0.0.1"\nbindPort = {port}\n')
    lines = ['serverAddr = "127.0.0.1"', f"serverPort = {port}", "transport.poolCount = 5"]
    for name, target in origins.ports().items():
        lines += ["[[proxies]]", f'name = "{name}"', 'type = "tcp"', 'localIP = "127.0.0.1"']
        lines += [f"localPort = {target}", f"remotePort = {ports[name]}"]
    (d / "frpc.toml").write_text("\n".join(lines) + "\n")
    server = processes.start("frps", ["frps", "-c", d / "frps.toml"])
    wait_for(processes, "frps", lambda: answers(port))
    client = processes.start("frpc", ["frpc", "-c", d / "frpc.toml"])
    _wait(processes, ports, "frp")
    return Reached(ports, server.pid, client.pid, [server, client])


def _rathole(processes: Processes, origins: Origins) -> Reached:
    d = processes.make_directory("rathole")
    port, ports = free_port(), _ports(origins)
    server_lines = ["[server]", f'bind_addr = "127.0.0.1:{port}"', 'default_token = "bench"']
    client_lines = ["[client]", f'remote_addr = "127.0.0.1:{port}"', 'default_token = "bench"']
    for name, target in origins.ports().items():
        server_lines += [f"[server.services.{name}]", f'bind_addr = "127.0.0.1:{ports[name]}"']
        client_lines += [f"[client.services.{name}]", f'local_addr = "127.0.0.1:{target}"']
    (d / "server.toml").write_text("\n".join(server_lines) + "\n")
    (d / "client.toml").write_text("\n".join(client_lines) + "\n")
    server = processes.start("rathole-server", ["rathole", "--server", d / "server.toml"])
    wait_for(processes, "rathole", lambda: answers(port))
    client = processes.start("rathole-client", ["rathole", "--client", d / "client.toml"])
    _wait(processes, ports, "rathole")
    return Reached(ports, server.pid, client.pid, [server, client])


def _bore(processes: Processes, origins: Origins) -> Reached:
    ports = _ports(origins)
    low, high = min(ports.values()), max(ports.values())
    server = processes.start(
        "bore-server",
        ["bore", "server", "--min-port", low, "--max-port", high, "--bind-addr", "127.0.0.1"],
    )
    wait_for(processes, "bore", lambda: answers(7835))
    started = [server]
    for name, target in origins.ports().items():
        command = ["bore", "local", target, "--to", "127.0.0.1", "--port", ports[name]]
        started.append(processes.start(f"bore-{name}", command))
    _wait(processes, ports, "bore")
    return Reached(ports, server.pid, started[1].pid, started)


def _chisel(processes: Processes, origins: Origins) -> Reached:
    port, ports = free_port(), _ports(origins)
    server = processes.start(
        "chisel-server", ["chisel", "server", "--reverse", "--host", "127.0.0.1", "--port", port]
    )
    wait_for(processes, "chisel", lambda: answers(port))
    remotes = [
        f"R:127.0.0.1:{ports[name]}:127.0.0.1:{target}" for name, target in origins.ports().items()
    ]
    client = processes.start(
        "chisel-client", ["chisel", "client", f"http://127.0.0.1:{port}", *remotes]
    )
    _wait(processes, ports, "chisel")
    return Reached(ports, server.pid, client.pid, [server, client])


def make_certificate(directory: Path) -> None:
    """
    Write cert.pem, and both.pem with its key too, for 127.0.0.1.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=10))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (directory / "cert.pem").write_bytes(certificate)
    (directory / "both.pem").write_bytes(certificate + secret)


OURS = ("ours", "ours-tls")

WAYS = [
    Way("direct", "no proxy at all", (), _direct),
    Way("ours", "relaytunnel, plain data channels", (), _ours("plain")),
    Way("ours-tls", "relaytunnel, data channels over TLS", (), _ours("tls")),
    Way("haproxy", "HAProxy to HAProxy", ("haproxy",), _haproxy(False), ("haproxy", "-v")),
    Way("haproxy-tls", "HAProxy to HAProxy over TLS", ("haproxy",), _haproxy(True)),
    Way("nginx", "nginx stream to nginx stream", ("nginx",), _nginx, ("nginx", "-v")),
    Way("ssh", "ssh -R", ("sshd", "ssh", "ssh-keygen"), _ssh, ("ssh", "-V")),
    Way("frp", "frp", ("frps", "frpc"), _frp, ("frps", "--version")),
    Way("rathole", "rathole", ("rathole",), _rathole, ("rathole", "--version")),
    Way("bore", "bore", ("bore",), _bore, ("bore", "--version")),
    Way("chisel", "chisel", ("chisel",), _chisel, ("chisel", "--version")),
]

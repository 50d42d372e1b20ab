"""
C{python -m bench.logins}: how long clients of one server wait for the answer
to their password while clients of another agent's server guess without end.

The hostile agent's users have the costliest hashes that the relay takes.  Its
clients come from many addresses of loopback; half of them do not wait for the
answer.  Each login of the other server is of a user of its own, so that none
is remembered.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import multiprocessing
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.origins import start_origins
from bench.processes import BenchFailed, Processes, answers, free_port, wait_for
from bench.ways import TWISTD
from relaytunnel.accounts.secrets import hash_chosen

_RELAY = """
[relay]
state = "{d}/state"
[listen]
agents = "tcp:{agents}:interface=127.0.0.1"
clients = ["tcp:{clients}:interface=127.0.0.1"]
admin = "off"
"""
_AGENT = """
[agent]
join-file = "{join}"
[[server]]
id = "{id}"
target = "127.0.0.1:{target}"
[server.users]
{users}
"""
_CLI = (sys.executable, "-c", "from relaytunnel.cli import main; raise SystemExit(main())")
_COSTLIEST = "131072:8:1"
_USERS = 60
_ADDRESSES = 60
_OF_EACH = 3
_PACE = 1.0
"""Seconds between two guesses of one: 180 new connections a second, in all."""
_PATIENCE = 60.0


def _ask(port: int, server: str, user: str, password: str, source: str = "127.0.0.1") -> bytes:
    """
    @return: the first line of the answer.
    """
    given = base64.b64encode(f"{user}:{password}".encode()).decode()
    said = f"GET / HTTP/1.1\r\nHost: {server}\r\nAuthorization: Basic {given}\r\n"
    with socket.create_connection(("127.0.0.1", port), _PATIENCE, (source, 0)) as sock:
        sock.sendall(f"{said}Connection: close\r\n\r\n".encode())
        heard = b""
        while data := sock.recv(65536):
            heard += data
    return heard.partition(b"\r\n")[0]


async def _guess(port: int, source: str, patient: bool) -> None:
    """
    Guess from one address until cancelled.
    """
    while True:
        given = base64.b64encode(f"u0:{random.random()}".encode()).decode()
        said = f"GET / HTTP/1.1\r\nHost: hostile\r\nAuthorization: Basic {given}\r\n\r\n"
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, local_addr=(source, 0)
            )
            writer.write(said.encode())
            if patient:
                await reader.read()
            else:
                await asyncio.sleep(_PACE)
            writer.close()
        if patient:
            await asyncio.sleep(_PACE)


def _attack(port: int) -> None:
    """
    Guess from all addresses, until the process is ended.
    """

    async def all_of_them() -> None:
        await asyncio.gather(
            *(
                _guess(port, f"127.0.1.{each + 1}", each % 2 == 0)
                for each in range(_ADDRESSES)
                for _ in range(_OF_EACH)
            )
        )

    asyncio.run(all_of_them())


def _logins(port: int, right: bool, users: Sequence[str]) -> list[float]:
    """
    @return: seconds from connect to the end of the answer, of each user.
    """
    found = []
    for user in users:
        began = time.monotonic()
        line = _ask(port, "honest", user, "right" if right else "wrong")
        if line.split()[1:2] != [b"200" if right else b"401"]:
            raise BenchFailed(f"a login was answered with {line!r}")
        found.append(time.monotonic() - began)
    return found


def _said(what: str, figures: list[float]) -> None:
    ordered = sorted(figures)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    print(
        f"{what:42} p50 {statistics.median(ordered):6.3f} s   p99 {p99:6.3f} s"
        f"   most {ordered[-1]:6.3f} s   of {len(ordered)}",
        flush=True,
    )


def _start(processes: Processes, cost: str) -> tuple[int, subprocess.Popen[bytes]]:
    """
    @return: the port for clients, and the relay's process.
    """
    d = processes.make_directory("logins")
    origins = start_origins(processes)
    agents, clients = free_port(), free_port()
    (d / "relay.toml").write_text(_RELAY.format(d=d, agents=agents, clients=clients))

    def twistd(plugin: str, name: str) -> subprocess.Popen[bytes]:
        twistd = [sys.executable, "-c", TWISTD, "-n", "--pidfile=", f"--logfile={name}.log"]
        return processes.start(name, [*twistd, plugin, "--config", f"{name}.toml"], d)

    def agent(name: str, join: Path, users: Sequence[str]) -> None:
        text = _AGENT.format(
            join=join, id=name, target=origins.ports()["http"], users="\n".join(users)
        )
        (d / f"{name}.toml").write_text(text)
        twistd("agent", name)

    relay = twistd("relay", "relay")
    invitation = d / "state" / "invitation"
    wait_for(processes, "the relay's invitation", invitation.exists)
    wait_for(processes, "the relay's port", lambda: answers(agents))
    made = subprocess.run(
        [*_CLI, "invite", "hostile", "--publish", "hostile", "--state", str(d / "state")],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    hostile = d / "hostile-invitation"
    hostile.write_text(made.stdout.strip().splitlines()[-1] + "\n")
    # As costly as any that people make; one hash serves all users here.
    stored = hash_chosen("right")
    agent("honest", invitation, [f'u{number} = "{stored}"' for number in range(_USERS)])
    agent("hostile", hostile, [f'u0 = "scrypt:{cost}:{"ab" * 16}:{"cd" * 32}"'])
    for name in ("honest", "hostile"):
        wait_for(
            processes,
            f"the server {name}",
            lambda name=name: _ask(clients, name, "", "").split()[1:2] != [b"404"],  # type: ignore[misc]
        )
    return clients, relay


def main() -> int:
    """
    @return: the exit code: 0, or 1 if unrelated logins take longer than they
        should.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.logins", description=__doc__)
    parser.add_argument("--logins", type=int, default=_USERS, metavar="N", help="of each kind")
    parser.add_argument(
        "--cost", default=_COSTLIEST, metavar="N:r:p", help="of the hostile agent's hashes"
    )
    options = parser.parse_args()
    count = min(_USERS, options.logins)
    users = [f"u{number}" for number in range(count)]
    with Processes() as processes:
        port, relay = _start(processes, options.cost)
        half = len(users) // 2
        _said("quiet, a wrong password", _logins(port, False, users[:half]))
        _said("quiet, a right one", _logins(port, True, users[:half]))
        attack = multiprocessing.Process(target=_attack, args=(port,), daemon=True)
        attack.start()
        time.sleep(2)
        attacked = _logins(port, False, users)
        _said("under attack, a wrong password", attacked)
        _said("under attack, a right one", _logins(port, True, users[half:]))
        began = time.monotonic()
        relay.send_signal(signal.SIGTERM)
        relay.wait(120)
        print(f"under attack, SIGTERM is obeyed within      {time.monotonic() - began:.3f} s")
        attack.terminate()
        attack.join()
    attacked.sort()
    return int(attacked[round(0.99 * (len(attacked) - 1))] >= 1.0)


if __name__ == "__main__":
    sys.exit(main())

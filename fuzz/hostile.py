"""
Many connections at a time that say what nobody should say, to a running relay.

C{python -m fuzz.hostile SETTINGS} is a process of its own, beside that of
L{fuzz.live}, which starts it: the settings come as JSON, and so does what was
done.  Each connection has an address of its own to come from, as the relay
counts what comes from one.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

import msgspec

from fuzz.catalogue import kept
from fuzz.targets import cut
from relaytunnel.channel.tls import CONTROL, DATA
from relaytunnel.wire.control import frame
from relaytunnel.wire.messages import Hello

__all__ = ["KINDS", "Settings", "mutated"]

_RESET = struct.pack("ii", 1, 0)
_PATIENCE = 3.0
_LARGEST = 40_000
_LARGEST_BODY = 16 * 1024
_CUT = {"arrival", "control", "data", "proxied"}


class Settings(msgspec.Struct):
    """
    What is to be done.

    @ivar clients: the port for clients.
    @ivar agents: the port for agents.
    @ivar secret: that of the agent C{mad}.
    @ivar connections: how many there are at a time.
    """

    clients: int
    agents: int
    secret: str
    seconds: float
    seed: int
    connections: int


def _inputs(*targets: str) -> list[bytes]:
    """
    @return: the inputs of these targets that are kept, without their cuts.
    """
    found = []
    for name in targets:
        for path in kept(name):
            data = path.read_bytes()
            found.append(b"".join(cut(data)[1]) if name in _CUT else data)
    return found


def mutated(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """
    @return: nearly the same bytes.
    """
    changed = bytearray(data)
    for _ in range(chance.choice((0, 0, 1, 1, 2, 4))):
        at = chance.randrange(len(changed) + 1)
        end = min(len(changed), at + chance.choice((1, 1, 2, 8, 64)))
        what = chance.randrange(6)
        if what == 0:
            changed[at:end] = chance.randbytes(end - at)
        elif what == 1:
            changed[at:at] = chance.randbytes(chance.choice((1, 2, 16)))
        elif what == 2:
            del changed[at:end]
        elif what == 3:
            changed[at:at] = changed[at:end] * chance.choice((1, 10, 300))
        elif what == 4:
            del changed[at:]
        else:
            changed[at:] = chance.choice(others)
    return bytes(changed[:_LARGEST])


class _Stranger:
    """
    Who connects again and again, and what it says.
    """

    def __init__(self, settings: Settings, number: int) -> None:
        self.settings = settings
        self.chance = random.Random(f"{settings.seed} {number}")
        self.counts: Counter[str] = Counter()

    def run(self, until: float) -> None:
        """
        Do so for some time.
        """
        while time.monotonic() < until:
            kind = self.chance.choices(list(KINDS), _WEIGHTS)[0]
            self.counts[kind] += 1
            try:
                KINDS[kind](self)
            except OSError:
                self.counts[f"{kind} cut off"] += 1

    # Kinds

    def to_clients(self) -> None:
        self._talk(self.settings.clients, _TO_CLIENTS)

    def to_agents(self) -> None:
        self._talk(self.settings.agents, _TO_AGENTS)

    def control(self) -> None:
        self._talk(self.settings.agents, _CONTROL, CONTROL)

    def data(self) -> None:
        self._talk(self.settings.agents, _DATA, DATA)

    def agent(self) -> None:
        """
        Be let in as an agent, and go mad.
        """
        chance = self.chance
        secret = self.settings.secret
        hello = Hello(version=1, agent="mad", secret=secret, epoch=time.time_ns())
        with self._connect(self.settings.agents, CONTROL) as sock:
            self._say(sock, frame(hello))
            self.counts["let in"] += b"welcome" in self._listen(sock, 0.3)
            for _ in range(chance.randint(1, 40)):
                body = chance.choice(_MESSAGES)
                if chance.random() < 0.5:
                    body = mutated(body, _MESSAGES, chance)[:_LARGEST_BODY]
                flags = chance.choice((0, 1, 1, 1, 1, 1, 1, 2))
                self._say(sock, bytes((flags,)) + len(body).to_bytes(2, "big") + body)
                if chance.random() < 0.1:
                    self._listen(sock, 0.05)
            self._leave(sock)

    # What they have in common

    def _talk(self, port: int, inputs: list[bytes], alpn: bytes | None = None) -> None:
        with self._connect(port, alpn) as sock:
            for _ in range(self.chance.choice((0, 1, 1, 1, 2))):
                self._say(sock, mutated(self.chance.choice(inputs), inputs, self.chance))
                if self.chance.random() < 0.3:
                    self._listen(sock, 0.05)
            self._leave(sock)

    def _connect(self, port: int, alpn: bytes | None) -> socket.socket:
        chance = self.chance
        source = f"127.{chance.randint(1, 200)}.{chance.randint(0, 255)}.{chance.randint(1, 254)}"
        sock = socket.create_connection(
            ("127.0.0.1", port), timeout=_PATIENCE, source_address=(source, 0)
        )
        if alpn is None:
            return sock
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols([alpn.decode("ascii")])
        try:
            return context.wrap_socket(sock)
        except BaseException:
            sock.close()
            raise

    def _say(self, sock: socket.socket, data: bytes) -> None:
        """
        Send it in pieces, now and then with a pause between them.
        """
        chance = self.chance
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data:
            piece = data[: chance.choice((1, 5, 40, len(data), len(data)))]
            sock.sendall(piece)
            self.counts["bytes"] += len(piece)
            data = data[len(piece) :]
            if chance.random() < 0.2:
                time.sleep(chance.choice((0.001, 0.01, 0.1)))

    def _leave(self, sock: socket.socket) -> None:
        """
        In one of many ways, of which the last is to hang up.
        """
        chance = self.chance
        what = chance.randrange(5)
        if what == 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        elif what == 1:
            # Also under TLS: its end without the word for it.
            socket.socket.shutdown(sock, socket.SHUT_WR)
            self._listen(sock, _PATIENCE)
        elif what == 2:
            self._listen(sock, chance.choice((0.05, 0.5)))
        elif what == 3:
            time.sleep(chance.choice((0, 0.1, 1)))

    def _listen(self, sock: socket.socket, seconds: float) -> bytes:
        """
        @return: what comes within this time.
        """
        heard = bytearray()
        until = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            while (left := until - time.monotonic()) > 0:
                sock.settimeout(left)
                data = sock.recv(1 << 16)
                if not data:
                    break
                heard += data
        sock.settimeout(_PATIENCE)
        return bytes(heard)


_TO_CLIENTS = _inputs("arrival", "proxied")
_TO_AGENTS = _inputs("arrival", "data", "control", "proxied")
_CONTROL = _inputs("control")
_DATA = _inputs("data")
_MESSAGES = [
    each.replace(b"\xa3web", b"\xa7mad.web") for each in _inputs("message") if b"hello" not in each
]

KINDS: dict[str, Callable[[_Stranger], None]] = {
    "clients": _Stranger.to_clients,
    "agents": _Stranger.to_agents,
    "control": _Stranger.control,
    "data": _Stranger.data,
    "agent": _Stranger.agent,
}
"""
What a connection may be: to the clients' port; to the agents' port without TLS;
behind a handshake there as a control channel, or as a data channel; an agent
that is let in.
"""

_WEIGHTS = (10, 3, 3, 3, 1)


def _run(settings: Settings) -> Counter[str]:
    """
    @return: how often what was done.
    """
    until = time.monotonic() + settings.seconds
    strangers = [_Stranger(settings, number) for number in range(settings.connections)]
    threads = [threading.Thread(target=each.run, args=(until,)) for each in strangers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum((each.counts for each in strangers), Counter())


if __name__ == "__main__":
    done = _run(msgspec.json.decode(sys.argv[1], type=Settings))
    sys.stdout.buffer.write(msgspec.json.encode(done))

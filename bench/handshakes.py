"""
C{python -m bench.handshakes}: what a TLS handshake costs, anew and resumed.

Data channels do not resume sessions.  This says what they would win by it.
"""

from __future__ import annotations

import resource
import socket
import statistics
import sys
import tempfile
from pathlib import Path

from OpenSSL import SSL

from bench.processes import BenchFailed
from bench.ways import make_certificate

_ROUNDS = 7
_HANDSHAKES = 100
_verified = 0
"""How many certificates were looked at: none is when a session is resumed."""


def _context(server: bool, directory: Path, resumable: bool) -> SSL.Context:
    """
    A context as data channels have it, but for what it takes to resume.
    """
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    if resumable:
        context.set_session_cache_mode(SSL.SESS_CACHE_BOTH)
        context.set_session_id(b"bench")
    else:
        context.set_options(SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    if server:
        context.use_privatekey_file(str(directory / "both.pem"))
        context.use_certificate_file(str(directory / "both.pem"))
    else:
        context.load_verify_locations(str(directory / "cert.pem"))
        context.set_verify(SSL.VERIFY_PEER, _verify)
    return context


def _verify(connection: object, certificate: object, fault: int, depth: int, ok: int) -> bool:
    global _verified  # noqa: PLW0603  # a callback has no other place for it
    _verified += 1
    return bool(ok)


def _shake(server: SSL.Context, client: SSL.Context, session: SSL.Session | None) -> SSL.Session:
    """
    Make a connection, say something on it, and end it.

    @return: its session, which another one may resume.
    """
    near, far = socket.socketpair()
    with near, far:
        ends = []
        for sock, context in ((near, server), (far, client)):
            sock.setblocking(False)
            ends.append(SSL.Connection(context, sock))
        accepting, connecting = ends
        accepting.set_accept_state()
        connecting.set_connect_state()
        if session is not None:
            connecting.set_session(session)
        waiting = [connecting, accepting]
        while waiting:
            for end in list(waiting):
                try:
                    end.do_handshake()
                except SSL.WantReadError:
                    continue
                waiting.remove(end)
        accepting.send(b"!")
        assert connecting.recv(1) == b"!"
        found = connecting.get_session()
        assert found is not None
        for end in ends:  # or the session would not be one to resume
            end.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)
        return found


def _cost(server: SSL.Context, client: SSL.Context, resume: bool) -> float:
    """
    @return: microseconds of CPU per handshake, of both ends together.
    """
    session = _shake(server, client, None) if resume else None
    before = resource.getrusage(resource.RUSAGE_SELF)
    seen = _verified
    for _ in range(_HANDSHAKES):
        last = _shake(server, client, session)
        if resume:
            session = last  # each is good for one connection
    if resume and _verified != seen:
        raise BenchFailed("the session was not resumed")
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent / _HANDSHAKES * 1e6


def main() -> int:
    """
    @return: the exit code, 0.
    """
    with tempfile.TemporaryDirectory(prefix="relaytunnel-bench-") as name:
        directory = Path(name)
        make_certificate(directory)
        plain = [_context(server, directory, False) for server in (True, False)]
        able = [_context(server, directory, True) for server in (True, False)]
        costs: dict[str, list[float]] = {"anew": [], "resumed": []}
        for _ in range(_ROUNDS):
            costs["anew"].append(_cost(plain[0], plain[1], False))
            costs["resumed"].append(_cost(able[0], able[1], True))
    medians = {which: statistics.median(figures) for which, figures in costs.items()}
    for which, figures in costs.items():
        print(
            f"{which:8} {medians[which]:7.0f} us of CPU, both ends together"
            f"  ({min(figures):.0f} .. {max(figures):.0f})"
        )
    print(f"resumed / anew: {medians['resumed'] / medians['anew']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

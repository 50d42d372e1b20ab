"""
How a client that just connected to the shared port names its server.

Feed an L{Arrival} what the client sends until it says L{Named} or
L{Malformed}.  No sockets, no clock: bytes in, values and bytes out.

A further way to name a server is a module beside L{relaytunnel.arrival.http}
that offers an L{Opening}, and a line in L{WAYS}.
"""

from __future__ import annotations

from relaytunnel.arrival.answers import http_answer
from relaytunnel.arrival.authority import Authority, parse_authority, parse_host
from relaytunnel.arrival.detect import WAYS, Arrival, detect
from relaytunnel.arrival.http import HTTP, HttpArrival
from relaytunnel.arrival.plain import UNKNOWN, UnknownArrival
from relaytunnel.arrival.ways import DEFAULT_LIMITS, Limits, Malformed, Named, Opening, Way

__all__ = [
    "DEFAULT_LIMITS",
    "HTTP",
    "UNKNOWN",
    "WAYS",
    "Arrival",
    "Authority",
    "HttpArrival",
    "Limits",
    "Malformed",
    "Named",
    "Opening",
    "UnknownArrival",
    "Way",
    "detect",
    "http_answer",
    "parse_authority",
    "parse_host",
]

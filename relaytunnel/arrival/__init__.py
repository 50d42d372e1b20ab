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
from relaytunnel.arrival.credentials import LONGEST_CHOICE
from relaytunnel.arrival.detect import WAYS, WAYS_WITHOUT_QUESTION, Arrival, detect
from relaytunnel.arrival.exchange import Exchange, Mode
from relaytunnel.arrival.http import HTTP, LATER_HTTP, HttpArrival
from relaytunnel.arrival.plain import UNKNOWN, UnknownArrival
from relaytunnel.arrival.postgres import POSTGRES, PostgresArrival
from relaytunnel.arrival.question import QUESTION, QuestionArrival
from relaytunnel.arrival.request import Request
from relaytunnel.arrival.socks import SOCKS4, SOCKS5
from relaytunnel.arrival.tls import SNI, SniArrival
from relaytunnel.arrival.ways import (
    DEFAULT_LIMITS,
    Asked,
    Choice,
    Directory,
    Limits,
    Login,
    Malformed,
    Named,
    Opening,
    Prelude,
    Quiet,
    Way,
)

__all__ = [
    "DEFAULT_LIMITS",
    "HTTP",
    "LATER_HTTP",
    "LONGEST_CHOICE",
    "POSTGRES",
    "QUESTION",
    "SNI",
    "SOCKS4",
    "SOCKS5",
    "UNKNOWN",
    "WAYS",
    "WAYS_WITHOUT_QUESTION",
    "Arrival",
    "Asked",
    "Authority",
    "Choice",
    "Directory",
    "Exchange",
    "HttpArrival",
    "Limits",
    "Login",
    "Malformed",
    "Mode",
    "Named",
    "Opening",
    "PostgresArrival",
    "Prelude",
    "QuestionArrival",
    "Quiet",
    "Request",
    "SniArrival",
    "UnknownArrival",
    "Way",
    "detect",
    "http_answer",
    "parse_authority",
    "parse_host",
]

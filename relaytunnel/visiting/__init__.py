"""
Visits from this machine: what C{relaytunnel connect} and C{relaytunnel
forward} do.  They name the server in an HTTP CONNECT to a client port of the
relay; clients that say themselves whom they want need neither.
"""

from relaytunnel.visiting.asking import (
    DEFAULT_RELAY,
    Answer,
    AnswerReader,
    HostPort,
    NotServed,
    asking_for,
    user_name,
)
from relaytunnel.visiting.forwarding import Forward, run_forward
from relaytunnel.visiting.standard import run_connect

__all__ = [
    "DEFAULT_RELAY",
    "Answer",
    "AnswerReader",
    "Forward",
    "HostPort",
    "NotServed",
    "asking_for",
    "run_connect",
    "run_forward",
    "user_name",
]

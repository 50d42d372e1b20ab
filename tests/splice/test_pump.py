"""
The engine that owns its sockets keeps the contract, and lets go of what it
does not need.
"""

from __future__ import annotations

import tests.kqueue
from relaytunnel.channel.records import CAREFUL
from relaytunnel.splice.choice import PumpEngine
from tests.splice import contract
from tests.splice.contract import FRAMED, TCP


class _Pump(contract.SpliceContract):
    def make_engine(self) -> PumpEngine:
        return PumpEngine(self.edges)


class PlainTests(_Pump):
    """
    Two plain connections: a relay or an agent with a plain data channel.
    """

    kinds = (TCP, TCP)


class RelayTests(_Pump):
    """
    A client channel and a data channel in frames.
    """

    kinds = (TCP, FRAMED)
    own_tls = True


class AgentTests(_Pump):
    """
    A data channel in frames and a server channel.
    """

    kinds = (FRAMED, TCP)
    own_tls = True


class KqueueTests(AgentTests):
    """
    The same with the other kind of events.
    """

    machine = tests.kqueue


class CarefulTests(_Pump):
    """
    The same where OpenSSL's own functions are not to be had.
    """

    kinds = (FRAMED, TCP)
    own_tls = True

    def make_engine(self) -> PumpEngine:
        return PumpEngine(self.edges, CAREFUL)


class PortableTests(_Pump):
    """
    A data channel whose TLS has no socket of its own is left to the portable
    engine.
    """

    kinds = (TCP, FRAMED)


del _Pump

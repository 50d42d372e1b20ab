"""
The engine that owns its sockets keeps the contract, and lets go of what it
does not need.
"""

from __future__ import annotations

from relaytunnel.splice.choice import PumpEngine
from tests.splice import contract
from tests.splice.contract import TCP


class _Pump(contract.SpliceContract):
    def make_engine(self) -> PumpEngine:
        return PumpEngine(self.edges)


class PlainTests(_Pump):
    """
    Two plain connections: a relay or an agent with a plain data channel.
    """

    kinds = (TCP, TCP)


del _Pump

"""
The portable engine keeps the contract, whatever it joins.
"""

from __future__ import annotations

import tests.kqueue
from relaytunnel.splice import PairedEngine
from tests.splice import contract
from tests.splice.contract import FRAMED, TCP


class _Paired:
    def make_engine(self) -> PairedEngine:
        return PairedEngine()


class PlainTests(_Paired, contract.SpliceContract):
    """
    Two plain connections: a relay or an agent with a plain data channel.
    """

    kinds = (TCP, TCP)


class RelayTests(_Paired, contract.SpliceContract):
    """
    A client channel and a data channel in frames.
    """

    kinds = (TCP, FRAMED)


class AgentTests(_Paired, contract.SpliceContract):
    """
    A data channel in frames and a server channel.
    """

    kinds = (FRAMED, TCP)


class OwnTLSTests(_Paired, contract.SpliceContract):
    """
    A data channel whose TLS is our own.
    """

    kinds = (TCP, FRAMED)
    own_tls = True


class KqueueTests(OwnTLSTests):
    """
    The same on BSD and macOS.
    """

    machine = tests.kqueue

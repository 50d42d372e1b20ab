"""
Messages that reach a machine, in turn and out of turn.
"""

from __future__ import annotations

from typing import Protocol

from automat import TypeMachineBuilder

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.errors import ProtocolError
from relaytunnel.wire.messages import Ping, Pong, Withdraw
from relaytunnel.wire.turns import Turns


class _Inputs(Protocol):
    def ping(self, message: Ping) -> None:
        """Taken first."""

    def pong(self, message: Pong) -> None:
        """Taken behind a ping."""


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        builder = TypeMachineBuilder(_Inputs, list)
        quiet, pinged = builder.state("quiet"), builder.state("pinged")
        quiet.upon(_Inputs.ping).to(pinged)(lambda machine, said, message: said.append(message))
        pinged.upon(_Inputs.pong).to(quiet)(lambda machine, said, message: said.append(message))
        self.said: list[object] = []
        machine = builder.build()(self.said)
        self.turns = Turns("a player", {Ping: machine.ping, Pong: machine.pong})

    def test_in_turn(self) -> None:
        """
        Each message goes to its own input.
        """
        self.turns.take(Ping(number=1))
        self.turns.take(Pong(number=1))
        self.assertEqual(self.said, [Ping(number=1), Pong(number=1)])

    def test_out_of_turn(self) -> None:
        """
        A message that its state does not take is the speaker's fault.
        """
        fault = self.assertRaises(ProtocolError, self.turns.take, Pong(number=1))
        self.assertEqual(str(fault), "Pong may not be sent now")
        self.assertEqual(self.said, [])

    def test_not_theirs(self) -> None:
        """
        So is one that this side never sends.
        """
        fault = self.assertRaises(ProtocolError, self.turns.take, Withdraw(connection_id="web"))
        self.assertEqual(str(fault), "a player does not send Withdraw")

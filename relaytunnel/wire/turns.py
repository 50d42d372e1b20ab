"""
Who may say what, and when: messages become inputs of a machine.

Which states take which input is the machine's own business; that an input it
does not take is the speaker's fault is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from automat import NoTransition

from relaytunnel.errors import ProtocolError
from relaytunnel.wire.messages import Message

__all__ = ["Turns"]


class Turns:
    """
    Gives each message to the input that it is for.
    """

    def __init__(self, speaker: str, inputs: Mapping[type, Callable[[Any], None]]) -> None:
        """
        @param speaker: who sends the messages, for faults: C{"an agent"}.
        @param inputs: the input of each kind of message that the speaker sends.
        """
        self._speaker = speaker
        self._inputs = inputs

    def take(self, message: Message) -> None:
        """
        The speaker says something.

        @raise ProtocolError: it may not be said, or not now.
        """
        take = self._inputs.get(type(message))
        name = type(message).__name__
        if take is None:
            raise ProtocolError(f"{self._speaker} does not send {name}")
        try:
            take(message)
        except NoTransition:
            raise ProtocolError(f"{name} may not be sent now") from None

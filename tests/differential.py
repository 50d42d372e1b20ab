"""
The same random script on a direct connection and on one through something:
what both ends observe has to be the same.

A L{Script} says, round by round, what client and server do; L{play} lets them
do it and returns what they have observed when all that can arrive has arrived.
Of a connection that was reset nobody can say how much arrives before, so then
it counts that what came is a beginning of what was sent.
"""

from __future__ import annotations

import random
import select
import socket
from dataclasses import dataclass

from twisted.trial.unittest import FailTest

from tests.channel import Peer, until

__all__ = ["Observation", "Script", "make_script", "play"]

_LARGEST = 8 << 20
_SETTLED_WITHIN = 20.0
_STREAM = random.Random(7).randbytes(1 << 20)

Observation = tuple[object, ...]


@dataclass(frozen=True)
class Do:
    """
    What one end does.

    @ivar what: C{send} C{much} bytes, C{stall} (read no more), C{resume},
        C{end} (half-close), C{finish} (send what there is, then let go),
        C{reset}.
    """

    who: int
    what: str
    much: int = 0


@dataclass(frozen=True)
class Script:
    """
    Rounds, each of which is over when nothing moves any more.

    @ivar seed: makes the same script again.
    @ivar buffers: of each end's kernel, or 0 for the usual ones.
    """

    seed: int
    buffers: tuple[int, int]
    rounds: tuple[tuple[Do, ...], ...]

    def __str__(self) -> str:
        names = ("client", "server")
        rounds = "; ".join(
            ", ".join(f"{names[do.who]} {do.what} {do.much or ''}".strip() for do in each)
            for each in self.rounds
        )
        return f"seed {self.seed}, buffers {self.buffers}: {rounds}"


@dataclass
class _Plan:
    """
    How an end will be behind the rounds so far.
    """

    ended: bool = False
    stalled: bool = False
    gone: bool = False
    unread: bool = False


def _size(dice: random.Random) -> int:
    return dice.choice(
        (
            0,
            1,
            dice.randrange(2, 200),
            dice.randrange(200, 20_000),
            dice.randrange(200, 20_000),
            dice.randrange(20_000, 300_000),
            dice.randrange(300_000, 1_500_000),
            dice.choice((16_381, 16_384, 65_536, 131_072, dice.randrange(_LARGEST))),
        )
    )


def _is_seen(what: str, me: _Plan, you: _Plan, sent: bool, ends: bool) -> bool:
    """
    Whether it is the same each time: of an end and a reset that cross, either
    may win, and what is behind both ends is not seen at all.

    @param sent: whether it has sent something in this round.
    @param ends: whether the other one has ended in this round.
    """
    if what == "end":
        return not (you.gone and sent)
    if what == "reset":
        return not (ends or (me.ended and you.ended))
    return True


def make_script(seed: int) -> Script:
    """
    @return: a script that makes sense: nobody sends behind its own end, and
        nobody lets go of a connection with bytes unread that it did not mean
        to reset.
    """
    dice = random.Random(seed)
    plans = (_Plan(), _Plan())
    rounds = []
    for _ in range(dice.randrange(1, 7)):
        acts: list[Do] = []
        sent = [False, False]
        for _ in range(dice.randrange(1, 4)):
            who = dice.randrange(2)
            me, you = plans[who], plans[1 - who]
            if me.gone:
                continue
            what = dice.choices(("send", "stall", "resume", "end", "reset"), (60, 10, 10, 12, 4))[
                0
            ]
            if what in ("send", "end") and me.ended:
                continue
            if not _is_seen(what, me, you, sent[who], Do(1 - who, "end") in acts):
                continue
            if what == "send":
                acts.append(Do(who, what, _size(dice)))
                sent[who] = True
                you.unread |= you.stalled
            elif what == "stall" and not me.stalled:
                acts.append(Do(who, what))
                me.stalled = True
            elif what == "resume" and me.stalled:
                acts.append(Do(who, what))
                me.stalled = me.unread = False
            elif what == "end":
                acts.append(Do(who, what))
                me.ended = True
            elif what == "reset":
                acts.append(Do(who, what))
                me.gone = True
                break
        if acts:
            rounds.append(tuple(acts))
        if any(plan.gone for plan in plans):
            break
        if dice.random() < 0.15:
            who = dice.randrange(2)
            if not (plans[who].stalled or plans[who].unread or plans[1 - who].stalled):
                rounds.append((Do(who, "finish"),))
                plans[who].gone = True
                plans[who].ended = True
                if dice.random() < 0.6 and not plans[1 - who].ended:
                    # Whoever goes on sends to nobody, and is told so.
                    rounds.append((Do(1 - who, "send", 1 + _size(dice)),))
                    break
    buffers = (dice.choice((0, 0, 65_536)), dice.choice((0, 0, 65_536)))
    return Script(seed, buffers, tuple(rounds))


class _End(Peer):
    """
    One end, which knows what the other one sends.

    @ivar wrong: whether something else came.
    @ivar queued: how much it was told to send.
    """

    other: _End

    def __init__(
        self, number: int, port: int, buffer: int, accepted: socket.socket | None = None
    ) -> None:
        super().__init__(port, buffer, buffer, accepted)
        self.number = number
        self.queued = 0
        self.wrong = False
        self.finishing = self.aborted = False
        self._reset_noticed = False
        self._poll = select.poll()
        self._poll.register(self.sock, 0)

    def do(self, do: Do) -> None:
        if do.what == "send":
            self.send(_piece(self.number, self.queued, do.much))
            self.queued += do.much
        elif do.what in ("stall", "resume"):
            self.reading = do.what == "resume"
        elif do.what == "end":
            self.end()
        elif do.what == "finish":
            self.finishing = True
        else:
            self.aborted = True
            self.reset()

    @property
    def gone(self) -> bool:
        return self.sock.fileno() < 0

    @property
    def reset_seen(self) -> bool:
        if not self.gone and not self._reset_noticed:
            events = self._poll.poll(0)
            self._reset_noticed = bool(events and events[0][1] & select.POLLERR)
        return self._reset_noticed or self.was_reset or self.broken_pipe

    def _take(self, data: bytes) -> None:
        self.wrong |= data != _piece(1 - self.number, self.received, len(data))
        self.received += len(data)

    def move(self) -> bool:
        moved = super().move()
        if self.finishing and self.all_sent and not self.gone:
            self.close()
        return moved

    @property
    def settled(self) -> bool:
        """
        Whether it has all that can arrive, and has sent what can be sent.
        """
        other = self.other
        if self.gone:
            return True
        if other.aborted:
            return self.reset_seen
        if other.gone and self.queued > other.received:
            return self.reset_seen
        if self.finishing:
            return False
        if not self.reading or self.reset_seen:
            return True
        ended = other._end_after or other.finishing
        return self.received == other.queued and self.ended == ended

    def observation(self) -> Observation:
        if self.aborted:
            return ("aborted", self.wrong)
        if self.reset_seen:
            return ("reset", self.wrong)
        if self.gone:
            return ("gone", self.wrong)
        if not self.reading:
            return ("stalled", self.wrong)
        return ("ended" if self.ended else "open", self.received, self.wrong)


def _piece(number: int, start: int, size: int) -> bytes:
    """
    @return: what an end sends, from here on.
    """
    start = (start + number * 12_345) % len(_STREAM)
    piece = _STREAM[start : start + size]
    while len(piece) < size:
        piece += _STREAM[: size - len(piece)]
    return piece


async def play(script: Script, listening: socket.socket, port: int) -> list[Observation]:
    """
    @param listening: where the server is.
    @param port: where the client connects, to get there.
    @return: what both have observed after each round.
    """
    client = _End(0, port, script.buffers[0])
    ends = [client]
    observed: list[Observation] = []
    try:
        accepted: list[socket.socket] = []
        await until(lambda: _accept(listening, accepted), client, what="the server to be reached")
        server = _End(1, 0, script.buffers[1], accepted[0])
        ends.append(server)
        client.other, server.other = server, client

        def settled() -> bool:
            return client.settled and server.settled

        for acts in (*script.rounds, _last(ends)):
            for do in acts:
                if not ends[do.who].gone:
                    ends[do.who].do(do)
            try:
                await until(settled, *ends, within=_SETTLED_WITHIN)
                observed.append((client.observation(), server.observation()))
            except FailTest:
                state = [(each.queued, each.received, *each.observation()) for each in ends]
                observed.append(("not settled", *state))
                break
    finally:
        for each in ends:
            each.close()
    return observed


def _last(ends: list[_End]) -> tuple[Do, ...]:
    """
    @return: both read on, and end.
    """
    return tuple(Do(who, what) for what in ("resume", "end") for who in range(len(ends)))


def _accept(listening: socket.socket, accepted: list[socket.socket]) -> bool:
    try:
        accepted.append(listening.accept()[0])
    except BlockingIOError:
        return False
    return True

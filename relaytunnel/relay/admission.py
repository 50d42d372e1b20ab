"""
Who may connect to the port that agents dial, now.

Whoever comes there is a stranger until it shows a secret, or a ticket that
joins.  Strangers are counted, in all and by where they come from; the more of
them there are the more are turned away by chance, and a source of which
nothing good comes is not listened to for a while.

A source that an agent has come from is known, and for an hour after it was
last there.  It is never turned away for what else comes from it: other
machines may be behind the same address.  Its connections are counted apart, so
that no flood of strangers keeps an agent out, or a data channel.  What fails
there is only the further tries of agents that were never let in from it.

Pure state, a clock and a source of chance.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping

from relaytunnel.config.limits import Limits
from relaytunnel.sources import source_of

__all__ = ["Admission", "Newcomer"]

_TOLERANCE = 15.0
"""Seconds of penalty for which nobody is turned away: a person may err thrice."""
_KNOWN = 3600.0
"""Seconds that a source stays known for."""
_REMEMBERED = 65_536
"""Sources of each family that are remembered."""
_IN_PENALTY = "in penalty"
_PERHAPS_BY_CLIENTS = frozenset({"handshake failed", "no such ticket"})
"""
What an agent can be made to do by clients that go away while it dials.
"""


class _Memory:
    """
    Until when something is so, for as many sources as are remembered of each
    family.  What was noted longest ago is forgotten first.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._families: tuple[OrderedDict[str, float], ...] = (OrderedDict(), OrderedDict())

    def __len__(self) -> int:
        return sum(map(len, self._families))

    def left(self, key: str) -> float:
        """
        @return: for how many seconds it is still so; 0 if it is not.
        """
        family = self._families[":" in key]
        until = family.get(key)
        if until is None:
            return 0.0
        left = until - self._seconds()
        if left <= 0:
            del family[key]
            return 0.0
        return left

    def all_left(self) -> dict[str, float]:
        """
        @return: what is so now, and for how many seconds still.
        """
        now = self._seconds()
        return {
            key: until - now
            for family in self._families
            for key, until in family.items()
            if until > now
        }

    def keep(self, key: str, seconds: float) -> None:
        """
        It is so for as many seconds from now.
        """
        family = self._families[":" in key]
        family.pop(key, None)
        if seconds > 0:
            family[key] = self._seconds() + seconds
            if len(family) > _REMEMBERED:
                family.popitem(last=False)


class Newcomer:
    """
    A connection to the agents' port, from accept to its end.

    @ivar source: what it counts for.
    @ivar standing: what is known of its source when it L{tries}: C{known} if
        this agent has come from there, C{new} if nothing speaks against it,
        else C{charged}.
    """

    __slots__ = (
        "_admission",
        "_agent",
        "_charged",
        "_known",
        "_over",
        "_proved_as",
        "_turned_away",
        "_waits",
        "source",
        "standing",
    )

    def __init__(self, admission: Admission, source: str, known: bool) -> None:
        self._admission = admission
        self.source = source
        self._known = known
        self._waits = True
        self._proved_as: tuple[str, ...] = ()
        self._turned_away = self._over = False
        self._agent = self._charged = self.standing = ""

    def turn_away(self, reason: str) -> None:
        """
        It has shown nothing that would let it in.  The first reason counts.
        """
        if not self._turned_away:
            self._turned_away = True
            self._admission.turn_away(self.source, reason)

    def tries(self, agent: str) -> float:
        """
        It says that it is this agent, and its secret is to be checked: that
        costs what a failure would, until the answer is there, so that not many
        are checked at once for a source.

        @return: in how many seconds that may be, if not now.
        """
        wait = self._admission.wait_of(self.source, agent)
        self.standing = self._admission.standing(self.source, agent)
        if wait:
            self._turned_away = True
            self._admission.turned_away[_IN_PENALTY] += 1
        else:
            self._agent = agent
            self._charged = self._admission.charge_try(self.source)
        return wait

    def failed(self) -> None:
        """
        The secret was wrong.
        """
        self._agent = self._charged = ""
        self._turned_away = True
        self._admission.turned_away["authentication failed"] += 1

    def gave_up(self) -> None:
        """
        It left before its secret was checked: that costs as much as a wrong
        one.
        """
        self._agent = self._charged = ""
        self._turned_away = True
        self._admission.turned_away["gave up"] += 1

    def unanswered(self) -> None:
        """
        Nobody knows whether the secret was right.
        """
        if self._charged:
            self._admission.give_back(self._charged)
            self._charged = ""

    def proved(self) -> None:
        """
        The secret was right, or the ticket joins.  It counts no more, and its
        source is known.
        """
        self.unanswered()
        self._settle()
        if not self._proved_as:
            self._proved_as = self._admission.came(self.source, self._agent)
            if self._over:  # it left while its secret was checked
                self._admission.went(self._proved_as)

    def gone(self) -> None:
        """
        The connection is over, or of no interest any more.
        """
        self._settle()
        if not self._over:
            self._over = True
            self._admission.went(self._proved_as)

    def _settle(self) -> None:
        if self._waits:
            self._waits = False
            self._admission.settle(self.source, self._known)


class Admission:
    """
    All who come to the agents' port.

    @ivar turned_away: how many connections were refused, by reason.
    """

    def __init__(
        self,
        limits: Limits,
        seconds: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        """
        @param seconds: a clock that nobody sets.
        @param chance: a number from 0 to 1, 1 excluded.
        """
        self.limits = limits
        self._chance = chance
        self.turned_away: Counter[str] = Counter()
        self._by_source: Counter[str] = Counter()
        self._present: Counter[str] = Counter()
        self._waiting = {False: 0, True: 0}
        self._penalties = _Memory(seconds)
        self._known = _Memory(seconds)

    @property
    def unauthenticated(self) -> int:
        """How many have shown nothing yet."""
        return sum(self._waiting.values())

    def knows(self, source: str, agent: str = "") -> bool:
        """
        @return: whether this agent, or any, is there or was not long ago.
        """
        key = _agent_at(agent, source) if agent else source
        return key in self._present or self._known.left(key) > 0

    def known(self) -> dict[str, float]:
        """
        @return: the sources, and the agents at them, that are known, each with
            the seconds that it stays so if nobody comes from there any more.
        """
        return self._known.all_left() | dict.fromkeys(self._present, _KNOWN)

    def remember(self, known: Mapping[str, float]) -> None:
        """
        Know what another process has known.
        """
        for key, seconds in known.items():
            self._known.keep(key, min(seconds, _KNOWN))

    def admit(self, host: str) -> Newcomer | None:
        """
        Somebody has connected.

        @param host: its address.
        @return: C{None} if it is to be hung up on.
        """
        source = source_of(host, self.limits.ipv6_prefix)
        known = self.knows(source)
        reason = self._refusal(source, known)
        if reason:
            self.turned_away[reason] += 1
            return None
        self._by_source[source] += 1
        self._waiting[known] += 1
        return Newcomer(self, source, known)

    def _refusal(self, source: str, known: bool) -> str:
        """
        @return: why somebody from there is not let in now; nothing if it is.
        """
        limits = self.limits
        penalized = self._penalties.left(source) > _TOLERANCE
        if penalized and not known:
            return _IN_PENALTY
        # Many clients at once make an agent dial many data channels at once.
        # A source that only keeps them open has a stranger's share again: it
        # must not have everybody's.
        whole = known and not penalized
        most, waiting = limits.unauthenticated, self._waiting[known]
        share = most if whole else limits.unauthenticated_per_source
        if waiting >= most:
            return "too many unauthenticated"
        if self._by_source[source] >= share:
            return "too many unauthenticated from one source"
        if not known and waiting > limits.unauthenticated_early:
            spared = most - limits.unauthenticated_early
            if self._chance() * spared < waiting - limits.unauthenticated_early:
                return "dropped early"
        return ""

    # What becomes of newcomers

    def turn_away(self, source: str, reason: str) -> None:
        """
        One from there is turned away for this reason, which costs its source.
        """
        self.turned_away[reason] += 1
        if not (reason in _PERHAPS_BY_CLIENTS and self.knows(source)):
            self._charge(source, self.limits.penalty_none)

    def wait_of(self, source: str, agent: str) -> float:
        """
        @return: in how many seconds an agent's secret may be checked that comes
            from there; 0 if it may now.
        """
        if self.knows(source, agent):
            return 0.0
        penalty = max(map(self._penalties.left, (source, _strangers_at(source))))
        return max(0.0, penalty - _TOLERANCE)

    def standing(self, source: str, agent: str) -> str:
        """
        @return: the class of an agent's source: see L{Newcomer.standing}.
        """
        if self.knows(source, agent):
            return "known"
        charged = max(map(self._penalties.left, (source, _strangers_at(source))))
        return "charged" if charged else "new"

    def charge_try(self, source: str) -> str:
        """
        Charge an authentication.

        @return: what it was charged to.
        """
        key = _strangers_at(source) if self.knows(source) else source
        self._charge(key, self.limits.penalty_auth)
        return key

    def give_back(self, key: str) -> None:
        """
        An authentication that was charged did not fail.
        """
        self._charge(key, -self.limits.penalty_auth)

    def _charge(self, key: str, cost: float) -> None:
        sum_of_all = self._penalties.left(key) + cost
        self._penalties.keep(key, min(self.limits.penalty_most, sum_of_all))

    def came(self, source: str, agent: str) -> tuple[str, ...]:
        """
        One from there has proved who it is.

        @param agent: which agent it is, if it showed the secret of one.
        @return: what is known by that.
        """
        keys = (source, _agent_at(agent, source)) if agent else (source,)
        self._present.update(keys)
        return keys

    def went(self, keys: tuple[str, ...]) -> None:
        """
        One by which this was known is gone.
        """
        for key in keys:
            _take_one(self._present, key)
            self._known.keep(key, _KNOWN)

    def settle(self, source: str, known: bool) -> None:
        """
        One from there counts no more.
        """
        self._waiting[known] -= 1
        _take_one(self._by_source, source)


def _agent_at(agent: str, source: str) -> str:
    return f"{agent} at {source}"


def _strangers_at(source: str) -> str:
    """
    What failed authentications count for at a source that is known.
    """
    return f"strangers at {source}"


def _take_one(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]

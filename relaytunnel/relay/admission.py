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

The data channels that agents were asked to dial are expected from their
sources.  For them there is room already, which their clients have; beside them
a known source has a share of what is for known ones.

Pure state, a clock and a source of chance.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping

from relaytunnel.config.limits import Limits
from relaytunnel.pools import Pool
from relaytunnel.sources import source_of

__all__ = ["Admission", "Newcomer"]

_TOLERANCE = 15.0
"""Seconds of penalty for which nobody is turned away: a person may err thrice."""
_KNOWN = 3600.0
"""Seconds that a source stays known for."""
_REMEMBERED = 65_536
"""Sources of each family that are remembered."""
_IN_PENALTY = "in penalty"
_PERHAPS_BY_CLIENTS = frozenset({"handshake failed", "no such ticket", "nothing shown"})
"""
What an agent can be made to do by clients that go away while it dials: once for
each that it was notified of.
"""
_EXCUSED_FOR = 30.0
"""Seconds after a notification in which its data channel may come to nothing."""
_MOST_EXCUSES = 1024
"""Notifications of one source for which that is remembered."""


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


class _Excuses:
    """
    The notifications of late, by the source of the agent that got them.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._until: dict[str, deque[float]] = {}

    def add(self, source: str) -> None:
        """
        An agent there was notified of a client.
        """
        line = self._until.get(source)
        if line is None:
            line = self._until[source] = deque(maxlen=_MOST_EXCUSES)
        line.append(self._seconds() + _EXCUSED_FOR)

    def take(self, source: str) -> bool:
        """
        @return: whether there is one left, which is used up then.
        """
        line = self._until.get(source)
        if line is None:
            return False
        now = self._seconds()
        while line and line[0] <= now:
            line.popleft()
        taken = bool(line)
        if taken:
            line.popleft()
        if not line:
            del self._until[source]
        return taken


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
        "_over",
        "_pool",
        "_proved_as",
        "_turned_away",
        "_waits",
        "source",
        "standing",
    )

    def __init__(self, admission: Admission, source: str, pool: Pool) -> None:
        self._admission = admission
        self.source = source
        self._pool = pool
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

    def notified(self) -> None:
        """
        The agent whose control channel this is was asked for a data channel.
        """
        self._admission.excuses.add(self.source)

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
        if not self._agent:
            self._admission.excuses.take(self.source)
        self.unanswered()
        self._settle()
        if not self._proved_as:
            self._proved_as = self._admission.came(self.source, self._agent)
            if self._over:  # it left while its secret was checked
                self._admission.went(self.source, self._proved_as)

    def gone(self) -> None:
        """
        The connection is over, or of no interest any more.
        """
        if self._waits and not self._agent:
            self.turn_away("nothing shown")
        self._settle()
        if not self._over:
            self._over = True
            self._admission.went(self.source, self._proved_as)

    def _settle(self) -> None:
        if self._waits:
            self._waits = False
            self._pool.give_back(self.source)


class Admission:
    """
    All who come to the agents' port.

    @ivar turned_away: how many connections were refused, by reason.
    @ivar excuses: for data channels that come to nothing.
    """

    def __init__(
        self,
        limits: Limits,
        seconds: Callable[[], float],
        chance: Callable[[], float],
        notified: Callable[[str], int] = lambda agent: 0,
    ) -> None:
        """
        @param seconds: a clock that nobody sets.
        @param chance: a number from 0 to 1, 1 excluded.
        @param notified: says of how many clients an agent was notified whose
            data channels have not come.
        """
        self._chance = chance
        self._notified = notified
        self.turned_away: Counter[str] = Counter()
        self.excuses = _Excuses(seconds)
        self._present: Counter[str] = Counter()
        self._agents: dict[str, Counter[str]] = {}
        self._strangers, self._acquainted, self._expected = Pool(0), Pool(0), Pool(0)
        self.use(limits)
        self._penalties = _Memory(seconds)
        self._known = _Memory(seconds)

    @property
    def unauthenticated(self) -> int:
        """How many have shown nothing yet."""
        return self._strangers.taken + self._acquainted.taken + self._expected.taken

    def use(self, limits: Limits) -> None:
        """
        These are the limits from now on.
        """
        self.limits = limits
        self._strangers.most = self._acquainted.most = limits.unauthenticated
        self._strangers.most_of_source = limits.unauthenticated_per_source

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
        pool = self._acquainted if known else self._strangers
        reason = self._refusal(source, pool)
        if reason and known and self._expected.of(source) < self._expected_of(source):
            pool, reason = self._expected, ""
        if reason:
            self.turned_away[reason] += 1
            return None
        pool.take(source)
        return Newcomer(self, source, pool)

    def _expected_of(self, source: str) -> int:
        """
        @return: how many data channels agents there were asked to dial, and
            have not shown the tickets of.
        """
        return sum(map(self._notified, self._agents.get(source, ())))

    def _refusal(self, source: str, pool: Pool) -> str:
        """
        @return: why somebody from there is not let in now; nothing if it is.
        """
        limits = self.limits
        known = pool is self._acquainted
        penalized = self._penalties.left(source) > _TOLERANCE
        if penalized and not known:
            return _IN_PENALTY
        if pool.is_full():
            return "too many unauthenticated"
        # A source that only keeps them open has a stranger's share again.
        share = limits.unauthenticated_per_source
        if not pool.has_room(source) or (penalized and pool.of(source) >= share):
            return "too many unauthenticated from one source"
        early = limits.unauthenticated_early
        if not known and pool.taken > early:
            spared = pool.most - early
            if self._chance() * spared < pool.taken - early:
                return "dropped early"
        return ""

    # What becomes of newcomers

    def turn_away(self, source: str, reason: str) -> None:
        """
        One from there is turned away for this reason, which costs its source.
        """
        self.turned_away[reason] += 1
        if not (reason in _PERHAPS_BY_CLIENTS and self.excuses.take(source)):
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
        if agent:
            self._agents.setdefault(source, Counter())[agent] += 1
        return keys

    def went(self, source: str, keys: tuple[str, ...]) -> None:
        """
        One from there by which this was known is gone.
        """
        for key in keys[1:]:
            agents = self._agents[source]
            _take_one(agents, _agent_of(key, source))
            if not agents:
                del self._agents[source]
        for key in keys:
            _take_one(self._present, key)
            self._known.keep(key, _KNOWN)


def _agent_at(agent: str, source: str) -> str:
    return f"{agent} at {source}"


def _agent_of(key: str, source: str) -> str:
    return key.removesuffix(_agent_at("", source))


def _strangers_at(source: str) -> str:
    """
    What failed authentications count for at a source that is known.
    """
    return f"strangers at {source}"


def _take_one(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]

"""
What the descriptors that a process may have are for.

Each kind of connection has a part of them, so that no flood of one kind takes
those of another; within its kind a source has a share (L{relaytunnel.pools}).
A limit of the configuration that the descriptors are not enough for is cut to
its part.  Pure figures: how many descriptors there are is for others to know.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from msgspec.structs import replace

from twisted.logger import Logger

from relaytunnel.config.limits import LIMIT_KEYS, Limits

__all__ = ["PART_OF_SOURCE", "AgentBudgets", "Budget", "Budgets", "RelayBudgets", "say_cut"]

_log = Logger()

PART_OF_SOURCE = 0.6
"""As much of all sessions of a relay one source may have."""

_UNBOUNDED = 1 << 30
"""Stands for the number of descriptors where there may be any."""
_UNUSED = 10
"""One of so many is left over: accepting stops before the last is gone."""
_KEPT_BY_RELAY = 256
_KEPT_BY_AGENT = 64
"""
Descriptors that are for no pool: ports, control channels, accounts, logs, the
admin interface.  A quarter where there are few, and some more where there are
very many.
"""
_KEPT_OF_MANY = 64
_PARTS = 16
_PARTS_OF_CLIENTS = 11
_PARTS_OF_SESSIONS = 14
_ADMIN = 32


class Budget(NamedTuple):
    """
    How many there may be of something.

    @ivar most: how many.
    @ivar origin: what says so.
    """

    most: int
    origin: str


class Budgets:
    """
    What is left for the pools of a process, and how it is shared out.

    @ivar limits: those of the configuration, cut to what there is.
    @ivar cut: the keys of those that were.
    """

    limits: Limits

    def __init__(self, limits: Limits, descriptors: int | None, kept: int) -> None:
        """
        @param descriptors: how many the process may have; C{None} for any number.
        @param kept: how many are for no pool.
        """
        self.descriptors = descriptors
        self._configured = limits
        every = _UNBOUNDED if descriptors is None else descriptors
        kept = min(kept, every // 4) + every // _KEPT_OF_MANY
        self._shared = max(_PARTS, every - every // _UNUSED - kept)

    def _part(self, parts: int = 1, each: int = 1) -> Budget:
        """
        @param each: how many descriptors each of them has.
        """
        most = self._shared * parts // (_PARTS * each)
        if self.descriptors is None:
            return Budget(most, "any number of descriptors")
        of = f"{parts}/{_PARTS} of {self._shared} descriptors"
        return Budget(max(1, most), of if each == 1 else f"{of}, {each} each")

    def _limit(self, name: str) -> Budget:
        return Budget(getattr(self._configured, name), f"[limits] {_KEYS[name]}")

    @property
    def cut(self) -> list[str]:
        """
        The limits that the descriptors are not enough for: their keys, what
        they are configured as and what they are.
        """
        return [
            f"{key} = {getattr(self.limits, name)} in place of {getattr(self._configured, name)}"
            for key, name in LIMIT_KEYS.items()
            if 0 < getattr(self.limits, name) < getattr(self._configured, name)
        ]

    def rows(self) -> list[tuple[str, Budget]]:
        """
        @return: what each is for, for a person, and the budget.
        """
        raise NotImplementedError


def say_cut(budgets: Budgets) -> None:
    """
    Have the log say what there are too few descriptors for.
    """
    if budgets.cut:
        _log.warn(
            "{descriptors} descriptors are not enough for the limits, so these are less: {cut};"
            " allow more with ulimit -n or LimitNOFILE",
            descriptors=budgets.descriptors,
            cut=", ".join(budgets.cut),
        )


_KEYS = {name: key for key, name in LIMIT_KEYS.items()}


def _least(budgets: Iterable[Budget]) -> Budget:
    return min(budgets, key=lambda budget: budget.most)


class RelayBudgets(Budgets):
    """
    The budgets of a relay.

    @ivar clients: the descriptors of clients: one of each that arrives, two of
        each that waits or is served.
    @ivar sessions: clients that wait or are served.
    @ivar arriving_of_source: clients of one source that arrive.
    @ivar lingering: clients that were told why they are not served.
    @ivar unauthenticated: connections to the agents' port of which nothing is
        known; as many again for sources that are known.
    @ivar idle: data channels without a session.
    @ivar pipes: descriptors of pipes for C{splice(2)}.
    @ivar admin: connections to the admin interface.
    """

    def __init__(self, limits: Limits, descriptors: int | None) -> None:
        super().__init__(limits, descriptors, _KEPT_BY_RELAY)
        self.clients = self._part(_PARTS_OF_CLIENTS)
        sessions = [self._part(_PARTS_OF_CLIENTS, 2)]
        if limits.sessions_per_relay:
            sessions.append(self._limit("sessions_per_relay"))
        self.sessions = _least(sessions)
        self.sessions_of_source = _least(
            [
                self._limit("sessions_per_client"),
                Budget(
                    int(self.sessions.most * PART_OF_SOURCE) or 1,
                    f"{PART_OF_SOURCE:.0%} of {self.sessions.most}",
                ),
            ]
        )
        self.arriving_of_source = _least(
            [self._limit("arriving_per_client"), _share(self.clients)]
        )
        self.lingering = self._part()
        self.unauthenticated = _least([self._limit("unauthenticated"), self._part()])
        self.unauthenticated_of_source = _least(
            [self._limit("unauthenticated_per_source"), _share(self.unauthenticated)]
        )
        self.idle = self._part()
        self.pipes = self._part()
        kept = _UNBOUNDED if descriptors is None else max(1, descriptors // 32)
        self.admin = _least(
            [
                Budget(_ADMIN, "wherever there are enough"),
                Budget(kept, f"1/32 of {descriptors} descriptors"),
            ]
        )
        most = self.unauthenticated.most
        early = limits.unauthenticated_early * most // limits.unauthenticated
        self.limits = replace(
            limits,
            unauthenticated=most,
            unauthenticated_early=max(1, early),
            sessions_per_relay=min(self.sessions.most, 1_000_000),
        )

    def rows(self) -> list[tuple[str, Budget]]:
        """
        @return: what each is for, for a person, and the budget.
        """
        return [
            ("descriptors of clients, 1 arriving, 2 waiting or running", self.clients),
            ("sessions, waiting or running", self.sessions),
            ("sessions of one source", self.sessions_of_source),
            ("clients arriving, of one source", self.arriving_of_source),
            ("refused clients lingering", self.lingering),
            ("unauthenticated connections to the agents' port", self.unauthenticated),
            (
                "unauthenticated connections of one source that is not known",
                self.unauthenticated_of_source,
            ),
            (
                "unauthenticated connections of known sources, beside expected ones",
                self.unauthenticated,
            ),
            (
                "unauthenticated connections of one known source, beside expected ones",
                _share(self.unauthenticated),
            ),
            ("data channels parked or closing", self.idle),
            ("data channels parked or closing, of one source", _share(self.idle)),
            ("descriptors of pipes", self.pipes),
            ("connections to the admin interface", self.admin),
        ]


class AgentBudgets(Budgets):
    """
    The budgets of an agent.

    @ivar sessions: clients that are served, or about to be.
    @ivar parked: data channels without a session.
    @ivar pipes: descriptors of pipes for C{splice(2)}.
    """

    def __init__(self, limits: Limits, descriptors: int | None) -> None:
        super().__init__(limits, descriptors, _KEPT_BY_AGENT)
        self.sessions = _least(
            [self._part(_PARTS_OF_SESSIONS, 2), self._limit("sessions_per_agent")]
        )
        self.parked = self._part()
        self.pipes = self._part()
        self.limits = replace(limits, sessions_per_agent=self.sessions.most)

    def rows(self) -> list[tuple[str, Budget]]:
        """
        @return: what each is for, for a person, and the budget.
        """
        return [
            ("sessions", self.sessions),
            ("sessions of one source", _share(self.sessions)),
            ("data channels parked or closing", self.parked),
            ("descriptors of pipes", self.pipes),
        ]


def _share(whole: Budget) -> Budget:
    """
    @return: what one source gets of a pool that nobody else is in.
    """
    return Budget((2 * whole.most + 2) // 3, f"two thirds of {whole.most}")

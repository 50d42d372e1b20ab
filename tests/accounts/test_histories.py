"""
Accounts under anything that may happen to them, in any order and by several
programs, beside a model of them that is too simple to be wrong.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.accounts import AccountStore, Rights
from relaytunnel.accounts.store import OLD_SECRET_LIFE
from relaytunnel.errors import AccountError

AGENTS = ("office", "home")

agents = st.sampled_from(AGENTS)
stores = st.integers(0, 1)


class AccountsModel(RuleBasedStateMachine):
    """
    Two programs that have the same database open.

    @ivar old: of each agent in rotation, the secret that it may still come
        with, and until when.
    @ivar new: of each agent the newest secret.
    @ivar given: every secret that was ever given to each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp()
        self.clock = Clock()
        path = Path(self.directory) / "accounts.db"
        self.stores = [AccountStore(path, clock=self.clock.seconds) for _ in range(2)]
        self.old: dict[str, tuple[str, float]] = {}
        self.new: dict[str, str] = {}
        self.given: dict[str, list[str]] = {agent: [] for agent in AGENTS}
        self.revision = 0

    def teardown(self) -> None:
        """
        Nothing stays behind.
        """
        for store in self.stores:
            store.close()
        shutil.rmtree(self.directory)

    def _expire(self, agent: str) -> None:
        if agent in self.old and self.clock.seconds() >= self.old[agent][1]:
            del self.old[agent]

    @rule(agent=agents, store=stores)
    def invite(self, agent: str, store: int) -> None:
        """
        An agent is invited, which is done once.
        """
        try:
            secret = self.stores[store].invite(agent)
        except AccountError:
            assert agent in self.new
            return
        assert agent not in self.new
        self._given(agent, secret)

    @rule(agent=agents, store=stores)
    def rotate(self, agent: str, store: int) -> None:
        """
        The secret of an agent is rotated, if it is there.
        """
        try:
            secret = self.stores[store].rotate(agent)
        except AccountError:
            assert agent not in self.new
            return
        self._expire(agent)
        if agent not in self.old:
            self.old[agent] = (self.new[agent], self.clock.seconds() + OLD_SECRET_LIFE)
        self._given(agent, secret)

    def _given(self, agent: str, secret: str) -> None:
        assert all(secret not in given for given in self.given.values())
        self.given[agent].append(secret)
        self.new[agent] = secret

    @rule(agent=agents, store=stores, host=st.sampled_from(["a.example", "b.example"]))
    def change_rights(self, agent: str, store: int, host: str) -> None:
        """
        An agent is given a right, or it is taken from it, which no secret
        hears of.
        """
        had = self.stores[store].rights(agent)
        right = Rights(hosts=(host,))
        if had is None:
            return
        if had.may_claim(host):
            now = self.stores[store].deny(agent, right)
        else:
            now = self.stores[store].grant(agent, right)
        assert now.may_claim(host) != had.may_claim(host)
        assert self.stores[1 - store].rights(agent) == now

    @rule(agent=agents, store=stores)
    def revoke(self, agent: str, store: int) -> None:
        """
        An agent is revoked, whether it is known or not.
        """
        assert self.stores[store].revoke(agent) == (agent in self.new)
        self.new.pop(agent, None)
        self.old.pop(agent, None)

    @rule(agent=agents, owner=agents, store=stores, back=st.integers(1, 4))
    def come(self, agent: str, owner: str, store: int, back: int) -> None:
        """
        An agent comes with one of the last secrets that it, or another one,
        was ever given.
        """
        secret = self.given[owner][-back:][0] if self.given[owner] else "guessed"
        self._expire(agent)
        newest = secret == self.new.get(agent)
        old = agent in self.old and secret == self.old[agent][0]
        account = self.stores[store].authenticate(agent, secret)
        assert (account is not None) == (newest or old)
        if newest:
            self.old.pop(agent, None)

    @rule(seconds=st.sampled_from([1.0, OLD_SECRET_LIFE / 2, OLD_SECRET_LIFE]))
    def pass_time(self, seconds: float) -> None:
        """
        Time goes by.
        """
        self.clock.advance(seconds)

    @invariant()
    def everybody_sees_the_same(self) -> None:
        """
        All programs see the accounts that there are, and each change.
        """
        for store in self.stores:
            assert {account.agent for account in store.agents()} == set(self.new)
        first, second = (store.revision() for store in self.stores)
        assert first == second >= self.revision
        self.revision = first


class HistoryTests(SynchronousTestCase):
    """
    Any history of accounts.
    """

    def test_any_history(self) -> None:
        """
        Whatever happens, in whatever order, a secret lets in exactly as long
        as it should: the newest until it is replaced or revoked, the one before
        until the newest was used, a day at most.
        """
        run_state_machine_as_test(
            AccountsModel,
            settings=settings(deadline=None, max_examples=30, stateful_step_count=30),
        )

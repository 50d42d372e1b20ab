"""
The accounts in a database, for callers that may wait: the command line, and
the threads of L{relaytunnel.accounts.database}.

Questions and changes stand here; the tables are in C{schema}, and what the
answers mean is in L{IAccounts<relaytunnel.accounts.model.IAccounts>}, whose
methods these are without the Deferreds.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, or_, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from relaytunnel.accounts import schema
from relaytunnel.accounts.model import Account, Rights, agent_fault
from relaytunnel.accounts.schema import AGENTS, SECRETS
from relaytunnel.accounts.secrets import NOBODY, hash_generated, new_secret, verify
from relaytunnel.accounts.sqlite import WRITES, explained
from relaytunnel.errors import AccountError

__all__ = ["BUSY_TIMEOUT", "OLD_SECRET_LIFE", "AccountStore"]

BUSY_TIMEOUT = 5000
"""How long to wait for other processes, in milliseconds."""

OLD_SECRET_LIFE = 24 * 3600.0
"""How long a rotated secret may stay valid, in seconds."""

_VALID_AT_ONCE = 2
_ALL_AGENTS = select(AGENTS).order_by(AGENTS.c.id)


class AccountStore:
    """
    Accounts in a database.  Every method may block, for the busy timeout at
    worst, may be called in any thread, and raises L{AccountError}.

    @ivar name: what the database is called in messages.
    @ivar upgraded: whether its tables were of an older version.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        busy_timeout: int = BUSY_TIMEOUT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Open the database, and make it if it is not there.

        Not before a fork: connections do not survive one.

        @param url: the path of an SQLite file, or a URL of SQLAlchemy.
        @param busy_timeout: how long to wait for other processes, in milliseconds.
        @param clock: the time, in seconds since the epoch.
        @raise AccountError: if it cannot be opened, or is not ours.
        """
        where = schema.database_url(url)
        self.name = schema.database_name(where)
        self._busy_timeout = busy_timeout
        self._clock = clock
        self._engine = schema.new_engine(where, busy_timeout)
        self._writing = self._engine.execution_options(**{WRITES: True})
        try:
            with self._explaining():
                self.upgraded = schema.ensure_tables(self._engine, self.name)
        except AccountError:
            self._engine.dispose()
            raise

    def authenticate(self, agent: str, secret: str) -> Account | None:
        """
        See L{IAccounts.authenticate}.
        """
        account, hits, others = self._matching(agent, secret)
        if account is None or not hits:
            return None
        if hits[0].expires is None and others:
            return account if self._retire(agent, hits[0].hash) else None
        return account

    def knows(self, agent: str, secret: str) -> bool:
        """
        Whether this is a valid secret of the agent; to ask is not to use it.
        """
        account, hits, _ = self._matching(agent, secret)
        return account is not None and bool(hits)

    def _matching(self, agent: str, secret: str) -> tuple[Account | None, list[Any], bool]:
        """
        @return: the account; those of its secrets that this is; whether there
            are others that are valid.
        """
        if agent_fault(agent) is not None:
            agent = ""
        with self._reading() as connection:
            account = _find(connection, agent)
            valid = connection.execute(
                select(SECRETS.c.hash, SECRETS.c.expires).where(
                    SECRETS.c.agent == agent,
                    or_(SECRETS.c.expires.is_(None), SECRETS.c.expires > self._clock()),
                )
            ).all()
        # As many checks for an agent that does not exist as for one in rotation.
        hits = [row for row in valid if verify(secret, row.hash)]
        for _ in range(_VALID_AT_ONCE - len(valid)):
            verify(secret, NOBODY)
        return account, hits, len(valid) > 1

    def rights(self, agent: str) -> Rights | None:
        """
        See L{IAccounts.rights}.
        """
        with self._reading() as connection:
            account = _find(connection, agent)
        return None if account is None else account.rights

    def invite(
        self,
        agent: str,
        publish: Sequence[str] = (),
        ports: Sequence[tuple[int, int]] = (),
        hosts: Sequence[str] = (),
    ) -> str:
        """
        See L{IAccounts.invite}.

        @raise AccountError: also for a name, a pattern or a range that is none.
        """
        fault = agent_fault(agent)
        if fault is not None:
            raise AccountError(fault)
        rights = Rights(
            tuple(publish), tuple((first, last) for first, last in ports), tuple(hosts)
        )
        now = self._clock()
        with self._changing() as connection:
            schema.count_change(connection)
            if _find(connection, agent) is not None:
                raise AccountError(
                    f"the agent {agent} is invited already: 'rotate' makes a new secret for it,"
                    " 'grant' and 'deny' change what it may"
                )
            connection.execute(insert(AGENTS).values(id=agent, created=now, **_columns(rights)))
            return _add_secret(connection, agent, now)

    def rotate(self, agent: str) -> str:
        """
        See L{IAccounts.rotate}.
        """
        now = self._clock()
        with self._changing() as connection:
            schema.count_change(connection)
            _existing(connection, agent)
            _make_place(connection, agent, now)
            return _add_secret(connection, agent, now)

    def grant(self, agent: str, rights: Rights) -> Rights:
        """
        See L{IAccounts.grant}.
        """
        return self._change_rights(agent, lambda had: had.with_more(rights))

    def deny(self, agent: str, rights: Rights) -> Rights:
        """
        See L{IAccounts.deny}.
        """
        return self._change_rights(agent, lambda had: had.without(rights))

    def _change_rights(self, agent: str, change: Callable[[Rights], Rights]) -> Rights:
        with self._changing() as connection:
            schema.count_change(connection)
            rights = change(_existing(connection, agent).rights)
            connection.execute(
                update(AGENTS).where(AGENTS.c.id == agent).values(**_columns(rights))
            )
        return rights

    def revoke(self, agent: str) -> bool:
        """
        See L{IAccounts.revoke}.
        """
        with self._changing() as connection:
            connection.execute(delete(SECRETS).where(SECRETS.c.agent == agent))
            gone = connection.execute(delete(AGENTS).where(AGENTS.c.id == agent)).rowcount > 0
            if gone:
                schema.count_change(connection)
        return gone

    def agents(self) -> list[Account]:
        """
        See L{IAccounts.agents}.
        """
        with self._reading() as connection:
            return [_account(row) for row in connection.execute(_ALL_AGENTS).all()]

    def seen(self, agent: str, when: float) -> None:
        """
        See L{IAccounts.seen}.
        """
        with self._changing() as connection:
            connection.execute(update(AGENTS).where(AGENTS.c.id == agent).values(last_seen=when))

    def revision(self) -> int:
        """
        See L{IAccounts.revision}.
        """
        with self._reading() as connection:
            return schema.read_revision(connection)

    def close(self) -> None:
        """
        Close all connections; nothing else may be running or come after.
        """
        self._engine.dispose()

    def _retire(self, agent: str, used: str) -> bool:
        """
        The newest secret was used: end the one before it.

        @param used: the stored form of the newest.
        @return: L{False} if it was revoked or rotated away meanwhile.
        """
        with self._changing() as connection:
            mine = select(SECRETS.c.id).where(SECRETS.c.agent == agent, SECRETS.c.hash == used)
            if connection.execute(mine.with_for_update()).first() is None:
                return False
            connection.execute(
                delete(SECRETS).where(SECRETS.c.agent == agent, SECRETS.c.expires.is_not(None))
            )
        return True

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._explaining(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        with self._explaining(), self._writing.begin() as connection:
            yield connection

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            cause = error if error.orig is None else error.orig
            raise explained(cause, self.name, self._busy_timeout) from error
        except (SQLAlchemyError, UnicodeError) as error:
            # UnicodeError: a name from the command line that is not text.
            raise AccountError(
                f"the accounts database {self.name} cannot be used: {error}"
            ) from error


def _columns(rights: Rights) -> dict[str, str]:
    return {
        "publish": json.dumps(rights.publish),
        "ports": json.dumps(rights.ports),
        "hosts": json.dumps(rights.hosts),
    }


def _add_secret(connection: Connection, agent: str, now: float) -> str:
    secret = new_secret()
    connection.execute(
        insert(SECRETS).values(agent=agent, hash=hash_generated(secret), created=now)
    )
    return secret


def _make_place(connection: Connection, agent: str, now: float) -> None:
    """
    Leave at most one secret of this agent, and let it expire.

    If there are two, the newer one was never used, for its use would have
    ended the older: it goes, and the older, which a running agent may need to
    come back, stays for the time that it was given first.
    """
    its = SECRETS.c.agent == agent
    connection.execute(delete(SECRETS).where(its, SECRETS.c.expires <= now))
    rotated = select(SECRETS.c.id).where(its, SECRETS.c.expires.is_not(None))
    if connection.execute(rotated).first() is not None:
        connection.execute(delete(SECRETS).where(its, SECRETS.c.expires.is_(None)))
    else:
        connection.execute(update(SECRETS).where(its).values(expires=now + OLD_SECRET_LIFE))


def _find(connection: Connection, agent: str) -> Account | None:
    row = connection.execute(select(AGENTS).where(AGENTS.c.id == agent)).one_or_none()
    return None if row is None else _account(row)


def _existing(connection: Connection, agent: str) -> Account:
    """
    @raise AccountError: there is no such account.
    """
    account = _find(connection, agent)
    if account is None:
        raise AccountError(
            f"there is no agent {agent} in the accounts database; 'invite' makes it"
        )
    return account


def _account(row: Row[Any]) -> Account:
    try:
        rights = Rights(
            _patterns(row.publish),
            tuple((int(first), int(last)) for first, last in json.loads(row.ports)),
            _patterns(row.hosts or "[]"),
        )
    except (TypeError, ValueError, AccountError) as error:
        raise AccountError(
            f"the rights of agent {row.id} in the accounts database cannot be read: "
            "revoke it, and invite it again with the rights it shall have"
        ) from error
    return Account(row.id, rights, row.last_seen, row.created, "database")


def _patterns(text: str) -> tuple[str, ...]:
    patterns = json.loads(text)
    if not isinstance(patterns, list) or not all(isinstance(one, str) for one in patterns):
        raise ValueError("no list of patterns")
    return tuple(patterns)

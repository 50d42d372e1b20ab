"""
The tables of the accounts database, and opening one.

Plain SQL that any database of SQLAlchemy understands: what SQLite needs
besides is in C{sqlite}.  Nothing here knows what an account is good for.
"""

from __future__ import annotations

import os

from sqlalchemy import (
    DDL,
    Column,
    Connection,
    Double,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from relaytunnel.accounts.sqlite import WRITES, prepare_engine, prepare_file
from relaytunnel.errors import AccountError

__all__ = [
    "AGENTS",
    "FIRST_AGENT",
    "SCHEMA_VERSION",
    "SECRETS",
    "count_change",
    "database_name",
    "database_url",
    "ensure_tables",
    "new_engine",
    "read_revision",
]

SCHEMA_VERSION = 2

FIRST_AGENT = "first"
"""The agent that a new relay invites by itself; it may publish anything."""

_EVERYTHING = '["*"]'

_METADATA = MetaData()

AGENTS = Table(
    "agents",
    _METADATA,
    Column("id", String(255), primary_key=True),
    Column("publish", Text, nullable=False),
    Column("ports", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("last_seen", Double),
    # Since version 2.  NULL stands for none: so a process of the version before,
    # from which another takes over, can go on.
    Column("hosts", Text),
)

# The newest secret of an agent has no expiry; the one before it has.
SECRETS = Table(
    "secrets",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column(
        "agent",
        String(255),
        ForeignKey("agents.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("hash", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double),
)

_META = Table(
    "meta",
    _METADATA,
    Column("key", String(64), primary_key=True),
    Column("value", Integer, nullable=False),
)

_VERSION_KEY = "schema"
_REVISION_KEY = "revision"


def database_url(url_or_path: str | os.PathLike[str]) -> URL:
    """
    Read a URL of SQLAlchemy; anything without C{://} is the path of an SQLite file.

    @raise AccountError: if it is not a URL.
    """
    text = os.fspath(url_or_path)
    if "://" not in text:
        return URL.create("sqlite", database=text)
    try:
        return make_url(text)
    except SQLAlchemyError as error:
        # Not what it said: a password may stand in it.
        raise AccountError("the accounts database is not given as a path or a URL") from error


def database_name(url: URL) -> str:
    """
    What to call this database in messages: its path, or its URL without password.
    """
    if url.get_backend_name() == "sqlite":
        return url.database or ":memory:"
    return url.render_as_string(hide_password=True)


def new_engine(url: URL, busy_timeout: int) -> Engine:
    """
    Prepare for connections to this database.

    @param busy_timeout: how long to wait for other processes, in milliseconds.
    @raise AccountError: if there is no driver, or no such file can be had.
    """
    try:
        sqlite = url.get_backend_name() == "sqlite"
        if sqlite:
            prepare_file(url.database or "", busy_timeout)
        # Parameters are hashes of secrets: not for error messages.
        engine = create_engine(url, hide_parameters=True, pool_pre_ping=True)
    except (SQLAlchemyError, ImportError) as error:
        raise AccountError(
            f"there is no driver here for the accounts database {database_name(url)}: {error}"
        ) from error
    if sqlite:
        prepare_engine(engine, busy_timeout)
    return engine


def ensure_tables(engine: Engine, name: str) -> bool:
    """
    See that the tables are of our version: make them in an empty database, and
    bring those of an older version up to ours.

    @param name: what the database is called in messages.
    @return: whether they were of an older version.
    @raise AccountError: if they are of a newer version, or somebody else's.
    """
    with engine.connect() as connection:
        if _version(connection, name) == SCHEMA_VERSION:
            return False
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        # Again: another process may have been faster.
        found = _version(connection, name)
        if found is None:
            _METADATA.create_all(connection)
            connection.execute(
                insert(_META),
                [
                    {"key": _VERSION_KEY, "value": SCHEMA_VERSION},
                    {"key": _REVISION_KEY, "value": 0},
                ],
            )
        elif found < SCHEMA_VERSION:
            _add_hosts(connection)
            connection.execute(
                update(_META).where(_META.c.key == _VERSION_KEY).values(value=SCHEMA_VERSION)
            )
            return True
    return False


def _add_hosts(connection: Connection) -> None:
    """
    From version 1 to 2: rights to host names.  Nobody has any yet, but for the
    agent that a relay invites by itself, which keeps what nobody else is granted.
    """
    connection.execute(DDL("ALTER TABLE agents ADD COLUMN hosts TEXT"))
    connection.execute(
        update(AGENTS)
        .where(AGENTS.c.id == FIRST_AGENT, AGENTS.c.publish == _EVERYTHING)
        .values(hosts=_EVERYTHING)
    )


def _version(connection: Connection, name: str) -> int | None:
    """
    @return: the version of the tables; L{None} if there are none yet.
    """
    if not inspect(connection).has_table(_META.name):
        return None
    found = connection.scalar(select(_META.c.value).where(_META.c.key == _VERSION_KEY))
    if isinstance(found, int) and 1 <= found <= SCHEMA_VERSION:
        return found
    if isinstance(found, int) and found > SCHEMA_VERSION:
        raise AccountError(
            f"the accounts database {name} was made by a newer relaytunnel (schema {found}, "
            f"this one knows {SCHEMA_VERSION}): upgrade relaytunnel"
        )
    raise AccountError(f"{name} is not an accounts database: its schema is {found!r}")


def count_change(connection: Connection) -> None:
    """
    Move the revision on, in the transaction of the change that it tells of.

    Called first, it also makes writers wait for each other in databases that
    lock rows rather than the whole.
    """
    connection.execute(
        update(_META).where(_META.c.key == _REVISION_KEY).values(value=_META.c.value + 1)
    )


def read_revision(connection: Connection) -> int:
    """
    How many changes there have been.
    """
    found = connection.scalar(select(_META.c.value).where(_META.c.key == _REVISION_KEY))
    return 0 if found is None else found

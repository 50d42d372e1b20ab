"""
What is particular to SQLite, and stands nowhere else.

Creating the file, settings of each connection, how transactions begin, and
what its errors mean.  The tables are in C{schema}, the questions in C{store}.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from typing import Any

from sqlalchemy import Connection, Engine, event

from relaytunnel.errors import AccountError

__all__ = ["WRITES", "explained", "prepare_engine", "prepare_file"]

WRITES = "relaytunnel_writes"
"""The execution option of connections that are going to change something."""

_PAUSE = 0.02


def prepare_file(path: str, busy_timeout: int) -> None:
    """
    Create the file if it is missing, readable by its owner alone, and turn on
    the write-ahead log, so that readers do not wait for a writer.

    @param busy_timeout: how long to wait for other processes, in milliseconds.
    @raise AccountError: if the file cannot be created, read or written.
    """
    if not path or path == ":memory:":
        raise AccountError("the accounts database needs a file: two threads share it")
    try:
        # O_EXCL: opening and closing a database that exists would drop the
        # POSIX locks that this process holds on it.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise AccountError(
            f"the accounts database {path} cannot be created: {error.strerror}"
        ) from error
    try:
        with closing(sqlite3.connect(path, busy_timeout / 1000)) as connection:
            _use_log(connection, time.monotonic() + busy_timeout / 1000)
    except sqlite3.Error as error:
        raise explained(error, path, busy_timeout) from error


def _use_log(connection: sqlite3.Connection, deadline: float) -> None:
    """
    SQLite does not wait by itself when two processes change the mode at once:
    the second is told "database is locked" without a pause.
    """
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE)
        else:
            # A file system without shared memory keeps its mode: slower, as safe.
            return


def prepare_engine(engine: Engine, busy_timeout: int) -> None:
    """
    Set every connection of this engine up as the accounts need it.

    @param busy_timeout: how long to wait for other processes, in milliseconds.
    """

    def connected(connection: Any, record: object) -> None:
        # Transactions begin below and not in the driver, which would begin
        # them late and without the lock.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {int(busy_timeout)}")
        connection.execute("PRAGMA foreign_keys = ON")

    def begun(connection: Connection) -> None:
        # A reader that turns into a writer is not made to wait but fails at
        # once if somebody wrote in between: writers take the lock first.
        writes = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)


def explained(error: BaseException, name: str, busy_timeout: int) -> AccountError:
    """
    Say what an error of the driver means and what to do about it.

    @param name: what the database is called in messages.
    @param busy_timeout: how long was waited for other processes, in milliseconds.
    """
    told = str(error)
    if "locked" in told:
        return AccountError(
            f"the accounts database {name} is locked by another process "
            f"for {busy_timeout / 1000:g} s"
        )
    if "not a database" in told or "malformed" in told:
        return AccountError(
            f"{name} is not an accounts database or is damaged ({told}): "
            "restore it from a copy, or move it away and invite the agents again"
        )
    if "readonly" in told or "unable to open" in told:
        return AccountError(
            f"the accounts database {name} cannot be opened for writing ({told}): "
            "look at the permissions of the file and its directory"
        )
    return AccountError(f"the accounts database {name} cannot be used: {told}")

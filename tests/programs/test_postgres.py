"""
PostgreSQL through relay and agent, by a port of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.processes import (
    Program,
    empty_directory,
    free_port,
    missing_programs,
    own_port,
    run,
    sha256_of,
    start_agent,
    start_relay,
)

ROWS = 100_000


def server_program(name: str) -> str | None:
    """
    Find a program of the server, which Debian keeps out of PATH.
    """
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


INITDB, POSTGRES = server_program("initdb"), server_program("postgres")


class PostgresTests(TestCase):
    """
    A database inside, psql outside.
    """

    skip = missing_programs("psql", INITDB or "initdb", POSTGRES or "postgres")

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.directory = empty_directory(self)
        # The server refuses to be root, and the tests' own directory may be
        # root's alone.
        user = "postgres" if os.geteuid() == 0 else None
        data = Path(tempfile.mkdtemp(prefix="rt-postgres-"))
        self.addCleanup(shutil.rmtree, data)
        if user is not None:
            shutil.chown(data, user, user)
        made = await run(
            self,
            *(INITDB or "initdb", "--pgdata", data, "--auth", "trust", "--username", "tester"),
            *("--no-sync", "--encoding", "UTF8", "--locale", "C"),
            user=user,
        )
        self.assertEqual(made.code, 0, made.err)
        port, self.port = free_port(), own_port()
        server = Program.start(
            self,
            *(POSTGRES or "postgres", "-D", data, "-p", str(port), "-k", data, "-F"),
            *("-c", "listen_addresses=127.0.0.1"),
            user=user,
        )
        # Without waiting for its clients to leave.
        self.addCleanup(server.stop, by=signal.SIGINT)
        await server.wait_for("ready to accept connections")
        relay = await start_relay(self, self.directory / "relay")
        await start_agent(self, relay.invitation, [f"database=127.0.0.1:{port},port={self.port}"])

    async def psql(
        self, *commands: str, stdin: Path | None = None, stdout: Path | None = None
    ) -> str:
        """
        Run commands of SQL through the tunnel, which must succeed.
        """
        done = await run(
            self,
            *("psql", "--no-psqlrc", "--no-align", "--tuples-only", "--quiet"),
            *("--set", "ON_ERROR_STOP=1", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--username", "tester", "--dbname", "postgres"),
            *(word for command in commands for word in ("--command", command)),
            environment={"PGCONNECT_TIMEOUT": "10"},
            stdin=stdin,
            stdout=stdout,
        )
        self.assertEqual(done.code, 0, done.err)
        return done.out

    async def test_select(self) -> None:
        """
        A query is answered.
        """
        self.assertEqual(await self.psql("select 1"), "1\n")

    async def test_copy(self) -> None:
        """
        Rows copied into a table come back the same.
        """
        sent, got = self.directory / "sent", self.directory / "got"
        with sent.open("w") as file:
            for number in range(ROWS):
                file.write(f"{number}\tthis is row {number:x} of {ROWS}\n")
        await self.psql(
            "create table rows (number int primary key, line text)",
            "copy rows from stdin",
            stdin=sent,
        )
        self.assertEqual(await self.psql("select count(*) from rows"), f"{ROWS}\n")
        await self.psql("copy (select * from rows order by number) to stdout", stdout=got)
        self.assertEqual(sha256_of(got), sha256_of(sent))

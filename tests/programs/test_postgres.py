"""
PostgreSQL through relay and agent: by a port of its own, and by the name that
its client says when it asks for TLS.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.processes import (
    Finished,
    Program,
    empty_directory,
    free_port,
    missing_programs,
    own_port,
    run,
    sha256_of,
    start_relay,
)
from tests.programs.inside import own_certificate, publish

ROWS = 100_000


def server_program(name: str) -> str | None:
    """
    Find a program of the server, which Debian keeps out of PATH.
    """
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


INITDB, POSTGRES = server_program("initdb"), server_program("postgres")

AGENT = """
[[server]]
id = "database"
target = "tcp:127.0.0.1:{port}"
reach = ["port:{own}", "sni:db.example.test"]
"""


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
        self.certificate, key = own_certificate(self.directory, "db.example.test")
        made = await run(
            self,
            *(INITDB or "initdb", "--pgdata", data, "--auth", "trust", "--username", "tester"),
            *("--no-sync", "--encoding", "UTF8", "--locale", "C"),
            user=user,
        )
        self.assertEqual(made.code, 0, made.err)
        with (data / "postgresql.conf").open("a") as configuration:
            configuration.write(
                f"ssl = on\nssl_cert_file = '{self.certificate.name}'\n"
                f"ssl_key_file = '{key.name}'\n"
            )
        for file in (self.certificate, key):
            owned = shutil.copy(file, data)
            if user is not None:
                shutil.chown(owned, user, user)
            os.chmod(owned, 0o600)
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
        self.relay = await start_relay(self, self.directory / "relay")
        await publish(self, self.relay, AGENT.format(port=port, own=self.port))

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

    async def connects(self, host: str, sslmode: str, *commands: str) -> Finished:
        """
        Run commands of SQL at the server of this name, which psql believes to
        be at the relay.
        """
        where = {
            "host": host,
            "hostaddr": self.relay.host,
            "port": str(self.relay.clients_port),
            "user": "tester",
            "dbname": "postgres",
            "sslmode": sslmode,
            "sslrootcert": str(self.certificate),
            "connect_timeout": "10",
        }
        return await run(
            self,
            *("psql", "--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--no-password"),
            *("--dbname", " ".join(f"{key}={value}" for key, value in where.items())),
            *(word for command in commands for word in ("--command", command)),
        )

    async def test_by_name(self) -> None:
        """
        With TLS the name of its host leads psql to the server, to whose key it
        speaks.
        """
        for sslmode in ("require", "verify-full", "prefer"):
            done = await self.connects(
                "db.example.test",
                sslmode,
                "select ssl, 6 * 7 from pg_stat_ssl where pid = pg_backend_pid()",
            )
            self.assertEqual(done, (0, "t|42\n", ""))

    async def test_without_tls(self) -> None:
        """
        Without TLS psql shows what the relay advises.
        """
        done = await self.connects("db.example.test", "disable", "select 1")
        self.assertEqual((done.code, done.out), (2, ""))
        self.assertIn("use sslmode=require and the server's host name", done.err)

    async def test_unknown_name(self) -> None:
        """
        A name that leads to no server ends it at once, with the alert for it.
        """
        done = await self.connects("nobody.example.test", "require", "select 1")
        self.assertEqual((done.code, done.out), (2, ""))
        self.assertIn("unrecognized name", done.err)

    async def test_server_without_tls(self) -> None:
        """
        If the server itself does not agree to TLS, the client, who was promised
        it, is told so in TLS, and the relay's log says why.
        """
        await self.psql("alter system set ssl = off", "select pg_reload_conf()")
        deadline = 20
        while await self.psql("show ssl") != "off\n":
            deadline -= 1
            self.assertGreater(deadline, 0, "the server still speaks TLS")
        done = await self.connects("db.example.test", "require", "select 1")
        self.assertEqual((done.code, done.out), (2, ""))
        self.assertIn("internal error", done.err)
        await self.relay.program.wait_for("the server does not agree to TLS")

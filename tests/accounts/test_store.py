"""
The accounts in real SQLite files.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import relaytunnel
from relaytunnel.accounts import AccountStore, Rights, hash_generated, new_secret
from relaytunnel.errors import AccountError

DAY = 24 * 3600.0
START = 1_700_000_000.0


def first_version(path: str, publish: str = '["*"]') -> str:
    """
    Make a database as the first version did.

    @param publish: the patterns of the agent C{first}, as they are stored.
    @return: the secret of the agent C{office}.
    """
    secret = new_secret()
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE agents (id VARCHAR(255) NOT NULL, publish TEXT NOT NULL,"
            " ports TEXT NOT NULL, created DOUBLE NOT NULL, last_seen DOUBLE,"
            " PRIMARY KEY (id));"
            "CREATE TABLE meta (key VARCHAR(64) NOT NULL, value INTEGER NOT NULL,"
            " PRIMARY KEY (key));"
            "CREATE TABLE secrets (id INTEGER NOT NULL, agent VARCHAR(255) NOT NULL,"
            " hash TEXT NOT NULL, created DOUBLE NOT NULL, expires DOUBLE, PRIMARY KEY (id),"
            " FOREIGN KEY(agent) REFERENCES agents (id) ON DELETE CASCADE);"
            "CREATE INDEX ix_secrets_agent ON secrets (agent);"
            "INSERT INTO meta VALUES ('schema', 1), ('revision', 3);"
        )
        rows = (
            ("first", publish, "[[20000, 20999]]", None),
            ("home", '["*"]', "[]", None),
            ("office", '["web", "*.office"]', "[[20000, 20099]]", START + 5),
        )
        for name, patterns, ports, seen in rows:
            row = (name, patterns, ports, START, seen)
            database.execute("INSERT INTO agents VALUES (?, ?, ?, ?, ?)", row)
        database.execute(
            "INSERT INTO secrets (agent, hash, created) VALUES ('office', ?, ?)",
            (hash_generated(secret), START),
        )
        database.commit()
    return secret


class StoreCase(SynchronousTestCase):
    """
    A store in a directory of its own, and a clock that stands still.
    """

    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.path = str(directory / "accounts.db")
        self.now = START
        self.store = self.opened()

    def opened(self) -> AccountStore:
        store = AccountStore(self.path, busy_timeout=100, clock=lambda: self.now)
        self.addCleanup(store.close)
        return store

    def failure_of_opening(self, url: str) -> str:
        with self.assertRaises(AccountError) as caught:
            AccountStore(url, busy_timeout=100)
        return str(caught.exception)

    def direct(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    def count_secrets(self) -> int:
        with closing(sqlite3.connect(self.path)) as connection:
            found: int = connection.execute("SELECT count(*) FROM secrets").fetchone()[0]
            return found


class AuthenticateTests(StoreCase):
    """
    Who is let in.
    """

    def test_right_secret(self) -> None:
        """
        The invited agent is let in, with the rights that it was given.
        """
        secret = self.store.invite("office", ["web", "*.office"], [(20000, 20099)])
        account = self.store.authenticate("office", secret)
        assert account is not None
        self.assertEqual(account.agent, "office")
        self.assertEqual(account.rights, Rights(("web", "*.office"), ((20000, 20099),)))
        self.assertEqual((account.created, account.source), (START, "database"))

    def test_wrong_secret(self) -> None:
        """
        A wrong secret is not let in.
        """
        secret = self.store.invite("office")
        self.assertIsNone(self.store.authenticate("office", secret[:-1]))

    def test_unknown_agent(self) -> None:
        """
        An unknown agent is not let in.
        """
        self.assertIsNone(self.store.authenticate("office", "secret"))

    def test_secret_of_another(self) -> None:
        """
        The secret of one agent does not let in another.
        """
        self.store.invite("office")
        self.assertIsNone(self.store.authenticate("office", self.store.invite("home")))

    def test_same_work_for_everybody(self) -> None:
        """
        As many hashes are checked for an unknown agent as for one with one or
        two secrets.
        """
        from relaytunnel.accounts import store

        checked: list[str] = []

        def verify(secret: str, stored: str) -> bool:
            checked.append(stored)
            return False

        self.patch(store, "verify", verify)
        self.store.invite("one")
        self.store.invite("two")
        self.store.rotate("two")
        for agent in ("nobody", "one", "two", "no\nname"):
            del checked[:]
            self.store.authenticate(agent, "secret")
            self.assertEqual(len(checked), 2, agent)

    def test_names_that_are_none(self) -> None:
        """
        A name that no agent can have is unknown, not a fault.
        """
        for name in ("", "a\x00b", "\ud800", "' OR 1=1 --"):
            self.assertIsNone(self.store.authenticate(name, "secret"))


class RotationTests(StoreCase):
    """
    A secret is replaced without shutting the agent out.
    """

    def test_both_valid(self) -> None:
        """
        The old secret lets in as long as the new one was not used.
        """
        old, _ = self.store.invite("office"), self.store.rotate("office")
        self.assertIsNotNone(self.store.authenticate("office", old))
        self.assertIsNotNone(self.store.authenticate("office", old))

    def test_use_of_the_new(self) -> None:
        """
        The first use of the new secret ends the old one.
        """
        old, new = self.store.invite("office"), self.store.rotate("office")
        self.assertIsNotNone(self.store.authenticate("office", new))
        self.assertIsNone(self.store.authenticate("office", old))
        self.assertIsNotNone(self.store.authenticate("office", new))

    def test_failed_use_of_the_new(self) -> None:
        """
        A wrong secret ends nothing.
        """
        old, new = self.store.invite("office"), self.store.rotate("office")
        self.store.authenticate("office", new + "x")
        self.assertIsNotNone(self.store.authenticate("office", old))

    def test_a_day_at_most(self) -> None:
        """
        The old secret ends after 24 hours, and not before; the new one stays.
        """
        old, new = self.store.invite("office"), self.store.rotate("office")
        self.now = START + DAY - 1
        self.assertIsNotNone(self.store.authenticate("office", old))
        self.now = START + DAY
        self.assertIsNone(self.store.authenticate("office", old))
        self.assertIsNotNone(self.store.authenticate("office", new))

    def test_third(self) -> None:
        """
        After a second rotation two are valid: the newest, and the one that
        the agent may be using.
        """
        secrets = [self.store.invite("office")]
        secrets += [self.store.rotate("office") for _ in range(2)]
        self.assertEqual(self.count_secrets(), 2)
        self.assertIsNone(self.store.authenticate("office", secrets[1]))
        self.assertIsNotNone(self.store.authenticate("office", secrets[0]))
        self.assertIsNotNone(self.store.authenticate("office", secrets[2]))

    def test_no_longer_life_by_rotation(self) -> None:
        """
        Rotating again does not give the old secret another day.
        """
        old, _ = self.store.invite("office"), self.store.rotate("office")
        self.now = START + DAY - 1
        self.store.rotate("office")
        self.now = START + DAY
        self.assertIsNone(self.store.authenticate("office", old))

    def test_after_the_day(self) -> None:
        """
        When the oldest has expired, a further rotation keeps the one before it.
        """
        _, second = self.store.invite("office"), self.store.rotate("office")
        self.now = START + DAY
        third = self.store.rotate("office")
        self.assertEqual(self.count_secrets(), 2)
        self.assertIsNotNone(self.store.authenticate("office", second))
        self.assertIsNotNone(self.store.authenticate("office", third))

    def test_revoked_while_it_is_checked(self) -> None:
        """
        An agent that is revoked between the check and the end of its old
        secret is not let in.
        """
        self.store.invite("office")
        new = self.store.rotate("office")
        retire = self.store._retire

        def late(agent: str, used: str) -> bool:
            self.opened().revoke(agent)
            return retire(agent, used)

        self.patch(self.store, "_retire", late)
        self.assertIsNone(self.store.authenticate("office", new))

    def test_to_ask_is_not_to_use(self) -> None:
        """
        Whether a secret is good can be asked without ending the one before it.
        """
        old, new = self.store.invite("office"), self.store.rotate("office")
        self.assertTrue(self.store.knows("office", new))
        self.assertTrue(self.store.knows("office", old))
        self.assertFalse(self.store.knows("office", new + "x"))
        self.assertFalse(self.store.knows("home", new))

    def test_nobody(self) -> None:
        """
        An agent that is not there has no secret to rotate, and gets none.
        """
        before = self.store.revision()
        self.assertRaises(AccountError, self.store.rotate, "office")
        self.assertEqual((self.store.agents(), self.store.revision()), ([], before))


class ChangeTests(StoreCase):
    """
    Invitations, revocations and what stays.
    """

    def test_nothing_by_default(self) -> None:
        """
        An agent that is invited without rights may do nothing.
        """
        self.store.invite("office")
        self.assertEqual(self.store.rights("office"), Rights())

    def test_rights_stay(self) -> None:
        """
        A rotation keeps the rights.
        """
        self.store.invite("office", ["web"], [(1, 2)], ["www.example.net"])
        self.store.rotate("office")
        self.assertEqual(
            self.store.rights("office"), Rights(("web",), ((1, 2),), ("www.example.net",))
        )

    def test_invited_twice(self) -> None:
        """
        An agent is invited once: to repeat it changes neither rights nor secret.
        """
        secret, before = self.store.invite("office", ["web"]), self.store.revision()
        fault = self.assertRaises(AccountError, self.store.invite, "office", ["*"])
        self.assertIn("'rotate'", str(fault))
        self.assertIn("'grant'", str(fault))
        self.assertEqual(self.store.rights("office"), Rights(("web",)))
        self.assertIsNotNone(self.store.authenticate("office", secret))
        self.assertEqual((self.count_secrets(), self.store.revision()), (1, before))

    def test_granted(self) -> None:
        """
        What is granted is added, each once; the secret is the same, and alone.
        """
        secret = self.store.invite("office", ["web"], [(1, 2)])
        more = Rights(("web", "*.office"), ((5, 5),), ("*.example.net",))
        now = Rights(("web", "*.office"), ((1, 2), (5, 5)), ("*.example.net",))
        self.assertEqual(self.store.grant("office", more), now)
        self.assertEqual(self.store.rights("office"), now)
        self.assertIsNotNone(self.store.authenticate("office", secret))
        self.assertEqual(self.count_secrets(), 1)

    def test_denied(self) -> None:
        """
        What is denied is taken away, the rest and the secret stay.
        """
        secret = self.store.invite("office", ["web", "db"], [(1, 9)], ["a.example", "b.example"])
        now = Rights(("db",), ((1, 3), (6, 9)), ("b.example",))
        less = Rights(("web",), ((4, 5),), ("a.example",))
        self.assertEqual(self.store.deny("office", less), now)
        self.assertEqual(self.store.rights("office"), now)
        self.assertIsNotNone(self.store.authenticate("office", secret))
        self.assertEqual(self.count_secrets(), 1)

    def test_denied_in_vain(self) -> None:
        """
        A pattern that was not granted cannot be taken, as it would seem that
        it was; nothing changes then.
        """
        self.store.invite("office", ["*"], [(1, 9)], ["*.example.net"])
        before = self.store.revision()
        for less in (Rights(("web",)), Rights((), ((2, 3),), ("www.example.net",))):
            self.assertRaises(AccountError, self.store.deny, "office", less)
        self.assertEqual(
            self.store.rights("office"), Rights(("*",), ((1, 9),), ("*.example.net",))
        )
        self.assertEqual(self.store.revision(), before)

    def test_rights_of_nobody_change(self) -> None:
        """
        An agent that is not there is given nothing, and nothing is taken from it.
        """
        for change in (self.store.grant, self.store.deny):
            self.assertRaises(AccountError, change, "office", Rights(("web",)))
        self.assertEqual(self.store.agents(), [])

    def test_rights_of_nobody(self) -> None:
        """
        An unknown agent has no rights at all.
        """
        self.assertIsNone(self.store.rights("office"))

    def test_bad_pattern(self) -> None:
        """
        An invitation with a pattern that is none changes nothing.
        """
        secret, before = self.store.invite("office", ["web"]), self.store.revision()
        self.assertRaises(AccountError, self.store.invite, "office", ["w*b"])
        self.assertEqual(self.store.revision(), before)
        self.assertEqual(self.store.rights("office"), Rights(("web",)))
        self.assertIsNotNone(self.store.authenticate("office", secret))

    def test_bad_name(self) -> None:
        """
        An agent cannot be invited under a name that is none.
        """
        self.assertRaises(AccountError, self.store.invite, "two words")

    def test_revoke(self) -> None:
        """
        A revoked agent is gone, with rights and secrets.
        """
        secret = self.store.invite("office", ["web"])
        self.assertTrue(self.store.revoke("office"))
        self.assertIsNone(self.store.authenticate("office", secret))
        self.assertIsNone(self.store.rights("office"))
        self.assertEqual(self.count_secrets(), 0)

    def test_revoke_nobody(self) -> None:
        """
        Revoking an unknown agent says so.
        """
        self.assertFalse(self.store.revoke("office"))

    def test_name_that_is_not_text(self) -> None:
        """
        Bytes of the command line that are not text are an error with words.
        """
        self.assertRaises(AccountError, self.store.revoke, "\udcff")

    def test_invited_again(self) -> None:
        """
        What a revoked agent once had does not come back with a new invitation.
        """
        old = self.store.invite("office", ["web"])
        self.store.revoke("office")
        self.store.invite("office")
        self.assertEqual(self.store.rights("office"), Rights())
        self.assertIsNone(self.store.authenticate("office", old))

    def test_agents(self) -> None:
        """
        The agents are listed by name, with when they were last here.
        """
        self.store.invite("office", ["web"])
        self.store.invite("home")
        self.store.seen("office", START + 5)
        self.assertEqual(
            [(account.agent, account.last_seen) for account in self.store.agents()],
            [("home", None), ("office", START + 5)],
        )

    def test_seen_nobody(self) -> None:
        """
        An unknown agent that is seen is not made an account.
        """
        self.store.seen("office", START)
        self.assertEqual(self.store.agents(), [])

    def test_kept(self) -> None:
        """
        Accounts are there when the file is opened again.
        """
        secret = self.store.invite("office", ["web"])
        self.store.close()
        self.assertIsNotNone(self.opened().authenticate("office", secret))

    def test_damaged_rights(self) -> None:
        """
        Rights that cannot be read are an error that names the agent, not a licence.
        """
        self.store.invite("office")
        for damaged in ("[", '"*"', "[[]]", "7"):
            self.direct(f"UPDATE agents SET publish = '{damaged}'")
            with self.assertRaises(AccountError) as caught:
                self.store.rights("office")
            self.assertIn("agent office", str(caught.exception))


class RevisionTests(StoreCase):
    """
    The number that tells of changes.
    """

    def test_still(self) -> None:
        """
        It stays when agents come and are seen.
        """
        secret = self.store.invite("office")
        before = self.store.revision()
        self.store.authenticate("office", secret)
        self.store.seen("office", START)
        self.store.revoke("nobody")
        self.assertEqual(self.store.revision(), before)

    def test_changes(self) -> None:
        """
        Invitation, rotation, revocation and other rights change it, each to a
        new number.
        """
        found = {self.store.revision()}
        right = Rights(("web",))
        changes: list[Callable[[str], object]] = [
            self.store.invite,
            self.store.rotate,
            lambda agent: self.store.grant(agent, right),
            lambda agent: self.store.deny(agent, right),
            self.store.revoke,
        ]
        for change in changes:
            change("office")
            found.add(self.store.revision())
        self.assertEqual(len(found), 6)

    def test_from_another_connection(self) -> None:
        """
        A change by another connection is seen.
        """
        before = self.store.revision()
        self.opened().invite("office")
        self.assertNotEqual(self.store.revision(), before)

    def test_from_another_process(self) -> None:
        """
        A revocation by another process is seen, and holds.
        """
        secret, before = self.store.invite("office"), self.store.revision()
        script = (
            "import sys; from relaytunnel.accounts import AccountStore; "
            "assert AccountStore(sys.argv[1]).revoke('office')"
        )
        root = Path(relaytunnel.__file__).parent.parent
        subprocess.run(
            [sys.executable, "-c", script, self.path],
            check=True,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        self.assertNotEqual(self.store.revision(), before)
        self.assertIsNone(self.store.authenticate("office", secret))


class FileTests(StoreCase):
    """
    The file itself.
    """

    def test_mode(self) -> None:
        """
        The file and its log are for the owner alone, whatever the umask.
        """
        self.addCleanup(os.umask, os.umask(0))
        self.path += ".new"
        self.opened().invite("office")
        for name in (self.path, self.path + "-wal"):
            self.assertEqual(stat.S_IMODE(os.stat(name).st_mode), 0o600, name)

    def test_no_secret_in_clear(self) -> None:
        """
        No file of the database holds a secret, before or after the log is merged.
        """
        secret = self.store.invite("office")
        self.store.authenticate("office", secret)

        def files() -> list[bytes]:
            return [path.read_bytes() for path in Path(self.path).parent.iterdir()]

        running = files()
        self.store.close()
        self.assertGreater(len(running), 1)
        for content in running + files():
            self.assertNotIn(secret.encode(), content)

    def test_no_hash_in_errors(self) -> None:
        """
        An error of the database shows neither the secret nor what is stored of it.
        """
        self.store.invite("office")
        self.direct("DROP TABLE secrets")
        with self.assertRaises(AccountError) as caught:
            self.store.invite("office")
        for error in (caught.exception, caught.exception.__cause__):
            self.assertNotIn("sha256:", str(error))

    def test_locked(self) -> None:
        """
        A change under another's lock fails with the path and how long was waited.
        """
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with self.assertRaises(AccountError) as caught:
                self.store.invite("office")
        self.assertEqual(
            str(caught.exception),
            f"the accounts database {self.path} is locked by another process for 0.1 s",
        )

    def test_reading_under_a_lock(self) -> None:
        """
        Agents are let in while another process writes.
        """
        secret = self.store.invite("office")
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            self.assertIsNotNone(self.store.authenticate("office", secret))
            self.assertIsNotNone(self.opened().rights("office"))

    def test_after_a_lock(self) -> None:
        """
        The store works on when the lock is gone.
        """
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            self.assertRaises(AccountError, self.store.invite, "office")
        secret = self.store.invite("office")
        self.assertIsNotNone(self.store.authenticate("office", secret))

    def test_locked_while_it_is_made(self) -> None:
        """
        Opening fails in words when another process holds the file before it
        is a database of ours.
        """
        fresh = self.path + ".fresh"
        with closing(sqlite3.connect(fresh, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            self.assertIn("is locked by another process", self.failure_of_opening(fresh))

    def test_opened_by_many_at_once(self) -> None:
        """
        Processes that make the same database at once all succeed.
        """
        fresh = self.path + ".fresh"
        script = (
            "import sys; from relaytunnel.accounts import AccountStore; "
            "AccountStore(sys.argv[1]).invite(sys.argv[2])"
        )
        root = Path(relaytunnel.__file__).parent.parent
        running = [
            subprocess.Popen(
                [sys.executable, "-c", script, fresh, f"agent{number}"],
                env={**os.environ, "PYTHONPATH": str(root)},
            )
            for number in range(4)
        ]
        self.assertEqual([process.wait() for process in running], [0] * 4)
        self.path = fresh
        store = self.opened()
        self.assertEqual(len(store.agents()), 4)
        self.assertEqual(store.revision(), 4)

    def test_first_version(self) -> None:
        """
        A database of the version before rights to host names is brought up to
        this one: everything stays, and nobody may claim anything, but for the
        agent that the relay invited by itself.
        """
        old = self.path + ".old"
        secret, at = first_version(old), START
        self.path = old
        store = self.opened()
        self.assertTrue(store.upgraded)
        self.assertEqual(
            {account.agent: account.rights for account in store.agents()},
            {
                "first": Rights(("*",), ((20000, 20999),), ("*",)),
                "home": Rights(("*",)),
                "office": Rights(("web", "*.office"), ((20000, 20099),)),
            },
        )
        account = store.authenticate("office", secret)
        assert account is not None
        self.assertEqual((account.created, account.last_seen), (at, at + 5))
        self.assertEqual(store.revision(), 3)
        self.assertFalse(self.opened().upgraded)
        self.assertEqual(store.grant("home", Rights(hosts=("a.example",))).hosts, ("a.example",))

    def test_first_version_narrowed(self) -> None:
        """
        A first agent whose rights the operator made narrower is given none.
        """
        self.path = self.path + ".old"
        first_version(self.path, '["web"]')
        rights = self.opened().rights("first")
        assert rights is not None
        self.assertEqual(rights.hosts, ())

    def test_first_version_goes_on(self) -> None:
        """
        The process from which this one takes over works on with the tables.
        """
        self.path = self.path + ".old"
        first_version(self.path)
        with closing(sqlite3.connect(self.path)) as before:
            store = self.opened()
            before.execute(
                "INSERT INTO agents (id, publish, ports, created) VALUES ('new', '[]', '[]', 1)"
            )
            before.execute("UPDATE meta SET value = value + 1 WHERE key = 'revision'")
            before.commit()
        self.assertEqual(store.rights("new"), Rights())
        self.assertEqual(store.revision(), 4)

    def test_first_version_opened_by_many(self) -> None:
        """
        Programs that open it at once do not get into each other's way.
        """
        self.path = self.path + ".old"
        first_version(self.path)
        script = (
            "import sys; from relaytunnel.accounts import AccountStore; "
            "AccountStore(sys.argv[1]).rotate('office')"
        )
        root = Path(relaytunnel.__file__).parent.parent
        running = [
            subprocess.Popen(
                [sys.executable, "-c", script, self.path],
                env={**os.environ, "PYTHONPATH": str(root)},
            )
            for _ in range(4)
        ]
        self.assertEqual([process.wait() for process in running], [0] * 4)
        self.assertEqual(self.opened().revision(), 7)

    def test_not_a_database(self) -> None:
        """
        A file that is something else is left alone, and named.
        """
        other = Path(self.path + ".txt")
        other.write_bytes(b"not a database, but long enough to look at" * 100)
        content = other.read_bytes()
        self.assertIn(f"{other} is not an accounts database", self.failure_of_opening(str(other)))
        self.assertEqual(other.read_bytes(), content)

    def test_damaged(self) -> None:
        """
        A database with broken pages is an error that says what to do.
        """
        for number in range(50):
            self.store.invite(f"agent{number}")
        self.store.close()
        content = Path(self.path).read_bytes()
        Path(self.path).write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
        with self.assertRaises(AccountError) as caught:
            AccountStore(self.path).agents()
        self.assertIn("restore it from a copy", str(caught.exception))

    def test_unwritable_place(self) -> None:
        """
        A place where no file can be made is named.
        """
        Path(self.path + ".file").touch()
        path = self.path + ".file/accounts.db"
        self.assertIn(f"{path} cannot be created", self.failure_of_opening(path))

    def test_a_directory(self) -> None:
        """
        A directory in place of the file is named.
        """
        path = str(Path(self.path).parent)
        self.assertIn(path, self.failure_of_opening(path))

    def test_newer_schema(self) -> None:
        """
        A database of a later version is left alone: upgrade.
        """
        self.store.close()
        self.direct("UPDATE meta SET value = 99 WHERE key = 'schema'")
        self.assertIn("upgrade relaytunnel", self.failure_of_opening(self.path))

    def test_foreign_database(self) -> None:
        """
        A database whose meta table says nothing of ours is turned down.
        """
        self.store.close()
        self.direct("DELETE FROM meta")
        self.assertIn("is not an accounts database", self.failure_of_opening(self.path))


class UrlTests(StoreCase):
    """
    Where the database is.
    """

    def test_sqlite_url(self) -> None:
        """
        A URL and a path of the same file are the same database.
        """
        self.store.invite("office")
        store = AccountStore("sqlite:///" + os.path.abspath(self.path))
        self.addCleanup(store.close)
        self.assertEqual(len(store.agents()), 1)

    def test_memory(self) -> None:
        """
        A database in memory is turned down.
        """
        self.assertIn("needs a file", self.failure_of_opening("sqlite://"))
        self.assertIn("needs a file", self.failure_of_opening(":memory:"))

    def test_no_driver(self) -> None:
        """
        A database without a driver is an error without the password.
        """
        told = self.failure_of_opening("nosuch://relay:hunter2@db.example/accounts")
        self.assertIn("no driver", told)
        self.assertNotIn("hunter2", told)

    def test_no_url(self) -> None:
        """
        A URL that cannot be read is an error without what stood in it.
        """
        told = self.failure_of_opening("://hunter2")
        self.assertNotIn("hunter2", told)

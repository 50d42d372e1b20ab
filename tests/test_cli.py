"""
The C{relaytunnel} command, as an operator types it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys

from msgspec.structs import replace

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.accounts import AccountStore, Rights, secrets
from relaytunnel.channel.identity import own_identity
from relaytunnel.cli import main
from relaytunnel.relay.state import Facts, StateDirectory
from relaytunnel.wire.invitation import Invitation

PIN = "sha256:" + "A" * 43


class CommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.state = StateDirectory(self.mktemp())
        self.state.prepare()
        self.facts = Facts(pid=0, name="relay.example.net", pin=PIN, agents=7001, clients=(8000,))
        self.state.write_facts(self.facts)

    def run_command(self, *arguments: str) -> tuple[int, str, str]:
        """
        @return: exit code, standard output, standard error.
        """
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(arguments)
            except SystemExit as ended:
                code = int(ended.code or 0)
        return code, out.getvalue(), err.getvalue()

    def operate(self, *arguments: str) -> tuple[int, str, str]:
        """
        Run a command on the state of this test.
        """
        return self.run_command(arguments[0], "--state", self.state.path, *arguments[1:])

    def rights(self, agent: str) -> Rights | None:
        """
        @return: what an agent may do.
        """
        store = AccountStore(self.state.database)
        try:
            return store.rights(agent)
        finally:
            store.close()

    def authenticate(self, invitation: Invitation) -> bool:
        store = AccountStore(self.state.database)
        try:
            return store.authenticate(invitation.agent, invitation.secret) is not None
        finally:
            store.close()


class InviteTests(CommandTests):
    def test_invitation(self) -> None:
        """
        An invitation goes to standard output alone, names where the relay is,
        and its secret is good.
        """
        code, out, err = self.operate("invite", "office", "--publish", "web", "--ports", "20001")
        self.assertEqual((code, out.count("\n")), (0, 1))
        invitation = Invitation.parse(out)
        self.assertEqual(
            (invitation.agent, invitation.host, invitation.port, invitation.pin),
            ("office", "relay.example.net", 7001, PIN),
        )
        self.assertTrue(self.authenticate(invitation))
        self.assertIn("may publish web; claim nothing; ports: 20001\n", err)

    def test_without_rights(self) -> None:
        """
        An agent that may publish nothing is a thing to be told of.
        """
        code, _, err = self.operate("invite", "office")
        self.assertEqual(code, 0)
        self.assertIn("may publish nothing yet", err)

    def test_rights(self) -> None:
        """
        An account is made with the rights that are named, in their one spelling.
        """
        self.operate(
            "invite", "office", "--publish", "web", "--ports", "1-2", "--host", "WWW.Example.",
            "--host", "*.shop.example",
        )  # fmt: skip
        self.assertEqual(
            self.rights("office"), Rights(("web",), ((1, 2),), ("www.example", "*.shop.example"))
        )

    def test_twice(self) -> None:
        """
        An agent is invited once; who tries again learns how to change what.
        """
        invitation = Invitation.parse(self.operate("invite", "office", "--publish", "web")[1])
        code, out, err = self.operate("invite", "office", "--publish", "mail")
        self.assertEqual((code, out), (1, ""))
        for command in ("rotate", "grant", "deny"):
            self.assertIn(f"'{command}'", err)
        self.assertEqual(self.rights("office"), Rights(("web",)))
        self.assertTrue(self.authenticate(invitation))

    def test_bad_pattern(self) -> None:
        """
        A pattern that means nothing is refused with the reason, and exit code 2.
        """
        code, _, err = self.operate("invite", "office", "--publish", "we_b*")
        self.assertEqual(code, 2)
        self.assertIn("'we_b*'", err)

    def test_bad_ports(self) -> None:
        """
        A range of ports that goes downwards is refused with the reason.
        """
        code, _, err = self.operate("invite", "office", "--ports", "9-1")
        self.assertEqual(code, 2)
        self.assertIn("'9-1'", err)

    def test_bad_agent(self) -> None:
        """
        A name that no agent can have is refused with the reason.
        """
        code, _, err = self.operate("invite", "of fice")
        self.assertEqual(code, 2)
        self.assertIn("agent ID", err)

    def test_before_the_first_start(self) -> None:
        """
        Accounts can be made before a relay was ever started: the invitation
        has the key that it will have, and where its file says that it will be.
        """
        path, state = self.mktemp(), StateDirectory(os.path.abspath(self.mktemp()))
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                f'[relay]\nname = "relay.example"\nstate = "{state.path}"\n'
                '[listen]\nagents = "tcp:7123"\n'
            )
        code, out, err = self.run_command(
            "invite", "--config", path, "office", "--publish", "web", "--host", "www.example"
        )
        self.assertEqual(code, 0, err)
        self.assertIn("no relay has been started", err)
        invitation = Invitation.parse(out)
        self.assertEqual((invitation.host, invitation.port), ("relay.example", 7123))
        self.assertEqual(invitation.pin, own_identity(state.path, "relay.example").pin)
        for words in (("grant", "office", "--host", "b.example"), ("agents",)):
            code, out, _ = self.run_command(words[0], "--config", path, *words[1:])
            self.assertEqual(code, 0)
            self.assertIn("b.example", out)
        # What the relay will be called can be said without a file, too.
        code, out, _ = self.run_command(
            "rotate", "--state", state.path, "--name", "other.example", "office"
        )
        self.assertEqual((code, Invitation.parse(out).host), (0, "other.example"))

    def test_no_state(self) -> None:
        """
        Where there is no account yet, only C{invite} makes anything; the others
        say what to do.
        """
        path = self.mktemp()
        for words in (
            ("agents",),
            ("revoke", "office"),
            ("rotate", "office"),
            ("grant", "office", "--publish", "web"),
            ("deny", "office", "--publish", "web"),
        ):
            code, _, err = self.run_command(words[0], "--state", path, *words[1:])
            self.assertEqual(code, 1)
            self.assertIn("'relaytunnel invite'", err)
            self.assertIn("--state", err)
        self.assertFalse(os.path.exists(path))

    def test_state_of_configuration(self) -> None:
        """
        The state directory may be named by the relay's file.
        """
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'[relay]\nstate = "{os.path.abspath(self.state.path)}"\n')
        code, out, _ = self.run_command("invite", "--config", path, "office")
        self.assertEqual(code, 0)
        self.assertTrue(self.authenticate(Invitation.parse(out)))

    def test_unusable_state(self) -> None:
        """
        A file of the state that is no JSON is named in the error.
        """
        with open(os.path.join(self.state.path, "relay.json"), "w", encoding="utf-8") as file:
            file.write("nonsense")
        code, _, err = self.operate("invite", "office")
        self.assertEqual(code, 1)
        self.assertIn("relay.json", err)


class RotateTests(CommandTests):
    def test_rotation(self) -> None:
        """
        While a secret is rotated both are good, until the new one is used; the
        rights stay.
        """
        old = Invitation.parse(self.operate("invite", "office", "--publish", "web")[1])
        self.assertTrue(self.authenticate(old))
        code, out, err = self.operate("rotate", "office")
        self.assertEqual((code, out.count("\n")), (0, 1))
        self.assertIn("24 hours", err)
        new = Invitation.parse(out)
        self.assertEqual((new.host, new.port, new.pin), (old.host, old.port, old.pin))
        self.assertTrue(self.authenticate(old))
        self.assertTrue(self.authenticate(new))
        self.assertFalse(self.authenticate(old))
        self.assertEqual(self.rights("office"), Rights(("web",)))

    def test_unknown(self) -> None:
        """
        An agent that was never invited has no secret to rotate.
        """
        self.operate("invite", "office")
        code, out, err = self.operate("rotate", "nobody")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("no agent nobody", err)

    def test_file(self) -> None:
        """
        The file with an agent's invitation has the new one, and goes when the
        agent is revoked; that of another agent stays as it is.
        """
        for agent in ("first", "office"):
            self.operate("invite", agent)
        self.state.write_invitation(self.operate("rotate", "first")[1])
        kept = self.state.read_invitation()
        self.operate("rotate", "office")
        self.operate("revoke", "office")
        self.assertEqual(self.state.read_invitation(), kept)
        self.assertEqual(self.operate("rotate", "first")[1].strip(), self.state.read_invitation())
        self.assertNotEqual(self.state.read_invitation(), kept)
        self.operate("revoke", "first")
        self.assertIsNone(self.state.read_invitation())


class RightsTests(CommandTests):
    def setUp(self) -> None:
        super().setUp()
        self.invitation = Invitation.parse(
            self.operate("invite", "office", "--publish", "web", "--ports", "20000-20009")[1]
        )

    def operate(self, *arguments: str) -> tuple[int, str, str]:
        """
        Whatever is done to rights, the one secret stays what it is.
        """
        done = super().operate(*arguments)
        if hasattr(self, "invitation"):
            self.assertTrue(self.authenticate(self.invitation))
            store = AccountStore(self.state.database)
            self.addCleanup(store.close)
            self.assertEqual(len(store._matching("office", "")[1]), 0)
            self.assertFalse(store._matching("office", "")[2])
        return done

    def test_granted_and_denied(self) -> None:
        """
        Each right is given and taken by itself; what there is then is said.
        """
        code, out, _ = self.operate(
            "grant", "office", "--publish", "*.office", "--host", "*.Example.NET",
            "--host", "b.example", "--ports", "30000",
        )  # fmt: skip
        self.assertEqual(code, 0)
        self.assertEqual(
            out,
            "office may publish web, *.office; claim *.example.net, b.example;"
            " ports: 20000-20009, 30000\n",
        )
        self.assertEqual(
            self.rights("office"),
            Rights(
                ("web", "*.office"),
                ((20000, 20009), (30000, 30000)),
                ("*.example.net", "b.example"),
            ),
        )
        code, out, _ = self.operate(
            "deny", "office", "--publish", "web", "--host", "b.example", "--ports", "20003-30000"
        )
        self.assertEqual(code, 0)
        self.assertEqual(
            self.rights("office"), Rights(("*.office",), ((20000, 20002),), ("*.example.net",))
        )

    def test_denied_in_vain(self) -> None:
        """
        What was not granted cannot be taken, and what was is said.
        """
        code, _, err = self.operate("deny", "office", "--publish", "mail")
        self.assertEqual(code, 1)
        self.assertIn("publish mail", err)
        self.assertIn("granted is: web", err)

    def test_below_the_relay(self) -> None:
        """
        A right to names below the relay's own would have no effect, so it is
        not given; one to the names beside it is.
        """
        for host in ("relay.example.net", "*.relay.example.net", "a.web.relay.example.net"):
            code, _, err = self.operate("grant", "office", "--host", host)
            self.assertEqual(code, 1)
            self.assertIn("belong to the servers with these IDs", err)
            self.assertEqual(self.operate("invite", "other", "--host", host)[0], 1)
            if "*" not in host:
                code, _, err = self.operate("grant", "office", "--publish", host)
                self.assertEqual(code, 1)
                self.assertIn("relay", err)
        self.assertEqual(self.operate("grant", "office", "--host", "*.example.net")[0], 0)

    def test_wrong_words(self) -> None:
        """
        A command that names no right, or one that is none, is refused.
        """
        for words, reason in (
            (("office",), "--publish, --host or --ports"),
            (("office", "--host", "w*b"), "'w*b'"),
            (("office", "--host", "127.0.0.1"), "an address"),
            (("office", "--publish", "w*b"), "'w*b'"),
        ):
            for command in ("grant", "deny"):
                code, _, err = self.operate(command, *words)
                self.assertEqual(code, 2, words)
                self.assertIn(reason, err)

    def test_nobody(self) -> None:
        """
        An agent that is not there is given nothing.
        """
        for command in ("grant", "deny"):
            code, _, err = self.operate(command, "nobody", "--publish", "web")
            self.assertEqual(code, 1)
            self.assertIn("no agent nobody", err)

    def test_of_the_file(self) -> None:
        """
        An account of relay.toml is changed there.
        """
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                f'[relay]\nstate = "{os.path.abspath(self.state.path)}"\n'
                f'[[agent]]\nid = "shed"\nsecret-hash = "sha256:{"0" * 64}"\n'
            )
        for words in (
            ("invite", "shed"),
            ("rotate", "shed"),
            ("revoke", "shed"),
            ("grant", "shed", "--publish", "x"),
            ("deny", "shed", "--publish", "x"),
        ):
            code, _, err = self.run_command(words[0], "--config", path, *words[1:])
            self.assertEqual(code, 1)
            self.assertIn("stands in the file", err)


class RevokeTests(CommandTests):
    def test_revoke(self) -> None:
        """
        A revoked agent's secret is good for nothing.
        """
        invitation = Invitation.parse(self.operate("invite", "office")[1])
        self.assertEqual(self.operate("revoke", "office")[0], 0)
        self.assertFalse(self.authenticate(invitation))

    def test_unknown(self) -> None:
        """
        Revoking nobody is an error, with exit code 1.
        """
        self.operate("invite", "office")
        code, _, err = self.operate("revoke", "nobody")
        self.assertEqual(code, 1)
        self.assertIn("nobody", err)


class AgentsTests(CommandTests):
    def test_table(self) -> None:
        """
        The table has an agent a line; without the relay it is unknown who is
        online.
        """
        self.operate("invite", "office", "--publish", "web", "--publish", "*.office")
        code, out, err = self.operate("agents")
        self.assertEqual(code, 0)
        head, row = out.splitlines()
        self.assertTrue(head.startswith("AGENT"))
        self.assertRegex(row, r"^office +web, \*\.office +nothing +never +\?$")
        self.assertIn("does not answer", err)

    def test_relay_that_is_gone(self) -> None:
        """
        An admin interface that does not answer is no error.
        """
        self.operate("invite", "office")
        self.state.write_facts(
            Facts(pid=1, name="r", pin=PIN, agents=1, clients=(1,), admin="127.0.0.1:9")
        )
        code, _, err = self.operate("agents")
        self.assertEqual(code, 0)
        self.assertIn("does not answer", err)

    def test_json(self) -> None:
        """
        Programs get JSON, without any secret.
        """
        secret = Invitation.parse(self.operate("invite", "office")[1]).secret
        _, out, _ = self.operate("agents", "--json")
        (row,) = json.loads(out)
        self.assertEqual((row["id"], row["online"], row["last_seen"]), ("office", None, None))
        self.assertNotIn(secret, out)


class UpgradeTests(CommandTests):
    """
    C{relaytunnel upgrade}, where nothing is to be upgraded.
    """

    def test_stopped(self) -> None:
        """
        A relay that has stopped is not upgraded.
        """
        code, out, err = self.operate("upgrade")
        self.assertEqual((code, out), (1, ""))
        self.assertIn(f"no relay runs with the state in {self.state.path}", err)

    def test_killed(self) -> None:
        """
        A relay that was killed could not say so; who has its number now is left
        alone.
        """
        with subprocess.Popen(["sleep", "60"]) as bystander:
            self.state.write_facts(replace(self.facts, pid=bystander.pid, since="1"))
            code, out, err = self.operate("upgrade")
            self.assertEqual((code, out), (1, ""))
            self.assertIn("no relay runs", err)
            # Whatever it was sent would have come before this.
            bystander.terminate()
        self.assertEqual(bystander.returncode, -signal.SIGTERM)


class CheckTests(CommandTests):
    def check(self, text: str, *more: str) -> tuple[int, str, str]:
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return self.run_command("check", path, *more)

    def test_good_relay(self) -> None:
        """
        A file without faults is said to be one, with exit code 0.
        """
        code, out, _ = self.check('[relay]\nname = "relay.example.net"\n')
        self.assertEqual(code, 0)
        self.assertIn("a relay's file without faults", out)

    def test_good_agent(self) -> None:
        """
        An agent's file is recognized, and what it publishes is listed.
        """
        code, out, _ = self.check(
            '[agent]\njoin-file = "i"\n[[server]]\nid = "web"\ntarget = "127.0.0.1:80"\n'
        )
        self.assertEqual(code, 0)
        self.assertIn("publishes web", out)

    def test_claims(self) -> None:
        """
        What the relay has to allow for an agent's host names is said, but for
        those that need no right; and which it cannot.
        """
        invitation = "relaytunnel://office:secret@relay.example.net:7000/"
        code, out, _ = self.check(
            f'[agent]\njoin = "{invitation}"\n[[server]]\nid = "web"\ntarget = "127.0.0.1:80"\n'
            'reach = ["host:web.relay.example.net", "sni:www.example.com", "host:*.a.example",'
            ' "host:*.com", "host:www.example.com"]\n'
        )
        self.assertEqual(code, 0)
        self.assertEqual(
            out.splitlines()[1:3],
            [
                "[[server]] 'web' reach: *.com cannot be claimed: the names below com are"
                " registered by many, so it stands for all of these",
                "at the relay, this allows the host names: relaytunnel grant office --host"
                " www.example.com --host '*.a.example'",
            ],
        )

    def test_budgets(self) -> None:
        """
        What the descriptors are for is printed, with where it comes from; and
        so is what they are too few for.
        """
        code, out, _ = self.check('[relay]\nname = "relay.example.net"\n', "--descriptors", "1024")
        self.assertEqual(code, 0)
        self.assertIn("of 1024 descriptors there may be\n", out)
        self.assertRegex(out, r"  \d+ sessions, waiting or running \(11/16 of \d+ descriptors,")
        self.assertRegex(out, r"  \d+ connections to the admin interface \(")
        self.assertRegex(out, r"too few descriptors: \[limits\] unauthenticated = \d+ in place")
        code, out, _ = self.check('[agent]\njoin-file = "i"\n', "--descriptors", "99999")
        self.assertIn("  4096 sessions ([limits] sessions-per-agent)\n", out)
        self.assertNotIn("too few", out)

    def test_id_anywhere(self) -> None:
        """
        A relay that looks for IDs in any name is warned of.
        """
        _, out, _ = self.check("[relay]\nid-anywhere = true\n")
        self.assertIn("id-anywhere is on", out)

    def test_targets(self) -> None:
        """
        What a URL means is said, and what is no endpoint is a fault of the
        file, though its form would do.
        """
        text = '[agent]\njoin-file = "i"\n[[server]]\nid = "web"\ntarget = "%s"\n'
        code, out, _ = self.check(text % "http://127.0.0.1:80/")
        self.assertEqual(code, 0)
        self.assertIn("means tcp:127.0.0.1:80", out)
        code, _, err = self.check(text % "foo:bar")
        self.assertEqual(code, 1)
        self.assertIn("[[server]] 'web' target: 'foo:bar': no endpoint begins with", err)

    def test_limits(self) -> None:
        """
        Limits that are not the defaults are listed, in either file.
        """
        limits = "[limits]\nidle = 60\nunauthenticated = 512\npenalty-none = 0.5\n"
        for text in ('[relay]\nname = "relay.example.net"\n', '[agent]\njoin-file = "i"\n'):
            code, out, _ = self.check(text + limits)
            self.assertEqual(code, 0)
            self.assertEqual(
                out.splitlines()[1:3],
                [
                    "[limits] idle = 60, by default 3600",
                    "[limits] penalty-none = 0.5, by default 1",
                ],
            )

    def test_faults(self) -> None:
        """
        Every fault stands on a line of its own, with file, key and reason.
        """
        code, out, err = self.check('[relay]\nnmae = "x"\nstate = 3\n[listen]\nports = "9-1"\n')
        self.assertEqual((code, out), (1, ""))
        self.assertRegex(err, r"\[relay\] nmae: .*'name'")
        self.assertRegex(err, r"\[relay\] state: ")
        self.assertRegex(err, r"\[listen\] ports: ")

    def test_missing(self) -> None:
        """
        A file that is not there is an error that names it.
        """
        code, _, err = self.run_command("check", "/nowhere/relay.toml")
        self.assertEqual(code, 1)
        self.assertIn("/nowhere/relay.toml", err)


class VisitTests(CommandTests):
    """
    Only what is wrong from the beginning; the rest is in L{tests.test_visiting}.
    """

    def test_help(self) -> None:
        """
        The help of both commands has an example to copy.
        """
        _, out, _ = self.run_command("connect", "--help")
        self.assertIn("ProxyCommand='relaytunnel connect %h --via relay.example.net:8000'", out)
        _, out, _ = self.run_command("forward", "--help")
        self.assertIn("relaytunnel forward 5432 database --via relay.example.net:8000", out)

    def test_wrong_words(self) -> None:
        """
        What cannot be meant is refused with the reason, and exit code 2.
        """
        for words, reason in (
            (("connect",), "ID"),
            (("connect", "we_b"), "'we_b': each label"),
            (("connect", "web", "--via", "::1"), "'::1': an IPv6 address stands in brackets"),
            (("connect", "web", "--user", "a:b"), "'a:b': a user name is 1 to 64"),
            (("connect", "web", "--password-file", "secret"), "--user"),
            (("forward", "web"), "LOCAL_PORT: 'web': a port is a number from 0"),
            (("forward", "65536", "web"), "'65536': a port"),
            (("forward", "0", "web", "--listen", "here"), "'here'"),
        ):
            code, _, err = self.run_command(*words)
            self.assertEqual(code, 2, words)
            self.assertIn(reason, err)

    def test_environment(self) -> None:
        """
        A relay that the environment names wrongly is its fault.
        """
        self.patch(os, "environ", {**os.environ, "RELAYTUNNEL_VIA": "relay:x"})
        code, _, err = self.run_command("connect", "web")
        self.assertEqual(code, 1)
        self.assertIn("RELAYTUNNEL_VIA: 'x': a port", err)

    def test_no_password(self) -> None:
        """
        Where nobody can be asked for the password, the error says how to give
        it.
        """
        self.patch(sys, "stdin", io.StringIO())
        self.patch(os, "environ", {**os.environ, "RELAYTUNNEL_PASSWORD": ""})
        code, _, err = self.run_command("connect", "web", "--user", "me")
        self.assertEqual(code, 1)
        self.assertIn("set RELAYTUNNEL_PASSWORD, or name a file with --password-file", err)


class HashTests(CommandTests):
    """
    C{relaytunnel hash-password}.
    """

    def test_line(self) -> None:
        """
        A line of standard input is the password, and what is printed is its
        hash.
        """
        self.patch(sys, "stdin", io.StringIO("correct horse\r\nmore"))
        code, out, _ = self.run_command("hash-password")
        self.assertEqual(code, 0)
        self.assertTrue(secrets.verify("correct horse", out.strip()))

    def test_empty(self) -> None:
        """
        An empty password is none.
        """
        self.patch(sys, "stdin", io.StringIO("\n"))
        code, out, err = self.run_command("hash-password")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("empty", err)


class UsageTests(CommandTests):
    def test_help(self) -> None:
        """
        The help names every command.
        """
        code, out, _ = self.run_command("--help")
        self.assertEqual(code, 0)
        for command in ("demo", "invite", "revoke", "agents", "check", "connect", "forward"):
            self.assertTrue(re.search(rf"^    {command} ", out, re.M), command)

    def test_nothing(self) -> None:
        """
        Without a command there is the help as well.
        """
        self.assertEqual(self.run_command(), self.run_command("--help"))

    def test_module(self) -> None:
        """
        C{python -m relaytunnel} is the same.
        """
        done = subprocess.run(
            [sys.executable, "-m", "relaytunnel"], capture_output=True, text=True, check=True
        )
        self.assertIn("usage: relaytunnel ", done.stdout)
        self.assertIn("demo", done.stdout)

    def test_no_home(self) -> None:
        """
        A user without a home directory is told to name the state directory.
        """
        self.patch(os, "getuid", lambda: 54321)
        self.patch(os, "environ", {})
        code, _, err = self.run_command("agents")
        self.assertEqual(code, 1)
        self.assertIn("--state", err)

    def test_unknown(self) -> None:
        """
        An unknown command is named, with exit code 2.
        """
        code, _, err = self.run_command("unbind")
        self.assertEqual(code, 2)
        self.assertIn("unbind", err)

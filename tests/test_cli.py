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

from relaytunnel.accounts import AccountStore, secrets
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
        self.assertIn("may publish web; ports: 20001-20001", err)

    def test_without_rights(self) -> None:
        """
        An agent that may publish nothing is a thing to be told of.
        """
        code, _, err = self.operate("invite", "office")
        self.assertEqual(code, 0)
        self.assertIn("may publish nothing yet", err)

    def test_rotation(self) -> None:
        """
        While a secret is rotated both are good, until the new one is used.
        """
        old = Invitation.parse(self.operate("invite", "office")[1])
        self.assertTrue(self.authenticate(old))
        new = Invitation.parse(self.operate("invite", "office")[1])
        self.assertTrue(self.authenticate(old))
        self.assertTrue(self.authenticate(new))
        self.assertFalse(self.authenticate(old))

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

    def test_no_state(self) -> None:
        """
        Where no relay was ever started, the error says what to do.
        """
        code, _, err = self.run_command("invite", "--state", self.mktemp(), "office")
        self.assertEqual(code, 1)
        self.assertIn("--state", err)

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
        code, _, err = self.operate("agents")
        self.assertEqual(code, 1)
        self.assertIn("relay.json", err)


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
        self.assertRegex(row, r"^office +web, \*\.office +never +\?$")
        self.assertIn("does not answer", err)

    def test_relay_that_is_gone(self) -> None:
        """
        An admin interface that does not answer is no error.
        """
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
    def check(self, text: str) -> tuple[int, str, str]:
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return self.run_command("check", path)

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

    def test_limits(self) -> None:
        """
        Limits that are not the defaults are listed, in either file.
        """
        limits = "[limits]\nidle = 60\nunauthenticated = 512\npenalty-none = 0.5\n"
        for text in ('[relay]\nname = "relay.example.net"\n', '[agent]\njoin-file = "i"\n'):
            code, out, _ = self.check(text + limits)
            self.assertEqual(code, 0)
            self.assertEqual(
                out.splitlines()[1:],
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

"""
C{twistd agent}: what its command line means.
"""

from __future__ import annotations

from pathlib import Path

from twisted.application.service import IService
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

import relaytunnel
from relaytunnel.tap.agent import Options, makeService

INVITATION = "relaytunnel://office:hush-hush@relay.example:7001/"


class OptionsTests(SynchronousTestCase):
    """
    Options and file, put together.
    """

    def parsed(self, *words: str) -> Options:
        options = Options()
        options.parseOptions(list(words))
        return options

    def refusal(self, *words: str) -> str:
        with self.assertRaises(usage.UsageError) as caught:
            self.parsed(*words)
        reason = str(caught.exception)
        self.assertNotIn("hush-hush", reason)
        return reason

    def file(self, text: str | bytes) -> str:
        path = Path(self.mktemp()).absolute()
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    def test_first_run(self) -> None:
        """
        An invitation and what to publish is all it takes.
        """
        options = self.parsed("--join", INVITATION, "--publish", "web=127.0.0.1:8080")
        self.assertEqual(options.invitation.agent, "office")
        self.assertEqual(options.invitation.port, 7001)
        (server,) = options.agent_config.servers
        self.assertEqual((server.id, server.target), ("web", "tcp:127.0.0.1:8080"))

    def test_several(self) -> None:
        """
        Several servers may be published, one with a port of its own.
        """
        options = self.parsed(
            *("--join", INVITATION, "-p", "web=127.0.0.1:8080"),
            *("-p", "ssh=127.0.0.1:22,port=20022", "-p", "db=unix:/run/db"),
        )
        servers = {server.id: server for server in options.agent_config.servers}
        self.assertEqual(set(servers), {"web", "ssh", "db"})
        self.assertEqual([str(way) for way in servers["ssh"].reach], ["name", "port:20022"])
        self.assertEqual(servers["db"].target, "unix:/run/db")

    def test_join_file(self) -> None:
        """
        The invitation may stand in a file, with a line end behind it.
        """
        options = self.parsed("--join-file", self.file(INVITATION + "\n"))
        self.assertEqual(options.invitation.secret, "hush-hush")

    def test_config(self) -> None:
        """
        A file is read; a server of the command line takes the place of one of
        the same name, and the invitation that of the file's.
        """
        path = self.file(
            '[agent]\njoin-file = "nowhere"\n'
            '[[server]]\nid = "web"\ntarget = "127.0.0.1:1"\n'
            '[[server]]\nid = "shop"\ntarget = "127.0.0.1:2"\n'
        )
        options = self.parsed(
            "--config", path, "--join", INVITATION, "--publish", "web=127.0.0.1:3"
        )
        targets = {server.id: server.target for server in options.agent_config.servers}
        self.assertEqual(targets, {"web": "tcp:127.0.0.1:3", "shop": "tcp:127.0.0.1:2"})

    def test_path_in_config(self) -> None:
        """
        A path in the file is relative to the file.
        """
        path = Path(self.file('[agent]\njoin-file = "invitation-here"\n'))
        (path.parent / "invitation-here").write_text(INVITATION)
        self.assertEqual(self.parsed("--config", str(path)).invitation.agent, "office")

    def test_no_invitation(self) -> None:
        """
        Without an invitation it is said what is missing.
        """
        self.assertIn("join", self.refusal("--publish", "web=127.0.0.1:8080"))

    def test_two_invitations(self) -> None:
        """
        Two of them are one too many.
        """
        reason = self.refusal("--join", INVITATION, "--join-file", "invitation")
        self.assertIn("only one of them", reason)

    def test_bad_invitation(self) -> None:
        """
        What is wrong with an invitation is said, and nothing of it shown.
        """
        for bad, named in (
            ("relaytunnel://office@relay.example", "AGENT:SECRET@"),
            ("https://office:hush-hush@relay.example", "relaytunnel://"),
            ("relaytunnel://office:hush-hush@relay.example:0/", "port"),
            ("relaytunnel://office:hush-hush@relay.example/?pin=sha256:short", "pin"),
        ):
            self.assertIn(named, self.refusal("--join", bad))

    def test_unreadable_join_file(self) -> None:
        """
        A file that cannot be read is named, with the reason.
        """
        self.assertIn(
            "/nowhere/invitation: cannot be read: No such file or directory",
            self.refusal("--join-file", "/nowhere/invitation"),
        )
        self.assertIn("Is a directory", self.refusal("--join-file", "/"))

    def test_join_file_is_no_text(self) -> None:
        """
        So is one that holds something else than text.
        """
        path = self.file(b"\xff\xfe\x00")
        self.assertIn(f"{path}: cannot be read: it is not text", self.refusal("--join-file", path))

    def test_empty_join_file(self) -> None:
        """
        An empty one holds no invitation.
        """
        self.assertIn("empty", self.refusal("--join-file", self.file("")))

    def test_bad_publish(self) -> None:
        """
        A server that cannot be published is quoted, with the reason.
        """
        for bad, reason in (
            ("web", "NAME=TARGET"),
            ("web=", "cannot be empty"),
            ("web=8080", "HOST:PORT"),
            ("we b=127.0.0.1:8080", "we b"),
            ("web=127.0.0.1:http", "http"),
            ("web=127.0.0.1:8080,port=x", "port"),
        ):
            said = self.refusal("--join", INVITATION, "--publish", bad)
            self.assertIn("--publish", said)
            self.assertIn(reason, said)

    def test_published_twice(self) -> None:
        """
        Two servers cannot have one name.
        """
        said = self.refusal("--join", INVITATION, "-p", "web=127.0.0.1:1", "-p", "web=127.0.0.1:2")
        self.assertIn("'web' is given twice", said)

    def test_misspelt_key(self) -> None:
        """
        A key of the file that there is not is named with its place, and the
        one that was probably meant.
        """
        path = self.file('[[server]]\nid = "web"\ntraget = "127.0.0.1:1"\n')
        reason = self.refusal("--config", path, "--join", INVITATION)
        self.assertIn(path, reason)
        self.assertIn("did you mean 'target'?", reason)

    def test_unknown_option(self) -> None:
        """
        An option that there is not is named.
        """
        self.assertIn("--jion", self.refusal("--jion", INVITATION))

    def test_version(self) -> None:
        """
        It is our version that is shown.
        """
        said: list[str] = []
        self.patch(__import__("builtins"), "print", lambda text, **_: said.append(text))
        with self.assertRaises(SystemExit):
            self.parsed("--version")
        self.assertEqual(said, [f"relaytunnel {relaytunnel.__version__}"])

    def test_help(self) -> None:
        """
        The help names every option, in lines without holes.
        """
        text = str(Options())
        told = [line[20:] for line in text.splitlines() if line.startswith(" " * 20)]
        self.assertEqual([line for line in told if "  " in line], [])
        for option in ("config", "join", "join-file", "publish"):
            self.assertIn(f"--{option}", text)

    def test_service(self) -> None:
        """
        A service is made of it.
        """
        self.assertTrue(IService.providedBy(makeService(self.parsed("--join", INVITATION))))

    def test_bad_authorities(self) -> None:
        """
        A file of authorities that holds none ends the program with its name.
        """
        authorities = self.file("no certificates")
        path = self.file(f'[agent]\nca = "{authorities}"\n')
        with self.assertRaises(SystemExit) as caught:
            makeService(self.parsed("--config", path, "--join", INVITATION))
        self.assertIn(authorities, str(caught.exception.code))

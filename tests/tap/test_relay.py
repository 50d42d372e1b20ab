"""
C{twistd relay}: what its command line means.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.application.service import IService
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

import relaytunnel
from relaytunnel.config import RelayConfig
from relaytunnel.tap.relay import Options, makeService
from relaytunnel.tap.starting import Told


class OptionsTests(SynchronousTestCase):
    """
    Options and file, put together.
    """

    def parsed(self, *words: str) -> RelayConfig:
        options = Options()
        options.parseOptions(list(words))
        return options.relay_config

    def refusal(self, *words: str) -> str:
        with self.assertRaises(usage.UsageError) as caught:
            self.parsed(*words)
        return str(caught.exception)

    def file(self, text: str) -> str:
        path = Path(self.mktemp()).absolute()
        path.write_text(text)
        return str(path)

    def test_none(self) -> None:
        """
        Without options all is as by default.
        """
        self.assertEqual(self.parsed(), RelayConfig())

    def test_all(self) -> None:
        """
        Every option has its effect.
        """
        config = self.parsed(
            *("--state", "/tmp/state", "--agents", "tcp:1", "--clients", "tcp:2"),
            *("--clients", "tcp:3", "--admin", "tcp:4", "--name", "Relay.Example."),
        )
        self.assertEqual((config.state, config.agents), ("/tmp/state", "tcp:1"))
        self.assertEqual(config.admin, "tcp:4")
        self.assertEqual(list(map(str, config.clients)), ["tcp:2", "tcp:3"])
        self.assertEqual(config.name, "relay.example")

    def test_no_admin(self) -> None:
        """
        The admin interface can be left out.
        """
        self.assertEqual(self.parsed("--admin", "off").admin, "")

    def test_file(self) -> None:
        """
        A file is read, and options given beside it win.
        """
        path = self.file('[relay]\nname = "a.example"\n[listen]\nagents = "tcp:1"\n')
        config = self.parsed("--config", path, "--agents", "tcp:2")
        self.assertEqual((config.name, config.agents), ("a.example", "tcp:2"))

    def test_no_home(self) -> None:
        """
        Where there is no default for the state, the option is enough, also
        beside a file that names none.
        """
        self.patch(os, "getuid", lambda: 54321)
        self.patch(os, "environ", {})
        path = self.file("[relay]\n")
        for words in ((), ("--config", path)):
            self.assertIn("no home directory", self.refusal(*words))
            self.assertEqual(self.parsed(*words, "--state", "/s").state, "/s")

    def test_unknown_option(self) -> None:
        """
        An option that there is not is named.
        """
        self.assertIn("--agnets", self.refusal("--agnets", "tcp:1"))

    def test_too_much(self) -> None:
        """
        Words that belong to no option are not passed over.
        """
        self.refusal("tcp:7000")

    def test_misspelt_key(self) -> None:
        """
        A key of the file that there is not is named with its place, and the
        one that was probably meant.
        """
        path = self.file('[listen]\nagent = "tcp:1"\n')
        reason = self.refusal("--config", path)
        self.assertIn(f"{path}: [listen] agent: ", reason)
        self.assertIn("did you mean 'agents'?", reason)

    def test_every_fault(self) -> None:
        """
        All faults of a file are told at once.
        """
        path = self.file('[relay]\nname = "a b"\n[listen]\nports = "9-1"\n')
        reason = self.refusal("--config", path)
        self.assertIn("[relay] name", reason)
        self.assertIn("[listen] ports", reason)

    def test_no_file(self) -> None:
        """
        A file that is not there is named.
        """
        self.assertIn("/nowhere/relay.toml", self.refusal("--config", "/nowhere/relay.toml"))

    def test_bad_endpoint(self) -> None:
        """
        An endpoint that is none is named with its place.
        """
        for option, place in (("agents", "agents"), ("clients", "clients"), ("admin", "admin")):
            reason = self.refusal(f"--{option}", "7000")
            self.assertIn(place, reason)
            self.assertIn("'tcp:7000'", reason)

    def test_bad_name(self) -> None:
        """
        A name that is none is quoted.
        """
        self.assertIn("a relay", self.refusal("--name", "a relay"))

    def test_version(self) -> None:
        """
        It is our version that is shown.
        """
        said: list[str] = []
        self.patch(__import__("builtins"), "print", lambda text, **_: said.append(text))
        with self.assertRaises(SystemExit) as caught:
            self.parsed("--version")
        self.assertEqual(caught.exception.code, 0)
        self.assertEqual(said, [f"relaytunnel {relaytunnel.__version__}"])

    def test_help(self) -> None:
        """
        The help names every option.
        """
        text = str(Options())
        for option in ("config", "state", "agents", "clients", "admin", "name"):
            self.assertIn(f"--{option}", text)

    def test_service(self) -> None:
        """
        A service is made of it, which nothing has opened yet.
        """
        options = Options()
        state = Path(self.mktemp()).absolute()
        options.parseOptions(["--state", str(state)])
        service = makeService(options)
        self.assertTrue(IService.providedBy(service))
        self.assertIsInstance(service, Told)
        self.assertFalse(state.exists())

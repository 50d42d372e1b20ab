"""
SSH through relay and agent: a server that speaks first, large copies, and the
relay as the proxy that ssh goes through.
"""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.processes import (
    Program,
    empty_directory,
    free_port,
    missing_programs,
    own_port,
    random_file,
    run,
    sha256_of,
    start_agent,
    start_relay,
)
from tests.programs.test_netcat import unusable as netcat_unusable

SIZE = 200_000_000
"""How much is copied, in bytes."""

CONFIGURATION = """
ListenAddress 127.0.0.1:{port}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


def first_line(port: int) -> bytes:
    """
    Connect, say nothing, and wait for what the server says.
    """
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.settimeout(10)
        line = b""
        while not line.endswith(b"\n") and (piece := client.recv(1)):
            line += piece
        return line


class SecureShellTests(TestCase):
    """
    sshd inside; ssh and scp outside, which know its key and accept no other.
    """

    skip = missing_programs("sshd", "ssh", "scp", "ssh-keygen")

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.directory = directory = empty_directory(self)
        # sshd drops its privileges into this directory, which is made at boot.
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        for key in ("host_key", "user_key"):
            await run(
                self,
                *("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", directory / key),
            )
        shutil.copy(directory / "user_key.pub", directory / "authorized_keys")
        port, self.port = free_port(), own_port()
        configuration = directory / "sshd_config"
        configuration.write_text(CONFIGURATION.format(port=port, directory=directory))
        sshd = Program.start(
            # It starts itself anew for each client, and for that wants its full name.
            self,
            *(shutil.which("sshd") or "sshd", "-D", "-e", "-f", configuration),
        )
        await sshd.wait_for("Server listening on 127.0.0.1")

        self.relay = await start_relay(self, directory / "relay")
        await start_agent(
            self,
            self.relay.invitation,
            [f"ssh=127.0.0.1:{port},port={self.port}", f"shell=127.0.0.1:{port}"],
        )
        host_key = (directory / "host_key.pub").read_text()
        (directory / "known_hosts").write_text(f"the-server {host_key}")
        self.options = [
            *("-F", "none", "-i", str(directory / "user_key")),
            *("-o", f"UserKnownHostsFile={directory / 'known_hosts'}"),
            *("-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes"),
            *("-o", "HostKeyAlias=the-server", "-o", "IdentitiesOnly=yes"),
            *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR"),
        ]
        self.proxies = [
            f"ProxyCommand=nc -X {protocol} -x {self.relay.clients} %h %p"
            for protocol in ("connect", "5")
        ]
        self.user = getpass.getuser()

    async def ssh(self, *words: str) -> None:
        """
        Run a command on the server, which must say what we expect.
        """
        done = await run(
            self, "ssh", *self.options, "-l", self.user, *words, "echo $((6 * 7)); echo no >&2"
        )
        self.assertEqual(done, (0, "42\n", "no\n"))

    async def test_banner(self) -> None:
        """
        The server's first words come to a client that has said nothing.
        """
        line = await deferToThread(first_line, self.port)
        self.assertTrue(line.startswith(b"SSH-2.0-"), line)

    async def test_command(self) -> None:
        """
        A command runs on the server, reached by its own port.
        """
        await self.ssh("-p", str(self.port), "127.0.0.1")

    async def test_large_copy(self) -> None:
        """
        A large file arrives unchanged at the server and comes back unchanged.
        """
        file = self.directory / "file"
        there, back = self.directory / "there", self.directory / "back"
        digest = random_file(file, SIZE)
        server = f"{self.user}@127.0.0.1"
        for source, target in (
            (str(file), f"{server}:{there}"),
            (f"{server}:{there}", str(back)),
        ):
            done = await run(
                self,
                *("scp", "-q", *self.options, "-P", str(self.port), source, target),
                seconds=50,
            )
            self.assertEqual(done.code, 0, done.err)
        for copy in (there, back):
            self.assertEqual(copy.stat().st_size, SIZE)
            self.assertEqual(sha256_of(copy), digest)

    async def test_proxy_command(self) -> None:
        """
        By its ID, the server is reached through netcat as ProxyCommand, in
        both of its protocols that have names.
        """
        for proxy in self.proxies:
            await self.ssh("-o", proxy, "shell")

    async def test_git(self) -> None:
        """
        git pushes and clones over that ssh.
        """
        repository, source = self.directory / "repository", self.directory / "source"
        url = f"{self.user}@shell:{repository}"
        await self.git("init", "--quiet", "--bare", str(repository))
        await self.git("init", "--quiet", str(source))
        digest = random_file(source / "file", 1_000_000)
        inside = ("-C", str(source))
        await self.git(*inside, "add", "file")
        await self.git(
            *(*inside, "-c", "user.name=tester", "-c", "user.email=tester@localhost"),
            *("commit", "--quiet", "--message", "a file"),
        )
        await self.git(*inside, "push", "--quiet", url, "HEAD", proxy=self.proxies[0])
        for number, proxy in enumerate(self.proxies):
            clone = self.directory / f"clone-{number}"
            await self.git("clone", "--quiet", url, str(clone), proxy=proxy)
            self.assertEqual(sha256_of(clone / "file"), digest)

    async def git(self, *words: str, proxy: str | None = None) -> None:
        """
        Run git, which must succeed.

        @param proxy: the option by which ssh finds the relay.
        """
        command = ["ssh", *self.options] if proxy is None else ["ssh", *self.options, "-o", proxy]
        done = await run(
            self,
            *("git", *words),
            environment={
                "GIT_SSH_COMMAND": shlex.join(command),
                "GIT_CONFIG_GLOBAL": "/dev/null",
                "GIT_CONFIG_NOSYSTEM": "1",
            },
        )
        self.assertEqual(done.code, 0, done.err)

    test_proxy_command.skip = skip or netcat_unusable()  # type: ignore[attr-defined]
    test_git.skip = (  # type: ignore[attr-defined]
        skip or netcat_unusable() or missing_programs("git")
    )

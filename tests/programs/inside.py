"""
What stands behind the firewall in several of these tests: nginx, with a
certificate of its own, and an agent that is told by a file what to publish.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from twisted.trial.unittest import TestCase

from tests.processes import (
    Agent,
    Program,
    Relay,
    empty_directory,
    listening_ports,
    start_agent,
    until,
)

__all__ = ["listening", "own_certificate", "publish", "start_nginx"]

NGINX = """
daemon off;
pid {directory}/nginx.pid;
worker_processes 1;
{user}
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type text/plain;
    client_body_temp_path {directory}/client;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{servers}
}}
"""


def own_certificate(directory: Path, *names: str) -> tuple[Path, Path]:
    """
    Make a certificate for these DNS names, signed with its own key.

    @return: the PEM files of the certificate and of its key, which only their
        owner can read.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    files = directory / "certificate.pem", directory / "key.pem"
    contents = (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    for file, content in zip(files, contents, strict=True):
        file.touch(mode=0o600)
        file.write_bytes(content)
    return files


async def start_nginx(testcase: TestCase, ports: Iterable[int], servers: str) -> Program:
    """
    Start nginx and wait until it listens.

    @param ports: where it will listen.
    @param servers: the C{server} blocks of its configuration.
    """
    directory = empty_directory(testcase)
    configuration = directory / "nginx.conf"
    # Its workers would be somebody who may not enter the tests' directory.
    user = "user root;" if os.geteuid() == 0 else ""
    configuration.write_text(NGINX.format(directory=directory, user=user, servers=servers))
    program = Program.start(
        testcase, *("nginx", "-p", directory, "-e", "stderr", "-c", configuration)
    )
    await listening(program, ports)
    return program


async def listening(program: Program, ports: Iterable[int]) -> None:
    """
    Wait until a program that says nothing of it listens on these ports.
    """
    expected = set(ports)

    def listens() -> bool:
        if not program.running:
            raise program.failed(f"ended with {program.code} before it was ready")
        return expected <= listening_ports(program.pid)

    await until(listens, 20, f"{program.command[0]} listens")


async def publish(testcase: TestCase, relay: Relay, servers: str) -> Agent:
    """
    Start an agent and wait until each of its servers is published.

    @param servers: the C{[[server]]} tables of its F{agent.toml}.
    """
    configuration = empty_directory(testcase) / "agent.toml"
    configuration.write_text(servers)
    agent = await start_agent(testcase, relay.invitation, [], "--config", str(configuration))
    for server in tomllib.loads(servers)["server"]:
        await agent.program.wait_for(rf"(?:^|\s){re.escape(server['id'])} is reached at .+\n")
    return agent

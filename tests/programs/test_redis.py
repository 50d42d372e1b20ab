"""
Redis through relay and agent, by a port of its own.
"""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.processes import (
    Program,
    empty_directory,
    free_port,
    missing_programs,
    own_port,
    random_file,
    run,
    start_agent,
    start_relay,
)


class RedisTests(TestCase):
    """
    redis-server inside, redis-cli outside.
    """

    skip = missing_programs("redis-server", "redis-cli")

    async def test_large_value(self) -> None:
        """
        A value of a megabyte, set through the tunnel, is read back unchanged.
        """
        directory = empty_directory(self)
        port, own = free_port(), own_port()
        server = Program.start(
            self,
            *("redis-server", "--port", str(port), "--bind", "127.0.0.1"),
            *("--dir", directory, "--save", "", "--appendonly", "no"),
        )
        await server.wait_for("Ready to accept connections")
        relay = await start_relay(self, directory / "relay")
        await start_agent(self, relay.invitation, [f"redis=127.0.0.1:{port},port={own}"])

        value, got = directory / "value", directory / "got"
        random_file(value, 1 << 20)
        client = ("redis-cli", "-h", "127.0.0.1", "-p", str(own))
        done = await run(self, *client, "-x", "SET", "value", stdin=value)
        self.assertEqual((done.code, done.out), (0, "OK\n"), done.err)
        done = await run(self, *client, "STRLEN", "value")
        self.assertEqual(done.out, f"{1 << 20}\n")
        done = await run(self, *client, "GET", "value", stdout=got)
        self.assertEqual(done.code, 0, done.err)
        # redis-cli ends what it prints with a newline.
        self.assertTrue(got.read_bytes() == value.read_bytes() + b"\n", "another value came back")

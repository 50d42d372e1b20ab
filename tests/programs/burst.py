"""
Many HTTP clients at once, run by the tests as a program of its own.

It knows nothing of relaytunnel.  All connect at the same moment, from one
address; each asks once.  With C{websocket} for a path, each asks for a
WebSocket (RFC 6455), waits for the server's greeting, and stays until the last
one has been greeted and C{STAY} seconds are over.

Usage: C{burst.py PORT HOST PATH COUNT SECONDS SOURCE}

Prints a line of JSON: how often each first line came, or what came instead of
one, how many WebSockets were still open at the end, and after how many seconds
the last client had its answer, and half of them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter

STAY = 2.0

_UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class _Burst:
    def __init__(self, port: int, host: str, path: str, source: str, seconds: float) -> None:
        self.port = port
        self.source = source
        self.seconds = seconds
        self.stays = path == "/chat"
        extra = _UPGRADE if self.stays else "Connection: close\r\n"
        self.request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{extra}\r\n".encode()
        self.answers: Counter[str] = Counter()
        self.times: list[float] = []
        self.open: list[asyncio.Task[bytes]] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.began = time.monotonic()

    async def visit(self) -> None:
        try:
            answer = await asyncio.wait_for(self._ask(), self.seconds)
        except TimeoutError:
            answer = "no answer in time"
        except (OSError, asyncio.IncompleteReadError) as fault:
            answer = type(fault).__name__
        self.times.append(time.monotonic() - self.began)
        self.answers[answer] += 1

    async def _ask(self) -> str:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(self.source, 0)
        )
        self.writers.append(writer)
        writer.write(self.request)
        line = (await reader.readuntil(b"\r\n")).decode("ascii", "replace").strip()
        if not self.stays:
            await reader.read()
            writer.close()
        elif " 101 " in line:
            await reader.readuntil(b"welcome")
            self.open.append(asyncio.create_task(reader.read(1)))
        return line


async def _run(port: int, host: str, path: str, count: int, seconds: float, source: str) -> None:
    burst = _Burst(port, host, path, source, seconds)
    await asyncio.gather(*(burst.visit() for _ in range(count)))
    if burst.open:
        await asyncio.sleep(STAY)
    still = sum(not each.done() for each in burst.open)
    times = sorted(burst.times)
    print(
        json.dumps(
            {
                "answers": burst.answers,
                "open": still,
                "last": times[-1],
                "half": times[len(times) // 2],
            }
        ),
        flush=True,
    )
    for task in burst.open:
        task.cancel()
    for writer in burst.writers:
        writer.transport.abort()


if __name__ == "__main__":
    _port, _host, _path, _count, _seconds, _source = sys.argv[1:]
    asyncio.run(_run(int(_port), _host, _path, int(_count), float(_seconds), _source))

"""
An HTTP server that takes its time, run by the tests as a program of its own.

It knows nothing of relaytunnel.  Each request is answered after so many
seconds, however many there are, and the connection ends behind the answer; one
for C{/stay} is not answered at all.

Usage: C{slow_server.py PORT SECONDS}
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nat last\n"
_BACKLOG = 4096


async def _serve(port: int, seconds: float) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/stay" in head.partition(b"\r\n")[0]:
                await reader.read()
            else:
                await asyncio.sleep(seconds)
                writer.write(_ANSWER)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=_BACKLOG)
    print("serving", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))

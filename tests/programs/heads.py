"""
Heads of HTTP requests that can be read in more than one way.
"""

from __future__ import annotations

from itertools import product

__all__ = ["HEADS", "NAMES"]

NAMES = ("one.test", "two.test")
"""The hosts that these heads name."""

_TARGETS = (
    b"/",
    b"*",
    b"//two.test/",
    b"/\\two.test",
    b"http://one.test/",
    b"HTTP://ONE.test:80/",
    b"http://two.test/",
    b"http://two.test@one.test/",
    b"http://one.test:99999/",
    b"http://one.test#@two.test/",
    b"http:///",
    b"one.test:80",
    b"http://one.test\\@two.test/",
)
_HOSTS = (
    b"Host: one.test",
    b"host:one.test",
    b"Host:\tone.test ",
    b"HOST: ONE.TEST",
    b"Host: one.test.",
    b"Host: one.test:80",
    b"Host: one.test:",
    b"Host: one.test:080",
    b"Host: one.test:x",
    b"Host: one.test:80:81",
    b"Host: two.test@one.test",
    b"Host: one.test two.test",
    b"Host: one.test,two.test",
    b"Host: one.test/two.test",
    b"Host: one.test#two.test",
    b"Host: one.test?two.test",
    b"Host: one.test\\two.test",
    b"Host: one.test\0two.test",
    b"Host: one.test\x7f",
    b"Host: one.test\xff",
    b"Host: one%2etest",
    b"Host:",
    b"Host: ",
    b"Host: [::1]",
    b"Host: [::1",
    b"Host: 127.0.0.1",
    b"Host: 127.1",
    b"Host: 0x7f.1",
    b"Host : one.test",
    b" Host: one.test",
    b"Host: one.test\r\nHost: two.test",
    b"Host: one.test\r\nHost: one.test",
    b"Host: one.test\r\nhost : two.test",
    b"Host: one.test\r\n Host: two.test",
    b"Host: one.test\r\n\ttwo.test",
    b"Host: one.test\nHost: two.test",
    b"Host: one.test\rHost: two.test",
    b"Host: one.test\r\r\nHost: two.test",
    b"X: y\r\nHost: one.test",
    b"X y\r\nHost: one.test",
    b": y\r\nHost: one.test",
    b"X\0: y\r\nHost: one.test",
    b"H\xc3\xb6st: two.test\r\nHost: one.test",
    b"Host_: two.test\r\nHost: one.test",
    b"X-Forwarded-Host: two.test\r\nHost: one.test",
    b"Host: one.test\r\nContent-Length: 0\r\nContent-Length: 0",
    b"Host: one.test\r\nContent-Length: 0\r\nContent-Length: 1",
    b"Host: one.test\r\nContent-Length: +0",
    b"Host: one.test\r\nContent-Length: 0, 0",
    b"Host: one.test\r\nContent-Length: 0\r\nTransfer-Encoding: chunked",
    b"Host: one.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
)
_VERSIONS = (b"HTTP/1.1", b"HTTP/1.0")
_FIRST_LINES = (
    b"GET  / HTTP/1.1",
    b"GET /  HTTP/1.1",
    b"GET / HTTP/1.1 ",
    b" GET / HTTP/1.1",
    b"GET\t/\tHTTP/1.1",
    b"GET / http/1.1",
    b"GET / HTTP/1.2",
    b"GET / HTTP/2.0",
    b"GET / HTTP/1.1\n",
    b"GET /",
    b"GET / ",
    b"G@T / HTTP/1.1",
    b"get / HTTP/1.1",
    b"\r\nGET / HTTP/1.1",
    b"\r\n\r\nGET / HTTP/1.1",
    b"\nGET / HTTP/1.1",
    b"GET /\0 HTTP/1.1",
    b"GET /\xff HTTP/1.1",
)


def _heads() -> list[bytes]:
    plain = [
        b"GET %s %s\r\n%s\r\n\r\n" % (target, version, host)
        for target, version, host in product(_TARGETS, _VERSIONS, _HOSTS)
    ]
    first = [b"%s\r\nHost: one.test\r\n\r\n" % line for line in _FIRST_LINES]
    bare = [b"GET / HTTP/1.1\r\nHost: one.test\n\n", b"GET / HTTP/1.1\nHost: one.test\n\n"]
    alone = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET http://one.test/ HTTP/1.0\r\n\r\n",
    ]
    return [*plain, *first, *bare, *alone]


HEADS = _heads()
"""Each a whole head, or what might be taken for one."""

"""
The inputs that the corpus began with: what real programs say.

C{python -m fuzz.seeds} writes them anew.  What curl says is recorded from curl,
a ClientHello from OpenSSL; the rest is written with the functions that are
there for it.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from contextlib import suppress

import msgspec

from fuzz.catalogue import CORPUS, LARGEST, TARGETS
from relaytunnel.agent import local
from relaytunnel.wire.control import IGNORABLE, frame
from relaytunnel.wire.data import (
    EOF_FRAME,
    RESET_FRAME,
    STOP_FRAME,
    data_frames,
    join_frame,
    plain_preamble,
)
from relaytunnel.wire.invitation import Invitation
from relaytunnel.wire.messages import (
    Accept,
    Cancel,
    Denied,
    Goodbye,
    Hello,
    Message,
    Notify,
    Ping,
    Pong,
    Refuse,
    Register,
    Registered,
    Rejected,
    Restarting,
    StandingRequest,
    Welcome,
    Withdraw,
    Withdrawn,
    encode,
)
from relaytunnel.wire.proxied import proxy_header

__all__ = ["main"]

_TICKET = bytes(range(32))
_PIN = "sha256:" + "A" * 43
_SHA256 = "sha256:" + "0a" * 32
_SCRYPT = f"scrypt:16:8:1:{'ab' * 8}:{'0a' * 32}"
_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
_GSS_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x30"


def _whole(data: bytes, flags: int = 0) -> bytes:
    return bytes((flags << 3,)) + data


def _cut(data: bytes, *lengths: int) -> bytes:
    return bytes((len(lengths), *lengths)) + data


def _dripped(data: bytes) -> bytes:
    return b"\x07" + data


def _hello(host: str | None, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """
    Have OpenSSL say hello.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.maximum_version = newest
    outgoing = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=host)
    with suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def _in_records(hello: bytes, size: int) -> bytes:
    message = hello[5:]
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(each).to_bytes(2, "big") + each for each in pieces)


def _curl(*options: str, answer: bytes = b"") -> bytes:
    """
    Record what curl says to somebody who says nothing but this.
    """
    heard = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def listen() -> None:
            sock, _ = listening.accept()
            with sock:
                sock.settimeout(0.5)
                try:
                    while data := sock.recv(4096):
                        heard.extend(data)
                        if answer:
                            sock.sendall(answer)
                except OSError:
                    pass

        thread = threading.Thread(target=listen)
        thread.start()
        command = ["curl", "-s", "-m", "1", *(each.replace("PORT", str(port)) for each in options)]
        subprocess.run(command, check=False, capture_output=True, timeout=10)
        thread.join()
    return bytes(heard).replace(str(port).encode(), b"8000")


def _arrivals() -> dict[str, bytes]:
    hello, older = _hello("web.example"), _hello("web", ssl.TLSVersion.TLSv1_2)
    to_proxy = ("-x", "http://127.0.0.1:PORT")
    posts = ("-H", "Host: web", "--json", '{"a": 1}', "http://127.0.0.1:PORT/a?b=c")
    login = ("-u", "ann:secret", "-H", "Host: web.example", "http://127.0.0.1:PORT/")
    tunnel = (*to_proxy, "-U", "ann:secret", "https://web.example/")
    by_name = ("-x", "socks5h://127.0.0.1:PORT", "http://web/")
    by_older = ("-x", "socks4a://127.0.0.1:PORT", "http://web/")
    socks = b"\x05\x01\x00" + b"\x05\x01\x00\x03\x03web\x00\x50"
    with_login = b"\x05\x02\x00\x02\x01\x03ann\x06secret\x05\x01\x00\x03\x03web\x00\x16"
    postgres = _SSL_REQUEST + hello
    browser = (
        b"GET /.relaytunnel/?server=web&to=%2Fa HTTP/1.1\r\nHost:\r\nAccept: text/html,"
        b"application/xhtml+xml;q=0.9,*/*;q=0.8\r\nCookie: a=b; relaytunnel=db.example\r\n\r\n"
    )
    return {
        "curl-get": _whole(_curl("-H", "Host: web.example:8000", "http://127.0.0.1:PORT/")),
        "curl-get-dripped": _dripped(_curl("-H", "Host: nobody", "http://127.0.0.1:PORT/")),
        "curl-head": _whole(_curl("-I", "-H", "Host: web", "http://127.0.0.1:PORT/")),
        "curl-json": _cut(_curl(*posts), 3, 40),
        "curl-http10": _whole(_curl("-0", "-H", "Host;", "http://127.0.0.1:PORT/")),
        "curl-login": _whole(_curl(*login)),
        "curl-proxy": _whole(_curl(*to_proxy, "http://web.example/a#b"), 1),
        "curl-connect": _cut(_curl(*tunnel), 8, 30),
        "curl-options": _whole(_curl("-X", "OPTIONS", *to_proxy, "http://web")),
        "curl-websocket": _whole(
            _curl(*to_proxy, "-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "http://web")
        ),
        "curl-socks5": _whole(_curl(*by_name, answer=b"\x05\x00")),
        "curl-socks4a": _cut(_curl(*by_older), 8),
        "socks5": _dripped(socks + b"GET / HTTP/1.0\r\n\r\n"),
        "socks5-login": _cut(with_login, 4, 12),
        "openssl-13": _whole(hello),
        "openssl-12": _cut(older, 5, 60),
        "openssl-no-name": _whole(_hello(None)),
        "openssl-records": _whole(_in_records(older, 50)),
        "openssl-dripped": _dripped(older),
        "postgres": _cut(postgres, 8),
        "postgres-gss": _whole(_GSS_REQUEST + postgres),
        "postgres-startup": _whole(b"\x00\x00\x00\x12\x00\x03\x00\x00user\x00ann\x00\x00"),
        "postgres-cancel": _whole(
            b"\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x00\x01\x00\x00\x00\x02"
        ),
        "browser-chooses": _whole(browser),
        "browser-chose-before": _whole(browser.replace(b"server=web", b"server=gone"), 4),
        "terminal": _cut(b"\r\nhelp me\r\n2\r\nls\r\n", 2, 9, 3),
        "terminal-gives-up": _whole(b"a b\nc\nd\ne\nf\n", 4),
        "ssh": _whole(b"SSH-2.0-OpenSSH_9.2\r\n"),
        "unknown": _whole(b"\x80\x80\x01\x03\x01", 2),
        "http2": _whole(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        "smuggling": _whole(
            b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
    }


def _messages() -> list[Message]:
    failing = {"code": "busy", "reason": "too many of them"}
    return [
        Hello(version=1, agent="office", secret="s" * 43, epoch=1, software="relaytunnel/1"),
        Welcome(relay="relay.example", node="a", sessions=4096, ping=15.0),
        Denied(**failing, retry_after=60.0),
        Register(
            connection_id="web",
            reach=("name", "host:web.example", "port:0", "sni:*.example"),
            allow=("10.0.0.0/8",),
            users=(("ann", _SCRYPT),),
            listed=True,
            sessions_per_client=4,
            wants_address=True,
        ),
        Registered(connection_id="web", reach=("http://web.example:8000",)),
        StandingRequest(connection_id="web"),
        Rejected(connection_id="web", **failing),
        Withdraw(connection_id="web"),
        Withdrawn(connection_id="web"),
        Notify(
            session=7,
            connection_id="web",
            ticket=_TICKET,
            client="192.0.2.1:5000",
            arrived="host:web.example",
            came_to="192.0.2.9:80",
            user="ann",
            password="secret",
        ),
        Accept(session=7, channel=3),
        Refuse(session=7, **failing),
        Cancel(session=7),
        Ping(number=2**40),
        Pong(number=1),
        Restarting(reconnect_in=10.0, try_for=60.0),
        Goodbye(code="shutdown", reason="the relay stops"),
    ]


def _controls() -> dict[str, bytes]:
    messages = _messages()
    found = {type(each).__name__.lower(): _cut(frame(each), 1, 5) for each in messages}
    agent = [each for each in messages if isinstance(each, Hello | Register | Accept | Ping)]
    unknown = msgspec.msgpack.encode({"t": "later", "x": [1, None, {"a": 1.5}]})
    header = len(unknown).to_bytes(2, "big")
    return found | {
        "stay": _cut(b"".join(map(frame, agent)), 2, 100, 30),
        "unknown-ignored": _whole(bytes((IGNORABLE,)) + header + unknown + frame(Ping(number=0))),
        "unknown": _whole(b"\x00" + header + unknown),
        "too-long": _whole(b"\x00\x04\x01"),
    }


def _datas() -> dict[str, bytes]:
    session = join_frame(_TICKET) + data_frames(b"hello") + data_frames(b"x" * 300) + EOF_FRAME
    return {
        "session": _cut(session + session, 1, 36, 3, 4),
        "dripped": _dripped(session),
        "reset": _whole(join_frame(_TICKET) + RESET_FRAME),
        "stop": _whole(join_frame(_TICKET) + STOP_FRAME),
        "empty": _whole(b"\x02\x00\x00"),
        "too-long": _cut(b"\x02\x40\x00", 2),
        "plain": _whole(plain_preamble(_TICKET) + b"GET /", 1),
        "half-plain": _whole(plain_preamble(_TICKET)[:20], 1),
    }


def _headers() -> dict[str, bytes]:
    found = {}
    quad, other = ("192.0.2.1", 5000), ("2001:db8::2", 443)
    for version in ("v1", "v2"):
        for name, ends in (("4", (quad, quad)), ("6", (other, other)), ("mixed", (quad, other))):
            header = proxy_header(version, *ends, "web.example")
            found[f"{version}-{name}"] = _cut(header + b"GET /", 1, 12)
        found[f"{version}-nobody"] = _whole(proxy_header(version, None, None) + b"x")
    # Recorded from HAProxy 2.6.12, "send-proxy-v2 proxy-v2-options crc32c,unique-id".
    found["haproxy"] = _whole(
        bytes.fromhex(
            "0d0a0d0a000d0a515549540a211100167f0000017f0000019c986f380300044fc35869050000"
        )
    )
    found["v2-unix"] = _whole(
        b"\r\n\r\n\0\r\nQUIT\n\x21\x31\x00\xd8" + b"/run/s".ljust(216, b"\0")
    )
    return found


_RELAY = """
[relay]
name = "relay.example"
state = "state"
[listen]
agents = "tcp:7000"
clients = ["tcp:8000", {endpoint = "tcp:8001", default = "web"}]
admin = "tcp:7080:interface=127.0.0.1"
ports = "20000-20999"
proxies = ["10.0.0.0/8"]
[tls]
certificate = "cert.pem"
key = "key.pem"
[limits]
ping = 5
held = 65536
[[agent]]
id = "office"
secret-hash = "{hash}"
publish = ["web", "*.office"]
ports = ["20001", "20010-20019"]
"""
_AGENT = """
[agent]
join-file = "invitation"
ca = "ca.pem"
local = "agent.sock"
[[server]]
id = "web"
target = "127.0.0.1:8080"
reach = ["name", "host:*.example.net", "port:0"]
allow = ["192.0.2.0/24", "::1"]
listed = true
sessions-per-client = 5
proxy = "v2"
[[server]]
id = "db"
target = "unix:/run/db"
reach = ["sni:db.example"]
data = "plain"
[[server]]
id = "private"
target = "tcp:localhost:80"
users = {ann = "HASH"}
"""


def _exchanges() -> dict[str, bytes]:
    """
    What client and server say in turn, the client first.
    """
    get = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
    other = get.replace(b"web", b"other")
    chunked = (
        b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    endless = b"HTTP/1.0 200 OK\r\n\r\nok"
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\na: b\r\n\r\n"
    upgrade = get.replace(b"\r\n\r\n", b"\r\nUpgrade: chat\r\nConnection: upgrade\r\n\r\n")
    switched = b"HTTP/1.1 101 Switching\r\n\r\n\0"

    def turns(*said: bytes) -> bytes:
        return _cut(b"".join(said), *map(len, said[:-1]))

    return {
        "in-turn": turns(b"abc" + get, ok, get, ok, other, ok),
        "at-once": turns(b"abc" + get + other, ok + ok),
        "chunks": turns(b"abc" + chunked, ok + chunks, other),
        "granted": turns(b"abc" + upgrade + b"\0", ok + switched, b"\1", b"\2"),
        "refused": turns(b"abc" + upgrade + get, ok + ok, b"", ok),
        "endless": turns(b"abc" + other, endless, get),
        "early": turns(b"ab", ok, b"c"),
        "out-of-turn": turns(b"abc", ok + ok),
        "proxy": turns(b"abc" + get.replace(b" / ", b" http://web/ "), ok + ok),
        "dripped": _dripped(b"abc" + get),
    }


def _all() -> dict[str, dict[str, bytes]]:
    invitation = str(Invitation("office", "s" * 43, "relay.example", 7000, _PIN))
    refusal = (
        b"HTTP/1.1 404 Not Found: no server\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 12\r\n\r\nno server: x"
    )
    json = msgspec.json.encode
    return {
        "arrival": _arrivals(),
        "authority": {
            "name": b"Web.Example.:8080",
            "underscore": b"my_web",
            "ipv4": b"192.0.2.1:80",
            "ipv6": b"[2001:db8::1]:443",
            "mapped": b"[::ffff:192.0.2.1]",
            "number": b"127.1",
            "user": b"ann@web",
            "zone": b"[fe80::1%25eth0]",
        },
        "asking": {
            "path": b"/a/b?c=d\ntext/html\nweb",
            "chosen": b"/.relaytunnel/?server=web&to=%2Fa%3Fb\napplication/json",
            "search": b"/.relaytunnel/?q=we+b<script>\ntext/html;q=0.5, text/plain\nnobody",
            "elsewhere": b"/.relaytunnel/?server=db.example&to=//evil.example\n*/*",
            "exact": b"/.relaytunnel/?q=web.example\napplication/problem+json;q=1.000",
        },
        "exchange": _exchanges(),
        "credentials": {
            "login": b"Basic YW5uOnNlY3JldA==\na=b; relaytunnel=web",
            "utf-8": b"basic w6Q6w7Y=\nrelaytunnel=web; relaytunnel=db",
            "bearer": b"Bearer abc\n a=b ;relaytunnel= x",
        },
        "control": _controls(),
        "message": {type(each).__name__.lower(): encode(each) for each in _messages()},
        "data": _datas(),
        "proxied": _headers(),
        "invitation": {
            "pinned": invitation.encode(),
            "bare": b"relaytunnel://a:b@localhost",
            "ipv6": b"RELAYTUNNEL://a:%C3%A4@[2001:db8::1]:443/",
            "foreign": "relaytunnel://a:b@bücher.example:7000/?pin=".encode() + _PIN.encode(),
        },
        "toml": {
            "relay": _RELAY.replace("{hash}", _SHA256).encode(),
            "agent": _AGENT.replace("HASH", _SCRYPT).encode(),
            "faulty": b'[relay]\nnome = 1\n[limits]\nping = "x"\n[[agent]]\nid = ""\n',
            "no-toml": b"[relay\n",
            "join": f'[agent]\njoin = "{invitation}"\n'.encode(),
        },
        "names": {
            "name": b"Web-1.example",
            "foreign": "bücher.example".encode(),
            "a-label": b"xn--bcher-kva.example.",
            "pattern": b"*.example",
            "reach": b"host:*.example",
            "port": b"port:20001",
            "range": b"20000-20999",
            "target": b"tcp:localhost:80",
            "unix": b"unix:/run/db",
            "listening": b"tcp:8000:interface=127.0.0.1",
            "address": b"[::1]:80",
        },
        "local": {
            "publish": _whole(json(local.Publish("web=127.0.0.1:80,port=0,listed")) + b"\n"),
            "withdraw": _cut(
                json(local.Withdraw("web")) + b"\n" + json(local.Withdraw("x")) + b"\n", 9, 40
            ),
            "rejected": _whole(json(local.Publish("no=127.0.0.1:80")) + b"\n"),
            "later": _whole(json(local.Publish("later=127.0.0.1:80,proxy=v2")) + b"\nx\n"),
            "surrogate": _whole(b'{"ask":"withdraw","server":"\\ud83d\\ude00\\u202e"}\n'),
        },
        "stored": {
            "generated": _SHA256.encode(),
            "chosen": _SCRYPT.encode(),
            "usual": f"scrypt:131072:8:1:{'ab' * 16}:{'0a' * 32}".encode(),
            "one-block": f"scrypt:65536:1:1:{'ab' * 16}:{'0a' * 32}".encode(),
            "too-much": f"scrypt:1073741824:8:1:{'ab' * 16}:{'0a' * 32}".encode(),
        },
        "answer": {
            "granted": _cut(b"HTTP/1.1 200 Connection established\r\n\r\nSSH-2.0-x\r\n", 20, 30),
            "refused": _cut(refusal, 9, 100),
            "first-a-word": _dripped(b"HTTP/1.1 100 Continue\r\n\r\n" + refusal),
            "chunked": _whole(
                refusal.replace(b"Content-Length: 12", b"Transfer-Encoding: chunked")
            ),
            "endless": _whole(refusal.replace(b"Content-Length: 12\r\n", b"") + b"\x1b[31m\n"),
        },
        "request": {
            "login": b"web\nann\nse:cret",
            "name": b"web.example\nann\n",
            "place": b"relay.example:8000",
            "ipv6": b"[::1]:8000",
        },
    }


def main() -> int:
    """
    Write them.

    @return: the exit code.
    """
    inputs = _all()
    assert set(inputs) == set(TARGETS), set(inputs) ^ set(TARGETS)
    for target, named in inputs.items():
        directory = CORPUS / target
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in named.items():
            assert len(data) < LARGEST, (target, name, len(data))
            (directory / name).write_bytes(data)
        print(f"{target}: {len(named)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""
Visits from this machine: what is asked and answered, C{connect} on standard
input and output, and C{forward}.

A listening socket plays the relay; what runs as a program is a process of its
own.  How a real relay answers is tested with the relay.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Timer
from typing import IO, Any

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from relaytunnel.errors import ProtocolError
from relaytunnel.visiting.asking import Answer, AnswerReader, HostPort, asking_for
from relaytunnel.visiting.forwarding import Forward
from tests.processes import until

PATIENCE = 30
GRANTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
REFUSED = (
    b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 49\r\n"
    b"\r\nno-such-server: no server is published as 'web'.\n"
)
SAID = "404 Not Found: no-such-server: no server is published as 'web'."


class HostPortTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """
        A relay is a host, or a host and a port; 8000 is meant where none is
        given.
        """
        for text, host, port, shown in (
            ("relay", "relay", 8000, "relay:8000"),
            ("Relay.Example.net:80", "relay.example.net", 80, "relay.example.net:80"),
            ("192.0.2.1:1", "192.0.2.1", 1, "192.0.2.1:1"),
            ("[::1]", "::1", 8000, "[::1]:8000"),
            ("[2001:db8:0::1]:65535", "2001:db8::1", 65535, "[2001:db8::1]:65535"),
        ):
            address = HostPort.parse(text)
            self.assertEqual((address.host, address.port, str(address)), (host, port, shown))

    def test_nonsense(self) -> None:
        """
        What is neither is refused, with a reason that quotes it.
        """
        for text in (
            *("", ":80", "relay:", "relay:0", "relay:65536", "relay:x", "re lay", "relay:1:2"),
            *("::1", "[]", "[::1", "[::1]80", "[::1]:", "[relay]:80", "[::1]x:80", "http://relay"),
        ):
            fault = self.assertRaises(ValueError, HostPort.parse, text)
            self.assertTrue(str(fault).isprintable(), text)


class AskingTests(SynchronousTestCase):
    def test_request(self) -> None:
        """
        The request names the server, twice and the same.
        """
        self.assertEqual(
            asking_for("web.office"),
            b"CONNECT web.office:1 HTTP/1.1\r\nHost: web.office:1\r\nAccept: text/plain\r\n\r\n",
        )

    def test_login(self) -> None:
        """
        User and password go along as RFC 7617 has it, in UTF-8.
        """
        self.assertIn(
            b"\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n",
            asking_for("web", ("Aladdin", "open sesame")),
        )
        self.assertIn(b"Basic dGVzdDoxMjPCow==\r\n", asking_for("web", ("test", "123£")))


class AnswerTests(SynchronousTestCase):
    def read(self, *pieces: bytes) -> tuple[Answer | None, bytes]:
        """
        @return: the answer, and what came behind it as far as it was fed.
        """
        reader = AnswerReader()
        for number, piece in enumerate(pieces):
            answer = reader.feed(piece)
            if answer is not None:
                return answer, reader.rest + b"".join(pieces[number + 1 :])
        return None, b""

    def test_granted_wherever_it_is_cut(self) -> None:
        """
        What comes behind the head is the server's, to the byte, whatever it
        looks like and wherever the stream is cut.
        """
        server = b"\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n\x00\xff"
        stream = GRANTED + server
        for cut in range(len(stream) + 1):
            answer, rest = self.read(stream[:cut], stream[cut:])
            assert answer is not None
            self.assertEqual((answer.status, rest), (200, server), cut)
            self.assertTrue(answer.granted)

    def test_granted_byte_by_byte(self) -> None:
        """
        The answer stands as soon as its head does.
        """
        reader = AnswerReader()
        answers = [reader.feed(GRANTED[at : at + 1]) for at in range(len(GRANTED))]
        self.assertEqual(answers[:-1], [None] * (len(GRANTED) - 1))
        self.assertEqual(answers[-1], Answer(200, "Connection established"))

    def test_fields_frame_nothing(self) -> None:
        """
        There is no body behind a 2xx, whatever the fields say (RFC 9110 9.3.6).
        """
        for field in (b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X:"):
            answer, rest = self.read(b"HTTP/1.0 299\r\n" + field + b"\r\n\r\nhello")
            self.assertEqual((answer, rest), (Answer(299, ""), b"hello"))

    def test_refused_wherever_it_is_cut(self) -> None:
        """
        A refusal is told by its status and the first line behind it.
        """
        for cut in range(len(REFUSED) + 1):
            answer, _ = self.read(REFUSED[:cut], REFUSED[cut:])
            self.assertEqual(str(answer), SAID, cut)
            assert answer is not None
            self.assertFalse(answer.granted)

    def test_reason_twice(self) -> None:
        """
        What the body only repeats is told once.
        """
        answer = Answer(404, "no server is published as web", "no-such-server: no server is")
        self.assertEqual(str(answer), f"404 {answer.reason}: {answer.said}")
        said = f"no-such-server: {answer.reason}"
        for reason in (answer.reason, f"Not Found: {answer.reason}"):
            self.assertEqual(str(Answer(404, reason, said)), f"404 {said}")

    def test_signs_of_life(self) -> None:
        """
        Answers of 1xx precede the one that counts, but for 101, which would be
        another protocol.
        """
        early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        answer, rest = self.read(early + GRANTED + b"hello")
        self.assertEqual((answer, rest), (Answer(200, "Connection established"), b"hello"))
        answer, _ = self.read(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + GRANTED)
        self.assertEqual(str(answer), "101 Switching Protocols")

    def test_bodies_for_programs(self) -> None:
        """
        Only plain text is shown, and nothing of it that a terminal would obey.
        """
        head = b"HTTP/1.1 502 Bad\x80 Gateway\r\nContent-%b\r\n\r\n"
        for field, body, shown in (
            (b"Type: text/html", b"<p>\n", ""),
            (b"Type: text/plain\r\nTransfer-Encoding: chunked", b"3\r\nyes\r\n", ""),
            (b"Length: 3", b"yes", ""),
            (b"Type: text/plain\r\nContent-Length: 3", b"yes, no\n", ": yes"),
            (b"Type: text/plain\r\nContent-Length: 0", b"", ""),
            (b"Type: TEXT/plain", b"\x1b[2Jgr\xc3\xbcn\x07\r\nno", ": ?[2Jgrün?"),
            (b"Type: text/plain", b"x" * 2000, ": " + "x" * 300 + "..."),
        ):
            answer, _ = self.read(head % field + body)
            self.assertEqual(str(answer), f"502 Bad\ufffd Gateway{shown}")

    def test_cut_off(self) -> None:
        """
        A refusal stands although its body is not complete; half a head is no
        answer.
        """
        for cut in range(len(REFUSED)):
            reader = AnswerReader()
            if reader.feed(REFUSED[:cut]) is not None:
                continue
            if b"\r\n\r\n" in REFUSED[:cut]:
                self.assertTrue(SAID.startswith(str(reader.cut_off("it ended"))), cut)
            else:
                fault = self.assertRaises(ProtocolError, reader.cut_off, "it ended")
                self.assertEqual(str(fault), "it ended")

    def test_malformed(self) -> None:
        """
        What two readers could understand differently is no answer.
        """
        for stream in (
            b"SSH-2.0-OpenSSH",  # at once: it would wait for us
            b"http/1.1 200 OK\r\n\r\n",
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/1.2 200 OK\r\n\r\n",
            b"HTTP/1.1  200 OK\r\n\r\n",
            b"HTTP/1.1 0200 OK\r\n\r\n",
            b"HTTP/1.1 600 OK\r\n\r\n",
            b"HTTP/1.1 200OK\r\n\r\n",
            b"HTTP/1.1 200 O\nK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n folded: y\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: y\nZ: z\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: y\rz\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nnonsense",
        ):
            self.assertRaises(ProtocolError, self.read, stream)

    def test_endless(self) -> None:
        """
        A head has 16 KiB at most, with its end; a reader holds no more.
        """
        begun = b"HTTP/1.1 200 OK\r\nX: "
        longest = begun + b"x" * (16 * 1024 - len(begun) - 4) + b"\r\n\r\n"
        answer, rest = self.read(longest + b"hello")
        self.assertEqual((answer, rest), (Answer(200, "OK"), b"hello"))
        self.assertRaises(ProtocolError, self.read, longest[:-4] + b"x\r\n\r\n")
        self.assertRaises(ProtocolError, self.read, longest[:-4] + b"xxxx")


class Programs:
    """
    A relay that is played by the test, and programs that dial it.
    """

    addCleanup: Callable[..., None]
    mktemp: Callable[[], str]

    def play_relay(self) -> None:
        self.relay = socket.create_server(("127.0.0.1", 0))
        self.relay.settimeout(PATIENCE)
        self.addCleanup(self.relay.close)
        self.via = f"127.0.0.1:{self.relay.getsockname()[1]}"

    def start(
        self, *arguments: str, environment: dict[str, str] | None = None, **streams: Any
    ) -> subprocess.Popen[bytes]:
        """
        Start the command; it is gone when the test is over.
        """
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-m", "relaytunnel.cli", *arguments],
            env={**os.environ, **(environment or {})},
            **{"stdin": pipe, "stdout": pipe, "stderr": pipe, "bufsize": 0, **streams},
        )
        overdue = Timer(PATIENCE, process.kill)
        overdue.start()

        def stop() -> None:
            overdue.cancel()
            overdue.join()
            process.kill()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
            process.wait(PATIENCE)

        self.addCleanup(stop)
        return process

    def connect(self, *arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
        return self.start("connect", "web", "--via", self.via, *arguments, **streams)

    def asked(self, answer: bytes = GRANTED) -> socket.socket:
        """
        Take the next connection, hear whom it asks for, and answer.
        """
        far, _ = self.relay.accept()
        self.addCleanup(far.close)
        far.settimeout(PATIENCE)
        self.request = b""
        while not self.request.endswith(b"\r\n\r\n"):
            self.request += far.recv(1)
        far.sendall(answer)
        return far


def everything(source: socket.socket | IO[bytes]) -> bytes:
    """
    Read until the end.
    """
    read = source.recv if isinstance(source, socket.socket) else source.read
    return b"".join(iter(lambda: read(1 << 16), b""))


def abort(sock: socket.socket) -> None:
    """
    Reset a connection.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def hashed(pieces: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


class ConnectTests(Programs, SynchronousTestCase):
    def setUp(self) -> None:
        self.play_relay()

    def ends(self, process: subprocess.Popen[bytes], code: int, said: str = "") -> None:
        """
        The program ends with this code, and has said this on standard error.
        """
        assert process.stderr is not None
        err = process.stderr.read().decode()
        self.assertEqual((process.wait(PATIENCE), err), (code, said))

    def test_client_ends_first(self) -> None:
        """
        The end of standard input is the server's end; the answer still flows,
        behind what the server had said at once.
        """
        process = self.connect()
        far = self.asked(GRANTED + b"220 hello\r\n")
        self.assertEqual(self.request, asking_for("web"))
        assert process.stdin is not None and process.stdout is not None
        self.assertEqual(process.stdout.read(11), b"220 hello\r\n")
        process.stdin.write(b"question")
        process.stdin.close()
        self.assertEqual(everything(far), b"question")
        far.sendall(b"answer")
        far.shutdown(socket.SHUT_WR)
        self.assertEqual(everything(process.stdout), b"answer")
        self.ends(process, 0)

    def test_server_ends_first(self) -> None:
        """
        The server's end closes standard output; standard input still flows.
        """
        process = self.connect()
        far = self.asked()
        assert process.stdin is not None and process.stdout is not None
        far.sendall(b"go on")
        far.shutdown(socket.SHUT_WR)
        self.assertEqual(everything(process.stdout), b"go on")
        process.stdin.write(b"one")
        self.assertEqual(far.recv(3), b"one")
        process.stdin.write(b"two")
        process.stdin.close()
        self.assertEqual(everything(far), b"two")
        self.ends(process, 0)

    def test_both_ways_at_once(self) -> None:
        """
        20 MiB go each way at the same time, unharmed.
        """
        up, down = os.urandom(20 << 20), os.urandom(20 << 20)
        process = self.connect()
        far = self.asked()
        assert process.stdin is not None and process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def send_up() -> None:
            view = memoryview(up)
            while view:
                view = view[stdin.write(view) :]
            stdin.close()

        def send_down() -> None:
            far.sendall(down)
            far.shutdown(socket.SHUT_WR)

        with ThreadPoolExecutor(4) as threads:
            sending = [threads.submit(send_up), threads.submit(send_down)]
            arrived = [
                threads.submit(hashed, iter(lambda: far.recv(1 << 16), b"")),
                threads.submit(hashed, iter(lambda: stdout.read(1 << 16), b"")),
            ]
            for each in sending:
                each.result()
            self.assertEqual([each.result() for each in arrived], [sha256(up), sha256(down)])
        self.ends(process, 0)

    def test_files(self) -> None:
        """
        Standard input and output may be files, which no reactor waits for.
        """
        source, sink = Path(self.mktemp()), Path(self.mktemp())
        body = os.urandom(1 << 20)
        source.write_bytes(body)
        with source.open("rb") as stdin, sink.open("wb") as stdout:
            process = self.connect(stdin=stdin, stdout=stdout)
        far = self.asked()
        self.assertEqual(everything(far), body)
        far.sendall(body[::-1])
        far.close()
        self.ends(process, 0)
        self.assertEqual(sink.read_bytes(), body[::-1])

    def test_one_socket(self) -> None:
        """
        If one socket is both, its direction outwards ends although the socket
        is still read.
        """
        near, theirs = socket.socketpair()
        with near:
            near.settimeout(PATIENCE)
            with theirs:
                process = self.connect(stdin=theirs, stdout=theirs)
            far = self.asked()
            far.sendall(b"bye")
            far.shutdown(socket.SHUT_WR)
            self.assertEqual(everything(near), b"bye")
            near.sendall(b"one more thing")
            near.shutdown(socket.SHUT_WR)
            self.assertEqual(everything(far), b"one more thing")
            self.ends(process, 0)

    def test_non_blocking(self) -> None:
        """
        Whoever shares standard input and output may have made them
        non-blocking, and finds them as they were.
        """
        near, theirs = socket.socketpair()
        with near, theirs:
            near.settimeout(PATIENCE)
            theirs.setblocking(False)
            process = self.connect(stdin=theirs, stdout=theirs)
            far = self.asked()
            near.sendall(b"question")
            self.assertEqual(far.recv(8), b"question")
            body = bytes(4 << 20)
            with ThreadPoolExecutor(1) as threads:
                sending = threads.submit(far.sendall, body)
                received = 0
                while received < len(body):
                    received += len(near.recv(1 << 16))
                sending.result()
            self.assertFalse(os.get_blocking(theirs.fileno()))
            far.shutdown(socket.SHUT_WR)
            near.shutdown(socket.SHUT_WR)
            self.ends(process, 0)

    def test_nothing_to_read_or_write(self) -> None:
        """
        A shell may close standard input and output: no socket takes their
        place.
        """
        command = f"exec {sys.executable} -m relaytunnel.cli connect web --via {self.via} <&- >&-"
        process = subprocess.Popen(["sh", "-c", command], stderr=subprocess.PIPE)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        far = self.asked()
        self.assertEqual(everything(far), b"")
        far.sendall(b"for nobody")
        far.close()
        assert process.stderr is not None
        with process.stderr:
            self.ends(process, 0)

    def test_slow_reader(self) -> None:
        """
        A reader that pauses stops the server, and gets everything later.
        """
        process = self.connect()
        far = self.asked()
        assert process.stdout is not None
        body = os.urandom(64 << 20)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        far.settimeout(0.5)
        view = memoryview(body)
        with contextlib.suppress(TimeoutError):
            while view:
                view = view[far.send(view) :]
        self.assertGreater(len(view), 40 << 20)
        self.assertLess(resident(process.pid), 200 << 20)
        far.settimeout(PATIENCE)

        def send_the_rest() -> None:
            far.sendall(view)
            far.close()

        assert process.stdin is not None
        process.stdin.close()
        stdout = process.stdout
        with ThreadPoolExecutor(1) as threads:
            rest = threads.submit(send_the_rest)
            arrived = hashed(iter(lambda: stdout.read(1 << 16), b""))
            rest.result()
        self.assertEqual(arrived, sha256(body))
        self.ends(process, 0)

    def test_refused(self) -> None:
        """
        What the relay says is told, with exit code 1 and nothing on standard
        output.
        """
        process = self.connect()
        self.asked(REFUSED)
        self.ends(process, 1, f"relaytunnel: the relay at {self.via} says {SAID}\n")
        assert process.stdout is not None
        self.assertEqual(process.stdout.read(), b"")

    def test_no_relay(self) -> None:
        """
        Whatever else may listen there is not taken for a relay.
        """
        process = self.connect()
        self.asked(b"SSH-2.0-x\r\n")
        reason = f"what is at {self.via} does not answer as a relay: the answer is not of HTTP/1"
        self.ends(process, 1, f"relaytunnel: {reason}\n")

    def test_unreachable(self) -> None:
        """
        A relay that is not there is named, with the reason.
        """
        self.relay.close()
        process = self.connect()
        line = f"relaytunnel: cannot reach the relay at {self.via}: Connection refused\n"
        self.ends(process, 1, line)

    def test_reset(self) -> None:
        """
        A reset ends it although standard input is open and silent.
        """
        process = self.connect()
        far = self.asked(GRANTED + b"x")
        assert process.stdout is not None
        self.assertEqual(process.stdout.read(1), b"x")
        abort(far)
        self.ends(process, 1, "relaytunnel: the connection to web was reset\n")

    def test_reset_behind_the_end(self) -> None:
        """
        So does a reset that comes behind the server's end.
        """
        process = self.connect()
        far = self.asked()
        far.sendall(b"last words")
        far.shutdown(socket.SHUT_WR)
        assert process.stdout is not None
        self.assertEqual(everything(process.stdout), b"last words")
        abort(far)
        self.ends(process, 1, "relaytunnel: the connection to web was reset\n")

    def test_signals(self) -> None:
        """
        A signal ends it without a word, and the server sees a reset, never a
        clean end.
        """
        one, two = self.connect(), self.connect()
        assert one.stdout is not None and two.stdout is not None
        connected = [self.asked(GRANTED + b"x"), self.asked(GRANTED + b"x")]
        self.assertEqual((one.stdout.read(1), two.stdout.read(1)), (b"x", b"x"))
        one.send_signal(signal.SIGINT)
        self.ends(one, -signal.SIGINT)
        two.send_signal(signal.SIGTERM)
        self.ends(two, -signal.SIGTERM)
        for far in connected:
            self.assertRaises(ConnectionResetError, far.recv, 1)

    def test_reader_that_has_gone(self) -> None:
        """
        Who has had enough of the output ends it, as any program in a pipe.
        """
        process = self.connect()
        far = self.asked(GRANTED + b"x")
        assert process.stdout is not None
        self.assertEqual(process.stdout.read(1), b"x")
        process.stdout.close()
        far.sendall(b"y")
        self.ends(process, -signal.SIGPIPE)
        self.assertRaises(ConnectionResetError, far.recv, 1)

    def test_everybody_has_gone(self) -> None:
        """
        When there is neither anything to read nor a reader, it does not wait
        for the server; what was read before is delivered.
        """
        process = self.connect()
        far = self.asked()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"goodbye")
        process.stdin.close()
        process.stdout.close()
        self.ends(process, -signal.SIGPIPE)
        self.assertEqual(everything(far), b"goodbye")

    def test_no_input(self) -> None:
        """
        Standard input that cannot be read is named, and is no clean end.
        """
        with open(os.devnull, "wb") as nothing:
            process = self.connect(stdin=nothing)
        far = self.asked()
        self.ends(process, 1, "relaytunnel: standard input: Bad file descriptor\n")
        self.assertRaises(ConnectionResetError, far.recv, 1)

    def test_full_disk(self) -> None:
        """
        So it is with standard output.
        """
        with open("/dev/full", "wb") as full:
            process = self.connect(stdout=full)
        far = self.asked(GRANTED + b"x")
        self.ends(process, 1, "relaytunnel: standard output: No space left on device\n")
        self.assertRaises(ConnectionResetError, far.recv, 1)

    def test_password(self) -> None:
        """
        The password comes from the environment or from a file.
        """
        file = Path(self.mktemp())
        file.write_text("another secret\nand a remark\n")
        processes = [
            self.connect("--user", "me", environment={"RELAYTUNNEL_PASSWORD": "secret"}),
            self.connect("--user", "you", "--password-file", str(file)),
        ]
        requests = set()
        for _ in range(2):
            self.asked(REFUSED)
            requests.add(self.request)
        self.assertEqual(
            requests,
            {asking_for("web", ("me", "secret")), asking_for("web", ("you", "another secret"))},
        )
        for process in processes:
            self.ends(process, 1, f"relaytunnel: the relay at {self.via} says {SAID}\n")


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def resident(pid: int) -> int:
    """
    How many bytes of memory a process has.
    """
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class ForwardProgramTests(Programs, SynchronousTestCase):
    def setUp(self) -> None:
        self.play_relay()

    def forward(self, port: str = "0", *more: str) -> tuple[subprocess.Popen[bytes], int]:
        """
        @return: the program, and where it listens.
        """
        process = self.start("forward", port, "web", "--via", self.via, *more)
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        address, _, behind = line.removeprefix("forwarding ").partition(" ")
        self.assertEqual(behind, f"to web through {self.via}\n")
        host, _, number = address.rpartition(":")
        self.assertEqual(host, "127.0.0.1")
        return process, int(number)

    def dial(self, port: int) -> socket.socket:
        local = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.addCleanup(local.close)
        return local

    def test_two_at_once(self) -> None:
        """
        Each connection is a visit of its own, each with its own ends; an
        interrupted one is reset, and the exit code is 0.
        """
        process, port = self.forward()
        one = self.dial(port)
        far_one = self.asked(GRANTED + b"one")
        self.assertEqual(self.request, asking_for("web"))
        two = self.dial(port)
        two.sendall(b"early")
        far_two = self.asked(GRANTED + b"two")
        self.assertEqual((one.recv(3), two.recv(3)), (b"one", b"two"))
        self.assertEqual(far_two.recv(5), b"early")
        body = os.urandom(4 << 20)
        with ThreadPoolExecutor(2) as threads:
            sending = [
                threads.submit(one.sendall, body),
                threads.submit(far_one.sendall, body[::-1]),
            ]
            with ThreadPoolExecutor(2) as readers:
                up = readers.submit(exactly, far_one, len(body))
                down = readers.submit(exactly, one, len(body))
                self.assertEqual((up.result(), down.result()), (body, body[::-1]))
            for each in sending:
                each.result()
        one.shutdown(socket.SHUT_WR)
        self.assertEqual(everything(far_one), b"")
        far_one.sendall(b"late")
        far_one.close()
        self.assertEqual(everything(one), b"late")
        process.send_signal(signal.SIGINT)
        self.assertRaises(ConnectionResetError, two.recv, 1)
        self.assertRaises(ConnectionResetError, far_two.recv, 1)
        assert process.stderr is not None
        self.assertEqual((process.wait(PATIENCE), process.stderr.read()), (0, b""))

    def test_not_served(self) -> None:
        """
        A visit that comes to nothing is told in a line, and its connection is
        reset; the next one may be served.
        """
        process, port = self.forward()
        assert process.stderr is not None
        no_relay = f"what is at {self.via} does not answer as a relay: "
        for answer, reason in (
            (REFUSED, f"the relay at {self.via} says {SAID}"),
            (b"nonsense", no_relay + "the answer is not of HTTP/1"),
            (b"HTTP/1.1 200", no_relay + "it closed the connection"),
        ):
            local = self.dial(port)
            self.asked(answer).close()
            host, number = local.getsockname()
            line = f"relaytunnel: {host}:{number} is not served: {reason}\n"
            self.assertEqual(process.stderr.readline().decode(), line)
            self.assertRaises(ConnectionResetError, local.recv, 1)
        local = self.dial(port)
        abort(self.asked(b"HTTP"))
        self.assertIn(b"it reset the connection", process.stderr.readline())
        self.assertRaises(ConnectionResetError, local.recv, 1)
        local = self.dial(port)
        self.asked(GRANTED + b"hello")
        self.assertEqual(local.recv(5), b"hello")
        self.relay.close()
        local = self.dial(port)
        self.assertIn(f"cannot reach the relay at {self.via}: ", str(process.stderr.readline()))
        self.assertRaises(ConnectionResetError, local.recv, 1)
        process.terminate()
        self.assertEqual((process.wait(PATIENCE), process.stderr.read()), (0, b""))

    def test_port_taken(self) -> None:
        """
        A port that somebody else has is named, with exit code 1.
        """
        taken = str(self.relay.getsockname()[1])
        process = self.start("forward", taken, "web")
        _, err = process.communicate(timeout=PATIENCE)
        self.assertEqual(
            (process.returncode, err.decode()),
            (1, f"relaytunnel: cannot listen on 127.0.0.1:{taken}: Address already in use\n"),
        )


def exactly(sock: socket.socket, size: int) -> bytes:
    body = bytearray()
    while len(body) < size:
        body += sock.recv(1 << 16)
    return bytes(body)


class ForwardTests(TestCase):
    def setUp(self) -> None:
        self.relay = socket.create_server(("127.0.0.1", 0))
        self.relay.setblocking(False)
        self.addCleanup(self.relay.close)
        self.told: list[str] = []

    def forward(self, patience: float) -> int:
        via = HostPort("127.0.0.1", self.relay.getsockname()[1])
        self.served = Forward(reactor, via, asking_for("web"), self.told.append, patience)
        self.addCleanup(self.served.close)
        return self.served.listen("127.0.0.1", 0)[1]

    def dial(self, port: int) -> socket.socket:
        local = socket.create_connection(("127.0.0.1", port), PATIENCE)
        local.setblocking(False)
        self.addCleanup(local.close)
        return local

    async def accept(self) -> socket.socket:
        far: socket.socket = (await self.soon(self.relay.accept))[0]
        far.setblocking(False)
        self.addCleanup(far.close)
        return far

    async def soon(self, attempt: Callable[[], Any]) -> Any:
        """
        @return: what it returns once it would not block.
        """

        def attempted() -> list[Any] | None:
            try:
                return [attempt()]
            except BlockingIOError:
                return None

        return (await until(attempted, PATIENCE, "a socket is ready", 0.01))[0]

    async def test_silent_relay(self) -> None:
        """
        A relay that does not answer is given up.
        """
        local = self.dial(self.forward(patience=0.2))
        await self.accept()
        with self.assertRaises(ConnectionResetError):
            await self.soon(lambda: local.recv(1))
        (line,) = self.told
        self.assertRegex(line, r"does not answer as a relay: it took too long$")
        self.assertEqual(self.served.asking, set())

    async def test_slow_reason(self) -> None:
        """
        A refusal whose body does not come is told without it.
        """
        local = self.dial(self.forward(patience=0.2))
        far = await self.accept()
        far.send(b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\n\r\n")
        with self.assertRaises(ConnectionResetError):
            await self.soon(lambda: local.recv(1))
        self.assertRegex(self.told[0], r"says 403 Forbidden$")

    async def test_visitor_leaves(self) -> None:
        """
        Who does not wait for the answer takes the connection to the relay
        along, without a word.
        """
        local = self.dial(self.forward(patience=PATIENCE))
        far = await self.accept()
        request = asking_for("web")
        self.assertEqual(await self.soon(lambda: far.recv(1000)), request)
        abort(local)
        with self.assertRaises(ConnectionResetError):
            await self.soon(lambda: far.recv(1))
        self.assertEqual((self.told, self.served.asking), ([], set()))

    async def test_end_before_the_answer(self) -> None:
        """
        Both sides may have ended before they are joined.
        """
        local = self.dial(self.forward(patience=PATIENCE))
        local.send(b"question")
        local.shutdown(socket.SHUT_WR)
        far = await self.accept()
        self.assertTrue(await self.soon(lambda: far.recv(1000)))
        far.send(GRANTED + b"answer")
        far.shutdown(socket.SHUT_WR)
        self.assertEqual(await self.soon(lambda: far.recv(1000)), b"question")
        self.assertEqual(await self.soon(lambda: far.recv(1000)), b"")
        self.assertEqual(await self.soon(lambda: local.recv(1000)), b"answer")
        self.assertEqual(await self.soon(lambda: local.recv(1000)), b"")
        await until(lambda: not self.served.splices, PATIENCE, "the visit is over", 0.01)
        self.assertEqual(self.told, [])

    async def test_closed_while_asking(self) -> None:
        """
        What is under way is reset when it is closed, before and behind the
        answer.
        """
        port = self.forward(patience=PATIENCE)
        asking = self.dial(port)
        far_asking = await self.accept()
        await self.soon(lambda: far_asking.recv(1000))
        joined = self.dial(port)
        far_joined = await self.accept()
        far_joined.send(GRANTED + b"x")
        self.assertEqual(await self.soon(lambda: joined.recv(1)), b"x")
        await self.soon(lambda: far_joined.recv(1000))
        await self.served.close()
        for each in (asking, far_asking, joined, far_joined):
            with self.assertRaises(ConnectionResetError):
                await self.soon(partial(each.recv, 1))
        with self.assertRaises(ConnectionRefusedError):
            self.dial(port)

"""
What a campaign of faults counts, told apart: without a network and without a
fault.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import socket
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from faults import network
from faults.__main__ import main
from faults.campaign import Result
from faults.ends import End
from faults.injections import FAULTS
from faults.ledger import Ledger, Tally, judge
from faults.plans import HEADER, KINDS, Header, Plan, any_kind, meant_for, plans, stream
from faults.report import report
from tests.processes import empty_directory


def _told(**other: Any) -> dict[str, Any]:
    """
    What an end tells of a session in which nothing was wrong.
    """
    told = {"kind": "short", "why": "done", "server": "web", "began": 1.0, "over": 2.0}
    told |= {"sent": 10, "sent_hash": "a", "sent_end": "clean"}
    return told | {"got": 10, "got_hash": "a", "got_end": True, "strange": ""} | other


def _judged(
    client: dict[str, Any] | None, server: dict[str, Any] | None, killed: bool = False
) -> Tally:
    tally = Tally()
    judge(1, (client, server), server is not None, killed, tally)
    return tally


class NetworkCommandTests(SynchronousTestCase):
    """
    The commands that make a network.
    """

    def test_said(self) -> None:
        """
        What one says is told.
        """
        self.assertEqual(network.command("cat", stdin="a line\n"), "a line\n")

    def test_failed(self) -> None:
        """
        One that fails is named with its reason, unless it may fail.
        """
        with self.assertRaisesRegex(OSError, "^ls /nowhere: .*No such file"):
            network.command("ls", "/nowhere")
        self.assertEqual(network.command("ls", "/nowhere", may_fail=True), "")

    def test_does_not_end(self) -> None:
        """
        One that does not end is given up.
        """
        self.patch(network, "_PATIENCE", 0.1)
        with self.assertRaisesRegex(OSError, "^sleep 60: not done within 0.1 s"):
            network.command("sleep", "60")


class PlansTests(SynchronousTestCase):
    """
    Both ends know who says what.
    """

    def test_header(self) -> None:
        """
        A server learns from the first bytes what its client knows.
        """
        for kind in KINDS:
            header = Header(7, 11, kind, 0.5, 2.0, True)
            found = Header.unpacked(stream(header, 0, 0, HEADER))
            assert found is not None
            self.assertEqual(found, header)
            self.assertEqual(plans(found), plans(header))
        self.assertIsNone(Header.unpacked(bytes(HEADER)))

    def test_pieces(self) -> None:
        """
        A stream is the same in whatever pieces it is said.
        """
        dice = random.Random(5)
        header = Header(123, 1, "long")
        for side in (0, 1):
            whole = stream(header, side, 0, 50_000)
            self.assertEqual(len(whole), 50_000)
            for _ in range(200):
                start, size = dice.randrange(49_000), dice.randrange(1000)
                piece = stream(header, side, start, size)
                self.assertEqual(piece, whole[start : start + size])

    def test_identity(self) -> None:
        """
        Bytes say of which session they are, and those of another one differ.
        """
        ours = stream(Header(5, 1, "long"), 1, 3000, 4000)
        theirs = stream(Header(6, 1, "long"), 1, 3000, 4000)
        self.assertNotEqual(ours, theirs)
        self.assertEqual((meant_for(ours), meant_for(theirs)), (5, 6))
        self.assertIsNone(meant_for(b"something else"))

    def test_kinds(self) -> None:
        """
        Every kind of session comes.
        """
        dice = random.Random(2)
        self.assertEqual({any_kind(dice) for _ in range(500)}, set(KINDS))


class EndTests(SynchronousTestCase):
    """
    An end notices what is not meant for it.
    """

    def _end(self) -> tuple[End, socket.socket]:
        here, there = socket.socketpair()
        self.addCleanup(here.close)
        self.addCleanup(there.close)
        here.setblocking(False)
        return End(here, Header(5, 1, "short"), 0, Plan(HEADER), 10, lambda _: None), there

    def test_own_bytes(self) -> None:
        """
        What the server of this session says is well.
        """
        end, there = self._end()
        there.sendall(stream(end.header, 1, 0, 5000))
        there.shutdown(socket.SHUT_WR)
        self.assertIsNone(end.go_on(0))
        told = end.record()
        self.assertEqual((told["why"], told["got"], told["strange"]), ("done", 5000, ""))

    def test_bytes_of_another(self) -> None:
        """
        What the server of another one says is not, and it is told whose it is.
        """
        end, there = self._end()
        there.sendall(stream(Header(6, 1, "short"), 1, 0, 5000))
        end.go_on(0)
        self.assertIn("of session 6", end.record()["strange"])


class JudgeTests(SynchronousTestCase):
    """
    A session is judged by what both of its ends tell.
    """

    def test_survived(self) -> None:
        """
        Both got all, and an end behind it.
        """
        tally = _judged(_told(), _told())
        self.assertEqual((tally.survived, tally.lost, tally.false_ends), (1, 0, 0))

    def test_failed(self) -> None:
        """
        A reset that both notice, or one of them, is a failure and no more.
        """
        reset = _told(why="reset", got=3, got_hash="b", got_end=False, sent_end="")
        for client, server in ((reset, reset), (_told(why="refused: busy", got_end=False), None)):
            tally = _judged(client, server)
            self.assertEqual(list(tally.failed), [client["why"]])
            self.assertEqual((tally.lost, tally.false_ends, tally.mixed_up), (0, 0, 0))

    def test_lost(self) -> None:
        """
        An end that came, with less before it than was sent, has lost bytes.
        """
        tally = _judged(_told(got=4, got_hash="b"), _told())
        self.assertEqual((tally.lost, tally.false_ends), (6, 0))

    def test_false_end(self) -> None:
        """
        An end that nobody has sent is a truncation that looks like an end.
        """
        cut = _told(why="reset", sent=20, sent_end="", got_end=False)
        self.assertEqual(_judged(_told(), cut).false_ends, 1)
        self.assertEqual(_judged(_told(), None).false_ends, 1)

    def test_killed(self) -> None:
        """
        The kernel has sent the end of a server that was killed.
        """
        self.assertEqual(_judged(_told(), None, killed=True).false_ends, 0)

    def test_mixed_up(self) -> None:
        """
        Other bytes than were sent are a mix-up, whatever else there is.
        """
        self.assertEqual(_judged(_told(got_hash="b"), _told()).mixed_up, 1)
        self.assertEqual(_judged(_told(strange="x"), _told()).mixed_up, 1)

    def test_died(self) -> None:
        """
        What dies as it was planned has not failed.
        """
        reset = _told(why="reset", got_end=False, sent_end="")
        tally = _judged(reset, _told(why="died: reset", got_end=False, sent_end=""))
        self.assertEqual((tally.died, dict(tally.failed)), (1, {}))


class LedgerTests(SynchronousTestCase):
    """
    Records are read while they are written.
    """

    def test_grows(self) -> None:
        """
        A session counts when both ends have told of it, and at the end in any
        case; half a line is read when it is whole.
        """
        directory = empty_directory(self)
        clients, servers = directory / "clients", directory / "servers"
        ledger = Ledger([clients, servers])

        def write(file: Path, *lines: dict[str, Any], end: str = "\n") -> None:
            with file.open("a") as out:
                out.write("\n".join(map(json.dumps, lines)) + end)

        write(clients, {"tried": 1}, {"tried": 2}, _told(session=1, side=0))
        write(
            servers, {"began": 1, "at": 5}, {"began": 2, "at": 6}, _told(session=1, side=1), end=""
        )
        ledger.read()
        self.assertEqual((ledger.tally.survived, ledger.pending), (0, 2))
        write(servers, end="\n")
        ledger.read()
        self.assertEqual((ledger.tally.survived, ledger.pending), (1, 1))
        ledger.close()
        self.assertEqual(dict(ledger.tally.failed), {"never over": 1})
        self.assertEqual(ledger.tally.tried, 2)


class ReportTests(SynchronousTestCase):
    """
    A campaign is good if nothing was lost, faked, mixed up or left.
    """

    def test_good(self) -> None:
        """
        Sessions may fail; what must not be is told, and fails the campaign.
        """
        good = Result("a", "one", Tally(3, 2, 0), recovery=0.5)
        good.tally.failed["reset"] += 1
        wrong = Result("d", "four", Tally(3, 3, 0), recovery=0.5)
        wrong.tally.note("it began with what is out of date")
        self.assertFalse(wrong.good)
        left = Result("b", "two", Tally(3, 3), 0.1, leaks=["a socket"])
        never = Result("c", "three", Tally(3, 3))
        self.assertEqual([good.good, left.good, never.good], [True, False, False])
        text = report([good, left, never])
        self.assertRegex(text, r"(?m)^a +3 +2 +1 +0\.50 +0 +0 +0 +0 +0$")
        self.assertIn("failed: reset 1", text)
        self.assertIn("LEFT: a socket", text)
        self.assertIn("it never recovered", text)
        self.assertTrue(text.endswith("wrong: b, c"))
        json.dumps([each.as_json() for each in (good, left, never)])


class CommandTests(SynchronousTestCase):
    """
    The command, as it is typed.
    """

    def test_list(self) -> None:
        """
        It names all faults.
        """
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.assertEqual(main(["--list"]), 0)
        for each in FAULTS:
            self.assertRegex(out.getvalue(), rf"(?m)^  {each.name} ")

    def test_no_such_fault(self) -> None:
        """
        A name that there is not is told with those that there are.
        """
        with contextlib.redirect_stderr(io.StringIO()) as err:
            self.assertRaises(SystemExit, main, ["--only", "nat,flood"])
        self.assertIn("there is no 'flood'; there are loss-1,", err.getvalue())

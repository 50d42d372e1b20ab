"""
The benchmark measures what it says, and says what it did not measure.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase, TestCase

from bench.report import Results, align, short
from bench.rows import ROWS
from bench.ways import WAYS
from tests.processes import empty_directory, missing_programs

ROOT = Path(__file__).resolve().parent.parent


def _results(**rates: list[float]) -> Results:
    results = Results()
    for way, values in rates.items():
        for value in values:
            results.add("bulk", way, {"rate": value})
    return results


class ReportTests(SynchronousTestCase):
    """
    Figures of several runs become medians, ratios and verdicts.
    """

    def test_median(self) -> None:
        """
        One run that went astray does not count for much.
        """
        results = _results(ours=[9, 10, 50])
        self.assertEqual(results.median("bulk", "ours", "rate"), 10)
        self.assertIsNone(results.median("bulk", "ssh", "rate"))

    def test_ratio(self) -> None:
        """
        A ratio is that of runs side by side: a machine that becomes slower
        does so for both.
        """
        results = _results(ours=[20, 10, 5], haproxy=[10, 5, 2.5])
        self.assertEqual(results.ratio("bulk", "ours", "rate", "haproxy"), 2)
        self.assertIsNone(results.ratio("bulk", "ours", "rate", "ssh"))

    def test_verdicts(self) -> None:
        """
        Bars are met or not, and nothing is said where a peer was missing.
        """
        results = _results(ours=[10], haproxy=[11], ssh=[5])
        self.assertEqual(
            [str(each) for each in results.verdicts()],
            [
                "bulk, ours: 0.909 x haproxy (>= 1): NOT MET",
                "bulk, ours: 2 x ssh (>= 2): met",
            ],
        )
        self.assertEqual(_results(ours=[10]).verdicts(), [])

    def test_less_is_better(self) -> None:
        """
        Of time and memory, less is better.
        """
        results = Results()
        results.add("memory", "ours", {"few": 3.0, "many": 7.0})
        self.assertEqual([each.met for each in results.verdicts()], [True, False])

    def test_tables(self) -> None:
        """
        Tables have every way that was measured, and what came to nothing.
        """
        results = _results(direct=[20], ours=[10])
        results.fail("bulk", "ssh", "it did not answer")
        text = results.tables()
        self.assertIn("bulk, one connection", text)
        self.assertRegex(text, r"ours +10 +0\.50 +10 \.\. 10")
        self.assertIn("bulk, ssh: it did not answer", text)

    def test_json(self) -> None:
        """
        A program can read all of it.
        """
        told = json.loads(json.dumps(_results(ours=[1, 2], haproxy=[1, 1]).as_json()))
        self.assertEqual(told["runs"]["bulk"]["ours"]["rate"], [1, 2])
        self.assertEqual(told["medians"]["bulk"]["ours"]["rate"], 1.5)
        self.assertEqual(
            told["bars"],
            [
                {
                    "row": "bulk",
                    "metric": "rate",
                    "way": "ours",
                    "than": "haproxy",
                    "wanted": 1.0,
                    "value": 1.5,
                    "met": True,
                }
            ],
        )

    def test_numbers(self) -> None:
        """
        Three digits say enough.
        """
        self.assertEqual(
            [short(n) for n in (0, 0.12345, 12.345, 12345.6)], ["0", "0.123", "12.3", "12,346"]
        )
        self.assertEqual(align([["", "x"], ["ours", "10"]]), "         x\n  ours  10")

    def test_bars_are_of_rows(self) -> None:
        """
        Each bar is of a figure that its row has, and of ways that there are.
        """
        ways = {each.name for each in WAYS}
        for row in ROWS:
            for bar in row.bars:
                self.assertIn(bar.metric, {metric.name for metric in row.metrics})
                self.assertIn(bar.way, ways)
                self.assertIn(bar.than or bar.way, ways)


class _Bench(TestCase):
    timeout = 120

    async def bench(self, *options: str) -> tuple[str, str, int]:
        out, err, code = await getProcessOutputAndValue(
            sys.executable, ["-m", "bench", *options], env=None, path=str(ROOT)
        )
        return out.decode(), err.decode(), code


class CommandTests(_Bench):
    """
    The command, as it is typed.
    """

    async def test_list(self) -> None:
        """
        It names all rows and all ways, and what is missing for these.
        """
        out, _, code = await self.bench("--list")
        self.assertEqual(code, 0)
        for name in (*(row.name for row in ROWS), *(way.name for way in WAYS)):
            self.assertRegex(out, rf"(?m)^  {name} ")

    async def test_handshakes(self) -> None:
        """
        What it would be worth to resume sessions is measured, too, and only if
        they were.
        """
        out, err, code = await getProcessOutputAndValue(
            sys.executable, ["-m", "bench.handshakes"], env=None, path=str(ROOT)
        )
        self.assertEqual(code, 0, err)
        self.assertRegex(out.decode(), r"resumed / anew: \d\.\d\d")

    async def test_logins(self) -> None:
        """
        Logins beside clients who guess are measured, a few of them here; how
        long they take is no question of this test.
        """
        out, err, code = await getProcessOutputAndValue(
            sys.executable, ["-m", "bench.logins", "--logins", "4"], env=None, path=str(ROOT)
        )
        self.assertIn(code, (0, 1), err)
        self.assertRegex(out.decode(), r"under attack, a wrong password +p50 +\d+\.\d+ s")
        self.assertRegex(out.decode(), r"SIGTERM is obeyed within +\d+\.\d+ s")

    async def test_no_such_row(self) -> None:
        """
        A name that there is not is told with those that there are.
        """
        _, err, code = await self.bench("--only", "bulk,speed")
        self.assertEqual(code, 2)
        self.assertIn("there is no 'speed'; there are bulk,", err)

    async def test_no_time(self) -> None:
        """
        So is a time that makes no sense.
        """
        _, err, code = await self.bench("--seconds", "0")
        self.assertEqual(code, 2)
        self.assertIn("0 is not from 1 to 10000", err)


class RunTests(_Bench):
    """
    A short run, with all that it takes.
    """

    skip = missing_programs("nginx", "iperf3", "wrk")

    async def test_run(self) -> None:
        """
        Relay and agent are started as a user does it, what they pass on is
        verified, and the figures are written.
        """
        directory = empty_directory(self)
        out, err, code = await self.bench(
            *("--only", "keepalive,latency", "--peers", "ours,ours-tls", "--runs", "1"),
            *("--seconds", "1", "--output", str(directory)),
        )
        self.assertEqual(code, 0, err)
        self.assertIn("ours-tls: open, and passes bytes on unharmed", err)
        self.assertRegex(out, r"(?m)^  ours-tls +[\d,]+ +0 ")
        told = json.loads((directory / "bench.json").read_text())
        for way in ("ours", "ours-tls"):
            self.assertGreater(told["medians"]["keepalive"][way]["rate"], 100)
            self.assertEqual(told["medians"]["keepalive"][way]["errors"], 0)
            self.assertLess(told["medians"]["latency"][way]["p50"], 1000)
        self.assertEqual(told["failures"], [])
        self.assertEqual(told["repeats"], 1)
        text = (directory / "bench.txt").read_text()
        self.assertIn("medians of 1 runs of 1 s each", text)
        self.assertIn(out.strip(), text)

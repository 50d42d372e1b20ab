"""
The inputs that fuzzing has found are stood by every target, and so is nonsense
by a relay that serves others meanwhile.

Looking for more of them is C{tox run -e fuzz}.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fuzz.catalogue import CORPUS, LARGEST, MOST, TARGETS, kept
from fuzz.guiding import Run, dictionary
from fuzz.hostile import mutated
from fuzz.keeping import keep, reached
from fuzz.targets import Broken, Target, cut, holds, same, texts
from tests.processes import empty_directory

ROOT = Path(__file__).resolve().parent.parent
LARGEST_CORPUS = 300 * 1024


class CorpusTests(SynchronousTestCase):
    """
    The inputs that are kept.
    """

    def test_replay(self) -> None:
        """
        Every input is stood by its target.
        """
        for name, target in TARGETS.items():
            for path in kept(name):
                try:
                    target.run(path.read_bytes())
                except Exception as fault:
                    raise AssertionError(f"python -m fuzz --replay {path}") from fault

    def test_others(self) -> None:
        """
        Every input is stood by all the other targets, too.
        """
        for name in TARGETS:
            for path in kept(name)[::5]:
                data = path.read_bytes()
                for other in TARGETS.values():
                    try:
                        other.run(data)
                    except Exception as fault:
                        where = f"{path} --target {other.name}"
                        raise AssertionError(f"python -m fuzz --replay {where}") from fault

    def test_small(self) -> None:
        """
        There are some for each target, not too many, and none is large.
        """
        self.assertEqual({path.name for path in CORPUS.iterdir()}, set(TARGETS))
        sizes = []
        for name in TARGETS:
            found = [path.stat().st_size for path in kept(name)]
            self.assertTrue(3 <= len(found) <= MOST, f"{name}: {len(found)} inputs")
            sizes += found
        self.assertLessEqual(max(sizes), LARGEST)
        self.assertLess(sum(sizes), LARGEST_CORPUS)


class TargetTests(SynchronousTestCase):
    """
    What targets are made of.
    """

    def test_cut(self) -> None:
        """
        The input says how it is cut.
        """
        self.assertEqual(cut(b""), (0, [b""]))
        self.assertEqual(cut(b"\x08abc"), (1, [b"abc"]))
        self.assertEqual(cut(b"\x02\x01\x02abcde"), (0, [b"a", b"bc", b"de"]))
        self.assertEqual(cut(b"\x02\x00\xffabc"), (0, [b"", b"abc", b""]))
        self.assertEqual(cut(b"\x0fabc"), (1, [b"a", b"b", b"c"]))

    def test_texts(self) -> None:
        """
        Lines that are not there are empty.
        """
        self.assertEqual(texts(b"a\nb\nc", 2), [b"a", b"b\nc"])
        self.assertEqual(texts(b"a", 3), [b"a", b"", b""])

    def test_broken(self) -> None:
        """
        What does not hold is told.
        """
        holds(True, "it holds")
        same(1, 1, "they are the same")
        self.assertIn("so", str(self.assertRaises(Broken, holds, False, "so")))
        self.assertIn("'b'", str(self.assertRaises(Broken, same, "a", "b", "so")))

    def test_mutated(self) -> None:
        """
        What is said to a running relay differs, and has a bound.
        """
        chance = random.Random(1)
        found = {mutated(b"x" * 100, [b"other"], chance) for _ in range(100)}
        self.assertGreater(len(found), 50)
        self.assertLessEqual(max(map(len, found)), 40_000)
        for _ in range(100):
            mutated(b"", [b""], chance)


class GuidingTests(SynchronousTestCase):
    """
    Between us and libFuzzer.
    """

    def test_hear(self) -> None:
        """
        Figures are taken from what it says.
        """
        run = Run("toml", seconds=2.0)
        run.hear("#81\tINITED cov: 615 ft: 1290 corp: 80/19Kb exec/s: 0 rss: 96Mb\n")
        self.assertEqual((run.executions, run.edges, run.inputs), (81, 615, 80))
        run.hear("#99 REDUCE cov: 616 ft: 1299 corp: 81/20b lim: 4 exec/s: 12 rss: 96Mb L: 4/4\n")
        run.hear("stat::number_of_executed_units: 4000\n")
        self.assertEqual((run.executions, run.edges, run.rate), (4000, 616, 2000.0))
        self.assertEqual(str(run), "toml: 2 s, 4,000 runs, 616 edges, 81 inputs")
        self.assertEqual(Run("toml").rate, 0)

    def test_dictionary(self) -> None:
        """
        Words are written as it reads them.
        """
        target = Target("x", lambda data: None, (b'a"', b"\xff\n"))
        self.assertEqual(dictionary(target), '"\\x61\\x22"\n"\\xff\\x0a"\n')

    def test_keep(self) -> None:
        """
        What reaches nothing more is not kept.
        """
        directory = Path(self.mktemp())
        directory.mkdir()
        self.patch(sys.modules["fuzz.keeping"], "CORPUS", directory)
        self.patch(sys.modules["fuzz.catalogue"], "CORPUS", directory)
        authority = TARGETS["authority"]
        candidates = []
        for number, data in enumerate((b"web", b"web.example", b"[::1]:80", b"w" * 70)):
            candidates.append(directory / str(number))
            candidates[-1].write_bytes(data)
        self.assertEqual(keep(authority, candidates, 3), 3)
        found = {path.read_bytes() for path in (directory / "authority").iterdir()}
        self.assertIn(b"[::1]:80", found)
        self.assertNotIn(b"web.example", found)
        (directory / "authority" / "named").write_bytes(b"web")
        self.assertEqual(keep(authority, candidates), 3)
        self.assertTrue((directory / "authority" / "named").exists())
        self.assertGreater(len(reached(authority, b"[::1]:80") - reached(authority, b"web")), 5)


class CommandTests(TestCase):
    """
    The commands, as they are typed.
    """

    timeout = 240

    async def command(self, module: str, *options: str) -> tuple[str, str, int]:
        out, err, code = await getProcessOutputAndValue(
            sys.executable, ["-m", module, *options], env=None, path=str(ROOT)
        )
        return out.decode(), err.decode(), code

    async def test_list(self) -> None:
        """
        It names all targets.
        """
        out, _, code = await self.command("fuzz", "--list")
        self.assertEqual(code, 0)
        for name in TARGETS:
            self.assertRegex(out, rf"(?m)^{name}: \d+ inputs$")

    async def test_replay(self) -> None:
        """
        An input is replayed by the name of its file or of its directory.
        """
        path = kept("proxied")[0]
        _, err, code = await self.command("fuzz", "--replay", str(path))
        self.assertEqual((code, err.splitlines()[-1]), (0, "proxied stands it"))
        crash = empty_directory(self) / "message-crash-0a1b"
        crash.write_bytes(b"\xc1")
        _, err, code = await self.command("fuzz", "--replay", str(crash))
        self.assertEqual((code, err.splitlines()[-1]), (0, "message stands it"))

    async def test_replay_of_what(self) -> None:
        """
        If neither tells, somebody has to.
        """
        path = empty_directory(self) / "input"
        path.write_bytes(b"x")
        _, err, code = await self.command("fuzz", "--replay", str(path))
        self.assertEqual(code, 2)
        self.assertIn("say with --target what it is for", err)

    async def test_live(self) -> None:
        """
        Relay and agent serve others while they are told nonsense, and are as
        before when it is over.
        """
        options = ("--seconds", "5", "--patience", "15")
        out, err, code = await self.command("fuzz.live", *options)
        self.assertEqual(code, 0, f"{out}\n{err}")
        self.assertRegex(out, r"(?m)^  page +[1-9][\d,]* +0 ")
        self.assertRegex(out, r"(?m)^  echo +[1-9][\d,]* +0 ")
        self.assertIn(" 0 complaints in logs", out)

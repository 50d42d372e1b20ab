"""
Starting L{fuzz.guided}, and reading what libFuzzer says of its run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.catalogue import CORPUS
from fuzz.targets import Target

__all__ = ["Run", "dictionary", "guide"]

_HOME = Path(__file__).resolve().parent.parent
_SAID = re.compile(r"#(\d+)\s+[A-Z]\w*\s+cov: (\d+) ft: \d+ corp: (\d+)/", re.IGNORECASE)
_TOTAL = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_EVERY = 5.0
_SLOW = 20
_MEMORY = 2048
_FOUND = ("crash", "timeout", "oom", "leak")


@dataclass
class Run:
    """
    What came of a run.

    @ivar executions: how many inputs were tried.
    @ivar seconds: how long it took.
    @ivar edges: how many edges of the code were reached.
    @ivar inputs: how many inputs reach something that no other does.
    @ivar crashes: the inputs that a target did not stand.
    @ivar failed: what it said, if it came to nothing.
    """

    target: str
    executions: int = 0
    seconds: float = 0.0
    edges: int = 0
    inputs: int = 0
    crashes: list[Path] = field(default_factory=list)
    failed: str = ""

    @property
    def rate(self) -> float:
        """Executions in a second."""
        return self.executions / self.seconds if self.seconds else 0.0

    def hear(self, line: str) -> None:
        """
        Take in a line that libFuzzer says.
        """
        said = _SAID.search(line)
        if said is not None:
            self.executions, self.edges, self.inputs = map(int, said.groups())
        total = _TOTAL.search(line)
        if total is not None:
            self.executions = int(total[1])

    def __str__(self) -> str:
        return (
            f"{self.target}: {self.seconds:.0f} s, {self.executions:,} runs,"
            f" {self.edges} edges, {self.inputs} inputs"
        )


def dictionary(target: Target) -> str:
    """
    @return: the words of a target, as libFuzzer reads them.
    """
    words = ("".join(f"\\x{byte:02x}" for byte in word) for word in target.words)
    return "".join(f'"{word}"\n' for word in words)


def guide(
    target: Target,
    seconds: float,
    seed: int,
    found: Path,
    crashes: Path,
    say: Callable[[str], None],
) -> Run:
    """
    Run atheris for some time.

    @param found: a directory, with the inputs of earlier runs, for those that
        are found.
    @param crashes: a directory for those that a target does not stand.
    @param say: is told now and then how far it is.
    """
    found.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    words = found.parent / f"{target.name}.words"
    words.write_text(dictionary(target))
    before = set(crashes.iterdir())
    command = [
        *(sys.executable, "-m", "fuzz.guided", target.name),
        f"-max_total_time={max(1, round(seconds))}",
        f"-seed={seed}",
        f"-max_len={target.longest}",
        f"-dict={words}",
        f"-artifact_prefix={crashes}{os.sep}{target.name}-",
        *(f"-timeout={_SLOW}", f"-rss_limit_mb={_MEMORY}", "-print_final_stats=1"),
        str(found),
    ]
    kept = CORPUS / target.name
    if kept.is_dir():
        command.append(str(kept))
    run = Run(target.name)
    began = time.monotonic()
    told = began
    tail: list[str] = []
    with subprocess.Popen(
        command,
        cwd=_HOME,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                run.hear(line)
                tail = [*tail[-40:], line]
                run.seconds = time.monotonic() - began
                if time.monotonic() - told >= _EVERY:
                    told = time.monotonic()
                    say(str(run))
        except BaseException:
            process.kill()
            raise
    run.seconds = time.monotonic() - began
    run.crashes = sorted(
        path
        for path in set(crashes.iterdir()) - before
        if path.name.startswith(tuple(f"{target.name}-{each}" for each in _FOUND))
    )
    if process.returncode and not run.crashes:
        run.failed = "".join(tail)
    elif run.crashes:
        say("".join(tail).rstrip())
    return run

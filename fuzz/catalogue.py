"""
All targets, and their inputs that are kept.
"""

from __future__ import annotations

from pathlib import Path

import fuzz.arriving
import fuzz.exchanging
import fuzz.told
import fuzz.visitors
import fuzz.wires
from fuzz.targets import Target

__all__ = ["CORPUS", "LARGEST", "MOST", "TARGETS", "kept"]

CORPUS = Path(__file__).resolve().parent / "corpus"
"""Where the inputs are, in a directory for each target."""

LARGEST = 2048
"""How many bytes of an input are kept at the most."""

MOST = 40
"""How many inputs of one target are kept at the most."""

TARGETS: dict[str, Target] = {
    each.name: each
    for module in (fuzz.arriving, fuzz.exchanging, fuzz.wires, fuzz.told, fuzz.visitors)
    for each in module.TARGETS
}
"""By name."""


def kept(name: str) -> list[Path]:
    """
    @return: the inputs of a target that are kept.
    """
    return sorted(path for path in (CORPUS / name).glob("*") if path.is_file())

"""
One run of atheris with one target, in a process of its own: libFuzzer ends its
process when it is done.

C{python -m fuzz.guided TARGET OPTION...} takes the options of libFuzzer.  Only
what is imported within C{instrument_imports} tells which code was reached, so
nothing of ours is imported before.
"""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

__all__ = ["main"]

_MEASURED = ["relaytunnel", "tomllib"]


def main(arguments: list[str]) -> None:
    """
    @param arguments: the name of the target, and the options.
    """
    with atheris.instrument_imports(include=_MEASURED):
        from fuzz.catalogue import TARGETS
    name, *options = arguments
    atheris.Setup([sys.argv[0], *options], TARGETS[name].run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])

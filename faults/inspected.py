"""
C{twistd}, which says what its reactor still has to do when it is asked by a
signal: C{python -m faults.inspected relay ...}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

__all__ = ["ASKED", "FILE"]

ASKED = signal.SIGRTMIN + 5
"""The signal; neither Twisted nor relaytunnel has a use for it."""
FILE = "RELAYTUNNEL_FAULTS_FILE"
"""The variable that says where the answer is written."""


def _answer(reactor: Any) -> None:
    calls = [repr(getattr(each, "func", each)) for each in reactor.getDelayedCalls()]
    path = os.environ[FILE]
    with open(f"{path}.new", "w") as file:
        json.dump({"delayed": calls}, file)
    os.replace(f"{path}.new", path)


def main() -> None:
    """
    Run twistd.
    """
    from twisted.internet import reactor
    from twisted.scripts.twistd import run

    asked: Any = reactor
    signal.signal(ASKED, lambda *_: asked.callFromThread(_answer, asked))
    sys.argv = ["twistd", "-n", "--pidfile=", *sys.argv[1:]]
    run()


if __name__ == "__main__":
    main()

"""
The file in which C{twistd} keeps the number of its process (PID file).

C{twistd} refuses to start while the process that its file names exists, and
removes the file when it ends.  Both take the number for the process, which it
is not: in a container every process that is started first has the number 1, a
number is given again after a crash or a boot, and after an upgrade the file
belongs to the new process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

__all__ = ["command_line", "remove_own", "remove_stale", "write"]

_MOST = 64
"""Bytes of the file that are looked at; a number with its newline has fewer."""


def command_line(pid: int) -> list[bytes] | None:
    """
    Ask the system how a process was started (proc(5), C{/proc/PID/cmdline}).

    @return: its words; C{None} where the system does not say.
    """
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read(65536).split(b"\0")
    except OSError:
        return None


def remove_stale(
    path: str,
    plugin: str,
    ours: int,
    ask: Callable[[int], list[bytes] | None] = command_line,
) -> bool:
    """
    Remove a PID file whose process is not the one that wrote it: the number is
    that of this process, or of a process that is no such plugin.  An empty
    file, as a full disk leaves it, goes as well.  In doubt the file stays, and
    C{twistd} decides.

    @param plugin: the word on the command line that such a process has.
    @param ours: the number of this process.
    @return: whether it was removed.
    """
    number = _read(path)
    if number is None:
        return False
    if number not in (0, ours):
        words = ask(number)
        # A process that has ended is told by twistd itself.
        if not words or plugin.encode() in words:
            return False
    with contextlib.suppress(OSError):
        os.unlink(path)
        return True
    return False


def write(path: str) -> None:
    """
    Put the number of this process into the file.

    @raise OSError: it cannot be written.
    """
    with open(path, "w", encoding="ascii") as file:
        file.write(str(os.getpid()))


def remove_own(path: str) -> None:
    """
    Remove the file if it still holds the number of this process.
    """
    if _read(path) == os.getpid():
        with contextlib.suppress(OSError):
            os.unlink(path)


def _read(path: str) -> int | None:
    """
    @return: the number in the file, 0 if the file is empty; C{None} if there is
        none, or something else stands in it.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST)
    except OSError:
        return None
    digits = text.strip()
    if not digits:
        return 0 if len(text) < _MOST else None
    return int(digits) if digits.isdigit() and len(text) < _MOST else None

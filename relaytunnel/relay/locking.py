"""
The lock of a state directory: at most one relay keeps its state there.

It is an advisory lock (flock(2)) on a file that is never removed.  A process
that has ended holds none, however it ended; one that hands over to another
passes the open file on, so that the directory is locked all the while.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from relaytunnel.errors import StateError

__all__ = ["StateLock"]

_NAME = "lock"
_MOST = 64


class StateLock:
    """
    A locked state directory.

    @ivar descriptor: the open file that holds the lock, which can be passed to
        another process; -1 when it was released.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def acquire(cls, directory: str) -> StateLock:
        """
        Lock a directory.

        @raise StateError: another relay has it, or it cannot be locked; the
            message names the directory, the process and what to do.
        """
        path = os.path.join(directory, _NAME)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            raise StateError(f"{path}: cannot be opened: {fault.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as fault:
            holder = _holder(descriptor)
            os.close(descriptor)
            if not isinstance(fault, BlockingIOError):
                raise StateError(f"{path}: cannot be locked: {fault.strerror}") from None
            raise StateError(
                f"the state directory {directory} is in use by another relay{holder}; stop it"
                " first, or name another directory with --state"
            ) from None
        lock = cls(descriptor)
        lock.sign()
        return lock

    def sign(self) -> None:
        """
        Write the number of this process into the file, for those who find it
        locked.
        """
        with contextlib.suppress(OSError):  # a full disk unlocks nothing
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """
        Let go of the lock.  The directory stays locked while another process
        has the same open file.
        """
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _holder(descriptor: int) -> str:
    with contextlib.suppress(OSError):
        text = os.pread(descriptor, _MOST, 0).strip()
        if text.isdigit():
            return f", process {int(text)}"
    return ""

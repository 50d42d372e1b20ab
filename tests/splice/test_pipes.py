"""
Pipes are used again, and closed when nobody has them.
"""

from __future__ import annotations

import fcntl
import os
import resource

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.splice.pipes import Pipe, Pipes, can_splice


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class PipesTests(SynchronousTestCase):
    """
    A pool that holds some empty pipes.
    """

    if not can_splice:
        skip = "there is no splice(2) here"

    def test_used_again(self) -> None:
        """
        A pipe that was given back is the next one to be taken.
        """
        pipes = Pipes()
        pipe = pipes.take()
        descriptors = (pipe.reader, pipe.writer)
        pipes.give(pipe)
        again = pipes.take()
        self.assertEqual((again.reader, again.writer), descriptors)

    def test_few_are_kept(self) -> None:
        """
        After a rush no more than 16 wait; the others are closed.
        """
        pipes = Pipes()
        taken = [pipes.take() for _ in range(20)]
        readers = [pipe.reader for pipe in taken]
        while taken:
            pipes.give(taken.pop())
        self.assertEqual(sum(map(_is_open, readers)), 16)
        del pipes
        self.assertEqual(sum(map(_is_open, readers)), 0)

    def test_closed_with_its_owner(self) -> None:
        """
        A pipe with bytes inside is never given back, but dropped, and closed.
        """
        pipe = Pipe()
        os.write(pipe.writer, b"for nobody")
        descriptors = (pipe.reader, pipe.writer)
        del pipe
        self.assertEqual([_is_open(each) for each in descriptors], [False, False])

    def test_does_not_block(self) -> None:
        """
        Neither end waits, and neither goes to a program that is started.
        """
        pipe = Pipe()
        for end in (pipe.reader, pipe.writer):
            self.assertTrue(fcntl.fcntl(end, fcntl.F_GETFL) & os.O_NONBLOCK)
            self.assertTrue(fcntl.fcntl(end, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)

    def test_no_descriptor(self) -> None:
        """
        Where no descriptor is left the caller is told, and nothing is broken.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        pipes = Pipes()
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        try:
            filling = []
            try:
                while True:
                    filling.append(os.dup(0))
            except OSError:
                pass
            self.assertRaises(OSError, pipes.take)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in filling:
                os.close(each)
        self.assertGreaterEqual(pipes.take().reader, 0)

"""
What relay and agent survive, with real sessions, processes and networks.

It injects faults, one after the other, while sessions run, and looks for bytes
that were lost, ends that were none, bytes that came to somebody else, and what
is left behind.  It needs root and Linux, and is no part of the package.
"""

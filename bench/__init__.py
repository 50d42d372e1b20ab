"""
The benchmark: relaytunnel beside its peers, on this machine, in one run.

C{python -m bench} starts every way there is to reach a server (directly,
through relaytunnel, HAProxy, nginx, ssh, and what else is on PATH), checks that
each passes bytes on unharmed, and measures them in turn, again and again.
"""

"""
C{python -m relaytunnel}: the C{relaytunnel} command.
"""

from relaytunnel.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

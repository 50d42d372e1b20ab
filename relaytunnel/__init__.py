"""
relaytunnel: reach a server behind a firewall through a relay that it dials itself.

The public names of each package are those in its ``__all__``; everything else
may change without notice.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("relaytunnel")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

"""
What is left for the collector of cycles.
"""

from __future__ import annotations

import gc
from collections import Counter

__all__ = ["collected"]


def collected() -> Counter[str]:
    """
    @return: the classes of ours whose instances were in cycles that nobody
        held.
    """
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return Counter(
            f"{type(found).__module__}.{type(found).__qualname__}"
            for found in gc.garbage
            if type(found).__module__.startswith("relaytunnel.")
        )
    finally:
        gc.set_debug(0)
        gc.garbage.clear()

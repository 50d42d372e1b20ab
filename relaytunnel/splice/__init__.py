"""
Two channels joined, with backpressure in both directions.
"""

from relaytunnel.splice.choice import PumpEngine, best_engine
from relaytunnel.splice.paired import PairedEngine
from relaytunnel.splice.report import SpliceReport

__all__ = ["PairedEngine", "PumpEngine", "SpliceReport", "best_engine"]

"""What each figure measures, as a function of a profile; the notebooks draw what these return."""

from linlib.experiments.registry import EXPERIMENTS, obtain

__all__ = ["EXPERIMENTS", "obtain"]

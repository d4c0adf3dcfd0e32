"""What a handful of runs allows one to say: robust averages, bootstrap intervals, comparisons. numpy and scipy only."""

from jaxrl.statistics.bootstrap import difference, improvement, interval, iqm, proportion

__all__ = ["difference", "improvement", "interval", "iqm", "proportion"]

"""Where batches come from: replays, rollouts, data sets, and mixtures of them."""

from jaxrl.sources.budget import footprint, report
from jaxrl.sources.onpolicy import latest, rollout
from jaxrl.sources.replay import uniform

__all__ = ["footprint", "latest", "report", "rollout", "uniform"]

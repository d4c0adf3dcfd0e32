"""Where batches come from: replays, rollouts, data sets, and mixtures of them."""

from jaxrl.sources.augment import random_shift, shifted
from jaxrl.sources.budget import footprint, report
from jaxrl.sources.dataset import dataset
from jaxrl.sources.generated import generated
from jaxrl.sources.mix import beside, mix, thinned
from jaxrl.sources.onpolicy import latest, rollout
from jaxrl.sources.prioritised import prioritised
from jaxrl.sources.replay import uniform

__all__ = [
    "beside",
    "dataset",
    "footprint",
    "generated",
    "latest",
    "mix",
    "prioritised",
    "random_shift",
    "report",
    "rollout",
    "shifted",
    "thinned",
    "uniform",
]

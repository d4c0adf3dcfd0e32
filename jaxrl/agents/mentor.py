"""MENTOR, on top of an actor-critic: DrM with a policy of experts, drawn to what served best (Huang et al. 2025).

Weights are perturbed towards a draw from a normal fitted to those of the ten best episodes so far, not towards fresh
ones. Its two ideas are a flag each: `task` and `mixture`. Deviations: DrM's and the mixture's (`drm`, `moe`); experts
and gates are perturbed once, with the rest of the policy, and never twice; where episodes of several environments end
within a tick, the best one counts.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from jaxrl.agents import drm
from jaxrl.agents import moe as mixtures
from jaxrl.agents.common import at_least, further
from jaxrl.core import Recipe, Specs
from jaxrl.rules.archive import archive, keep_best, like_them


@dataclass(frozen=True)
class Config(drm.Config):
    """DrM's numbers as MENTOR has them for DeepMind Control, with its own."""

    period: int = 40_000  # the authors count 10,000 updates, one in two steps of 2 frames
    noise: float = 0.8
    schedule: bool = False  # the authors' code has dropped it
    task: bool = True  # whether weights are drawn to what served best, or to fresh ones
    size: int = 10  # episodes whose weights are kept
    mixture: bool = True  # whether the policy is one of experts
    moe: mixtures.Config = field(default_factory=mixtures.Config)

    def __post_init__(self):
        super().__post_init__()
        at_least(self, size=2)


def seams(specs: Specs, config: Config, base: Any) -> dict[str, Any]:
    return mixtures.seams(specs, config.moe, base) if config.mixture else {}


def add(recipe: Recipe, specs: Specs, config: Config, base: Any) -> Recipe:
    """The recipe with MENTOR on top. Raises BadInput where its agent does not show what MENTOR looks at."""
    made = drm.add(recipe, specs, config, base)
    made = mixtures.add(made, specs, config.moe, base) if config.mixture else made
    if not (config.task and config.period):
        return made

    def towards(parts, key):
        return like_them(parts["archive"], {name: parts[name] for name in drm.PERTURBED}, key)

    agent = made.agent
    init = further("mentor", agent, lambda key, parts: {"archive": archive(parts, drm.PERTURBED, config.size)})
    perturb = drm.perturbing(towards, config, drm.due(config, recipe, specs), reads=("archive",))
    rules = {**agent.rules, "perturb": perturb}
    observe = {**agent.observe, "archive": keep_best("archive", drm.PERTURBED)}
    return replace(made, agent=replace(agent, init=init, rules=rules, observe=observe))

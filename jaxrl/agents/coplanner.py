"""COPlanner, on top of an off-policy agent: MBPO that knows where its model is unsure (Wang et al. 2024).

Of a few actions that the policy proposes, the one is done that a short look ahead in the model likes best. In the
model's own rollouts the members' disagreement counts against it, in the world in its favour. Rewards are stored as the
model tells them, and evaluation is the policy's own. All members make the rollouts, of which alone is learned, as in
the authors' code. Deviations: MBPO's; disagreement is in the data's spreads, as the
model is, where the authors' is in the units of rewards and observations; the warm-up's actions are uniform, where the
authors' are of the untrained policy.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax

from jaxrl.agents import mbpo
from jaxrl.agents.common import at_least, within
from jaxrl.core import Recipe, Specs
from jaxrl.models import ensemble
from jaxrl.planning import guided


@dataclass(frozen=True)
class Config(mbpo.Config):
    """MBPO's numbers, two of them changed, with those of the look ahead."""

    real: float = 0.0
    model: ensemble.Config = field(default_factory=lambda: ensemble.Config(elites=7, widths=(128, 128)))
    candidates: int = 5  # actions that the policy proposes
    ahead: int = 5  # steps of the look ahead, the first with a candidate
    gamma: float = 0.97  # discount a step of it, of reward and disagreement
    avoid: float | None = 2.0  # weight of the disagreement against an action in the model; None has MBPO's rollouts
    seek: float | None = 1.0  # in favour of an action in the world; None explores as the agent does

    def __post_init__(self):
        super().__post_init__()
        at_least(self, candidates=1, ahead=1)
        within(self, gamma=(0, 1))


NUMBERS = mbpo.NUMBERS


def add(recipe: Recipe, specs: Specs, config: Config, base: Any) -> Recipe:
    """The recipe with COPlanner on top. Raises BadInput as `mbpo.add`."""
    agent, model = recipe.agent, ensemble.dynamics(specs, config.model)
    explore = mbpo.exploring(agent)

    def planned(weight, parts, obs, ctx):
        """Actions for observations [B, d]."""

        def survey(key, obs, action):
            out, doubt = model.survey(parts["model"], obs, action, key)
            return out.next_obs, out.reward, doubt

        policy = lambda key, obs: explore(parts, obs, ctx._replace(key=key))
        return guided(ctx.key, obs, policy, survey, weight, config.candidates, config.ahead, config.gamma)

    made = mbpo.add(recipe, specs, config, base, None if config.avoid is None else partial(planned, -config.avoid))
    if config.seek is None:
        return made

    def act(parts, memory, obs, ctx, explore):
        if not explore:
            return agent.act(parts, memory, obs, ctx, explore)
        one = jax.tree.map(lambda x: x[None], obs)
        return planned(config.seek, parts, one, ctx)[0], memory, {}

    return replace(made, agent=replace(made.agent, act=act))

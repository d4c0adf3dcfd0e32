"""Stream TD(lambda): prediction from a stream, with traces  (Elsayed et al. 2024, algorithm 2).

It acts uniformly, where actions matter at all; `value` reads off what it has learned.
"""

from dataclasses import dataclass

import jax

from jaxrl.agents.streaming import Stream, clock, features, network, streaming, traced
from jaxrl.core import Agent, Parts, Recipe, Specs
from jaxrl.equations.values import td_target


@dataclass(frozen=True)
class Config(Stream):
    """Width, discount and decay of the paper's prediction task."""

    width: int = 128  # of the two hidden layers
    gamma: float = 0.9  # discount a step
    lambda_: float = 0.9  # decay of the traces


def build(specs: Specs, config: Config) -> Agent:
    """The agent for an environment of these specs."""
    feature = features(specs, config)
    critic = network(feature.shape, 1, config)

    def prediction(live, frozen, batch, key):
        """Minus v(s), and the TD error that scales its trace."""
        now = feature.view(frozen, batch)
        v = critic.apply(live["critic"], now.x)[0]
        v_next = critic.apply(frozen["critic"], now.x_next)[0]
        return -v, {"delta": td_target(now.reward, now.discount, v_next) - v, "reset": now.reset}

    def act(parts, memory, obs, ctx, explore):
        return specs.action.sample(ctx.key), memory + 1, {"prediction": value(parts, obs, memory)}

    def value(parts: Parts, obs: jax.Array, t: jax.Array) -> jax.Array:
        """v in the units of the rewards seen, float32 []."""
        v = critic.apply(parts["critic"], feature.of(parts, obs, t))[0]
        return v * feature.reward_unit(parts)

    rules = {"critic": traced(prediction, feature, config)}
    init = lambda key: {"critic": critic.init(key), **feature.parts()}
    return Agent(init, act, rules, feature.observe, clock)


def recipe(specs: Specs, config: Config) -> Recipe:
    return streaming(build(specs, config))

"""Stream SARSA(lambda): on-policy control from a stream, with traces  (Elsayed et al. 2024, algorithm 6).

The next action is chosen before the update, by the weights of then, and kept in the part 'plan' until it is taken.
"""

import jax
import jax.numpy as jnp
import optax

from jaxrl.agents.common import discrete
from jaxrl.agents.stream_q import Config
from jaxrl.agents.streaming import clock, features, network, streaming, traced
from jaxrl.core import Agent, Recipe, Specs, stateless
from jaxrl.equations.distributions import epsilon_greedy
from jaxrl.equations.values import sarsa_target

__all__ = ["Config", "build", "recipe"]


def build(specs: Specs, config: Config) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless its actions are Discrete."""
    feature = features(specs, config)
    critic = network(feature.shape, discrete("stream_sarsa", specs.action), config)
    exploration = optax.linear_schedule(1.0, config.epsilon, config.epsilon_frames)

    def choose(parts, x, ctx):
        return epsilon_greedy(ctx.key, critic.apply(parts["critic"], x), exploration(ctx.frames))

    def plan(parts, batch, ctx):
        return {"plan": choose(parts, feature.view(parts, batch).x_next, ctx)}, {}

    def prediction(live, frozen, batch, key):
        """Minus q(s, a), and the TD error that scales its trace."""
        now = feature.view(frozen, batch)
        q = critic.apply(live["critic"], now.x)[now.action]
        q_next = critic.apply(frozen["critic"], now.x_next)[frozen["plan"]]
        return -q, {"delta": sarsa_target(now.reward, now.discount, q_next) - q, "reset": now.reset}

    def act(parts, memory, obs, ctx, explore):
        x = feature.of(parts, obs, memory)
        if not explore:
            return critic.apply(parts["critic"], x).argmax().astype(jnp.int32), memory + 1, {}
        # Nothing was planned for an episode's first step.
        action = jax.lax.cond(memory == 0, lambda: choose(parts, x, ctx), lambda: parts["plan"])
        return action, memory + 1, {}

    rules = {
        "plan": stateless(plan, writes="plan", reads=("critic", *feature.names)),
        "critic": traced(prediction, feature, config, reads=("plan",)),
    }
    init = lambda key: {"critic": critic.init(key), "plan": jnp.int32(0), **feature.parts()}
    return Agent(init, act, rules, feature.observe, clock)


def recipe(specs: Specs, config: Config) -> Recipe:
    return streaming(build(specs, config))

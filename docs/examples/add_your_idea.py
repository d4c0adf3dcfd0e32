"""Three ideas added to SAC from outside the package; docs/add-your-idea.md tells the story."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from jaxrl.agents import sac
from jaxrl.core import Agent, Ctx, Recipe, Source, also, every, mean, stateless


# An auxiliary loss: actions that change little from one step to the next (CAPS, Mysore et al. 2021, eq. 2).
def smooth(agent: Agent, weight: float) -> Agent:
    def act(parts, obs, key):
        return jax.vmap(lambda o: agent.act(parts, (), o, Ctx(key, jnp.int32(0)), False)[0])(obs)

    def jerk(live, frozen, batch, key):
        change = act(live, batch["obs"], key) - act(live, batch["next_obs"], key)
        return weight * mean((change**2).sum(axis=-1), batch), {"change": jnp.abs(change)}

    return replace(agent, rules={**agent.rules, "actor": also(agent.rules["actor"], jerk)})


# A source: every transition may also be seen in the mirror, where the task has that symmetry. `signs` says which
# entries of the observation the mirror turns around; the action it always does.
def mirrored(source: Source, signs) -> Source:
    def sample(state, parts, key):
        key_batch, key_flip = jax.random.split(key)
        batch = source.sample(state, parts, key_batch)
        flip = jax.random.bernoulli(key_flip, 0.5, batch["reward"].shape)[:, None]
        turned = {name: batch[name] * jnp.asarray(signs) for name in ("obs", "next_obs")}
        turned["action"] = -batch["action"]
        return {**batch, **{name: jnp.where(flip, new, batch[name]) for name, new in turned.items()}}

    return replace(source, sample=sample)


# A weight perturbation: shrink towards a fresh initialisation (Ash and Adams 2020, eq. 1), every so many updates.
def perturbed(agent: Agent, period: int, keep: float) -> Agent:
    def shrink(parts, batch, ctx):
        fresh = agent.init(ctx.key)
        mix = lambda old, new: keep * old + (1 - keep) * new
        return {name: jax.tree.map(mix, parts[name], fresh[name]) for name in ("actor", "critic")}, {}

    rule = stateless(shrink, writes=("actor", "critic"))
    return replace(agent, rules={**agent.rules, "perturb": every(period, rule)})


# All three together, as a recipe that the command line can train on the pendulum: --agent docs.examples.add_your_idea
Config = sac.Config
PENDULUM = (1.0, -1.0, -1.0)  # cos, sin, velocity


def recipe(specs, config: sac.Config) -> Recipe:
    base = sac.recipe(specs, config)
    agent = perturbed(smooth(base.agent, 0.1), period=1000, keep=0.8)
    return replace(base, agent=agent, source=mirrored(base.source, PENDULUM))

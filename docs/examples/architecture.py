"""Four things in the nouns of jaxrl; docs/architecture.md shows them."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp

from jaxrl.agents import ppo
from jaxrl.core import Agent, Event, Recipe, Source, Specs, adam, mean, minimise, stateless, where


# PPO with a memory: `act` carries it, transitions keep it, `epochs` shuffles whole environments.
def ppo_gru(specs: Specs) -> Recipe:
    return ppo.recipe(specs, ppo.Config(gru=16, widths=(16,), num_envs=8, unroll=32, minibatches=2))


# An archive: the actor that was acting when an episode went better than any before.
def archived(agent: Agent) -> Agent:
    def init(key):
        parts = agent.init(key)
        least = jnp.full((), jnp.finfo(jnp.float32).min)  # -inf would count as diverged
        return {**parts, "best": {"actor": jax.tree.map(jnp.copy, parts["actor"]), "return": least}}

    def keep(parts, batch, ctx):
        found = jnp.where(batch["end"], batch["info"]["episode"]["return"], -jnp.inf).max()
        best = {"actor": parts["actor"], "return": found}
        return {"best": where(found > parts["best"]["return"], best, parts["best"])}, {"return": found}

    return replace(agent, init=init, observe={**agent.observe, "archive": stateless(keep, "best", "actor")})


# A refit: now and then, a model of the reward is learned anew from what the source holds.
def refit(source: Source, apply: Callable, period: int, updates: int) -> Event:
    def loss(live, frozen, batch, key):
        return mean((apply(live["model"], batch["obs"]) - batch["reward"]) ** 2, batch), {}

    rule = minimise(loss, adam(1e-2), "model")

    def fit(run, ctx):
        def step(carry, key):
            batch = source.sample(run.source, run.parts, key)
            parts, state, metrics = rule.update(*carry, batch, ctx._replace(key=key))
            return (parts, state), metrics["loss"]

        start = (run.parts, rule.init(run.parts))
        (parts, _), losses = jax.lax.scan(step, start, jax.random.split(ctx.key, updates))
        return run._replace(parts=parts), {"model/loss": losses[-1]}

    return Event(period, fit)


# A tabular learner: counts are a part, an observe rule keeps them, planning is a rule (UCBVI, Azar et al. 2017).
def ucbvi(states: int, actions: int, horizon: int, bonus: float) -> Agent:
    def init(key):
        table = jnp.zeros((states, actions))
        return {"counts": jnp.zeros((states, actions, states)), "visits": table, "reward": table, "q": table + horizon}

    def count(parts, batch, ctx):
        s, a, s_next = batch["obs"].argmax(-1), batch["action"], batch["next_obs"].argmax(-1)
        goes_on = batch["discount"]  # an exit leads nowhere, and so is worth its reward alone
        counts = parts["counts"].at[s, a, s_next].add(goes_on)
        visits = parts["visits"].at[s, a].add(1)
        return {"counts": counts, "visits": visits, "reward": parts["reward"].at[s, a].add(batch["reward"])}, {}

    def plan(parts, batch, ctx):
        n = jnp.maximum(parts["visits"], 1)
        model, reward = parts["counts"] / n[..., None], parts["reward"] / n + bonus / jnp.sqrt(n)
        gamma, unseen = 1 - 1 / horizon, parts["visits"] == 0  # what was never tried is worth all there could be
        backup = lambda _, q: jnp.where(unseen, horizon, reward + gamma * model @ q.max(axis=-1))
        return {"q": jax.lax.fori_loop(0, 4 * horizon, backup, jnp.zeros((states, actions)))}, {}

    def act(parts, memory, obs, ctx, explore):
        return parts["q"][obs.argmax()].argmax().astype(jnp.int32), memory, {}

    rules = {"plan": stateless(plan, writes="q", reads=("counts", "visits", "reward"))}
    return Agent(init, act, rules, observe={"count": stateless(count, writes=("counts", "visits", "reward"))})

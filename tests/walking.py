"""A small world and learner, and a run of them in a second: what tests of `jaxrl.run` share."""

import json

import jax
import jax.numpy as jnp
import optax

from jaxrl.core import Agent, Box, Env, Recipe, Specs, TimeStep, first, mean, minimise, stateless
from jaxrl.run import Settings
from jaxrl.sources import uniform

ABOUT = {"agent": "linear", "env": "walk", "config": {"lr": 0.1}}


def walk(traced=None) -> Env:
    """A noisy walk of 5 steps on a line; the reward is the action's closeness to where one is."""

    def reset(key):
        state = {"x": jax.random.normal(key, (2,)), "t": jnp.int32(0), "key": key}
        return state, first(state["x"])

    def step(state, action):
        if traced is not None:
            traced.append(1)
        key, noise = jax.random.split(state["key"])
        x = 0.9 * state["x"] + 0.1 * jax.random.normal(noise, (2,))
        t = state["t"] + 1
        reward = -jnp.square(action - x).sum()
        return {"x": x, "t": t, "key": key}, TimeStep(x, reward, jnp.bool_(False), t >= 5)

    return Env(reset, step, Specs(jax.ShapeDtypeStruct((2,), jnp.float32), Box((2,)), limit=5), "walk")


def linear(width=2, bad=False) -> Recipe:
    """Least squares towards the observation, with a second rule that may take the logarithm of a negative number."""

    def loss(live, frozen, batch, key):
        return mean(jnp.square(batch["obs"] @ live["actor"][:, :2] - batch["obs"]).sum(-1), batch), {}

    def shrink(parts, batch, ctx):
        return {"scale": jnp.log(parts["scale"] - 0.3) if bad else 0.9 * parts["scale"]}, {"scale": parts["scale"]}

    def act(parts, memory, obs, ctx, explore):
        return obs @ parts["actor"][:, :2] + 0.1 * explore * jax.random.normal(ctx.key, (2,)), memory, {}

    init = lambda key: {"actor": 0.1 * jax.random.normal(key, (2, width)), "scale": jnp.float32(1)}
    rules = {"actor": minimise(loss, optax.adam(0.1), "actor"), "shrink": stateless(shrink, "scale")}
    return Recipe(Agent(init, act, rules), uniform(64, 4), num_envs=2)


def settings(steps=40, **more) -> Settings:
    return Settings(**{"steps": steps, "chunk": 10, "saving": 1000.0, "evaluate_episodes": 2, **more})


def rows(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]

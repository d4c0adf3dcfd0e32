"""Stepping of grids under uniform actions: many of ours side by side with automatic reset, one of minigrid."""

import jax
import jax.numpy as jnp
import numpy as np

from envs.core import batched
from envs.grid import TABLE
from envs.registry import make
from experiments.bench.worker import Side


def ours(settings: dict) -> Side:
    entry = TABLE[settings["env"]]
    env = make(entry.target, **entry.settings, view="symbolic")
    width, steps = settings["num_envs"], settings["units"]
    many = batched(env, width, settings["starts"])
    actions = jax.random.randint(jax.random.key(1), (steps, width), 0, env.specs.action.n)
    held = {"now": (*jax.jit(many.reset)(jax.random.key(0)), jnp.zeros(width))}

    def step(carry, action):
        state, _, total = carry
        state, out, obs = many.step(state, action)
        return (state, obs, total + out.reward), None  # the sum keeps the reward from being left out of the program

    def compile():
        chunk = lambda carry, actions: jax.lax.scan(step, carry, actions)[0]
        held["chunk"] = jax.jit(chunk, donate_argnums=0).lower(held["now"], actions).compile()

    def window():
        held["now"] = jax.block_until_ready(held["chunk"](held["now"], actions))

    return Side(steps * width, compile, window, lambda: bool(jnp.isfinite(held["now"][2]).all()))


def minigrid(settings: dict) -> Side:
    import gymnasium
    import minigrid  # noqa: F401  (registers its environments)

    env = gymnasium.make(settings["env"])
    actions = np.random.default_rng(1).integers(7, size=settings["units"])
    total = [0.0]
    env.reset(seed=0)

    def window():
        for action in actions:
            _, reward, terminated, truncated, _ = env.step(int(action))
            total[0] += float(reward)
            if terminated or truncated:
                env.reset()

    return Side(len(actions), lambda: None, window, lambda: bool(np.isfinite(total[0])))

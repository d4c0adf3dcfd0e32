"""A point that has to go to a place, among numbers that do not matter: a test of what is causal."""

import jax
import jax.numpy as jnp

from envs.core import BadInput, Box, Env, Specs, TimeStep, first, never, time_limit

GOAL = jnp.array([0.7, 0.7])  # not in the middle, or no number would raise the reward, and none cause it linearly


def point_among_noise(states: int = 20, actions: int = 4, limit: int = 50) -> Env:
    """A point of the plane, with friction, is pushed by two of the action's numbers; the others do nothing.

    Observation float32 [4 + states]: position in [-1, 1]^2, velocity, and numbers that each go their own way, z' =
    0.9 z + 0.44 e with e standard normal. Action float32 [2 + actions] in [-1, 1]. Reward 1 less the distance to
    (0.7, 0.7) after the step; only the limit ends an episode.

    Raises:
        BadInput: fewer than 0 of either.
    """
    if states < 0 or actions < 0:
        raise BadInput(f"states is {states} and actions {actions} in point_among_noise; neither is below 0.")

    def see(state):
        return jnp.concatenate([state["position"], state["velocity"], state["noise"]])

    def reset(key):
        key, key_place, key_noise = jax.random.split(key, 3)
        state = {
            "position": jax.random.uniform(key_place, (2,), minval=-1.0, maxval=1.0),
            "velocity": jnp.zeros(2),
            "noise": jax.random.normal(key_noise, (states,)),
            "key": key,
        }
        return state, first(see(state))

    def step(state, action):
        key, key_now = jax.random.split(state["key"])
        velocity = 0.8 * state["velocity"] + 0.04 * jnp.clip(action[:2], -1, 1)
        free = state["position"] + velocity
        position = jnp.clip(free, -1, 1)
        state = {
            "position": position,
            "velocity": jnp.where(position == free, velocity, 0.0),
            "noise": 0.9 * state["noise"] + 0.44 * jax.random.normal(key_now, (states,)),
            "key": key,
        }
        reward = 1 - jnp.linalg.norm(position - GOAL)
        return state, TimeStep(see(state), reward, jnp.bool_(False), jnp.bool_(False))

    observation = jax.ShapeDtypeStruct((4 + states,), jnp.float32)
    return time_limit(Env(reset, step, Specs(observation, Box((2 + actions,)), over=never), "point-among-noise"), limit)

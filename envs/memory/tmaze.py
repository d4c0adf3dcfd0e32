"""T-maze: a sign at the start says which way to turn at the end of a corridor (Bakker 2002)."""

import jax
import jax.numpy as jnp

from envs.core import BadInput, Discrete, Env, Specs, TimeStep, first, time_limit

EAST, NORTH, WEST, SOUTH = range(4)


def tmaze(corridor: int = 10, slack: int = 2) -> Env:
    """Actions: 0 east, 1 north, 2 west, 3 south; those into a wall leave the agent where it is and cost 0.1.

    The observation, float32 [4], is one-hot: sign says north, sign says south (both at the start alone), corridor,
    junction. At the junction the way of the sign gives 4 and the other -0.1, and both end the episode. The optimum
    is 4, after `corridor` + 1 steps.

    Args:
        corridor: steps from the start to the junction.
        slack: the episode is truncated after `slack` times the steps needed.
    """
    if corridor < 1 or slack < 1:
        raise BadInput(f"corridor is {corridor} and slack {slack} in tmaze; both are at least 1.")

    def see(state):
        start, junction = state["x"] == 0, state["x"] == corridor
        place = jnp.where(start, jnp.where(state["north"], 0, 1), jnp.where(junction, 3, 2))
        return jax.nn.one_hot(place, 4)

    def reset(key):
        state = {"x": jnp.int32(0), "north": jax.random.bernoulli(key)}
        return state, first(see(state))

    def step(state, action):
        x = state["x"]
        turned = (x == corridor) & ((action == NORTH) | (action == SOUTH))
        right = (action == NORTH) == state["north"]
        moved = jnp.clip(x + (action == EAST) - (action == WEST), 0, corridor).astype(jnp.int32)
        bump = ~turned & (moved == x)
        reward = jnp.where(turned & right, 4.0, jnp.where(turned | bump, -0.1, 0.0))
        state = {**state, "x": moved}
        return state, TimeStep(see(state), reward, turned, jnp.bool_(False))

    specs = Specs(jax.ShapeDtypeStruct((4,), jnp.float32), Discrete(4))
    return time_limit(Env(reset, step, specs, "tmaze"), slack * (corridor + 1))

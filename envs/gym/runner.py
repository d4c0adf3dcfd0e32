"""What Gymnasium's runners share: starts near the model's own posture, and pay for the way made in the last step.

Gymnasium pays (x after - x before) / dt rather than a velocity, so the state's task keeps where the step began.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from envs.control import physics
from envs.control.physics import Model, State
from jaxrl.core import Env, Key

LIMIT = 1000  # control steps


def load(name: str) -> Model:
    return physics.load(name, Path(__file__).parent)


def uniform(key: Key, size: int, scale: float) -> jax.Array:
    return jax.random.uniform(key, (size,), minval=-scale, maxval=scale)


def start(qpos: jax.Array, qvel: jax.Array) -> State:
    """A state whose task, the root's x before the step (m, float32 []), says that no way has been made."""
    return physics.start(qpos, qvel, qpos[0])


def advance(model: Model, substeps: int) -> Callable[[State, jax.Array], State]:
    return lambda state, action: physics.step(model, state._replace(task=state.qpos[0]), action, substeps)


def speed(model: Model, substeps: int, state: State) -> jax.Array:
    """The root's mean velocity along x over the last control step, m/s []."""
    return (state.qpos[0] - state.task) / (substeps * model.c.opt.timestep)


def effort(action: jax.Array) -> jax.Array:
    """The sum of squares, before its weight."""
    return jnp.sum(action**2)


def within(x: jax.Array, low: float, high: float) -> jax.Array:
    """All of x strictly between the bounds, bool []."""
    return ((low < x) & (x < high)).all()


def upright(name: str, healthy: Callable[[jax.Array, jax.Array], jax.Array]) -> Env:
    """Hopper and walker: legs in a plane that start at rest but for 5e-3 (m, rad, m/s, rad/s), see all but x, and end
    where they are not healthy. Paid the speed in m/s, 1 for health, less a thousandth of the squared action.

    Args:
        healthy: of what is seen, qpos without x and qvel. (An observation clips these, which no healthy body meets.)
    """
    model, substeps = load(name), 4
    rest = jnp.asarray(model.c.qpos0, jnp.float32)

    def reset(key: Key) -> State:
        noise = uniform(key, model.c.nq + model.c.nv, 5e-3)
        return start(rest + noise[: model.c.nq], noise[model.c.nq :])

    def observe(state: State) -> jax.Array:
        return jnp.concatenate([state.qpos[1:], jnp.clip(state.qvel, -10.0, 10.0)])

    def reward(state: State, action: jax.Array) -> jax.Array:
        return speed(model, substeps, state) + ~fallen(state) - 1e-3 * effort(action)

    fallen = lambda state: ~healthy(state.qpos[1:], state.qvel)
    return physics.environment(
        f"gym-{name}",
        model,
        reset,
        observe,
        reward,
        limit=LIMIT,
        advance=advance(model, substeps),
        terminated=fallen,
        over=lambda obs: ~healthy(obs[: model.c.nq - 1], obs[model.c.nq - 1 :]),
    )

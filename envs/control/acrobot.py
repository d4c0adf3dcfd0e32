"""DM Control's acrobot: two poles in a chain, to be swung up and balanced by the joint between them alone.

Coulom, "Reinforcement learning using neural networks, with applications to motor control" (2002); rewards and constants
as in Tassa et al., "DeepMind Control Suite" (2018).

Observation, float32 [6]: sines of the two poles' angles from upright, their cosines, angular velocities of shoulder and
elbow (rad/s). Action [1]: torque of the elbow, +-2 N m at +-1.
"""

import jax
import jax.numpy as jnp

from envs.control import physics
from envs.control.physics import State
from envs.control.rewards import tolerance
from jaxrl.core import Env, Key

TARGET = 0.2  # m, the radius around the tip's highest point that is worth 1


def reset(key: Key) -> State:
    """Both joints at any angle, at rest."""
    return physics.start(jax.random.uniform(key, (2,), minval=-jnp.pi, maxval=jnp.pi), jnp.zeros(2))


def observe(state: State) -> jax.Array:
    angle = jnp.cumsum(state.qpos)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle), state.qvel])


def to_target(state: State) -> jax.Array:
    """From the tip to where it would be if both poles (1 m each) stood upright, m []."""
    angle = jnp.cumsum(state.qpos)
    return jnp.hypot(jnp.sin(angle).sum(), 2 - jnp.cos(angle).sum())


def swingup() -> Env:
    return _task("swingup", margin=1.0)


def swingup_sparse() -> Env:
    return _task("swingup-sparse", margin=0.0)


def _task(name, margin) -> Env:
    """Paid 1 where the tip is within `TARGET` of its highest point; beyond it falls over `margin` (m)."""
    model = physics.load("acrobot")
    reward = lambda state, action: tolerance(to_target(state), 0.0, TARGET, margin=margin)
    return physics.environment(f"acrobot-{name}", model, reset, observe, reward)

"""DM Control's hopper: stand up on one leg, or hop forward at 2 m/s.

After Lillicrap et al., "Continuous control with deep reinforcement learning" (2015); rewards and constants as in Tassa
et al., "DeepMind Control Suite" (2018).

Observation, float32 [15]: qpos without the horizontal position (height from rest, pitch, waist, hip, knee, ankle; m,
rad), qvel (all seven; m/s, rad/s), log(1 + force in N) on toe and heel. Action [4]: torques of waist, hip, knee and
ankle (30, 40, 30, 10 N m at 1). The state's task holds the two forces [2] of the last physics step.
"""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.control import physics
from envs.control.physics import Planar, State
from envs.control.rewards import tolerance
from jaxrl.core import Env, Key

SUBSTEPS = 4  # of 5 ms in one control step
STAND = 0.6  # m, of the torso above the foot, from which it stands
HOP = 2.0  # m/s


def above_foot(c: mujoco.MjModel) -> np.ndarray:
    """What, turned by the angles of its bodies, leads from the foot's centre of mass to the torso's: (x, z), m [5, 2].

    The five bodies are a chain from torso to foot, each with its joint at its origin.
    """
    foot = c.nbody - 1
    arms = np.concatenate([-c.body_pos[2:], -c.body_ipos[foot:]])
    arms[0] += c.body_ipos[1]
    return arms[:, [0, 2]].astype(np.float32)


def height(arms: np.ndarray, plane: Planar, state: State) -> jax.Array:
    """Of the torso above the foot, m []."""
    angle = physics.angles(plane, state.qpos)
    return jnp.cos(angle) @ arms[:, 1] - jnp.sin(angle) @ arms[:, 0]


def observe(state: State) -> jax.Array:
    return jnp.concatenate([state.qpos[1:], state.qvel, jnp.log1p(state.task)])


def stand() -> Env:
    """Paid for standing, times a factor within [4/5, 1] for little force."""

    def gentle(plane, state, action):
        return (4 + tolerance(action, margin=1.0, sigmoid="quadratic", at_margin=0.0).mean()) / 5

    return _task("stand", gentle)


def hop() -> Env:
    """Paid for standing, times a factor that grows linearly with the forward speed, from 0 at rest to 1 at `HOP`."""

    def moving(plane, state, action):
        speed = physics.forward_speed(plane, state)
        return tolerance(speed, HOP, jnp.inf, margin=HOP / 2, sigmoid="linear", at_margin=0.5)

    return _task("hop", moving)


def _task(name, factor) -> Env:
    model = physics.load("hopper")
    plane, arms = physics.planar(model.c), above_foot(model.c)
    low, high = jnp.asarray(model.c.jnt_range, jnp.float32).at[2].set(jnp.array([-jnp.pi, jnp.pi])).T

    def reset(key: Key) -> State:
        """Any pitch and any posture, the torso at 1 m, at rest: it falls."""
        qpos = jax.random.uniform(key, low.shape, minval=low, maxval=high)
        return physics.start(qpos, jnp.zeros(model.c.nv), jnp.zeros(2))

    def reward(state: State, action: jax.Array) -> jax.Array:
        standing = tolerance(height(arms, plane, state), STAND, 2.0)
        return standing * factor(plane, state, action)

    def advance(state: State, action: jax.Array) -> State:
        state, touch = physics.sensed(model, state, action, SUBSTEPS)
        return state._replace(task=touch)

    return physics.environment(f"hopper-{name}", model, reset, observe, reward, advance=advance)

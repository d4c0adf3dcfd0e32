"""DM Control's cheetah: a planar runner, paid for speed up to 10 m/s.

After Wawrzynski, "Real-time reinforcement learning by sequential actor-critics and experience replay" (2009); rewards
and constants as in Tassa et al., "DeepMind Control Suite" (2018).

Observation, float32 [17]: qpos without the horizontal position (height from rest, pitch, then back thigh, shin, foot
and front thigh, shin, foot; m, rad), qvel (all nine; m/s, rad/s). Action [6]: torques of those six joints, each up to
its gear (120, 90, 60, 90, 60, 30 N m).
"""

import functools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.control import physics
from envs.control.physics import Planar, State
from envs.control.rewards import tolerance
from jaxrl.core import Env, Key

RUN = 10.0  # m/s, where the reward reaches 1
STARTS = 128
SETTLE = 200  # physics steps


@functools.cache
def settled() -> tuple[np.ndarray, np.ndarray]:
    """Start states, float32 qpos and qvel [STARTS, 9]: random joints, let fall and come to rest for two seconds.

    DM Control does this at each reset, at the price of 200 steps; its springs bring all of them near one posture. Here
    MuJoCo does it once, so that a reset costs a look into a table.
    """
    c = physics.load("cheetah").c
    data, random = mujoco.MjData(c), np.random.default_rng(0)
    limited = c.jnt_limited.astype(bool)
    qpos, qvel = np.zeros((2, STARTS, c.nq), np.float32)
    for i in range(STARTS):
        mujoco.mj_resetData(c, data)
        data.qpos[limited] = random.uniform(*c.jnt_range[limited].T)
        mujoco.mj_step(c, data, SETTLE)
        qpos[i], qvel[i] = data.qpos, data.qvel
    return qpos, qvel


def observe(state: State) -> jax.Array:
    return jnp.concatenate([state.qpos[1:], state.qvel])


def reward(plane: Planar, state: State) -> jax.Array:
    """The share of `RUN` that the centre of mass moves at, within [0, 1]."""
    speed = physics.forward_speed(plane, state)
    return tolerance(speed, RUN, jnp.inf, margin=RUN, sigmoid="linear", at_margin=0.0)


def run() -> Env:
    model = physics.load("cheetah")
    plane = physics.planar(model.c)
    bank = settled()

    def reset(key: Key) -> State:
        at = jax.random.randint(key, (), 0, STARTS)
        return physics.start(*(jnp.asarray(x)[at] for x in bank))

    return physics.environment("cheetah-run", model, reset, observe, lambda state, action: reward(plane, state))

"""DM Control's humanoid: stand up, then walk (1 m/s) or run (10 m/s) in any direction.

Model after Tassa, Erez and Todorov, "Synthesis and stabilization of complex behaviors through online trajectory
optimization" (2012); rewards and constants as in Tassa et al., "DeepMind Control Suite" (2018).

Observation, float32 [67]: angles of the 21 joints (abdomen z, y, x; right hip x, z, y, knee, ankle y, x; the left ones;
right shoulder 1, 2, elbow; the left ones; rad); the head's height (m); from the torso to the left hand and foot and the
right hand and foot, in the torso's frame (m); how much of the vertical lies along the torso's x, y, z; the velocity of
the centre of mass (m/s); qvel (27; m/s, rad/s). Action [21]: torques, in the order of the model's actuators.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.control import physics
from envs.control.physics import Model, State
from envs.control.rewards import tolerance
from jaxrl.core import Env, Key

STAND = 1.4  # m, above which the head's height is worth 1
WALK, RUN = 1.0, 10.0  # m/s
SUBSTEPS = 5  # of 5 ms in one control step
LIMBS = ("left_hand", "left_foot", "right_hand", "right_foot")
HEIGHT, UPRIGHT, VELOCITY = 21, 36, slice(37, 39)  # where the observation has them; the velocity in the plane
POSTURES = 1024


@functools.cache
def postures() -> np.ndarray:
    """Joint angles, float32 [POSTURES, 21], uniform over those at which no part of the body touches another.

    DM Control draws them at each reset until nothing touches. Here MuJoCo does it once, with all contacts within the
    body, of which the model in motion has few. From 1.5 m nothing reaches the ground, however the body is turned.
    """
    c = physics.colliding(physics.load("humanoid").c)
    data, random, found = mujoco.MjData(c), np.random.default_rng(0), []
    while len(found) < POSTURES:
        data.qpos[7:] = random.uniform(*c.jnt_range[1:].T)
        mujoco.mj_fwdPosition(c, data)
        if data.ncon == 0:
            found.append(np.float32(data.qpos[7:]))
    return np.stack(found)


def observe(model: Model, state: State) -> jax.Array:
    data = physics.placed(model, state, moving=True)
    torso, head, *limbs = (model.c.body(name).id for name in ("torso", "head", *LIMBS))
    frame = data.xmat[torso]
    reach = (data.xpos[np.array(limbs)] - data.xpos[torso]) @ frame
    seen = [data.xpos[head, 2:], reach.ravel(), frame[2], physics.centre_velocity(model, data)]
    return jnp.concatenate([state.qpos[7:], *seen, state.qvel])


@functools.cache
def look() -> Callable[[State], jax.Array]:
    """`observe`, traced once for all tasks, their observations and their rewards: it takes two seconds."""
    return jax.jit(functools.partial(observe, physics.load("humanoid")))


def reward(obs: jax.Array, action: jax.Array, speed: float) -> jax.Array:
    """Height of the head times uprightness, times a factor within [4/5, 1] for little torque, and one for the centre of
    mass: within [1/6, 1] for moving at `speed` (m/s) or more; where that is 0, for standing still."""
    standing = tolerance(obs[HEIGHT], STAND, jnp.inf, margin=STAND / 4)
    upright = tolerance(obs[UPRIGHT], 0.9, jnp.inf, margin=1.9, sigmoid="linear", at_margin=0.0)
    gentle = (4 + tolerance(action, margin=1.0, sigmoid="quadratic", at_margin=0.0).mean()) / 5
    if speed == 0:
        still = tolerance(obs[VELOCITY], margin=2.0).mean()
        return gentle * standing * upright * still
    pace = jnp.linalg.norm(obs[VELOCITY])
    moving = tolerance(pace, speed, jnp.inf, margin=speed, sigmoid="linear", at_margin=0.0)
    return gentle * standing * upright * (5 * moving + 1) / 6


def stand() -> Env:
    return _task("stand", 0.0)


def walk() -> Env:
    return _task("walk", WALK)


def run() -> Env:
    return _task("run", RUN)


def _task(name, speed) -> Env:
    model = physics.load("humanoid")
    bank = postures()

    def reset(key: Key) -> State:
        """Any posture in which nothing touches, 1.5 m above the ground at rest: it falls."""
        key_turn, key_posture = jax.random.split(key)
        # Not uniform over rotations: DM Control draws all four numbers positive, which published results rest on.
        turn = jax.random.uniform(key_turn, (4,))
        posture = jnp.asarray(bank)[jax.random.randint(key_posture, (), 0, POSTURES)]
        place = jnp.asarray(model.c.qpos0[:3], jnp.float32)
        qpos = jnp.concatenate([place, turn / jnp.linalg.norm(turn), posture])
        return physics.start(qpos, jnp.zeros(model.c.nv))

    return physics.environment(
        f"humanoid-{name}",
        model,
        reset,
        look(),
        lambda state, action: reward(look()(state), action, speed),
        SUBSTEPS,
    )

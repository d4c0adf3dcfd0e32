"""The quadruped's control step on MJX against C MuJoCo's: each foot's plane is laid anew in every physics step."""

import copy

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.legged import quadruped, terrain
from envs.legged.quadruped import DT, SUBSTEPS, TRUNK

pytestmark = pytest.mark.reference
COUNT = 32


def c_robot(robot):
    """MuJoCo's model of a drawn robot."""
    c = copy.copy(quadruped.load().c)
    c.body_inertia[TRUNK] *= 1 + robot.payload / c.body_mass[TRUNK]
    c.body_mass[TRUNK] += robot.payload
    c.body_ipos[TRUNK] += robot.centre
    c.body_sameframe[TRUNK] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE  # else MuJoCo takes the centre to be the origin
    c.geom_friction[:, 0] *= robot.friction
    return c


def c_moved(state, action, height):
    """One control step in C MuJoCo: qpos, qvel and the number of feet that touch at its end."""
    c, task = c_robot(state.task.robot), state.task
    data = mujoco.MjData(c)
    data.qpos[:], data.qvel[:] = state.qpos, state.qvel
    data.xfrc_applied[TRUNK, :3] = task.force
    feet = [c.geom(f"{leg}_foot").id for leg in ("fl", "fr", "hl", "hr")]
    for i in range(SUBSTEPS):
        mujoco.mj_kinematics(c, data)
        point, normal = terrain.surface(height, task.terrain, jnp.float32(data.geom_xpos[feet, :2]))
        data.mocap_pos[:], data.mocap_quat[:] = point, quadruped.laid(normal)
        late = task.actions[0] if i < task.robot.latency else action
        now = state._replace(qpos=jnp.float32(data.qpos), qvel=jnp.float32(data.qvel))
        data.ctrl[:] = quadruped.torques(task.robot, now, late)
        mujoco.mj_step(c, data)
    return data.qpos, data.qvel, data.ncon


def test_a_control_step_equals_c_mujocos():
    env, height, random = quadruped.quadruped("rough", level=9), terrain.rough, np.random.default_rng(0)
    states = jax.jit(jax.vmap(lambda key: env.reset(key)[0]["inner"]))(jax.random.split(jax.random.key(0), COUNT))
    # Anywhere on the rough ground, one foot pressed some millimetres into it, with a force on the trunk.
    xy = jnp.float32(random.uniform(-6, 6, (COUNT, 2)))
    ground = jax.vmap(height)(states.task.terrain, xy)
    lifted = jnp.concatenate([xy, (states.qpos[:, 2] + ground + random.uniform(-0.01, 0.02, COUNT))[:, None]], axis=1)
    force = jnp.float32(random.uniform(-30, 30, (COUNT, 3)))
    old, action = (jnp.float32(random.uniform(-2, 2, (COUNT, 12))) for _ in range(2))
    task = states.task._replace(force=force, actions=states.task.actions.at[:, 0].set(old))
    states = states._replace(qpos=states.qpos.at[:, :3].set(lifted.astype(jnp.float32)), task=task)
    after = jax.jit(jax.vmap(lambda s, a: quadruped.moved(quadruped.load(), height, s, a)))(states, action)

    keyless = states._replace(task=states.task._replace(key=()))  # NumPy holds no keys
    one = lambda i: jax.tree.map(lambda x: np.asarray(x[i]), keyless)
    theirs = [c_moved(one(i), np.asarray(action[i]), height) for i in range(COUNT)]
    qpos, qvel, touching = (np.array(x) for x in zip(*theirs))
    assert (touching > 0).sum() > COUNT // 4
    np.testing.assert_allclose(after.qpos, qpos, atol=1e-4)
    np.testing.assert_allclose(after.qvel, qvel, atol=2e-2)
    change = np.linalg.norm(qvel[:, 6:] - np.asarray(states.qvel[:, 6:]), axis=1)
    np.testing.assert_allclose(np.linalg.norm(after.task.acceleration, axis=1) * DT, change, rtol=1e-2)

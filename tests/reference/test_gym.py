"""Gymnasium's runners against Gymnasium: constants, motion, and what one control step shows and pays."""

import copy
import functools

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.control.physics import State
from envs.gym import TABLE, runner
from envs.registry import _imported

pytestmark = pytest.mark.reference

THEIRS = {
    "gym-hopper": "Hopper-v5",
    "gym-halfcheetah": "HalfCheetah-v5",
    "gym-walker2d": "Walker2d-v5",
    "gym-ant": "Ant-v5",
    "gym-humanoid": "Humanoid-v5",
}
COUNT = 64  # states of a comparison


@functools.cache
def theirs(id):
    return gymnasium.make(THEIRS[id]).unwrapped


def ours(id):
    return runner.load(id.removeprefix("gym-")).c


@pytest.mark.parametrize("id", TABLE)
def test_constants_equal_gymnasiums(id):
    c, them = ours(id), theirs(id).model
    for field in [
        "actuator_ctrlrange",
        "actuator_gear",
        "actuator_trnid",
        "body_inertia",
        "body_ipos",
        "body_iquat",
        "body_mass",
        "body_parentid",
        "body_pos",
        "body_quat",
        "dof_armature",
        "dof_damping",
        "geom_friction",
        "geom_margin",
        "geom_pos",
        "geom_quat",
        "geom_solimp",
        "geom_solref",
        "geom_type",
        "jnt_axis",
        "jnt_limited",
        "jnt_range",
        "jnt_stiffness",
        "jnt_type",
        "qpos0",
        "qpos_spring",
    ]:
        np.testing.assert_allclose(getattr(c, field), getattr(them, field), rtol=2e-6, atol=1e-8, err_msg=field)
    np.testing.assert_allclose(c.geom_size[1:], them.geom_size[1:], err_msg="the floor alone has another extent")
    limited = c.jnt_limited.astype(bool)
    for field in ("jnt_solref", "jnt_solimp", "jnt_margin"):
        np.testing.assert_allclose(getattr(c, field)[limited], getattr(them, field)[limited], err_msg=field)
    np.testing.assert_array_equal(c.opt.gravity, them.opt.gravity)
    assert c.opt.timestep == them.opt.timestep
    names = [them.geom(i).name for i in range(them.ngeom)]
    assert [c.geom(i).name for i in range(c.ngeom)] == names


@pytest.mark.parametrize("id", TABLE)
def test_clocks_and_bounds_equal_gymnasiums(id):
    env, spec = _imported(id, TABLE[id].target)(), gymnasium.spec(THEIRS[id])
    assert env.specs.limit == spec.max_episode_steps == 1000
    box = theirs(id).action_space
    np.testing.assert_array_equal(np.broadcast_to(np.float32(env.specs.action.high), box.shape), box.high)
    np.testing.assert_array_equal(np.broadcast_to(np.float32(env.specs.action.low), box.shape), box.low)
    assert env.specs.observation.shape == theirs(id).observation_space.shape


def as_gymnasium(id):
    """Our model with the integrator and the solver of Gymnasium's, and with its own bounds on what collides."""
    c, them = copy.copy(ours(id)), theirs(id).model
    for option in ("integrator", "solver", "iterations", "ls_iterations", "disableflags"):
        setattr(c.opt, option, getattr(them.opt, option))
    return c


def pruned(c, contact):
    """Whether some pair that touches cannot touch in our model."""
    kept = {frozenset(pair) for pair in zip(c.pair_geom1.tolist(), c.pair_geom2.tolist())}
    kept |= {frozenset((0, geom)) for geom in np.flatnonzero(c.geom_conaffinity[1:] & c.geom_contype[0]) + 1}
    return any(frozenset(pair) not in kept for pair in contact.geom.tolist())


@pytest.mark.parametrize("id", TABLE)
def test_our_model_moves_as_gymnasiums(id):
    """The same actions from the same start lead to the same place, for as long as nothing touches that we leave out."""
    env, c, random = theirs(id), as_gymnasium(id), np.random.default_rng(0)
    data, steps, touching, episodes = mujoco.MjData(c), 0, 0, 0
    while steps < 400:
        env.reset(seed=episodes)
        mujoco.mj_resetData(c, data)
        data.qpos[:], data.qvel[:] = env.data.qpos, env.data.qvel
        mujoco.mj_forward(c, data)
        for _ in range(50):  # before chance differences in the last digit have grown
            action = random.uniform(env.action_space.low, env.action_space.high)
            terminated = env.step(action)[2]
            data.ctrl[:] = action
            mujoco.mj_step(c, data, env.frame_skip)
            if terminated or pruned(c, env.data.contact):
                break
            np.testing.assert_allclose(data.qpos, env.data.qpos, atol=1e-6)
            np.testing.assert_allclose(data.qvel, env.data.qvel, atol=1e-4)
            steps, touching = steps + 1, touching + (env.data.ncon > 0)
        episodes += 1
        assert episodes < 200
    assert touching > 100


def along_the_way(id, random):
    """States and actions that a random policy meets, from Gymnasium's own starts to well after a fall."""
    env, found = theirs(id), []
    while len(found) < COUNT:
        env.reset(seed=len(found))
        for _ in range(random.integers(2, 40)):
            env.step(random.uniform(env.action_space.low, env.action_space.high))
        found.append((env.data.qpos.copy(), env.data.qvel.copy()))
    qpos, qvel = (np.float32(x) for x in zip(*found))
    return qpos, qvel, np.float32(random.uniform(env.action_space.low, env.action_space.high, (COUNT, env.model.nu)))


STEEP = np.cos(np.radians(59))  # MJX draws the line at 60 degrees, of float32


def watched(env):
    """Makes Gymnasium look at the body where it is after the step: at the end of a step MuJoCo has left its kinematics
    where the last physics step began (Runge-Kutta's last stage, in Gymnasium's own setting, is near its end).

    Returns a list to which each control step adds the number of contacts at its end, and whether a capsule touched the
    ground at more than 59 degrees. There MJX turns the pyramid of friction to the world's y, and MuJoCo to the capsule.
    """
    model, seen = env.model, []

    def do_simulation(ctrl, frames):
        data, steep = env.data, False
        data.ctrl[:] = ctrl
        for _ in range(frames):
            mujoco.mj_step(model, data)
            geoms = data.contact.geom[data.contact.geom[:, 0] == 0, 1]
            geoms = geoms[model.geom_type[geoms] == mujoco.mjtGeom.mjGEOM_CAPSULE]
            steep |= bool((np.linalg.norm(data.geom_xmat[geoms][:, [2, 5]], axis=1) < STEEP).any())
        mujoco.mj_rnePostConstraint(model, data)
        for stage in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_comVel):
            stage(model, data)
        seen.append((data.ncon, steep))

    env.do_simulation = do_simulation
    return seen


@pytest.mark.parametrize("id", TABLE)
def test_a_step_equals_gymnasiums_with_our_model(id):
    """Gymnasium's own code, given our capped model in C MuJoCo, sees, pays and ends as ours does on MJX."""
    random = np.random.default_rng(1)
    qpos, qvel, action = along_the_way(id, random)
    env = _imported(id, TABLE[id].target)()
    start = jax.jit(lambda key: env.reset(key)[0]["inner"])(jax.random.key(0))

    them = gymnasium.make(THEIRS[id]).unwrapped
    them.model, them.data = ours(id), mujoco.MjData(ours(id))
    seen = watched(them)

    def step(qpos, qvel, before, action):
        state = State(qpos, qvel, jnp.zeros_like(qvel), task=tasked(start.task, qpos, before))
        return env.step({"inner": state, "t": jnp.int32(0)}, action)

    before, expected = [], []
    for i in range(COUNT):
        them.data.act[:] = 0
        them.set_state(np.float64(qpos[i]), np.float64(qvel[i]))
        them.data.qacc_warmstart[:] = 0
        before.append(them.model.body_mass @ them.data.xipos[:, 0] / them.model.body_mass.sum())
        out = them.step(np.float64(action[i]))
        expected.append((out[0], out[1], out[2], them.data.qpos.copy(), them.data.qvel.copy()))
    state, out = jax.jit(jax.vmap(step))(qpos, qvel, np.float32(before), action)
    touching, steep = np.array(seen).T
    same = steep == 0 if id == "gym-ant" else np.ones(COUNT, bool)  # in a plane, both pyramids are one
    assert (touching[same] > 0).sum() >= COUNT // 16 and same.sum() >= COUNT // 2
    obs, reward, terminated, qpos, qvel = (np.array(x)[same] for x in zip(*expected))
    state, out = jax.tree.map(lambda x: np.asarray(x)[same], (state["inner"], out))
    assert np.ptp(reward) > 0.1 and terminated.any() == (id != "gym-halfcheetah") and not terminated.all()
    np.testing.assert_array_equal(out.terminated, terminated)
    np.testing.assert_allclose(state.qpos, qpos, atol=2e-4)
    np.testing.assert_allclose(state.qvel, qvel, atol=2e-2, rtol=1e-3)
    np.testing.assert_allclose(out.reward, reward, atol=5e-3)
    np.testing.assert_allclose(out.obs, obs, atol=2e-2, rtol=5e-3)


def tasked(task, qpos, before):
    """A start's task, as it would be where the body is at `qpos` and its centre of mass at x = `before`."""
    if not hasattr(task, "_fields"):
        return qpos[0]
    at = before if "after" in task._fields else qpos[0]
    return task._replace(**{name: at for name in ("before", "after") if name in task._fields})

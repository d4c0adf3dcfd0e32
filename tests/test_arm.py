"""The arm's laws by hand: its kinematics, its starts, what it is paid for, and its simplest task solved.

Its servos obey at once here; `tests/reference/test_arm.py` has an expert solve all five tasks under the true physics,
and holds their motion against C MuJoCo.
"""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.arm import TABLE, arm, expert, tasks
from envs.arm.arm import HOME, OPEN, Kept
from envs.control import physics
from envs.core import bare, contextual
from envs.registry import check_env, make

SIZES = {"arm-reach": 28, "arm-push": 41, "arm-pick-and-place": 41, "arm-peg-insertion": 41, "arm-door": 33}
MODELS = {"arm-push": "cube", "arm-pick-and-place": "cube", "arm-peg-insertion": "peg", "arm-door": "door"}


def at_home(rest, target=(0.0, 0.0, 0.0), fixture=(), fingers=OPEN):
    """A state with the hand at (0.38, 0, 0.2)."""
    qpos = jnp.concatenate([jnp.asarray(HOME), jnp.full(2, fingers), jnp.float32(rest)])
    kept = Kept(jnp.asarray(HOME), jnp.float32(target), fixture)
    return physics.start(qpos, jnp.zeros(len(qpos) - (len(rest) == 7)), kept)


@pytest.fixture(scope="module")
def obedient():
    """Arm and gripper are where their servos want them, at once; nothing else moves."""

    def advanced(model, x, state, control):
        return state._replace(qpos=state.qpos.at[:9].set(control)), None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(physics, "advanced", advanced)
        yield


@pytest.mark.parametrize("id", TABLE)
def test_shapes(id, obedient):
    env = make(id)
    assert check_env(env, 0) == []
    assert env.specs.observation.shape == (SIZES[id],) and env.specs.action.shape == (4,) and env.specs.limit == 200


def test_joints_can_be_moved_one_by_one(obedient):
    env = make("arm-reach", cartesian=False)
    assert check_env(env, 0) == [] and env.specs.action.shape == (8,)


def test_episodes_can_differ_in_their_circumstances(obedient):
    env = contextual(make("arm-peg-insertion"), mass=(0.5, 2.0), friction=0.5, gravity=1.1, strength=0.9, damping=2.0)
    assert check_env(env, 0) == []


def test_the_hand_is_where_mujoco_puts_it():
    c, random = arm.load("arm").c, np.random.default_rng(0)
    data, hand = mujoco.MjData(c), jax.jit(arm.frames)
    for _ in range(8):
        data.qpos[:7] = random.uniform(*c.jnt_range[:7].T)
        mujoco.mj_kinematics(c, data)
        at = hand(jnp.float32(data.qpos[:7]))
        np.testing.assert_allclose(at.hand, data.site("hand").xpos, atol=1e-5)
        np.testing.assert_allclose(at.turned, data.site("hand").xmat.reshape(3, 3), atol=1e-5)
        np.testing.assert_allclose(at.axes, data.xaxis[:7], atol=1e-5)
        np.testing.assert_allclose(at.anchors, data.xanchor[:7], atol=1e-5)


def test_a_cartesian_step_goes_its_way_and_keeps_the_hand_upright():
    follow, servo = jax.jit(arm.followed), jnp.asarray(HOME)
    start, way = arm.frames(servo), jnp.float32([0.01, 0.005, -0.005])
    for _ in range(10):
        servo = follow(servo, way)
    end = arm.frames(servo)
    np.testing.assert_allclose(end.hand - start.hand, 10 * way, atol=4e-3)
    assert end.turned[2, 2] > 0.999
    for _ in range(100):
        servo = follow(servo, jnp.float32([0.0, 0.0, -0.0125]))
    assert arm.frames(servo).hand[2] == pytest.approx(arm.LOW[2], abs=2e-3)  # the workspace ends above the table


@pytest.mark.parametrize("id", MODELS)
def test_starts_touch_nothing_and_are_no_success(id):
    """With all contacts in force neither the arm nor the peg touches what lies or stands on the table."""
    env, c = make(id), physics.colliding(arm.load(MODELS[id]).c)
    states, out = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 32))
    assert not out.info["success"].any()
    state, data, links = bare(states), mujoco.MjData(c), c.body("right").id
    for i in range(32):
        if id in ("arm-peg-insertion", "arm-door"):
            c.body("fixture").pos = state.task.fixture[i]
        data.qpos[:] = state.qpos[i]
        mujoco.mj_fwdPosition(c, data)
        bodies = np.sort(c.geom_bodyid[data.contact.geom], axis=1)
        met = (bodies[:, 0] > 0) & (bodies[:, 0] <= links) & (bodies[:, 1] > links)
        if id == "arm-peg-insertion":
            met |= (bodies == [links + 1, links + 2]).all(axis=1)
        assert not met.any()


def test_the_model_agrees_with_the_code():
    cube, peg, door = (arm.load(name).c for name in ("cube", "peg", "door"))
    assert cube.opt.timestep * arm.SUBSTEPS == pytest.approx(arm.DT)
    assert cube.geom("object").size == pytest.approx(tasks.CUBE)
    assert peg.geom("object").size[:2].sum() == pytest.approx(tasks.TIP) and peg.geom("sleeve").size[1] == tasks.PEG
    assert peg.body("fixture").pos[2] == pytest.approx(tasks.MOUTH)
    assert door.geom("handle").pos == pytest.approx(tasks.HANDLE)
    assert cube.jnt_range[7:9, 1] == pytest.approx(OPEN)


def test_handle_turns_towards_the_arm():
    hinge = jnp.float32([0.65, 0.15, 0.0])
    shut, open = (tasks.handle(hinge, jnp.float32(angle)) for angle in (0.0, np.pi / 2))
    np.testing.assert_allclose(shut, [0.59, -0.10, 0.135], atol=1e-6)
    np.testing.assert_allclose(open, [0.40, 0.21, 0.135], atol=1e-6)


def test_carrying_is_paid_in_stages():
    still = [1.0, 0.0, 0.0, 0.0]
    worth = lambda place, fingers=OPEN, away=0.0: float(
        tasks.carrying(at_home([*place, *still], fingers=fingers), tasks.CUBE, jnp.float32(away))
    )
    far, near = worth((0.38, 0.0, 0.02), away=0.3), worth((0.38, 0.0, 0.17), OPEN, away=9.0)
    shut = worth((0.38, 0.0, 0.2), tasks.CUBE, away=9.0)
    there = worth((0.38, 0.0, 0.2), tasks.CUBE)
    assert 0 < far < 0.1 < near < shut < there == pytest.approx(1.0, abs=1e-3)
    assert shut == pytest.approx(0.4, abs=0.01)


def test_grip_needs_the_object_between_the_pads():
    still = [1.0, 0.0, 0.0, 0.0]
    assert tasks.gripped(at_home([0.38, 0.0, 0.2, *still], fingers=tasks.CUBE), tasks.CUBE) > 0.99
    assert tasks.gripped(at_home([0.38, 0.0, 0.2, *still]), tasks.CUBE) < 0.2
    assert tasks.gripped(at_home([0.38, 0.1, 0.2, *still], fingers=0.0), tasks.CUBE) < 1e-3


def test_reach_is_solved_paid_and_cut_at_its_limit(obedient):
    env, sparse = make("arm-reach"), make("arm-reach", sparse=True)

    def step(state, _):
        action = expert.reach(bare(state))
        after, out = env.step(state, action)
        return after, (out, sparse.step(state, action)[1].reward)

    keys = jax.random.split(jax.random.key(0), 4)
    _, (out, success) = jax.jit(jax.vmap(lambda key: jax.lax.scan(step, env.reset(key)[0], None, length=200)))(keys)
    assert out.info["success"][:, 60:].all() and not out.info["success"][:, 0].any()
    assert (out.reward >= 0).all() and (out.reward <= 1).all() and (out.reward[:, -1] > 0.99).all()
    assert (out.reward[:, 60] > out.reward[:, 0]).all()
    assert not out.terminated.any() and out.truncated[:, -1].all() and not out.truncated[:, :-1].any()
    assert np.isfinite(out.obs).all()
    assert (success == out.info["success"]).all()

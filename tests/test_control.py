"""The control tasks against DM Control: constants, rewards and observations, and the physics against C MuJoCo."""

import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.control import cartpole, cheetah, pendulum, physics, reacher, walker
from envs.control.rewards import SIGMOIDS, tolerance
from jaxrl.core import BadInput
from tests import dm_control_reference as dm
from tests.dm_control_reference import c_step, one

TASKS = {
    ("cartpole", "balance"): cartpole.balance,
    ("cartpole", "balance_sparse"): cartpole.balance_sparse,
    ("cartpole", "swingup"): cartpole.swingup,
    ("cartpole", "swingup_sparse"): cartpole.swingup_sparse,
    ("pendulum", "swingup"): pendulum.swingup,
    ("reacher", "easy"): reacher.easy,
    ("reacher", "hard"): reacher.hard,
    ("cheetah", "run"): cheetah.run,
    ("walker", "stand"): walker.stand,
    ("walker", "walk"): walker.walk,
    ("walker", "run"): walker.run,
}
DOMAINS = {domain: (domain, task) for domain, task in TASKS}  # one task of each: the physics is the same
SUBSTEPS = {"walker": walker.SUBSTEPS}


@pytest.fixture(scope="module")
def theirs():
    """DM Control's environments by (domain, task), reset once."""
    return {task: dm.theirs(*task) for task in TASKS}


def targets(qpos, random):
    """The reacher's, near its finger."""
    finger = reacher.LINK * np.stack([f(qpos[:, 0]) + f(qpos.sum(axis=1)) for f in (np.cos, np.sin)], axis=1)
    return finger + random.uniform(-0.06, 0.06, finger.shape)


def random_states(domain, count):
    extra = {"task": targets} if domain == "reacher" else {}
    return dm.random_states(physics.load(domain).c, count, **extra)


def place(them, state, action):
    if isinstance(state.task, np.ndarray):
        them.physics.named.model.geom_pos["target", :2] = state.task
    dm.place(them, state, action)


@pytest.mark.parametrize("task", TASKS, ids="-".join)
def test_rewards_and_observations_equal_dm_control(task, theirs, monkeypatch):
    dm.stand_still(monkeypatch)
    dm.rewards_and_observations_equal(TASKS[task], theirs[task], *random_states(task[0], dm.MANY), place)


@pytest.mark.parametrize("domain", DOMAINS)
def test_constants_equal_dm_control(domain, theirs):
    dm.constants_equal(physics.load(domain).c, theirs[DOMAINS[domain]].physics.model.ptr)


@pytest.mark.parametrize("task", TASKS, ids="-".join)
def test_clocks_equal_dm_control(task, theirs):
    dm.clocks_equal(TASKS[task], theirs[task], physics.load(task[0]).c, SUBSTEPS.get(task[0], 1))
    assert TASKS[task]().specs.limit == 1000


def starts(domain, count):
    """Starts of the task, and what follows from them: some touch the ground or the limit of a joint. With actions."""
    random, env, c = np.random.default_rng(1), TASKS[DOMAINS[domain]](), physics.load(domain).c
    state = jax.vmap(lambda i: env.reset(jax.random.key(i))[0]["inner"])(jnp.arange(count))
    qpos, qvel = np.array(state.qpos), np.array(state.qvel)
    qpos += random.normal(0, 0.05, qpos.shape)
    qvel += random.normal(0, 0.5, qvel.shape)
    if domain == "cartpole":
        qpos[::2, 0] += random.choice([-1.8, 1.8], count // 2)
    if domain == "walker":  # it begins in the air
        for i in range(count):
            begun = physics.start(qpos[i], qvel[i])
            data = c_step(c, begun, np.zeros(c.nu), int(random.integers(400)))
            qpos[i], qvel[i] = data.qpos, data.qvel
    return state._replace(qpos=jnp.asarray(qpos), qvel=jnp.asarray(qvel)), jnp.float32(
        random.uniform(-1, 1, (count, c.nu))
    )


@pytest.mark.parametrize(
    "domain", [pytest.param(domain, marks=[pytest.mark.reference] * (domain != "cheetah")) for domain in DOMAINS]
)
def test_a_step_equals_c_mujoco(domain):
    touching = 8 if domain in ("cheetah", "walker") else 0
    dm.step_equals_c(physics.load(domain), *starts(domain, 32), SUBSTEPS.get(domain, 1), touching)


@pytest.mark.parametrize("domain", DOMAINS)
def test_our_model_moves_as_dm_controls(domain, theirs):
    them = theirs[DOMAINS[domain]].physics.model.ptr
    dm.moves_as_theirs(physics.load(domain).c, them, *starts(domain, 64), SUBSTEPS.get(domain, 1))


@pytest.mark.parametrize("domain", ["cheetah", "walker"])
def test_the_solver_cap_is_seldom_felt(domain):
    """MuJoCo's own 100 iterations hardly change what ours give; a single one is felt at once."""
    ours, worst = dm.solver_errors(physics.load(domain).c, *starts(domain, 64))
    assert ours < 1e-3 < 1e-1 < worst


@pytest.mark.parametrize("domain", ["cheetah", "walker"])
def test_planar_kinematics_equal_mujoco(domain):
    c = physics.load(domain).c
    plane, data = physics.planar(c), mujoco.MjData(c)
    states, _ = random_states(domain, 16)
    for i in range(16):
        data.qpos[:], data.qvel[:] = one(states, i).qpos, one(states, i).qvel
        mujoco.mj_forward(c, data)
        mujoco.mj_subtreeVel(c, data)
        state = jax.tree.map(lambda x, i=i: x[i], states)
        assert physics.forward_speed(plane, state) == pytest.approx(data.subtree_linvel[1, 0], abs=2e-5)
        np.testing.assert_allclose(jnp.cos(physics.angles(plane, state.qpos)), data.xmat[1:, 0], atol=2e-6)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ('<body euler="0 30 0"><joint axis="0 1 0"/><geom size="1"/></body>', "rests at an angle"),
        ('<body><joint name="yaw" axis="0 0 1"/><geom size="1"/></body>', "joint 'yaw'"),
    ],
)
def test_planar_refuses_what_leaves_the_plane(body, sentence):
    c = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{body}</worldbody></mujoco>")
    with pytest.raises(BadInput, match=sentence):
        physics.planar(c)


def test_resets_are_dm_controls():
    state = dm.drawn(TASKS["cartpole", "balance"])
    assert jnp.abs(state.qpos).max(axis=0) == pytest.approx([0.1, 0.034], rel=0.02)
    state = dm.drawn(TASKS["cartpole", "swingup"])
    assert state.qpos.mean(axis=0) == pytest.approx([0.0, math.pi], abs=2e-3)
    assert jnp.concatenate([state.qpos, state.qvel], 1).std(axis=0) == pytest.approx([0.01] * 4, rel=0.1)
    state = dm.drawn(TASKS["pendulum", "swingup"])
    assert jnp.abs(state.qpos).max() == pytest.approx(math.pi, rel=0.02) and not state.qvel.any()
    state = dm.drawn(TASKS["reacher", "easy"])
    assert jnp.abs(state.qpos).max(axis=0) == pytest.approx([math.pi, math.radians(160)], rel=0.02)
    radius = jnp.linalg.norm(state.task, axis=1)
    assert (radius.min(), radius.max(), radius.mean()) == pytest.approx((0.05, 0.2, 0.125), rel=0.05)
    state, c = dm.drawn(TASKS["walker", "run"]), physics.load("walker").c
    assert not state.qpos[:, :2].any() and not state.qvel.any()
    assert jnp.abs(state.qpos[:, 2]).max() == pytest.approx(math.pi, rel=0.02)
    assert state.qpos[:, 3:].min(axis=0) == pytest.approx(c.jnt_range[3:, 0], abs=0.03)
    assert state.qpos[:, 3:].max(axis=0) == pytest.approx(c.jnt_range[3:, 1], abs=0.03)


def test_cheetah_starts_settled_as_dm_controls(theirs):
    them = theirs["cheetah", "run"]
    settled = []
    for _ in range(40):
        them.reset()
        settled.append(np.concatenate([them.physics.data.qpos, them.physics.data.qvel]))
    ours = np.concatenate(cheetah.settled(), axis=1)
    assert ours.shape == (cheetah.STARTS, 18) and len(np.unique(ours, axis=0)) == cheetah.STARTS
    np.testing.assert_allclose(ours.mean(axis=0), np.mean(settled, axis=0), atol=0.06)
    assert ours[:, 1:9].std(axis=0).max() < 0.1


def test_an_episode_ends_by_its_clock():
    env = pendulum.swingup()
    state = env.reset(jax.random.key(0))[0]
    step = jax.jit(env.step)
    out = [step({**state, "t": jnp.int32(t)}, jnp.zeros(1))[1] for t in (998, 999)]
    assert [bool(o.truncated) for o in out] == [False, True]
    assert not any(bool(o.terminated) for o in out)


@pytest.mark.parametrize("sigmoid", SIGMOIDS)
@pytest.mark.parametrize("at_margin", [0.0, 0.1, 0.7])
def test_tolerance_equals_dm_controls(sigmoid, at_margin):
    x = np.linspace(-6, 6, 101)
    if at_margin == 0.0 and sigmoid not in ("cosine", "linear", "quadratic"):
        with pytest.raises(BadInput, match="at_margin"):
            tolerance(jnp.asarray(x), -1.0, 2.0, 1.5, sigmoid, at_margin)
        return
    for lower, upper, margin in ((-1.0, 2.0, 1.5), (0.0, 0.0, 3.0), (1.0, math.inf, 0.5), (-1.0, 1.0, 0.0)):
        ours = tolerance(jnp.float32(x), lower, upper, margin, sigmoid, at_margin)
        theirs = dm.reference.tolerance(np.float32(x), (lower, upper), margin, sigmoid, at_margin)
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_tolerance_has_finite_gradients_everywhere():
    x = jnp.linspace(-3, 3, 13)  # 0 and the bounds among them
    for sigmoid in SIGMOIDS:
        slope = jax.vmap(jax.grad(lambda x, s=sigmoid: tolerance(x, -1.0, 1.0, 1.0, s, 0.2)))(x)
        assert jnp.isfinite(slope).all() and slope[6] == 0, sigmoid


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"lower": 1.0, "upper": 0.0}, "exchange"),
        ({"margin": -1.0}, "margin -1.0"),
        ({"margin": 1.0, "sigmoid": "gausian"}, "'gaussian'"),
    ],
)
def test_tolerance_names_what_is_wrong(settings, sentence):
    with pytest.raises(BadInput, match=sentence):
        tolerance(jnp.float32(0), **settings)


def test_the_import_prints_nothing():
    """A command's last line on stdout may be read by a program."""
    out = subprocess.run(
        [sys.executable, "-c", "import envs.control.physics"], capture_output=True, text=True, check=True
    )
    assert out.stdout == ""

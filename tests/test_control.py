"""The control tasks against DM Control: constants, rewards and observations, and the physics against C MuJoCo."""

import copy
import math
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.control import cartpole, cheetah, pendulum, physics, reacher, walker
from envs.control.rewards import SIGMOIDS, tolerance
from jaxrl.core import BadInput

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it announces the missing display and what will be removed from MuJoCo
    from dm_control import suite
    from dm_control.utils import rewards as reference

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
MANY = 256


@pytest.fixture(scope="module")
def theirs():
    """DM Control's environments by (domain, task), reset once."""
    made = {task: suite.load(*task, task_kwargs={"random": 0}) for task in TASKS}
    for env in made.values():
        env.reset()
    return made


def random_states(domain, count):
    """States and actions on both sides of what the rewards tell apart; every other one nearly at rest at qpos 0."""
    c, random = physics.load(domain).c, np.random.default_rng(0)
    scale = np.where(np.arange(count) % 2, 1.0, 0.05)[:, None]
    qpos = scale * random.uniform(-2.5, 2.5, (count, c.nq))
    qvel = scale * random.normal(0, 6, (count, c.nv))
    task = ()
    if domain == "reacher":
        finger = reacher.LINK * np.stack([f(qpos[:, 0]) + f(qpos.sum(axis=1)) for f in (np.cos, np.sin)], axis=1)
        task = jnp.asarray(finger + random.uniform(-0.06, 0.06, (count, 2)), jnp.float32)
    state = physics.State(jnp.float32(qpos), jnp.float32(qvel), jnp.zeros((count, c.nv)), task)
    return state, jnp.float32(random.uniform(-1, 1, (count, c.nu)))


def place(env, state, action):
    """Put DM Control's physics into one of our states."""
    if isinstance(state.task, np.ndarray):
        env.physics.named.model.geom_pos["target", :2] = state.task
    env.physics.data.qpos[:], env.physics.data.qvel[:] = state.qpos, state.qvel
    env.physics.set_control(action)
    env.physics.forward()


def one(states, i):
    return jax.tree.map(lambda x: np.asarray(x[i], np.float64), states)


@pytest.mark.parametrize("task", TASKS, ids="-".join)
def test_rewards_and_observations_equal_dm_control(task, theirs, monkeypatch):
    # With the physics standing still, a step shows the reward and the observation of the state it is given.
    monkeypatch.setattr(physics, "step", lambda model, state, control, substeps: state)
    env, them = TASKS[task](), theirs[task]
    states, actions = random_states(task[0], MANY)
    out = jax.jit(jax.vmap(env.step))({"inner": states, "t": jnp.zeros(MANY, jnp.int32)}, actions)[1]
    rewards, observations = [], []
    for i in range(MANY):
        place(them, one(states, i), np.asarray(actions[i]))
        rewards.append(them.task.get_reward(them.physics))
        observations.append(np.concatenate([np.ravel(x) for x in them.task.get_observation(them.physics).values()]))
    assert np.ptp(rewards) > 0.2
    np.testing.assert_allclose(out.reward, rewards, atol=1e-5)
    np.testing.assert_allclose(out.obs, observations, rtol=1e-6, atol=2e-6)
    assert out.obs.dtype == jnp.float32 and out.obs.shape[1:] == env.specs.observation.shape


@pytest.mark.parametrize("domain", DOMAINS)
def test_constants_equal_dm_control(domain, theirs):
    ours, them = physics.load(domain).c, theirs[DOMAINS[domain]].physics.model
    for name in [
        "body_mass",
        "body_inertia",
        "body_pos",
        "body_ipos",
        "dof_damping",
        "dof_armature",
        "actuator_gear",
        "actuator_ctrlrange",
        "jnt_type",
        "jnt_axis",
        "jnt_pos",
        "jnt_range",
        "jnt_limited",
        "jnt_stiffness",
        "jnt_solref",
        "jnt_solimp",
        "qpos_spring",
    ]:
        np.testing.assert_allclose(getattr(ours, name), getattr(them, name), rtol=1e-6, atol=1e-9, err_msg=name)
    assert ours.opt.timestep == them.opt.timestep
    np.testing.assert_array_equal(ours.opt.gravity, them.opt.gravity)


@pytest.mark.parametrize("task", TASKS, ids="-".join)
def test_clocks_equal_dm_control(task, theirs):
    env, them = TASKS[task](), theirs[task]
    assert env.specs.limit == them._step_limit == 1000
    assert env.specs.action.shape == them.action_spec().shape
    timestep = physics.load(task[0]).c.opt.timestep
    assert timestep * SUBSTEPS.get(task[0], 1) == pytest.approx(them.control_timestep())


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
            data = c_step(c, state._replace(qpos=qpos[i], qvel=qvel[i]), np.zeros(c.nu), int(random.integers(400)))
            qpos[i], qvel[i] = data.qpos, data.qvel
    return state._replace(qpos=jnp.asarray(qpos), qvel=jnp.asarray(qvel)), jnp.float32(
        random.uniform(-1, 1, (count, c.nu))
    )


def c_step(c, state, action, substeps):
    """MuJoCo itself over one control step: its data after it."""
    data = mujoco.MjData(c)
    data.qpos[:], data.qvel[:], data.ctrl[:] = state.qpos, state.qvel, action
    for _ in range(substeps):
        mujoco.mj_step(c, data)
    return data


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_step_equals_c_mujoco(domain):
    model, substeps = physics.load(domain), SUBSTEPS.get(domain, 1)
    states, actions = starts(domain, 32)
    stepped = jax.jit(jax.vmap(lambda s, a: physics.step(model, s, a, substeps)))(states, actions)
    data = [c_step(model.c, one(states, i), np.asarray(actions[i]), substeps) for i in range(32)]
    touching = sum(d.ncon > 0 for d in data)
    assert touching >= 8 if domain in ("cheetah", "walker") else touching == 0
    # Where a limb meets the ground between two physics steps, float32's last digit decides in which of them.
    np.testing.assert_allclose(stepped.qpos, [d.qpos for d in data], atol=1e-4 if touching else 1e-6)
    np.testing.assert_allclose(stepped.qvel, [d.qvel for d in data], atol=2e-3 if touching else 2e-6)


@pytest.mark.parametrize("domain", DOMAINS)
def test_our_model_moves_as_dm_controls(domain, theirs):
    """With DM Control's integrator, solver and flags, our file is the same machine, ground and limits included."""
    them, ours = theirs[DOMAINS[domain]].physics.model.ptr, copy.copy(physics.load(domain).c)
    for option in ("integrator", "iterations", "ls_iterations", "disableflags"):
        setattr(ours.opt, option, getattr(them.opt, option))
    states, actions = starts(domain, 64)
    compared = 0
    for i in range(64):
        a, b = (c_step(c, one(states, i), np.asarray(actions[i]), SUBSTEPS.get(domain, 1)) for c in (ours, them))
        if not (them.geom_bodyid[b.contact.geom] > 0).all(axis=-1).any():  # ours has no contacts within the body
            np.testing.assert_allclose(a.qpos, b.qpos, atol=1e-6)
            np.testing.assert_allclose(a.qvel, b.qvel, atol=1e-5)
            compared += 1
    assert compared >= 48


@pytest.mark.parametrize("domain", ["cheetah", "walker"])
def test_the_solver_cap_is_seldom_felt(domain):
    """MuJoCo's own 100 iterations hardly change what ours give; a single one is felt at once."""
    capped = physics.load(domain).c
    free = copy.copy(capped)
    free.opt.iterations, free.opt.ls_iterations = 100, 50
    states, actions = starts(domain, 64)
    few = copy.copy(capped)
    few.opt.iterations, few.opt.ls_iterations = 1, 4
    ours, best, worst = (
        np.array([c_step(c, one(states, i), np.asarray(actions[i]), 1).qvel for i in range(64)])
        for c in (capped, free, few)
    )
    assert np.abs(ours - best).max() < 1e-3 < 1e-1 < np.abs(worst - best).max()


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


def drawn(task, count=1000):
    """The states of `count` resets."""
    env = TASKS[task]()
    return jax.vmap(lambda i: env.reset(jax.random.key(i))[0]["inner"])(jnp.arange(count))


def test_resets_are_dm_controls():
    state = drawn(("cartpole", "balance"))
    assert jnp.abs(state.qpos).max(axis=0) == pytest.approx([0.1, 0.034], rel=0.02)
    state = drawn(("cartpole", "swingup"))
    assert state.qpos.mean(axis=0) == pytest.approx([0.0, math.pi], abs=2e-3)
    assert jnp.concatenate([state.qpos, state.qvel], 1).std(axis=0) == pytest.approx([0.01] * 4, rel=0.1)
    state = drawn(("pendulum", "swingup"))
    assert jnp.abs(state.qpos).max() == pytest.approx(math.pi, rel=0.02) and not state.qvel.any()
    state = drawn(("reacher", "easy"))
    assert jnp.abs(state.qpos).max(axis=0) == pytest.approx([math.pi, math.radians(160)], rel=0.02)
    radius = jnp.linalg.norm(state.task, axis=1)
    assert (radius.min(), radius.max(), radius.mean()) == pytest.approx((0.05, 0.2, 0.125), rel=0.05)
    state, c = drawn(("walker", "run")), physics.load("walker").c
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
        theirs = reference.tolerance(np.float32(x), (lower, upper), margin, sigmoid, at_margin)
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

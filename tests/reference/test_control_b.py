"""Humanoid, quadruped, fish and manipulator against DM Control: constants, rewards, observations, starts, physics."""

import copy
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.control import fish, humanoid, manipulator, physics, quadruped
from tests import dm_control_reference as dm
from tests.dm_control_reference import one

pytestmark = pytest.mark.reference

TASKS = {
    ("humanoid", "stand"): humanoid.stand,
    ("humanoid", "walk"): humanoid.walk,
    ("humanoid", "run"): humanoid.run,
    ("quadruped", "walk"): quadruped.walk,
    ("quadruped", "run"): quadruped.run,
    ("fish", "upright"): fish.upright,
    ("fish", "swim"): fish.swim,
    ("manipulator", "bring_ball"): manipulator.bring_ball,
}
DOMAINS = {domain: (domain, task) for domain, task in TASKS}  # one task of each: the physics is the same
MODULES = {"humanoid": humanoid, "quadruped": quadruped, "fish": fish, "manipulator": manipulator}
CONSTANTS = (
    *dm.CONSTANTS,
    "body_quat",
    "body_iquat",
    "actuator_gainprm",
    "actuator_biasprm",
    "actuator_dynprm",
    "tendon_stiffness",
    "wrap_prm",
    "eq_solref",
    "eq_solimp",
)


@pytest.fixture(scope="module")
def theirs():
    """DM Control's environments by (domain, task), reset once."""
    return {task: dm.theirs(*task) for task in TASKS}


def place(them, state, action):
    """Put DM Control's physics into one of our states."""
    named, task = them.physics.named, state.task
    if "target" in named.model.geom_pos.axes.row.names and len(task):  # the fish's
        named.model.geom_pos["target"] = task
    if isinstance(task, manipulator.Kept):
        x, z, angle = task.target
        named.model.body_pos["target_ball", ["x", "z"]] = x, z
        named.model.body_quat["target_ball", ["qw", "qy"]] = np.cos(angle / 2), np.sin(angle / 2)
    if them.physics.model.na:
        them.physics.data.act[:] = state.act
    dm.place(them, state, action)


def kept(task):
    """Targets near what has to come near, by task; what sensors read is filled in by `random_states`."""
    near = {
        ("fish", "swim"): lambda qpos, random: qpos[:, :3] + random.normal(0, 0.08, (len(qpos), 3)),
        ("manipulator", "bring_ball"): lambda qpos, random: manipulator.Kept(
            np.zeros((len(qpos), 5)), qpos[:, 8:] + random.uniform(-0.03, 0.03, (len(qpos), 3))
        ),
    }
    return near.get(task, lambda qpos, random: ())


def random_states(task, them, count):
    """States in which half of the walkers stand, and in which sensors read what DM Control's do."""
    c, random = physics.load(task[0]).c, np.random.default_rng(2)
    states, actions = dm.random_states(c, count, kept(task))
    if task[0] in ("humanoid", "quadruped"):
        qpos, half = np.array(states.qpos), count // 2
        qpos[:half, 2:7] = [1.2, 1, 0, 0, 0] + random.normal(0, 0.1, (half, 5)) * [4, 1, 1, 1, 1]
        qpos[:half, 3:7] /= np.linalg.norm(qpos[:half, 3:7], axis=1, keepdims=True)
        states = states._replace(qpos=jnp.asarray(qpos))
    if c.na:
        states = states._replace(act=jnp.float32(random.uniform(-1, 1, (count, c.na))))
    if c.nsensor:
        read = []
        for i in range(count):
            place(them, one(states, i), np.asarray(actions[i]))
            read.append(np.hstack([them.physics.named.data.sensordata[c.sensor(k).name] for k in range(c.nsensor)]))
        read = jnp.float32(np.array(read))
        states = states._replace(task=states.task._replace(touch=read) if task[0] == "manipulator" else read)
    return states, actions


@pytest.mark.parametrize("task", TASKS, ids="-".join)
def test_rewards_and_observations_equal_dm_control(task, theirs, monkeypatch):
    dm.stand_still(monkeypatch, lambda state: getattr(state.task, "touch", state.task))
    them = theirs[task]
    # In float32, sums over links of velocities of tens of rad/s leave some 1e-5.
    dm.rewards_and_observations_equal(TASKS[task], them, *random_states(task, them, dm.MANY), place, near=3e-5)


@pytest.mark.parametrize("domain", DOMAINS)
def test_constants_equal_dm_control(domain, theirs):
    ours, them = physics.load(domain).c, theirs[DOMAINS[domain]].physics.model.ptr
    fewer = {name: getattr(them, name)[: len(getattr(ours, name))] for name in CONSTANTS}  # a target's body comes last
    dm.constants_equal(ours, SimpleNamespace(opt=them.opt, **fewer), CONSTANTS)
    assert [ours.actuator(i).name for i in range(ours.nu)] == [them.actuator(i).name for i in range(them.nu)]
    assert ours.opt.density == them.opt.density and ours.opt.cone == them.opt.cone
    shared = [(ours.geom(i), them.geom(ours.geom(i).name)) for i in range(ours.ngeom) if ours.geom(i).type[0] != 0]
    for a, b in shared:
        for name in ("friction", "solref", "solimp", "condim", "size", "pos", "quat"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-9, err_msg=f"{a.name} {name}")


@pytest.mark.parametrize("task", TASKS, ids="-".join)
def test_clocks_equal_dm_control(task, theirs):
    dm.clocks_equal(TASKS[task], theirs[task], physics.load(task[0]).c, MODULES[task[0]].SUBSTEPS)
    assert TASKS[task]().specs.limit == 1000


def moments(domain, count, most=8):
    """Moments of episodes under random actions, in MuJoCo: most bodies have fallen. With the next actions.

    Args:
        most: contacts, beyond which MJX keeps the deepest and MuJoCo all.
    """
    c, random = physics.load(domain).c, np.random.default_rng(1)
    starts, found = dm.drawn(TASKS[DOMAINS[domain]], 4 * count), []
    for i in range(4 * count):
        data = dm.c_step(c, one(starts, i), random.uniform(-1, 1, c.nu), int(random.integers(300)))
        if data.ncon <= most and len(found) < count:
            found.append((i, data.qpos, data.qvel, data.qacc_warmstart, data.act))
    at, *bodies = zip(*found, strict=True)
    qpos, qvel, warmstart, act = (jnp.float32(np.array(x)) for x in bodies)
    states = jax.tree.map(lambda x: x[np.array(at)], starts)._replace(qpos=qpos, qvel=qvel, warmstart=warmstart)
    return states._replace(act=act) if c.na else states, jnp.float32(random.uniform(-1, 1, (count, c.nu)))


@pytest.mark.parametrize(
    ("domain", "touching", "qpos", "qvel"),
    [
        ("humanoid", 8, 2e-4, 2e-2),
        ("quadruped", 16, 1e-4, 5e-3),
        ("fish", 0, 1e-6, 2e-5),
        ("manipulator", 8, 1e-4, 1e-2),
    ],
)
def test_a_step_equals_c_mujoco(domain, touching, qpos, qvel):
    """One control step of the task itself: bodies, activations and what sensors read; in nine of ten moments.

    Where a limb meets the ground between two physics steps, float32's last digit decides in which of them.
    """
    c, env = physics.load(domain).c, TASKS[DOMAINS[domain]]()
    states, actions = moments(domain, 32)
    after = jax.jit(jax.vmap(env.step))({"inner": states, "t": jnp.zeros(32, jnp.int32)}, actions)[0]["inner"]
    low, high = c.actuator_ctrlrange.T
    controls = low + (np.asarray(actions) + 1) / 2 * (high - low)
    data = [dm.c_step(c, one(states, i), controls[i], MODULES[domain].SUBSTEPS) for i in range(32)]
    assert sum(d.ncon > 0 for d in data) >= touching
    most = lambda ours, theirs: np.quantile(np.abs(ours - np.array(theirs)).max(axis=1), 0.9)
    assert most(after.qpos, [d.qpos for d in data]) < qpos
    assert most(after.qvel, [d.qvel for d in data]) < qvel
    if c.na:
        np.testing.assert_allclose(after.act, [d.act for d in data], atol=1e-6)
    if c.nsensor:
        read, felt = getattr(after.task, "touch", after.task), np.array([d.sensordata for d in data])
        assert np.abs(felt).max() > 1
        assert most(np.arcsinh(read), np.arcsinh(felt)) < 2e-2  # stiff contacts: no number here is less certain


def with_bits_of(ours, them):
    """DM Control's model that looks for the contacts that ours looks for."""
    them = copy.copy(them)
    for kind in ("geom", "body"):
        get, count = getattr(ours, kind), getattr(ours, f"n{kind}")
        mine = {get(i).name: i for i in range(count)}
        for i in range(getattr(them, f"n{kind}")):
            at = mine.get(getattr(them, kind)(i).name)
            for bits in ("contype", "conaffinity"):
                field = f"{kind}_{bits}"
                getattr(them, field)[i] = 0 if at is None else getattr(ours, field)[at]
    return them


@pytest.mark.parametrize("domain", DOMAINS)
def test_our_model_moves_as_dm_controls(domain, theirs):
    """Given the contacts that ours looks for."""
    ours, them = physics.load(domain).c, theirs[DOMAINS[domain]].physics.model.ptr
    them = with_bits_of(ours, them)
    dm.moves_as_theirs(ours, them, *moments(domain, 64), MODULES[domain].SUBSTEPS, at_least=64)


@pytest.mark.parametrize("domain", ["humanoid", "quadruped", "manipulator"])
def test_the_solver_cap_is_seldom_felt(domain):
    """MuJoCo's own 100 iterations hardly change what ours give; a single one is felt at once."""
    c, (states, actions) = physics.load(domain).c, moments(domain, 64)

    def stepped(iterations, ls_iterations):
        capped = copy.copy(c)
        capped.opt.iterations, capped.opt.ls_iterations = iterations, ls_iterations
        return np.array([dm.c_step(capped, one(states, i), actions[i], 1).qvel for i in range(64)])

    best = stepped(100, 50)
    felt = lambda *cap: (np.abs(stepped(*cap) - best).max(axis=1) > 1e-2).sum()
    assert felt(c.opt.iterations, c.opt.ls_iterations) <= 4 < 8 <= felt(1, 4)


def test_humanoids_start_where_nothing_touches(theirs):
    them, states, c = theirs["humanoid", "run"], dm.drawn(humanoid.run, 512), physics.load("humanoid").c
    for i in range(256):
        place(them, one(states, i), np.zeros(c.nu))
        assert them.physics.data.ncon == 0
    low, high = c.jnt_range[1:].T
    assert (states.qpos[:, 7:] >= low - 1e-6).all() and (states.qpos[:, 7:] <= high + 1e-6).all()
    assert not states.qvel.any() and (states.qpos[:, :3] == jnp.array([0, 0, 1.5])).all()
    assert (states.qpos[:, 3:7] >= 0).all()
    reference = resets(them, 256)
    np.testing.assert_allclose(states.qpos.mean(axis=0), reference.mean(axis=0), atol=0.25)
    np.testing.assert_allclose(states.qpos.std(axis=0), reference.std(axis=0), atol=0.15)


def test_quadrupeds_start_just_above_the_ground(theirs):
    them, states, c = theirs["quadruped", "run"], dm.drawn(quadruped.run, 128), physics.load("quadruped").c
    for i in range(128):
        state = one(states, i)
        place(them, state, np.zeros(c.nu))
        assert them.physics.data.ncon == 0
        state.qpos[2] -= quadruped.RUNG
        place(them, state, np.zeros(c.nu))
        assert them.physics.data.ncon > 0
    np.testing.assert_allclose(states.qpos[:, 3:7].mean(axis=0), 0, atol=0.2)
    np.testing.assert_allclose(states.qpos[:, 3:7].std(axis=0), 0.5, atol=0.1)
    # Falling freely, DM Control's sensors feel nothing either.
    seen = them.reset().observation
    assert max(np.abs(seen[name]).max() for name in ("egocentric_state", "imu", "force_torque")) < 1e-9
    assert not jax.vmap(quadruped.observe)(states)[:, :47].any() and not states.task.any()


def test_fish_start_a_little_bent(theirs):
    states = dm.drawn(fish.swim)
    assert jnp.abs(states.qpos[:, 7:]).max(axis=0) == pytest.approx([fish.BEND] * 7, rel=0.02)
    assert not states.qvel.any() and jnp.allclose(states.qpos[:, :3], jnp.array([0, 0, 0.1]))
    assert states.task.min(axis=0) == pytest.approx(fish.NEAREST, abs=0.01)
    assert states.task.max(axis=0) == pytest.approx(fish.FARTHEST, abs=0.01)
    np.testing.assert_allclose(states.qpos[:, 3:7].std(axis=0), 0.5, atol=0.05)


def test_manipulators_start_where_nothing_touches(theirs):
    them, states = theirs["manipulator", "bring_ball"], dm.drawn(manipulator.bring_ball, 1024)
    for i in range(256):
        place(them, one(states, i), np.zeros(5))
        assert them.physics.data.ncon == 0
    at_target = np.isclose(states.qpos[:, 8:10], states.task.target[:, :2], atol=1e-6).all(axis=1)
    moving = np.asarray(states.qvel[:, 8] != 0)
    reference, in_place, fast = [], [], []
    for _ in range(256):
        them.reset()
        data, named = them.physics.data, them.physics.named.data
        reference.append(data.qpos.copy())
        fast.append(data.qvel[8] != 0)
        in_place.append(np.allclose(named.xpos["target_ball", ["x", "z"]], data.qpos[8:10]))
    assert at_target.mean() == pytest.approx(np.mean(in_place), abs=0.06)
    assert moving.mean() == pytest.approx(np.mean(fast), abs=0.06)
    reference = np.array(reference)
    np.testing.assert_allclose(states.qpos.mean(axis=0), reference.mean(axis=0), atol=0.4)
    np.testing.assert_allclose(states.qpos.std(axis=0), reference.std(axis=0), atol=0.25)
    assert jnp.abs(states.qvel[:, 8]).max() == pytest.approx(manipulator.FASTEST, rel=0.02)


def resets(them, count):
    """DM Control's qpos after `count` resets."""
    found = []
    for _ in range(count):
        them.reset()
        found.append(them.physics.data.qpos.copy())
    return np.array(found)

"""Point mass, finger, hopper, acrobot, ball in cup and swimmer against DM Control and C MuJoCo."""

import math

import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.control import acrobot, ball_in_cup, finger, hopper, physics, point_mass, swimmer
from tests import dm_control_reference as dm

pytestmark = pytest.mark.reference

TASKS = {
    ("point_mass", "easy"): point_mass.easy,
    ("finger", "spin"): finger.spin,
    ("finger", "turn_easy"): finger.turn_easy,
    ("finger", "turn_hard"): finger.turn_hard,
    ("hopper", "stand"): hopper.stand,
    ("hopper", "hop"): hopper.hop,
    ("acrobot", "swingup"): acrobot.swingup,
    ("acrobot", "swingup_sparse"): acrobot.swingup_sparse,
    ("ball_in_cup", "catch"): ball_in_cup.catch,
    ("swimmer", "swimmer6"): swimmer.swimmer6,
    ("swimmer", "swimmer15"): swimmer.swimmer15,
}
# One task of each physics, with its model and its physics steps in a control step.
MACHINES = {
    ("point_mass", "easy"): (physics.load("point_mass"), 1),
    ("finger", "spin"): (finger.machine(finger.FREE, 0.0), finger.SUBSTEPS),
    ("finger", "turn_easy"): (finger.machine(0.5, finger.EASY), finger.SUBSTEPS),
    ("hopper", "hop"): (physics.load("hopper"), hopper.SUBSTEPS),
    ("acrobot", "swingup"): (physics.load("acrobot"), 1),
    ("ball_in_cup", "catch"): (physics.load("ball_in_cup"), ball_in_cup.SUBSTEPS),
    ("swimmer", "swimmer6"): (swimmer.machine(6), swimmer.SUBSTEPS),
    ("swimmer", "swimmer15"): (swimmer.machine(15), swimmer.SUBSTEPS),
}
ALIKE = {("finger", "turn_easy")}  # spin but for one constant: not compiled again
TOUCHING = {"finger", "hopper", "ball_in_cup"}
# Largest differences in qpos and qvel where float32 decides: a long chain of light links. In float64 MJX and C MuJoCo
# agree to 1e-13 with 6 links.
ROUNDING = {"swimmer6": (5e-6, 2e-4), "swimmer15": (3e-4, 2e-2)}


@pytest.fixture(scope="module")
def theirs():
    """DM Control's environments by (domain, task), reset once."""
    return {task: dm.theirs(*task) for task in TASKS}


def machine(task):
    """The model and substeps of a task."""
    alike = {("finger", "turn_hard"): ("finger", "turn_easy"), ("hopper", "stand"): ("hopper", "hop")}
    return MACHINES[alike.get(task, ("acrobot", "swingup") if task[0] == "acrobot" else task)]


# --------------------------------------------------------------------------------------- rewards and observations


def kept(task):
    """What random states keep beside the body: forces, and targets about the tip or nose."""
    domain, name = task

    def of(qpos, random):
        touch = random.exponential(5.0, (len(qpos), 2))
        if domain == "hopper":
            return touch
        if domain == "finger":
            tip = finger.TIP * np.stack([-np.sin(qpos[:, 2]), np.cos(qpos[:, 2])], axis=1)
            return finger.Kept(touch, () if name == "spin" else tip + random.uniform(-0.08, 0.08, tip.shape))
        if domain == "swimmer":
            return qpos[:, :2] - [0, swimmer.HALF] + random.uniform(-0.3, 0.3, (len(qpos), 2))
        return ()

    return of


def random_states(task, count):
    states, actions = dm.random_states(machine(task)[0].c, count, kept(task))
    random = np.random.default_rng(2)
    if task[0] == "point_mass":
        states = states._replace(qpos=states.qpos / 4)  # within a tray of 0.29 m
    if task[0] == "finger":
        states = states._replace(qvel=3 * states.qvel)  # so that some spin at 15 rad/s
    if task[0] == "ball_in_cup":  # half of the balls in the cup or about its walls
        ball = states.qpos[::2, :2] + random.uniform(-0.05, 0.05, (count // 2, 2)) + np.array([0, ball_in_cup.INSIDE])
        states = states._replace(qpos=states.qpos.at[::2, 2:].set(jnp.float32(ball)))
    if task[0] == "swimmer":  # joints within their range: 14 angles of 2.5 rad wind the chain up
        states = states._replace(qpos=states.qpos.at[:, 3:].multiply(0.3))
    return states, actions


def place(them, state, action):
    """Put DM Control's physics into one of our states, with its target and what its touch sensors read."""
    named, touch = them.physics.named, None
    if isinstance(state.task, finger.Kept):
        touch = "touchtop", "touchbottom"
        if len(state.task.target):
            named.model.site_pos["target", ["x", "z"]] = np.array([0.2, 0.4]) + state.task.target
    elif isinstance(state.task, np.ndarray) and "touch_toe" in named.data.sensordata.axes.row.names:
        touch = "touch_toe", "touch_heel"
    elif isinstance(state.task, np.ndarray):
        named.model.geom_pos["target", ["x", "y"]] = state.task
    dm.place(them, state, action)
    if touch:
        named.data.sensordata[list(touch)] = getattr(state.task, "touch", state.task)


@pytest.mark.parametrize("task", TASKS, ids="-".join)
def test_rewards_and_observations_equal_dm_control(task, theirs, monkeypatch):
    dm.stand_still(monkeypatch, sensors=lambda state: getattr(state.task, "touch", state.task))
    near = 2e-5 if task[0] == "swimmer" else 2e-6  # velocities of 10 m/s are sums over the chain
    dm.rewards_and_observations_equal(TASKS[task], theirs[task], *random_states(task, dm.MANY), place, near=near)


# --------------------------------------------------------------------------------------------- constants and clocks


@pytest.mark.parametrize("task", MACHINES, ids="-".join)
def test_constants_equal_dm_control(task, theirs):
    string = ("tendon_range", "tendon_solref_lim", "tendon_solimp_lim") if task[0] == "ball_in_cup" else ()
    ours, them = machine(task)[0].c, theirs[task].physics.model.ptr
    dm.constants_equal(ours, them, (*dm.CONSTANTS, *string))
    assert (ours.opt.density, ours.opt.viscosity) == (them.opt.density, them.opt.viscosity)
    assert (ours.opt.integrator, ours.opt.cone) == (them.opt.integrator, them.opt.cone)
    assert ours.opt.disableflags == them.opt.disableflags


@pytest.mark.parametrize("task", TASKS, ids="-".join)
def test_clocks_equal_dm_control(task, theirs):
    model, substeps = machine(task)
    dm.clocks_equal(TASKS[task], theirs[task], model.c, substeps)
    assert TASKS[task]().specs.limit == 1000


# ------------------------------------------------------------------------------------------------------- the physics


def moments(task, count):
    model, substeps = MACHINES[task]
    qpos = np.array(dm.drawn(TASKS[task], 8).qpos)
    touching = 0.5 if task[0] in TOUCHING else 0
    return dm.moments(model.c, qpos, count, substeps, hold=10, touching=touching)


@pytest.mark.parametrize("task", [task for task in MACHINES if task not in ALIKE], ids="-".join)
def test_a_step_equals_c_mujoco(task):
    model, substeps = MACHINES[task]
    touching = 8 if task[0] in TOUCHING else 0
    forces = 0.02 if model.c.nsensor else None
    qpos, qvel = ROUNDING.get(task[1], (None, None))
    dm.step_equals_c(model, *moments(task, 32), substeps, touching, qpos, qvel, forces)


@pytest.mark.parametrize("task", MACHINES, ids="-".join)
def test_our_model_moves_as_dm_controls(task, theirs):
    model, substeps = MACHINES[task]
    dm.moves_as_theirs(model.c, theirs[task].physics.model.ptr, *moments(task, 64), substeps)


@pytest.mark.parametrize("task", [("finger", "spin"), ("hopper", "hop"), ("ball_in_cup", "catch")], ids="-".join)
def test_the_solver_cap_is_seldom_felt(task):
    ours, worst = dm.solver_errors(MACHINES[task][0].c, *moments(task, 64))
    assert ours < 0.1 < worst


# -------------------------------------------------------------------------------------------------------- the starts


def widest(state):
    return np.abs(state.qpos).max(axis=0)


def touching(c, qpos):
    """How many of some postures touch something, in MuJoCo."""
    data, count = mujoco.MjData(c), 0
    for data.qpos[:] in qpos:
        mujoco.mj_forward(c, data)
        count += data.ncon > 0
    return count


@pytest.mark.parametrize("task", TASKS, ids="-".join)
def test_episodes_begin_at_rest(task):
    assert not np.any(dm.drawn(TASKS[task], 8).qvel)


def test_the_point_mass_begins_anywhere():
    state = dm.drawn(point_mass.easy)
    assert widest(state) == pytest.approx([0.29] * 2, rel=0.02)
    assert state.qpos.std(axis=0) == pytest.approx([0.29 / math.sqrt(3)] * 2, rel=0.06)


def test_the_finger_begins_free():
    state, c = dm.drawn(finger.turn_hard), MACHINES["finger", "turn_easy"][0].c
    assert widest(state) == pytest.approx([math.radians(110)] * 2 + [math.pi], rel=0.02)
    assert touching(c, np.array(state.qpos)) == 0
    random = np.random.default_rng(0).uniform(-1, 1, (1000, 3)) * [math.radians(110), math.radians(110), math.pi]
    assert touching(c, random) > 40
    assert jnp.linalg.norm(state.task.target, axis=1) == pytest.approx(np.full(1000, 0.13), abs=1e-6)
    assert jnp.abs(state.task.target.mean(axis=0)).max() < 0.02
    assert not state.task.touch.any()


def test_the_hopper_begins_in_any_posture():
    state, c = dm.drawn(hopper.hop), physics.load("hopper").c
    assert not state.qpos[:, :2].any() and not state.task.any()
    assert jnp.abs(state.qpos[:, 2]).max() == pytest.approx(math.pi, rel=0.02)
    assert state.qpos[:, 3:].min(axis=0) == pytest.approx(c.jnt_range[3:, 0], abs=0.03)
    assert state.qpos[:, 3:].max(axis=0) == pytest.approx(c.jnt_range[3:, 1], abs=0.03)


def test_the_acrobot_begins_at_any_angle():
    assert widest(dm.drawn(acrobot.swingup)) == pytest.approx([math.pi] * 2, rel=0.02)


def test_the_ball_begins_free_of_the_cup():
    state, c = dm.drawn(ball_in_cup.catch), physics.load("ball_in_cup").c
    assert not state.qpos[:, :2].any()
    assert state.qpos[:, 2:].min(axis=0) == pytest.approx([-0.2, 0.2], abs=0.01)
    assert state.qpos[:, 2:].max(axis=0) == pytest.approx([0.2, 0.5], abs=0.01)
    assert touching(c, np.array(state.qpos)) == 0
    random = np.random.default_rng(0).uniform([0, 0, -0.2, 0.2], [0, 0, 0.2, 0.5], (1000, 4))
    assert touching(c, random) > 100


@pytest.mark.parametrize("links", [6, 15])
def test_the_swimmer_begins_in_any_posture(links):
    state = dm.drawn(lambda: swimmer.swimmer(links))
    assert not state.qpos[:, :2].any()
    assert widest(state)[2:] == pytest.approx([math.pi] + [2 * math.pi / links] * (links - 1), rel=0.02)
    near = jnp.abs(state.task).max(axis=1) < 0.3
    assert near.mean() == pytest.approx(0.2 + 0.8 * 0.15**2, abs=0.04)
    assert jnp.abs(state.task).max() == pytest.approx(2.0, rel=0.02)

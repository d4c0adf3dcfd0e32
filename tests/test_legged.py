"""The quadruped's laws by hand: its legs, the ground, what it is paid for, and what an episode draws and brings.

`tests/reference/test_legged.py` holds its motion against C MuJoCo.
"""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.control import physics
from envs.legged import TABLE, curriculum, quadruped, rewards, terrain
from envs.legged.terrain import Terrain
from envs.registry import check_env
from jaxrl.core import Agent, BadInput, Ctx

HARDEST = Terrain(jnp.int32(9), jnp.float32(1), jnp.array([3, 60]))
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def still():
    """The body keeps its place; the sum of the torques is left where the solver's warm start would be."""
    halt = lambda model, x, state, control: (state._replace(warmstart=state.warmstart.at[6:].add(control)), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(physics, "advanced", halt)
        yield


@pytest.fixture(scope="module")
def flat(still):
    """The task on flat ground, compiled once: a state and what it shows, and the step."""
    env = quadruped.quadruped("flat")
    return *jax.jit(env.reset)(KEY), jax.jit(env.step)


@pytest.mark.parametrize("id", TABLE)
def test_shapes(id, still):
    env = quadruped.quadruped(**TABLE[id].settings)
    assert check_env(env, 0) == [] and env.specs.observation.shape == (270,) and env.specs.limit == 1000


def test_a_critic_sees_more(still):
    observation = quadruped.quadruped("rough", privileged=True).specs.observation
    assert {name: leaf.shape for name, leaf in observation.items()} == {"policy": (270,), "critic": (238,)}


def test_kinds_are_named():
    with pytest.raises(BadInput, match="'rough'"):
        quadruped.quadruped("rouhg")


def test_feet_are_where_mujoco_puts_them():
    c, random = quadruped.load().c, np.random.default_rng(0)
    data = mujoco.MjData(c)
    data.qpos[:7] = 0, 0, 0, 1, 0, 0, 0
    for _ in range(8):
        data.qpos[7:] = random.uniform(*c.jnt_range[1:].T)
        mujoco.mj_kinematics(c, data)
        feet = [data.geom(f"{leg}_foot").xpos for leg in ("fl", "fr", "hl", "hr")]
        np.testing.assert_allclose(quadruped.feet(jnp.float32(data.qpos[7:])), feet, atol=1e-6)
    assert c.body_mass.sum() == pytest.approx(12.2) and c.actuator_ctrlrange[0, 1] == quadruped.TORQUE


def test_the_model_agrees_with_the_code():
    c = quadruped.load().c
    trunk = c.geom("trunk")
    np.testing.assert_allclose(np.abs(quadruped.CORNERS).max(axis=0), trunk.size)
    assert c.body("trunk").id == quadruped.TRUNK
    assert c.opt.timestep * quadruped.SUBSTEPS == pytest.approx(quadruped.DT)
    low, high = c.jnt_range[1:].T
    assert (low <= quadruped.STAND).all() and (high >= quadruped.STAND).all()


@pytest.mark.parametrize("kind", terrain.KINDS)
def test_the_ground_has_neither_gaps_nor_corners(kind):
    height = terrain.KINDS[kind]
    line = jnp.stack([jnp.linspace(-4, 4, 8001), jnp.full(8001, 0.33)], axis=1)  # 1 mm apart
    point, normal = terrain.surface(height, HARDEST, line)
    z = np.asarray(point[:, 2])
    assert np.abs(np.diff(z)).max() < 6e-3  # the steepest riser: 1.5 x 19 cm in 6 cm
    assert np.asarray(normal[:, 2]).min() > 0.1 and jnp.abs(jnp.linalg.norm(normal, axis=1) - 1).max() < 1e-5
    assert not z[np.abs(line[:, 0]) < 0.99].any()  # the platform
    assert np.ptp(z) > (0.02 if kind != "flat" else -1)
    # The normal is at right angles to the ground as it runs.
    slope = np.gradient(z.astype(np.float64), 1e-3)[1:-1]
    assert np.abs(slope * normal[1:-1, 2] + normal[1:-1, 0]).max() < 0.12  # bends within a millimetre


def test_terrain_by_hand():
    at = lambda x, y: jnp.array([x, y])
    down, easy = HARDEST._replace(sign=jnp.float32(-1)), HARDEST._replace(level=jnp.int32(0))
    riser = 0.03 + 0.18 * 0.9
    assert terrain.steps(HARDEST, at(1.2, 0.0)) == pytest.approx(riser)
    assert terrain.steps(HARDEST, at(0.3, -1.2 - terrain.TREAD)) == pytest.approx(2 * riser)
    assert terrain.steps(down, at(1.2, 0.0)) == pytest.approx(-riser)
    assert terrain.steps(easy, at(1.2, 0.0)) == pytest.approx(0.03)
    assert terrain.slopes(HARDEST, at(3.05, 0.0)) == pytest.approx(0.36 * 2.0)
    assert terrain.slopes(easy, at(5.0, 5.0)) == 0
    corner = at(2.0, -3.0)  # where four cells meet, a bump has its own height
    i, j = (np.array([8, -12]) + np.asarray(HARDEST.shift)) % 64
    assert terrain.rough(HARDEST, corner) == pytest.approx(0.1 * terrain.BUMPS[i, j], rel=1e-4)


def test_planes_are_laid_along_the_ground():
    normal = jnp.array([[0.0, 0.0, 1.0], [0.6, 0.0, 0.8], [0.36, -0.48, 0.8]])
    for quat, wanted in zip(quadruped.laid(normal), normal):
        np.testing.assert_allclose(physics.turned(quat)[:, 2], wanted, atol=1e-6)


def walking(**changes):
    zero = jnp.zeros(3)
    walk = rewards.Walk(
        zero, zero, zero, jnp.array([0.0, 0.0, -1.0]), jnp.float32(rewards.STANCE), jnp.zeros(12), jnp.zeros(12),
        jnp.zeros((4, 3)).at[:, 2].set(rewards.CLEARANCE), jnp.zeros((4, 3)), jnp.zeros((3, 12)),
    )  # fmt: skip
    return walk._replace(**{name: jnp.float32(value) for name, value in changes.items()})


def test_rewards_by_hand():
    assert rewards.total(walking()) == pytest.approx(1.5, abs=1e-5)  # it stands as commanded
    worth = lambda term, **changes: float(term(walking(**changes)))
    assert worth(rewards.tracking_linear, command=[0.5, 0, 0]) == pytest.approx(np.exp(-1))
    assert worth(rewards.tracking_linear, command=[0.5, 0.1, 0], linear=[0.5, 0.1, 9]) == pytest.approx(1)
    assert worth(rewards.tracking_yaw, command=[0, 0, 1], angular=[5, 5, 0.5]) == pytest.approx(np.exp(-1))
    assert worth(rewards.bounce, linear=[1, 1, -2]) == pytest.approx(4)
    assert worth(rewards.roll, angular=[1, 2, 9]) == pytest.approx(5)
    assert worth(rewards.tilt, gravity=[0.6, 0, -0.8]) == pytest.approx(0.36)
    assert worth(rewards.jerkiness, acceleration=np.full(12, 10)) == pytest.approx(1200)
    assert worth(rewards.power, power=np.full(12, 2)) == pytest.approx(24)
    assert worth(rewards.crouch, height=0.1) == pytest.approx(0.04)
    assert worth(rewards.dragging, feet=np.zeros((4, 3)), swing=[[3, 4, 9]] * 4) == pytest.approx(4 * 0.04 * 5)
    actions = [np.full(12, 1), np.full(12, 0), np.full(12, 0.5)]
    assert worth(rewards.action_rate, actions=actions) == pytest.approx(12)
    assert worth(rewards.smoothness, actions=actions) == pytest.approx(12 * 1.5**2)


def test_the_history_begins_full_and_moves_on(flat):
    state, out, step = flat
    frames = out.obs.reshape(6, 45)
    assert (frames == frames[0]).all() and not frames[:, 33:].any()
    action = jnp.linspace(-1, 1, 12)
    after = step(state, action)[1].obs.reshape(6, 45)
    assert (after[1:] == frames[:-1]).all() and after[0, 33:] == pytest.approx(action)
    still_there = jnp.abs(after[0, :33] - frames[0, :33])  # the body is where it was: the noise alone is new
    assert 0 < still_there.max() <= 0.15 + 1e-6 and not still_there[:2].any()


@pytest.mark.reference
def test_episodes_differ_in_their_robots():
    robots = jax.vmap(lambda key: quadruped.drawn(key, quadruped.RANGES))(jax.random.split(KEY, 500))
    for name, values, (low, high) in zip(robots._fields, robots, quadruped.RANGES):
        assert values.min() >= low and values.max() <= high, name
        assert values.min() < low + 0.1 * (high - low) and values.max() > high - 0.1 * (high - low), name
    assert set(np.asarray(robots.latency).tolist()) == {0, 1, 2, 3}


def test_a_robot_is_built_as_it_was_drawn():
    model = quadruped.load()
    robot = quadruped.Robot(*(jnp.float32(x) for x in (2.0, [0.01, 0.0, 0.0], 0.5, np.ones(12), 1.0, 1.0, 0.0)))
    x = quadruped.built(model, robot)
    assert x.body_mass[1] == 7 and x.body_mass[2] == pytest.approx(0.65) and x.body_ipos[1, 0] == pytest.approx(0.01)
    assert x.body_inertia[1] == pytest.approx(model.x.body_inertia[1] * 7 / 5)
    assert x.geom_friction[:, 0] == pytest.approx(0.5 * model.x.geom_friction[:, 0])


def test_an_action_acts_after_its_latency(flat):
    state, _, step = flat
    body = state["inner"]
    usual = quadruped.Robot(*(jnp.full(x.shape, value) for x, value in zip(body.task.robot, quadruped.USUAL)))
    held, new = (quadruped.torques(usual, body, jnp.full(12, action)) for action in (0.0, 1.0))
    assert new - held == pytest.approx(quadruped.KP * quadruped.REACH, rel=1e-4)
    for latency in (0, 1, 3):
        robot = usual._replace(latency=jnp.float32(latency))
        late = body._replace(task=body.task._replace(robot=robot))
        out = step({**state, "inner": late}, jnp.ones(12))[0]["inner"]
        np.testing.assert_allclose(out.warmstart[6:], latency * held + (4 - latency) * new, atol=1e-3)


def test_the_clock_brings_commands_forces_and_kicks(flat):
    body = flat[0]["inner"]
    after = jax.jit(lambda t: quadruped.disturbed(body._replace(task=body.task._replace(t=t)), True))
    nothing, force, calm, command, kick = (after(jnp.int32(t)) for t in (399, 400, 425, 500, 800))
    assert not nothing.task.force.any() and 0 < jnp.abs(force.task.force).max() <= 30 and not calm.task.force.any()
    assert (nothing.task.command == body.task.command).all() and (nothing.qvel == body.qvel).all()
    assert command.task.heading != body.task.heading
    assert 0 < jnp.abs(kick.qvel[:2] - body.qvel[:2]).max() <= 1


def test_levels_follow_the_way_walked(flat):
    task = curriculum.at_level(flat[0], jnp.int32(4))["inner"].task
    task = task._replace(command=jnp.array([0.6, 0.0]), t=jnp.int32(500))  # 6 m were commanded
    assert [int(quadruped.promotion(task, jnp.float32(walked))) for walked in (2.9, 3.1, 4.1)] == [3, 4, 5]
    top = task._replace(terrain=task.terrain._replace(level=jnp.int32(9)))
    assert quadruped.promotion(top, jnp.float32(9.0)) == 9


def test_a_fall_ends_it(flat):
    state, _, step = flat
    body = state["inner"]
    low, aside = body.qpos.at[2].set(0.04), body.qpos.at[2:7].set(jnp.array([0.07, 0.7071, 0.7071, 0.0, 0.0]))
    for qpos in (low, aside):
        assert step({**state, "inner": body._replace(qpos=qpos)}, jnp.zeros(12))[1].terminated
    assert not step(state, jnp.zeros(12))[1].terminated


@pytest.mark.reference
def test_new_episodes_begin_where_recent_ones_were_promoted_to(still):
    agent = curriculum.levels(Agent(lambda key: {}, lambda *_: None), rate=0.5)
    parts = agent.init(KEY)
    batch = {"end": jnp.array([[True, False], [False, True]]), "info": {"promoted": jnp.array([[1, 7], [7, 2]])}}
    moved = agent.observe["levels"].update(parts, (), batch, Ctx(KEY, jnp.int32(0)))[0]["levels"]
    assert moved == pytest.approx(jnp.zeros(10).at[:3].set(jnp.array([0.5, 0.25, 0.25])))
    unmoved = agent.observe["levels"].update(parts, (), {**batch, "end": batch["end"] & False}, Ctx(KEY, jnp.int32(0)))
    assert (unmoved[0]["levels"] == parts["levels"]).all()
    states, _ = jax.jit(curriculum.graded(quadruped.quadruped("steps"), 400))({"levels": moved}, KEY)
    level = np.bincount(states["inner"].task.terrain.level, minlength=10) / 400
    np.testing.assert_allclose(level, moved, atol=0.1)


def test_pictures_pave_the_ground_about_the_robot(flat):
    body = flat[0]["inner"]
    body = body._replace(qpos=body.qpos.at[:2].set(jnp.array([2.0, 0.1])))
    body = body._replace(task=body.task._replace(terrain=HARDEST))
    tiles = jax.jit(lambda body: quadruped.tiles(terrain.steps, body))(body)
    c = quadruped.pictured().c
    assert {c.site(i).name for i in range(c.nsite)} == set(tiles)
    at = np.array([tiles[f"tile{i}"] for i in range(c.nsite)])
    assert np.abs(at[:, :2] - [2.0, 0.0]).max() == pytest.approx(1.2, abs=1e-5)
    tops = [float(terrain.steps(HARDEST, jnp.float32(xy))) for xy in at[:3, :2]]
    assert at[:3, 2] + quadruped.DEPTH == pytest.approx(tops, abs=1e-5)

"""Gymnasium's runners: shapes, and what ends and pays an episode, with the physics standing still.

`tests/reference/test_gym.py` holds models, motion, rewards and observations against Gymnasium itself.
"""

import jax.numpy as jnp
import pytest

from envs.control import physics
from envs.gym import TABLE, ant, humanoid, runner, walker2d
from envs.registry import _imported, check_env

SIZES = {"gym-hopper": 11, "gym-halfcheetah": 17, "gym-walker2d": 17, "gym-ant": 105, "gym-humanoid": 348}


@pytest.fixture(autouse=True)
def still(monkeypatch):
    """A step shows the reward and the observation of the state it is given, and costs no trace of the physics."""
    monkeypatch.setattr(physics, "step", lambda model, state, control, substeps=1, keep=None: state)


def made(id):
    return _imported(id, TABLE[id].target)()


@pytest.mark.parametrize("id", TABLE)
def test_shapes(id):
    env = made(id)
    assert check_env(env, 0) == []
    assert env.specs.observation.shape == (SIZES[id],) and env.specs.limit == 1000
    assert env.specs.action.high == (0.4 if id == "gym-humanoid" else 1.0)


def hopping(qpos, qvel=0.0):
    """The TimeStep after a step under full torques from a state of the hopper, and one velocity."""
    env = made("gym-hopper")
    state = runner.start(jnp.array([*qpos, -0.5, -0.5, 0.1]), jnp.zeros(6).at[-1].set(qvel))
    return env.step({"inner": state, "t": jnp.int32(0)}, jnp.ones(3))[1]


@pytest.mark.parametrize(
    ("qpos", "qvel", "healthy"),
    [
        ((0.0, 1.25, 0.0), 0.0, True),
        ((0.0, 0.71, 0.0), 0.0, True),
        ((0.0, 0.69, 0.0), 0.0, False),
        ((0.0, 9.0, 0.0), 0.0, True),  # no ceiling
        ((0.0, 1.25, 0.19), 0.0, True),
        ((0.0, 1.25, 0.21), 0.0, False),
        ((0.0, 1.25, -0.21), 0.0, False),
        ((0.0, 1.25, 0.0), 99.0, True),
        ((0.0, 1.25, 0.0), -101.0, False),
        ((200.0, 1.25, 0.0), 0.0, True),  # x may go anywhere
    ],
)
def test_a_hopper_is_healthy_while_it_stands(qpos, qvel, healthy):
    out = hopping(qpos, qvel)
    assert bool(out.terminated) is not healthy and not out.truncated
    assert out.reward == pytest.approx(healthy - 3e-3)  # it stands still and pays for three full torques
    assert out.obs[:2] == pytest.approx(qpos[1:]) and out.obs[-1] == pytest.approx(max(min(qvel, 10), -10))


def test_the_way_made_is_paid_by_the_second(monkeypatch):
    monkeypatch.setattr(
        physics, "step", lambda model, state, *_: state._replace(qpos=state.qpos.at[0].add(jnp.float32(0.02)))
    )
    assert hopping((5.0, 1.25, 0.0)).reward == pytest.approx(0.02 / 0.008 + 1 - 3e-3, rel=1e-4)


@pytest.mark.parametrize(
    ("healthy", "axis", "low", "high"),
    [
        (lambda state: walker2d.healthy(state.qpos[1:], state.qvel), 1, 0.8, 2.0),
        (ant.healthy, 2, 0.2, 1.0),
        (humanoid.healthy, 2, 1.0, 2.0),
    ],
)
def test_who_falls_or_leaps_is_not_healthy(healthy, axis, low, high):
    at = lambda height: bool(healthy(physics.start(jnp.zeros(9).at[axis].set(height), jnp.zeros(9))))
    assert at(low + 0.01) and at(high - 0.01)
    assert not at(low - 0.01) and not at(high + 0.01) and not at(float("nan"))


def test_forces_are_clipped_before_the_ant_pays_for_them():
    forces = jnp.zeros((14, 6)).at[5, 2].set(300.0).at[7, 1].set(-0.5)
    state = physics.start(jnp.arange(15.0), jnp.zeros(14), ant.Task(jnp.float32(0), forces))
    assert ant.contact_cost(state) == pytest.approx(5e-4 * 1.25)
    seen = ant.observe(state)
    assert seen[:13].tolist() == list(range(2, 15)) and seen[27:].reshape(13, 6)[4, 2] == 1.0


def test_forces_are_not_clipped_before_the_humanoid_pays_for_them():
    nothing = dict.fromkeys(humanoid.Task._fields, jnp.float32(0))
    cost = lambda newtons: humanoid.contact_cost(
        physics.start(jnp.zeros(24), jnp.zeros(23), humanoid.Task(**{**nothing, "forces": jnp.full((14, 6), newtons)}))
    )
    assert cost(100.0) == pytest.approx(5e-7 * 84 * 1e4) and cost(1e4) == 10.0

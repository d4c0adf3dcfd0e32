"""Humanoid, quadruped, fish and manipulator against DM Control: constants, rewards, observations, starts, physics."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.control import humanoid, physics
from tests import dm_control_reference as dm

pytestmark = pytest.mark.reference

TASKS = {
    ("humanoid", "stand"): humanoid.stand,
    ("humanoid", "walk"): humanoid.walk,
    ("humanoid", "run"): humanoid.run,
}
DOMAINS = {domain: (domain, task) for domain, task in TASKS}  # one task of each: the physics is the same
SUBSTEPS = {"humanoid": humanoid.SUBSTEPS}
WALKERS = ("humanoid",)


@pytest.fixture(scope="module")
def theirs():
    """DM Control's environments by (domain, task), reset once."""
    return {task: dm.theirs(*task) for task in TASKS}


def upright(states, random):
    """Half of the states stand: elsewhere the humanoid's head is too low for a reward."""
    qpos = np.array(states.qpos)
    half = len(qpos) // 2
    qpos[:half, 2:7] = [1.5, 1, 0, 0, 0] + random.normal(0, 0.1, (half, 5)) * [2, 1, 1, 1, 1]
    qpos[:half, 3:7] /= np.linalg.norm(qpos[:half, 3:7], axis=1, keepdims=True)
    return states._replace(qpos=jnp.float32(qpos))


def random_states(domain, count):
    states, actions = dm.random_states(physics.load(domain).c, count)
    if domain in WALKERS:
        states = upright(states, np.random.default_rng(2))
    return states, actions


@pytest.mark.parametrize("task", TASKS, ids="-".join)
def test_rewards_and_observations_equal_dm_control(task, theirs, monkeypatch):
    dm.stand_still(monkeypatch)
    dm.rewards_and_observations_equal(TASKS[task], theirs[task], *random_states(task[0], dm.MANY), near=2e-5)


@pytest.mark.parametrize("domain", DOMAINS)
def test_constants_equal_dm_control(domain, theirs):
    dm.constants_equal(physics.load(domain).c, theirs[DOMAINS[domain]].physics.model.ptr)


@pytest.mark.parametrize("task", TASKS, ids="-".join)
def test_clocks_equal_dm_control(task, theirs):
    dm.clocks_equal(TASKS[task], theirs[task], physics.load(task[0]).c, SUBSTEPS[task[0]])
    assert TASKS[task]().specs.limit == 1000


def moments(domain, count):
    """Moments of episodes under random actions, in MuJoCo: most bodies have fallen. With the next actions."""
    env, c, random = TASKS[DOMAINS[domain]](), physics.load(domain).c, np.random.default_rng(1)
    states = jax.vmap(lambda i: env.reset(jax.random.key(i))[0]["inner"])(jnp.arange(count))
    actions = jnp.float32(random.uniform(-1, 1, (count, c.nu)))
    past = [dm.c_step(c, dm.one(states, i), actions[i], int(random.integers(20, 300))) for i in range(count)]
    qpos, qvel, warm = (np.float32([getattr(d, name) for d in past]) for name in ("qpos", "qvel", "qacc_warmstart"))
    return states._replace(qpos=jnp.asarray(qpos), qvel=jnp.asarray(qvel)), actions

"""The arm's tasks: a control step on MJX against C MuJoCo's, and an expert that solves them from random starts."""

import copy

import jax
import mujoco
import numpy as np
import pytest

from envs.arm import arm
from envs.arm.expert import EXPERTS
from envs.core import bare
from envs.registry import make

pytestmark = pytest.mark.reference
COUNT, MOMENTS = 16, (10, 30, 50, 70, 90)
MODELS = {
    "arm-reach": "arm",
    "arm-push": "cube",
    "arm-pick-and-place": "cube",
    "arm-peg-insertion": "peg",
    "arm-door": "door",
}


def c_step(c, state, servo, grip, capped=True):
    """One control step in C MuJoCo: qpos, qvel, contacts and solver iterations in its last physics step."""
    c, data = copy.copy(c), mujoco.MjData(c)
    if not capped:
        c.opt.iterations, c.opt.ls_iterations = 100, 50
    if not isinstance(state.task.fixture, tuple):
        c.body("fixture").pos = state.task.fixture
    data.qpos[:], data.qvel[:], data.qacc_warmstart[:] = state.qpos, state.qvel, state.warmstart
    data.ctrl[:] = [*servo, *2 * [arm.OPEN * (1 + grip) / 2]]
    for _ in range(arm.SUBSTEPS):
        mujoco.mj_step(c, data)
    return data.qpos.copy(), data.qvel.copy(), data.ncon, int(data.solver_niter[0])


@pytest.mark.parametrize("id", EXPERTS)
def test_the_expert_solves_it_and_moves_as_in_mujoco(id):
    env, act, c = make(id), EXPERTS[id], arm.load(MODELS[id]).c

    def step(state, _):
        action = act(bare(state))
        after, out = env.step(state, action)
        return after, (bare(state), action, bare(after), out)

    keys = jax.random.split(jax.random.key(1), COUNT)
    _, (before, action, after, out) = jax.jit(
        jax.vmap(lambda key: jax.lax.scan(step, env.reset(key)[0], None, length=200))
    )(keys)
    assert out.info["success"][:, -1].all()
    assert (out.reward >= 0).all() and (out.reward <= 1).all() and (out.reward[:, -1] > 0.9).all()

    apart, solved = [], []
    for i in range(4):
        for t in MOMENTS:
            one = jax.tree.map(lambda x, at=(i, t): np.asarray(x[at]), before)
            order = np.asarray(after.task.servo[i, t]), np.asarray(action[i, t, -1])
            for capped in (True, False):
                qpos, qvel, touching, iterations = c_step(c, one, *order, capped)
                solved.append((touching, iterations))
                apart.append((np.abs(qpos - after.qpos[i, t]).max(), np.abs(qvel - after.qvel[i, t]).max()))
    place, speed = np.array(apart).reshape(-1, 2, 2).T  # each [capped or not, states]
    if id not in ("arm-reach", "arm-door"):
        assert min(touching for touching, _ in solved) > 0
    assert (np.median(place, axis=1) < 1e-4).all() and (np.median(speed, axis=1) < 1e-2).all()

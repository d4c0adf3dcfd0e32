"""Other packages beside their adapters. brax, gymnasium and dm_control are in the lock; the others may be absent."""

import json
import warnings
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import envs
from envs import adapters
from experiments import evaluate, train
from jaxrl.core import BadInput

pytestmark = pytest.mark.reference
KEY = jax.random.key(1)


def test_braxs_ant_moves_as_brax_moves_it():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = envs.make("brax:ant", limit=5)
        from brax.envs import get_environment

        raw = get_environment("ant")
    assert (env.specs.observation.shape, env.specs.action.shape, env.specs.limit) == ((27,), (8,), 5)
    assert envs.check_env(env, 0) == []
    state, first = jax.jit(env.reset)(KEY)
    theirs = jax.jit(raw.reset)(KEY)
    assert_allclose(first.obs, theirs.obs, atol=1e-6)
    ours, step = jax.jit(env.step), jax.jit(raw.step)
    for t in range(5):
        action = jnp.sin(jnp.arange(8) + t)
        (state, out), theirs = ours(state, action), step(theirs, action)
        assert_allclose(out.obs, theirs.obs, atol=1e-4)
        assert_allclose(out.reward, theirs.reward, atol=1e-4)
        assert bool(out.terminated) == bool(theirs.done) and bool(out.truncated) == (t == 4 and not out.terminated)
    with pytest.raises(BadInput, match=r"unknown brax environment 'ants'.*Did you mean 'ant'"):
        envs.make("brax:ants")


@pytest.mark.parametrize(
    ("id", "package", "extra", "shape", "limit"),
    [
        ("gymnax:Breakout-MinAtar", "gymnax", "gymnax", (400,), 1000),
        ("craftax:Craftax-Classic-Symbolic-v1", "craftax", "craftax", (1345,), 10_000),
        ("playground:CheetahRun", "mujoco_playground", "playground", (17,), 1000),
    ],
)
def test_an_optional_package_is_adapted_or_named(id, package, extra, shape, limit):
    if find_spec(package) is None:
        with pytest.raises(BadInput, match=rf"pip install 'jaxrl\[{extra}\]'"):
            envs.make(id)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = envs.make(id)
        assert (env.specs.observation.shape, env.specs.limit) == (shape, limit)
        assert envs.check_env(env, 0) == []
        state, out = jax.jit(env.reset)(KEY)
        state, out = jax.jit(env.step)(state, env.specs.action.sample(KEY))
    assert np.isfinite(out.obs).all() and out.obs.shape == shape and not out.truncated


def test_dm_controls_task_is_its_own():
    host = adapters.host("dm_control:cartpole-swingup", 8)
    assert (host.specs.frames, host.specs.limit, host.specs.observation.shape) == (8, 125, (5,))
    ours, again = host.simulator(), host.simulator()
    first = ours.reset(3)
    np.testing.assert_array_equal(again.reset(3), first)
    assert (ours.reset(4) != first).any()
    from dm_control import suite

    random = np.random.RandomState(4)
    theirs = suite.load("cartpole", "swingup", task_kwargs={"random": random})
    random.seed(4)
    theirs.reset()
    for t in range(125):
        action = np.sin([0.1 * t])
        out, steps = ours.step(action), [theirs.step(action) for _ in range(8)]
        assert_allclose(out.obs, np.concatenate(list(steps[-1].observation.values())), rtol=1e-6, atol=1e-7)
        assert_allclose(out.reward, sum(step.reward for step in steps), rtol=1e-6)
        assert (out.terminated, out.truncated) == (False, t == 124)
    with pytest.raises(BadInput, match="Did you mean 'cartpole-swingup'"):
        adapters.host("dm_control:cartpole-swing")
    assert adapters.host("dm_control:cartpole-balance_sparse").specs.limit == 1000


@pytest.mark.parametrize("env", ["gymnasium:Pendulum-v1", "dm_control:cartpole-swingup"])
def test_sac_trains_on_the_host_continues_and_is_evaluated(tmp_path, capfd, env):
    run = str(tmp_path / "run")
    small = ["--agent.widths", "16", "--agent.batch", "16", "--agent.warmup", "400", "--agent.capacity", "2000"]
    args = ["--agent", "sac", "--env", env, "--chunk", "400", "--evaluate-episodes", "1", *small, "--run", run]
    assert train.main([*args, "--steps", "400"]) == 0
    captured = capfd.readouterr()
    assert "outside the scan and therefore slower; continued, it begins new episodes" in captured.err
    assert train.main([*args, "--steps", "800", "--resume"]) == 0
    line = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert line["steps"] == 800 and np.isfinite(line["return_iqm"])
    assert evaluate.main([run, "--episodes", "1"]) == 0
    played = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert_allclose(played["return_iqm"], line["return_iqm"], rtol=1e-4)

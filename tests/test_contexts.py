"""One environment, a batch of contexts: fields drawn at reset, kept over the episode, and physically right."""

import copy

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs import check_env, make
from envs.classic import cartpole
from envs.control import physics
from envs.core import BadInput, action_repeat, bare, batched, contextual, frame_stack

KEY = jax.random.key(3)


def test_a_batch_of_contexts_is_a_vmap_over_numbers():
    def fall(length, gravity):
        """The angle after 10 steps without a push, from one start."""
        env = contextual(make("cartpole"), length=length, gravity=gravity, force=0.0)
        state, _ = env.reset(KEY)
        state, out = jax.lax.scan(env.step, state, jnp.zeros(10, jnp.int32))
        return out.obs[-1, 2] / bare(env.reset(KEY)[0]).x[2]

    lengths, gravities = jnp.array([0.5, 1.0, 0.5]), jnp.array([9.8, 9.8, 0.0])
    grown = jax.jit(jax.vmap(fall))(lengths, gravities)
    assert grown[0] > grown[1] > 1  # a longer pole falls more slowly; without gravity only its own speed turns it
    assert abs(grown[2] - 1) < abs(grown[1] - 1)


def test_values_are_drawn_at_each_start_kept_until_the_end_and_shown():
    env = contextual(make("cartpole"), observe=True, length=(0.3, 0.7), force=12.0)
    envs = batched(env, 64)

    def run(key):
        state, obs = envs.reset(key)

        def step(carry, _):
            state, _ = carry
            state, out, obs = envs.step(state, jnp.zeros(64, jnp.int32))
            return (state, obs), out

        return obs, jax.lax.scan(step, (state, obs), None, 30)[1]

    first, out = jax.jit(run)(KEY)
    assert first.shape == (64, 6) and env.specs.observation.shape == (6,)
    length = out.info["context"]["length"]
    np.testing.assert_array_equal(out.obs[..., 4], length)
    assert (out.info["context"]["force"] == 12).all()
    changed, ended = (length[1:] != length[:-1]), out.end[:-1]
    assert ended.any() and (changed == ended).all()  # a push of one side fells every pole within 30 steps
    assert length.min() >= 0.3 and length.max() <= 0.7 and jnp.ptp(length[0]) > 0.3
    assert check_env(env, 40) == []


def test_no_context_and_the_usual_one_are_the_same():
    plain = make("cartpole")
    usual = contextual(plain, **cartpole.CONTEXT)
    key_start, _ = jax.random.split(KEY)
    a, b = plain.reset(key_start)[0], usual.reset(KEY)[0]
    after = [jax.jit(env.step)(state, jnp.int32(1))[1].obs for env, state in ((plain, a), (usual, b))]
    np.testing.assert_allclose(*after, rtol=1e-6)


@pytest.mark.parametrize("wrap", [lambda e: action_repeat(e, 2), lambda e: frame_stack(e, 2)])
def test_it_reaches_through_wrappers(wrap):
    env = contextual(wrap(make("pendulum")), mass=2.0)
    state, out = env.reset(KEY)
    state, out = env.step(state, jnp.zeros(1))
    assert bare(state).context["mass"] == out.info["context"]["mass"] == 2


def test_fields_and_ranges_are_checked():
    with pytest.raises(BadInput, match=r"'gravty'.*Did you mean 'gravity'"):
        contextual(make("pendulum"), gravty=1.0)
    with pytest.raises(BadInput, match="'mass' has low 2"):
        contextual(make("pendulum"), mass=(2.0, 1.0))
    with pytest.raises(BadInput, match="there are none"):
        contextual(make("acrobot"), mass=1.0)


FIELDS = {
    "gravity": lambda c, by: c.opt.gravity.__imul__(by),
    "mass": lambda c, by: (c.body_mass.__imul__(by), c.body_inertia.__imul__(by)),
    "damping": lambda c, by: c.dof_damping.__imul__(by),
    "strength": lambda c, by: (c.actuator_gainprm.__imul__(by), c.actuator_biasprm.__imul__(by)),
    "friction": lambda c, by: c.geom_friction.__imul__(by),
}


def test_model_fields_change_as_mujocos_would():
    """One step of the cart-pole, a limit of its rail in force, in every context that MuJoCo itself can be put into."""
    assert set(FIELDS) == set(physics.CONTEXT)
    model, by = physics.load("cartpole"), 1.7
    start, action = physics.start(jnp.array([1.81, 0.5]), jnp.array([0.3, -0.2])), jnp.ones(1)
    names = sorted(FIELDS)

    def step(switches):
        """All fields as data, so that one program serves them."""
        scales = {name: 1 + (by - 1) * switches[i] for i, name in enumerate(names)}
        return physics.step(model, start._replace(context=scales), action)

    ours = jax.jit(jax.vmap(step))(jnp.eye(len(names) + 1, len(names)))  # the last row: nothing differs
    usual = ours.qvel[-1]
    for i, name in enumerate(names):
        c = copy.copy(model.c)
        FIELDS[name](c, by)
        data = mujoco.MjData(c)
        mujoco.mj_setConst(c, data)
        data.qpos[:], data.qvel[:], data.ctrl[:] = start.qpos, start.qvel, action
        mujoco.mj_step(c, data)
        np.testing.assert_allclose(ours.qvel[i], data.qvel, rtol=1e-4, atol=1e-5, err_msg=name)
        felt = name in ("gravity", "mass", "strength")  # nothing touches, and the rail's damping is tiny
        assert (np.abs(ours.qvel[i] - usual).max() > 1e-3) == felt, name

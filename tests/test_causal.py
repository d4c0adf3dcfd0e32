"""What causes what: regressions and orders on samples whose causes are known, and CIP, which acts on them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import envs
from jaxrl.agents import cip, sac
from jaxrl.agents.combined import configured, find
from jaxrl.core import BadInput
from jaxrl.equations.causal import ancestors, before, causal_order, entropy, lasso, least_squares, standardised
from jaxrl.loop import loop

KEY = jax.random.key(38)
N = 4_000
ENV = envs.make("point-among-noise")
SMALL = {"widths": (8, 8), "batch": 16, "capacity": 300, "warmup": 32, "num_envs": 2}
OFF = {"entropy": False, "exchanged": 0.0, "empowerment": 0.0, "period": 32, "samples": 64, "widths": (8,)}


@pytest.fixture(scope="module")
def caused():
    """Samples of s1 -> a, and (s1, a) -> r with r = 2 s1 - a + e, with s2 apart; Laplace noise everywhere."""
    s1, s2, a, e = jax.random.laplace(KEY, (4, N))
    a = a + 0.5 * s1
    return jnp.stack([2 * s1 - a + e, a, s2, s1], axis=1)


def test_regressions_find_the_coefficients(caused):
    x, y, weight = caused[:, 1:], caused[:, :1], jnp.ones(N)
    assert_allclose(least_squares(x, y, weight)[0], [-1, 0, 2], atol=0.08)
    few = lasso(x, y, weight, 0.1)[0]
    assert few[1] == 0 and abs(few[2]) < 2
    assert_allclose(lasso(x, y, weight, 0.0, 400), least_squares(x, y, weight, 0.0), atol=1e-2)


def test_rows_without_weight_say_nothing(caused):
    wrong = caused.at[N // 2 :].set(jnp.nan)
    weight = (jnp.arange(N) < N // 2).astype(jnp.float32)
    clean = standardised(wrong, weight)
    assert_allclose(clean[: N // 2], standardised(caused[: N // 2], jnp.ones(N // 2)), atol=1e-3)
    assert not clean[N // 2 :].any()


def test_the_order_has_causes_before_effects(caused):
    order = jax.jit(causal_order)(caused, jnp.ones(N))
    assert before(order, 1)[3] and before(order, 0)[3] and before(order, 0)[1]


def test_entropy_is_largest_for_a_normal_variable():
    normal = jax.random.normal(KEY, (N,))
    other = jax.random.laplace(KEY, (N,)) / 2**0.5
    assert_allclose(entropy(normal, jnp.ones(N)), 0.5 * (1 + jnp.log(2 * jnp.pi)), atol=0.02)
    assert entropy(other, jnp.ones(N)) < entropy(normal, jnp.ones(N)) - 0.05


def test_ancestors_follow_edges_backwards():
    edges = jnp.zeros((4, 4), bool).at[0, 1].set(True).at[1, 2].set(True).at[3, 0].set(True)
    assert_array_equal(ancestors(jnp.array([True, False, False, False]), edges), [True, True, True, False])


def test_weights_are_equal_where_strengths_are_and_sum_to_their_number():
    assert_array_equal(cip.weights(jnp.full(3, 0.4), 3.0), jnp.ones(3))
    assert_allclose(cip.weights(jnp.array([1.0, 0.2, 0.0]), 3.0).sum(), 3, rtol=1e-6)


@pytest.fixture(scope="module")
def lived():
    """Transitions of uniform actions among the noise."""

    def roll(key):
        key_start, key_act = jax.random.split(key)
        state, out = ENV.reset(key_start)

        def step(carry, key):
            state, obs = carry
            action = jax.random.uniform(key, (6,), minval=-1.0, maxval=1.0)
            state, out = ENV.step(state, action)
            return (state, out.obs), (obs, action, out.reward, out.obs)

        return jax.lax.scan(step, (state, out.obs), jax.random.split(key_act, 40))[1]

    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.jit(jax.vmap(roll))(jax.random.split(KEY, 100)))


def test_what_matters_among_noise_is_found(lived):
    state, action = jax.jit(lambda *x: cip.strengths(*x, jnp.ones(N), cip.Config()))(*lived)
    assert (state[:4] > 0).all() and not state[4:].any()
    weights = cip.weights(action, 3.0)
    assert weights[:2].min() > 3 * weights[2:].max()


def test_an_exchange_keeps_what_it_must(lived):
    obs, action, reward, next_obs = lived
    batch = {"obs": obs, "action": action, "reward": reward, "next_obs": next_obs, "discount": jnp.ones(N)}
    idle = jnp.arange(24) >= 4
    new = cip.exchanged(batch, idle, 0.5, KEY)
    for name in ("action", "reward", "discount"):
        assert_array_equal(new[name], batch[name])
    assert_array_equal(new["obs"][:, :4], obs[:, :4])
    moved = (new["obs"] != obs).any(axis=1)
    assert 0.4 < moved.mean() < 0.6
    # State and next state come from the same row: the noise still goes its own way from one to the other.
    rows = {tuple(row) for row in jnp.concatenate([obs[:, 4:], next_obs[:, 4:]], axis=1)[:200].tolist()}
    every = {tuple(row) for row in jnp.concatenate([obs[:, 4:], next_obs[:, 4:]], axis=1).tolist()}
    made = {tuple(row) for row in jnp.concatenate([new["obs"][:, 4:], new["next_obs"][:, 4:]], axis=1)[:200].tolist()}
    assert made <= every and made != rows
    assert_array_equal(cip.exchanged(batch, idle & False, 0.5, KEY)["obs"], obs)


def chunk(name, **settings):
    module = find(name)
    recipe = module.recipe(ENV.specs, configured(module.Config, {**SMALL, **settings}))
    one = loop(ENV, recipe)
    return jax.jit(lambda run: one.chunk(run, 32))(one.init(KEY))


def test_with_nothing_on_it_is_sac():
    plain, _ = chunk("sac")
    same, metrics = chunk("sac+cip", cip=OFF)
    for part in ("actor", "critic", "log_alpha"):
        jax.tree.map(assert_array_equal, plain.parts[part], same.parts[part])
    assert 0 <= metrics["causal/idle"] < 1


def test_with_everything_on_it_learns_its_weights():
    run, metrics = chunk("sac+cip", cip={**OFF, "entropy": True, "exchanged": 0.5, "empowerment": 0.01})
    assert_allclose(run.parts["entropy"].sum(), 6, rtol=1e-5)
    assert jnp.isfinite(metrics["critic/loss"]) and jnp.isfinite(metrics["inverse/loss"])


def test_bad_numbers_and_agents_are_refused():
    with pytest.raises(BadInput, match="exchanged is 2"):
        cip.Config(exchanged=2)
    module = find("td3+cip")
    with pytest.raises(BadInput, match="'cip' changes an agent's weighed, which this one fixes"):
        module.recipe(ENV.specs, module.Config())
    plain = replace(sac.recipe(ENV.specs, sac.Config()).source, everything=None)
    with pytest.raises(BadInput, match="cip learns from all that was experienced"):
        cip.add(replace(sac.recipe(ENV.specs, sac.Config()), source=plain), ENV.specs, cip.Config(), sac.Config())

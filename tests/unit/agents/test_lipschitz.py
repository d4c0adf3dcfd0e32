"""Smooth critics: the term and its gradient, the worst noise, and where the bound on spectra comes in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.agents import lipschitz
from jaxrl.core import BadInput, Ctx, fold
from tests.pinned import KEY, LENGTH, B, bounded, defaults, disturbed, mean, near, same, transitions
from tests.small import DISCRETE, small

BATCH = transitions(5)
ADDED = (1 << 30) + 1  # the stream of the first further loss
OWN = {"noise": 0.3, "weight": 0.7}


def climbed(change, reach, key, steps):
    """Uniform noise; one step by the sign of the gradient from a tenth of it; or several of 2.5 reach / steps."""
    start = (2 * jax.random.uniform(key, (B, LENGTH)) - 1) * reach
    if steps == 0:
        return start
    if steps == 1:
        return reach * jnp.sign(jax.grad(change)(start / 10))
    for _ in range(steps):
        start = start + 2.5 * reach / steps * jnp.sign(jax.grad(change)(start))
        start = jnp.minimum(jnp.maximum(start, -reach), reach)
    return start


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_the_critics_descend_their_own_loss_and_the_worst_change(steps):
    """weight sum_i (Q_i(s + noise, a) - Q_i(s, a))^2 / Var Q, with a gradient through both, not through noise."""
    recipe, plain = small("td3+lipschitz", lipschitz={**OWN, "steps": steps}), small("td3")
    parts = disturbed(jax.jit(recipe.agent.init)(KEY), "critic", "target", "actor", by=0.5)
    last = jax.tree.map(lambda x: 2e-3 * x, parts["critic"]["Dense_2"])  # a variance near 1e-6
    parts["critic"] = {**parts["critic"], "Dense_2": last}
    ours, beneath, q = (
        recipe.agent.rules["critic"].loss, plain.agent.rules["critic"].loss, plain.agent.views["q"]
    )  # fmt: skip

    def theirs(live, parts, batch, key):
        value, metrics = beneath(live, parts, batch, key)
        at = lambda critic, noise: q({"critic": critic}, batch["obs"] + noise, batch["action"])
        held = at(parts["critic"], 0.0)
        change = lambda noise: ((at(parts["critic"], noise) - held) ** 2).sum()
        reach = 0.3 * (jnp.sqrt(((batch["obs"] - batch["obs"].mean(axis=0)) ** 2).mean(axis=0)) + 1e-6)
        noise = climbed(change, reach, fold(key, ADDED), steps)
        off = at(live["critic"], noise) - at(live["critic"], 0.0)
        moved = off[0] ** 2 + off[1] ** 2
        variance = ((held - held.mean()) ** 2).mean()
        return value + 0.7 * mean(moved, batch) / (variance + 1e-6), {**metrics, "moved": moved}

    live = {"critic": parts["critic"]}
    found, wanted = (
        jax.jit(jax.value_and_grad(loss, has_aux=True))(live, parts, BATCH, KEY) for loss in (ours, theirs)
    )
    near(found, wanted)
    assert found[0][1]["moved"].min() > 0


def test_the_worst_noise_of_a_plane_and_of_a_bowl():
    """Of w . s it is reach |w|_1, which one step attains; of more steps none leaves the reach."""
    w, reach = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.1, 0.2, 0.3])
    plane = lambda noise: ((noise @ w) ** 2).sum()
    one = lipschitz.worst_noise(plane, reach, (2, 3), KEY, 1)
    assert_allclose(np.abs(one), np.tile(reach, (2, 1)), rtol=1e-6)
    assert_allclose(plane(one), 2 * 0.65**2, rtol=1e-5)
    more = lipschitz.worst_noise(plane, reach, (2, 3), KEY, 4)
    assert_allclose(plane(more), 2 * 0.65**2, rtol=1e-5)
    peak = 0.3 * reach * jnp.array([1.0, -1.0, 1.0])
    hill = lambda noise: -(((noise - peak) / reach) ** 4).sum()
    for steps in (0, 1, 2, 5):  # towards a peak within reach, past it and back
        found, wanted = (fn(steps) for fn in (
            lambda steps: lipschitz.worst_noise(hill, reach, (B, LENGTH), KEY, steps),
            lambda steps: climbed(hill, reach, KEY, steps),
        ))  # fmt: skip
        assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    none = lipschitz.worst_noise(plane, reach, (200, 3), KEY, 0)
    assert (jnp.abs(none) <= reach).all() and 0.4 < (none > 0).mean() < 0.6 and (none < -0.8 * reach).any()


def test_without_weight_or_noise_it_is_the_agent_beneath():
    """Of weight 0 bit for bit, and without noise the rule itself."""
    plain, none = small("td3"), small("td3+lipschitz", lipschitz={"weight": 0.0})
    parts = jax.jit(plain.agent.init)(KEY)
    after = []
    for recipe in (plain, none):
        rule = recipe.agent.rules["critic"]
        update = lambda parts, rule=rule: rule.update(parts, rule.init(parts), BATCH, Ctx(KEY, jnp.int32(0)))[0]
        after.append(jax.jit(update)(parts))
    same(*after)
    assert small("td3+lipschitz", lipschitz={"noise": 0.0}).agent.rules["critic"].loss.__name__ == "critic_loss"
    assert none.agent.rules["critic"].writes == ("critic",)
    assert set(none.agent.rules["critic"].reads) == {"critic", "actor_target", "target"}


def test_spectra_are_bounded_after_each_update_of_the_critics():
    """Those of hidden layers of every critic: a kernel is scaled to the cap; smaller ones and the last stay."""
    cap = 1.3
    recipe = small("td3+lipschitz", lipschitz={"noise": 0.0, "cap": cap})
    assert list(recipe.agent.rules) == ["critic", "spectra", "actor", "target", "actor_target"]
    rule = recipe.agent.rules["spectra"]
    parts = disturbed(jax.jit(recipe.agent.init)(KEY), "critic", by=0.3)
    for name in ("Dense_0", "Dense_1"):  # each with one large value, above the cap and below it
        kernel = parts["critic"][name]["kernel"]
        large = jnp.outer(jnp.linspace(0.2, 0.6, kernel.shape[1]), jnp.linspace(-0.5, 1.0, kernel.shape[2]))
        kernel = 0.2 * kernel + large * jnp.array([2.0, 0.1])[:, None, None]
        parts["critic"] = {**parts["critic"], name: {**parts["critic"][name], "kernel": kernel}}
    after = jax.jit(lambda parts: rule.update(parts, (), BATCH, Ctx(KEY, jnp.int32(0)))[0])(parts)
    bent = 0
    for name in ("Dense_0", "Dense_1"):
        for i in range(2):
            kernel = np.asarray(parts["critic"][name]["kernel"][i])
            norm = np.linalg.norm(kernel, 2)
            bent += norm > cap
            assert_allclose(after["critic"][name]["kernel"][i], kernel * min(1, cap / norm), rtol=2e-3, atol=1e-5)
    assert 0 < bent < 4
    same(after["critic"]["Dense_2"], parts["critic"]["Dense_2"])
    assert_array_equal(after["critic"]["Dense_0"]["bias"], parts["critic"]["Dense_0"]["bias"])
    same({n: x for n, x in after.items() if n != "critic"}, {n: x for n, x in parts.items() if n != "critic"})


def test_the_last_of_many_layers_is_free():
    """Of eleven layers 'Dense_10' is the last, whatever the letters say."""
    recipe = small("td3+lipschitz", widths=(4,) * 10, lipschitz={"noise": 0.0, "cap": 1e-3})
    parts = jax.jit(recipe.agent.init)(KEY)
    rule = recipe.agent.rules["spectra"]
    after = jax.jit(lambda parts: rule.update(parts, (), BATCH, Ctx(KEY, jnp.int32(0)))[0])(parts)["critic"]
    free = [n for n in after if (after[n]["kernel"] == parts["critic"][n]["kernel"]).all()]
    assert free == ["Dense_10"]


def test_configuration():
    defaults(lipschitz.Config(), noise=0.05, weight=1.0, steps=1, cap=None)
    bounded(lipschitz.Config, {"noise": 0.0, "weight": 0.0, "steps": 0})
    for cap in (0, -1.0):
        with pytest.raises(BadInput, match="cap is "):
            lipschitz.Config(cap=cap)
    lipschitz.Config(cap=1e-6)


def test_critics_of_other_layers_are_refused():
    with pytest.raises(BadInput, match="cap bounds critics of dense layers"):
        small("drqv2+lipschitz", lipschitz={"cap": 1.0})
    with pytest.raises(BadInput, match="lipschitz looks at an agent's encode"):
        lipschitz.add(small("dqn"), DISCRETE, lipschitz.Config(), None)

"""DR.Q: codes that tell each other apart, by the equation, and what it changes of MR.Q."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.agents import dr_q
from jaxrl.core import Ctx
from tests.pinned import KEY, SPECS, Descended, compared, defaults, disturbed, same, transitions
from tests.unit.agents.test_mrq import PARTS, SIZES, H, experienced, predicted, unrolled, windows

CONFIG = dr_q.Config(**SIZES, n=2, period=2, warmup=2, num_envs=2, gamma=0.9, encoder_lr=2e-3, decay=(0.4, 0.6))


def encoder_loss(live, parts, batch, key):
    """Dynamics, reward, and .1 times -log of the softmax over the batch of cosines / .1 at each row's own target."""
    terms, contrast = predicted(live, parts, batch), 0.0
    for _, inside, _, z, _, aim in unrolled(live, parts, batch):
        unit = lambda x: x / jnp.sqrt((x**2).sum(axis=1, keepdims=True))
        scores = jnp.exp(unit(z) @ unit(aim).T / 0.1)
        contrast += 0.1 * (inside * -jnp.log(jnp.diagonal(scores) / scores.sum(axis=1))).mean()
    return terms["dynamics"] + terms["reward"] + contrast, {**terms, "contrast": contrast}


@pytest.fixture(scope="module")
def parts():
    start = jax.jit(dr_q.build(SPECS, CONFIG).init)(KEY)
    return experienced(disturbed(start, *PARTS))


def test_codes_learn_to_tell_each_other_apart(parts):
    """Two updates of the codes; nothing is asked of ends, seen or not."""
    rule = dr_q.build(SPECS, CONFIG).rules["encoder"]
    reference = Descended(encoder_loss, {"encoder": {"lr": 2e-3, "decay": 0.4}})
    state, update = rule.init(parts), jax.jit(rule.update)
    before = parts
    for i in (3, 4):
        after, state, found = update(before, state, windows(i), Ctx(KEY, jnp.int32(0), jnp.int32(i)))
        compared(reference, i, before, after, state, found, windows(i), KEY)
        before = after


def test_codes_of_length_0_are_told_from_none():
    """Nothing is divided by 0: all of 4 look alike."""
    zero = jnp.zeros((4, 3))
    assert_allclose(dr_q.contrast({}, zero, None, {"target": zero})["contrast"], np.log(4), rtol=1e-6)
    short = 1.5e-8 * jnp.eye(4)  # still long enough to have a direction
    assert_allclose(
        dr_q.contrast({}, short, None, {"target": short})["contrast"], np.log(1 + 3 * np.exp(-10)), rtol=1e-3
    )


def test_values_are_not_scaled(parts):
    agent = dr_q.build(SPECS, CONFIG)
    after = agent.rules["targets"].update(parts, (), windows(0), Ctx(KEY, jnp.int32(0), jnp.int32(3)))[0]
    same(after["unit"], parts["unit"])
    same(after["target"], parts["critic"])


def test_a_recipes_numbers_arrive():
    """Priorities fade with age, by the rate that is given."""
    recipe = dr_q.recipe(SPECS, replace(CONFIG, fade=(0.1, 1e-6)))
    assert (recipe.num_envs, recipe.most, recipe.warmup) == (2, 3, 2)
    steps = {name: jnp.asarray(x) for name, x in transitions(0, (6, 2)).items() if name != "weight"}
    steps |= {"end": jnp.zeros((6, 2), bool)}
    later = {**steps, "obs": steps["obs"] + 10}
    s = recipe.source.init(steps)
    for tick in (steps, later):
        s = recipe.source.add(s, tick, Ctx(KEY, jnp.int32(0)))
    batch = recipe.source.sample(s, {}, KEY)
    assert batch["reward"].shape == (8, H)
    newest = np.asarray(later["obs"])[-4:].reshape(-1, 3)
    assert all((abs(newest - obs).sum(axis=1) < 1e-6).any() for obs in np.asarray(batch["obs"][:, 0]))


def test_configuration():
    defaults(
        dr_q.Config(), widths=(750, 512), codes=(512, 256), encoder_lr=3e-4, lr=3e-4, decay=(0.01, 0.01), clip=None,
        gamma=0.99, n=3, horizon=5, period=250, noise=0.2, smoothing=0.2, smoothing_clip=0.3, scaled=False,
        saturation=0.0, exponent=0.4, fade=(0.9999, 0.1), batch=256, capacity=100_000, warmup=5_000, num_envs=1,
    )  # fmt: skip
    assert dr_q.TEMPERATURE == 0.1

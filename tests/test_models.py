"""Models of the world: what is told of a known system, how members are kept apart, and what is imagined with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import BadInput, Box, Discrete, Specs
from jaxrl.models import diffusion
from jaxrl.models.ensemble import Config, disagreement, dynamics, gaussian_nll, held_out_error, moments, soft_clamp

KEY = jax.random.key(6)
FLOATS = lambda n: jax.ShapeDtypeStruct((n,), jnp.float32)
NEVER = lambda obs: jnp.bool_(False)
LINEAR = Specs(FLOATS(2), Box((1,)), over=NEVER)
A, B = jnp.array([[0.9, 0.2], [-0.1, 0.8]]), jnp.array([[0.0], [0.5]])
SMALL = {"members": 3, "elites": 2, "widths": (32,), "batch": 64, "decay": (0.0, 0.0), "lr": 3e-3}


def linear(key, rows, slots=None, noise=0.1):
    """Transitions of s' = A s + B a + noise, r = s_0, in `slots` places of which the first are held."""
    slots = slots or rows
    keys = jax.random.split(key, 3)
    obs, action = jax.random.normal(keys[0], (slots, 2)), jax.random.uniform(keys[1], (slots, 1), minval=-1)
    next_obs = obs @ A.T + action @ B.T + noise * jax.random.normal(keys[2], (slots, 2))
    held = (jnp.arange(slots) < rows).astype(jnp.float32)
    rest = {"reward": obs[:, 0], "discount": jnp.ones(slots), "weight": held}
    return {"obs": obs, "action": action, "next_obs": next_obs, **rest}


# ---------------------------------------------------------------------------------------------------- by hand


def test_the_variance_is_clamped_softly():
    clamp = lambda x: soft_clamp(jnp.float32(x), jnp.float32(-10), jnp.float32(0.5))
    assert_allclose(clamp(0.0), -0.47400, atol=1e-5)
    assert 0.5 <= clamp(1e4) <= 0.5 + 2.8e-5
    assert_allclose(clamp(-1e4), -10)


def test_errors_that_are_expected_weigh_what_beta_leaves():
    nll = lambda mean, log_var, beta: gaussian_nll(mean, log_var, jnp.float32(3), beta)
    log_var = jnp.log(4.0)
    assert_allclose(nll(jnp.float32(1), log_var, 0.0), 1 + np.log(4), rtol=1e-6)
    assert_allclose(nll(jnp.float32(1), log_var, 0.5), 2 * (1 + np.log(4)), rtol=1e-6)
    slopes = [jax.grad(nll, argnums=(0, 1))(jnp.float32(1), log_var, beta) for beta in (0.0, 0.5, 1.0)]
    # With 1 the mean's is that of the squared error; none is of the factor.
    assert_allclose(slopes, [(-1.0, 0.0), (-2.0, 0.0), (-4.0, 0.0)], atol=1e-6)


def test_disagreement_is_the_unbiased_deviation():
    each = jnp.array([[[0.0, 1.0]], [[2.0, 1.0]]])  # two members, one row, two numbers
    assert_allclose(disagreement(each), [2**0.5 / 2], rtol=1e-6)
    assert_array_equal(disagreement(each[:1]), [0.0])


def test_moments_and_errors_are_of_masked_rows():
    x = jnp.array([[1.0, 5.0], [3.0, 5.0], [100.0, -7.0]])
    mask = jnp.array([True, True, False])
    found = moments(x, mask)
    assert_allclose(found["mean"], [2, 5])
    assert_allclose(found["std"], [1, 1])  # what does not vary is left as it is
    same = jnp.full((1_001, 1), 0.1)  # nor does this, whose mean and deviation are rounded
    assert_array_equal(moments(same, jnp.ones(1_001, bool))["std"], [1.0])
    told = jnp.stack([x, x + 2])
    assert_allclose(held_out_error(told, x.at[2].set(0.0), mask), [0, 4])


# --------------------------------------------------------------------------------------------------- a known system


@pytest.fixture(scope="module")
def fitted():
    """(the model, its part after a fit to 1,500 of 2,000 places, its metrics)."""
    model = dynamics(LINEAR, Config(**SMALL, passes=60, patience=10))
    part, metrics = jax.jit(model.fit)(model.init(KEY), linear(KEY, 1_500, 2_000), KEY)
    return model, part, metrics


def test_a_linear_system_is_found_with_its_noise(fitted):
    model, part, metrics = fitted
    fresh = linear(jax.random.key(1), 500, noise=0.0)
    told = jax.jit(model.tell)(part, fresh["obs"], fresh["action"])
    elites = told.mean[part["elites"]]
    error = elites - jnp.concatenate([fresh["reward"][:, None], fresh["next_obs"] - fresh["obs"]], axis=1)
    assert jnp.sqrt((error**2).mean(axis=(1, 2))).max() < 0.05
    spread = jnp.exp(0.5 * told.log_var[part["elites"]])
    assert_allclose(spread[..., 1:].mean(axis=(1, 2)), 0.1, atol=0.02)
    assert spread[..., 0].mean() < 0.1  # of 1: the reward has no noise, and variances follow where means go
    assert metrics["diverged"] == 0 and 1 < metrics["passes"] <= 60
    data = linear(KEY, 1_500)
    noise = 0.1**2 / (data["next_obs"] - data["obs"]).var(axis=0)  # of what is told, in its own variance
    assert_allclose(metrics["error"], noise.sum() / 3, rtol=0.25)


def test_places_that_hold_nothing_say_nothing():
    model = dynamics(LINEAR, Config(**SMALL, passes=1))
    data = linear(KEY, 100, 200)
    dirt = jax.tree.map(lambda x: x.at[100:].set(jnp.nan), {**data, "weight": jnp.zeros(200)}) | {
        "weight": data["weight"]
    }
    part, metrics = jax.jit(model.fit)(model.init(KEY), dirt, KEY)
    assert jnp.isfinite(metrics["error"]) and metrics["diverged"] == 0
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(part))


def test_elites_are_those_with_the_least_error_and_steps_are_theirs(fitted):
    model, part, _ = fitted
    spoilt = (set(range(3)) - {int(i) for i in part["elites"]}).pop()
    broken = jax.tree.map(lambda x: x.at[spoilt].set(jnp.nan), part["members"])
    fresh = linear(jax.random.key(2), 301)  # 301 rows are not even over 2 elites
    step = jax.jit(model.step)
    out = step({**part, "members": broken}, fresh["obs"], fresh["action"], KEY)
    assert_array_equal(out.next_obs, step(part, fresh["obs"], fresh["action"], KEY).next_obs)
    error = out.next_obs - (fresh["obs"] @ A.T + fresh["action"] @ B.T)
    assert_allclose(error.std(axis=0), 0.1, atol=0.025)  # each row is its own: shuffled rows would be far off
    assert_array_equal(out.discount, 1)


def test_members_disagree_where_there_were_no_data(fitted):
    model, part, _ = fitted
    survey = jax.jit(model.survey)
    near, far = (scale * jnp.ones((200, 2)) for scale in (0.3, 12.0))
    action = jnp.zeros((200, 1))
    doubts = [survey(part, obs, action, KEY)[1] for obs in (near, far)]
    assert doubts[1].mean() > 3 * doubts[0].mean()


def test_doubt_has_no_unit():
    """The same members, where all that is told varies ten times as much, disagree ten times as far: the same doubt."""
    model = dynamics(LINEAR, Config(**SMALL))
    part, obs, action = model.init(KEY), jnp.ones((5, 2)), jnp.zeros((5, 1))
    told = {"mean": jnp.zeros(3), "std": jnp.full(3, 10.0)}
    wider = {**part, "norm": {**part["norm"], "told": told}}
    (near, doubt), (far, same) = (model.survey(each, obs, action, KEY) for each in (part, wider))
    assert (doubt > 0).all() and jnp.abs(far.reward).mean() > 5 * jnp.abs(near.reward).mean()
    assert_allclose(same, doubt, rtol=1e-4)


def test_a_member_that_diverges_goes_back_to_what_it_was():
    model = dynamics(LINEAR, Config(**{**SMALL, "lr": 1e30}, passes=3))
    start = model.init(KEY)
    part, metrics = jax.jit(model.fit)(start, linear(KEY, 200), KEY)
    assert metrics["diverged"] == 3
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(part))


def test_one_member_does_not_see_the_data_of_another():
    model = dynamics(LINEAR, Config(**SMALL, passes=1))
    data = linear(KEY, 200)
    part, _ = jax.jit(model.fit)(model.init(KEY), data, KEY)
    other = model.init(KEY)
    other["members"] = jax.tree.map(lambda x: x.at[0].mul(2.0), other["members"])
    changed, _ = jax.jit(model.fit)(other, data, KEY)
    kernel = lambda part: part["members"]["Dense_0"]["kernel"]
    assert (kernel(part)[0] != kernel(changed)[0]).any()
    # The bounds of variances are shared: so much, and no more, passes from one to another.
    assert_allclose(kernel(part)[1:], kernel(changed)[1:], atol=1e-3)


def test_an_end_is_known_or_learned():
    fallen = lambda obs: obs[0] > 0
    data = linear(KEY, 1_000)
    data["discount"] = 1.0 - jax.vmap(fallen)(data["obs"])  # here it is the observation before that tells
    for specs, ends in ((Specs(FLOATS(2), Box((1,)), over=fallen), "known"), (Specs(FLOATS(2), Box((1,))), "learned")):
        model = dynamics(specs, Config(**{**SMALL, "members": 1, "elites": 1}, passes=15))
        part, _ = jax.jit(model.fit)(model.init(KEY), data, KEY)
        out = jax.jit(model.step)(part, data["obs"], data["action"], KEY)
        if ends == "known":
            assert_array_equal(out.discount, 1.0 - jax.vmap(fallen)(out.next_obs))
        else:
            assert (out.discount == data["discount"]).mean() > 0.8  # drawn: near the border it is uncertain


def test_angles_are_told_from_where_they_point():
    """Members see sine and cosine of the second number alone, and tell the same after a turn of it."""
    model = dynamics(LINEAR, Config(**SMALL, angles=(1,)))
    part, obs = model.init(KEY), jnp.array([[0.3, 0.7]])
    assert part["members"]["Dense_0"]["kernel"].shape == (3, 4, 32)  # the first, sine and cosine, the action
    mean = lambda turn: model.tell(part, obs + jnp.array(turn), jnp.zeros((1, 1))).mean
    assert_allclose(mean([0.0, 2 * np.pi]), mean([0.0, 0.0]), atol=1e-5)
    assert jnp.abs(mean([2 * np.pi, 0.0]) - mean([0.0, 0.0])).max() > 1e-3
    with pytest.raises(BadInput, match="angles has 2, and an observation here has numbers 0 to 1"):
        dynamics(LINEAR, Config(**SMALL, angles=(2,)))


def test_actions_may_be_discrete():
    model = dynamics(Specs(FLOATS(2), Discrete(3)), Config(**SMALL))
    out = jax.jit(model.step)(model.init(KEY), jnp.zeros((5, 2)), jnp.array([0, 1, 2, 0, 1]), KEY)
    assert out.next_obs.shape == (5, 2) and out.reward.shape == (5,)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"members": 0}, "members is 0"),
        ({"members": 3, "elites": 4}, "elites is 4, more than the 3 members"),
        ({"held_out": 1.0}, "held_out is 1.0"),
        ({"beta": 2.0}, "beta is 2.0"),
    ],
)
def test_bad_numbers_of_an_ensemble_are_named(how, sentence):
    with pytest.raises(BadInput, match=sentence):
        Config(**how)


def test_pictures_are_refused():
    with pytest.raises(BadInput, match="one vector of floats"):
        dynamics(Specs(jax.ShapeDtypeStruct((48, 48, 3), jnp.uint8), Box((1,))))


# ---------------------------------------------------------------------------------------------------------- denoiser


def test_a_denoiser_draws_what_it_was_fitted_to():
    """A linear system with noise of 0.2: the spread of what is drawn, and how well its transitions fit together."""
    how = diffusion.Config(width=64, blocks=3, embedding=32, updates=2_500, lr=2e-3, average=0.9, levels=16, lot=500)
    model = diffusion.generator(5, how)
    data = linear(KEY, 1_500, 2_000, noise=0.2)
    rows = lambda data: jnp.concatenate([data["obs"], data["action"], data["next_obs"]], axis=1)
    x = rows(data).at[1_500:].set(jnp.nan)  # places that hold nothing

    @jax.jit
    def drawn(key):
        part, metrics = model.fit(model.init(key), x, data["weight"], key)
        return model.draw(part, key, 1_200), metrics

    y, metrics = drawn(KEY)
    assert y.shape == (1_200, 5) and not metrics["diverged"] and metrics["loss"] < 0.9
    truth = x[:1_500]
    assert_allclose(y.mean(axis=0), truth.mean(axis=0), atol=0.12)
    assert_allclose(y.std(axis=0), truth.std(axis=0), rtol=0.2)
    assert_allclose(jnp.corrcoef(y.T), jnp.corrcoef(truth.T), atol=0.12)
    off = y[:, 3:] - (y[:, :2] @ A.T + y[:, 2:3] @ B.T)
    assert off.std() < 1.5 * 0.2


def test_trajectories_go_on_from_what_is_given_one_way_or_the_other():
    """Three steps up or down from a start that is given: both ways are drawn, each in one piece, none in between."""
    how = diffusion.Config(64, 1, 32, updates=1_000, batch=128, lr=4e-3, average=0.9, levels=12, churn=0.0)
    model = diffusion.generator(3, how, given=1)
    key_start, key_way, key = jax.random.split(KEY, 3)
    start = jax.random.uniform(key_start, (1_000, 1), minval=-1)
    way = jnp.sign(jax.random.normal(key_way, (1_000, 1)))
    x = start + way * jnp.arange(1.0, 4.0)

    @jax.jit
    def drawn(key, asked):
        part, metrics = model.fit(model.init(key), x, jnp.ones(1_000), key, given=start)
        return model.draw(part, key, 400, asked), metrics

    asked = jnp.linspace(-0.9, 0.9, 400)[:, None]
    y, metrics = drawn(key, asked)
    steps = jnp.diff(jnp.concatenate([asked, y], axis=1), axis=1)
    up = steps[:, 0] > 0
    assert not metrics["diverged"] and 0.35 < up.mean() < 0.65
    assert (jnp.abs(steps - jnp.where(up, 1.0, -1.0)[:, None]).max(axis=1) < 0.3).mean() > 0.9


def test_columns_may_be_left_as_they_are_and_a_bad_fit_is_dropped():
    model = diffusion.generator(2, diffusion.Config(8, 1, 4, updates=3, batch=8, levels=2), raw=(1,))
    x = jnp.stack([jnp.arange(10.0), 100 + jnp.arange(10.0)], axis=1)
    start = model.init(KEY)
    part, metrics = model.fit(start, x, jnp.ones(10), KEY)
    assert_allclose(part["norm"]["mean"], [4.5, 0])
    assert part["norm"]["std"][1] == 1 and not metrics["diverged"]
    part, metrics = model.fit(start, x.at[0].set(jnp.inf), jnp.ones(10), KEY)
    assert metrics["diverged"]
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(part), jax.tree.leaves(start)))

"""The ensemble against PETS and MBPO written out: one fit, batch by batch, and every step that a model makes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import BadInput, Box, Discrete, Specs, below
from jaxrl.models import ensemble
from jaxrl.models.ensemble import Config, Told, dynamics
from jaxrl.nets import MLP, net, truncated

KEY = jax.random.key(31)
FLOATS = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
D, M = 3, 3
SMALL = Config(M, 2, (5,), angles=(1,), lr=0.02, batch=3, decay=(0.03, 0.3), most_held_out=4, patience=2, passes=4)
OVER = lambda obs: obs[0] > 0.4
SPECS = {known: Specs(FLOATS(D), Box((2,)), over=OVER if known else None) for known in (True, False)}
SEEN = D + 1 + 2


def table(rows: int = 11, seed: int = 0) -> dict[str, np.ndarray]:
    """Transitions of which two do not count; one of these is far from all others."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=(rows, *shape)).astype(np.float32)
    obs, action = normal(D), normal(2)
    data = {"obs": obs, "action": action, "next_obs": 0.5 * obs + 0.3 * normal(D), "reward": 2 + obs[:, 0]}
    data |= {"discount": rng.uniform(0.2, 1, rows).astype(np.float32), "weight": np.ones(rows, np.float32)}
    data["weight"][[2, 5]] = 0
    for name in ("obs", "next_obs", "reward"):
        data[name][2] = 50
    return data


@pytest.fixture(scope="module", params=[True, False], ids=["known ends", "told ends"])
def world(request):
    """(whether ends are known, the model, a part that is nowhere at its beginning)."""
    known = request.param
    model = dynamics(SPECS[known], SMALL)
    rng = np.random.default_rng(3)
    part = model.init(KEY)
    shaken = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), part["members"])
    norm = {
        "input": {"mean": jnp.float32(rng.normal(size=SEEN)), "std": jnp.float32(rng.uniform(0.5, 2, SEEN))},
        "told": {"mean": jnp.float32(rng.normal(size=1 + D)), "std": jnp.float32(rng.uniform(0.5, 2, 1 + D))},
    }
    return known, model, {**part, "members": shaken, "norm": norm, "elites": jnp.array([2, 0])}


def network(known: bool):
    return net(MLP((5,), 2 * (1 + D) + (not known), jax.nn.swish, kernel_init=truncated(0.5)), FLOATS(SEEN))


def inputs(obs, action):
    """Angles as sine and cosine, after what is straight."""
    return jnp.concatenate([obs[..., [0, 2]], jnp.sin(obs[..., [1]]), jnp.cos(obs[..., [1]]), action], axis=-1)


def clamped(x, low, high):
    x = high - jnp.log1p(jnp.exp(high - x))
    return low + jnp.log1p(jnp.exp(x - low))


def told_by(known, part, i, obs, action):
    """Mean and log variance, standardised, and an end's logit, of one member."""
    norm = part["norm"]["input"]
    x = (inputs(obs, action) - norm["mean"]) / norm["std"]
    out = network(known).apply(jax.tree.map(lambda x: x[i], part["members"]), x)
    bounds = part["bounds"]
    return out[..., : 1 + D], clamped(out[..., 1 + D : 2 * (1 + D)], bounds["low"], bounds["high"]), out[..., -1]


def test_a_member_is_seen_in_the_units_of_the_data(world):
    known, model, part = world
    data = table()
    obs, action = jnp.array(data["obs"][6:]), jnp.array(data["action"][6:])
    told = model.tell(part, obs, action)
    norm = part["norm"]["told"]
    for i in range(M):
        mean, log_var, over = told_by(known, part, i, obs, action)
        assert_allclose(told.mean[i], mean * norm["std"] + norm["mean"], rtol=1e-4, atol=1e-5)
        assert_allclose(told.log_var[i], log_var + np.log(np.asarray(norm["std"]) ** 2), rtol=1e-4, atol=1e-5)
        assert told.over is None if known else np.allclose(told.over[i], over, rtol=1e-4, atol=1e-5)


def test_a_model_begins_wide_and_knows_no_units():
    part = dynamics(SPECS[True], SMALL).init(KEY)
    assert_array_equal(part["bounds"]["high"], [0.5] * 4)
    assert_array_equal(part["bounds"]["low"], [-10.0] * 4)
    assert_array_equal(part["elites"], [0, 1])
    assert jax.tree.map(lambda x: (x.shape, float(x.min()), float(x.max())), part["norm"]) == {
        "input": {"mean": ((SEEN,), 0, 0), "std": ((SEEN,), 1, 1)},
        "told": {"mean": ((4,), 0, 0), "std": ((4,), 1, 1)},
    }
    first = network(True).init(jax.random.split(KEY, M)[1])
    jax.tree.map(lambda a, b: assert_array_equal(a[1], b), part["members"], first)


def loss(known, learned, norm, x, y, ends):
    """Seitzer et al. 2022, eq. 5 with beta 0.5, a member after another; PETS's bounds and decays."""
    value = 0.0
    for i in range(M):
        part = {**learned, "norm": {"input": {"mean": 0.0, "std": 1.0}}}
        out = network(known).apply(jax.tree.map(lambda x, i=i: x[i], part["members"]), x[i])
        mean, bounds = out[..., : 1 + D], learned["bounds"]
        log_var = clamped(out[..., 1 + D : 2 * (1 + D)], bounds["low"], bounds["high"])
        nll = (mean - y[i]) ** 2 / jnp.exp(log_var) + log_var
        value += (jax.lax.stop_gradient(jnp.exp(log_var) ** 0.5) * nll).mean()
        if not known:
            p = jax.nn.sigmoid(out[..., -1])
            value += -(ends[i] * jnp.log(p) + (1 - ends[i]) * jnp.log(1 - p)).mean()
    kernels = [learned["members"][name]["kernel"] for name in sorted(learned["members"])]
    value += 0.03 / 2 * (kernels[0] ** 2).sum() + 0.3 / 2 * (kernels[1] ** 2).sum()
    return value + 0.01 * (learned["bounds"]["high"].sum() - learned["bounds"]["low"].sum())


def fitted(known, part, data, key, passes, patience, further=None):
    """One fit, batch by batch; returns learned, best, errors, norm and the number of passes."""
    key_order, key_boot, key_fit = jax.random.split(key, 3)
    draw = np.asarray(jax.random.uniform(key_order, data["weight"].shape))
    order = np.array(sorted(np.flatnonzero(data["weight"] > 0), key=lambda row: draw[row]))
    size, slots = len(order), len(data["weight"])
    tested = min(max(int(0.2 * size), 1), 4)
    test, train, trained = order[:tested], order[tested:], size - tested
    x = np.asarray(inputs(*(jnp.array(data[name]) for name in ("obs", "action"))))
    y = np.hstack([data["reward"][:, None], data["next_obs"] - data["obs"]])
    norm = {
        name: {"mean": z[train].mean(axis=0), "std": z[train].std(axis=0)} for name, z in (("input", x), ("told", y))
    }
    x, y = ((z - norm[name]["mean"]) / norm[name]["std"] for name, z in (("input", x), ("told", y)))
    boot = train[np.asarray(below(key_boot, (M, slots), trained))]
    batches = -(-trained // 3)
    tx, learned = optax.adam(0.02), {name: part[name] for name in ("members", "bounds")}
    objective = lambda learned, x, y, ends: loss(known, learned, norm, x, y, ends)
    slope, state = jax.jit(jax.grad(objective)), part["adam"]
    extra = None if further is None else jax.jit(jax.grad(lambda *given: further(known, norm, *given)))
    best, errors, idle, turn = [part["members"]] * M, np.full(M, 1e10), 0, 0
    while idle <= patience and turn < passes:
        for i in range(batches):
            key_rows, key_further = jax.random.split(jax.random.fold_in(key_fit, turn * batches + i))
            rows = np.take_along_axis(boot, np.asarray(below(key_rows, (M, 3), trained)), axis=1)
            gradient = slope(learned, x[rows], y[rows], 1 - data["discount"][rows])
            if extra is not None:
                batch = {name: values[rows[0]] for name, values in data.items()}
                gradient = jax.tree.map(jnp.add, gradient, extra(learned, batch, key_further))
            steps, state = tx.update(gradient, state, learned)
            learned = optax.apply_updates(learned, steps)
        turn += 1
        means = [
            network(known).apply(jax.tree.map(lambda x, i=i: x[i], learned["members"]), x[test])[:, : 1 + D]
            for i in range(M)
        ]
        now = np.array([((mean - y[test]) ** 2).mean() for mean in means])
        better = (errors - now) / errors > 0.01
        best = [learned["members"] if better[i] else best[i] for i in range(M)]
        errors, idle = np.where(better, now, errors), 0 if better.any() else idle + 1
    members = jax.tree.map(lambda *x: jnp.stack([one[i] for i, one in enumerate(x)]), *best)
    return learned, members, errors, norm, turn, state


def further(known, norm, learned, batch, key):
    """One more term: the spread of what members tell, in the data's units, with noise."""
    part = {**learned, "norm": norm}
    means = jnp.stack([told_by(known, part, i, batch["obs"], batch["action"])[0] for i in range(M)])
    means = means * norm["told"]["std"] + norm["told"]["mean"]
    return (means.var(axis=0) * (1 + jax.random.uniform(key)) * batch["reward"][:, None]).mean()


def as_theirs(tell, batch, key):
    means = tell(batch["obs"], batch["action"]).mean
    return (means.var(axis=0) * (1 + jax.random.uniform(key)) * batch["reward"][:, None]).mean()


def test_a_fit_batch_by_batch(world):
    """Where ends are known with a further term, which is descended beside."""
    known, model, part = world
    more = further if known else None
    data = table()
    extra = () if more is None else (as_theirs,)
    found, metrics = jax.jit(lambda *given: model.fit(*given, *extra))(part, jax.tree.map(jnp.array, data), KEY)
    learned, members, errors, norm, turns, state = fitted(known, part, data, KEY, 4, 2, more)
    close = lambda a, b: assert_allclose(a, b, rtol=5e-3, atol=2e-4)
    jax.tree.map(close, found["norm"], norm)
    jax.tree.map(close, found["members"], members)
    jax.tree.map(close, found["bounds"], learned["bounds"])
    jax.tree.map(close, found["adam"][0].mu, state[0].mu)
    assert metrics["passes"] == turns and metrics["diverged"] == 0
    assert_array_equal(found["elites"], np.argsort(errors)[:2])
    assert_allclose(metrics["error"], np.sort(errors)[:2].mean(), rtol=5e-3)


@pytest.mark.parametrize("patience, passes, turns, share, tested", [(0, 9, 2, 0.9, 3), (5, 3, 3, 0.05, 1)])
def test_when_a_fit_ends_and_what_it_holds_out(patience, passes, turns, share, tested):
    """With a rate of 0 the first pass is the best, and `patience` more and one are made, at most so many in all.

    Of 9 rows a share is held out, of at least one row and here at most 3: moments are of what is left.
    """
    data = table()
    held = {"held_out": share, "most_held_out": 3}
    config = Config(2, 1, (2,), lr=0.0, batch=4, patience=patience, passes=passes, **held)
    model = dynamics(Specs(FLOATS(D), Box((2,)), over=OVER), config)
    part, metrics = jax.jit(model.fit)(model.init(KEY), jax.tree.map(jnp.array, data), KEY)
    assert metrics["passes"] == turns
    draw = np.asarray(jax.random.uniform(jax.random.split(KEY, 3)[0], (11,)))
    order = sorted(np.flatnonzero(data["weight"] > 0), key=lambda row: draw[row])
    assert_allclose(part["norm"]["told"]["mean"][0], data["reward"][order[tested:]].mean(), rtol=1e-5)


def test_a_member_that_diverges_goes_back_and_takes_no_moments_along():
    data = table()
    model = dynamics(SPECS[True], Config(M, 2, (5,), lr=0.01, batch=3, passes=2))
    part = model.init(KEY)
    part["members"] = jax.tree.map(lambda x: x.at[1].set(jnp.nan), part["members"])
    found, metrics = jax.jit(model.fit)(part, jax.tree.map(jnp.array, data), KEY)
    assert metrics["diverged"] >= 1
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(found["bounds"]))
    assert not any(np.any(x) for x in jax.tree.leaves(found["adam"][0].mu)) and found["adam"][0].count == 0


def drawn(known, mean, log_var, over, obs, key):
    """A step from a normal: reward first, then the change."""
    change = mean + np.exp(log_var / 2) * np.asarray(jax.random.normal(key, mean.shape))
    after = obs + change[:, 1:]
    if known:
        ends = after[:, 0] > 0.4
    else:
        ends = np.asarray(jax.random.uniform(jax.random.fold_in(key, 1), (len(obs),))) < 1 / (1 + np.exp(-over))
    return after, change[:, 0], 1.0 - ends


def test_rows_are_dealt_to_the_elites(world):
    """Of 7 rows to two elites 4 each, the last of one a row that is dealt twice."""
    known, model, part = world
    rng = np.random.default_rng(5)
    obs, action = rng.normal(size=(7, D)).astype(np.float32), rng.normal(size=(7, 2)).astype(np.float32)
    found = jax.jit(model.step)(part, obs, action, KEY)
    key_deal, key_draw = jax.random.split(KEY)
    dealt = np.argsort(np.asarray(jax.random.uniform(key_deal, (7,))))
    told = model.tell(part, jnp.array(obs), jnp.array(action))
    who = np.zeros(7, int)
    who[dealt[:4]], who[dealt[4:]] = 2, 0  # the elites, in their order
    pick = lambda x: np.asarray(x)[who, np.arange(7)]
    over = None if known else pick(told.over)
    expected = drawn(known, pick(told.mean), pick(told.log_var), over, obs, key_draw)
    for one, wanted in zip(found, expected):
        assert_allclose(one, wanted, rtol=1e-4, atol=1e-5)
    assert set(np.asarray(found.discount).tolist()) == {0.0, 1.0}
    one = jax.jit(model.step)(part, obs[:1], action[:1], KEY)  # fewer rows than elites
    assert one.reward.shape == (1,)


def test_a_survey_is_of_any_member_with_how_far_all_are_apart(world):
    known, model, part = world
    rng = np.random.default_rng(6)
    obs, action = rng.normal(size=(5, D)).astype(np.float32), rng.normal(size=(5, 2)).astype(np.float32)
    found, doubt = jax.jit(model.survey)(part, obs, action, KEY)
    key_members, key_choice = jax.random.split(KEY)
    told = model.tell(part, jnp.array(obs), jnp.array(action))
    each = []
    for i, key in enumerate(jax.random.split(key_members, M)):
        over = None if known else np.asarray(told.over[i])
        each.append(drawn(known, np.asarray(told.mean[i]), np.asarray(told.log_var[i]), over, obs, key))
    who = np.asarray(below(key_choice, (5,), M))
    for at, one in enumerate(found):
        assert_allclose(one, [each[who[row]][at][row] for row in range(5)], rtol=1e-4, atol=1e-5)
    change = np.stack([np.hstack([reward[:, None], after - obs]) for after, reward, _ in each])
    assert_allclose(doubt, (change / part["norm"]["told"]["std"]).std(axis=0, ddof=1).mean(axis=1), rtol=1e-4)


# ----------------------------------------------------------------------------------------------------------- pieces


@pytest.mark.parametrize("x", [-30.0, -9.0, 0.0, 0.6, 20.0])
def test_bounds_bend_softly(x):
    assert_allclose(
        ensemble.soft_clamp(jnp.float32(x), jnp.float32(-10), jnp.float32(0.5)), clamped(x, -10, 0.5), rtol=1e-5
    )


def test_the_likelihood_without_beta_where_nobody_says():
    of = lambda *beta: ensemble.gaussian_nll(jnp.float32(1), jnp.float32(0.7), jnp.float32(3), *beta)
    assert_allclose(of(), 4 / np.exp(0.7) + 0.7, rtol=1e-6)
    assert_allclose(of(0.5), np.exp(0.35) * (4 / np.exp(0.7) + 0.7), rtol=1e-6)
    slope = jax.grad(lambda v: ensemble.gaussian_nll(jnp.float32(1), v, jnp.float32(3), 0.5))(jnp.float32(0.7))
    assert_allclose(slope, np.exp(0.35) * (1 - 4 / np.exp(0.7)), rtol=1e-5)


def test_doubt_is_the_mean_of_unbiased_deviations():
    each = jnp.float32(np.random.default_rng(0).normal(size=(4, 3, 2)))
    assert_allclose(ensemble.disagreement(each), np.std(each, axis=0, ddof=1).mean(axis=-1), rtol=1e-5)
    assert_array_equal(ensemble.disagreement(each[:1]), [0, 0, 0])
    assert_allclose(ensemble.disagreement(each[:2]), np.std(each[:2], axis=0, ddof=1).mean(axis=-1), rtol=1e-5)


def test_moments_are_of_the_masked_rows():
    x = jnp.float32([[1, 5, 0], [3, 5, 2e-13], [100, -7, 9], [5, 5, 0]])
    mask = jnp.array([True, True, False, True])
    norm = ensemble.moments(x, mask)
    assert_allclose(norm["mean"][:2], [3, 5])
    assert_allclose(norm["std"], [np.sqrt(8 / 3), 1, 1], rtol=1e-6)
    assert_allclose(ensemble.moments(x, mask & False)["std"], [1, 1, 1])
    little = jnp.float32([[1e-3], [1e-3 + 1e-6]])  # a deviation of 5e-7, above a millionth of the mean
    assert_allclose(ensemble.moments(little, jnp.ones(2, bool))["std"], 5e-7, rtol=0.1)
    assert_allclose(ensemble.moments(-little, jnp.ones(2, bool))["std"], 5e-7, rtol=0.1)
    assert_allclose(ensemble.moments(little + 1, jnp.ones(2, bool))["std"], 1)
    assert_allclose(
        ensemble.standard(x[:1, :2], {"mean": jnp.float32([3, 4]), "std": jnp.float32([4, 2])}), [[-0.5, 0.5]]
    )


def test_the_held_out_error_is_a_mean_over_rows_and_numbers():
    y = jnp.float32([[1, 2], [3, 4], [50, 60]])
    mean = jnp.stack([y, y + jnp.float32([1, 3])])
    assert_allclose(ensemble.held_out_error(mean, y, jnp.array([True, True, False])), [0, 5])
    assert_array_equal(ensemble.held_out_error(mean, y, jnp.zeros(3, bool)), [0, 0])


def test_members_are_finite_each_by_itself():
    members = {"a": jnp.ones((3, 2)).at[1, 0].set(jnp.nan), "b": jnp.ones((3, 4, 2)).at[2, 3, 1].set(jnp.inf)}
    assert_array_equal(ensemble.finite(members, 3), [True, False, False])


def test_actions_are_vectors():
    assert_array_equal(ensemble.encoded(Discrete(3), jnp.array([[0, 2]])), [[[1, 0, 0], [0, 0, 1]]])
    assert ensemble.encoded(Box((2, 3)), jnp.zeros((5, 2, 3))).shape == (5, 6)
    assert ensemble.encoded(Box(()), jnp.zeros(5)).shape == (5, 1)
    one = dynamics(Specs(FLOATS(2), Discrete(3), over=OVER), Config(1, 1, (4,)))
    assert one.tell(one.init(KEY), jnp.zeros((5, 2)), jnp.zeros(5, jnp.int32)).mean.shape == (1, 5, 3)
    wide = dynamics(Specs(FLOATS(2), Box((2, 3)), over=OVER), Config(1, 1, (4,)))
    assert wide.tell(wide.init(KEY), jnp.zeros((5, 2)), jnp.zeros((5, 2, 3))).mean.shape == (1, 5, 3)
    assert isinstance(wide.tell(wide.init(KEY), jnp.zeros((5, 2)), jnp.zeros((5, 2, 3))), Told)


def test_observations_are_one_vector_of_floats():
    assert ensemble.flat(FLOATS(7)) == 7
    for shape in (FLOATS(), FLOATS(2, 3), jax.ShapeDtypeStruct((3,), jnp.int32), {"a": FLOATS(3)}):
        with pytest.raises(BadInput, match="one vector of floats"):
            ensemble.flat(shape)
    for angle in (-1, 3):
        with pytest.raises(BadInput, match=f"angles has {angle}"):
            dynamics(SPECS[True], Config(angles=(angle,)))
    assert dynamics(SPECS[True], Config(1, 1, (4,), angles=(0, 2)))

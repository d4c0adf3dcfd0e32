"""SynthER: what a denoiser is shown, what becomes of its draws, when it learns, and their share of a batch."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.agents import sac, synther
from jaxrl.core import BadInput, Ctx, fold
from jaxrl.loop import Run
from jaxrl.models import diffusion
from jaxrl.models.diffusion import Denoiser
from jaxrl.sources import latest
from tests.pinned import DIMS, KEY, LENGTH, SPECS, bounded, defaults, near, same, transitions
from tests.small import DISCRETE, config, small

N = 2 * LENGTH + DIMS + 1
OWN = {"period": 10, "samples": 7, "least": 5, "delay": 3}
BASE = {"batch": 8, "warmup": 4, "num_envs": 1, "capacity": 32}


@pytest.fixture
def shown(monkeypatch):
    """A known denoiser, whose draws are four times what it was shown first, less an offset; and how it was made."""
    made = []

    def generator(n, config, raw=()):
        made.append((n, config, raw))

        def fit(part, x, weight, key):
            count = (weight > 0).sum()
            seen = {"rows": x[jnp.argsort(weight <= 0, stable=True)[:7]], "key": key}
            return seen, {"loss": jnp.float32(count), "diverged": part["rows"].sum() > 0}

        def draw(part, key, count):
            right = (jax.random.key_data(key) == jax.random.key_data(fold(KEY, 1))).all()  # not the fit's
            off = jnp.where(right & (count == 7), -0.25, 100.0)
            return 4 * part["rows"] + jnp.where(part["rows"] > 1.5, jnp.inf, off)

        init = lambda key: {"rows": jnp.zeros((7, n)), "key": key}
        return Denoiser(init, fit, draw)

    monkeypatch.setattr(diffusion, "generator", generator)
    return made


def made(specs=SPECS, **own):
    base = config("sac", **BASE)
    return synther.add(sac.recipe(specs, base), specs, synther.Config(**{**OWN, **own}), base)


def lived(recipe, ticks):
    data = {name: x[:, None] for name, x in transitions(9, (ticks,)).items() if name != "weight"}
    data["end"] = data["discount"] == 0
    s = recipe.source.init(jax.eval_shape(lambda: data))
    s = jax.jit(recipe.source.add)(s, data, Ctx(KEY, jnp.int32(0)))
    held = jax.jit(recipe.source.everything)(s)
    held = {name: np.asarray(x)[held["weight"] > 0] for name, x in held.items()}
    return Run(*[()] * len(Run._fields))._replace(parts=recipe.agent.init(KEY), source=s), held


def laid_out(data, asked):
    """[s, a, r, s'] side by side, and whether the task ended where that is asked."""
    end = [1 - data["discount"]] if asked else []
    columns = [data["obs"], data["action"], data["reward"], data["next_obs"], *end]
    return np.concatenate([np.asarray(x).reshape(len(data["reward"]), -1) for x in columns], axis=1)


@pytest.mark.parametrize("asked", [True, False])
def test_transitions_become_vectors_and_draws_become_transitions(shown, asked):
    """An end is more than half of 1 where it is a number of its own; else where `Specs.over` says so of s'."""
    specs = SPECS if asked else replace(SPECS, over=lambda obs: obs[0] > 0.2)
    recipe = made(specs)
    run, held = lived(recipe, 9)
    old = recipe.source.sample(run.source, {}, KEY)
    pile = run.source["synthetic"]
    run = run._replace(source={**run.source, "synthetic": pile._replace(count=jnp.int32(4), head=jnp.int32(4))})
    after, metrics = jax.jit(recipe.events[0].fn)(run, Ctx(KEY, jnp.int32(10)))
    x = laid_out(held, asked)
    rows = np.asarray(after.parts["denoiser"]["rows"])
    assert {tuple(row) for row in np.round(rows, 5)} <= {tuple(row) for row in np.round(x, 5)}
    same(jax.random.key_data(after.parts["denoiser"]["key"]), jax.random.key_data(fold(KEY, 0)))
    assert_allclose(metrics["denoiser/loss"], 9)
    drawn = 4 * rows - 0.25
    sound = (rows <= 1.5).all(axis=1)
    pile = after.source["synthetic"]
    assert 0 < sound.sum() == pile.count < 7 and pile.head == pile.count  # in place of those before
    wanted = drawn[sound]
    obs, action, reward, next_obs = np.split(wanted[:, :N], [LENGTH, LENGTH + DIMS, LENGTH + DIMS + 1], axis=1)
    over = wanted[:, N] > 0.5 if asked else next_obs[:, 0] > 0.2
    assert 0 < over.sum() < len(over) and action.min() < -1 and action.max() > 1
    fields = {"obs": obs, "action": np.clip(action, -1, 1), "reward": reward[:, 0], "next_obs": next_obs}
    near({name: pile.rows[name][: len(wanted)] for name in fields}, fields)
    assert_array_equal(pile.rows["discount"][: len(wanted)], 1.0 - over)
    assert pile.rows["reward"].shape == (7,)
    assert_array_equal(np.bincount(old["source"]), [8])  # nothing synthetic was there yet
    assert_array_equal(np.bincount(recipe.source.sample(after.source, {}, KEY)["source"]), [4, 4])


def test_what_is_left_as_it_is(shown):
    """The reward where that is asked for, and an end always; all else is standardised."""
    known = replace(SPECS, over=lambda obs: obs[0] > 0)
    for specs, plain, wanted in (
        (SPECS, True, (LENGTH + DIMS, N)), (SPECS, False, (N,)), (known, True, (LENGTH + DIMS,)), (known, False, ())
    ):  # fmt: skip
        made(specs, plain_reward=plain)
        n, how, raw = shown[-1]
        assert (n, raw) == (N + (specs is SPECS), wanted)
        assert how == synther.Config().model


def test_no_refit_before_there_is_enough(shown):
    for ticks, fitted in ((4, False), (5, True)):
        recipe = made()
        run, _ = lived(recipe, ticks)
        after, metrics = jax.jit(recipe.events[0].fn)(run, Ctx(KEY, jnp.int32(10)))
        assert np.isnan(metrics["denoiser/loss"]) != fitted
        assert bool((after.parts["denoiser"]["rows"] != 0).any()) == fitted
    assert (recipe.events[0].name, recipe.events[0].period) == ("synther", 10)


def test_the_actor_learns_with_every_so_manyth_update(shown):
    """The critics and their targets learn with each."""
    recipe, plain = made(), made(delay=1)
    parts, batch = jax.jit(recipe.agent.init)(KEY), transitions(2)
    for name, due in (("actor", [2, 5]), ("critic", range(6))):
        rule = recipe.agent.rules[name]
        update = jax.jit(lambda parts, i, rule=rule: rule.update(parts, rule.init(parts), batch, Ctx(KEY, i, i))[0])
        moved = [i for i in range(6) if (update(parts, jnp.int32(i))[name]["Dense_0"]["bias"] != 0).any()]
        assert moved == list(due)
    assert list(recipe.agent.rules) == list(plain.agent.rules) == list(small("sac").agent.rules)
    assert plain.agent.rules["actor"].around is None


def test_configuration():
    own = vars(synther.Config())
    defaults(
        own.pop("model"), width=256, blocks=6, embedding=64, updates=10_000, batch=256, lr=3e-4, clip=1.0,
        average=0.995, apart=10, levels=32, churn=80.0, lot=2_000,
    )  # fmt: skip
    assert own == {
        "period": 10_000, "samples": 20_000, "share": 0.5, "least": 1_000, "delay": 20, "plain_reward": True
    }  # fmt: skip
    bounded(synther.Config, {"period": 1, "samples": 1, "least": 2, "delay": 1}, {"share": (0.0, 1.0)})
    assert synther.NUMBERS == {"ratio": 20}


def test_what_it_cannot_go_on_is_refused(shown):
    for share, of in ((0.0, 8), (1.0, 8), (0.05, 8)):
        with pytest.raises(BadInput, match=f"share is {share}: of a batch of {of} it leaves nothing to one of the two"):
            made(share=share)
    made(share=0.07)  # one of eight
    base, whole = config("sac"), small("sac")
    with pytest.raises(BadInput, match="synther learns from all that was experienced"):
        synther.add(replace(whole, source=latest()), SPECS, synther.Config(), base)
    with pytest.raises(BadInput, match="synther needs observations that are one vector"):
        synther.add(
            whole, replace(SPECS, observation=jax.ShapeDtypeStruct((2, 2), jnp.float32)), synther.Config(), base
        )
    with pytest.raises(BadInput, match="synther acts in continuous spaces"):
        synther.add(small("dqn"), DISCRETE, synther.Config(), base)

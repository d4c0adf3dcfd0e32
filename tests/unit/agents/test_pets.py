"""PETS: what a sequence is worth over particles, which search looks for it, and when the model is fitted anew."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.agents import pets
from jaxrl.core import BadInput, Ctx, fold
from jaxrl.models import ensemble
from jaxrl.models.ensemble import Step
from jaxrl.planning import cem, icem, mppi, random_shooting
from tests.pinned import DIMS, KEY, LENGTH, SPECS, bounded, defaults, near, replayed, same, transitions

H, POPULATION, TURNS, PARTICLES = 3, 30, 2, 4
MODEL = ensemble.Config(2, 2, widths=(4,), batch=8, passes=2)
CONFIG = pets.Config(
    horizon=H, population=POPULATION, turns=TURNS, particles=PARTICLES, period=7, capacity=64, warmup=12, num_envs=2,
    model=MODEL,
)  # fmt: skip
SEARCHES = {
    "cem": cem(H, DIMS, POPULATION, TURNS),
    "icem": icem(H, DIMS, POPULATION, TURNS, 3),
    "mppi": mppi(H, DIMS, POPULATION, TURNS),
    "random": random_shooting(H, DIMS, POPULATION * TURNS),
}


def step(part, obs, action, key):
    """Noise for each row, a reward of where it is and what is done, and an end now and then."""
    next_obs = obs + part * jax.random.normal(key, obs.shape)
    return Step(next_obs, obs[:, 0] + action[:, 0], 1.0 * (next_obs[:, 1] < 0.5))


def test_a_sequence_is_worth_its_particles_mean_return():
    """Rewards up to and with the step that ends, not discounted; the same sequence PARTICLES times in a row."""
    model = ensemble.Model(*[None] * 3, step, None)
    actions = jax.random.uniform(KEY, (5, H, DIMS), minval=-1)
    obs = jnp.array([0.3, -0.2, 1.0])
    found = jax.jit(lambda: pets.expected(model, 0.7, obs, PARTICLES)(KEY, actions))()
    now, alive, total = jnp.tile(obs, (5 * PARTICLES, 1)), np.ones(5 * PARTICLES), np.zeros(5 * PARTICLES)
    keys = jax.random.split(KEY, H)
    for t in range(H):
        out = step(0.7, now, jnp.stack([actions[i // PARTICLES, t] for i in range(5 * PARTICLES)]), keys[t])
        total += alive * np.asarray(out.reward)
        alive *= np.asarray(out.discount)
        now = out.next_obs
    assert 0 < alive.sum() < 5 * PARTICLES
    assert_allclose(found, [total[i * PARTICLES : (i + 1) * PARTICLES].mean() for i in range(5)], rtol=1e-5)


@pytest.mark.parametrize("name", SEARCHES)
def test_acts_by_the_search_of_that_name_from_its_last_plan(name):
    """Of the sizes given; a tenth of iCEM's sequences are best, and random shooting has all turns' at once."""
    agent, search = pets.recipe(SPECS, replace(CONFIG, search=name)).agent, SEARCHES[name]
    same(agent.memory(), search.fresh)
    model = ensemble.dynamics(SPECS, MODEL)
    parts, obs = jax.jit(agent.init)(KEY), jnp.array([0.3, -0.2, 1.0])
    last = search.fresh._replace(mean=jnp.full((H, DIMS), 0.4), kept=0 * search.fresh.kept + 0.2)

    @jax.jit
    def both(parts):
        score = pets.expected(model, parts["model"], obs, PARTICLES)
        return agent.act(parts, last, obs, Ctx(KEY, jnp.int32(0)), True), search.plan(KEY, score, last)

    (action, memory, extras), plan = both(parts)
    near((action, memory), (plan.action, plan))
    assert extras == {}


def test_few_sequences_leave_icem_two_that_are_best():
    config = replace(CONFIG, search="icem", population=9)
    same(pets.recipe(SPECS, config).agent.memory(), icem(H, DIMS, 9, TURNS, 2).fresh)
    assert jax.tree.map(jnp.shape, pets.SEARCHES["icem"](config, DIMS).fresh) == jax.tree.map(
        jnp.shape, icem(H, DIMS, 9, TURNS, 2).fresh
    )


class Part(NamedTuple):
    """As much of a run as the event looks at."""

    parts: dict
    source: Any


def test_the_model_is_fitted_to_all_that_was_experienced_once_the_warm_up_is_over():
    recipe = pets.recipe(SPECS, CONFIG)
    agent, (event,) = recipe.agent, recipe.events
    assert (event.period, event.name) == (8, "pets")  # of 7 frames, in ticks of two
    assert not agent.rules and not agent.observe
    model = ensemble.dynamics(SPECS, MODEL)
    parts = jax.jit(agent.init)(KEY)
    near(parts, {"model": jax.jit(model.init)(KEY)})
    made = transitions(2, (10, 2))
    made |= {"end": made.pop("weight") < 0}
    source = recipe.source.add(recipe.source.init(made), made, Ctx(KEY, jnp.int32(0)))

    @jax.jit
    def both(run, frames):
        fitted, told = model.fit(run.parts["model"], recipe.source.everything(run.source), fold(KEY, 0))
        return event.fn(run, Ctx(KEY, frames)), (fitted, told)

    run = Part({**parts, "other": jnp.float32(3)}, source)
    (after, metrics), (fitted, told) = both(run, jnp.int32(12))
    near(after.parts, {"model": fitted, "other": np.float32(3)})
    near(metrics, {f"model/{name}": jnp.float32(x) for name, x in told.items()})
    same(after.source, source)
    (after, metrics), _ = both(run, jnp.int32(11))
    same(after, run)
    assert all(np.isnan(x) for x in metrics.values())


def test_a_recipes_numbers_arrive():
    recipe = pets.recipe(SPECS, CONFIG)
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (2, 1, 0, 12)
    assert replayed(recipe) == (64, 1)
    assert recipe.agent.shapes["model"]["members"]["Dense_0"]["kernel"].shape == (2, LENGTH + DIMS, 4)


def test_configuration():
    model = {"members": 5, "elites": 5, "widths": (64, 64), "batch": 32}
    config = pets.Config()
    assert {name: getattr(config.model, name) for name in model} == model
    defaults(
        replace(config, model=MODEL), search="cem", horizon=15, population=100, turns=4, particles=5, period=250,
        capacity=20_000, warmup=250, num_envs=1, model=vars(MODEL),
    )  # fmt: skip
    lowest = ("horizon", "population", "turns", "particles", "period", "warmup", "num_envs")
    bounded(pets.Config, dict.fromkeys(lowest, 1))
    bounded(pets.Config, {"capacity": 1}, warmup=1)
    with pytest.raises(BadInput, match=r"warmup is 9, more than the 8 transitions kept"):
        pets.Config(warmup=9, capacity=8)
    pets.Config(warmup=8, capacity=8)
    with pytest.raises(BadInput, match="search"):
        pets.Config(search="cam")

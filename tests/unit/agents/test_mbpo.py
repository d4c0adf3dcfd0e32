"""MBPO: rollouts of a known model row by row, when they are made, which are forgotten, and what a batch is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.agents import mbpo, sac
from jaxrl.agents.common import rows
from jaxrl.core import BadInput, Ctx, fold
from jaxrl.loop import Run
from jaxrl.models import ensemble
from jaxrl.models.ensemble import Model, Step
from jaxrl.sources import latest
from tests.pinned import DIMS, KEY, LENGTH, SPECS, bounded, defaults, near, transitions
from tests.small import config, small

STARTS, FITS = 8, 2
OWN = {"period": 16, "starts": STARTS, "fits": FITS, "horizon": (1, 3), "grows": (16, 48)}
BASE = {"batch": 20, "warmup": 16, "num_envs": 1, "capacity": 300}


def step(part, obs, action, key):
    """A model that anyone can follow: steps past 1.5 end the task, and some are no numbers."""
    noise = 0.5 * jax.random.normal(key, obs.shape)
    next_obs = part["gain"] * obs + action.sum(axis=1, keepdims=True) + noise
    next_obs = jnp.where(next_obs[:, :1] < -1.2, jnp.nan, next_obs)
    reward = jnp.where(obs[:, 1] > 1.5, jnp.inf, obs[:, 0] - action[:, 1])
    return Step(next_obs, reward, jnp.where(next_obs[:, 0] > 1.5, 0.0, 1.0))


def fit(part, data, key, further=None):
    seen = {"rows": data["weight"].sum(), "draw": jax.random.uniform(key)}
    if further is not None:
        seen["further"] = further(None, data, key)
    return {"gain": part["gain"] + 0.5}, seen


def choose(parts, obs, ctx):
    return jnp.tanh(obs[:, :DIMS] + parts["model"]["gain"] + jax.random.normal(ctx.key, (obs.shape[0], DIMS)))


@pytest.fixture
def known(monkeypatch):
    """The known model in place of an ensemble."""
    model = Model(lambda key: {"gain": jnp.float32(0.25)}, fit, lambda *given: None, step, lambda *given: None)
    monkeypatch.setattr(ensemble, "dynamics", lambda specs, config: model)


def made(choose=choose, bonus=None, **own):
    base = config("sac", **BASE)
    return mbpo.add(sac.recipe(SPECS, base), SPECS, mbpo.Config(**{**OWN, **own}), base, choose, bonus)


def lived(recipe, ticks=12):
    """A run that has experienced so many transitions, one with an end."""
    data = {name: x[:, None] for name, x in transitions(6, (ticks,)).items() if name != "weight"}
    data["end"] = data["discount"] == 0
    s = recipe.source.init(jax.eval_shape(lambda: data))
    s = jax.jit(recipe.source.add)(s, data, Ctx(KEY, jnp.int32(0)))
    parts = recipe.agent.init(KEY)
    return Run(*[()] * len(Run._fields))._replace(parts=parts, source=s)


@jax.jit
def one_step(part, obs, key_action, key_step):
    action = choose({"model": part}, obs, Ctx(key_action, jnp.int32(0)))
    return action, step(part, obs, action, key_step)


def followed(data, part, horizon, key):
    """What of the rollouts is kept: of each step the rows that are alive and finite, the end's own included."""
    at = rows(fold(key, 0), data["weight"], STARTS)
    obs, alive, kept = data["obs"][at], np.ones(STARTS, bool), []
    for t in range(horizon):
        action, out = one_step(part, obs, fold(key, 1 + 2 * t), fold(key, 2 + 2 * t))
        alive = alive & np.isfinite(np.asarray(out.next_obs)).all(axis=1) & np.isfinite(np.asarray(out.reward))
        made = {"obs": obs, "action": action, "reward": out.reward, "discount": out.discount, "next_obs": out.next_obs}
        kept += [{name: np.asarray(x)[i] for name, x in made.items()} for i in np.flatnonzero(alive)]
        obs, alive = out.next_obs, alive & (np.asarray(out.discount) > 0)
    return kept, alive.mean()


def test_rollouts_of_a_known_model(known):
    """By the clock at two times: the horizon, the rows in their order, and the window of the last two fits."""
    recipe = made()
    event, run = recipe.events[0], lived(recipe)
    happen = jax.jit(event.fn)
    data = jax.jit(recipe.source.everything)(run.source)
    assert data["weight"].sum() == 12
    capacity, all_kept, gain = FITS * 3 * STARTS, [], 0.25
    for step_at, horizon in ((32, 2), (64, 3)):
        key = fold(KEY, step_at)
        run, metrics = happen(run, Ctx(key, jnp.int32(step_at)))
        gain += 0.5
        assert_allclose(run.parts["model"]["gain"], gain)
        kept, alive = followed(data, run.parts["model"], horizon, fold(key, 1))
        all_kept += kept
        assert STARTS <= len(kept) < horizon * STARTS  # some end, and some are dropped
        wanted = {"rows": 12, "draw": jax.random.uniform(fold(key, 0)), "horizon": horizon, "alive": alive}
        near(metrics, {f"model/{name}": jnp.float32(value) for name, value in wanted.items()})
        assert run.source["model"].window == FITS * horizon * STARTS
    pile = run.source["model"]
    assert (pile.rows["reward"].shape[0], int(pile.count)) == (capacity, len(all_kept))
    for name in ("obs", "action", "reward", "discount", "next_obs"):
        wanted = np.stack([row[name] for row in all_kept])
        assert_allclose(pile.rows[name][: len(all_kept)], wanted, rtol=1e-5, atol=1e-6)
    assert (pile.rows["discount"][: len(all_kept)] == 0).sum() > 0


def test_nothing_is_fitted_in_the_warm_up(known):
    recipe = made()
    run = lived(recipe)
    early, late = (jax.jit(recipe.events[0].fn)(run, Ctx(KEY, jnp.int32(now))) for now in (15, 16))
    assert early[0].parts["model"]["gain"] == 0.25 and np.isnan(early[1]["model/rows"])
    assert late[0].parts["model"]["gain"] == 0.75 and late[1]["model/rows"] == 12
    assert early[0].source["model"].count == 0 < late[0].source["model"].count


def test_a_bonus_sees_the_runs_parts(known):
    recipe = made(bonus=lambda parts, tell, data, key: parts["log_alpha"] + data["weight"].sum())
    run = lived(recipe)
    _, metrics = jax.jit(recipe.events[0].fn)(run, Ctx(KEY, jnp.int32(16)))
    assert_allclose(metrics["model/further"], run.parts["log_alpha"] + 12)


def test_where_nothing_else_is_said_it_does_what_the_agent_does_to_explore():
    agent = small("sac").agent
    parts, obs = jax.jit(agent.init)(KEY), transitions(7)["obs"]
    ctx = Ctx(KEY, jnp.int32(5))

    def alone(parts, obs):
        one = lambda i: agent.act(parts, (), obs[i], ctx._replace(key=jax.random.split(KEY, len(obs))[i]), True)[0]
        return jnp.stack([one(i) for i in range(len(obs))])

    assert_allclose(mbpo.exploring(agent)(parts, obs, ctx), jax.jit(alone)(parts, obs), rtol=1e-5)


def test_a_batch_is_real_by_a_twentieth_rounded_down(known):
    """Of 256 transitions 12; of a few at least one; and of share 0 none, but while the model has said nothing."""
    for size, own, counts in ((256, {}, [12, 244]), (20, {"real": 0.01}, [1, 19]), (20, {"real": 0.0}, [0, 20])):
        base = config("sac", **{**BASE, "batch": size})
        recipe = mbpo.add(sac.recipe(SPECS, base), SPECS, mbpo.Config(**OWN, **own), base)
        s = lived(recipe).source
        sample = jax.jit(lambda s, recipe=recipe: recipe.source.sample(s, {}, KEY))
        before, after = sample(s), sample({**s, "model": s["model"]._replace(count=jnp.int32(1))})
        assert_array_equal(np.bincount(before["source"], minlength=2), [size, 0])
        assert_array_equal(np.bincount(after["source"], minlength=2), counts)
        assert_array_equal(after["obs"][counts[0] :], 0)  # what the model's empty pile holds
        seen = {tuple(row) for row in transitions(6, (12,))["obs"]}
        assert {tuple(row) for row in np.asarray(before["obs"])} <= seen


def test_the_horizon_is_linear_between_two_times_and_rounded_down():
    """The authors' schedule of the hopper, k = 1 to 15 over epochs 20 to 150, of 1,000 frames each."""
    hopper = mbpo.Config(horizon=(1, 15), grows=(20_000, 150_000))
    for epoch in (0, 20, 21, 29, 30, 75, 124, 149, 150, 400):
        by_hand = int(np.clip(1 + (epoch - 20) / (150 - 20) * 14, 1, 15) + 1e-6)
        assert mbpo.steps_ahead(jnp.int32(1_000 * epoch), hopper) == by_hand
    at_once = mbpo.Config(horizon=(2, 5), grows=(10, 10))
    assert [int(mbpo.steps_ahead(jnp.int32(now), at_once)) for now in (9, 10, 11)] == [2, 2, 5]


def test_the_event_and_the_model(known):
    recipe = made(period=18)
    assert (recipe.events[0].name, recipe.events[0].period) == ("mbpo", 18)
    assert len(recipe.events) == 1
    more = mbpo.add(small("sac", SPECS, num_envs=4), SPECS, mbpo.Config(**{**OWN, "period": 18}), config("sac"))
    assert more.events[0].period == 20  # whole ticks
    assert set(recipe.agent.shapes) - set(small("sac").agent.shapes) == {"model"}


def test_configuration():
    own = vars(mbpo.Config())
    model = own.pop("model")
    assert own == {
        "period": 250, "starts": 2_000, "horizon": (1, 1), "grows": (20_000, 150_000), "fits": 4, "real": 0.05
    }  # fmt: skip
    defaults(
        model, members=7, elites=5, widths=(128, 128), angles=(), lr=1e-3, batch=256, decay=(2.5e-5, 1e-4), beta=0.5,
        held_out=0.2, most_held_out=5_000, patience=5, passes=500,
    )  # fmt: skip
    bounded(mbpo.Config, {"period": 1, "starts": 1, "fits": 1}, {"real": (0.0, 1.0)})
    for name, value in (("horizon", (0, 1)), ("horizon", (3, 2)), ("grows", (-1, 5))):
        with pytest.raises(BadInput, match=f"^{name} is "):
            mbpo.Config(**{name: value})
    mbpo.Config(horizon=(2, 2), grows=(0, 0))
    assert mbpo.NUMBERS == {"ratio": 20}


def test_what_it_cannot_go_on_is_refused():
    base = config("sac", **BASE)
    with pytest.raises(BadInput, match=r"real is 1\.0, which leaves the model nothing of a batch of 20"):
        made(real=1.0)
    made(real=0.95)
    whole = small("sac")
    with pytest.raises(BadInput, match="mbpo learns from all that was experienced"):
        mbpo.add(type(whole)(whole.agent, latest()), SPECS, mbpo.Config(**OWN), base)
    remembers = type(whole.agent)(
        whole.agent.init, whole.agent.act, whole.agent.rules, memory=lambda: jnp.zeros(LENGTH), views=whole.agent.views
    )
    with pytest.raises(BadInput, match="memory of what was before"):
        mbpo.add(type(whole)(remembers, whole.source), SPECS, mbpo.Config(**OWN), base)

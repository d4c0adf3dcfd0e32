"""Learning from models: what rollouts leave behind, batches of both kinds, terms of losses, and sums that resume."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import envs
from envs.core import scale_action
from envs.probes import probe
from jaxrl.agents import lipschitz, mbpo, mex_mb, sac, td3
from jaxrl.agents.combined import configured, find
from jaxrl.core import BadInput, Ctx, Event, Recipe, describe
from jaxrl.loop import Run, evaluate, loop
from jaxrl.models import ensemble
from jaxrl.models.ensemble import Step
from jaxrl.sources import beside, dataset, generated, latest, uniform

KEY = jax.random.key(12)
ENV = scale_action(envs.make("pendulum"))
MODEL = {"members": 3, "elites": 2, "widths": (8,), "batch": 16, "passes": 2}
OWN = {"period": 16, "starts": 12, "fits": 2, "model": MODEL}
SMALL = {"widths": (8, 8), "batch": 20, "capacity": 200, "warmup": 32, "ratio": 1}
SOFT = {"widths": (32,), "lr": 5e-3, "gamma": 0.9, "tau": 0.1, "batch": 32, "alpha": 1e-3, "target_entropy": -2.0}
SOFT |= {"warmup": 100, "capacity": 500, "ratio": 2}
LEARNS = {"members": 2, "elites": 2, "widths": (16,), "batch": 16, "passes": 20}
DREAMS_TRUE = {"width": 32, "blocks": 1, "updates": 400, "levels": 8, "lr": 5e-3, "average": 0.9}
DREAMS = {"period": 32, "samples": 40, "least": 20, "model": {"width": 8, "blocks": 1, "updates": 5, "levels": 3}}


def made(name, env=ENV, **settings) -> Recipe:
    module = find(name)
    return module.recipe(env.specs, configured(module.Config, {**SMALL, **settings}))


def transitions(count, envs=1, start=0.0):
    """One tick [count, envs] of a counter, in the loop's fields."""
    x = start + jnp.arange(count, dtype=jnp.float32)[:, None, None] + 100 * jnp.arange(envs)[:, None]
    rest = {"reward": x[..., 0], "discount": jnp.ones((count, envs)), "end": jnp.zeros((count, envs), bool)}
    return {"obs": x, "action": -x, "next_obs": x + 1, **rest}


# ----------------------------------------------------------------------------------------------------------- sources


def test_a_ring_shows_everything_that_it_holds():
    source = uniform(12, 4, n=3)  # of single transitions, whatever n is
    s = source.init(jax.eval_shape(lambda: transitions(2, 2)))
    for start in range(0, 6, 2):
        s = source.add(s, transitions(2, 2, float(start)), Ctx(KEY, jnp.int32(0)))
    whole = jax.jit(source.everything)(s)
    held = whole["weight"] > 0
    assert held.sum() == source.size(s)
    numbers = (np.asarray(whole[name])[np.asarray(held)].ravel().tolist() for name in ("obs", "reward", "next_obs"))
    assert sorted(zip(*numbers)) == [(x, x, x + 1) for base in (0, 100) for x in range(base, base + 6)]


def piled(source, values, kept=None):
    """A generated source that was given these rewards in turn."""
    s = source.init(jax.eval_shape(lambda: transitions(2)))
    for lot in values:
        x = jnp.asarray(lot, jnp.float32)
        rows = {"obs": x[:, None], "action": x[:, None], "reward": x, "discount": x * 0, "next_obs": x[:, None]}
        s = source.fill(s, rows, jnp.ones(len(lot), bool) if kept is None else kept)
    return s


def test_a_pile_keeps_what_it_is_told_to_and_forgets_the_oldest():
    source = generated(4, 64)
    s = piled(source, [[1, 2, 3]], jnp.array([True, False, True]))
    assert source.size(s) == 2
    assert set(np.asarray(source.sample(s, {}, KEY)["reward"])) == {1, 3}
    s = piled(source, [[1, 2, 3], [4, 5, 6]])
    assert set(np.asarray(source.sample(s, {}, KEY)["reward"])) == {3, 4, 5, 6}
    row = jax.tree.map(lambda x: x[:1], s.rows)
    newest = source.fill(s, row, jnp.zeros(1, bool), 2)
    assert set(np.asarray(source.sample(newest, {}, KEY)["reward"])) == {5, 6}
    assert source.size(source.empty(s)) == 0
    with pytest.raises(BadInput, match="5 transitions do not go into a replay of 4"):
        piled(source, [[1, 2, 3, 4, 5]])


def test_sources_beside_share_a_batch_and_events_see_their_own():
    seen = []
    event = Event(1, lambda run, ctx: (seen.append(type(run.source).__name__), (run, {}))[1])
    recipe = beside(Recipe(None, uniform(50, 8), events=(event,)), 3, model=generated(10, 5))  # type: ignore[arg-type]
    s = recipe.source.init(jax.eval_shape(lambda: transitions(4)))
    s = recipe.source.add(s, transitions(4), Ctx(KEY, jnp.int32(0)))
    assert_array_equal(recipe.source.sample(s, {}, KEY)["source"], [0] * 8)  # the model has said nothing yet
    s["model"] = piled(generated(10, 5), [[1, 2, 3]])
    assert_array_equal(recipe.source.sample(s, {}, KEY)["source"], [0] * 3 + [1] * 5)
    assert recipe.source.everything(s)["weight"].sum() == 4  # what was experienced alone
    run = Run(*[()] * len(Run._fields))._replace(source=s)
    after, _ = recipe.events[0].fn(run, Ctx(KEY, jnp.int32(0)))
    assert seen == ["Ring"] and after.source is not s and set(after.source) == {"online", "model"}


# -------------------------------------------------------------------------------------------------------------- mbpo


def test_the_horizon_grows_as_the_authors_hoppers_does():
    how = mbpo.Config(horizon=(1, 15), grows=(20_000, 150_000))
    ahead = [int(mbpo.steps_ahead(jnp.int32(1_000 * epoch), how)) for epoch in (0, 20, 124, 150, 900)]
    assert ahead == [1, 1, 12, 15, 15]


def test_rollouts_end_where_the_task_does(monkeypatch):
    """A model in which each row's second step ends the task: of five steps two are left behind."""
    whole = ensemble.dynamics

    def counting(specs, config):
        model = whole(specs, config)

        def step(part, obs, action, key):
            first = obs[:, 0] < 5
            return Step(jnp.full_like(obs, 10.0), jnp.where(first, 1.0, 2.0), first.astype(jnp.float32))

        return model._replace(step=step, fit=lambda part, data, key, further=None: (part, {}))

    monkeypatch.setattr(ensemble, "dynamics", counting)
    recipe = made("mbpo", mbpo={**OWN, "horizon": (5, 5)})
    one = loop(ENV, recipe)
    run, metrics = jax.jit(lambda key: one.chunk(one.init(key), 48))(KEY)
    pile = run.source["model"]
    assert pile.count == 2 * 12 * 2  # two steps of twelve starts at 32 and at 48 frames; none in the warm-up, at 16
    rows = jax.tree.map(lambda x: x[:48], pile.rows)
    assert_array_equal(rows["discount"], np.tile([1] * 12 + [0] * 12, 2))
    assert_array_equal(rows["reward"], np.tile([1] * 12 + [2] * 12, 2))
    assert_array_equal(rows["next_obs"], 10)
    assert metrics["model/horizon"] == 5


def test_batches_are_mostly_of_the_model():
    recipe = made("mbpo", batch=256, capacity=400, mbpo=OWN)
    s = recipe.source.init(jax.eval_shape(lambda: loop(ENV, recipe).collect(loop(ENV, recipe).init(KEY))[1]))
    full = {**s, "model": s["model"]._replace(count=jnp.int32(9))}
    assert_array_equal(np.bincount(recipe.source.sample(full, {}, KEY)["source"]), [12, 244])  # int(0.05 * 256)


def trained(name, ticks, **settings):
    """(a jitted chunk of that many ticks, the run and its metrics after one)."""
    one = loop(ENV, made(name, **settings))
    chunk = jax.jit(lambda run: one.chunk(run, ticks))
    return chunk, chunk(jax.jit(one.init)(KEY))


def test_a_sum_of_models_builds_describes_itself_trains_and_goes_on_bit_for_bit():
    own = {
        "coplanner": {**OWN, "candidates": 2, "ahead": 2},
        "synther": DREAMS,
        "moe": {"experts": 2, "k": 1, "gate": 0},
    }
    recipe = made("sac+coplanner+synther+moe", **own)
    words = describe(recipe.agent)
    assert all(part in words for part in ("model", "denoiser", "actor"))
    chunk, (run, metrics) = trained("sac+coplanner+synther+moe", 32, **own)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(run.parts))
    assert metrics["denoiser/loss"] > 0 and metrics["model/error"] > 0
    assert run.source["online"]["model"].count > 0 and run.source["synthetic"].count == 40
    saved = jax.tree.map(lambda x: x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else jnp.array(np.asarray(x)), run)
    ends = [jax.tree.leaves(chunk(start)[0].parts) for start in (run, saved)]  # across another refit of both
    assert all((a == b).all() for a, b in zip(*ends))


def test_one_candidate_explores_as_the_agent_does():
    own = {**OWN, "candidates": 1}
    plain, planning = made("mbpo", mbpo=OWN), made("coplanner", coplanner=own)
    parts = planning.agent.init(KEY)
    obs = jnp.array([0.3, -0.2, 1.0])
    act = lambda agent, explore: agent.act(
        {n: parts[n] for n in agent.shapes}, (), obs, Ctx(KEY, jnp.int32(0)), explore
    )[0]
    assert_array_equal(act(planning.agent, False), act(plain.agent, False))
    # The row of a batch of one has the first key that is split off.
    first = Ctx(jax.random.split(KEY, 1)[0], jnp.int32(0))
    assert_allclose(act(planning.agent, True), plain.agent.act(parts, (), obs, first, True)[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["td3+mbpo", "redq+mbpo", "drqv2+coplanner", "td3+synther"])
def test_models_go_on_other_agents(name):
    own = {name.split("+")[1]: DREAMS if "synther" in name else OWN}
    one = loop(ENV, made(name, **own))
    run = jax.eval_shape(one.init, KEY)
    after, metrics = jax.eval_shape(lambda run: one.chunk(run, 16), run)
    assert jax.tree.structure(after) == jax.tree.structure(run)
    assert {"model/error", "denoiser/loss"} & set(metrics)


@pytest.mark.parametrize("name", ["coplanner", "synther"])
def test_the_right_action_is_learned_from_what_was_never_experienced(name):
    """Probe 5, where it depends on what is seen: of a batch of 32 one or two are real, the others made up."""
    env = probe(5, continuous=True)
    own = {
        "coplanner": {"period": 100, "starts": 100, "real": 0.03, "candidates": 2, "ahead": 1, "model": LEARNS},
        "synther": {"period": 200, "samples": 200, "least": 50, "share": 0.95, "delay": 1, "model": DREAMS_TRUE},
    }
    recipe = made(name, env, **SOFT, **{name: own[name]})
    one = loop(env, recipe)

    def both(key):
        run, metrics = one.chunk(one.init(key), 400)
        return evaluate(env, recipe.agent, run.parts, key, 32)["return"].mean(), metrics["critic/td_error"]

    score, error = jax.jit(both)(KEY)
    assert score > 0.85 and jnp.isfinite(error)  # 1 is the best, and 0.75 what the best blind action earns


# ------------------------------------------------------------------------------------------------------------- terms


def batch_of(count=16):
    keys = jax.random.split(KEY, 4)
    rest = {"discount": jnp.ones(count), "end": jnp.zeros(count, bool)}
    obs, next_obs = (jax.random.normal(key, (count, 3)) for key in keys[:2])
    action = jax.random.uniform(keys[2], (count, 1), minval=-1)
    return {"obs": obs, "action": action, "reward": jax.random.normal(keys[3], (count,)), "next_obs": next_obs, **rest}


def stepped(recipe, rule="critic", parts=None):
    """(parts before, parts after one update of a rule, metrics)."""
    parts = parts or recipe.agent.init(KEY)
    one = recipe.agent.rules[rule]
    update = jax.jit(lambda parts: one.update(parts, one.init(parts), batch_of(), Ctx(KEY, jnp.int32(0))))
    after, _, metrics = update(parts)
    return parts, after, metrics


@pytest.mark.parametrize("base", ["td3", "sac"])
def test_mex_adds_the_value_and_nothing_at_weight_zero(base):
    plain, none, some = (
        made(f"{base}{more}", **own)
        for more, own in (("", {}), ("+mex", {"mex": {"eta": 0.0}}), ("+mex", {"mex": {"eta": 0.3}}))
    )
    same = [stepped(recipe)[1]["critic"] for recipe in (plain, none)]
    assert all((a == b).all() for a, b in zip(*map(jax.tree.leaves, same)))
    parts = plain.agent.init(KEY)
    loss = lambda recipe: recipe.agent.rules["critic"].loss({"critic": parts["critic"]}, parts, batch_of(), KEY)[0]
    q = plain.agent.views["q"](parts, batch_of()["obs"], batch_of()["action"])
    eta = {"td3": 0.3, "sac": 0.15}[base]  # SAC's critics descend half of the square
    assert_allclose(loss(some) - loss(plain), -eta * q.sum(axis=0).mean(), rtol=1e-4, atol=1e-6)
    out = made(f"{base}+mex", mex={"standing_out": True})
    assert jnp.isfinite(stepped(out)[2]["loss"])


def test_a_fixed_target_with_the_bonus_is_met_half_of_it_higher():
    q = jnp.float32(0.0)
    for _ in range(200):  # d/dQ [(Q - y)^2 - eta Q] = 0 at y + eta / 2
        q = q - 0.1 * jax.grad(lambda q: (q - 2.0) ** 2 - 0.4 * q)(q)
    assert_allclose(q, 2.2, rtol=1e-5)


def test_the_model_is_pushed_to_what_is_better_than_the_rest():
    mean, log_var = jnp.zeros((1, 2, 1)), jnp.zeros((1, 2, 1))
    x = jnp.array([[[1.0], [-1.0]]])
    slope = lambda advantage: jax.grad(
        lambda m: mex_mb.pushed(mex_mb.log_likelihood(m + mean, log_var, x), jnp.asarray(advantage))
    )(jnp.float32(0))
    assert_allclose(slope([[1.0, -1.0]]), 0.5**0.5, rtol=1e-5)  # of two, standardised by sqrt 2
    assert_allclose(slope([[-1.0, 1.0]]), -(0.5**0.5), rtol=1e-5)
    assert slope([[1.0, 1.0]]) == 0  # alike is standardised to nothing

    # Critics that like the first number of an observation: members that are pushed tell of more of it.
    look = {
        "encode": lambda parts, obs: obs,
        "policy": lambda parts, obs, key: jnp.zeros((obs.shape[0], 1)),
        "q": lambda parts, obs, action: obs[None, :, 0],
    }
    model = ensemble.dynamics(ENV.specs, ensemble.Config(**{**MODEL, "passes": 10}))
    data = {**batch_of(64), "weight": jnp.ones(64)}

    @jax.jit
    def told(push):
        further = lambda tell, batch, key: mex_mb.leaning(look, 0.99, push)({}, tell, batch, key)
        part, _ = model.fit(model.init(KEY), data, KEY, further)
        return model.tell(part, data["obs"], data["action"]).mean[..., 1].mean()

    assert told(10.0) > told(0.0) + 0.02


def test_noise_climbs_to_the_worst():
    w = jnp.array([1.0, -2.0, 0.5])
    linear = lambda noise: ((noise @ w) ** 2).sum()
    reach = jnp.array([0.1, 0.1, 0.1])
    attained = linear(lipschitz.worst_noise(linear, reach, (1, 3), KEY, 1))
    assert_allclose(attained, (0.1 * 3.5) ** 2, rtol=1e-5)  # (reach |w|_1)^2
    m = jax.random.normal(KEY, (3, 3))
    bowl = lambda noise: ((noise @ m) ** 2).sum()
    found = [
        np.mean([bowl(lipschitz.worst_noise(bowl, reach, (1, 3), key, steps)) for key in jax.random.split(KEY, 40)])
        for steps in (0, 1, 10)
    ]
    assert found[0] < found[1] <= found[2] * 1.001


def test_smooth_critics_are_the_same_without_weight_and_smoother_with():
    plain, none, some = made("sac"), made("sac+lipschitz", lipschitz={"weight": 0.0}), made("sac+lipschitz")
    same = [stepped(recipe)[1]["critic"] for recipe in (plain, none)]
    assert all((a == b).all() for a, b in zip(*map(jax.tree.leaves, same)))
    assert stepped(some)[2]["moved"].mean() > 0
    capped = made("sac+lipschitz", lipschitz={"noise": 0.0, "cap": 0.5})
    assert list(capped.agent.rules)[:2] == ["critic", "spectra"]
    after = stepped(capped, "spectra")[1]["critic"]
    singular = [
        np.linalg.svd(np.asarray(after[f"Dense_{i}"]["kernel"]), compute_uv=False).max(axis=1) for i in range(3)
    ]
    assert max(singular[0].max(), singular[1].max()) < 0.51 and singular[2].max() > 0.51  # the last is free
    with pytest.raises(BadInput, match="cap bounds critics of dense layers"):
        made("drqv2+lipschitz", lipschitz={"cap": 1.0}, ratio=1)


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "own", "sentence"),
    [
        ("mbpo", {"mbpo": {"horizon": (0, 1)}}, "horizon is "),
        ("mbpo", {"mbpo": {"horizon": (3, 2)}}, "does not shrink"),
        ("mbpo", {"mbpo": {"real": 1.0}}, "leaves the model nothing"),
        ("mbpo", {"mbpo": {"model": {"elites": 9}}}, "elites is 9"),
        ("synther", {"synther": {"share": 1.0}}, "share is 1.0"),
        ("synther", {"synther": {"model": {"updates": 0}}}, "updates is 0"),
        ("coplanner", {"coplanner": {"candidates": 0}}, "candidates is 0"),
    ],
)
def test_numbers_that_cannot_be_are_named(name, own, sentence):
    with pytest.raises(BadInput, match=sentence):
        made(name, **own)


def test_a_model_needs_to_be_shown_everything():
    specs = ENV.specs
    recipe = replace(sac.recipe(specs, sac.Config()), source=latest())
    with pytest.raises(BadInput, match="mbpo learns from all that was experienced"):
        mbpo.add(recipe, specs, mbpo.Config(), sac.Config())
    assert dataset({"x": jnp.zeros(3)}, 2).everything is None
    assert td3.recipe(specs, td3.Config()).source.everything is not None

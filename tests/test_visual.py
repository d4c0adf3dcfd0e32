"""What is put on top of agents that see, and of others: dormancy and what follows from it, the archive, TACO, the
adaptive ratio, and sums of them. Terms by hand, and what must not change."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs.core import scale_action
from envs.registry import make
from envs.render import pixels
from jaxrl.agents import adaptive_rr, addends, drm, drqv2, mentor, taco
from jaxrl.agents.combined import configured, find
from jaxrl.core import BadInput, Ctx, also, describe, minimise
from jaxrl.equations.contrastive import info_nce
from jaxrl.equations.values import expectile_loss
from jaxrl.loop import loop
from jaxrl.rules.archive import archive, keep_best, like_them
from jaxrl.rules.resets import dense, forgetting, mixed, passing
from jaxrl.sources import shifted, uniform
from jaxrl.statistics.plasticity import active_fraction, dormant_share

KEY = jax.random.key(9)
ENV = scale_action(make("pendulum"))
ENV_DRAWN = scale_action(make("cartpole-swingup", 8))
SMALL = {
    "features": 8,
    "widths": (16, 16),
    "n": 1,
    "batch": 16,
    "capacity": 400,
    "warmup": 32,
    "noise_frames": 400,
    "unroll": 2,
}
WHOLE = "drm+taco+moe+adaptive_rr"
FURTHER = {
    "drm": {"period": 60},
    "taco": {"hidden": 16},
    "moe": {"experts": 4, "k": 2, "gate": 8},
    "adaptive_rr": {"period": 50, "window": 20, "gap": 1.0},
}


def recipe(name, **settings):
    """A recipe on the pendulum's states."""
    module = find(name)
    own = {one: FURTHER[one] for one in addends(name)[1] if one in FURTHER}
    return module.recipe(ENV.specs, configured(module.Config, {**SMALL, **own, **settings}))


def at(step, update=0, turn=0):
    return Ctx(KEY, jnp.int32(step), jnp.int32(update), None, jnp.int32(turn))


@pytest.fixture(scope="module")
def batch():
    """16 transitions of the pendulum's shapes."""
    keys = jax.random.split(KEY, 4)
    obs, following = jax.random.normal(keys[0], (2, 16, 3))
    action, reward = jax.random.uniform(keys[1], (16, 1), minval=-1), jax.random.normal(keys[2], (16,))
    steps = {"action": jax.random.uniform(keys[3], (16, 3, 1), minval=-1), "obs": following, "weight": jnp.ones(16)}
    return {
        "obs": obs,
        "next_obs": following,
        "action": action,
        "reward": reward,
        "discount": jnp.ones(16),
        "ahead": steps,
    }


# ------------------------------------------------------------------------------------------------------- dormancy


def test_dormant_neurons_are_told_by_their_layer():
    loud = jnp.ones((4, 10)).at[:, :2].set(0.0)
    assert_allclose(dormant_share([loud]), 0.2)
    assert dormant_share([jnp.zeros((4, 10))]) == 0  # nothing is below nothing
    assert_allclose(dormant_share([7 * loud]), 0.2)
    assert_allclose(dormant_share([loud, jnp.ones((4, 30))]), 2 / 40)
    quiet = 1e-3 * jnp.ones((4, 10))
    assert dormant_share([jnp.stack([loud, quiet])]) == 2 / 20  # experts are layers of their own
    assert dormant_share([jnp.full((4, 10), -3.0)]) == 0  # silenced by a ReLU, but not dormant


def test_what_the_share_decides():
    usual, mentors = drm.Config(), mentor.Config()
    assert_allclose([drm.spread(jnp.float32(s), usual) for s in (1, 0.2, 0)], [0.99966, 0.5, 0.1192], rtol=1e-3)
    assert_allclose([drm.spread(jnp.float32(s), mentors) for s in (1, 0)], [0.7997, 0.0954], rtol=1e-3)
    assert_allclose([drm.trust(jnp.float32(s), usual) for s in (0.2, 0, 0.4)], [0.3, 0.59997, 2.7e-5], rtol=1e-2)
    assert_allclose([drm.kept(jnp.float32(s), usual) for s in (0, 0.25, 0.4, 1)], [1, 0.5, 0.2, 0.2], rtol=1e-6)


def test_expectiles():
    errors = jnp.array([-2.0, 3.0])
    assert_allclose(expectile_loss(errors, 0.5), 0.5 * errors**2)
    guesses = jnp.linspace(0, 1, 101)
    loss = lambda guess: expectile_loss(jnp.array([0.0, 1.0]) - guess, 0.9).mean()
    assert_allclose(guesses[jax.vmap(loss)(guesses).argmin()], 0.9)


def test_a_perturbation_leaves_normalisers_alone_and_forgets_moments():
    tree = {"a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)}}
    zero = jax.tree.map(jnp.zeros_like, tree)
    found = dense(lambda a, b: mixed(a, b, 0.25), tree, zero)
    assert_allclose(found["a"]["kernel"], np.full((2, 2), 0.25))
    assert_allclose(found["a"]["bias"], np.full(2, 0.25))
    assert_array_equal(found["norm"]["scale"], tree["norm"]["scale"])
    assert_array_equal(found["norm"]["bias"], tree["norm"]["bias"])
    same = dense(lambda a, b: mixed(a, b, jnp.float32(1)), tree, jax.tree.map(lambda x: x + 5, tree))
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(tree)))

    rule = minimise(lambda live, *_: (live["w"] ** 2, {}), optax.adam(0.1), "w")
    due = passing(100, 10)
    assert [bool(due(at(*now))) for now in ((0,), (100,), (109,), (110,), (105, 9, 1))] == [
        False,
        True,
        True,
        False,
        False,
    ]
    forgets = forgetting(rule, due)
    parts = {"w": jnp.float32(3)}
    _, state, _ = forgets.update(parts, rule.init(parts), {}, at(10))
    count = lambda state: [int(x) for x in jax.tree.leaves(state) if x.dtype == jnp.int32]
    assert count(forgets.update(parts, state, {}, at(20))[1]) == [2]
    assert count(forgets.update(parts, state, {}, at(100))[1]) == [1]  # begun anew, and one step made


def test_without_its_three_uses_drm_is_the_agent_beneath(batch):
    base = recipe("drqv2").agent
    agent = recipe("drm", drm={"period": 0, "explore": False, "exploit": 0.0}).agent
    parts = agent.init(KEY)
    assert set(agent.rules) == {"noise", "dormancy", "value", "critic", "actor", "target"}
    both = [a.rules["critic"] for a in (base, agent)]
    one, two = jax.jit(lambda: [rule.update(parts, rule.init(parts), batch, at(64))[0] for rule in both])()
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two)):
        assert_array_equal(a, b)


def test_drm_measures_explores_and_exploits(batch):
    agent = recipe("drm", drm={"exploit": 0.6}).agent
    parts = agent.init(KEY)
    rule = agent.rules["dormancy"]
    parts = jax.jit(rule.update)(parts, rule.init(parts), batch, at(64))[0]
    layers = agent.views["actor"](parts, batch["obs"])["layers"]
    assert [layer.shape[-1] for layer in layers] == [8, 16, 16, 1]  # the neck, two hidden layers, the output
    share = parts["dormant"]["share"]
    assert_allclose(share, dormant_share(layers))
    assert share < 0.2 and parts["dormant"]["woke"] == 64
    # It woke now: its noise is what the schedule begins with.
    assert_allclose(parts["std"], 1.0)
    later = jax.jit(rule.update)(parts, rule.init(parts), batch, at(264))[0]
    assert_allclose(later["std"], 1 - 0.9 * 200 / 400, rtol=1e-5)
    # What a target is made of: r + gamma (trust V + (1 - trust) min Q).
    target = lambda value: agent.rules["critic"].update(value, agent.rules["critic"].init(value), batch, at(64))[2]
    shifted = {**parts, "value": jax.tree.map(jnp.copy, parts["value"])}
    last = max(shifted["value"]["MLP_0"])
    shifted["value"]["MLP_0"][last]["bias"] += 1.0
    both = jax.jit(lambda: [target(p)["target"] for p in (parts, shifted)])()
    assert_allclose(both[1] - both[0], np.full(16, 0.99 * drm.trust(share, drm.Config())), rtol=1e-4)


# ------------------------------------------------------------------------------------------------------ the archive


def test_the_best_are_kept_and_drawn_from():
    parts = {"w": jnp.zeros(3), "kept": archive({"w": jnp.zeros(3)}, ("w",), 10)}
    rule = keep_best("kept", ("w",))

    def episode(parts, value):
        ended = {"end": jnp.array([[True, False]]), "info": {"episode": {"return": jnp.stack([value, 99.0])[None]}}}
        now = {**parts, "w": jnp.full(3, value)}
        return rule.update(now, (), ended, at(0))[0], None

    parts, _ = jax.lax.scan(episode, parts, jnp.arange(1.0, 21))
    assert sorted(parts["kept"].returns.tolist()) == list(range(11, 21))
    assert_array_equal(parts["kept"].members["w"][:, 0], parts["kept"].returns)
    drawn = jax.vmap(lambda key: like_them(parts["kept"], {"w": jnp.zeros(3)}, key)["w"])(jax.random.split(KEY, 4000))
    assert_allclose(drawn.mean(axis=0), np.full(3, 15.5), atol=0.2)
    assert_allclose(drawn.std(axis=0), np.full(3, np.std(np.arange(11, 21), ddof=1)), rtol=0.05)
    alike = parts["kept"]._replace(members={"w": jnp.ones((10, 3))})
    assert_allclose(like_them(alike, {"w": jnp.zeros(3)}, KEY)["w"], np.ones(3), atol=1e-6)
    one = parts["kept"]._replace(returns=jnp.full(10, -jnp.inf).at[4].set(1.0))
    assert_array_equal(like_them(one, {"w": jnp.full(3, 7.0)}, KEY)["w"], np.full(3, 7.0))


def test_mentor_draws_to_the_best():
    """An archive of two that are alike, ten away from all weights: half way there, and normalisers as they were."""
    own = {"period": 60, "keep": (0.5, 0.5), "moe": {"experts": 2, "k": 1, "gate": 0}}
    agent = recipe("mentor", mentor=own).agent
    filled = lambda shapes: jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)
    parts = filled(agent.shapes)
    best = jax.tree.map(lambda x: 10 + x, parts["archive"].members)
    parts["archive"] = parts["archive"]._replace(returns=jnp.array([5.0, 6.0] + [-jnp.inf] * 8), members=best)
    rule = agent.rules["perturb"]
    after, _, metrics = jax.jit(rule.update)(parts, rule.init(parts), {}, at(60))
    for name in drm.PERTURBED:
        for path, leaf in jax.tree_util.tree_leaves_with_path(after[name]):
            layer, kind = jax.tree_util.keystr(path[:-1]), jax.tree_util.keystr(path[-1:])
            normaliser = "LayerNorm" in layer
            assert_allclose(
                leaf, np.full(leaf.shape, 1.0 if normaliser else 6.0), rtol=1e-5, err_msg=f"{name} {layer} {kind}"
            )
    assert metrics["kept"] == 0.5


# ------------------------------------------------------------------------------------------------------------ TACO


def test_telling_targets_apart():
    assert_allclose(info_nce(jnp.full((5, 5), 2.0)), np.full(5, np.log(5)), rtol=1e-6)
    assert_allclose(info_nce(10 * jnp.eye(8)), np.full(8, np.log(1 + 7 * np.exp(-10))), rtol=1e-3)
    logits = jax.random.normal(KEY, (6, 6))
    order = jnp.array([3, 1, 5, 0, 2, 4])
    assert_allclose(info_nce(logits[order][:, order]), info_nce(logits)[order], rtol=1e-5)
    assert_allclose(info_nce(logits - logits.max(axis=1, keepdims=True)), info_nce(logits), rtol=1e-4)


def test_the_length_of_an_actions_code():
    assert [taco.code_length(n) for n in (1, 6, 12)] == [2, 8, 16]


def test_taco_tells_by_what_comes_without_learning_from_it(batch):
    """An encoder of one matrix: no gradient by way of what is to be told; rows cut off by an episode's end count 0."""
    encode = lambda parts, obs: obs @ parts["encoder"]
    seen = jax.ShapeDtypeStruct((4,), jnp.float32)
    made = taco.heads(taco.Config(hidden=8, curl=0.0, reward=0.0), 8, 1, encode, seen)
    parts = {"encoder": jax.random.normal(KEY, (3, 4)), "code": taco.action_code(1).init(KEY), "taco": made.init(KEY)}
    loss = jax.jit(jax.value_and_grad(lambda live, b: made.objective(live, {}, b, KEY)[0]))
    _, usual = loss(parts, batch)
    blind = {**batch, "obs": jnp.zeros((16, 3))}
    assert np.abs(usual["encoder"]).max() > 0 and np.abs(usual["code"]["Dense_0"]["kernel"]).max() > 0
    assert not np.any(loss(parts, blind)[1]["encoder"])
    cut = lambda n: {**batch, "ahead": {**batch["ahead"], "weight": jnp.arange(16) < n}}
    assert loss(parts, cut(0))[0] == 0
    assert_allclose(loss(parts, cut(16))[0], loss(parts, batch)[0])
    assert np.asarray(parts["taco"]["bilinear"]).min() >= 0


def test_an_offline_learner_takes_the_same_loss(batch):
    """Behaviour cloning through an encoder, with TACO's loss in its one backward pass."""
    encode = lambda parts, obs: jnp.tanh(obs @ parts["encoder"])
    made = taco.heads(taco.Config(hidden=8), 8, 1, encode, jax.ShapeDtypeStruct((4,), jnp.float32))

    def clone(live, frozen, batch, key):
        return ((encode(live, batch["obs"]) @ live["actor"] - batch["action"]) ** 2).mean(), {}

    alone = minimise(clone, optax.sgd(0.1), ("encoder", "actor"))
    both = also(alone, made.objective, wrt=("code", "taco"))
    parts = {
        "encoder": jnp.ones((3, 4)),
        "actor": jnp.ones((4, 1)),
        "code": taco.action_code(1).init(KEY),
        "taco": made.init(KEY),
    }
    with_taco, without = jax.jit(lambda p: [rule.update(p, rule.init(p), batch, at(0)) for rule in (both, alone)])(
        parts
    )
    assert_allclose(with_taco[0]["actor"], without[0]["actor"], rtol=1e-5)
    assert np.abs(with_taco[0]["encoder"] - without[0]["encoder"]).max() > 1e-4
    assert np.abs(with_taco[0]["taco"]["bilinear"] - parts["taco"]["bilinear"]).max() > 0
    assert {"temporal", "curl", "return"} <= set(with_taco[2])


def test_windows_ahead_stay_within_an_episode():
    """Episodes of 5 steps, numbered observations: three steps on, or a weight of 0."""
    source = uniform(64, 64, n=2, gamma=0.5, ahead=3)
    field = lambda dtype=jnp.float32: jax.ShapeDtypeStruct((1, 1), dtype)
    example = {n: field() for n in ("obs", "next_obs", "action", "reward", "discount")} | {"end": field(jnp.bool_)}

    def add(state, step):
        number = jnp.float32(step)[None, None]
        seen = {"obs": number, "next_obs": number + 1, "action": 10 * number, "reward": number}
        return source.add(state, {**seen, "discount": jnp.ones((1, 1)), "end": (number + 1) % 5 == 0}, at(0)), None

    batch = jax.jit(lambda: source.sample(jax.lax.scan(add, source.init(example), jnp.arange(23))[0], {}, KEY))()
    ahead, start = batch["ahead"], np.asarray(batch["obs"])
    whole = np.where(start < 20, start % 5 <= 2, start <= 20)  # of the last episode three steps are there
    assert_array_equal(ahead["weight"], whole)
    assert whole.any() and not whole.all()
    assert_array_equal(ahead["obs"][whole], start[whole] + 3)
    assert_array_equal(ahead["action"][whole], 10 * (start[whole, None] + np.arange(3)))


def test_a_shift_gives_a_second_view_of_what_is_seen():
    source = shifted(uniform(16, 8, frames=1, ahead=2), 2)
    image = np.arange(16 * 36, dtype=np.uint8).reshape(16, 1, 1, 6, 6, 1)
    field = lambda shape=(), dtype=jnp.float32: jnp.zeros((1, 1, *shape), dtype)
    steps = {"action": field((2,)), "reward": field(), "discount": field(), "end": field((), jnp.bool_)}
    step = lambda t: {**steps, "obs": image[t], "next_obs": image[t + 1]}

    def sample():
        state = source.init(step(0))
        for t in range(8):
            state = source.add(state, step(t), at(0))
        return source.sample(state, {}, KEY)

    batch = jax.jit(sample)()
    assert batch["ahead"]["again"].shape == batch["obs"].shape == batch["ahead"]["obs"].shape == (8, 6, 6, 1)
    assert np.any(batch["ahead"]["again"] != batch["obs"])
    # Both are of one picture: the middle pixels of each are among those around the other's middle.
    for one, other in zip(np.asarray(batch["obs"]), np.asarray(batch["ahead"]["again"])):
        assert one[2, 2, 0] in other or one[3, 3, 0] in other


# --------------------------------------------------------------------------------------------------- adaptive ratio


def test_active_fraction():
    x = jax.random.normal(KEY, (4000, 8))
    assert_allclose(active_fraction([x]), 0.5, atol=0.01)
    assert active_fraction([-jnp.abs(x)]) == 0
    assert active_fraction([jnp.ones((5, 3)), -jnp.ones((5, 1))]) == 0.75


def test_the_ratio_rises_once_activity_stands_still():
    made = recipe("drqv2+adaptive_rr", adaptive_rr={"period": 100, "window": 10, "gap": 0.001, "factor": 4})
    rule = made.agent.observe["ratio"]
    parts = made.agent.init(KEY)
    risen, ratios = [], []
    parts["activity"]["last"] = jnp.float32(0.30)
    for i, value in enumerate((0.40, 0.45, 0.452, 0.4525, 0.9)):
        before = {"sum": jnp.float32(50.0), "count": jnp.float32(50.0)}  # of all but the window: no part of it
        parts = {**parts, "activity": {**parts["activity"], **before}}
        parts, _, _ = rule.update(parts, (), {}, at(100 * (i + 1) - 10))
        assert parts["activity"]["count"] == 0
        window = {"sum": jnp.float32(5 * value), "count": jnp.float32(5)}
        parts, _, _ = rule.update({**parts, "activity": {**parts["activity"], **window}}, (), {}, at(100 * (i + 1)))
        risen.append(float(parts["activity"]["risen"]))
        ratios.append(int(made.ratio(parts, at(0))))
        assert_allclose(parts["activity"]["last"], value, rtol=1e-6)
    assert risen == [0, 0, 0, 1, 1] and ratios == [1, 1, 1, 4, 4] and made.most == 4


def test_a_ratio_that_never_rises_changes_nothing(batch):
    """The same rules at the same places, and so with the same keys; the one that is watched learns the same."""
    base = recipe("drqv2")
    made = recipe("drqv2+adaptive_rr", adaptive_rr={"gap": None})
    assert list(made.agent.rules) == list(base.agent.rules)
    parts = made.agent.init(KEY)
    both = [r.agent.rules["critic"] for r in (base, made)]
    one, two = jax.jit(lambda: [rule.update(parts, rule.init(parts), batch, at(64)) for rule in both])()
    for name in base.agent.shapes:
        for a, b in zip(jax.tree.leaves(one[0][name]), jax.tree.leaves(two[0][name])):
            assert_array_equal(a, b)
    assert 0 < two[2]["active"] < 1 and two[0]["activity"]["last"] == two[2]["active"]
    still = {**parts, "activity": {name: jnp.float32(1) for name in parts["activity"]} | {"risen": jnp.float32(0)}}
    after, _, _ = made.agent.observe["ratio"].update(still, (), {}, at(50_000))
    assert after["activity"]["count"] == 0 and int(made.ratio(after, at(0))) == base.ratio


# ------------------------------------------------------------------------------------------------------------ sums


def test_any_sum_builds_describes_itself_and_trains():
    made = recipe(WHOLE)
    told = describe(made.agent)
    assert all(part in told for part in ("dormant", "value", "taco", "activity", "code"))
    one = loop(ENV, made)
    run, metrics = jax.jit(lambda key: one.chunk(one.init(key), 60))(KEY)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(run.parts))
    assert metrics["ratio/risen"] > 0 and metrics["perturb/kept"] > 0 and metrics["actor/moe_0_dropped"] == 0


def test_sums_see_pictures_too():
    """Traced, not compiled: every shape of a tick from pictures of 12 pixels."""
    seen = pixels(ENV_DRAWN, 12)
    sight = {"channels": (4,), "strides": (2,), "sizes": (3,), "pad": 1}
    module = find("mentor+taco+adaptive_rr")
    own = {one: FURTHER[one] for one in ("taco", "adaptive_rr")}
    made = module.recipe(seen.specs, configured(module.Config, {**SMALL, **sight, **own}))
    one = loop(seen, made)
    run = jax.eval_shape(lambda key: one.chunk(one.init(key), 1)[0], KEY)
    assert run.source.nodes["obs"].shape[2:] == (12, 12, 3)


@pytest.mark.parametrize("name", ["sac+moe+adaptive_rr", "redq+adaptive_rr"])
def test_sums_of_sac_are_traced(name):
    module = find(name)
    own = {one: FURTHER[one] for one in addends(name)[1]}
    made = module.recipe(ENV.specs, configured(module.Config, {"widths": (8, 8), "batch": 8, "capacity": 400, **own}))
    one = loop(ENV, made)
    shapes = jax.eval_shape(lambda key: one.chunk(one.init(key), 1), KEY)
    assert "critic/active" in shapes[1] and made.most == 4 * module.Config().ratio


@pytest.mark.parametrize("name", ["impala", "convit", "t2t"])
def test_encoders_go_by_name(name):
    specs = replace(ENV.specs, observation=jax.ShapeDtypeStruct((48, 48, 9), jnp.uint8))
    agent = drqv2.build(specs, drqv2.Config(encoder=name, widths=(8,)))
    many = jax.ShapeDtypeStruct((5, 48, 48, 9), jnp.uint8)
    features = jax.eval_shape(agent.views["encode"], agent.shapes, many)
    assert features.shape[0] == 5 and len(features.shape) == 2 and features.dtype == jnp.float32


def test_a_hundred_thousand_pictures_take_what_is_said():
    """84 x 84 pixels in 2.2 GB, of which nothing is allocated here."""
    source = uniform(100_000, 256, n=3, frames=3, budget=10**10)
    field = lambda shape=(), dtype=jnp.float32: jax.ShapeDtypeStruct((2, 1, *shape), dtype)
    pictures = {name: field((84, 84, 9), jnp.uint8) for name in ("obs", "next_obs")}
    steps = {"action": field((6,)), "reward": field(), "discount": field(), "end": field((), jnp.bool_)}
    held = jax.eval_shape(lambda: source.init({**pictures, **steps}))
    assert 2.1e9 < sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(held)) < 2.2e9


def test_a_sum_has_one_configuration():
    kind = find("taco+drm").Config
    assert kind().batch == 1024 and find("drm").Config().batch == 256
    config = configured(kind, {"lr": 1e-3, "drm": {"period": 7}})
    assert config.lr == 1e-3 and config.drm == drm.Config(period=7) and config.taco == taco.Config()
    with pytest.raises(BadInput, match="gamma is 2"):
        configured(kind, {"gamma": 2})
    with pytest.raises(BadInput, match="steps is 0"):
        configured(kind, {"taco": {"steps": 0}})


@pytest.mark.parametrize("name,sentence", [
    ("drqv2+drm+drm", "has 'drm' twice"),
    ("drm+drm", "has 'drm' twice"),
    ("moe", r"'moe' is an addition.*try drqv2\+moe"),
    ("drqv2+mo", "unknown addition 'mo'.*Did you mean 'moe'"),
    ("drqv3", "unknown agent 'drqv3'.*Did you mean 'drqv2'"),
    ("drqv2+drm+jaxrl.agents.drm", "has 'drm' twice"),
    ("drqv2+no.such", "addition 'no.such': there is no module 'no' here"),
    ("droq+moe", r"'moe' changes an agent's policy, which this one fixes: try drqv2\+moe"),
    ("ppo+taco", r"'taco' changes an agent's code, which this one fixes"),
    ("crossq+adaptive_rr", r"adaptive_rr looks at an agent's encode, which this one does not show"),
    ("sac+drm", "drm looks at an agent's noise"),
    ("drm+mentor", "the agent has a part 'value' already"),
    ("mentor+moe", "both change the agent's policy"),
])  # fmt: skip
def test_sums_that_do_not_go_together_are_refused(name, sentence):
    with pytest.raises(BadInput, match=sentence):
        module = find(name)
        module.recipe(ENV.specs, configured(module.Config, {"widths": (8, 8)}))


def test_bad_numbers_are_named():
    for kind, field, value in (
        (drm.Config, "awake", 1.5),
        (taco.Config, "hidden", 0),
        (mentor.Config, "size", 1),
        (adaptive_rr.Config, "factor", 0),
    ):
        with pytest.raises(BadInput, match=f"^{field} is {value}"):
            kind(**{field: value})
    with pytest.raises(BadInput, match="window is 60 frames, longer"):
        adaptive_rr.Config(period=50, window=60)
    with pytest.raises(BadInput, match="k is 5, more than the 4 experts"):
        find("drqv2+moe").Config().moe.__class__(experts=4, k=5)
    with pytest.raises(BadInput, match="ahead is 3 with sequences"):
        uniform(10, 2, sequence=2, ahead=3)
    with pytest.raises(BadInput, match=r"keep is \(3.0, -1.0\)"):
        drm.Config(keep=(3.0, -1.0))
    with pytest.raises(BadInput, match=r"keep is \(0.9, 0.2\); it is the least and the most"):
        drm.Config(keep=(0.9, 0.2))
    with pytest.raises(BadInput, match="window is 5 frames, shorter than a tick of 8"):
        recipe("drqv2+adaptive_rr", unroll=8, adaptive_rr={"window": 5})
    with pytest.raises(BadInput, match=r"widths is \(16,\): experts replace hidden layers"):
        recipe("drqv2+moe", widths=(16,))

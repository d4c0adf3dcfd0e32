"""DrM: what the share of dormant neurons decides, term by term, and when networks are drawn to fresh ones."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.agents import drm
from jaxrl.core import BadInput, Ctx, stateless
from jaxrl.nets import TrunkMLP, net, orthogonal
from tests.pinned import KEY, LENGTH, SPECS, bounded, defaults, disturbed, mean, moment, near, same, transitions
from tests.small import config, small

BATCH = jax.tree.map(jnp.asarray, transitions(1))
VALUE = net(TrunkMLP((8, 8), 1, 8, orthogonal()), jax.ShapeDtypeStruct((LENGTH,), jnp.float32))
GAMMA, LR = 0.9, 0.01


def made(**own):
    return small("drqv2+drm", gamma=GAMMA, lr=LR, drm=own)


@pytest.fixture(scope="module")
def recipe():
    return made(period=24, silent=0.7)


@pytest.fixture(scope="module")
def parts(recipe):
    return disturbed(jax.jit(recipe.agent.init)(KEY), "actor", "critic", "target", "value")


def v(parameters, obs):
    return VALUE.apply(parameters, obs)[:, 0]


def at(step, turn=0):
    return Ctx(KEY, jnp.int32(step), jnp.int32(0), turn=jnp.int32(turn))


# --------------------------------------------------------------------------------------------------------- the share


def test_what_a_share_decides():
    """The card's table: of weights, of noise and of trust."""
    how = drm.Config()
    for share, keep, std, trust in (
        (0.0, 1.0, 0.119203, 0.6 * (1 - 4.5398e-5)),
        (0.1, 0.8, 1 / (1 + np.exp(1)), 0.6 / (1 + np.exp(-5))),
        (0.2, 0.6, 0.5, 0.3),
        (0.25, 0.5, 1 / (1 + np.exp(-0.5)), 0.6 / (1 + np.exp(2.5))),
        (0.4, 0.2, 1 / (1 + np.exp(-2)), 0.6 * 4.5398e-5),
        (1.0, 0.2, 0.999665, 0.0),
    ):
        found = [fn(jnp.float32(share), how) for fn in (drm.kept, drm.spread, drm.trust)]
        assert_allclose(found, [keep, std, trust], rtol=1e-4, atol=1e-7)
    other = drm.Config(keep=(0.3, 0.7), noise=0.8, exploit=0.4, awake=0.5)
    assert_allclose([drm.kept(jnp.float32(x), other) for x in (0.0, 0.3, 1.0)], [0.7, 0.4, 0.3], rtol=1e-6)
    assert_allclose([drm.spread(jnp.float32(0.5), other), drm.trust(jnp.float32(0.5), other)], [0.4, 0.2], rtol=1e-6)


def share_of(agent, parts, silent):
    """Neurons whose mean |output before the activation| is below `silent` of their layer's mean, of all neurons."""
    layers = agent.views["actor"](parts, BATCH["obs"])["layers"]
    score = [np.abs(np.asarray(layer)).mean(axis=0) for layer in layers]
    dormant = [s < silent * s.mean() for s in score]
    assert [len(s) for s in score] == [8, 8, 8, 2]
    return np.concatenate(dormant).mean()


def test_the_share_is_measured_and_decides_the_noise(recipe, parts):
    """Awake, the noise is no less than the agent's own schedule begun when it woke; until then it follows the share."""
    agent = recipe.agent
    rule = agent.rules["dormancy"]
    measure = jax.jit(lambda parts, ctx: rule.update(parts, (), BATCH, ctx)[0::2])
    share = share_of(agent, parts, 0.7)
    assert 0.05 < share < 0.6
    schedule = lambda frames: 1 - 0.9 * min(frames / 100, 1)  # from 1 to 0.1 over 100 frames
    noise = 1 / (1 + np.exp(-10 * (share - 0.2)))
    awakes = {True: 0.9, False: 0.01}
    for awake, level in awakes.items():
        own = made(period=24, silent=0.7, awake=level)
        one = own.agent.rules["dormancy"]
        after, metrics = jax.jit(lambda p, c, one=one: one.update(p, (), BATCH, c)[0::2])(parts, at(70))
        std = 1 / (1 + np.exp(-10 * (share - level)))
        near(after["dormant"], {"share": jnp.float32(share), "woke": jnp.int32(70 if awake else -1)})
        assert_allclose(after["std"], max(std, schedule(0)) if awake else std, rtol=1e-5)
        near(metrics, {"share": jnp.float32(share)})
        same({n: after[n] for n in after if n not in ("dormant", "std")},
             {n: parts[n] for n in parts if n not in ("dormant", "std")})  # fmt: skip
    for woke, now in ((30, 50), (30, 90), (30, 400), (0, 10)):
        woken = {**parts, "dormant": {"share": jnp.float32(0), "woke": jnp.int32(woke)}}
        after, _ = measure(woken, at(now))
        assert after["dormant"]["woke"] == woke  # once is for good
        assert_allclose(after["std"], max(noise, schedule(now - woke)), rtol=1e-5)
    assert rule.reads == ("dormant", "std", "encoder", "actor") and rule.writes == ("dormant", "std")


def test_noise_without_a_schedule_or_as_the_agents_own(parts):
    free = made(period=0, schedule=False, silent=0.7)
    woken = {**parts, "dormant": {"share": jnp.float32(0), "woke": jnp.int32(30)}}
    after = jax.jit(lambda p: free.agent.rules["dormancy"].update(p, (), BATCH, at(40))[0])(woken)
    assert_allclose(after["std"], 1 / (1 + np.exp(-10 * (share_of(free.agent, parts, 0.7) - 0.2))), rtol=1e-5)
    own = made(period=0, explore=False)
    assert "noise" in own.agent.rules and "noise" not in free.agent.rules
    assert own.agent.rules["dormancy"].writes == ("dormant",)
    assert list(own.agent.rules) == ["dormancy", "value", "noise", "critic", "actor", "target"]
    assert list(free.agent.rules) == ["dormancy", "value", "critic", "actor", "target"]


# --------------------------------------------------------------------------------------------------- value and target


def test_the_value_is_an_expectile_of_the_least_critic(recipe, parts):
    """|tau - 1(Q < V)| (min Q(s, a) - V(s))^2 with tau .9, by which V alone is moved."""
    rule = recipe.agent.rules["value"]
    q = recipe.agent.views["q"]

    def theirs(live):
        both = q(parts, BATCH["obs"], BATCH["action"])
        u = v(live["value"], BATCH["obs"]) - jnp.minimum(both[0], both[1])
        return mean(jnp.where(u <= 0, 0.9, 0.1) * u**2, BATCH)

    loss = rule.around[1].loss  # within what forgets
    ours = lambda live: loss(live, parts, BATCH, KEY)[0]
    found, wanted = (jax.jit(jax.value_and_grad(one))({"value": parts["value"]}) for one in (ours, theirs))
    near(found, wanted)
    assert rule.writes == ("value",) and rule.reads == ("value", "encoder", "code", "critic")
    after = jax.jit(lambda p: rule.update(p, rule.init(p), BATCH, at(1))[0])(parts)
    step = jax.tree.map(lambda x, g: x - LR * g / (jnp.abs(g) + 1e-8), parts["value"], wanted[1]["value"])
    near(after["value"], step)


def test_the_target_trusts_the_value_as_far_as_neurons_are_awake(parts):
    """r + gamma d [lambda V(s') + (1 - lambda) min Q'(s', a')]: the rest of the target is the agent's own."""
    plain, seen = small("drqv2", gamma=GAMMA), []
    watch = stateless(lambda parts, batch, ctx: (seen.append(batch), ({}, {}))[1], writes=())
    watched = replace(plain, agent=replace(plain.agent, rules={**plain.agent.rules, "critic": watch}))
    rule = drm.add(watched, SPECS, drm.Config(period=0), config("drqv2", gamma=GAMMA)).agent.rules["critic"]
    for share in (0.1, 0.21):
        given = {**parts, "dormant": {"share": jnp.float32(share), "woke": jnp.int32(-1)}}
        batch = jax.jit(lambda p: (rule.update(p, (), BATCH, at(0)), seen.pop())[1])(given)
        trust = 0.6 / (1 + np.exp(50 * (share - 0.2)))
        worth = v(parts["value"], BATCH["next_obs"])
        wanted = {
            **BATCH,
            "reward": BATCH["reward"] + GAMMA * BATCH["discount"] * trust * worth,
            "discount": (1 - trust) * BATCH["discount"],
        }
        near(batch, wanted)
    assert set(rule.reads) == {"value", "dormant", "encoder"}


# -------------------------------------------------------------------------------------------------------- perturbation


def test_networks_are_drawn_to_fresh_ones_and_optimisers_forget(recipe, parts):
    """theta <- k theta + (1 - k) theta_fresh in dense layers, at the first update of a tick past each 24 frames."""
    agent = recipe.agent
    assert list(agent.rules) == ["perturb", "dormancy", "value", "critic", "actor", "target"]
    rule = agent.rules["perturb"]
    given = {**parts, "dormant": {"share": jnp.float32(0.15), "woke": jnp.int32(-1)}}
    perturb = jax.jit(lambda step, turn: rule.update(given, (), BATCH, at(step, turn))[0::2])
    fresh = jax.jit(agent.init)(KEY)
    dense = lambda old, new: {
        name: jax.tree.map(lambda a, b: 0.7 * a + 0.3 * b, x, new[name]) if "kernel" in x
        else (x if "scale" in x else dense(x, new[name])) for name, x in old.items()
    }  # fmt: skip
    after, metrics = perturb(jnp.int32(24), jnp.int32(0))
    wanted = {name: dense(given[name], fresh[name]) for name in ("actor", "critic", "target", "value")}
    near(after, {**given, **wanted})
    near(metrics, {"kept": jnp.float32(0.7)})
    assert jax.tree.leaves(after["actor"])[0].shape == jax.tree.leaves(given["actor"])[0].shape
    one = recipe.num_envs * recipe.unroll
    assert one == 8
    for step, turn, due in (
        (0, 0, False),
        (23, 0, False),
        (24, 1, False),
        (31, 0, True),
        (32, 0, False),
        (48, 0, True),
    ):
        after, metrics = perturb(jnp.int32(step), jnp.int32(turn))
        assert (
            bool((after["actor"]["trunk"]["Dense_0"]["kernel"] != given["actor"]["trunk"]["Dense_0"]["kernel"]).any())
            == due
        )
        assert np.isnan(metrics["kept"]) != due
    assert all(rule.around is not None for rule in agent.rules.values())
    forget = agent.rules["value"]
    run = jax.jit(lambda p, s, c: forget.update(p, s, BATCH, c)[1])
    state = run(given, forget.init(given), at(1))
    begun, onward = run(given, state, at(24)), run(given, state, at(25, 1))
    near(moment(begun, "mu"), moment(state, "mu"))
    count = lambda state: max(int(x) for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.integer))
    assert (count(begun), count(onward)) == (1, 2)


def test_without_a_period_nothing_is_perturbed():
    agent = made(period=0).agent
    assert "perturb" not in agent.rules
    assert agent.rules["value"].around is None


def test_parts_at_the_start(recipe):
    parts = jax.jit(recipe.agent.init)(KEY)
    assert parts["dormant"] == {"share": 1, "woke": -1}
    assert jax.tree.map(jnp.shape, parts["value"]) == jax.tree.map(jnp.shape, jax.eval_shape(VALUE.init, KEY))
    same({n: parts[n] for n in parts if n not in ("dormant", "value")}, jax.jit(small("drqv2").agent.init)(KEY))


def test_configuration():
    defaults(
        drm.Config(), silent=0.025, awake=0.2, period=200_000, keep=(0.2, 1.0), explore=True, schedule=True, noise=1.0,
        exploit=0.6, expectile=0.9,
    )  # fmt: skip
    bounded(
        drm.Config, {"silent": 0.0, "period": 0, "noise": 0.0},
        {"awake": (0.0, 1.0), "exploit": (0.0, 1.0), "expectile": (0.0, 1.0)},
    )  # fmt: skip
    for keep in ((0.5, 0.4), (-0.1, 1.0), (0.2, 1.1)):
        with pytest.raises(BadInput, match="keep is "):
            drm.Config(keep=keep)
    drm.Config(keep=(0.5, 0.5))
    assert drm.PERTURBED == ("actor", "critic", "target", "value")


def test_an_agent_whose_noise_is_no_part_is_refused():
    with pytest.raises(BadInput, match="drm looks at an agent's noise"):
        drm.add(small("sac"), SPECS, drm.Config(), config("drqv2"))

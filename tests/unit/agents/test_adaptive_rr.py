"""Adaptive replay ratio: what is counted of the critics' units, when it is looked at, and when the ratio rises."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.agents import adaptive_rr
from jaxrl.core import BadInput, Ctx
from tests.pinned import KEY, bounded, defaults, disturbed, near, same, transitions
from tests.small import CONTINUOUS, DISCRETE, config, small

BATCH = transitions(1)


def made(base="td3", **own):
    return small(f"{base}+adaptive_rr", adaptive_rr={"period": 100, "window": 20, "gap": 0.01, **own})


@pytest.fixture(scope="module")
def recipe():
    return made()


def activity(**known):
    start = {"sum": 0.0, "count": 0.0, "risen": 0.0, "last": -1.0}
    return {name: jnp.float32(value) for name, value in {**start, **known}.items()}


# Ticks of two frames: a check is due in the tick that passes 100, 200, ... and a window of 20 begins before it.
@pytest.fixture(scope="module")
def check(recipe):
    rule = recipe.agent.observe["ratio"]
    assert rule.reads == rule.writes == ("activity",)
    run = jax.jit(lambda seen, step: rule.update({"activity": seen}, (), {}, Ctx(KEY, step))[0::2])

    def after(step, **known):
        parts, metrics = run(activity(**known), jnp.int32(step))
        assert metrics["risen"] == parts["activity"]["risen"]
        return {name: float(x) for name, x in parts["activity"].items()}

    return after


def test_the_average_of_the_window_before_a_check_is_compared_with_the_last(check):
    held = {"sum": 2.0, "count": 4.0}  # an average of a half
    for step in (100, 101, 200, 1300):
        near_by = check(step, **held, last=0.509)
        assert near_by == {"sum": 0.0, "count": 0.0, "risen": 1.0, "last": 0.5}
        assert check(step, **held, last=0.491)["risen"] == 1  # near from either side
        for far in (0.511, 0.489):
            assert check(step, **held, last=far) == {"sum": 0.0, "count": 0.0, "risen": 0.0, "last": 0.5}


def test_a_gap_is_met_at_its_bound():
    seen = activity(sum=2.0, count=4.0, last=0.75)
    for gap, risen in ((0.25, 1), (0.2499, 0), (None, 0)):
        rule = made(gap=gap).agent.observe["ratio"]
        assert rule.update({"activity": seen}, (), {}, Ctx(KEY, jnp.int32(100)))[0]["activity"]["risen"] == risen
    still = activity(sum=2.0, count=4.0, last=0.5)
    for gap, risen in ((0.0, 1), (None, 0)):
        rule = made(gap=gap).agent.observe["ratio"]
        assert rule.update({"activity": still}, (), {}, Ctx(KEY, jnp.int32(100)))[0]["activity"]["risen"] == risen


def test_between_checks_nothing_is_decided(check):
    held = {"sum": 2.0, "count": 4.0, "last": 0.5}
    for step in (0, 1, 50, 79, 82, 99, 102, 150, 178):
        assert check(step, **held) == {**held, "risen": 0.0}
    for step in (80, 81, 180, 181):  # where a window begins, what was before counts no more
        assert check(step, **held) == {**held, "sum": 0.0, "count": 0.0, "risen": 0.0}
    assert check(0, sum=1.0, count=2.0, last=0.5)["risen"] == 0  # time 0 is no check


def test_without_updates_there_is_nothing_to_compare(check):
    assert check(100, last=0.0) == {"sum": 0.0, "count": 0.0, "risen": 0.0, "last": 0.0}


def test_what_has_risen_stays(check):
    assert check(100, sum=2.0, count=4.0, last=0.9, risen=1.0) == {"sum": 0.0, "count": 0.0, "risen": 1.0, "last": 0.5}
    assert check(150, risen=1.0)["risen"] == 1


def test_the_ratio_is_the_agents_own_until_it_has_risen():
    for base, factor, before in (("td3", 3, 2), ("sac", 4, 5)):
        one = small(f"{base}+adaptive_rr", ratio=before, adaptive_rr={"period": 100, "window": 20, "factor": factor})
        ratio = lambda one=one, **known: int(one.ratio({"activity": activity(**known)}, Ctx(KEY, jnp.int32(0))))
        assert (ratio(), ratio(risen=1.0), one.most) == (before, factor * before, factor * before)


def test_each_update_counts_units_above_zero_before_it(recipe):
    """The share of (unit, row) pairs of both critics' hidden layers; the first is what is compared with."""
    plain, rule = small("td3"), recipe.agent.rules["critic"]
    start = disturbed(jax.jit(recipe.agent.init)(KEY), "critic", "target")
    layers = plain.agent.views["critic"](start, BATCH["obs"], BATCH["action"])["layers"]
    assert len(layers) == 3
    hidden = [np.asarray(layer) for layer in layers[:2]]
    share = sum((layer > 0).sum() for layer in hidden) / sum(layer.size for layer in hidden)
    assert 0.2 < share < 0.8
    update = jax.jit(lambda p: rule.update(p, rule.init(p), BATCH, Ctx(KEY, jnp.int32(0)))[0::2])
    after, metrics = update(start)
    near(after["activity"], activity(sum=share, count=1.0, last=share))
    assert_allclose(metrics["active"], share, rtol=1e-6)
    later, _ = update({**start, "activity": activity(sum=0.6, count=2.0, last=0.4, risen=1.0)})
    near(later["activity"], activity(sum=0.6 + share, count=3.0, last=0.4, risen=1.0))
    assert_allclose(update({**start, "activity": activity(last=0.0)})[0]["activity"]["last"], 0)  # none is a share too
    beneath = plain.agent.rules["critic"]
    wanted = jax.jit(lambda p: beneath.update(p, beneath.init(p), BATCH, Ctx(KEY, jnp.int32(0)))[0])(start)
    same({n: after[n] for n in plain.agent.shapes}, {n: wanted[n] for n in plain.agent.shapes})
    assert rule.writes == ("critic", "activity")


def test_what_is_seen_may_be_encoded_by_parts_that_the_critics_do_not_learn():
    base, own = small("sac"), adaptive_rr.Config(period=100, window=20)
    encode = lambda parts, obs: obs * jnp.exp(parts["log_alpha"])
    views = {**base.agent.views, "encode": encode}
    rule = adaptive_rr.add(
        replace(base, agent=replace(base.agent, views=views)), CONTINUOUS, own, config("sac")
    ).agent.rules["critic"]
    parts = {
        **disturbed(jax.jit(base.agent.init)(KEY), "critic"),
        "activity": activity(),
        "log_alpha": jnp.float32(0.7),
    }
    layers = base.agent.views["critic"](parts, np.exp(0.7) * BATCH["obs"], BATCH["action"])["layers"][:2]
    share = sum(float((layer > 0).sum()) for layer in layers) / sum(layer.size for layer in layers)
    critic = {"critic": parts["critic"]}
    assert_allclose(jax.jit(lambda p: rule.loss(critic, p, BATCH, KEY)[1]["active"])(parts), share, rtol=1e-6)


def test_parts_at_the_start(recipe):
    same(jax.jit(recipe.agent.init)(KEY)["activity"], activity())
    assert list(recipe.agent.rules) == list(small("td3").agent.rules)
    assert list(recipe.agent.observe) == ["ratio"]


def test_configuration():
    defaults(adaptive_rr.Config(), factor=4, period=50_000, window=1_000, gap=0.001)
    bounded(adaptive_rr.Config, {"factor": 1, "gap": 0.0})
    for name in ("period", "window"):
        with pytest.raises(BadInput, match=f"^{name} is 0"):
            adaptive_rr.Config(**{name: 0})
    adaptive_rr.Config(period=1, window=1)
    with pytest.raises(BadInput, match="window is 3 frames, longer than the 2 between checks"):
        adaptive_rr.Config(period=2, window=3)
    adaptive_rr.Config(gap=None)


def test_what_it_cannot_go_on_is_refused(recipe):
    base, how = config("td3"), adaptive_rr.Config(period=4, window=1)
    with pytest.raises(BadInput, match="window is 1 frames, shorter than a tick of 2"):
        adaptive_rr.add(small("td3"), CONTINUOUS, how, base)
    adaptive_rr.add(small("td3"), CONTINUOUS, replace(how, window=2), base)
    with pytest.raises(BadInput, match="here that is a function already"):
        adaptive_rr.add(recipe, CONTINUOUS, how, base)
    with pytest.raises(BadInput, match="adaptive_rr looks at an agent's encode"):
        adaptive_rr.add(small("dqn"), DISCRETE, how, config("dqn"))

"""MEX: the bonus of either form, its weight against what an agent's critics descend, and nothing at weight 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.agents import mex
from jaxrl.core import BadInput, Ctx, fold
from tests.pinned import DIMS, KEY, B, bounded, defaults, disturbed, mean, near, same, transitions
from tests.small import DISCRETE, config, small

BATCH = transitions(3)
OPTIMISM = 1 << 30  # the stream of the first further loss, less one: `core.ADDED`
# The weight of a value where eta is 0.3: against squares it is eta, against half squares half of it.
BASES = {"td3": 0.3, "sac": 0.15}


def made(base, **own):
    return small(f"{base}+mex", mex={"eta": 0.3, **own})


def of_the_data(views, live, parts, batch, key):
    """The mean of Q1 + Q2 on what was done."""
    return views["q"]({**parts, **live}, batch["obs"], batch["action"])


def standing_out(views, live, parts, batch, key):
    """Q_i(s, pi(s)) - log sum exp over {Q_i(s, a), Q_i(s, pi(s')), Q_i(s, a_random)}, a_random ~ U(-1, 1)."""
    key_now, key_next, key_any = jax.random.split(key, 3)
    q = lambda action: views["q"]({**parts, **live}, batch["obs"], action)
    any_action = 2 * jax.random.uniform(key_any, (B, DIMS)) - 1
    others = [batch["action"], views["policy"](parts, batch["next_obs"], key_next), any_action]
    total = sum(jnp.exp(q(action)) for action in others)
    return q(views["policy"](parts, batch["obs"], key_now)) - jnp.log(total)


@pytest.mark.parametrize(("base", "form"), [("td3", of_the_data), ("sac", of_the_data), ("sac", standing_out)])
def test_the_critics_descend_their_own_loss_less_the_weighed_value(base, form):
    recipe, plain = made(base, standing_out=form is standing_out), small(base)
    parts = disturbed(jax.jit(recipe.agent.init)(KEY), "actor", "critic", "target")
    ours, beneath = (one.agent.rules["critic"].loss for one in (recipe, plain))

    def theirs(live, parts, batch, key):
        value, metrics = beneath(live, parts, batch, key)
        each = form(plain.agent.views, live, parts, batch, fold(key, OPTIMISM + 1))
        bonus = BASES[base] * mean(each[0] + each[1], batch)
        return value - bonus, {**metrics, "optimism": (each[0] + each[1]) / 2}

    live = {"critic": parts["critic"]}
    found, wanted = (
        jax.jit(jax.value_and_grad(loss, has_aux=True))(live, parts, BATCH, KEY) for loss in (ours, theirs)
    )
    near(found, wanted)


def test_the_critics_alone_are_moved():
    rule = made("td3", standing_out=True).agent.rules["critic"]
    assert rule.writes == ("critic",)
    assert set(rule.reads) == {"critic", "actor_target", "target", "actor"}
    assert set(made("td3").agent.rules["critic"].reads) == {"critic", "actor_target", "target"}


def test_weight_zero_is_the_agent_beneath_bit_for_bit():
    plain, none = small("sac"), made("sac", eta=0.0)
    parts = jax.jit(plain.agent.init)(KEY)
    same(jax.jit(none.agent.init)(KEY), parts)
    after = []
    for recipe in (plain, none):
        rule = recipe.agent.rules["critic"]
        update = lambda parts, rule=rule: rule.update(parts, rule.init(parts), BATCH, Ctx(KEY, jnp.int32(0)))[0]
        after.append(jax.jit(update)(parts))
    same(*after)
    assert list(plain.agent.rules) == list(none.agent.rules)


@pytest.mark.parametrize("cost", [lambda parts, error: error**2, lambda parts, error: 0.5 * error**2])
def test_a_fixed_target_is_met_half_of_eta_higher(cost):
    """d/dQ [(Q - y)^2 - eta Q] = 0 at y + eta / 2, whatever the critics' errors cost."""
    q = jnp.float32(0.0)
    slope = jax.jit(jax.grad(lambda q: cost({}, q - 2.0) - 0.4 * cost({}, 1.0) * q))
    for _ in range(60):
        q = q - 0.3 * slope(q)
    assert_allclose(q, 2.2, rtol=1e-5)


def test_what_an_error_costs_is_what_the_critics_descend():
    """SAC's half square is a view; TD3, whose square needs none, has none."""
    error = np.array([-1.0, 0.5, 2.0])
    assert_allclose(small("sac").agent.views["cost"]({}, error), error**2 / 2)
    assert "cost" not in small("td3").agent.views


def test_configuration():
    defaults(mex.Config(), eta=0.001, standing_out=False)
    bounded(mex.Config, {"eta": 0.0})


def test_what_it_cannot_go_on_is_refused():
    plain = small("dqn")
    with pytest.raises(BadInput, match="mex acts in continuous spaces"):
        mex.add(plain, DISCRETE, mex.Config(), config("dqn"))
    with pytest.raises(BadInput, match="mex looks at an agent's encode"):
        small("flash_sac+mex")

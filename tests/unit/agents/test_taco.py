"""TACO: its three terms and their gradients against the card's, which parts they reach, and what the agent is told."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.agents import taco
from jaxrl.core import BadInput, Ctx
from jaxrl.nets import MLP, Trunk, net, orthogonal
from tests.pinned import DIMS, KEY, LENGTH, SPECS, B, bounded, defaults, disturbed, mean, near, same, transitions
from tests.small import DISCRETE, small

FEATURES, HIDDEN, STEPS, U = 8, 8, 2, 3  # a code of int(1.25 * 2) + 1 numbers
WEIGHTS = {"temporal": 0.5, "curl": 2.0, "reward": 3.0}
LR = 0.02


def floats(n):
    return jax.ShapeDtypeStruct((n,), jnp.float32)


CODE = net(MLP((64,), U, jnp.tanh), floats(DIMS))
STATE, SEQUENCE = net(Trunk(FEATURES), floats(LENGTH)), net(Trunk(STEPS * U), floats(STEPS * U))
BOTH, REWARD = (
    net(MLP((HIDDEN,), n, kernel_init=orthogonal()), floats(FEATURES), floats(STEPS * U)) for n in (FEATURES, 1)
)


@pytest.fixture(scope="module")
def recipe():
    return small("drqv2+taco", lr=LR, features=FEATURES, taco={"steps": STEPS, "hidden": HIDDEN, **WEIGHTS})


@pytest.fixture(scope="module")
def parts(recipe):
    return disturbed(jax.jit(recipe.agent.init)(KEY), "taco", "code")


def windowed(again):
    """A batch with what follows each transition; a window is cut off, and a second view is there or not."""
    batch, rng = transitions(1), np.random.default_rng(8)
    ahead = {
        "action": rng.uniform(-1, 1, (B, STEPS, DIMS)).astype(np.float32),
        "obs": rng.normal(size=(B, LENGTH)).astype(np.float32),
        "weight": np.array([1, 1, 1, 0, 1, 1], np.float32),
    }
    if again:
        ahead["again"] = batch["obs"] + 0.1 * rng.normal(size=(B, LENGTH)).astype(np.float32)
    return jax.tree.map(jnp.asarray, {**batch, "ahead": ahead})


def nce(guess, w, target):
    """Cross-entropy of softmax over the batch of guess W target^T, whose label is the row's own."""
    logits = guess @ w @ target.T
    logits = logits - logits.max(axis=1, keepdims=True)
    share = jnp.exp(logits) / jnp.exp(logits).sum(axis=1, keepdims=True)
    return -jnp.log(jnp.stack([share[i, i] for i in range(len(logits))]))


def objective(live, parts, batch):
    """NCE([z_t, u_t .. u_t+K], sg z_t+K), NCE(z_t, sg z~_t) and the squared error of the return, weighed."""
    own, ahead = live["taco"], batch["ahead"]
    held = parts["taco"]["state"]  # no gradient by way of targets
    z = STATE.apply(own["state"], batch["obs"])
    code = [CODE.apply(live["code"], ahead["action"][:, k]) for k in range(STEPS)]
    plan = SEQUENCE.apply(own["sequence"], jnp.concatenate(code, axis=1))
    guess, told = BOTH.apply(own["both"], z, plan), REWARD.apply(own["reward"], z, plan)[:, 0]
    view = ahead.get("again", batch["obs"])
    terms = {
        "temporal": ahead["weight"] * nce(guess, own["bilinear"], STATE.apply(held, ahead["obs"])),
        "curl": nce(z, own["bilinear"], STATE.apply(held, view)),
        "return": ahead["weight"] * (told - batch["reward"]) ** 2,
    }
    total = 0.5 * terms["temporal"] + 2.0 * terms["curl"] + 3.0 * terms["return"]
    return mean(total, batch), terms


@pytest.mark.parametrize("again", [True, False])
def test_the_three_terms_are_the_papers(recipe, parts, again):
    rule, batch = recipe.agent.rules["taco"], windowed(again)
    live = {name: parts[name] for name in rule.wrt}
    ours = lambda live: rule.loss(live, parts, batch, KEY)
    theirs = lambda live: objective(live, parts, batch)
    found, wanted = (jax.jit(jax.value_and_grad(one, has_aux=True))(live) for one in (ours, theirs))
    near(found, wanted)
    for part in ("taco", "code"):
        assert all((np.asarray(g) != 0).any() for g in jax.tree.leaves(wanted[1][part]))


def test_encoder_codes_and_heads_alone_are_moved_by_it(recipe, parts):
    """By Adam at the agent's rate, after the agent's own rules."""
    agent, batch = recipe.agent, windowed(True)
    assert list(agent.rules) == [*small("drqv2").agent.rules, "taco"]
    rule = agent.rules["taco"]
    assert rule.reads == rule.writes == rule.wrt == ("encoder", "code", "taco")
    after = jax.jit(lambda p: rule.update(p, rule.init(p), batch, Ctx(KEY, jnp.int32(0)))[0])(parts)
    live = {name: parts[name] for name in rule.wrt}
    slope = jax.jit(jax.grad(lambda live: objective(live, parts, batch)[0]))(live)
    step = jax.tree.map(lambda x, g: x - LR * g / (jnp.abs(g) + 1e-8), live, slope)
    near(after, {**parts, **step})


def test_codes_of_actions(recipe):
    """int(1.25 dims) + 1 numbers of 64 tanh units, which the critics are shown in place of the action."""
    assert [taco.code_length(dims) for dims in (1, 2, 3, 4, 6, 12)] == [2, 3, 4, 6, 8, 16]
    shapes = jax.tree.map(jnp.shape, recipe.agent.shapes["code"])
    assert shapes["Dense_0"]["kernel"] == (DIMS, 64) and shapes["Dense_1"]["kernel"] == (64, U)
    made = taco.seams(SPECS, taco.Config(steps=5), None)
    assert set(made) == {"code", "ahead"} and made["ahead"] == 5
    parameters = jax.jit(made["code"].init)(KEY)
    first = parameters["Dense_0"]["kernel"]
    near(first @ first.T, jnp.eye(DIMS))  # orthogonal
    action = jnp.array([[0.3, -0.7]])
    near(jax.jit(made["code"].apply)(parameters, action), CODE.apply(parameters, action))
    hidden = jnp.tanh(action @ first + parameters["Dense_0"]["bias"])
    near(CODE.apply(parameters, action), hidden @ parameters["Dense_1"]["kernel"] + parameters["Dense_1"]["bias"])


def test_parts_at_the_start(recipe):
    parts = jax.jit(recipe.agent.init)(KEY)
    w = np.asarray(parts["taco"]["bilinear"])
    assert w.shape == (FEATURES, FEATURES) and (w >= 0).all() and (w < 1).all() and w.std() > 0.2
    assert set(parts["taco"]) == {"state", "sequence", "both", "reward", "bilinear"}
    kernels = [parts["taco"][name]["Dense_0"]["kernel"] for name in ("both", "reward")]
    assert (kernels[0] != kernels[1]).any()
    beneath = small("drqv2", lr=LR, features=FEATURES)
    known = {n for n in beneath.agent.shapes if n not in ("critic", "target", "code")}
    same({n: parts[n] for n in known}, {n: jax.jit(beneath.agent.init)(KEY)[n] for n in known})
    for name in ("both", "reward"):
        kernel = np.asarray(parts["taco"][name]["Dense_0"]["kernel"])
        near(kernel.T @ kernel, np.eye(HIDDEN))
    assert parts["taco"]["both"]["Dense_0"]["kernel"].shape == (FEATURES + STEPS * U, HIDDEN)


def test_what_is_seen_has_a_code_of_its_own(parts):
    made = taco.heads(
        taco.Config(steps=STEPS, hidden=HIDDEN), FEATURES, DIMS, lambda parts, obs: 2 * obs, floats(LENGTH)
    )
    obs = transitions(1)["obs"]
    near(made.code(parts, obs), STATE.apply(parts["taco"]["state"], 2 * obs))


def test_batches_reach_as_far_ahead_as_is_said(recipe):
    one = {name: x[:, None].repeat(2, 1) for name, x in transitions(1, (8,)).items() if name != "weight"}
    s = jax.eval_shape(recipe.source.init, {**one, "end": one["discount"] == 0})
    batch = jax.eval_shape(recipe.source.sample, s, {}, KEY)
    assert batch["ahead"]["action"].shape == (8, STEPS, DIMS)


def test_configuration():
    defaults(taco.Config(), steps=3, hidden=1024, temporal=1.0, curl=1.0, reward=1.0)
    bounded(taco.Config, {"steps": 1, "hidden": 1, "temporal": 0.0, "curl": 0.0, "reward": 0.0})
    assert taco.NUMBERS == {"batch": 1024}


def test_what_it_cannot_go_on_is_refused():
    whole = small("drqv2")
    with pytest.raises(BadInput, match="taco acts in continuous spaces"):
        taco.add(whole, DISCRETE, taco.Config(), None)
    with pytest.raises(BadInput, match="taco acts in continuous spaces"):
        taco.seams(DISCRETE, taco.Config(), None)
    blind = replace(whole, agent=replace(whole.agent, views={}))
    with pytest.raises(BadInput, match="taco looks at an agent's encode"):
        taco.add(blind, SPECS, taco.Config(), None)

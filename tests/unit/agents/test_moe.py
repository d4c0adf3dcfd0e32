"""Mixtures of experts in a policy: the losses on routers, written out; the clip of the policy's gradient; the seam."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.agents import moe
from jaxrl.core import BadInput, Ctx, fold
from jaxrl.nets import MoEMLP
from tests.pinned import KEY, SPECS, bounded, defaults, disturbed, mean, moment, near, transitions
from tests.small import DISCRETE, config, small

E, K = 4, 2
EXPERTS = {"experts": E, "k": K, "gate": 8, "clip": None, "weight": 0.7, "z": 0.3}
BATCH = jax.tree.map(jnp.asarray, transitions(1))
ADDED = (1 << 30) + 1  # the stream of the first further loss


def made(base="drqv2", **own):
    return small(f"{base}+moe", moe={**EXPERTS, **own})


def routed(logits):
    """Which experts each token has chosen: the k of most probability, a table of 0 and 1."""
    order = np.argsort(-np.asarray(logits), axis=1)[:, :K]
    mask = np.zeros(logits.shape)
    np.put_along_axis(mask, order, 1, axis=1)
    return mask


def terms(logits, mask):
    """Var_e (unbiased) of the shares of tokens; mean entropy; E sum f P; mean square of log sum exp."""
    p = jnp.exp(logits) / jnp.exp(logits).sum(axis=1, keepdims=True)
    load = mask.mean(axis=0)
    variance = ((load - load.mean()) ** 2).sum() / (E - 1)
    entropy = -(p * jnp.log(p)).sum(axis=1).mean()
    even = E * (mask.mean(axis=0) / mask.mean(axis=0).sum() * p.mean(axis=0)).sum()
    return {"load": variance, "entropy": entropy, "balance": even}, (jnp.log(jnp.exp(logits).sum(axis=1)) ** 2).mean()


WANTED = {
    "mentor": lambda said, z: 0.7 * (said["load"] + said["entropy"]) + 0.3 * z,
    "switch": lambda said, z: 0.7 * said["balance"] + 0.3 * z,
    "none": lambda said, z: 0.3 * z,
}


@pytest.fixture(scope="module")
def parts():
    return disturbed(jax.jit(made().agent.init)(KEY), "actor", "critic")


@pytest.mark.parametrize("balancing", WANTED)
def test_the_policys_rule_descends_the_losses_on_its_routers_too(parts, balancing):
    recipe, other = made(balancing=balancing), made()
    rule = recipe.agent.rules["actor"]
    actor = other.agent.views["actor"]
    gates = jax.jit(lambda p: actor(p, BATCH["obs"], fold(KEY, ADDED))["gates"])(parts)
    masks = [routed(gate.logits[0]) for gate in gates]  # one group
    assert [mask.shape for mask in masks] == [(6, E)] and len({tuple(row) for row in masks[0]}) > 1
    q = small("drqv2").agent.views["q"]

    def theirs(live):
        whole = {**parts, **live}
        action = recipe.agent.views["policy"](whole, BATCH["obs"], KEY)
        beneath = -mean(q(parts, BATCH["obs"], action).min(axis=0), BATCH)
        (gate,) = actor(whole, BATCH["obs"], fold(KEY, ADDED))["gates"]
        said, z = terms(gate.logits[0], masks[0])
        return beneath + WANTED[balancing](said, z), said

    ours = lambda live: rule.loss(live, parts, BATCH, KEY)
    live = {"actor": parts["actor"]}
    found, wanted = (jax.jit(jax.value_and_grad(one, has_aux=True))(live) for one in (ours, theirs))
    assert_allclose(found[0][0], wanted[0][0], rtol=1e-4)
    near(found[1], wanted[1])
    near({name: found[0][1][f"moe_0_{name}"] for name in wanted[0][1]}, wanted[0][1])
    assert found[0][1]["moe_0_dropped"] == 0
    assert rule.wrt == rule.writes == ("actor",)
    assert set(rule.reads) == {"actor", "encoder", "critic", "code", "std"}


def test_the_policys_gradient_alone_is_clipped():
    """To a norm of `clip` before Adam, whose mean square remembers it; the temperature's is not."""
    clip = 1e-3
    agent = made("sac", clip=clip).agent
    rule, parts = agent.rules["actor"], disturbed(jax.jit(agent.init)(KEY), "actor", "critic")
    free = made("sac").agent.rules["actor"]
    live = {name: parts[name] for name in ("actor", "log_alpha")}

    @jax.jit
    def both(parts):
        g = jax.grad(lambda live: free.loss(live, parts, BATCH, KEY)[0])(live)
        _, state, _ = rule.update(parts, rule.init(parts), BATCH, Ctx(KEY, jnp.int32(0)))
        return g, state

    g, state = both(parts)
    norm = np.sqrt(sum((np.asarray(x) ** 2).sum() for x in jax.tree.leaves(g["actor"])))
    assert norm > 10 * clip and abs(g["log_alpha"]) > 10 * clip
    wanted = {"actor": jax.tree.map(lambda x: 0.1 * x * clip / norm, g["actor"]), "log_alpha": 0.1 * g["log_alpha"]}
    found = moment(state, "mu")
    near(found["actor"], wanted["actor"])
    near(found["log_alpha"], wanted["log_alpha"])
    assert list(agent.rules) == list(small("sac").agent.rules)


def test_the_policys_hidden_layers_are_experts_as_the_settings_say():
    """Each setting of the router arrives; the module is made with the agent's widths."""
    how = {"experts": 3, "k": 1, "router": "soft", "capacity": 2.0, "spill": "random", "gate": 5, "dropout": 0.2}
    seams = moe.seams(SPECS, moe.Config(**how, residual=True), config("drqv2"))
    assert list(seams) == ["policy"]
    module = seams["policy"]((8, 8), 2)
    assert isinstance(module, MoEMLP) and module.experts == 3
    assert module.how == {name: value for name, value in {**how, "residual": True}.items() if name != "experts"}
    with pytest.raises(BadInput, match="experts replace hidden layers after the first"):
        moe.seams(SPECS, moe.Config(), config("sac", widths=(8,)))
    moe.seams(SPECS, moe.Config(), config("sac", widths=(8, 8)))


def test_configuration():
    defaults(
        moe.Config(), experts=16, k=4, router="top", capacity=None, spill="position", gate=256, dropout=0.1,
        residual=False, balancing="mentor", weight=1.0, z=0.0, clip=0.001,
    )  # fmt: skip
    bounded(moe.Config, {"experts": 1, "gate": 0, "weight": 0.0, "z": 0.0}, {"dropout": (0.0, 0.99)}, k=1)
    bounded(moe.Config, {"k": 1})
    moe.Config(experts=4, k=4)
    with pytest.raises(BadInput, match="k is 5, more than the 4 experts"):
        moe.Config(experts=4, k=5)
    for name in ("router", "spill", "balancing"):
        with pytest.raises(BadInput, match=f"{name} 'none such'"):
            moe.Config(**{name: "none such"})
    assert moe.BALANCING == ("mentor", "switch", "none")


def test_an_agent_whose_policy_is_not_shown_is_refused():
    with pytest.raises(BadInput, match="moe looks at an agent's encode"):
        moe.add(small("dqn"), DISCRETE, moe.Config(), config("dqn"))

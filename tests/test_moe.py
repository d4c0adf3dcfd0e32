"""Mixtures of experts: routing by hand, what must be equal, the losses of routers, and experts over a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax

from jaxrl.core import BadInput, Ctx, adam, minimise
from jaxrl.equations.routing import (
    balance,
    chosen,
    expert_choice,
    gate_entropy,
    load_variance,
    slots,
    soft_routing,
    top_routing,
    weights,
    z_loss,
)
from jaxrl.nets import MLP, MoE, MoEMLP, drawing, net
from jaxrl.nets.moe import aggregated, expert_parallel, pruned
from jaxrl.rules.distillation import distilled
from tests.devices import found_on

KEY = jax.random.key(4)
NUMBERS = np.random.default_rng(4)
X = NUMBERS.normal(size=(12, 6)).astype(np.float32)


def made(**how):
    """(the layer applied to parameters and x, its parameters): 4 experts of 6 -> 8 -> 5 unless said otherwise."""
    layer = net(MoE(**{"experts": 4, "hidden": 8, "outputs": 5, **how}), X)
    return jax.jit(layer.apply), filled(layer)


def filled(layer):
    """Parameters of a network's shapes: normal numbers, which are cheaper to come by than its own beginnings."""
    draw = lambda x: NUMBERS.normal(size=x.shape).astype(np.float32)
    return jax.tree.map(draw, jax.eval_shape(layer.init, KEY))


def expert(parameters, i, x):
    """What expert i alone makes of x."""
    first, second = (parameters[name] for name in ("experts_in", "experts_out"))
    within = np.maximum(x @ first["kernel"][i] + first["bias"][i], 0)
    return within @ second["kernel"][i] + second["bias"][i]


def probs_of(parameters, x):
    return softmax(x @ parameters["gate_out"]["kernel"] + parameters["gate_out"]["bias"], axis=-1)


# --------------------------------------------------------------------------------------------------------- by hand


def test_slots_are_static_and_bounded():
    assert slots(8, 4, 1, 1.0, 4) == 4  # max(2, 4)
    assert slots(100, 4, 2, 1.5, 4) == 75
    assert slots(1, 16, 4, 1.0, 4) == 1  # a single token needs no more than one


def test_weights_of_one_choice_are_not_renormalised_and_of_several_are():
    probs = jnp.array([[0.5, 0.3, 0.2]])
    assert_allclose(weights(probs, chosen(probs, 1)), [[0.5, 0, 0]])
    assert_allclose(weights(probs, chosen(probs, 2)), [[0.625, 0.375, 0]], rtol=1e-6)


def test_a_full_expert_keeps_the_first_those_that_want_it_most_or_any():
    """100 tokens want expert 0 of two, which has 10 slots."""
    probs = jnp.stack([jnp.linspace(0.6, 0.9, 100), 1 - jnp.linspace(0.6, 0.9, 100)], axis=1)
    mask = chosen(probs, 1)
    kept = lambda routing: np.asarray(routing.dispatch[:, 0].sum(axis=-1))
    route = lambda spill, key=None: top_routing(probs, mask, 10, spill, key)
    assert_array_equal(kept(route("position")).nonzero()[0], np.arange(10))
    assert_array_equal(kept(route("probability")).nonzero()[0], np.arange(90, 100))
    assert_allclose(route("position").dropped, 0.9)
    drawn = jax.jit(jax.vmap(lambda key: route("random", key).dispatch[:, 0].sum(axis=-1)))(jax.random.split(KEY, 2000))
    assert_array_equal(drawn.sum(axis=1), np.full(2000, 10))
    # Each is kept one time in ten: 200 +- 4.5 standard deviations of a binomial.
    assert np.abs(np.asarray(drawn.sum(axis=0)) - 200).max() < 4.5 * (2000 * 0.1 * 0.9) ** 0.5


@pytest.mark.parametrize("spill", ["position", "probability"])
def test_no_token_is_in_a_slot_twice_and_no_slot_holds_two(spill):
    probs = jax.nn.softmax(jax.random.normal(KEY, (32, 8)))
    dispatch, combine, dropped = top_routing(probs, chosen(probs, 2), 6, spill)
    assert (dispatch.sum(axis=0) <= 1).all() and (dispatch.sum(axis=2) <= 1).all()
    assert dispatch.sum(axis=(1, 2)).max() <= 2
    assert_allclose(dropped, 1 - dispatch.sum() / 64, rtol=1e-6)
    assert ((combine > 0) == (dispatch > 0)).all()


def test_experts_choose_their_tokens_and_soft_slots_hold_mixtures():
    probs = jnp.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    routing = expert_choice(probs, 1)
    assert_array_equal(routing.dispatch[..., 0], [[1, 0], [0, 0], [0, 1]])
    assert_allclose(routing.combine[..., 0], [[0.9, 0], [0, 0], [0, 0.7]])
    assert_allclose(routing.dropped, 1 / 3, rtol=1e-6)
    soft = soft_routing(jax.random.normal(KEY, (5, 3, 2)))
    assert_allclose(soft.dispatch.sum(axis=0), np.ones((3, 2)), rtol=1e-5)
    assert_allclose(soft.combine.sum(axis=(1, 2)), np.ones(5), rtol=1e-5)


def test_losses_of_routers():
    even = jnp.full((16, 16), 1 / 16)
    ring = (jnp.arange(16)[:, None] + jnp.arange(4)) % 16  # every expert is chosen by four tokens
    balanced = jax.nn.one_hot(ring, 16, dtype=bool).any(axis=1)
    assert_allclose(balance(even, balanced), 1, rtol=1e-6)
    assert_allclose(balance(even, jnp.eye(16, dtype=bool)), 1, rtol=1e-6)
    one = jnp.zeros((10, 4)).at[:, 2].set(1.0)
    assert_allclose(balance(one, one > 0), 4)  # all to one expert with probability 1: E
    assert_allclose(gate_entropy(jnp.log(even)), np.log(16), rtol=1e-6)
    certain = jnp.array([[0.0, 300.0, -300.0]])
    assert_allclose(gate_entropy(certain), 0, atol=1e-6)
    assert_allclose(jax.grad(gate_entropy)(certain), 0, atol=1e-6)  # of probabilities that are 0 it would be no number
    same = jnp.zeros((20, 16), bool).at[:, :4].set(True)
    assert_allclose(load_variance(same), 0.2, rtol=1e-6)
    assert_allclose(load_variance(balanced), 0, atol=1e-12)
    assert_allclose(z_loss(jnp.zeros((3, 4))), np.log(4) ** 2, rtol=1e-6)
    assert not np.any(
        jax.grad(lambda logits: load_variance(chosen(logits, 4)).astype(float))(jax.random.normal(KEY, (20, 16)))
    )


# --------------------------------------------------------------------------------------------------------- the layer


def test_one_expert_is_that_expert():
    layer, parameters = made(experts=1, k=1)
    assert_allclose(layer(parameters, X), expert(parameters, 0, X), rtol=1e-4, atol=1e-4)


def test_all_experts_are_the_mixture_and_even_gates_are_a_mean():
    layer, parameters = made(k=4)
    mixture = sum(probs_of(parameters, X)[:, i : i + 1] * expert(parameters, i, X) for i in range(4))
    assert_allclose(layer(parameters, X), mixture, rtol=1e-4, atol=1e-4)
    layer, parameters = made(k=2)
    parameters = {**parameters, "gate_out": {"kernel": np.zeros((6, 4), np.float32), "bias": np.zeros(4, np.float32)}}
    mean = sum(expert(parameters, i, X) for i in range(2)) / 2  # of a draw, the first two
    assert_allclose(layer(parameters, X), mean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [1, 2])
def test_slots_for_all_are_the_same_as_none(k):
    """Whole groups, leading axes and single tokens alike: a capacity that drops nothing changes nothing."""
    dense, parameters = made(k=k)
    slotted, _ = made(k=k, capacity=4.0)
    groups = X.reshape(2, 2, 3, 6)
    both = jax.jit(lambda p: [layer(p, x) for x in (X, groups, X[0]) for layer in (dense, slotted)])(parameters)
    for a, b in zip(both[::2], both[1::2]):
        assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert both[2].shape == (2, 2, 3, 5) and both[4].shape == (5,)


def test_what_finds_no_slot_is_left_to_the_residual():
    """A router that sends all twelve tokens to expert 0, which has one slot."""
    for residual in (False, True):
        layer = net(MoE(4, 8, 5, capacity=0.1, least=1, residual=residual), X)
        wants = {"kernel": np.zeros((6, 4), np.float32), "bias": np.float32([9, 0, 0, 0])}
        parameters = {**filled(layer), "gate_out": wants}
        y, inside = jax.jit(lambda p, layer=layer: (layer.apply(p, X), layer.within(p, X)))(parameters)
        assert_allclose(inside["gates"][0].dropped, [11 / 12], rtol=1e-6)
        assert_array_equal(np.abs(y).max(axis=1) > 0, [True, *[residual] * 11])


def test_a_router_draws_only_where_a_key_is_given():
    module = MoE(4, 8, 5, k=2, gate=16, dropout=0.5, noise=1.0)
    still, drawn = jax.jit(net(module, X).apply), jax.jit(drawing(module, X).apply)
    parameters = filled(net(module, X))
    assert_array_equal(still(parameters, X), still(parameters, X))
    a, b = (drawn(parameters, jax.random.key(i), X) for i in range(2))
    assert np.abs(a - b).max() > 1e-3 and np.abs(a - still(parameters, X)).max() > 1e-3


def test_what_is_inside_is_shown():
    """An MLP of experts: its dense layers, each expert's two, the gate, and what the gate says."""
    mlp = net(MoEMLP((7, 8), 3, experts=4, how={"k": 2, "gate": 5}), X)
    inside, output = jax.jit(lambda p: (mlp.within(p, X), mlp.apply(p, X)))(filled(mlp))
    shapes = [(12, 7), (1, 12, 5), (1, 12, 4), (4, 12, 2), (4, 12, 8), (12, 3)]
    assert [layer.shape for layer in inside["layers"]] == shapes
    assert_allclose(inside["layers"][-1], output, rtol=1e-6)
    (gate,) = inside["gates"]
    assert gate.mask.shape == (1, 12, 4) and (gate.mask.sum(axis=-1) == 2).all()


@pytest.mark.parametrize("router", ["expert_choice", "soft"])
def test_what_a_policy_says_of_a_row_does_not_depend_on_others(router):
    mlp = net(MoEMLP((7, 8), 3, experts=4, how={"router": router, "capacity": 1.0}), X)
    parameters = filled(mlp)
    together, alone, inside = jax.jit(lambda p: (mlp.apply(p, X), mlp.apply(p, X[:1]), mlp.within(p, X)))(parameters)
    assert_allclose(together[:1], alone, rtol=1e-4, atol=1e-4)
    (gate,) = inside["gates"]
    assert gate.logits.shape == gate.mask.shape == (12, 1, 4)


def test_experts_may_be_taken_away_and_put_together():
    layer, parameters = made(k=4)
    few = pruned(parameters, np.array([2, 0]))
    share = softmax(np.log(probs_of(parameters, X))[:, [2, 0]], axis=1)
    by_hand = share[:, :1] * expert(parameters, 2, X) + share[:, 1:] * expert(parameters, 0, X)
    assert_allclose(made(experts=2, k=2)[0](few, X), by_hand, rtol=1e-4, atol=1e-4)
    soft = net(MoE(4, 8, 5, router="soft", capacity=1.0), X)
    with pytest.raises(BadInput, match="a soft router has logits for slots"):
        pruned(filled(soft), np.array([1]))
    both = aggregated(parameters, parameters)
    assert_allclose(made(experts=8, k=8)[0](both, X), layer(parameters, X), rtol=1e-4, atol=1e-4)


def test_a_dense_student_learns_what_experts_say():
    teacher, student = net(MoE(4, 8, 2, k=2), X), net(MLP((32,), 2), X)
    rule = minimise(distilled(student, teacher, "small", "large"), adam(3e-3), "small", reads="large")
    parts = {"large": filled(teacher), "small": jax.tree.map(lambda x: 0.3 * x, filled(student))}

    def step(carry, i):
        parts, state, metrics = rule.update(*carry, {"obs": X}, Ctx(KEY, i))
        return (parts, state), metrics["loss"]

    run = jax.jit(lambda parts: jax.lax.scan(step, (parts, rule.init(parts)), jnp.arange(2_000)))
    (after, _), losses = run(parts)
    assert losses[-1] < 0.05 * losses[0]
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(after["large"]), jax.tree.leaves(parts["large"])))


@pytest.mark.parametrize("how,sentence", [
    ({"k": 5}, "k is 5 of 4 experts"),
    ({"capacity": 0.0}, "capacity is 0.0"),
    ({"capacity": 1.0, "least": 0}, "at least 0 slots"),
    ({"router": "tops"}, "unknown router 'tops'.*Did you mean 'top'"),
    ({"spill": "first"}, "unknown spill"),
    ({"router": "soft"}, "the router 'soft' fills slots"),
])  # fmt: skip
def test_what_cannot_be_is_refused(how, sentence):
    with pytest.raises(BadInput, match=sentence):
        MoE(**{"experts": 4, "hidden": 8, "outputs": 5, **how})


# ------------------------------------------------------------------------------------------------------------ a mesh


def test_eight_devices_make_what_one_does():
    """Experts and tokens spread over a mesh; too few slots, so that what is dropped is the same as well."""
    found = found_on(8, "experts")["experts"]
    assert found["size"] > 1
    assert found["outputs_apart"] < 1e-5 * found["size"]
    assert found["gradients_apart"] < 1e-4
    assert found["dropped"][0] == found["dropped"][1] > 0.1
    assert found["chosen"] == [2]  # no token is sent to one expert twice


def test_a_mesh_that_does_not_divide_the_experts_is_refused():
    mesh = AbstractMesh((3,), ("expert",))
    with pytest.raises(BadInput, match="experts is 4, which 3 devices do not divide"):
        expert_parallel(MoE(4, 8, 5, capacity=1.0), mesh)
    with pytest.raises(BadInput, match="capacity is None"):
        expert_parallel(MoE(3, 8, 5), mesh)

"""Routes of tokens to experts, counted by hand, and the losses that keep experts in use, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.equations import routing
from tests.pinned import taking_numpy

RNG = np.random.default_rng(2)
LOGITS = RNG.normal(size=(5, 3)).astype(np.float32)
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
KEY = jax.random.key(8)
chosen, weights, top_routing = map(taking_numpy, (routing.chosen, routing.weights, routing.top_routing))


@pytest.mark.parametrize(
    "tokens, experts, k, factor, least, expected",
    [
        (8, 4, 1, 1.0, 1, 2),  # an even share
        (8, 4, 2, 1.0, 1, 4),  # of two choices
        (8, 4, 1, 1.25, 1, 3),  # rounded up
        (8, 4, 1, 1.0, 3, 3),  # the least
        (8, 4, 1, 1.0, 20, 8),  # never more than there are tokens
        (6, 2, 2, 3.0, 1, 6),
    ],
)
def test_slots_are_a_factor_of_the_even_share(tokens, experts, k, factor, least, expected):
    assert routing.slots(tokens, experts, k, factor, least) == expected


def best(k):
    """Each token's k best experts, by sorting."""
    mask = np.zeros(PROBS.shape, bool)
    for row, order in zip(mask, np.argsort(-PROBS, axis=1)):
        row[order[:k]] = True
    return mask


@pytest.mark.parametrize("k", [1, 2])
def test_the_best_are_chosen_and_weighed(k):
    mask = best(k)
    assert_array_equal(chosen(PROBS, k), mask)
    assert_array_equal(chosen(PROBS[None], k), mask[None])
    kept = np.where(mask, PROBS, 0)
    expected = kept if k == 1 else kept / kept.sum(axis=1, keepdims=True)
    assert_allclose(weights(PROBS, mask), expected, rtol=1e-6)


def routed(mask, capacity, claim):
    """Where each choice goes: experts fill their slots by falling claim, ties by place."""
    dispatch = np.zeros((*mask.shape, capacity))
    for expert in range(mask.shape[1]):
        line = sorted((-claim(token, expert), token) for token in range(len(mask)) if mask[token, expert])
        for slot, (_, token) in enumerate(line[:capacity]):
            dispatch[token, expert, slot] = 1
    return dispatch


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("capacity", [1, 2, 5])
@pytest.mark.parametrize("spill", ["position", "probability", "random"])
def test_full_experts_keep_whom_they_should(spill, capacity, k):
    mask, drawn = best(k), np.asarray(jax.random.uniform(KEY, PROBS.shape))
    claims = {"position": lambda t, e: -t, "probability": lambda t, e: PROBS[t, e], "random": lambda t, e: drawn[t, e]}
    dispatch = routed(mask, capacity, claims[spill])
    found = top_routing(PROBS, mask, capacity, spill, KEY)
    assert_array_equal(found.dispatch, dispatch)
    kept = np.where(mask, PROBS, 0)
    share = kept if k == 1 else kept / kept.sum(axis=1, keepdims=True)
    assert_allclose(found.combine, share[..., None] * dispatch, rtol=1e-5)
    assert_allclose(found.dropped, 1 - dispatch.sum() / mask.sum(), atol=1e-6)


def test_the_first_come_are_kept_where_nobody_says():
    mask = best(2)
    assert_array_equal(top_routing(PROBS, mask, 2).dispatch, top_routing(PROBS, mask, 2, "position").dispatch)


def test_experts_choose_the_tokens_that_want_them_most():
    dispatch, combine, dropped = taking_numpy(routing.expert_choice)(PROBS, 2)
    expected = np.zeros((5, 3, 2))
    for expert in range(3):
        for slot, token in enumerate(np.argsort(-PROBS[:, expert])[:2]):
            expected[token, expert, slot] = 1
    assert_array_equal(dispatch, expected)
    assert_allclose(combine, expected * PROBS[..., None], rtol=1e-6)
    taken = {token for token in range(5) if expected[token].any()}
    assert 0 < len(taken) < 5
    assert_allclose(dropped, 1 - len(taken) / 5, rtol=1e-6)


def test_soft_slots_mix_all_tokens_and_tokens_all_slots():
    logits = RNG.normal(size=(5, 3, 2)).astype(np.float32)
    lifted = np.exp(logits)
    dispatch, combine, dropped = taking_numpy(routing.soft_routing)(logits)
    assert_allclose(dispatch, lifted / lifted.sum(axis=0), rtol=1e-5)
    assert_allclose(combine, lifted / lifted.sum(axis=(1, 2), keepdims=True), rtol=1e-5)
    assert dropped == 0


def test_balance_is_one_where_experts_are_used_evenly():
    mask = best(2)
    used, wanted = mask.sum(axis=0) / mask.sum(), PROBS.mean(axis=0)
    balance = taking_numpy(routing.balance)
    assert_allclose(balance(PROBS, mask), 3 * (used * wanted).sum(), rtol=1e-5)
    assert_allclose(balance(np.full((6, 3), 1 / 3, np.float32), np.tile(np.eye(3, dtype=bool), (2, 1))), 1, rtol=1e-5)
    # A batch axis before the tokens' is one more of them.
    assert_allclose(balance(PROBS[None], mask[None]), balance(PROBS, mask), rtol=1e-6)
    slope = jax.grad(lambda p: balance(p, jnp.array(mask)))(jnp.array(PROBS))
    assert_allclose(slope, np.tile(3 * used / 5, (5, 1)), rtol=1e-5)


def test_the_load_varies_by_the_shares_of_tokens():
    mask = best(1)
    assert_allclose(taking_numpy(routing.load_variance)(mask), np.var(mask.mean(axis=0), ddof=1), rtol=1e-5)
    assert_allclose(taking_numpy(routing.load_variance)(mask[None]), np.var(mask.mean(axis=0), ddof=1), rtol=1e-5)


def test_gates_have_an_entropy_and_logits_a_size():
    entropy = -(PROBS * np.log(PROBS)).sum(axis=1)
    assert_allclose(taking_numpy(routing.gate_entropy)(LOGITS), entropy.mean(), rtol=1e-5)
    assert_allclose(taking_numpy(routing.gate_entropy)(LOGITS[None]), entropy.mean(), rtol=1e-5)
    assert_allclose(taking_numpy(routing.z_loss)(LOGITS), (np.log(np.exp(LOGITS).sum(axis=1)) ** 2).mean(), rtol=1e-5)

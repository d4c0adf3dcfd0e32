"""Laws of the verbs, and the sentences of names that do not exist."""

import jax
import jax.numpy as jnp
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import (
    Agent,
    BadInput,
    Ctx,
    Rule,
    adam,
    add,
    also,
    by_frames,
    chain,
    describe,
    epochs,
    every,
    mean,
    minimise,
    on,
    repeat,
    scoped,
    shuffled,
    stateless,
    track,
    unknown,
    where,
)

CTX = Ctx(jax.random.key(0), jnp.int32(0), jnp.int32(0))
PARTS = {"w": jnp.array([1.0, 2.0]), "target": jnp.zeros(2), "other": jnp.ones(3)}
BATCH = {"x": jnp.array([[1.0, 0.0], [0.0, 3.0]]), "y": jnp.array([2.0, 1.0])}


def square(live, frozen, batch, key):
    error = batch["x"] @ live["w"] - batch["y"]
    return mean(0.5 * error**2, batch), {"error": error}


def pull(live, frozen, batch, key):
    return 0.5 * (live["w"] ** 2).sum(), {"size": jnp.abs(live["w"]).sum()}


def step(rule, parts=PARTS, batch=BATCH, ctx=CTX):
    return rule.update(parts, rule.init(parts), batch, ctx)


def test_minimise_descends_by_hand():
    parts, _, metrics = step(minimise(square, optax.sgd(0.1), "w"))
    # errors (-1, 5); gradient ((-1) * 1, 5 * 3) / 2
    assert_allclose(parts["w"], [1.05, 1.25], rtol=1e-6)
    assert_allclose(metrics["loss"], 6.5)
    assert_array_equal(metrics["error"], [-1, 5])


def test_only_named_parts_change():
    parts, _, _ = step(minimise(square, optax.sgd(0.1), "w"))
    assert parts["other"] is PARTS["other"] and parts["target"] is PARTS["target"]


def test_frozen_parts_receive_no_gradient():
    def both(live, frozen, batch, key):
        return (live["w"] * frozen["w"]).sum() + (frozen["target"] * live["w"]).sum(), {}

    parts, _, _ = step(minimise(both, optax.sgd(1.0), "w", reads="target"))
    assert_allclose(parts["w"], [0, 0])  # d/d live only: w - w


def test_undeclared_part_is_named():
    def peeks(live, frozen, batch, key):
        return (live["w"] * frozen["other"][:2]).sum(), {}

    with pytest.raises(BadInput, match=r"part 'other'.*`reads`.*declared are w"):
        step(minimise(peeks, optax.sgd(1.0), "w"))


def test_signals_and_frames_reach_the_optimiser():
    seen = {}

    def update(gradients, state, params=None, *, error, frames):
        seen.update(error=error, frames=frames)
        return gradients, state

    tx = optax.GradientTransformationExtraArgs(lambda p: (), update)
    step(minimise(square, tx, "w", signals=("error",)), ctx=CTX._replace(clock=jnp.int32(70)))
    assert_array_equal(seen["error"], [-1, 5])
    assert seen["frames"] == 70


def test_schedules_follow_frames():
    tx = by_frames(lambda frames: 1.0 - frames / 100)
    steps, _ = tx.update({"a": jnp.array(2.0)}, tx.init(None), None, frames=jnp.int32(50))
    assert steps["a"] == -1


def test_adam_is_optax_adam():
    ours, theirs = (
        adam(1e-2, clip=0.5, eps=1e-5),
        optax.chain(optax.clip_by_global_norm(0.5), optax.adam(1e-2, eps=1e-5)),
    )
    g, p = {"a": jnp.array([3.0, -4.0])}, {"a": jnp.zeros(2)}
    a, _ = ours.update(g, ours.init(p), p, frames=jnp.int32(0))
    b, _ = theirs.update(g, theirs.init(p), p)
    assert_allclose(a["a"], b["a"], rtol=1e-6)


def test_add_is_one_backward_pass_of_the_sum():
    parts, _, metrics = step(minimise(add(square, pull), optax.sgd(0.1), "w"))
    assert_allclose(parts["w"], [1.05 - 0.1, 1.25 - 0.2], rtol=1e-6)
    assert set(metrics) == {"loss", "error", "size"}
    with pytest.raises(BadInput, match="'error'"):
        step(minimise(add(square, square), optax.sgd(0.1), "w"))


def test_also_reaches_through_what_wraps_a_rule():
    rule = minimise(square, optax.sgd(0.1), "w")
    both = step(also(rule, pull))[0]["w"]
    for wrapped in (every(1, rule), repeat(1, rule), on(lambda parts, batch, ctx: batch, rule)):
        assert_allclose(step(also(wrapped, pull))[0]["w"], both, rtol=1e-6)
    assert_allclose(both, [1.05 - 0.1, 1.25 - 0.2], rtol=1e-6)
    with pytest.raises(BadInput, match="minimise"):
        also(track("w", "target", 0.1), pull)


def test_a_loss_hands_over_what_it_has_set():
    """A counter beside the gradient step: seen frozen, its new value no metric any more; `also` keeps that."""

    def counted(live, frozen, batch, key):
        value, metrics = square(live, frozen, batch, key)
        return value, {**metrics, "seen": frozen["seen"] + 1}

    rule = minimise(counted, optax.sgd(0.1), "w", sets="seen")
    assert rule.writes == ("w", "seen") and "seen" in rule.reads
    for one in (rule, also(rule, pull)):
        parts, _, metrics = step(one, {**PARTS, "seen": jnp.int32(3)})
        assert parts["seen"] == 4 and "seen" not in metrics


def test_chain_of_one_is_the_one():
    rule = minimise(square, adam(0.1), "w")
    one, _, m1 = step(rule)
    chained, _, m2 = step(chain({"a": rule}))
    assert_array_equal(one["w"], chained["w"])
    assert_array_equal(m1["loss"], m2["a/loss"])


def test_chain_acts_in_order():
    parts, _, _ = step(chain({"learn": minimise(square, optax.sgd(0.1), "w"), "copy": track("w", "target", 1.0)}))
    assert_array_equal(parts["target"], parts["w"])


def test_track():
    parts, _, _ = step(track("w", "target", 0.25))
    assert_allclose(parts["target"], [0.25, 0.5])


def test_repeat_one_and_every_one_are_the_rule():
    rule = minimise(square, optax.sgd(0.1), "w")
    for same in (repeat(1, rule), every(1, rule), on(lambda parts, batch, ctx: batch, rule)):
        assert_allclose(step(same)[0]["w"], step(rule)[0]["w"])


def test_repeat_is_the_rule_again():
    rule = minimise(square, optax.sgd(0.1), "w")
    twice = step(rule, parts=step(rule)[0])[0]
    assert_allclose(step(repeat(2, rule))[0]["w"], twice["w"], rtol=1e-6)


def test_every_runs_on_each_nth_update_and_else_reports_nan():
    rule = every(3, minimise(square, optax.sgd(0.1), "w"))
    ran = []
    for i in range(6):
        parts, _, metrics = step(rule, ctx=CTX._replace(update=jnp.int32(i)))
        assert jnp.isnan(metrics["loss"]) == (parts["w"] == PARTS["w"]).all()
        ran.append(not jnp.isnan(metrics["loss"]))
    assert ran == [False, False, True, False, False, True]


def test_every_inside_repeat_counts_the_repeats():
    counting = stateless(lambda parts, batch, ctx: ({"other": parts["other"] + 1}, {}), "other")
    parts, _, _ = step(repeat(6, every(2, counting)))
    assert_array_equal(parts["other"], [4, 4, 4])


@pytest.mark.parametrize("axis,shape", [("sample", (4,)), ("env", (3, 2))])
def test_epochs_show_everything_once_an_epoch(axis, shape):
    """Sum of what was seen over the epochs, and the shape of a minibatch."""

    def look(parts, batch, ctx):
        assert batch["reward"].shape == shape
        return {"total": parts["total"] + batch["reward"].sum(), "count": parts["count"] + batch["reward"].size}, {}

    batch = {"reward": jnp.arange(12.0).reshape(3, 4)}
    parts = {"total": jnp.float32(0), "count": jnp.int32(0)}
    minibatches = 3 if axis == "sample" else 2
    parts, _, _ = step(epochs(2, minibatches, stateless(look, ("total", "count")), axis), parts, batch)
    assert parts["total"] == 2 * 66 and parts["count"] == 24


@pytest.mark.parametrize("size", [1, 5, 512, 5000])
def test_shuffles_are_permutations_and_uniform(size):
    order = shuffled(jax.random.key(1), 40, size)
    assert_array_equal(jnp.sort(order, axis=1), jnp.broadcast_to(jnp.arange(size), (40, size)))
    if size == 5:
        many = shuffled(jax.random.key(2), 6000, 5)
        for place in range(5):
            assert_allclose(jnp.bincount(many[:, place], length=5) / 6000, 0.2, atol=0.02)


def test_epochs_refuse_what_does_not_divide():
    rule = epochs(1, 5, stateless(lambda p, b, c: ({}, {}), ()))
    with pytest.raises(BadInput, match="minibatches is 5"):
        step(rule, batch={"reward": jnp.zeros((3, 4))})


def test_mean_takes_weights():
    x = jnp.array([1.0, 2.0, jnp.nan])
    assert mean(x[:2], {}) == 1.5
    assert_allclose(mean(x, {"weight": jnp.array([1.0, 0.5, 0.0])}), 1.0)  # (1 + 1) / 2, the masked one left out
    assert_allclose(mean(jnp.ones((2, 3, 4)), {"weight": jnp.ones((2, 3))}), 1.0)


def test_masked_entries_send_no_gradient():
    weight = jnp.array([1.0, 0.0])
    gradient = jax.grad(lambda x: mean(x**2, {"weight": weight}))(jnp.array([3.0, 5.0]))
    assert_array_equal(gradient, [6, 0])


def test_where_handles_keys_and_trailing_axes():
    mask = jnp.array([True, False])
    keys = jax.random.split(jax.random.key(0), 4)
    picked = where(mask, {"k": keys[:2], "x": jnp.ones((2, 3))}, {"k": keys[2:], "x": jnp.zeros((2, 3))})
    assert (picked["k"][0] == keys[0]) and (picked["k"][1] == keys[3])
    assert_array_equal(picked["x"], [[1, 1, 1], [0, 0, 0]])


def agent_of(rules, observe=None):
    return Agent(lambda key: dict(PARTS), lambda *a: (jnp.zeros(1), (), {}), rules, observe or {})


def test_an_agent_checks_its_names_when_built():
    with pytest.raises(BadInput, match=r"rule 'critic' reads an unknown part 'tagret'.*other, target, w.*'target'"):
        agent_of({"critic": minimise(square, adam(1e-3), "w", reads="tagret")})
    with pytest.raises(BadInput, match=r"rule 'copy' reads an unknown part 'nowhere'"):
        agent_of({}, {"copy": track("w", "nowhere", 0.1)})


def test_describe_tells_parts_and_rules():
    text = describe(agent_of({"learn": minimise(square, adam(1e-3), "w", reads="target")}))
    assert "w" in text and "8 bytes" in text and "reads w, target; writes w" in text


def test_scoped_agents_live_side_by_side():
    inner = agent_of({"learn": minimise(square, optax.sgd(0.1), "w")})
    outer = scoped("left", inner)
    assert set(outer.shapes) == {"left/w", "left/target", "left/other"}
    parts = outer.init(jax.random.key(0)) | {"right/w": jnp.ones(1)}
    after, _, metrics = step(chain(outer.rules), parts)
    assert_allclose(after["left/w"], [1.05, 1.25], rtol=1e-6)
    assert "left/learn/loss" in metrics and after["right/w"] is parts["right/w"]


def test_unknown_suggests_the_nearest():
    assert "Did you mean 'reacher-easy'?" in str(unknown("environment", "reacher-esy", ["reacher-easy", "cartpole"]))


def test_rules_are_plain_records():
    rule = Rule(lambda parts: (), lambda parts, state, batch, ctx: (parts, state, {}))
    assert rule.reads == () and rule.writes == ()

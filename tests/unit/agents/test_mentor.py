"""MENTOR: DrM's rules with a draw to what served best, in place of fresh weights, and with a policy of experts."""

from dataclasses import fields

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.agents import drm, mentor, moe
from jaxrl.core import Ctx
from jaxrl.rules.archive import EMPTY, Archive
from tests.pinned import KEY, SPECS, bounded, near, same, transitions
from tests.small import config, small

EXPERTS = {"experts": 4, "k": 2, "gate": 8}


def made(**own):
    return small("drqv2+mentor", mentor={"period": 24, "size": 3, "moe": EXPERTS, **own})


@pytest.fixture(scope="module")
def recipe():
    return made(mixture=False, keep=(0.2, 0.6))


@pytest.fixture(scope="module")
def parts(recipe):
    return jax.jit(recipe.agent.init)(KEY)


def test_weights_are_drawn_to_a_normal_of_those_that_served_best(recipe, parts):
    """theta <- k theta + (1 - k) draw, draw ~ N(mean, unbiased variance) of what is kept; two are kept here."""
    rng = np.random.default_rng(2)
    names = ("actor", "critic", "target", "value")
    noisy = lambda x: jnp.stack([x + 0.1 * rng.normal(size=x.shape), x - 0.2, jnp.zeros_like(x)]).astype(x.dtype)
    members = {name: jax.tree.map(noisy, parts[name]) for name in names}
    kept = Archive(jnp.array([3.0, 5.0, EMPTY]), members)
    given = {**parts, "archive": kept, "dormant": {"share": jnp.float32(0.3), "woke": jnp.int32(-1)}}
    rule = recipe.agent.rules["perturb"]
    assert set(rule.reads) == {*names, "dormant", "archive"} and rule.writes == names
    run = jax.jit(lambda p, step: rule.update(p, (), transitions(1), Ctx(KEY, step))[0::2])
    after, metrics = run(given, jnp.int32(24))
    flat, like = jax.flatten_util.ravel_pytree({name: parts[name] for name in names})
    noise = like(jax.random.normal(KEY, flat.shape))

    def drawn(now, both, noise):
        two = np.asarray(both)[:2]
        return 0.4 * now + 0.6 * (two.mean(axis=0) + two.std(axis=0, ddof=1) * noise)

    def dense(old, members, noise):
        if "kernel" in old:
            return jax.tree.map(drawn, old, members, noise)
        return old if "scale" in old else {n: dense(x, members[n], noise[n]) for n, x in old.items()}

    near(after, {**given, **{name: dense(parts[name], members[name], noise[name]) for name in names}})
    near(metrics, {"kept": jnp.float32(0.4)})
    same(run(given, jnp.int32(16))[0], given)  # not due
    alone = {**given, "archive": Archive(jnp.array([3.0, EMPTY, EMPTY]), members)}
    near(run(alone, jnp.int32(24))[0], alone)  # of one alone there is no spread: they stay


def test_what_acted_in_the_best_episodes_is_kept(recipe, parts):
    """Of a tick's ended episodes the best takes the worst place, where it is better than that."""
    rule = recipe.agent.observe["archive"]
    assert parts["archive"].returns.tolist() == [EMPTY] * 3
    assert set(parts["archive"].members) == {"actor", "critic", "target", "value"}
    run = jax.jit(lambda p, batch: rule.update(p, (), batch, Ctx(KEY, jnp.int32(0)))[0]["archive"])
    returns = jnp.array([[1.0, 9.0], [4.0, 2.0]])
    batch = {"end": jnp.array([[True, False], [True, True]]), "info": {"episode": {"return": returns}}}
    kept = run(parts, batch)
    assert kept.returns.tolist() == [4.0, EMPTY, EMPTY]
    near(jax.tree.map(lambda x: x[0], kept.members), {name: parts[name] for name in kept.members})


def test_its_two_ideas_are_a_flag_each(recipe):
    beneath = small("drqv2+drm", drm={"period": 24, "keep": (0.2, 0.6)})
    assert list(recipe.agent.rules) == list(beneath.agent.rules)
    assert set(recipe.agent.shapes) == {*beneath.agent.shapes, "archive"}
    random = made(task=False, mixture=False).agent
    assert "archive" not in random.shapes and "archive" not in random.observe and "perturb" in random.rules
    never = made(period=0).agent
    assert "archive" not in never.shapes and "perturb" not in never.rules
    mixed = made().agent
    assert any("gate" in str(path).lower() or "expert" in str(path).lower()
               for path, _ in jax.tree.leaves_with_path(mixed.shapes["actor"]))  # fmt: skip
    on, off = (mentor.seams(SPECS, mentor.Config(mixture=one), config("drqv2")) for one in (True, False))
    assert set(on) == {"policy"} and off == {}


def test_experts_are_balanced_and_clipped_as_the_mixtures_own_settings_say():
    """The actor's rule has the losses on routers that `moe` adds, of the nested settings."""
    rule = made(moe={**EXPERTS, "weight": 3.0}).agent.rules["actor"]
    plain = made(mixture=False).agent.rules["actor"]
    while rule.around is not None and plain.around is not None:
        rule, plain = rule.around[1], plain.around[1]
    assert rule.loss.__name__ != plain.loss.__name__ == "actor_loss"


def test_configuration():
    own = vars(mentor.Config())
    assert own.pop("moe") == moe.Config()
    changed = {"period": 40_000, "noise": 0.8, "schedule": False, "task": True, "size": 10, "mixture": True}
    assert own == {**vars(drm.Config()), **changed}
    bounded(mentor.Config, {"size": 2, "period": 0})
    assert {field.name for field in fields(mentor.Config)} > {field.name for field in fields(drm.Config)}

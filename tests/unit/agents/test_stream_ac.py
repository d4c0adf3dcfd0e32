"""Stream AC(lambda): the policy's trace with its entropy, the value's, and one TD error for both, by the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaxrl.agents import stream_ac
from jaxrl.core import BadInput, Box, Ctx, Discrete, Specs
from tests.pinned import DIMS, KEY, OBS, bounded, defaults, near
from tests.pinned import SPECS as CONTINUOUS
from tests.streams import LIMIT, STREAM, Traced, experience, follows, network, started, x_of

ACTIONS, WEIGHT, KAPPA = 3, 0.3, 2.5
KINDS = {"continuous": CONTINUOUS, "discrete": Specs(OBS, Discrete(ACTIONS), limit=LIMIT)}
POLICY, V = {"continuous": network(2 * DIMS), "discrete": network(ACTIONS)}, network(1)
CTX = Ctx(KEY, jnp.int32(0))


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request):
    return request.param


def config(**how):
    return stream_ac.Config(**STREAM, kappa_policy=KAPPA, entropy_weight=WEIGHT, **how)


def normal(output):
    return output[:DIMS], jnp.log(1 + jnp.exp(output[DIMS:]))


def log_prob_and_entropy(kind, output, action):
    if kind == "discrete":
        p = jnp.exp(output) / jnp.exp(output).sum()
        return jnp.log(p[action]), -(p * jnp.log(p)).sum()
    center, std = normal(output)
    density = jnp.exp(-(((action - center) / std) ** 2) / 2) / (std * jnp.sqrt(2 * jnp.pi))
    return jnp.log(density).sum(), jnp.log(std * jnp.sqrt(2 * jnp.pi * jnp.e)).sum()


def test_steps_follow_the_policy_and_the_value(kind):
    """The actor's g = grad [log pi(a|s) + weight sign(delta) H], kappa 2.5; then the critic's, with the same delta."""
    agent = stream_ac.build(KINDS[kind], config())
    rng, batches = np.random.default_rng(3), experience(actions=[0, 2, 1, 2, 0, 1])
    for batch in batches:
        raw = batch["action"] if kind == "discrete" else 2 * rng.normal(size=(1, DIMS)).astype(np.float32)
        batch["extras"], batch["action"] = {"raw": raw}, np.zeros_like(raw)  # what was drawn counts

    def delta(parts, now):
        v, v_next = (V.apply(parts["critic"], now[x])[0] for x in ("x", "x_next"))
        return now["reward"] + now["discount"] * v_next - v

    signs = []

    def of_actor(parts, now):
        _, entropy = log_prob_and_entropy(kind, POLICY[kind].apply(parts["actor"], now["x"]), now["extras"]["raw"])
        signs.append(float(jnp.sign(delta(parts, now))))
        return delta(parts, now), now["done"], {"entropy": entropy}

    def climbed(actor, now):
        log_prob, entropy = log_prob_and_entropy(kind, POLICY[kind].apply(actor, now["x"]), now["extras"]["raw"])
        return log_prob + WEIGHT * jnp.where(now["delta"] > 0, 1, -1) * entropy

    references = {
        "actor": Traced("actor", of_actor, climbed, KAPPA),
        "critic": Traced("critic", lambda parts, now: (delta(parts, now), now["done"], {}),
                         lambda critic, now: V.apply(critic, now["x"])[0]),
    }  # fmt: skip
    assert list(agent.rules) == ["actor", "critic"]
    follows(agent, started(agent, "actor", "critic"), references, batches)
    assert {-1, 1} <= set(signs)
    assert agent.rules["actor"].writes == ("actor",) and agent.rules["critic"].writes == ("critic",)


def test_without_an_error_nothing_of_the_entropy_is_followed(kind):
    """At a delta of 0 its sign is 0: a value of 0, a reward of 0, and nothing after."""
    agent = stream_ac.build(KINDS[kind], config())
    parts = started(agent, "actor")
    parts["critic"] = jax.tree.map(jnp.zeros_like, parts["critic"])
    batch = experience(actions=[0, 2, 1, 2, 0, 1])[4]
    raw = batch["action"] if kind == "discrete" else np.full((1, DIMS), 0.3, np.float32)
    batch |= {"reward": 0 * batch["reward"], "extras": {"raw": raw}}
    x = x_of(batch["obs"][0], batch["memory"][0])
    log_prob, _ = log_prob_and_entropy(kind, POLICY[kind].apply(parts["actor"], x), raw[0])
    value, metrics = jax.jit(lambda parts, batch: agent.rules["actor"].loss(parts, parts, batch, KEY))(parts, batch)
    assert metrics["delta"] == 0
    assert_allclose(value, -log_prob, rtol=1e-5)


def test_acts_by_the_mode_or_by_a_draw(kind):
    """A normal without a tanh, within the bounds for the environment alone; what was drawn is kept."""
    agent = stream_ac.build(KINDS[kind], config())
    parts = started(agent, "actor")
    for scale in (0.1, 9):
        obs = scale * jnp.array([0.3, -1.0, 2.0])
        output = POLICY[kind].apply(parts["actor"], x_of(obs, 6))
        greedy, drawn = (agent.act(parts, jnp.int32(6), obs, CTX, explore) for explore in (False, True))
        assert greedy[1] == drawn[1] == 7
        if kind == "discrete":
            assert greedy[0] == output.argmax() and drawn[0] == jax.random.categorical(KEY, output)
            assert greedy[0].dtype == drawn[0].dtype == jnp.int32
            assert (greedy[2], drawn[2]) == ({"raw": greedy[0]}, {"raw": drawn[0]})
            continue
        center, std = normal(output)
        raw = center + std * jax.random.normal(KEY, (DIMS,))
        near((greedy[2], drawn[2]), ({"raw": center}, {"raw": raw}))
        near((greedy[0], drawn[0]), tuple(np.minimum(np.maximum(x, -1), 1) for x in (center, raw)))
    if kind == "continuous":
        assert (np.abs(raw) > 1).any()


def test_parts_at_the_start(kind):
    agent = stream_ac.build(KINDS[kind], config())
    parts = jax.jit(agent.init)(KEY)
    assert set(parts) == {"actor", "critic", "norm", "reward_norm"}
    outputs = 2 * DIMS if kind == "continuous" else ACTIONS
    assert parts["actor"]["Dense_2"]["kernel"].shape == (STREAM["width"], outputs)
    first = [np.asarray(parts[name]["Dense_0"]["kernel"]) for name in ("actor", "critic")]
    assert (first[0] != first[1]).any()
    assert_allclose([(kernel == 0).sum(axis=0) for kernel in first], 2)  # half of four inputs


def test_a_recipe_is_one_environment_and_one_step(kind):
    recipe = stream_ac.recipe(KINDS[kind], stream_ac.Config())
    assert (recipe.num_envs, recipe.unroll, recipe.ratio, recipe.warmup) == (1, 1, 1, 0)
    assert recipe.agent.memory() == 0


def test_configuration():
    defaults(
        stream_ac.Config(), width=128, lr=1.0, kappa=2.0, gamma=0.99, lambda_=0.8, sparsity=0.9, bound=True,
        normalise=True, layer_norm=True, bootstrap_truncated=False, kappa_policy=3.0, entropy_weight=0.01,
    )  # fmt: skip
    bounded(stream_ac.Config, {"kappa_policy": 0.0, "entropy_weight": 0.0, "width": 1})
    with pytest.raises(BadInput, match="stream_ac acts in"):
        stream_ac.build(Specs(OBS, Box((2,), low=-2)), stream_ac.Config())

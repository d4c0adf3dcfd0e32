"""The pages of docs/ show code that runs: every block stands in docs/examples, and what it claims is checked here."""

import ast
import importlib
import re
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from docs.examples import add_your_idea as ideas
from docs.examples import architecture as nouns
from envs.core import scale_action, time_limit
from envs.probes import probe
from envs.registry import make
from jaxrl.agents import sac
from jaxrl.core import Ctx, Discrete, Env, Recipe, Specs, TimeStep, first, repeat
from jaxrl.loop import evaluate, loop, train
from jaxrl.nets import MLP, net
from jaxrl.sources import latest

ROOT = Path(__file__).parent.parent
KEY = jax.random.key(5)
SMALL = sac.Config((16,), batch=32, capacity=500, warmup=32)


@pytest.mark.parametrize("page", ["architecture.md", "add-your-idea.md", "custom-env.md"])
def test_pages_show_the_code_that_is_tested(page):
    code = "\n".join(path.read_text() for path in (ROOT / "docs" / "examples").glob("*.py"))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        assert block.strip() in code, f"{page} shows code that no example holds:\n{block}"


def test_the_example_of_the_readme_trains_by_its_recipe(tmp_path, monkeypatch, capsys):
    """As it stands, but for its task and its lengths; nothing that the recipe says is lost on the way."""
    block = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    short = {'make("cartpole-swingup", repeat=8)': 'make("mountain-car-continuous")', "100_000": "96", "10_000": "24"}
    short["sac.Config()"] = "sac.Config((8,), batch=8, capacity=64, warmup=32, num_envs=4, ratio=3)"
    for long, brief in short.items():
        assert block.count(long) == 1
        block = block.replace(long, brief)
    (tmp_path / "example_of_readme.py").write_text(block.replace("episodes=8", "episodes=1"))
    monkeypatch.syspath_prepend(tmp_path)
    example = importlib.import_module("example_of_readme")
    assert np.isfinite(float(capsys.readouterr().out))
    assert example.run.last.shape[0] == 4 and int(example.run.step) == 96
    updates = example.run.rules["critic"][0].count  # of Adam
    assert updates == 3 * (96 - 32) // 4
    assert_array_equal(jnp.isnan(example.metrics["critic/loss"]), [True, False, False, False])


def test_the_library_does_not_know_its_users():
    for path in (ROOT / "jaxrl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            found += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in found:
                assert name.split(".")[0] not in ("envs", "experiments", "docs"), f"{path} imports {name}"
                if name.split(".")[0] == "flax":
                    assert path.parent.name == "nets", f"{path} imports flax outside nets/"


# ------------------------------------------------------------------------------------------------- add your idea


def chunk(env, recipe, ticks, key=KEY):
    one = loop(env, recipe)
    return jax.jit(lambda key: one.chunk(one.init(key), ticks))(key)


def test_the_auxiliary_loss_smooths_and_leaves_the_rest():
    env = scale_action(make("pendulum"))
    base = sac.recipe(env.specs, SMALL)
    run, _ = chunk(env, base, 50)
    batch = base.source.sample(run.source, run.parts, KEY)

    def learned(agent):
        """The actor and the last change of its actions after 1000 steps on one batch: nothing chaotic in between."""
        rule = repeat(1000, agent.rules["actor"])
        parts, _, _ = rule.update(run.parts, rule.init(run.parts), batch, Ctx(KEY, run.step))
        metrics = agent.rules["actor"].update(parts, rule.init(parts), batch, Ctx(KEY, run.step))[2]
        return parts["actor"], metrics.get("change", jnp.zeros(1)).mean()

    agents = [base.agent, ideas.smooth(base.agent, 0.0), ideas.smooth(base.agent, 1000.0)]
    assert agents[1].rules["critic"] is base.agent.rules["critic"]
    (plain, _), (same, rough), (_, smoothed) = (jax.jit(lambda agent=agent: learned(agent))() for agent in agents)
    assert jnp.abs(plain["Dense_0"]["kernel"] - run.parts["actor"]["Dense_0"]["kernel"]).max() > 1e-2
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.abs(a - b).max(), plain, same))) < 1e-4
    assert smoothed < 0.2 * rough


def test_the_mirrored_source_shows_both_sides_consistently():
    env = probe(5, continuous=True)
    base = sac.recipe(env.specs, SMALL)
    run, _ = chunk(env, base, 100)
    batch = ideas.mirrored(base.source, (-1.0,)).sample(run.source, run.parts, KEY)
    plain = base.source.sample(run.source, run.parts, jax.random.split(KEY)[0])
    sign = batch["obs"] * plain["obs"]  # observations are -1 or 1
    assert set(np.asarray(sign).ravel()) == {-1.0, 1.0}
    assert_allclose(batch["action"], sign * plain["action"])
    assert_array_equal(batch["reward"], plain["reward"])


def test_the_perturbation_comes_when_it_is_due():
    env = probe(5, continuous=True)
    base = replace(sac.recipe(env.specs, replace(SMALL, lr=0.0, warmup=0)), warmup=0)
    recipe = replace(base, agent=ideas.perturbed(base.agent, period=10, keep=0.5))
    kernel = lambda run: run.parts["actor"]["Dense_0"]["kernel"]
    one = loop(env, recipe)
    step = jax.jit(one.chunk, static_argnums=1)
    start = jax.jit(one.init)(KEY)
    before, _ = step(start, 9)
    after, _ = step(before, 1)
    assert_array_equal(kernel(before), kernel(start))
    assert (kernel(after) != kernel(start)).any()


def test_the_three_ideas_combine():
    env = scale_action(make("pendulum"))
    run, metrics = chunk(env, ideas.recipe(env.specs, SMALL), 100)
    assert {"actor/change", "critic/loss"} <= set(metrics)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(run.parts))


# -------------------------------------------------------------------------------------------------- architecture


def test_ppo_gru_remembers_within_episodes_and_forgets_between_them():
    env = make("cartpole-masked")
    one = loop(env, nouns.ppo_gru(env.specs))
    run, metrics = jax.jit(lambda key: one.chunk(one.init(key), 2))(KEY)
    _, batch = jax.jit(one.collect)(run)
    memory, end = batch["memory"]["actor"], batch["end"]
    assert memory.shape == (32, 8, 16) and jnp.isfinite(metrics["policy/loss"])
    began = jnp.concatenate([jnp.zeros_like(end[:1]), end[:-1]])
    assert end.any() and (memory[began] == 0).all()
    assert (memory[~began][8:] != 0).any(axis=-1).all()


def test_the_archive_keeps_the_best_actor():
    env = make("cartpole")
    base = nouns.ppo_gru(env.specs)
    agent = nouns.archived(base.agent)
    one = loop(env, replace(base, agent=agent))
    tick = jax.jit(lambda run: one.chunk(run, 1))
    run, best = jax.jit(one.init)(KEY), -jnp.inf
    for _ in range(6):
        before = run.parts["actor"]
        run, metrics = tick(run)
        found = metrics["archive/return"]
        if found > best:
            best = found
            assert_array_equal(
                run.parts["best"]["actor"]["net"]["Dense_0"]["kernel"], before["net"]["Dense_0"]["kernel"]
            )
        assert run.parts["best"]["return"] == best
    assert jnp.isfinite(best)


def test_the_refit_event_learns_and_resumes_bit_for_bit():
    env = probe(2)
    model = net(MLP((8,), 1), env.specs.observation)
    apply = lambda parameters, obs: model.apply(parameters, obs)[..., 0]
    from jaxrl.agents import dqn

    base = dqn.recipe(env.specs, dqn.Config((8,), batch=16, capacity=64, warmup=0, num_envs=1))
    init = base.agent.init
    agent = replace(base.agent, init=lambda key: {**init(key), "model": model.init(key)})
    event = nouns.refit(base.source, apply, period=20, updates=150)

    made = replace(base, agent=agent, events=(event,))
    _, metrics = jax.jit(lambda key: train(env, made, key, steps=40, chunk=10))(KEY)
    assert_array_equal(jnp.isnan(metrics["model/loss"]), [True, False, True, False])
    assert metrics["model/loss"][-1] < 0.05  # the reward is the observation

    one = loop(env, made)
    turn = jax.jit(lambda run: one.chunk(run, 10)[0])
    stopped = jax.jit(one.init)(KEY)
    for _ in range(2):
        stopped = turn(stopped)
    saved = jax.tree.map(
        lambda x: x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else jnp.array(np.asarray(x)), stopped
    )
    ends = [jax.tree.leaves(turn(turn(s)).parts) for s in (stopped, saved)]
    assert all((a == b).all() for a, b in zip(*ends))


def chain_world(n: int = 6) -> Env:
    """Left pays 0.1 at once and returns to the start; only n - 1 steps to the right reach the reward of 1."""
    see = lambda s: jax.nn.one_hot(s, n)

    def reset(key):
        return jnp.int32(0), first(see(0))

    def step(s, action):
        there = (s == n - 1) & (action == 1)
        reward = jnp.where(action == 1, there.astype(jnp.float32), 0.1 * (s == 0))
        after = jnp.where(action == 1, jnp.minimum(s + 1, n - 1), 0).astype(jnp.int32)
        return after, TimeStep(see(after), reward, jnp.bool_(False), jnp.bool_(False))

    specs = Specs(jax.ShapeDtypeStruct((n,), jnp.float32), Discrete(2))
    return time_limit(Env(reset, step, specs, "chain"), 12)


def test_the_tabular_learner_explores_the_chain():
    env = chain_world()
    agent = nouns.ucbvi(6, 2, horizon=12, bonus=0.5)
    run, _ = jax.jit(lambda key: train(env, Recipe(agent, latest()), key, steps=600))(KEY)
    greedy = nouns.ucbvi(6, 2, horizon=12, bonus=0.0)
    out = jax.jit(lambda parts: evaluate(env, greedy, parts, KEY, 1))(run.parts)
    assert out["return"][0] >= 6  # five steps there, then 1 a step; the near reward alone pays 1.2

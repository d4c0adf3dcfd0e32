"""Jaxrl: an agent's loop, its bare update, and the bytes of its replay."""

import jax
import jax.numpy as jnp
import optax

from envs.core import scale_action
from envs.registry import make
from envs.render import pixels
from experiments.bench.sides.compiled import compiled, finite
from experiments.bench.worker import Side
from jaxrl.agents.combined import configured, find
from jaxrl.core import Box, Ctx, Descent, Rule, chain, fold
from jaxrl.loop import loop, over_seeds


def recipe_of(settings: dict):
    """(environment, recipe) of `settings`: agent, env, config (fields of the agent's Config, which must exist).

    `repeat` holds actions, and `pixels` shows pictures of that side in place of the state.
    """
    env = make(settings["env"], settings.get("repeat", 1))
    if isinstance(env.specs.action, Box):
        env = scale_action(env)
    if "pixels" in settings:
        env = pixels(env, settings["pixels"])
    module = find(settings["agent"])
    return env, module.recipe(env.specs, configured(module.Config, untold(settings["config"])))


def untold(config: dict) -> dict:
    """Settings as they were before JSON made lists of their tuples."""
    kinds = {list: tuple, dict: untold}
    return {name: kinds.get(type(x), lambda x: x)(x) for name, x in config.items()}


def learned(recipe) -> int:
    """Numbers in the networks that rules descend a gradient for: no targets, temperatures or statistics."""
    apart = ("target", "log_alpha", "norm")
    return sum(
        x.size
        for name, part in recipe.agent.shapes.items()
        if not name.startswith(apart)
        for x in jax.tree.leaves(part)
    )


def whole(settings: dict) -> Side:
    """The compiled loop: `settings['units']` environment steps a window, of all `seeds` together."""
    env, recipe = recipe_of(settings)
    one, seeds, key = loop(env, recipe), settings.get("seeds", 1), jax.random.key(0)
    ticks = settings["units"] // (seeds * one.frames)
    if seeds > 1:
        one, key = over_seeds(one, settings.get("how")), jax.random.split(key, seeds)
    state = {"run": jax.jit(one.init)(key)}

    def compile():
        lowered = jax.jit(one.chunk, static_argnums=1, donate_argnums=0).lower(state["run"], ticks)
        state["chunk"] = lowered.compile()

    def window():
        state["run"], metrics = state["chunk"](state["run"])
        jax.block_until_ready((state["run"].step, metrics))

    return Side(
        ticks * one.frames * seeds,
        compile,
        window,
        lambda: finite(state["run"].parts),
        learned(recipe),
        one.updates / one.frames,
    )


def updating(settings: dict) -> Side:
    """The same loop with an update for its unit, however many there are for each environment step."""
    side = whole(settings)
    return side._replace(units=round(side.units * side.updates), updates=1.0)


def bare(settings: dict) -> Side:
    """The agent's rules alone, over and over on one fixed batch: what the loop can at best reach."""
    env, recipe = recipe_of(settings)
    return repeated(env, recipe, recipe.agent.rules, settings)


def losses(settings: dict) -> Side:
    """The gradient steps among those rules, and nothing else that rules do."""
    env, recipe = recipe_of(settings)
    steps = {name: rule for name, rule in recipe.agent.rules.items() if isinstance(rule, Descent)}
    return repeated(env, recipe, {name: stepping(rule) for name, rule in steps.items()}, settings)


def stepping(step: Descent) -> Rule:
    """What `minimise` is without its checks: a gradient, and what the optimiser makes of it."""

    def update(parts, state, batch, ctx):
        live = {name: parts[name] for name in step.wrt}
        slope = jax.grad(lambda live: step.loss(live, parts, batch, ctx.key)[0])(live)
        steps, state = step.tx.update(slope, state, live, frames=ctx.frames)
        return parts | optax.apply_updates(live, steps), state, {}

    return Rule(step.init, update)


def repeated(env, recipe, rules: dict[str, Rule], settings: dict) -> Side:
    """Some rules, over and over on one batch of the recipe's source."""
    one, count = loop(env, recipe), settings["units"]
    ticks = max(recipe.warmup // one.frames, settings["config"]["batch"] // recipe.num_envs) + 1
    run = jax.jit(lambda key: one.chunk(one.init(key), ticks)[0])(jax.random.key(0))
    batch = jax.jit(recipe.source.sample)(run.source, run.parts, jax.random.key(1))
    carry = jax.tree.map(jnp.copy, (run.parts, chain(rules).init(run.parts)))
    side = compiled(repeating(rules, count), carry, count, batch, jax.random.key(2))
    return side._replace(parameters=learned(recipe), updates=1.0)


def repeating(rules: dict[str, Rule], count: int):
    """`(carry, batch, key) -> carry`, where a carry is parts and the rules' state: so many updates."""
    rule = chain(rules)

    def updates(carry, batch, key):
        def once(carry, i):
            parts, rules, _ = rule.update(*carry, batch, Ctx(fold(key, i), jnp.int32(0), i))
            return (parts, rules), None

        return jax.lax.scan(once, carry, jnp.arange(count))[0]

    return updates


def replay(settings: dict) -> Side:
    """Bytes of a replay beside those of what it holds, each thing once: obs, action, reward, discount, end."""
    env, recipe = recipe_of(settings)
    run = jax.eval_shape(loop(env, recipe).init, jax.random.key(0))
    held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(run.source))
    action = env.specs.action
    each = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(env.specs.observation))
    each += int(jnp.prod(jnp.array(action.shape))) * jnp.dtype(action.dtype).itemsize + 4 + 4 + 1
    figures = {"ours": held, "peer": each * settings["config"]["capacity"]}
    nothing = lambda: None
    return Side(1, nothing, nothing, lambda: True, figures=figures)

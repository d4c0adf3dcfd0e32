"""Learned models: fits of ensembles, searches in them, and a denoiser's transitions, each beside its bare parts."""

import jax
import jax.numpy as jnp

from envs.core import scale_action
from envs.registry import make
from experiments.bench.sides.compiled import compiled
from experiments.bench.sides.ours import recipe_of, repeating
from experiments.bench.sides.transitions import made
from experiments.bench.worker import Side
from jaxrl.agents.pets import expected
from jaxrl.core import Ctx, fold
from jaxrl.equations.diffusion import denoiser
from jaxrl.loop import loop
from jaxrl.models import diffusion, ensemble
from jaxrl.nets import Denoising, net
from jaxrl.planning import cem


def dynamics(settings: dict):
    """An ensemble for a pendulum, of `members`, `widths` and `batch`; all of its members are elites."""
    specs = scale_action(make("pendulum")).specs
    members, passes = settings["members"], settings.get("passes", 1)
    how = {"lr": settings.get("lr", 1e-3), "batch": settings["batch"], "patience": passes, "passes": passes}
    config = ensemble.Config(members, members, tuple(settings["widths"]), **how)
    return ensemble.dynamics(specs, config)


def fit(settings: dict) -> Side:
    """`passes` over `size` transitions, none of which stops early: the unit is a transition that all members saw."""
    model = dynamics(settings)
    data = {name: jnp.asarray(x) for name, x in made(settings["size"]).items()}
    data |= {"discount": jnp.ones(settings["size"]), "weight": jnp.ones(settings["size"])}
    trained = settings["size"] - round(0.2 * settings["size"])
    step = lambda part, data: model.fit(part, data, jax.random.key(1))[0]
    part = model.init(jax.random.key(0))
    each = sum(x.size for x in jax.tree.leaves(part["members"])) // settings["members"]
    return compiled(step, part, settings["passes"] * trained, data)._replace(parameters=each)


def search(settings: dict) -> Side:
    """CEM as PETS has it, from `abreast` observations at once: the unit is a step of the model."""
    model = dynamics(settings)
    horizon, population, turns, particles = (settings[x] for x in ("horizon", "population", "turns", "particles"))
    plans, abreast, count = cem(horizon, 1, population, turns), settings["abreast"], settings["plans"]
    part = model.init(jax.random.key(0))

    def one(key, obs, last, part):
        return plans.plan(key, expected(model, part, obs, particles), last)

    def many(last, part, obs):
        def turn(last, key):
            return jax.vmap(one, (0, 0, 0, None))(jax.random.split(key, abreast), obs, last, part), None

        return jax.lax.scan(turn, last, jax.random.split(jax.random.key(2), count))[0]

    last = jax.tree.map(lambda x: jnp.broadcast_to(x, (abreast, *x.shape)).copy(), plans.fresh)
    obs = jnp.asarray(made(abreast)["obs"])
    return compiled(many, last, count * abreast * turns * population * particles * horizon, part, obs)


def steps(settings: dict) -> Side:
    """As many steps of the model as that search takes, in as many rows at once, and nothing else."""
    model = dynamics(settings)
    rows = settings["abreast"] * settings["population"] * settings["particles"]
    count = settings["plans"] * settings["turns"] * settings["horizon"]
    part = model.init(jax.random.key(0))
    first = jnp.asarray(made(rows)["obs"])

    def onward(obs, part, action):
        # As in the search, each rollout begins anew: a model that learned nothing leads anywhere in the long run.
        def turn(obs, key):
            go = lambda obs, key: (model.step(part, obs, action, key).next_obs, None)
            end, _ = jax.lax.scan(go, obs, jax.random.split(key, settings["horizon"]))
            return obs + 0.0 * end, None

        return jax.lax.scan(turn, obs, jax.random.split(jax.random.key(2), count // settings["horizon"]))[0]

    return compiled(onward, first, rows * count, part, jnp.asarray(made(rows)["action"]))


def dreams(settings: dict) -> Side:
    """A denoiser's refit and its draw of `samples` transitions: the unit is one of these."""
    model = diffusion.generator(8, diffusion.Config(**settings["model"]))
    data = made(settings["size"])
    x = jnp.concatenate([data["obs"], data["action"], data["reward"][:, None], data["next_obs"]], axis=1)

    def refit(carry, x):
        part, _ = model.fit(carry[0], x, jnp.ones(len(x)), jax.random.key(1))
        return part, model.draw(part, jax.random.key(2), settings["samples"])

    start = (model.init(jax.random.key(0)), jnp.zeros((settings["samples"], 8)))
    return compiled(refit, start, settings["samples"], x)


def networks(settings: dict) -> Side:
    """As many gradients and evaluations of the denoiser's network as that takes, and nothing else."""
    config = diffusion.Config(**settings["model"])
    vector, number = jax.ShapeDtypeStruct((8,), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    network = net(Denoising(8, config.width, config.blocks, config.embedding), vector, number)
    told = lambda parameters, x: jax.vmap(lambda x: denoiser(lambda x, s: network.apply(parameters, x, s))(x, 1.0))(x)
    turns = settings["samples"] // config.lot * (2 * config.levels - 1)

    def evaluate(carry, batch):
        parameters, x = carry
        slope = jax.grad(lambda parameters: (told(parameters, batch) ** 2).mean())
        descend = lambda parameters, _: (jax.tree.map(lambda a, b: a - 1e-6 * b, parameters, slope(parameters)), None)
        parameters, _ = jax.lax.scan(descend, parameters, length=config.updates)
        x, _ = jax.lax.scan(lambda x, _: (jnp.tanh(told(parameters, x)), None), x, length=turns)
        return parameters, x

    start = (network.init(jax.random.key(0)), jnp.ones((config.lot, 8)))
    return compiled(evaluate, start, settings["samples"], jnp.ones((config.batch, 8)))


def parts(settings: dict) -> Side:
    """What a loop with a model is made of, one after another: its updates on one batch, and its refits with rollouts.

    Of as many frames as `ours.whole` has; environment, acting and replay are left out.
    """
    env, recipe = recipe_of(settings)
    one = loop(env, recipe)
    (event,) = recipe.events
    times, each = settings["units"] // event.period, recipe.ratio * event.period // one.frames
    run = jax.jit(lambda key: one.chunk(one.init(key), settings["units"] // one.frames)[0])(jax.random.key(0))
    batch = jax.jit(recipe.source.sample)(run.source, run.parts, jax.random.key(1))
    update = repeating(recipe.agent.rules, each)

    def window(run, batch):
        def turn(run, i):
            key = fold(jax.random.key(2), i)
            run, _ = event.fn(run, Ctx(key, run.step, i))
            learned, rules = update((run.parts, run.rules), batch, key)
            return run._replace(parts=learned, rules=rules), None

        return jax.lax.scan(turn, run, jnp.arange(times))[0]

    return compiled(window, run, settings["units"], batch)

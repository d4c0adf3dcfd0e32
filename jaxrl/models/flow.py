"""A flow of vectors from noise to data: fitted, sampled in a few steps that suit it, straightened along these.

Lipman et al. 2023 (flow matching); Nguyen et al. 2024 (BOSS) for the steps and the straightening. What is made may
depend on something given, as an action on a state: then this is a policy. Sizes and optimiser are a denoiser's.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl.core import Key, Metrics, PyTree
from jaxrl.equations.diffusion import best_steps, euler, flow_loss, jump_cost, straightening_loss
from jaxrl.models.diffusion import Config, conditional, descended, held, seen, sound, standard


class Flow(NamedTuple):
    """A generator of vectors as functions of its part. `given` [., m] is what each depends on, where anything is.

    `init(key) -> part`; `fit(part, x [S, n], weight [S], key, given=None) -> (part, metrics)` learns anew from the rows
    whose weight is above 0; `draw(part, key, count, times [K + 1], given=None) -> [count, n]`, by a step between two
    times each, from 0 to 1; `steps(part, key, k, given=None) -> (times [k + 1], cost [])`, those of a grid that cost
    least over `given` or so many draws; `straightened(part, key, times, given=None) -> part`, the flow that goes in
    these steps as this one did on the fine grid.
    """

    init: Callable[[Key], PyTree]
    fit: Callable[..., tuple[PyTree, Metrics]]
    draw: Callable[..., Float[Array, "count n"]]
    steps: Callable[..., tuple[Float[Array, "points"], Float[Array, ""]]]
    straightened: Callable[..., PyTree]


def flow(n: int, config: Config, given: int = 0, grid: int = 100, draws: int = 256) -> Flow:
    """A flow of vectors of length n.

    Args:
        given: length m of what each vector depends on.
        grid: steps of the fine grid, of which the few are chosen.
        draws: of the flow, by which steps are chosen and which straightening learns from, where nothing is given.
    """
    network = conditional(n, given, config)
    fine = jnp.linspace(0.0, 1.0, grid + 1)

    def init(key):
        return {"network": network.init(key), "norm": {"mean": jnp.zeros(n), "std": jnp.ones(n)}}

    def velocity(parameters, about):
        return lambda x, time: network.apply(parameters, jnp.concatenate([x, about]), time)

    def fit(part, x, weight, key, given=None):
        key_init, key_fit = jax.random.split(key)
        norm = standard(x, weight)
        x, about, rows = (x - norm["mean"]) / norm["std"], seen(given, len(x)), held(weight, config.batch)

        def loss(parameters, key):
            key_rows, key_noise, key_time = jax.random.split(key, 3)
            at = rows(key_rows)
            noise, time = jax.random.normal(key_noise, (config.batch, n)), jax.random.uniform(key_time, (config.batch,))
            one = lambda about, *pair: flow_loss(velocity(parameters, about), *pair)
            return jax.vmap(one)(about[at], noise, x[at], time).mean()

        averaged, losses = descended(loss, network.init(key_init), key_fit, config)
        part, diverged = sound({"network": averaged, "norm": norm}, part)
        return part, {"loss": losses[-max(config.updates // 10, 1) :].mean(), "diverged": diverged}

    def paths(part, key, about, times):
        """Where flows from noise are at each time, and their noise's conditions: [B, K + 1, n], standardised."""
        noise = jax.random.normal(key, (len(about), n))
        return jax.vmap(lambda noise, about: euler(velocity(part["network"], about), noise, times))(noise, about)

    def draw(part, key, count, times, given=None):
        ends = paths(part, key, seen(given, count), times)[:, -1]
        return ends * part["norm"]["std"] + part["norm"]["mean"]

    def steps(part, key, k, given=None):
        about = seen(given, draws)
        each = lambda about, path: jump_cost(velocity(part["network"], about), path, fine)
        # One after another: a table of costs takes (grid + 1)^2 n numbers a draw.
        add = lambda total, pair: (total + each(*pair) / len(about), None)
        start = jnp.zeros((grid + 1, grid + 1))
        cost, _ = jax.lax.scan(add, start, (about, paths(part, key, about, fine)))
        at, least = best_steps(cost, k)
        return fine[at], least

    def straightened(part, key, times, given=None):
        key_paths, key_fit = jax.random.split(key)
        about = seen(given, draws)
        path = paths(part, key_paths, about, fine)[:, jnp.round(times * grid).astype(jnp.int32)]

        def loss(parameters, key):
            key_who, key_where = jax.random.split(key)
            who = jax.random.randint(key_who, (config.batch,), 0, len(about))
            at = jax.random.randint(key_where, (config.batch,), 0, len(times) - 1)
            one = lambda about, *segment: straightening_loss(velocity(parameters, about), *segment)
            return jax.vmap(one)(about[who], path[who, at], path[who, at + 1], times[at], times[at + 1]).mean()

        averaged, _ = descended(loss, part["network"], key_fit, config)
        return sound({**part, "network": averaged}, part)[0]

    return Flow(init, fit, draw, steps, straightened)

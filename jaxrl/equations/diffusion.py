"""Denoising and flows: what a network of them learns from, and how samples are made of what it says.

The elucidated design of Karras et al. 2022 (EDM), in which data have a spread of 1; noisy data of Daras et al. 2025;
flows between noise at time 0 and data at time 1 (Lipman et al. 2023), and the steps that Nguyen et al. 2024 (BOSS) take
along them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrl.core import Key

# (x [...], sigma or time []) -> like x: what is denoised, or where the flow goes.
Field = Callable[[jax.Array, jax.Array], jax.Array]


class Scaling(NamedTuple):
    """Of a denoiser D(x) = skip x + out F(in x, noise): skip, out, in_ and noise, each [...] as sigma."""

    skip: jax.Array
    out: jax.Array
    in_: jax.Array
    noise: jax.Array


def scaling(sigma: jax.Array, spread: float = 1.0) -> Scaling:
    """How a denoiser for data of that spread uses its network at a noise level  (Karras et al. 2022, table 1)."""
    total = jnp.sqrt(sigma**2 + spread**2)
    return Scaling(spread**2 / total**2, sigma * spread / total, 1 / total, jnp.log(sigma) / 4)


def denoiser(network: Field, spread: float = 1.0) -> Field:
    """D(x; sigma) of a network F(x, noise) of one item."""

    def denoise(x, sigma):
        c = scaling(sigma, spread)
        return c.skip * x + c.out * network(c.in_ * x, c.noise)

    return denoise


def noise_level(key: Key, center: float = -1.2, width: float = 1.2) -> jax.Array:
    """A level of noise to learn at: ln sigma is normal  (Karras et al. 2022, table 1)."""
    return jnp.exp(center + width * jax.random.normal(key))


def denoising_loss(
    denoise: Field,
    x: Float[Array, "n"],
    sigma: jax.Array,
    key: Key,
    known: jax.Array | float = 0.0,
    spread: float = 1.0,
) -> Float[Array, ""]:
    """What one item teaches a denoiser at a noise level, weighed so that each level weighs as much.

    Args:
        known: standard deviation of the noise that the item has already, [] or [n]; it teaches levels above alone, and
            the denoiser is asked for the item by way of what it says of the clean one  (Daras et al. 2025, eq. 4.1).
            0 is Karras et al. 2022, eq. 2.
    """
    known = jnp.asarray(known, jnp.float32)
    sigma = jnp.maximum(sigma, known.max() + 1e-4 * (known.max() > 0))
    noised = x + jnp.sqrt(sigma**2 - known**2) * jax.random.normal(key, x.shape)
    clean = denoise(noised, sigma)
    told = clean + (known / sigma) ** 2 * (noised - clean)
    return (sigma**2 + spread**2) / (sigma * spread) ** 2 * ((told - x) ** 2).mean()


def noise_levels(n: int, low: float = 0.002, high: float = 80.0, rho: float = 7.0) -> Float[Array, "levels"]:
    """The levels that n steps of sampling go down, and 0 at last  (Karras et al. 2022, eq. 5)."""
    ramp = jnp.linspace(high ** (1 / rho), low ** (1 / rho), n) ** rho
    return jnp.append(ramp, 0.0)


def heun(
    denoise: Field,
    key: Key,
    x: Float[Array, "n"],
    levels: Float[Array, "levels"],
    churn: float = 0.0,
    between: tuple[float, float] = (0.05, 50.0),
    stir: float = 1.003,
) -> Float[Array, "n"]:
    """A sample, from normal noise x of variance 1: Heun's steps down the levels  (Karras et al. 2022, algorithm 2).

    Args:
        churn: noise that is added again at each step between two levels, times the number of steps; `stir` scales it.
    """
    most = min(churn / (levels.size - 1), 2**0.5 - 1)

    def step(x, given):
        now, then, key = given
        more = now * jnp.where((now >= between[0]) & (now <= between[1]), most, 0.0)
        high = now + more
        x = x + jnp.sqrt(jnp.maximum(high**2 - now**2, 0)) * stir * jax.random.normal(key, x.shape)
        slope = (x - denoise(x, high)) / high
        ahead = x + (then - high) * slope
        # The last step ends at no noise, where the slope is not defined: it is Euler's.
        level = jnp.maximum(then, 1e-9)
        corrected = x + (then - high) * 0.5 * (slope + (ahead - denoise(ahead, level)) / level)
        return jnp.where(then > 0, corrected, ahead), None

    steps = (levels[:-1], levels[1:], jax.random.split(key, levels.size - 1))
    return jax.lax.scan(step, levels[0] * x, steps)[0]


# ------------------------------------------------------------------------------------------------------------ flows


def flow_loss(velocity: Field, noise: Float[Array, "n"], x: Float[Array, "n"], time: jax.Array) -> Float[Array, ""]:
    """What a pair of noise and item teaches a velocity: the straight way between them  (Lipman et al. 2023, eq. 23)."""
    return ((velocity((1 - time) * noise + time * x, time) - (x - noise)) ** 2).mean()


def euler(velocity: Field, x: Float[Array, "n"], times: Float[Array, "K"]) -> Float[Array, "K n"]:
    """The flow from x at the first time, in Euler's steps: where it is at each time."""

    def step(x, between):
        now, then = between
        ahead = x + (then - now) * velocity(x, now)
        return ahead, ahead

    return jnp.concatenate([x[None], jax.lax.scan(step, x, (times[:-1], times[1:]))[1]])


def jump_cost(velocity: Field, path: Float[Array, "T n"], times: Float[Array, "T"]) -> Float[Array, "T T"]:
    """How far one step from a point of a fine path misses each later one, squared; infinite backwards.

    Nguyen et al. 2024 (BOSS), section 3.2.
    """
    slopes = jax.vmap(velocity)(path, times)
    ahead = path[:, None] + slopes[:, None] * (times[None, :] - times[:, None])[..., None]
    missed = ((ahead - path[None]) ** 2).sum(axis=-1)
    return jnp.where(times[None, :] > times[:, None], missed, jnp.inf)


def best_steps(cost: Float[Array, "T T"], steps: int) -> tuple[Int[Array, "points"], Float[Array, ""]]:
    """The points of a grid that lead from its first to its last in so many steps at the least summed cost, and that.

    Nguyen et al. 2024 (BOSS), algorithm 1: dynamic programming from the end.
    """

    def longer(value, _):
        through = cost + value[None, :]
        return through.min(axis=1), (through.argmin(axis=1))

    value, choices = jax.lax.scan(longer, cost[:, -1], None, length=steps - 1)

    def follow(at, choice):
        after = choice[at]
        return after, after

    # The choices of the longest way come first.
    _, between = jax.lax.scan(follow, jnp.int32(0), choices[::-1].astype(jnp.int32))
    last = jnp.int32(cost.shape[0] - 1)
    return jnp.concatenate([jnp.zeros(1, jnp.int32), between, last[None]]), value[0]


def straightening_loss(
    velocity: Field, start: Float[Array, "n"], end: Float[Array, "n"], now: jax.Array, then: jax.Array
) -> Float[Array, ""]:
    """What a segment of a teacher's path teaches: to go straight to where it ends  (Nguyen et al. 2024, eq. 9)."""
    return ((velocity(start, now) - (end - start) / (then - now)) ** 2).sum()

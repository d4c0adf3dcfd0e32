"""Running statistics of observations and returns, as parts that rules change.

A part rather than an environment wrapper: the training environments, the evaluation and an exported policy then share
one set of numbers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.core import Rule, stateless

WINDOW = 2**22  # times as many samples as are added at once are remembered at least


class Moments(NamedTuple):
    """mean and m2 (sum of squared deviations), float32 of one item's shape; count, float32 []."""

    mean: jax.Array
    m2: jax.Array
    count: jax.Array


def moments(shape: tuple[int, ...] = ()) -> Moments:
    return Moments(jnp.zeros(shape), jnp.zeros(shape), jnp.float32(0))


def variance(m: Moments) -> jax.Array:
    """Unbiased; 1 until there are two samples."""
    return jnp.where(m.count > 1, m.m2 / jnp.maximum(m.count - 1, 1), 1.0)


def merge(m: Moments, x: jax.Array, weight: jax.Array) -> Moments:
    """The moments with samples x `[..., *shape]` of weights `[...]` (0 or 1) added  (Chan et al. 1979, eq. 2.1).

    Samples of weight 0 are not looked at. Once those added are fewer than one in `WINDOW`, which a float32 sum over all
    would round away, the count stands still and as much is forgotten as is added: a running window.
    """
    x = x.reshape(-1, *m.mean.shape).astype(jnp.float32)
    weight = weight.reshape(-1, *(1 for _ in m.mean.shape)).astype(jnp.float32)
    x = jnp.where(weight > 0, x, 0.0)
    count = weight.sum()
    center = (weight * x).sum(axis=0) / jnp.maximum(count, 1)
    m2 = (weight * (x - center) ** 2).sum(axis=0)
    full = count < m.count / WINDOW
    total = m.count + jnp.where(full, 0.0, count)
    share = count / jnp.maximum(total, 1)
    delta = center - m.mean
    grown = m.m2 + m2 + delta**2 * m.count * share
    replaced = m.m2 + (m2 + delta**2 * m.count * share - m.m2 * share)
    return Moments(m.mean + delta * share, jnp.where(full, replaced, grown), total)


def normalise(m: Moments, x: jax.Array, clip: float | None = None) -> jax.Array:
    """(x - mean) / sqrt(var + 1e-8), optionally clipped."""
    z = (x - m.mean) * jax.lax.rsqrt(variance(m) + 1e-8)
    return z if clip is None else jnp.clip(z, -clip, clip)


def contrast(m: Moments, picture: jax.Array) -> jax.Array:
    """(picture - mean) / the root of the variance of all pixels: what moves, without what always stands there.

    One scale for all, so that a pixel that hardly ever changes is not magnified.
    """
    return (picture.astype(jnp.float32) - m.mean) * jax.lax.rsqrt(variance(m).mean() + 1e-8)


def scale(m: Moments, x: jax.Array) -> jax.Array:
    """x / sqrt(var + 1e-8): the sign and the zero of a reward keep their meaning."""
    return x * jax.lax.rsqrt(variance(m) + 1e-8)


def observation_statistics(part: str = "norm") -> Rule:
    """Count every observation once: what each step led to, and what each episode began with. A batch is `[T, N]`."""

    def count(parts, batch, ctx):
        starts = batch["info"]["episode"]["length"] == 1
        m = merge(parts[part], batch["next_obs"], jnp.ones_like(batch["end"]))
        return {part: merge(m, batch["obs"], starts)}, {}

    return stateless(count, writes=part)


def return_statistics(gamma: float, num_envs: int, part: str = "reward_norm", peak: str | None = None) -> Rule:
    """The spread of u <- gamma (1 - end) u + r, a running discounted return of each of the environments.

    Engstrom et al. 2020, as Elsayed et al. 2024 run it: at an episode's last step u starts again from that reward.
    With `peak` the largest |u| so far is kept in the part of that name, float32 [].
    """

    def update(parts, u, batch, ctx):
        def step(carry, now):
            m, u = carry
            reward, end = now
            u = gamma * jnp.where(end, 0, u) + reward
            return (merge(m, u, jnp.ones_like(u)), u), jnp.abs(u).max()

        (m, u), highest = jax.lax.scan(step, (parts[part], u), (batch["reward"], batch["end"]))
        new = {} if peak is None else {peak: jnp.maximum(parts[peak], highest.max())}
        return {**parts, part: m, **new}, u, {}

    changed = (part,) if peak is None else (part, peak)
    return Rule(lambda parts: jnp.zeros(num_envs), update, changed, changed)

"""Searches for the sequence of actions that scores best: CEM, iCEM, MPPI, TD-MPC2's MPPI, and random shooting.

All are of one shape: `plan(key, score, last) -> Plan`, where `score(key, actions [N, H, A]) -> [N]` is what a model
says of sequences within [-1, 1], and `last` is the plan before, from which the search sets out one step later (`fresh`
where an episode begins). A score that is not a number never wins, and is counted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrl.core import BadInput, Key

Score = Callable[[Key, Float[Array, "N H A"]], Float[Array, "N"]]


class Plan(NamedTuple):
    """What a search found.

    Fields: action [A], to be done now; mean [H, A], the sequence that the next search sets out from, one step later;
    kept [K, H, A], the best sequences, where a search keeps some; score [], the mean over the best; unsound int32 [],
    sequences whose score was no number.
    """

    action: Float[Array, "A"]
    mean: Float[Array, "H A"]
    kept: Float[Array, "K H A"]
    score: Float[Array, ""]
    unsound: Int[Array, ""]


class Search(NamedTuple):
    """`plan(key, score, last, explore=True) -> Plan`, and `fresh`, the plan of an episode's beginning."""

    plan: Callable[..., Plan]
    fresh: Plan


@dataclass(frozen=True)
class Size:
    """How wide and deep a search is."""

    horizon: int
    actions: int  # dimensions of one
    population: int
    turns: int = 5
    elites: int = 35

    def __post_init__(self):
        for name in ("horizon", "actions", "population", "turns", "elites"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}; a search needs at least 1.")
        if self.elites > self.population:
            raise BadInput(f"elites is {self.elites}, more than the {self.population} sequences of a turn: lower it.")


def begun(size: Size, kept: int = 0) -> Plan:
    """The plan of an episode's beginning: nothing is done."""
    sequence = (size.horizon, size.actions)
    zero = jnp.float32(0)
    return Plan(jnp.zeros(size.actions), jnp.zeros(sequence), jnp.zeros((kept, *sequence)), zero, jnp.int32(0))


def shifted(sequence: Float[Array, "*n H A"]) -> Float[Array, "*n H A"]:
    """A sequence one step later: the first action is gone, nothing is done in the end."""
    return jnp.concatenate([sequence[..., 1:, :], jnp.zeros_like(sequence[..., :1, :])], axis=-2)


def scored(score: Score, key: Key, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scores [N], minus infinity where there is no number, and how many there are of these."""
    values = score(key, actions)
    sound = ~jnp.isnan(values)
    return jnp.where(sound, values, -jnp.inf), (~sound).sum(dtype=jnp.int32)


def truncated_normal(key: Key, shape: tuple[int, ...]) -> jax.Array:
    """Standard normals cut at two standard deviations."""
    return jax.random.truncated_normal(key, -2.0, 2.0, shape)


def within_reach(mean: jax.Array, var: jax.Array) -> jax.Array:
    """A variance so small that two standard deviations stay within [-1, 1]."""
    return jnp.minimum(jnp.minimum(((mean + 1) / 2) ** 2, ((1 - mean) / 2) ** 2), var)


def cem(
    horizon: int, actions: int, population: int = 350, turns: int = 5, share: float = 0.1, memory: float = 0.1
) -> Search:
    """The cross-entropy method as PETS has it (Chua et al. 2018; mbrl-lib): the mean of the best is done.

    Args:
        population, turns: sequences of a turn, and turns.
        share: of the population that is best; `memory`: how much of mean and variance stays at each turn.
    """
    size = Size(horizon, actions, population, turns, max(round(share * population), 1))

    def plan(key, score, last, explore=True):
        def turn(carry, key):
            mean, var, _, unsound = carry
            key_draw, key_score = jax.random.split(key)
            noise = truncated_normal(key_draw, (population, horizon, actions))
            x = mean + jnp.sqrt(within_reach(mean, var)) * noise
            values, bad = scored(score, key_score, x)
            top, at = jax.lax.top_k(values, size.elites)
            mean = memory * mean + (1 - memory) * x[at].mean(axis=0)
            var = memory * var + (1 - memory) * x[at].var(axis=0, ddof=min(1, size.elites - 1))
            return (mean, var, top.mean(), unsound + bad), None

        start = (shifted(last.mean), jnp.full((horizon, actions), 0.25), last.score, jnp.int32(0))
        (mean, _, value, unsound), _ = jax.lax.scan(turn, start, jax.random.split(key, turns))
        return Plan(mean[0], mean, last.kept, value, unsound)

    return Search(plan, begun(size))


def coloured(key: Key, shape: tuple[int, ...], beta: float) -> jax.Array:
    """Normals [..., H, A] of variance 1, whose spectrum over H falls with frequency to the power of beta."""
    *lead, horizon, actions = shape
    number = jnp.arange(horizon // 2 + 1)
    # The lowest frequency stands in for none at all, which would have infinite power.
    scale = jnp.maximum(number, 1.0) ** (-beta / 2)
    waves = jax.random.normal(key, (2, *lead, actions, number.size))
    real = (number == 0) | (2 * number == horizon)  # these have no phase, and no mirror image
    spectrum = scale * jnp.where(real, 2**0.5 * waves[0], waves[0] + 1j * waves[1])
    deviation = jnp.sqrt((jnp.where(real, 2.0, 4.0) * scale**2).sum()) / horizon  # of the inverse transform
    return jnp.moveaxis(jnp.fft.irfft(spectrum, n=horizon) / deviation, -1, -2)


def icem(
    horizon: int,
    actions: int,
    population: int = 200,
    turns: int = 5,
    elites: int = 20,
    beta: float = 2.0,
    decay: float = 1.3,
    memory: float = 0.1,
    keep: float = 0.3,
) -> Search:
    """iCEM (Pinneri et al. 2020): coloured noise, fewer sequences at each turn, and the best of the last turn again.

    Args:
        beta: how fast the noise's power falls with frequency; 0 is white.
        decay: what the population is divided by at each turn; it stays twice the elites at least.
        keep: share of the elites that the next turn, and the next step, sees again.
    """
    size = Size(horizon, actions, population, turns, elites)
    carried = max(round(keep * elites), 1)

    def plan(key, score, last, explore=True):
        mean, std = shifted(last.mean), jnp.full((horizon, actions), 0.5)
        kept, unsound, value = shifted(last.kept), jnp.int32(0), last.score
        best_value, best_plan = -jnp.inf, mean
        for i, key_turn in enumerate(jax.random.split(key, turns)):
            key_draw, key_end, key_score = jax.random.split(key_turn, 3)
            count = max(round(population * decay**-i), 2 * elites)
            x = jnp.clip(mean + std * coloured(key_draw, (count, horizon, actions), beta), -1, 1)
            if i == 0:  # the last actions of what was kept are new: nothing was said of that time yet
                ends = mean[-1] + std[-1] * jax.random.normal(key_end, (carried, actions))
                kept = kept.at[:, -1].set(jnp.clip(ends, -1, 1))
            x = jnp.concatenate([x, kept, mean[None]] if i == turns - 1 else [x, kept])
            values, bad = scored(score, key_score, x)
            top, at = jax.lax.top_k(values, elites)
            mean = memory * mean + (1 - memory) * x[at].mean(axis=0)
            std = memory * std + (1 - memory) * x[at].std(axis=0)
            kept, unsound, value = x[at[:carried]], unsound + bad, top.mean()
            best_plan = jnp.where(top[0] > best_value, x[at[0]], best_plan)
            best_value = jnp.maximum(best_value, top[0])
        return Plan(best_plan[0], mean, kept, value, unsound)

    return Search(plan, begun(size, carried))


def weights(values: jax.Array, heat: float) -> jax.Array:
    """exp(heat (value - best)), of sum 1: [N]; even where nothing has a score."""
    return jax.nn.softmax(jnp.where(jnp.isneginf(values.max()), 0.0, heat * values))


def mppi(
    horizon: int,
    actions: int,
    population: int = 350,
    turns: int = 5,
    heat: float = 0.9,
    smooth: float = 0.9,
    std: float = 0.5,
) -> Search:
    """MPPI as PDDM has it (Nagabandi et al. 2020): sequences weigh by their score, actions lean on the one before.

    Deviation: the noise is scaled by `std` and kept within reach, which mbrl-lib's code computes and then drops.

    Args:
        heat: how sharply a score weighs; smooth: share of an action that is new, the rest is the action before.
    """
    size = Size(horizon, actions, population, turns, population)

    def plan(key, score, last, explore=True):
        def turn(carry, key):
            mean, _, unsound = carry
            key_draw, key_score = jax.random.split(key)
            reach = jnp.sqrt(within_reach(mean, jnp.full_like(mean, std**2)))
            free = mean + reach * truncated_normal(key_draw, (population, horizon, actions))
            lean = lambda before, now: (smooth * now + (1 - smooth) * before,) * 2
            before = jnp.broadcast_to(last.action, (population, actions))
            x = jnp.clip(jnp.moveaxis(jax.lax.scan(lean, before, jnp.moveaxis(free, 1, 0))[1], 0, 1), -1, 1)
            values, bad = scored(score, key_score, x)
            share = weights(values, heat)
            value = jnp.where(share > 0, share * values, 0).sum()
            return (jnp.einsum("n,nha->ha", share, x), value, unsound + bad), None

        start = (shifted(last.mean), last.score, jnp.int32(0))
        (mean, value, unsound), _ = jax.lax.scan(turn, start, jax.random.split(key, turns))
        return Plan(mean[0], mean, last.kept, value, unsound)

    return Search(plan, begun(size))


def td_mppi(
    horizon: int,
    actions: int,
    population: int = 512,
    turns: int = 6,
    elites: int = 64,
    heat: float = 0.5,
    std: tuple[float, float] = (0.05, 2.0),
) -> Search:
    """MPPI as TD-MPC2 has it (Hansen et al. 2024): weighted elites decide mean and spread, and one of them is done.

    `plan` takes a further `proposals` [P, H, A], sequences of a policy that compete at every turn.
    """
    size = Size(horizon, actions, population, turns, elites)

    def plan(key, score, last, explore=True, proposals=None):
        key_turns, key_choice, key_noise = jax.random.split(key, 3)
        given = jnp.zeros((0, horizon, actions)) if proposals is None else proposals

        def turn(carry, key):
            mean, spread, *_, unsound = carry
            key_draw, key_score = jax.random.split(key)
            drawn = jax.random.normal(key_draw, (population - given.shape[0], horizon, actions))
            x = jnp.concatenate([given, jnp.clip(mean + spread * drawn, -1, 1)])
            values, bad = scored(score, key_score, x)
            top, at = jax.lax.top_k(values, elites)
            share, chosen = weights(top, heat), x[at]
            mean = jnp.einsum("n,nha->ha", share, chosen)
            spread = jnp.sqrt(jnp.einsum("n,nha->ha", share, (chosen - mean) ** 2)).clip(*std)
            return (mean, spread, share, chosen[:, 0], top, unsound + bad), None

        shape = (horizon, actions)
        start = (
            shifted(last.mean),
            jnp.full(shape, std[1]),
            jnp.full(elites, 1 / elites),
            jnp.zeros((elites, actions)),
            jnp.zeros(elites),
            jnp.int32(0),
        )
        (mean, spread, share, firsts, top, unsound), _ = jax.lax.scan(turn, start, jax.random.split(key_turns, turns))
        action = firsts[jax.random.categorical(key_choice, jnp.log(share))]
        if explore:
            action = jnp.clip(action + spread[0] * jax.random.normal(key_noise, action.shape), -1, 1)
        return Plan(action, mean, last.kept, top.mean(), unsound)

    return Search(plan, begun(size))


def random_shooting(horizon: int, actions: int, population: int = 1_000) -> Search:
    """The best of uniform sequences."""
    size = Size(horizon, actions, population, 1, 1)

    def plan(key, score, last, explore=True):
        key_draw, key_score = jax.random.split(key)
        x = jax.random.uniform(key_draw, (population, horizon, actions), minval=-1)
        values, unsound = scored(score, key_score, x)
        at = values.argmax()
        return Plan(x[at, 0], x[at], last.kept, values[at], unsound)

    return Search(plan, begun(size))

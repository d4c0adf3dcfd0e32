"""A denoiser of vectors: fitted to data from nothing, and asked for more of the kind.

Lu et al. 2023 (SynthER) on Karras et al. 2022 (EDM): a residual network, learned on standardised data with a cosine
schedule, whose averaged parameters make the samples. Vectors are transitions, the steps of a trajectory side by side,
or, where they depend on something given, a policy's actions on what is observed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxrl.core import BadInput, Key, Metrics, PyTree, below
from jaxrl.equations.diffusion import denoiser, denoising_loss, heun, noise_level, noise_levels
from jaxrl.models.ensemble import moments
from jaxrl.nets import Denoising, Net, net

COPIED = 100  # updates at first of which the average is the last


@dataclass(frozen=True)
class Config:
    """What a denoiser is, how it is fitted and how it draws; the defaults are SynthER's, with a network for a CPU."""

    width: int = 256  # of the residual stream; the paper's is 1024
    blocks: int = 6
    embedding: int = 64  # width of what the data and the noise level are embedded in; the paper's is 256
    updates: int = 10_000  # of one fit; the paper's is 100,000
    batch: int = 256
    lr: float = 3e-4  # AdamW, falling to 0 as a cosine
    clip: float = 1.0  # global norm of a gradient
    average: float = 0.995  # what stays of the averaged parameters, at most, once in `apart` updates
    apart: int = 10
    levels: int = 32  # steps down from noise to a sample; the paper's is 128
    churn: float = 80.0  # noise added on the way
    lot: int = 2_000  # samples drawn side by side

    def __post_init__(self):
        for name in ("width", "blocks", "embedding", "updates", "batch", "apart", "levels", "lot"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}; a denoiser needs at least 1.")
        if not 0 <= self.average < 1:
            raise BadInput(f"average is {self.average}; it is a share, below 1.")


class Denoiser(NamedTuple):
    """A generator of vectors as functions of its part.

    `init(key) -> part`; `fit(part, x [S, n], weight [S], key, known=0, given=None) -> (part, metrics)` learns anew from
    the rows whose weight is above 0, of which `known` [S, 1] or [S, n] is the noise that is known to be in them;
    `draw(part, key, count, given=None) -> [count, n]`. `given` [., m] is what each depends on, where anything is.
    """

    init: Callable[[Key], PyTree]
    fit: Callable[..., tuple[PyTree, Metrics]]
    draw: Callable[[PyTree, Key, int], Float[Array, "count n"]]


def generator(n: int, config: Config = Config(), raw: tuple[int, ...] = (), given: int = 0) -> Denoiser:
    """A denoiser of vectors of length n.

    Args:
        raw: columns that are left as they are where the others are standardised.
        given: length m of what each vector depends on.
    """
    network = conditional(n, given, config)
    levels = noise_levels(config.levels)

    def init(key):
        return {"network": network.init(key), "norm": {"mean": jnp.zeros(n), "std": jnp.ones(n)}}

    def field(parameters, about):
        return denoiser(lambda x, noise: network.apply(parameters, jnp.concatenate([x, about]), noise))

    def fit(part, x, weight, key, known=0.0, given=None):
        key_init, key_fit = jax.random.split(key)
        norm = standard(x, weight, raw)
        x, about = (x - norm["mean"]) / norm["std"], seen(given, len(x))
        known = jnp.broadcast_to(known, x.shape) / norm["std"]
        rows = held(weight, config.batch)

        def loss(parameters, key):
            key_rows, key_loss = jax.random.split(key)
            at = rows(key_rows)

            def one(x, about, known, key):
                key_level, key_noise = jax.random.split(key)
                return denoising_loss(field(parameters, about), x, noise_level(key_level), key_noise, known)

            return jax.vmap(one)(x[at], about[at], known[at], jax.random.split(key_loss, config.batch)).mean()

        averaged, losses = descended(loss, network.init(key_init), key_fit, config)
        part, diverged = sound({"network": averaged, "norm": norm}, part)
        return part, {"loss": losses[-max(config.updates // 10, 1) :].mean(), "diverged": diverged}

    def draw(part, key, count, given=None):
        lots, lot = -(-count // config.lot), min(config.lot, count)

        def one(key, about):
            key_start, key_steps = jax.random.split(key)
            start = jax.random.normal(key_start, (n,))
            return heun(field(part["network"], about), key_steps, start, levels, config.churn)

        about = seen(given, count)
        about = jnp.pad(about, ((0, lots * lot - count), (0, 0))).reshape(lots, lot, -1)
        each = lambda lot_of: jax.vmap(one)(jax.random.split(lot_of[0], lot), lot_of[1])
        x = jax.lax.map(each, (jax.random.split(key, lots), about)).reshape(-1, n)[:count]
        return x * part["norm"]["std"] + part["norm"]["mean"]

    return Denoiser(init, fit, draw)


# ------------------------------------------------------------------------------------- what generators of vectors share


def conditional(n: int, given: int, config: Config) -> Net:
    """The network of (vector [n] and what it depends on [given], side by side; a number) -> [n]."""
    vector, number = jax.ShapeDtypeStruct((n + given,), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    return net(Denoising(n, config.width, config.blocks, config.embedding), vector, number)


def seen(given: Float[Array, "count m"] | None, count: int) -> Float[Array, "count m"]:
    """What each of `count` vectors depends on, [count, 0] where nothing is given."""
    return jnp.zeros((count, 0)) if given is None else given


def standard(x: Float[Array, "S n"], weight: Float[Array, "S"], raw: tuple[int, ...] = ()) -> dict[str, jax.Array]:
    """Mean and standard deviation of the columns over the weighed rows; 0 and 1 of those that are left as they are."""
    norm = moments(x, weight > 0)
    kept = jnp.zeros(x.shape[1], bool).at[jnp.asarray(raw, jnp.int32)].set(True)
    return {"mean": jnp.where(kept, 0.0, norm["mean"]), "std": jnp.where(kept, 1.0, norm["std"] + 1e-5)}


def held(weight: Float[Array, "S"], batch: int) -> Callable[[Key], jax.Array]:
    """Draws rows whose weight is above 0: key -> int32 [batch]."""
    size, order = jnp.maximum((weight > 0).sum(), 1), jnp.argsort(weight <= 0)  # what is held first
    return lambda key: order[below(key, (batch,), size)]


def descended(
    loss: Callable[[PyTree, Key], jax.Array], parameters: PyTree, key: Key, config: Config
) -> tuple[PyTree, Float[Array, "updates"]]:
    """Averaged parameters after the config's updates, and the losses on the way: AdamW, the rate falling to 0.

    Once in `apart` updates an average is taken, which after i updates keeps no more of the one before than
    1 - (1 + i - 100)^(-2/3), and nothing up to 100, as in the library that SynthER averages with: little is left of the
    first parameters however few the updates.
    """
    schedule = optax.cosine_decay_schedule(config.lr, config.updates)
    tx = optax.chain(optax.clip_by_global_norm(config.clip), optax.adamw(schedule, b2=0.99, weight_decay=0.0))

    def step(carry, i):
        parameters, averaged, state = carry
        value, slope = jax.value_and_grad(loss)(parameters, jax.random.fold_in(key, i))
        change, state = tx.update(slope, state, parameters)
        parameters = optax.apply_updates(parameters, change)
        most = jnp.minimum(config.average, 1 - (1.0 + jnp.maximum(i - COPIED, 0)) ** (-2 / 3))
        stays = jnp.where(i % config.apart == 0, most, 1.0)
        return (parameters, optax.incremental_update(parameters, averaged, 1 - stays), state), value

    start = (parameters, parameters, tx.init(parameters))
    (_, averaged, _), losses = jax.lax.scan(step, start, jnp.arange(config.updates))
    return averaged, losses


def sound(new: PyTree, old: PyTree) -> tuple[PyTree, jax.Array]:
    """The new part where all of its numbers are finite, else the old one; and whether they were not."""
    fine = jnp.array([jnp.isfinite(x).all() for x in jax.tree.leaves(new)]).all()
    return jax.tree.map(lambda new, old: jnp.where(fine, new, old), new, old), ~fine

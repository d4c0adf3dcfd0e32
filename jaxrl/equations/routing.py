"""Which of a mixture's experts tokens are sent to, in how many slots, and how evenly experts are used.

A token is a row of features; a router gives it a logit for each expert. Kim et al. 2021 (DeepSpeed-MoE's training),
with routers of Fedus et al. 2022 (Switch), Zhou et al. 2022 (expert choice) and Puigcerver et al. 2024 (soft).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl.core import Key
from jaxrl.equations.distributions import categorical_entropy


class Routing(NamedTuple):
    """Where S tokens go among C slots of each of E experts.

    Fields: dispatch [S, E, C], how much of a token goes into a slot; combine [S, E, C], how much of what the slot makes
    comes back; dropped [], the share of choices that found no slot (of tokens, where experts choose).
    """

    dispatch: Float[Array, "S E C"]
    combine: Float[Array, "S E C"]
    dropped: Float[Array, ""]


def slots(tokens: int, experts: int, k: int, factor: float, least: int) -> int:
    """An expert's slots: a factor times its even share of k choices a token, rounded up; `least` or more, at most S."""
    return min(max(math.ceil(k * tokens / experts * factor), least), tokens)


def chosen(scores: Float[Array, "*S E"], k: int) -> Bool[Array, "*S E"]:
    """Each token's k best experts."""
    return jax.nn.one_hot(jax.lax.top_k(scores, k)[1], scores.shape[-1], dtype=bool).any(axis=-2)


def weights(probs: Float[Array, "*S E"], mask: Bool[Array, "*S E"]) -> Float[Array, "*S E"]:
    """The probabilities of what was chosen: as they are for one choice, of sum 1 for several."""
    kept = jnp.where(mask, probs, 0)
    total = jnp.where(mask.sum(axis=-1, keepdims=True) > 1, kept.sum(axis=-1, keepdims=True) + 1e-9, 1)
    return kept / total


def top_routing(
    probs: Float[Array, "S E"], mask: Bool[Array, "S E"], capacity: int, spill: str = "position", key: Key | None = None
) -> Routing:
    """Tokens to the experts that they chose, as long as these have slots; what finds none weighs 0.

    Second choices stand in line with first ones, and weights are those before anything is dropped (DeepSpeed's code
    places all first choices before, and renormalises afterwards).

    Args:
        spill: whom a full expert keeps: the first ('position'), those that want it most ('probability'), or any
            ('random', drawn from `key`: the random token selection of Kim et al. 2021).
    """
    if spill == "random":
        claim = jax.random.uniform(key, probs.shape)
    else:
        claim = probs if spill == "probability" else -jnp.arange(probs.shape[0], dtype=jnp.float32)[:, None]
    place = jnp.where(mask, claim, -jnp.inf).argsort(axis=0, descending=True).argsort(axis=0)
    kept = mask & (place < capacity)
    dispatch = jax.nn.one_hot(jnp.where(kept, place, capacity), capacity)  # of `capacity` itself a row of zeros
    return Routing(dispatch, weights(probs, mask)[..., None] * dispatch, 1 - kept.sum() / mask.sum())


def expert_choice(probs: Float[Array, "S E"], capacity: int) -> Routing:
    """Each expert takes the tokens that want it most: a token may be taken by several, or by none."""
    best, at = jax.lax.top_k(probs.T, capacity)
    dispatch = jax.nn.one_hot(at, probs.shape[0], axis=0)
    return Routing(dispatch, dispatch * best, (dispatch.sum(axis=(1, 2)) == 0).mean())


def soft_routing(logits: Float[Array, "S E C"]) -> Routing:
    """Each slot holds a mixture of all tokens, each token gets a mixture of all slots: nothing is chosen or dropped."""
    flat = logits.reshape(logits.shape[0], -1)
    dispatch, combine = (jax.nn.softmax(flat, axis=axis).reshape(logits.shape) for axis in (0, 1))
    return Routing(dispatch, combine, jnp.float32(0))


# ---------------------------------------------------------------------------------------------------------- losses


def balance(probs: Float[Array, "*S E"], mask: Bool[Array, "*S E"]) -> Float[Array, ""]:
    """E sum_e f_e P_e, the experts' shares of choices and of probability: 1 if even  (Fedus et al. 2022, eq. 4)."""
    experts = probs.shape[-1]
    used, wanted = mask.reshape(-1, experts).mean(axis=0), probs.reshape(-1, experts).mean(axis=0)
    return experts * (used / used.sum() * wanted).sum()


def load_variance(mask: Bool[Array, "*S E"]) -> Float[Array, ""]:
    """The unbiased variance of the shares of tokens that chose each expert. No gradient reaches a router through it."""
    return mask.reshape(-1, mask.shape[-1]).mean(axis=0).var(ddof=1)


def gate_entropy(logits: Float[Array, "*S E"]) -> Float[Array, ""]:
    """The tokens' mean entropy over experts, in nats. Of logits: what is certain has a gradient too."""
    return jax.vmap(categorical_entropy)(logits.reshape(-1, logits.shape[-1])).mean()


def z_loss(logits: Float[Array, "*S E"]) -> Float[Array, ""]:
    """The mean square of log sum exp, which keeps logits small  (Zoph et al. 2022, eq. 5)."""
    return (jax.nn.logsumexp(logits, axis=-1) ** 2).mean()

"""Planning among what a policy would do: candidates drawn from it, followed by it, and judged by a model.

Wang et al. 2024 (COPlanner): one score with two signs. What the model is unsure of is avoided in its own rollouts, and
sought in the world.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl.core import Key


def guided(
    key: Key,
    obs: Float[Array, "B ..."],
    policy: Callable[[Key, jax.Array], jax.Array],
    survey: Callable[[Key, jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]],
    weight: float | jax.Array,
    candidates: int = 5,
    horizon: int = 5,
    gamma: float = 0.97,
) -> Float[Array, "B ..."]:
    """The candidate action of each row that scores best: discounted reward plus `weight` times discounted doubt.

    One candidate is the policy's own action with the same key.

    Args:
        policy: `(key, obs [N, ...]) -> actions [N, ...]`, drawn.
        survey: `(key, obs, action) -> (next_obs, reward [N], doubt [N])`, a step of a model.
        weight: above 0 where doubt is sought (the world), below where it is avoided (rollouts).
    """
    if candidates == 1:
        return policy(key, obs)
    rows = obs.shape[0]
    keys = jnp.concatenate([key[None], jax.random.split(jax.random.fold_in(key, 0), candidates - 1)])
    first = jax.vmap(policy, (0, None))(keys, obs)  # [K, B, ...]
    tiled = jnp.broadcast_to(obs, (candidates, *obs.shape)).reshape(-1, *obs.shape[1:])
    gained, doubted = looked_ahead(
        jax.random.fold_in(key, 1), tiled, first.reshape(-1, *first.shape[2:]), policy, survey, horizon, gamma
    )
    score = (gained + weight * doubted).reshape(candidates, rows)
    score = jnp.where(jnp.isnan(score), -jnp.inf, score)
    return first[score.argmax(axis=0), jnp.arange(rows)]


def looked_ahead(
    key: Key, obs: jax.Array, action: jax.Array, policy: Any, survey: Any, horizon: int, gamma: float
) -> tuple[Float[Array, "N"], Float[Array, "N"]]:
    """Discounted sums of reward and doubt over `horizon` steps: an action, then what the policy does."""

    def step(carry, i):
        obs, action = carry
        key_survey, key_policy = jax.random.split(jax.random.fold_in(key, i))
        obs, reward, doubt = survey(key_survey, obs, action)
        return (obs, policy(key_policy, obs)), (gamma**i * reward, gamma**i * doubt)

    _, (rewards, doubts) = jax.lax.scan(step, (obs, action), jnp.arange(horizon))
    return rewards.sum(axis=0), doubts.sum(axis=0)

"""The two families of action distributions, as functions of their parameters; actions of one environment."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray


def normal_log_prob(
    x: Float[Array, "dims"], mean: Float[Array, "dims"], log_std: Float[Array, "dims"]
) -> Float[Array, ""]:
    """log N(x; mean, std) of independent components, summed."""
    z = (x - mean) * jnp.exp(-log_std)
    return (-0.5 * z**2 - log_std - 0.5 * jnp.log(2 * jnp.pi)).sum()


def normal_entropy(log_std: Float[Array, "dims"]) -> Float[Array, ""]:
    """Entropy of independent normals in nats: sum of log std + log(2 pi e) / 2."""
    return (log_std + 0.5 * jnp.log(2 * jnp.pi * jnp.e)).sum()


def log_abs_det_tanh(u: Float[Array, "dims"]) -> Float[Array, "dims"]:
    """log |d tanh(u) / du| = 2 (log 2 - u - softplus(-2u)) of each, exact where 1 - tanh(u)^2 underflows."""
    return 2 * (jnp.log(2.0) - u - jax.nn.softplus(-2 * u))


def tanh_normal_sample(
    key: PRNGKeyArray,
    mean: Float[Array, "dims"],
    log_std: Float[Array, "dims"],
    weights: Float[Array, "dims"] | float = 1.0,
) -> tuple[Float[Array, "dims"], Float[Array, ""]]:
    """a = tanh(u), u ~ N(mean, std), reparameterised, with log pi(a)  (Haarnoja et al. 2018a, appendix C).

    Args:
        weights: by which the log-probabilities of the action's numbers are summed.
    """
    noise = jax.random.normal(key, mean.shape)
    u = mean + jnp.exp(log_std) * noise
    each = -0.5 * noise**2 - log_std - 0.5 * jnp.log(2 * jnp.pi) - log_abs_det_tanh(u)
    return jnp.tanh(u), (weights * each).sum()


def noisy_action(mean: Float[Array, "*B dims"], noise: Float[Array, "*B dims"]) -> Float[Array, "*B dims"]:
    """mean + noise within [-1, 1]; the bounds let the gradient pass as if they were not there.

    Yarats et al. 2022 (DrQ-v2): an action pushed against a bound still learns to come back.
    """
    free = mean + noise
    return free + jax.lax.stop_gradient(jnp.clip(free, -1 + 1e-6, 1 - 1e-6) - free)


def categorical_log_prob(action: Int[Array, ""], logits: Float[Array, "actions"]) -> Float[Array, ""]:
    """log softmax(logits)[action]."""
    return jax.nn.log_softmax(logits)[action]


def categorical_entropy(logits: Float[Array, "actions"]) -> Float[Array, ""]:
    """Entropy of softmax(logits) in nats."""
    log_probs = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_probs) * log_probs).sum()


def epsilon_greedy(key: PRNGKeyArray, q: Float[Array, "actions"], epsilon: float | Float[Array, ""]) -> Int[Array, ""]:
    """argmax q with probability 1 - epsilon, else uniform over all actions. Returns int32 []."""
    key_explore, key_action = jax.random.split(key)
    uniform = jax.random.randint(key_action, (), 0, q.shape[0], jnp.int32)
    return jnp.where(jax.random.uniform(key_explore) < epsilon, uniform, q.argmax().astype(jnp.int32))

"""Stream AC(lambda): an actor and a critic from a stream, with traces  (Elsayed et al. 2024, algorithm 4)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxrl.agents.common import at_least, continuous
from jaxrl.agents.streaming import Stream, clock, features, network, streaming
from jaxrl.core import Agent, Discrete, Recipe, Specs, minimise
from jaxrl.equations.distributions import categorical_entropy, categorical_log_prob, normal_entropy, normal_log_prob
from jaxrl.equations.values import td_target
from jaxrl.rules.traces import obgd


@dataclass(frozen=True)
class Config(Stream):
    """Discrete or continuous actions."""

    width: int = 128  # of the two hidden layers
    kappa_policy: float = 3.0  # how far below overshooting the policy's step stays
    entropy_weight: float = 0.01

    def __post_init__(self):
        super().__post_init__()
        at_least(self, kappa_policy=0, entropy_weight=0)


def build(specs: Specs, config: Config) -> Agent:
    """The agent for an environment of these specs. Raises BadInput for action spaces it cannot act in."""
    choices = isinstance(specs.action, Discrete)
    outputs = specs.action.n if choices else 2 * continuous("stream_ac", specs.action)
    feature = features(specs, config)
    actor, critic = network(feature.shape, outputs, config), network(feature.shape, 1, config)
    value = lambda parts, x: critic.apply(parts["critic"], x)[0]

    def gaussian(output):
        """Mean and log standard deviation; the deviation is a softplus, and unsquashed: the environment's box clips."""
        center, spread = jnp.split(output, 2)
        return center, jnp.log(jax.nn.softplus(spread))

    def log_prob_and_entropy(output, action):
        if choices:
            return categorical_log_prob(action, output), categorical_entropy(output)
        center, log_std = gaussian(output)
        return normal_log_prob(action, center, log_std), normal_entropy(log_std)

    def td_error(parts, now):
        return td_target(now.reward, now.discount, value(parts, now.x_next)) - value(parts, now.x)

    def policy(live, frozen, batch, key):
        """Minus [log pi + weight sign(delta) entropy]: times delta, the entropy is always pushed up."""
        now = feature.view(frozen, batch)
        delta = td_error(frozen, now)
        taken = batch["extras"]["raw"][0]
        log_prob, entropy = log_prob_and_entropy(actor.apply(live["actor"], now.x), taken)
        objective = log_prob + config.entropy_weight * jnp.sign(delta) * entropy
        return -objective, {"delta": delta, "reset": now.reset, "entropy": entropy}

    def prediction(live, frozen, batch, key):
        """Minus v(s), and the TD error that scales its trace."""
        now = feature.view(frozen, batch)
        return -value(live, now.x), {"delta": td_error(frozen, now), "reset": now.reset}

    def act(parts, memory, obs, ctx, explore):
        output = actor.apply(parts["actor"], feature.of(parts, obs, memory))
        if choices:
            raw = (jax.random.categorical(ctx.key, output) if explore else output.argmax()).astype(jnp.int32)
            return raw, memory + 1, {"raw": raw}
        center, log_std = gaussian(output)
        raw = center + jnp.exp(log_std) * jax.random.normal(ctx.key, center.shape) if explore else center
        return jnp.clip(raw, -1, 1), memory + 1, {"raw": raw}

    def init(key):
        key_actor, key_critic = jax.random.split(key)
        return {"actor": actor.init(key_actor), "critic": critic.init(key_critic), **feature.parts()}

    decay, signals = config.gamma * config.lambda_, ("delta", "reset")
    up = obgd(decay, config.kappa_policy, config.lr, config.bound)
    fit = obgd(decay, config.kappa, config.lr, config.bound)
    rules = {
        # The actor first: both learn from the TD error of the weights that acted.
        "actor": minimise(policy, up, "actor", ("critic", *feature.names), signals),
        "critic": minimise(prediction, fit, "critic", feature.names, signals),
    }
    told = lambda memory, extras, action: (memory, {"raw": action})
    return Agent(init, act, rules, feature.observe, clock, told=told)


def recipe(specs: Specs, config: Config) -> Recipe:
    return streaming(build(specs, config))

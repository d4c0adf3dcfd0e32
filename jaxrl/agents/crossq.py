"""CrossQ: SAC without target networks, by batch normalisation (Bhatt et al. 2024).

What is seen and what comes next pass the critics in one joined batch, so that both are normalised by the statistics of
their mixture; no target network is needed then, at one update a step. The actor is normalised too. Deviations: the
temperature's Adam has the actor's first moment; SAC's range of the log standard deviation; and sizes for a CPU: critics
of 256, where the paper's are 2048 wide, and a replay of 100,000.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxrl.agents import sac
from jaxrl.agents.common import at_least, continuous, vector
from jaxrl.core import Agent, Batch, PyTree, Recipe, Specs, adam, every, mean, minimise
from jaxrl.equations.distributions import tanh_normal_sample
from jaxrl.equations.values import clipped_q_target
from jaxrl.nets import NormedMLP, NormedNet, normed, normed_ensemble


@dataclass(frozen=True)
class Config(sac.Config):
    """SAC's numbers (but `tau`, which has no use here), with the normalisers'."""

    critic_widths: tuple[int, ...] = (256, 256)  # hidden widths; the paper's are 2048
    b1: float = 0.5  # Adam's first moment
    delay: int = 3  # critic updates to one of the actor and the temperature
    plain: int = 100_000  # passes of a normaliser until it is bent towards its running statistics

    def __post_init__(self):
        super().__post_init__()
        at_least(self, b1=0, delay=1, plain=0)


def joined(batch, action):
    """Observations and actions [2 B, ...] of what is seen, and below them of what comes next."""
    pairs = (batch["obs"], batch["next_obs"]), (batch["action"], action)
    return tuple(jnp.concatenate(pair) for pair in pairs)


def build(
    specs: Specs,
    config: Config,
    actor: NormedNet | None = None,
    critic: NormedNet | None = None,
    q: Callable[[jax.Array], jax.Array] = lambda output: output[..., 0],
    rows: Callable[[Batch], PyTree] = lambda batch: batch["obs"],
    linear_in: Callable[[jax.Array], jax.Array] = jnp.exp,
) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless its actions are a Box of [-1, 1].

    Args:
        actor, critic: the networks, from `[B, ...]` to `[B, 2 dims]` and to `[n, B, outputs]`; None is CrossQ's.
        q: what critics say, [n, B], of what they put out.
        rows: the observations whose statistics the actor's update sees; it learns from the first B of them.
        linear_in: as `sac.soft_objective` has it.
    """
    dims = continuous("crossq", specs.action)
    vector("crossq", specs.observation)
    obs, action = specs.observation, jax.ShapeDtypeStruct((dims,), jnp.float32)
    actor = actor or normed(NormedMLP(config.widths, 2 * dims, config.plain), obs)
    critic = critic or normed_ensemble(normed(NormedMLP(config.critic_widths, 1, config.plain), obs, action), 2)
    target_entropy = -float(dims) if config.target_entropy is None else config.target_entropy

    def critic_loss(live, frozen, batch, key):
        output = actor.apply(frozen["actor"], frozen["actor_running"], batch["next_obs"])
        action, log_prob = sac.drawn_actions(output, key)
        both, running = critic.train(live["critic"], frozen["critic_running"], *joined(batch, action))
        q_now, q_next = jnp.split(q(both), 2, axis=1)  # each [2, B]
        bonus = -jnp.exp(frozen["log_alpha"]) * log_prob
        discount = config.gamma * batch["discount"]
        target = jax.vmap(clipped_q_target, in_axes=(0, 0, 1, 0))(batch["reward"], discount, q_next, bonus)
        error = q_now - jax.lax.stop_gradient(target)  # a gradient still reaches what comes next, by the statistics
        metrics = {"td_error": jnp.abs(error).mean(axis=0), "target": target}
        return mean((0.5 * error**2).sum(axis=0), batch), {**metrics, "critic_running": running}

    def actor_loss(live, frozen, batch, key):
        output, running = actor.train(live["actor"], frozen["actor_running"], rows(batch))
        action, log_prob = sac.drawn_actions(output[: batch["obs"].shape[0]], key)
        judged = q(critic.apply(frozen["critic"], frozen["critic_running"], batch["obs"], action)).min(axis=0)
        loss, metrics = sac.soft_objective(live, frozen, batch, log_prob, judged, target_entropy, linear_in)
        return loss, {**metrics, "actor_running": running}

    def init(key):
        key_actor, key_critic = jax.random.split(key)
        made = {"actor": actor.init(key_actor), "critic": critic.init(key_critic)}
        parts = {name: parameters for name, (parameters, _) in made.items()}
        parts |= {f"{name}_running": running for name, (_, running) in made.items()}
        return {**parts, "log_alpha": jnp.log(jnp.float32(config.alpha))}

    def act(parts, memory, obs, ctx, explore):
        center, log_std = sac.gaussian(actor.apply(parts["actor"], parts["actor_running"], obs))
        action = tanh_normal_sample(ctx.key, center, log_std)[0] if explore else jnp.tanh(center)
        return action, memory, {}

    descend = adam(config.lr, b1=config.b1)
    reads = ("critic", "critic_running")
    rules = {
        "critic": minimise(
            critic_loss, descend, "critic", ("actor", "actor_running", "log_alpha"), sets="critic_running"
        ),
        "actor": every(
            config.delay, minimise(actor_loss, descend, ("actor", "log_alpha"), reads, sets="actor_running")
        ),
    }
    return Agent(init, act, rules)


def recipe(specs: Specs, config: Config) -> Recipe:
    return sac.recipe(specs, config, build)

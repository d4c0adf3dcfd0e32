"""SAC: soft actor-critic with a learned temperature (Haarnoja et al. 2018a, 2018b).

Twin critics with the minimum target, a tanh-normal actor, one update a step from uniform replay. The policy and its
temperature share one sample and one backward pass. Its relatives are this with other critics: `redq`, `droq`, `drq`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agents.common import at_least, continuous, vector, within
from jaxrl.core import Agent, BadInput, Key, PyTree, Recipe, Specs, adam, fold, mean, minimise, track
from jaxrl.equations.distributions import tanh_normal_sample
from jaxrl.equations.policies import soft_policy_loss, temperature_loss
from jaxrl.equations.values import clipped_q_target
from jaxrl.nets import MLP, Net, ensemble, net
from jaxrl.sources import uniform


@dataclass(frozen=True)
class Config:
    """What SAC can be told; the defaults solve cartpole-swingup at an action repeat of 8."""

    widths: tuple[int, ...] = (256, 256)  # hidden widths of actor and critics
    lr: float = 1e-3  # Adam, for all three; the paper's is 3e-4
    gamma: float = 0.99  # discount a step (not a frame)
    tau: float = 0.01  # Polyak rate of the target critics; the paper's is 0.005
    alpha: float = 1.0  # temperature at the start
    target_entropy: float | None = None  # nats; None is minus the number of action dimensions
    batch: int = 256  # transitions an update
    capacity: int = 100_000  # transitions kept
    warmup: int = 5_000  # frames of uniform actions before learning
    num_envs: int = 1
    ratio: int = 1  # updates a tick

    def __post_init__(self):
        at_least(self, lr=0, alpha=0, batch=1, capacity=1, warmup=0, num_envs=1, ratio=0)
        within(self, gamma=(0, 1), tau=(0, 1))
        if isinstance(self.alpha, int | float) and self.alpha == 0:
            raise BadInput("alpha is 0; it must be above 0, as its logarithm is what is learned.")


# Streams of what a critic draws for itself, far from the keys that a batch of actions splits off.
NOW, NEXT, JUDGED, CHOSEN = range(1 << 29, (1 << 29) + 4)


def critics(specs: Specs, config: Config, mlp: Callable[..., Any] = MLP, n: int = 2) -> Net:
    """`n` critics: `apply(parameters, obs [B, ...], action [B, dims], key) -> [n, B]`; these draw nothing."""
    action = jax.ShapeDtypeStruct((continuous("sac", specs.action),), jnp.float32)
    heads = ensemble(net(mlp(config.widths, 1), specs.observation, action), n)
    apply = lambda parameters, obs, action, key: heads.apply(parameters, obs, action)[..., 0]
    return Net(heads.init, apply, heads.within)


def whole(target: PyTree, key: Key) -> PyTree:
    return target


def lowest(q: jax.Array) -> jax.Array:
    return q.min(axis=0)


def half_square(error: jax.Array) -> jax.Array:
    """What an error of a critic costs."""
    return 0.5 * error**2


def gaussian(output: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and log standard deviation, within [-5, 2], before the tanh: each [..., dims], of an actor's output."""
    center, spread = jnp.split(output, 2, axis=-1)
    return center, -5 + 3.5 * (jnp.tanh(spread) + 1)


def drawn_actions(output: jax.Array, key: Key, weights: jax.Array | float = 1.0) -> tuple[jax.Array, jax.Array]:
    """A reparameterised action [B, dims] and its log-probability [B] for each of an actor's outputs [B, 2 dims].

    Args:
        weights: [dims], as `tanh_normal_sample` has them.
    """
    return drawn_from(*gaussian(output), key, weights)


def drawn_from(
    center: jax.Array, log_std: jax.Array, key: Key, weights: jax.Array | float = 1.0
) -> tuple[jax.Array, jax.Array]:
    one = lambda key, center, log_std: tanh_normal_sample(key, center, log_std, weights)
    return jax.vmap(one)(jax.random.split(key, center.shape[0]), center, log_std)


def logarithm(log_alpha: jax.Array) -> jax.Array:
    return log_alpha


def soft_objective(
    live, frozen, batch, log_prob, q, target_entropy, linear_in: Callable[[jax.Array], jax.Array] = logarithm
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What policy and temperature descend together: both through `log_prob` [B], the policy through `q` [B] too.

    Args:
        linear_in: what the temperature's loss multiplies, of log alpha: itself, or alpha (`jnp.exp`).
    """
    alpha = jnp.exp(frozen["log_alpha"])
    policy_term = jax.vmap(soft_policy_loss, in_axes=(0, 0, None))(log_prob, q, alpha)
    constant = jax.lax.stop_gradient(log_prob)  # the temperature does not push the policy
    temperature_term = jax.vmap(lambda lp: temperature_loss(linear_in(live["log_alpha"]), lp, target_entropy))(constant)
    return mean(policy_term + temperature_term, batch), {"entropy": -log_prob, "alpha": alpha}


def build(
    specs: Specs,
    config: Config,
    mlp: Callable[..., Any] = MLP,
    actor: Net | None = None,
    critic: Net | None = None,
    drawn: Callable[[PyTree, Key], PyTree] = whole,
    judge: Callable[[jax.Array], jax.Array] = lowest,
    weighed: bool = False,
    linear_in: Callable[[jax.Array], jax.Array] = logarithm,
) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless its actions are a Box of [-1, 1].

    Args:
        mlp: makes the networks' modules from hidden widths and the number of outputs.
        actor: `apply(parameters, obs [..., ...]) -> [..., 2 dims]`; None is one of `mlp`.
        critic: as `critics` makes them; None is two of `mlp`.
        drawn: the members of the target critics whose least estimate an update bootstraps from.
        judge: what the policy climbs, [n, B] -> [B], of all critics' estimates.
        weighed: whether a part 'entropy' [dims], ones at first, says by how much the entropy of each number counts.
        linear_in: as `soft_objective` has it.
    """
    dims = continuous("sac", specs.action)
    vector("sac", specs.observation)
    actor = actor or net(mlp(config.widths, 2 * dims), specs.observation)
    critic = critic or critics(specs, config, mlp)
    target_entropy = -float(dims) if config.target_entropy is None else config.target_entropy
    counted = ("entropy",) if weighed else ()

    def critic_loss(live, frozen, batch, key):
        action, log_prob = drawn_actions(
            actor.apply(frozen["actor"], batch["next_obs"]), key, frozen["entropy"] if weighed else 1.0
        )
        members = drawn(frozen["target"], fold(key, CHOSEN))
        q_next = critic.apply(members, batch["next_obs"], action, fold(key, NEXT))
        bonus = -jnp.exp(frozen["log_alpha"]) * log_prob
        discount = config.gamma * batch["discount"]
        target = jax.vmap(clipped_q_target, in_axes=(0, 0, 1, 0))(batch["reward"], discount, q_next, bonus)
        error = critic.apply(live["critic"], batch["obs"], batch["action"], fold(key, NOW)) - target
        metrics = {"td_error": jnp.abs(error).mean(axis=0), "target": target}
        return mean(half_square(error).sum(axis=0), batch), metrics

    def actor_loss(live, frozen, batch, key):
        action, log_prob = drawn_actions(
            actor.apply(live["actor"], batch["obs"]), key, frozen["entropy"] if weighed else 1.0
        )
        q = judge(critic.apply(frozen["critic"], batch["obs"], action, fold(key, JUDGED)))
        return soft_objective(live, frozen, batch, log_prob, q, target_entropy, linear_in)

    def init(key):
        key_actor, key_critic = jax.random.split(key)
        online = critic.init(key_critic)
        log_alpha = jnp.log(jnp.float32(config.alpha))
        target = jax.tree.map(jnp.copy, online)  # not the same buffers: the run is donated
        made = {"actor": actor.init(key_actor), "critic": online, "target": target, "log_alpha": log_alpha}
        return {**made, "entropy": jnp.ones(dims)} if weighed else made

    def act(parts, memory, obs, ctx, explore):
        center, log_std = gaussian(actor.apply(parts["actor"], obs))
        action = tanh_normal_sample(ctx.key, center, log_std)[0] if explore else jnp.tanh(center)
        return action, memory, {}

    rules = {
        "critic": minimise(critic_loss, adam(config.lr), "critic", reads=("actor", "target", "log_alpha", *counted)),
        "actor": minimise(actor_loss, adam(config.lr), ("actor", "log_alpha"), reads=("critic", *counted)),
        "target": track("critic", "target", config.tau),
    }
    views = {
        "encode": lambda parts, obs: obs,
        "q": lambda parts, obs, action: critic.apply(parts["critic"], obs, action, jax.random.key(0)),
        "policy": lambda parts, obs, key: drawn_actions(actor.apply(parts["actor"], obs), key)[0],
        "actor": lambda parts, obs, key=None: actor.within(parts["actor"], obs),
        "critic": lambda parts, obs, action: critic.within(parts["critic"], obs, action),
        "cost": lambda parts, error: half_square(error),
    }
    return Agent(init, act, rules, views=views)


def recipe(
    specs: Specs,
    config: Config,
    build: Callable[..., Agent] = build,
    policy: Callable[..., Any] | None = None,
    weighed: bool = False,
) -> Recipe:
    """How SAC runs, and its relatives with a `build` of their own. `policy` makes the actor's module, else an MLP."""
    outputs = 2 * continuous("sac", specs.action)
    seams = {} if policy is None else {"actor": net(policy(config.widths, outputs), specs.observation)}
    seams |= {"weighed": True} if weighed else {}
    agent, source = build(specs, config, **seams), uniform(config.capacity, config.batch)
    return Recipe(agent, source, num_envs=config.num_envs, ratio=config.ratio, warmup=config.warmup)

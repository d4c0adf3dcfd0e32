"""SimbaV2: SAC on hyperspherical networks with a categorical critic (Lee et al. 2025).

The weights of every unit are put back to norm 1 after each update, features are kept there too, and values are
distributions over 101 bins, which scaled rewards keep within [-5, 5]. Deviations: a constant learning rate, where the
paper's halves over the run; SAC's range of the log standard deviation, and its temperature's loss, linear in the
logarithm; a fixed discount, which is the paper's for 500 steps an episode; and sizes and a warm-up for a CPU.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from jaxrl.agents import sac
from jaxrl.agents.common import at_least, continuous, vector
from jaxrl.core import Agent, Recipe, Specs, adam, mean, minimise, on
from jaxrl.equations.categorical import clipped_distribution, cross_entropy, expected
from jaxrl.nets import HyperNet, Net, ensemble, net, unit_columns
from jaxrl.rules.resets import project
from jaxrl.rules.statistics import moments, normalise, observation_statistics, return_statistics, variance

LIMIT = 5.0  # of a scaled return: the outermost bins
BINS = 101


@dataclass(frozen=True)
class Config(sac.Config):
    """SAC's numbers, as SimbaV2 has them."""

    widths: tuple[int, int] = (64, 128)  # of the actor's and the critics' spheres; the paper's are 128 and 512
    blocks: tuple[int, int] = (1, 2)  # of actor and critics
    critics: int = 1  # the paper's for tasks that do not terminate; 2, and their minimum, for those that do
    lr: float = 1e-4
    tau: float = 0.005
    alpha: float = 0.01
    ratio: int = 2  # updates a tick; the paper's is the action repeat
    target_entropy: float | None = None  # nats; None is minus half the number of action dimensions

    def __post_init__(self):
        super().__post_init__()
        at_least(self, critics=1)


# Over a batch of transitions, and over critics [n, B, bins] too.
distribution = jax.vmap(clipped_distribution, in_axes=(0, 0, 1, 0, None))
means = jax.vmap(jax.vmap(expected, in_axes=(0, None)), in_axes=(0, None))


def bounded(parts, batch, ctx):
    """The batch with rewards scaled so that returns spread by 1 and the largest so far is within the bins."""
    spread = jnp.sqrt(variance(parts["reward_norm"]) + 1e-8)
    return {**batch, "reward": batch["reward"] / jnp.maximum(spread, parts["peak"] / LIMIT)}


def categorical_loss(guess, target, bins, batch):
    """Cross-entropy of critics' logits [n, B, bins] from a target [B, bins], summed over the critics, with metrics."""
    loss = jax.vmap(jax.vmap(cross_entropy), in_axes=(0, None))(guess, target).sum(axis=0)
    error = jnp.abs(means(guess, bins) - target @ bins).mean(axis=0)
    return mean(loss, batch), {"td_error": error, "target": target @ bins}


def build(specs: Specs, config: Config) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless it shows vectors and acts in [-1, 1]."""
    dims, length = continuous("simba_v2", specs.action), vector("simba_v2", specs.observation)
    action = jax.ShapeDtypeStruct((dims,), jnp.float32)
    if config.target_entropy is None:
        config = replace(config, target_entropy=-dims / 2)

    actor = net(HyperNet(config.widths[0], config.blocks[0], dims, heads=2), specs.observation)
    values = net(HyperNet(config.widths[1], config.blocks[1], BINS), specs.observation, action)
    heads = ensemble(values, config.critics)
    bins = jnp.linspace(-LIMIT, LIMIT, BINS)
    q = lambda logits: means(logits, bins)

    def critic_loss(live, frozen, batch, key):
        action, log_prob = sac.drawn_actions(actor.apply(frozen["actor"], batch["next_obs"]), key)
        logits = heads.apply(frozen["target"], batch["next_obs"], action)
        bonus = -jnp.exp(frozen["log_alpha"]) * log_prob
        target = distribution(batch["reward"], config.gamma * batch["discount"], logits, bonus, bins)
        guess = heads.apply(live["critic"], batch["obs"], batch["action"])
        return categorical_loss(guess, target, bins, batch)

    critic = Net(heads.init, lambda parameters, obs, action, key: q(heads.apply(parameters, obs, action)))
    base = sac.build(specs, config, actor=actor, critic=critic)

    def init(key):
        parts = base.init(key)
        parts |= {name: unit_columns(parts[name]) for name in ("actor", "critic", "target")}
        return {**parts, "norm": moments((length,)), "reward_norm": moments(), "peak": jnp.float32(0)}

    def act(parts, memory, obs, ctx, explore):
        return base.act(parts, memory, normalise(parts["norm"], obs), ctx, explore)

    def scaled(parts, batch, ctx):
        seen = {name: normalise(parts["norm"], batch[name]) for name in ("obs", "next_obs")}
        return {**bounded(parts, batch, ctx), **seen}

    learn = minimise(critic_loss, adam(config.lr), "critic", reads=("actor", "target", "log_alpha"))
    on_scaled = lambda rule: on(scaled, rule, reads=("norm", "reward_norm", "peak"))
    rules = {
        "actor": on_scaled(base.rules["actor"]),
        "actor_sphere": project("actor", unit_columns),
        "critic": on_scaled(learn),
        "critic_sphere": project("critic", unit_columns),
        "target": base.rules["target"],
    }
    observe = {
        "norm": observation_statistics(),
        "reward_norm": return_statistics(config.gamma, config.num_envs, peak="peak"),
    }
    return Agent(init, act, rules, observe)


def recipe(specs: Specs, config: Config) -> Recipe:
    return sac.recipe(specs, config, build)

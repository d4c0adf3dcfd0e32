"""BRO: bigger, regularised, optimistic SAC (Nauman et al. 2024).

Wide residual critics learn the quantiles of the return, without pessimism: a target is the mean of both. A second
actor, which is kept near the first, explores where the critics differ; everything begins anew a few times, but for what
was experienced. Deviations: SAC's range of the log standard deviation, in one output layer with the mean; each reset
draws new weights, where the authors' code draws the same again; sizes, a ratio and a warm-up for a CPU. All rules are
one, which begins anew as a whole: `also` cannot add to it.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from jaxrl.agents import sac
from jaxrl.agents.common import at_least, continuous, vector, within
from jaxrl.core import Agent, Recipe, Specs, adam, chain, each, mean, minimise
from jaxrl.equations.categorical import quantile_huber
from jaxrl.equations.distributions import tanh_normal_sample
from jaxrl.nets import Net, ResidualMLP, ensemble, net, orthogonal
from jaxrl.rules.resets import restarting


@dataclass(frozen=True)
class Config(sac.Config):
    """SAC's numbers, as BRO has them."""

    widths: tuple[int, int] = (64, 128)  # of actors and critics; the paper's are 256 and 512
    blocks: tuple[int, int] = (1, 2)  # of actors and critics
    quantiles: int = 100
    lr: float = 3e-4
    decay: float = 1e-4  # of all weights, times lr
    tau: float = 0.005
    batch: int = 128
    ratio: int = 2  # updates a tick; the paper's is 10, its fast variant's 2
    target_entropy: float | None = None  # nats; None is minus half the number of action dimensions
    optimism: float = 1.0  # at the start: weight of half the critics' difference, quantile by quantile
    nearness: float = 0.25  # at the start: weight of the divergence between the actors
    divergence: float = 0.05  # nats a dimension, what both weights aim at
    spread: float = 0.75  # standard deviation of the optimistic actor, as a share of the other's
    weights_lr: float = 3e-5  # Adam, for both weights
    resets: tuple[int, ...] = (15_000,)  # after so many ticks, the warm-up's included; more often at a ratio of 10

    def __post_init__(self):
        super().__post_init__()
        at_least(self, ratio=1, quantiles=1, decay=0, divergence=0, spread=0, weights_lr=0)
        within(self, optimism=(1e-4, 1e3), nearness=(1e-4, 1e3))


def weight(w: jax.Array) -> jax.Array:
    """A weight of the optimist's objective within (e^-10, e^7.5), from a free number."""
    return jnp.exp(-10 + 8.75 * (1 + jnp.tanh(w)))


def free(weight: float | jax.Array) -> jax.Array:
    """The number of which `weight` makes that, float32 []."""
    return jnp.arctanh((jnp.log(jnp.float32(weight)) + 10) / 8.75 - 1)


def build(specs: Specs, config: Config) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless its actions are a Box of [-1, 1]."""
    dims = continuous("bro", specs.action)
    vector("bro", specs.observation)
    obs, action = specs.observation, jax.ShapeDtypeStruct((dims,), jnp.float32)
    if config.target_entropy is None:
        config = replace(config, target_entropy=-dims / 2)

    (narrow, wide), (few, many) = config.widths, config.blocks
    actor = net(ResidualMLP(narrow, few, 2 * dims), obs)
    shift = net(ResidualMLP(narrow, few, dims, orthogonal(0.01), final_bias=False), obs, action)
    heads = ensemble(net(ResidualMLP(wide, many, config.quantiles), obs, action), 2)
    critic = Net(heads.init, lambda parameters, *seen: heads.apply(parameters, *seen[:2]).mean(axis=-1))
    base = sac.build(specs, config, actor=actor, critic=critic, judge=lambda q: q.mean(axis=0), linear_in=jnp.exp)

    def critic_loss(live, frozen, batch, key):
        action, log_prob = sac.drawn_actions(actor.apply(frozen["actor"], batch["next_obs"]), key)
        following = heads.apply(frozen["target"], batch["next_obs"], action).mean(axis=0)  # [B, quantiles]
        bonus = -jnp.exp(frozen["log_alpha"]) * log_prob
        discount = config.gamma * batch["discount"]
        target = batch["reward"][:, None] + discount[:, None] * (following + bonus[:, None])
        guess = heads.apply(live["critic"], batch["obs"], batch["action"])
        loss = jax.vmap(jax.vmap(quantile_huber), in_axes=(0, None))(guess, target).sum(axis=0)
        error = jnp.abs(guess.mean(axis=-1) - target.mean(axis=-1)).mean(axis=0)
        return mean(loss, batch), {"td_error": error, "target": target.mean(axis=-1)}

    def optimist(parts, explorer, obs):
        """Mean and log standard deviation of the actor that explores, and its divergence from the other."""
        center, log_std = sac.gaussian(actor.apply(parts["actor"], obs))
        moved = shift.apply(explorer, obs, center)
        kl = (moved**2 / (2 * jnp.exp(2 * log_std))).sum(axis=-1)
        return center + moved, log_std + jnp.log(config.spread), kl

    def optimist_loss(live, frozen, batch, key):
        center, log_std, kl = optimist(frozen, live["optimist"], batch["obs"])
        action, _ = sac.drawn_from(center, log_std, key)
        one, other = heads.apply(frozen["critic"], batch["obs"], action)  # [B, quantiles] each
        hopeful = 0.5 * (one + other + weight(frozen["weights"]["optimism"]) * jnp.abs(one - other)).mean(axis=-1)
        climb = weight(frozen["weights"]["nearness"]) * kl - hopeful
        # Where the actors are too far apart, optimism falls and nearness rises.
        excess = jax.lax.stop_gradient(kl) / dims - config.divergence
        settle = (weight(live["weights"]["optimism"]) - weight(live["weights"]["nearness"])) * excess
        return mean(climb + settle, batch), {"kl": kl}

    def init(key):
        key_base, key_optimist = jax.random.split(key)
        weights = {name: free(getattr(config, name)) for name in ("optimism", "nearness")}
        return {**base.init(key_base), "optimist": shift.init(key_optimist), "weights": weights}

    def act(parts, memory, obs, ctx, explore):
        if not explore:
            return base.act(parts, memory, obs, ctx, explore)
        center, log_std, _ = optimist(parts, parts["optimist"], obs)
        return tanh_normal_sample(ctx.key, center, log_std)[0], memory, {}

    decaying = adam(config.lr, decay=config.decay)
    rules = {
        "critic": minimise(critic_loss, decaying, "critic", reads=("actor", "target", "log_alpha")),
        "target": base.rules["target"],
        "actor": minimise(
            base.rules["actor"].loss,
            each(actor=decaying, log_alpha=adam(config.lr, b1=0.5)),
            ("actor", "log_alpha"),
            reads="critic",
        ),
        "optimist": minimise(
            optimist_loss,
            each(optimist=decaying, weights=adam(config.weights_lr, b1=0.5)),
            ("optimist", "weights"),
            reads=("actor", "critic"),
        ),
    }
    resets = jnp.asarray(config.resets, jnp.int32) * config.ratio
    learn = restarting(chain(rules), init, lambda ctx: (ctx.update == resets).any())
    return Agent(init, act, {"all": learn})


def recipe(specs: Specs, config: Config) -> Recipe:
    return sac.recipe(specs, config, build)

"""XQC: well-conditioned critics, by normalised batches and weights and a cross-entropy (Palenicek et al. 2025).

CrossQ's joined batch, through normalisers that stand before their activations, and with a target network again; the
weights of every unit are put back to norm 1; values are distributions over 101 bins, which scaled rewards keep within
[-5, 5]. Deviations: SimbaV2's; normalisers move only where their network learns.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agents import crossq, sac
from jaxrl.agents.common import continuous, vector
from jaxrl.agents.simba_v2 import BINS, LIMIT, categorical_loss, distribution, means
from jaxrl.core import Agent, Batch, Ctx, Parts, PyTree, Recipe, Specs, adam, every, minimise, on, track
from jaxrl.nets import NormedMLP, NormedNet, normed, normed_ensemble, orthogonal, unit_columns
from jaxrl.rules.resets import project
from jaxrl.rules.statistics import moments, return_statistics, scale


@dataclass(frozen=True)
class Config(crossq.Config):
    """CrossQ's numbers, as XQC has them (but `plain`, which has no use here)."""

    widths: tuple[int, ...] = (64, 64, 64, 64)  # the paper's are four times 256
    critic_widths: tuple[int, ...] = (128, 128, 128, 128)  # the paper's are 512; too few make no sharp logits
    lr: float = 3e-4
    b1: float = 0.9
    tau: float = 0.005
    alpha: float = 0.01
    ratio: int = 2
    target_entropy: float | None = None  # nats; None is minus half the number of action dimensions


def spread(parts, batch, ctx):
    """The batch with rewards scaled so that returns spread by 1."""
    return {**batch, "reward": scale(parts["reward_norm"], batch["reward"])}


def build(
    specs: Specs,
    config: Config,
    actor: NormedNet | None = None,
    critic: NormedNet | None = None,
    onto: Callable[[PyTree], PyTree] = unit_columns,
    scaled: Callable[[Parts, Batch, Ctx], Batch] = spread,
    **how: Any,
) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless its actions are a Box of [-1, 1].

    Args:
        actor, critic, how: as `crossq.build` takes them; None is XQC's.
        onto: puts a network's parameters back at their norms.
        scaled: the batch with the rewards that critics learn from; sees the parts 'reward_norm' and 'peak'.
    """
    dims = continuous("xqc", specs.action)
    vector("xqc", specs.observation)
    obs, action = specs.observation, jax.ShapeDtypeStruct((dims,), jnp.float32)
    if config.target_entropy is None:
        config = replace(config, target_entropy=-dims / 2)
    shape = {"first": True, "kernel_init": orthogonal(2**0.5)}
    actor = actor or normed(NormedMLP(config.widths, 2 * dims, **shape), obs)
    critic = critic or normed_ensemble(normed(NormedMLP(config.critic_widths, BINS, **shape), obs, action), 2)
    bins = jnp.linspace(-LIMIT, LIMIT, BINS)
    q = lambda logits: means(logits, bins)
    base = crossq.build(specs, config, actor, critic, q, linear_in=sac.logarithm, **how)

    def critic_loss(live, frozen, batch, key):
        output = actor.apply(frozen["actor"], frozen["actor_running"], batch["next_obs"])
        action, log_prob = sac.drawn_actions(output, key)
        both = crossq.joined(batch, action)
        logits, running = critic.train(live["critic"], frozen["critic_running"], *both)
        target, _ = critic.train(frozen["target"], frozen["critic_running"], *both)
        guess, following = jnp.split(logits, 2, axis=1)[0], jnp.split(target, 2, axis=1)[1]
        bonus = -jnp.exp(frozen["log_alpha"]) * log_prob
        target = distribution(batch["reward"], config.gamma * batch["discount"], following, bonus, bins)
        loss, metrics = categorical_loss(guess, target, bins, batch)
        return loss, {**metrics, "critic_running": running}

    def init(key):
        parts = base.init(key)
        parts |= {name: onto(parts[name]) for name in ("actor", "critic")}
        target = jax.tree.map(jnp.copy, parts["critic"])
        return {**parts, "target": target, "reward_norm": moments(), "peak": jnp.float32(0)}

    reads = ("actor", "actor_running", "target", "log_alpha")
    learn = minimise(critic_loss, adam(config.lr, b1=config.b1), "critic", reads, sets="critic_running")
    rules = {
        "critic": on(scaled, learn, reads=("reward_norm", "peak")),
        "critic_norms": project("critic", onto),
        "target": track("critic", "target", config.tau),
        "actor": base.rules["actor"],
        "actor_norms": every(config.delay, project("actor", onto)),
    }
    observe = {"reward_norm": return_statistics(config.gamma, config.num_envs, peak="peak")}
    return Agent(init, base.act, rules, observe)


def recipe(specs: Specs, config: Config) -> Recipe:
    return sac.recipe(specs, config, build)

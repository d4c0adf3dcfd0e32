"""DrM, on top of an actor-critic: what its dormant neurons tell (Xu et al. 2024).

One number, the share of the actor's neurons that hardly say anything, decides how far now and then all weights are
drawn to fresh ones, how much noise explores, and how much a target trusts the value of what was done before, the
expectile of the critics, over the policy's. Deviations: DrQ-v2's; the share that an update measures decides the noise
of acting a tick later; the target critics are drawn to the fresh weights of the critics, not to others of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.agents.common import at_least, further, present, tick, viewed, within
from jaxrl.core import BadInput, Ctx, Key, Parts, Recipe, Rule, Specs, adam, mean, minimise, on, stateless, when
from jaxrl.equations.values import expectile_loss
from jaxrl.nets import TrunkMLP, net, orthogonal
from jaxrl.rules.resets import dense, forgetting, mixed, passing
from jaxrl.statistics.plasticity import dormant_share

PERTURBED = ("actor", "critic", "target", "value")


@dataclass(frozen=True)
class Config:
    """What DrM adds; the defaults are the authors' for DeepMind Control."""

    silent: float = 0.025  # of its layer's mean: below it a neuron is dormant
    awake: float = 0.2  # share of dormant neurons below which an agent is awake
    period: int = 200_000  # frames between perturbations, 0 for none; the authors count 100,000 steps of 2 frames
    keep: tuple[float, float] = (0.2, 1.0)  # least and most that weights keep of themselves: 1 less twice the share
    explore: bool = True  # whether noise follows the share
    schedule: bool = True  # whether it is, from waking on, no less than the agent's own schedule begun then
    noise: float = 1.0  # what it is scaled by; MENTOR's is 0.8
    exploit: float = 0.6  # weight of the expectile's value in a target, at most
    expectile: float = 0.9

    def __post_init__(self):
        at_least(self, silent=0, period=0, noise=0)
        within(self, awake=(0, 1), keep=(0, 1), exploit=(0, 1), expectile=(0, 1))
        if not self.keep[0] <= self.keep[1]:
            raise BadInput(f"keep is {self.keep}; it is the least and the most, in that order.")


def kept(share: jax.Array, config: Config) -> jax.Array:
    """How much of themselves weights keep at a perturbation, from the share of dormant neurons."""
    return jnp.clip(1 - 2 * share, *config.keep)


def spread(share: jax.Array, config: Config) -> jax.Array:
    """The noise's standard deviation, from the share of dormant neurons."""
    return config.noise * jax.nn.sigmoid(10 * (share - config.awake))


def trust(share: jax.Array, config: Config) -> jax.Array:
    """The weight of the expectile's value in a target, from the share of dormant neurons."""
    return config.exploit * jax.nn.sigmoid(-50 * (share - config.awake))


def perturbing(
    towards: Callable[[Parts, Key], Parts], config: Config, due: Callable[[Ctx], jax.Array], reads: tuple[str, ...] = ()
) -> Rule:
    """Draws the dense layers of all networks but the encoder to others now and then, their normalisers left alone."""

    def perturb(parts, batch, ctx):
        new, keep = towards(parts, ctx.key), kept(parts["dormant"]["share"], config)
        mix = lambda a, b: mixed(a, b, keep)
        return {name: dense(mix, parts[name], new[name]) for name in PERTURBED}, {"kept": keep}

    return when(due, stateless(perturb, PERTURBED, ("dormant", *reads)))


def due(config: Config, recipe: Recipe, specs: Specs) -> Callable[[Ctx], jax.Array]:
    """When a perturbation is."""
    return passing(config.period, tick(recipe, specs))


def add(recipe: Recipe, specs: Specs, config: Config, base: Any) -> Recipe:
    """The recipe with DrM on top. Raises BadInput where its agent does not show what DrM looks at."""
    agent, gamma = recipe.agent, base.gamma
    look = viewed("drm", agent, "encode", "q", "actor", *(["noise"] if config.explore else []))
    sight = present(agent, "encoder", "code", "critic")
    features = jax.eval_shape(look["encode"], agent.shapes, specs.observation)
    value = net(TrunkMLP(base.widths, 1, base.features, orthogonal()), features)

    def v(parts, h):
        return value.apply(parts["value"], h)[..., 0]

    def measure(parts, batch, ctx):
        layers = look["actor"](parts, look["encode"](parts, batch["obs"]))["layers"]
        share, woke = ctx.shared(dormant_share(layers, config.silent)), parts["dormant"]["woke"]
        woke = jnp.where((woke < 0) & (share < config.awake), ctx.step, woke)
        changed = {"dormant": {"share": share, "woke": woke}}
        if config.explore:
            least = look["noise"](parts, ctx.step - woke) if config.schedule else 0.0
            changed["std"] = jnp.maximum(spread(share, config), jnp.where(woke < 0, 0, least))
        return changed, {"share": share}

    def value_loss(live, frozen, batch, key):
        h = look["encode"](frozen, batch["obs"])
        error = look["q"](frozen, h, batch["action"]).min(axis=0) - v(live, h)
        return mean(expectile_loss(error, config.expectile), batch), {}

    def exploiting(parts, batch, ctx):
        """What the expectile is trusted with becomes reward; the rest is left to be bootstrapped."""
        share = trust(parts["dormant"]["share"], config)
        worth = v(parts, look["encode"](parts, batch["next_obs"]))
        reward = batch["reward"] + gamma * batch["discount"] * share * worth
        return {**batch, "reward": reward, "discount": (1 - share) * batch["discount"]}

    def own(key, parts):
        return {"value": value.init(key), "dormant": {"share": jnp.float32(1), "woke": jnp.int32(-1)}}

    init = further("drm", agent, own)
    written = ("dormant", "std") if config.explore else ("dormant",)
    rules = {
        "dormancy": stateless(measure, written, (*present(agent, "encoder"), "actor")),
        "value": minimise(value_loss, adam(base.lr), "value", sight),
        **{name: rule for name, rule in agent.rules.items() if name != "noise" or not config.explore},
    }
    rules["critic"] = on(exploiting, rules["critic"], ("value", "dormant", *present(agent, "encoder")))
    if config.period:
        now = due(config, recipe, specs)
        fresh = lambda parts, key: init(key)
        rules = {"perturb": perturbing(fresh, config, now), **{n: forgetting(r, now) for n, r in rules.items()}}
    return replace(recipe, agent=replace(agent, init=init, rules=rules))

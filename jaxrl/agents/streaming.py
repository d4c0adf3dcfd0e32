"""What the four streaming agents share: features, networks, signals and statistics.

Elsayed et al. 2024, "Streaming deep reinforcement learning finally works". Each transition is learned from once, as it
comes: no replay, no batch, no target network. Deviation: when an observation is learned from as the start of a
transition it is normalised by the statistics of now; the paper keeps the numbers of the moment it was first seen.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.agents.common import at_least, vector, within
from jaxrl.core import Agent, Batch, Loss, Parts, Recipe, Rule, Specs, minimise
from jaxrl.nets import MLP, Net, leaky_relu, net, sparse_uniform
from jaxrl.rules.statistics import moments, normalise, observation_statistics, return_statistics, scale
from jaxrl.rules.traces import obgd
from jaxrl.sources import latest


@dataclass(frozen=True)
class Stream:
    """The numbers that all streaming agents share; one setting for every task in the paper."""

    width: int = 32  # of the two hidden layers
    lr: float = 1.0  # largest step; the bound shortens it
    kappa: float = 2.0  # how far below overshooting a value's step stays
    gamma: float = 0.99  # discount a step
    lambda_: float = 0.8  # decay of the traces, beside gamma
    sparsity: float = 0.9  # share of each unit's inputs that start at zero; 0 is the dense ablation
    bound: bool = True  # the overshooting bound; False is the ablation
    normalise: bool = True  # observations and rewards; False is the ablation
    layer_norm: bool = True  # False is the ablation
    bootstrap_truncated: bool = False  # True values what follows a time limit; the authors' code treats it as an end

    def __post_init__(self):
        at_least(self, width=1, lr=0, kappa=0)
        within(self, gamma=(0, 1), lambda_=(0, 1), sparsity=(0, 1))


class View(NamedTuple):
    """One transition as a streaming agent sees it.

    x and x_next [features], action, reward [], discount [] (with gamma), reset [] (1.0 where the traces end).
    """

    x: jax.Array
    action: jax.Array
    reward: jax.Array
    discount: jax.Array
    x_next: jax.Array
    reset: jax.Array


class Features(NamedTuple):
    """`parts()`, the statistics; `of(parts, obs, t) -> x`, what a network sees at step t of an episode;
    `view(parts, batch) -> View` of a batch of one; `reward_unit(parts)`, how many rewards make a normalised one;
    `names` of the parts it reads; `observe` rules; `shape` of x."""

    parts: Callable[[], Parts]
    of: Callable[[Parts, jax.Array, jax.Array], jax.Array]
    view: Callable[[Parts, Batch], View]
    reward_unit: Callable[[Parts], jax.Array]
    names: tuple[str, ...]
    observe: dict[str, Rule]
    shape: jax.ShapeDtypeStruct


def features(specs: Specs, config: Stream) -> Features:
    """Normalised observations, with the time within the episode appended where it is limited."""
    size = vector("a streaming agent", specs.observation)
    limit = specs.limit

    def of(parts, obs, t):
        x = normalise(parts["norm"], obs) if config.normalise else obs
        return x if limit is None else jnp.append(x, t / limit - 0.5)

    def reward_unit(parts):
        return 1 / scale(parts["reward_norm"], jnp.float32(1)) if config.normalise else jnp.float32(1)

    def view(parts, batch):
        one = jax.tree.map(lambda x: x[0], batch)
        goes_on = one["discount"] if config.bootstrap_truncated else 1.0 - one["end"]
        x, x_next = of(parts, one["obs"], one["memory"]), of(parts, one["next_obs"], one["memory"] + 1)
        reward = one["reward"] / reward_unit(parts)
        return View(x, one["action"], reward, config.gamma * goes_on, x_next, 1.0 * one["end"])

    shape = jax.ShapeDtypeStruct((size + (limit is not None),), jnp.float32)
    if not config.normalise:
        return Features(dict, of, view, reward_unit, (), {}, shape)
    observe = {"norm": observation_statistics(), "reward_norm": return_statistics(config.gamma, num_envs=1)}
    parts = lambda: {"norm": moments((size,)), "reward_norm": moments()}
    return Features(parts, of, view, reward_unit, ("norm", "reward_norm"), observe, shape)


def network(x: jax.ShapeDtypeStruct, outputs: int, config: Stream) -> Net:
    """Two hidden layers, LayerNorm without parameters, leaky ReLU, sparse initialisation in every layer."""
    norm = "plain" if config.layer_norm else None
    init = sparse_uniform(config.sparsity)
    return net(MLP((config.width, config.width), outputs, leaky_relu, norm, kernel_init=init), x)


def traced(prediction: Loss, feature: Features, config: Stream, reads: Iterable[str] = ()) -> Rule:
    """A critic that descends `prediction` along traces, whose TD error and resets are among its metrics."""
    optimiser = obgd(config.gamma * config.lambda_, config.kappa, config.lr, config.bound)
    return minimise(prediction, optimiser, "critic", (*reads, *feature.names), signals=("delta", "reset"))


def clock() -> jax.Array:
    """A streaming agent's memory: the step within the episode, int32 []."""
    return jnp.int32(0)


def streaming(agent: Agent) -> Recipe:
    """One environment, one step, one update: many environments would be another algorithm."""
    return Recipe(agent, latest())

"""DQN from replay, with double-Q and n-step targets (Mnih et al. 2015; van Hasselt et al. 2016).

What the network says of each action is a *head*: the value itself, or its distribution, on fixed bins (C51, Bellemare
et al. 2017) or as quantiles (QR-DQN, Dabney et al. 2018). Each can be dueling (Wang et al. 2016), with all hidden
layers shared, where the paper's two streams have one each of their own. Not here: noisy nets.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl.agents.common import at_least, discrete, fading, falling, numbers, vector, within
from jaxrl.core import Agent, BadInput, Recipe, Specs, adam, every, mean, minimise, track
from jaxrl.equations.categorical import cross_entropy, expected, projected, quantile_huber
from jaxrl.equations.distributions import epsilon_greedy
from jaxrl.equations.values import huber, td_target
from jaxrl.nets import MLP, net
from jaxrl.sources import uniform


@dataclass(frozen=True)
class Config:
    """What DQN can be told; the defaults solve CartPole."""

    widths: tuple[int, ...] = (64, 64)  # hidden widths
    head: Literal["scalar", "c51", "quantile"] = "scalar"  # what stands for an action's value
    atoms: int = 51  # bins of c51; quantiles of quantile, of which DQN Zoo has 201
    support: tuple[float, float] = (-10.0, 10.0)  # of c51: the outermost bins, for rewards within [-1, 1]
    dueling: bool = False  # a value and the actions' advantages around their mean, in place of values
    lr: float = 3e-4  # Adam; on Atari 2.5e-4 with c51 and 5e-5 with quantile
    eps: float = 1e-8  # Adam's; on Atari 0.01 / 32, with both
    b2: float = 0.999  # Adam's, of the mean square
    decay: float = 0.0  # share of itself by which every weight falls at an update, whatever lr is
    clip: float | None = None  # of the gradient's global norm; on Atari 10, with both
    decay_frames: int = 0  # frames over which lr falls linearly to 0; 0 keeps it
    gamma: float = 0.98  # discount a step
    double: bool = True  # choose the next action by the online network
    n: int = 10  # steps of the return
    target_period: int = 500  # updates between copies to the target
    huber: float | None = 1.0  # errors beyond this pull linearly; None is the half square
    batch: int = 128  # transitions an update
    capacity: int = 50_000  # transitions kept
    warmup: int = 1_000  # frames of uniform actions before learning
    epsilon: float = 0.01  # exploration in the end
    epsilon_frames: int = 20_000  # frames over which exploration falls to it, linearly from 1
    temperature: float | None = None  # of a softmax over values that explores in place of epsilon
    num_envs: int = 8
    unroll: int = 1  # steps of each environment a tick
    ratio: int = 4  # updates a tick

    def __post_init__(self):
        at_least(
            self,
            atoms=1,
            lr=0,
            decay_frames=0,
            n=1,
            target_period=1,
            batch=1,
            capacity=1,
            warmup=0,
            epsilon_frames=1,
            num_envs=1,
            unroll=1,
            ratio=0,
        )
        within(self, gamma=(0, 1), epsilon=(0, 1), b2=(0, 1), decay=(0, 1))
        if self.head == "c51" and not self.support[0] < self.support[1]:
            raise BadInput(f"support is {self.support}; its first end must be below its second.")
        if self.temperature is not None and numbers(self.temperature) and self.temperature <= 0:
            raise BadInput(f"temperature is {self.temperature}; it is above 0, or None for epsilon.")
        if self.head == "quantile" and self.huber is None:
            raise BadInput("huber is None, which quantile has no use for: 1.0 is the paper's.")


class Head(NamedTuple):
    """How a network's outputs stand for the value of one action.

    Fields: outputs, how many an action has; `value(outputs [n]) -> []`; `loss(outputs [n], reward, discount,
    following [n]) -> []`, where `following` are the outputs for the action that is taken next.
    """

    outputs: int
    value: Callable[[jax.Array], jax.Array]
    loss: Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


def scalar(config: Config) -> Head:
    """The value itself (Mnih et al. 2015)."""

    def loss(q, reward, discount, following):
        error = q[0] - td_target(reward, discount, following[0])
        return 0.5 * error**2 if config.huber is None else huber(error, config.huber)

    return Head(1, lambda q: q[0], loss)


def c51(config: Config) -> Head:
    """Logits of fixed bins; the loss is the cross-entropy from the projected target (Bellemare et al. 2017)."""
    bins = jnp.linspace(*config.support, config.atoms)

    def loss(logits, reward, discount, following):
        return cross_entropy(logits, projected(reward + discount * bins, jax.nn.softmax(following), bins))

    return Head(config.atoms, lambda logits: expected(logits, bins), loss)


def quantile(config: Config) -> Head:
    """Quantiles, each of the same weight, by regression (Dabney et al. 2018)."""

    def loss(quantiles, reward, discount, following):
        return quantile_huber(quantiles, reward + discount * following, config.huber)

    return Head(config.atoms, jnp.mean, loss)


HEADS = {"scalar": scalar, "c51": c51, "quantile": quantile}


def duel(outputs: jax.Array) -> jax.Array:
    """V + A - mean A, of rows V and then A: [..., 1 + actions, n] -> [..., actions, n]  (Wang et al. 2016, eq. 9)."""
    advantages = outputs[..., 1:, :]
    return outputs[..., :1, :] + advantages - advantages.mean(axis=-2, keepdims=True)


def of(outputs: jax.Array, action: jax.Array) -> jax.Array:
    """What each transition's outputs [B, actions, n] are for its action [B]: [B, n]."""
    return jnp.take_along_axis(outputs, action[:, None, None], axis=1)[:, 0]


def build(specs: Specs, config: Config, head: Head | None = None) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless its actions are Discrete.

    Args:
        head: what stands for an action's value; None is the config's.
    """
    head = head or HEADS[config.head](config)
    rows = discrete("dqn", specs.action) + config.dueling
    vector("dqn", specs.observation)
    critic = net(MLP(config.widths, rows * head.outputs), specs.observation)
    values = jnp.vectorize(head.value, signature="(n)->()")

    def outputs(parameters, obs):
        """What the head's functions take, for each action: [..., actions, n]."""
        flat = critic.apply(parameters, obs)
        each = flat.reshape(*flat.shape[:-1], rows, head.outputs)
        return duel(each) if config.dueling else each

    def critic_loss(live, frozen, batch, key):
        after = outputs(frozen["target"], batch["next_obs"])
        choosing = outputs(frozen["critic"], batch["next_obs"]) if config.double else after
        following = of(after, values(choosing).argmax(axis=-1))
        now = outputs(live["critic"], batch["obs"])
        taken = of(now, batch["action"])
        discount = config.gamma * batch["discount"]
        loss = jax.vmap(head.loss)(taken, batch["reward"], discount, following)
        error = values(taken) - jax.vmap(td_target)(batch["reward"], discount, values(following))
        return mean(loss, batch), {"td_error": jnp.abs(error), "q": values(now).max(axis=-1)}

    def init(key):
        critics = critic.init(key)
        return {"critic": critics, "target": jax.tree.map(jnp.copy, critics)}

    exploration = optax.linear_schedule(1.0, config.epsilon, config.epsilon_frames)

    def act(parts, memory, obs, ctx, explore):
        q = values(outputs(parts["critic"], obs))
        if not explore:
            action = q.argmax()
        elif config.temperature is None:
            action = epsilon_greedy(ctx.key, q, exploration(ctx.frames))
        else:
            action = jax.random.categorical(ctx.key, q / config.temperature)
        return action.astype(jnp.int32), memory, {}

    descend = adam(falling(config.lr, config.decay_frames), clip=config.clip, eps=config.eps, b2=config.b2)
    rules = {
        "critic": minimise(critic_loss, fading(descend, config.decay), "critic", reads="target"),
        "target": every(config.target_period, track("critic", "target", 1.0)),
    }
    return Agent(init, act, rules)


def recipe(specs: Specs, config: Config) -> Recipe:
    source = uniform(config.capacity, config.batch, n=config.n, gamma=config.gamma)
    return Recipe(build(specs, config), source, config.num_envs, config.unroll, config.ratio, warmup=config.warmup)

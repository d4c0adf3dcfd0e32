"""DQN from replay, with double-Q and n-step targets (Mnih et al. 2015; van Hasselt et al. 2016).

Not here: distributional heads, dueling, noisy nets. Those are other parts and losses on this base.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from jaxrl.agents.common import at_least, discrete, falling, within
from jaxrl.core import Agent, Recipe, Specs, adam, every, mean, minimise, track
from jaxrl.equations.distributions import epsilon_greedy
from jaxrl.equations.values import double_q_target, huber, q_target
from jaxrl.nets import MLP, net
from jaxrl.sources import uniform


@dataclass(frozen=True)
class Config:
    """What DQN can be told; the defaults solve CartPole."""

    widths: tuple[int, ...] = (64, 64)  # hidden widths
    lr: float = 3e-4  # Adam
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
    num_envs: int = 8
    unroll: int = 1  # steps of each environment a tick
    ratio: int = 4  # updates a tick

    def __post_init__(self):
        at_least(
            self,
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
        within(self, gamma=(0, 1), epsilon=(0, 1))


def build(specs: Specs, config: Config) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless its actions are Discrete."""
    critic = net(MLP(config.widths, discrete("dqn", specs.action)), specs.observation)
    loss_of = (lambda e: 0.5 * e**2) if config.huber is None else (lambda e: huber(e, config.huber))

    def critic_loss(live, frozen, batch, key):
        q_next = critic.apply(frozen["target"], batch["next_obs"])  # [B, actions]
        discount = config.gamma * batch["discount"]
        if config.double:
            online = critic.apply(frozen["critic"], batch["next_obs"])
            target = jax.vmap(double_q_target)(batch["reward"], discount, q_next, online)
        else:
            target = jax.vmap(q_target)(batch["reward"], discount, q_next)
        q = critic.apply(live["critic"], batch["obs"])
        error = jnp.take_along_axis(q, batch["action"][:, None], axis=1)[:, 0] - target
        return mean(loss_of(error), batch), {"td_error": jnp.abs(error), "q": q.max(axis=-1)}

    def init(key):
        critics = critic.init(key)
        return {"critic": critics, "target": jax.tree.map(jnp.copy, critics)}

    exploration = optax.linear_schedule(1.0, config.epsilon, config.epsilon_frames)

    def act(parts, memory, obs, ctx, explore):
        q = critic.apply(parts["critic"], obs)
        action = epsilon_greedy(ctx.key, q, exploration(ctx.step)) if explore else q.argmax().astype(jnp.int32)
        return action, memory, {}

    rules = {
        "critic": minimise(critic_loss, adam(falling(config.lr, config.decay_frames)), "critic", reads="target"),
        "target": every(config.target_period, track("critic", "target", 1.0)),
    }
    return Agent(init, act, rules)


def recipe(specs: Specs, config: Config) -> Recipe:
    source = uniform(config.capacity, config.batch, n=config.n, gamma=config.gamma)
    return Recipe(build(specs, config), source, config.num_envs, config.unroll, config.ratio, warmup=config.warmup)

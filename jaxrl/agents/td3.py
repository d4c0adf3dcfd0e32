"""TD3: twin delayed deterministic policy gradient (Fujimoto et al. 2018).

Twin critics with the minimum target at a smoothed action; actor and targets move with every second critic update, the
actor along the first critic. Not here: their initialisers, uniform for weights and biases alike.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxrl.agents.common import at_least, continuous, vector, within
from jaxrl.core import Agent, Key, Recipe, Specs, adam, every, mean, minimise, track
from jaxrl.equations.values import clipped_q_target
from jaxrl.nets import MLP, ensemble, net
from jaxrl.sources import uniform


@dataclass(frozen=True)
class Config:
    """What TD3 can be told; the defaults are the authors' code's, but for sizes that suit a CPU."""

    widths: tuple[int, ...] = (256, 256)  # hidden widths of actor and critics
    lr: float = 3e-4  # Adam, for both
    gamma: float = 0.99  # discount a step (not a frame)
    tau: float = 0.005  # Polyak rate of both targets, each time they move
    noise: float = 0.1  # standard deviation of exploration
    smoothing: float = 0.2  # standard deviation of the noise on target actions
    smoothing_clip: float = 0.5  # of that noise, either way
    delay: int = 2  # critic updates to one of the actor and the targets
    batch: int = 256  # transitions an update
    capacity: int = 100_000  # transitions kept
    warmup: int = 5_000  # frames of uniform actions before learning; the authors' are 25,000
    num_envs: int = 1
    ratio: int = 1  # updates a tick

    def __post_init__(self):
        at_least(self, lr=0, noise=0, smoothing=0, smoothing_clip=0, delay=1)
        at_least(self, batch=1, capacity=1, warmup=0, num_envs=1, ratio=0)
        within(self, gamma=(0, 1), tau=(0, 1))


def smoothed(center: jax.Array, std: float, clip: float, key: Key) -> jax.Array:
    """Actions [..., dims] near the policy's, `center`: like ones should be worth alike."""
    noise = std * jax.random.normal(key, center.shape)
    return jnp.clip(center + jnp.clip(noise, -clip, clip), -1, 1)


def build(specs: Specs, config: Config) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless its actions are a Box of [-1, 1]."""
    dims = continuous("td3", specs.action)
    vector("td3", specs.observation)
    policy = net(MLP(config.widths, dims), specs.observation)
    action = jax.ShapeDtypeStruct((dims,), jnp.float32)
    critic = ensemble(net(MLP(config.widths, 1), specs.observation, action), 2)

    def mu(actor, obs):
        """The action without noise [..., dims]."""
        return jnp.tanh(policy.apply(actor, obs))

    def q(parameters, obs, action):
        return critic.apply(parameters, obs, action)[..., 0]  # [2, B]

    def critic_loss(live, frozen, batch, key):
        action = smoothed(mu(frozen["actor_target"], batch["next_obs"]), config.smoothing, config.smoothing_clip, key)
        q_next = q(frozen["target"], batch["next_obs"], action)
        discount = config.gamma * batch["discount"]
        target = jax.vmap(clipped_q_target, in_axes=(0, 0, 1))(batch["reward"], discount, q_next)
        error = q(live["critic"], batch["obs"], batch["action"]) - target
        return mean((error**2).sum(axis=0), batch), {"td_error": jnp.abs(error).mean(axis=0), "target": target}

    def actor_loss(live, frozen, batch, key):
        q_new = q(frozen["critic"], batch["obs"], mu(live["actor"], batch["obs"]))[0]
        return -mean(q_new, batch), {"q": q_new}

    def init(key):
        key_actor, key_critic = jax.random.split(key)
        online = {"actor": policy.init(key_actor), "critic": critic.init(key_critic)}
        copies = jax.tree.map(jnp.copy, online)  # not the same buffers: the run is donated
        return {**online, "actor_target": copies["actor"], "target": copies["critic"]}

    def act(parts, memory, obs, ctx, explore):
        center = mu(parts["actor"], obs)
        noise = config.noise * jax.random.normal(ctx.key, center.shape) if explore else 0.0
        return jnp.clip(center + noise, -1, 1), memory, {}

    later = lambda rule: every(config.delay, rule)
    rules = {
        "critic": minimise(critic_loss, adam(config.lr), "critic", reads=("actor_target", "target")),
        "actor": later(minimise(actor_loss, adam(config.lr), "actor", reads="critic")),
        "target": later(track("critic", "target", config.tau)),
        "actor_target": later(track("actor", "actor_target", config.tau)),
    }
    views = {
        "encode": lambda parts, obs: obs,
        "q": lambda parts, obs, action: q(parts["critic"], obs, action),
        "policy": lambda parts, obs, key: mu(parts["actor"], obs),
        "actor": lambda parts, obs, key=None: policy.within(parts["actor"], obs),
        "critic": lambda parts, obs, action: critic.within(parts["critic"], obs, action),
    }
    return Agent(init, act, rules, views=views)


def recipe(specs: Specs, config: Config) -> Recipe:
    source = uniform(config.capacity, config.batch)
    return Recipe(build(specs, config), source, num_envs=config.num_envs, ratio=config.ratio, warmup=config.warmup)

"""DrQ-v2: continuous control from pixels (Yarats et al. 2022, "Mastering visual continuous control").

Deterministic policy gradients with twin critics, n-step returns and scheduled noise; one encoder, learned by the critic
alone; images randomly shifted. Deviations: the actor sees the encoding after the critic's step, where the authors' code
reuses the one before it; replay is uniform over transitions, not over finished episodes.

Known limit: at sizes for a CPU (48 pixels, an action repeat of 8, 2x256, batches of 64 and 128, learning rates from
1e-4 to 1e-3) its policy saturated within some hundred updates on cartpole-swingup and had not recovered at 25,000
frames. `drq` is what `make train PIXELS=48` runs.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from jaxrl.agents.common import at_least, continuous, encoder, stacked, within
from jaxrl.core import Agent, Recipe, Specs, adam, mean, minimise, on, track
from jaxrl.equations.distributions import noisy_action
from jaxrl.equations.values import clipped_q_target
from jaxrl.nets import MLP, Trunk, ensemble, net, orthogonal
from jaxrl.sources import shifted, uniform


@dataclass(frozen=True)
class Config:
    """What DrQ-v2 can be told; the defaults are the paper's for its medium tasks."""

    channels: tuple[int, ...] = (32, 32, 32, 32)  # of the encoder's convolutions
    strides: tuple[int, ...] = (2, 1, 1, 1)
    sizes: tuple[int, ...] = (3, 3, 3, 3)  # pixels a side of their windows
    features: int = 50  # width of the necks of actor and critic
    widths: tuple[int, ...] = (1024, 1024)  # hidden widths of actor and critics
    lr: float = 1e-4  # Adam, for all
    gamma: float = 0.99  # discount a step (not a frame)
    n: int = 3  # steps of the return; the paper has 1 for the walker
    tau: float = 0.01  # Polyak rate of the target critics
    noise: tuple[float, float] = (1.0, 0.1)  # standard deviation of the action's noise, at first and in the end
    noise_frames: int = 1_000_000  # frames over which it falls linearly; the paper counts steps of 2 frames
    noise_clip: float = 0.3  # of the noise in the losses; acting has none
    pad: int = 4  # pixels of the largest shift
    batch: int = 256  # transitions an update
    capacity: int = 100_000  # transitions kept; the paper's million takes 21 GB
    warmup: int = 4_000  # frames of uniform actions before learning
    num_envs: int = 1
    unroll: int = 2  # steps of each environment a tick
    ratio: int = 1  # updates a tick

    def __post_init__(self):
        at_least(self, features=1, lr=0, n=1, noise_frames=1, noise_clip=0, pad=0, batch=1, capacity=1, warmup=0)
        at_least(self, num_envs=1, unroll=1, ratio=0)
        within(self, gamma=(0, 1), tau=(0, 1))


def build(specs: Specs, config: Config) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless it shows images and acts in [-1, 1]."""
    dims = continuous("drqv2", specs.action)
    eye, seen = encoder("drqv2", specs.observation, config)
    narrow, action = jax.ShapeDtypeStruct((config.features,), jnp.float32), jax.ShapeDtypeStruct((dims,), jnp.float32)
    trunk = net(Trunk(config.features), seen)
    policy = net(MLP(config.widths, dims, kernel_init=orthogonal()), narrow)
    heads = ensemble(net(MLP(config.widths, 1, kernel_init=orthogonal()), narrow, action), 2)
    spread = optax.linear_schedule(*config.noise, config.noise_frames)

    def mu(actor, h):
        """The action without noise [..., dims]."""
        return jnp.tanh(policy.apply(actor["policy"], trunk.apply(actor["trunk"], h)))

    def q(critic, h, action):
        return heads.apply(critic["heads"], trunk.apply(critic["trunk"], h), action)[..., 0]  # [2, B]

    def noisy(actor, h, std, key):
        """Actions [B, dims] with clipped noise."""
        center = mu(actor, h)
        noise = std * jax.random.normal(key, center.shape)
        return noisy_action(center, jnp.clip(noise, -config.noise_clip, config.noise_clip))

    def critic_loss(live, frozen, batch, key):
        h_next = eye.apply(frozen["encoder"], batch["next_obs"])
        action = noisy(frozen["actor"], h_next, batch["std"], key)
        q_next = q(frozen["target"], h_next, action)
        discount = config.gamma * batch["discount"]
        target = jax.vmap(clipped_q_target, in_axes=(0, 0, 1))(batch["reward"], discount, q_next)
        error = q(live["critic"], eye.apply(live["encoder"], batch["obs"]), batch["action"]) - target
        return mean((error**2).sum(axis=0), batch), {"td_error": jnp.abs(error).mean(axis=0), "target": target}

    def actor_loss(live, frozen, batch, key):
        h = eye.apply(frozen["encoder"], batch["obs"])  # no gradient: the critic alone shapes the encoder
        q_new = q(frozen["critic"], h, noisy(live["actor"], h, batch["std"], key)).min(axis=0)
        return -mean(q_new, batch), {"q": q_new}

    def init(key):
        key_encoder, key_actor, key_critic = jax.random.split(key, 3)
        (actor_trunk, actor_policy), (critic_trunk, critic_heads) = (
            tuple(jax.random.split(key)) for key in (key_actor, key_critic)
        )
        critic = {"trunk": trunk.init(critic_trunk), "heads": heads.init(critic_heads)}
        return {
            "encoder": eye.init(key_encoder),
            "actor": {"trunk": trunk.init(actor_trunk), "policy": policy.init(actor_policy)},
            "critic": critic,
            "target": jax.tree.map(jnp.copy, critic),  # not the same buffers: the run is donated
        }

    def act(parts, memory, obs, ctx, explore):
        center = mu(parts["actor"], eye.apply(parts["encoder"], obs))
        noise = spread(ctx.step) * jax.random.normal(ctx.key, center.shape) if explore else jnp.zeros_like(center)
        return noisy_action(center, noise), memory, {}

    def now(parts, batch, ctx):
        return {**batch, "std": spread(ctx.step)}

    critic_rule = minimise(critic_loss, adam(config.lr), ("encoder", "critic"), reads=("actor", "target"))
    rules = {
        "critic": on(now, critic_rule),
        "actor": on(now, minimise(actor_loss, adam(config.lr), "actor", reads=("encoder", "critic"))),
        "target": track("critic", "target", config.tau),
    }
    return Agent(init, act, rules)


def recipe(specs: Specs, config: Config) -> Recipe:
    frames = stacked("drqv2", specs.observation)
    source = uniform(config.capacity, config.batch, n=config.n, gamma=config.gamma, frames=frames)
    source = shifted(source, config.pad)
    return Recipe(build(specs, config), source, config.num_envs, config.unroll, config.ratio, warmup=config.warmup)

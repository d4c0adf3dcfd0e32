"""FastTD3: TD3 for a thousand environments (Seo et al. 2025).

Values are distributions over fixed bins, updates are few and their batches large, each environment explores by a noise
of a size of its own, and the target is of the actor itself, without a copy that trails it. Deviations: exploration is
clipped to an environment's bounds, where the authors leave that to the simulator; the first steps are uniform actions,
not the policy's; a batch is drawn from all that is kept, not in equal shares from each environment; of two target
critics the lesser is the one that expects less before its distribution is put on the bins, not after; statistics of
observations count what is seen in acting, not batches too, and normalise as PPO's do; biases begin at zero. Not here:
observations of the critics' own, and the mean of both critics in place of the lesser.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from jaxrl.agents.common import at_least, continuous, vector, within
from jaxrl.agents.simba_v2 import categorical_loss, distribution, means
from jaxrl.agents.td3 import smoothed
from jaxrl.core import Agent, BadInput, Recipe, Specs, adam, every, mean, minimise, on, track
from jaxrl.nets import MLP, computing, ensemble, in_precision, net
from jaxrl.rules.statistics import moments, normalise, observation_statistics
from jaxrl.sources import uniform

# U(+-1/sqrt(fan_in)), as torch has it, and for the actor's last layer a normal.
UNIFORM, SMALL = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"), jax.nn.initializers.normal(0.01)
UNDRAWN = -1.0  # the size of an episode's noise before its first step


@dataclass(frozen=True)
class Config:
    """What FastTD3 can be told; the defaults are the authors' for Playground, which want a GPU."""

    num_envs: int = 1024
    ratio: int = 2  # updates a tick
    batch: int = 32_768  # transitions an update
    capacity: int = 10_485_760  # transitions kept: 10,240 of each environment
    warmup: int = 10_240  # frames of uniform actions before learning: 10 of each environment
    widths: tuple[int, ...] = (512, 256, 128)  # the actor's hidden widths
    critic_widths: tuple[int, ...] = (1024, 512, 256)
    atoms: int = 101  # bins of a value
    support: tuple[float, float] = (-10.0, 10.0)  # the outermost of them; `critic/outermost` says what lies there
    lr: float = 3e-4  # AdamW, for both
    decay: float = 0.1  # of all parameters, times lr
    gamma: float = 0.97  # discount a step (not a frame)
    n: int = 1  # steps of the return
    tau: float = 0.1  # Polyak rate of the target critics
    sigma: tuple[float, float] = (0.001, 0.4)  # range of an environment's standard deviation of exploration
    smoothing: float = 0.001  # standard deviation of the noise on target actions
    smoothing_clip: float = 0.5  # of that noise, either way
    delay: int = 2  # critic updates to one of the actor
    precision: Literal["float32", "bfloat16"] = "float32"  # in which networks compute; the authors' is bfloat16

    def __post_init__(self):
        at_least(self, num_envs=1, ratio=0, batch=1, capacity=1, warmup=0, atoms=2, lr=0, decay=0, n=1)
        at_least(self, smoothing=0, smoothing_clip=0, delay=1)
        within(self, gamma=(0, 1), tau=(0, 1))
        if not self.support[0] < self.support[1]:
            raise BadInput(f"support is {self.support}; its first end must be below its second.")
        if not 0 <= self.sigma[0] <= self.sigma[1]:
            raise BadInput(f"sigma is {self.sigma}; it is a range of standard deviations, the smaller one first.")


def held(sigma: jax.Array, key: jax.Array, between: tuple[float, float]) -> jax.Array:
    """An episode's size of the noise, float32 []: drawn where it is not yet, so that an episode keeps its own."""
    drawn = jax.random.uniform(key, (), minval=between[0], maxval=between[1])
    return jnp.where(sigma == UNDRAWN, drawn, sigma)


def build(specs: Specs, config: Config) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless it shows vectors and acts in [-1, 1]."""
    dims, length = continuous("fast_td3", specs.action), vector("fast_td3", specs.observation)
    action = jax.ShapeDtypeStruct((dims,), jnp.float32)
    how = computing(config.precision)
    policy = in_precision(net(MLP(config.widths, dims, kernel_init=UNIFORM, final_init=SMALL), specs.observation), how)
    values = MLP(config.critic_widths, config.atoms, kernel_init=UNIFORM)
    heads = in_precision(ensemble(net(values, specs.observation, action), 2), how)
    bins = jnp.linspace(*config.support, config.atoms)

    def mu(actor, obs):
        """The action without noise [..., dims]."""
        return jnp.tanh(policy.apply(actor, obs))

    def critic_loss(live, frozen, batch, key):
        center = mu(frozen["actor"], batch["next_obs"])
        action = smoothed(center, config.smoothing, config.smoothing_clip, key)
        logits = heads.apply(frozen["target"], batch["next_obs"], action)  # [2, B, atoms]
        none = jnp.zeros_like(batch["reward"])  # of entropy
        target = distribution(batch["reward"], config.gamma * batch["discount"], logits, none, bins)
        guess = heads.apply(live["critic"], batch["obs"], batch["action"])
        loss, metrics = categorical_loss(guess, target, bins, batch)
        return loss, {**metrics, "outermost": target[:, 0] + target[:, -1]}

    def actor_loss(live, frozen, batch, key):
        logits = heads.apply(frozen["critic"], batch["obs"], mu(live["actor"], batch["obs"]))
        q = means(logits, bins).min(axis=0)
        return -mean(q, batch), {"q": q}

    def init(key):
        key_actor, key_critic = jax.random.split(key)
        online = heads.init(key_critic)
        target = jax.tree.map(jnp.copy, online)  # not the same buffers: the run is donated
        return {"actor": policy.init(key_actor), "critic": online, "target": target, "norm": moments((length,))}

    def seen(parts, obs):
        return normalise(parts["norm"], obs, clip=10.0)

    def act(parts, memory, obs, ctx, explore):
        center = mu(parts["actor"], seen(parts, obs))
        if not explore:
            return center, memory, {}
        key_noise, key_sigma = jax.random.split(ctx.key)
        sigma = held(memory["sigma"], key_sigma, config.sigma)
        noise = sigma * jax.random.normal(key_noise, center.shape)
        return jnp.clip(center + noise, -1, 1), {"sigma": sigma}, {}

    def normalised(parts, batch, ctx):
        return {**batch, **{name: seen(parts, batch[name]) for name in ("obs", "next_obs")}}

    descend = adam(config.lr, decay=config.decay)
    on_normalised = lambda rule: on(normalised, rule, reads="norm")
    rules = {
        "critic": on_normalised(minimise(critic_loss, descend, "critic", reads=("actor", "target"))),
        "actor": every(config.delay, on_normalised(minimise(actor_loss, descend, "actor", reads="critic"))),
        "target": track("critic", "target", config.tau),
    }
    memory = lambda: {"sigma": jnp.float32(UNDRAWN)}
    return Agent(init, act, rules, {"norm": observation_statistics()}, memory)


def recipe(specs: Specs, config: Config) -> Recipe:
    source = uniform(config.capacity, config.batch, n=config.n, gamma=config.gamma)
    return Recipe(build(specs, config), source, num_envs=config.num_envs, ratio=config.ratio, warmup=config.warmup)

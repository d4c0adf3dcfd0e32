"""DrQ-v2: continuous control from pixels (Yarats et al. 2022, "Mastering visual continuous control").

Deterministic policy gradients with twin critics, n-step returns and scheduled noise; one encoder, learned by the critic
alone; images randomly shifted. Vectors it learns from without encoder and shifts. Its relatives are additions to it:
`drm`, `taco`, `mentor`. Deviations: the actor sees the encoding after the critic's step, where the authors' code reuses
the one before it; replay is uniform over transitions, not over finished episodes.

No claim is made for sizes of a CPU; there `drq` is what `make train PIXELS=48` runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxrl.agents.common import at_least, continuous, stacked, vision, within
from jaxrl.core import Agent, Recipe, Specs, adam, mean, minimise, stateless, track
from jaxrl.equations.distributions import noisy_action
from jaxrl.equations.values import clipped_q_target
from jaxrl.nets import MLP, Net, Trunk, drawing, ensemble, net, orthogonal
from jaxrl.sources import shifted, uniform


@dataclass(frozen=True)
class Config:
    """What DrQ-v2 can be told; the defaults are the paper's for its medium tasks."""

    encoder: str = "conv"  # or impala, convit, t2t, whose sizes are their own
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
        at_least(self, noise=0)
        within(self, gamma=(0, 1), tau=(0, 1))


def build(specs: Specs, config: Config, policy: Callable[..., Any] = MLP, code: Net | None = None) -> Agent:
    """The agent for an environment of these specs.

    Args:
        policy: makes the policy's module from hidden widths and the number of outputs.
        code: what critics see of an action, `apply(parameters, action [..., dims]) -> [..., c]`, and learn; None shows
            them the action.

    Raises:
        BadInput: observations that are no image and no vector, or actions that are no Box of [-1, 1].
    """
    dims = continuous("drqv2", specs.action)
    eye, seen = vision("drqv2", specs.observation, config)
    floats = lambda n: jax.ShapeDtypeStruct((n,), jnp.float32)
    trunk, narrow = net(Trunk(config.features), seen), floats(config.features)
    head = policy(config.widths, dims, kernel_init=orthogonal())
    choice, drawn = net(head, narrow), drawing(head, narrow)  # the same parameters
    code = code or Net(lambda key: (), lambda parameters, action: action)
    coded = jax.eval_shape(lambda key: code.apply(code.init(key), jnp.zeros(dims)), jax.random.key(0))
    heads = ensemble(net(MLP(config.widths, 1, kernel_init=orthogonal()), narrow, coded), 2)
    spread = optax.linear_schedule(*config.noise, config.noise_frames)

    def encode(parts, obs):
        return eye.apply(parts["encoder"], obs)

    def q(parts, h, action, critic="critic"):
        """What both critics say of actions in the light of features [B, ...]: [2, B]."""
        neck = trunk.apply(parts[critic]["trunk"], h)
        return heads.apply(parts[critic]["heads"], neck, code.apply(parts["code"], action))[..., 0]

    def noisy(actor, h, std, key):
        """Actions [B, dims] with clipped noise."""
        key_policy, key_noise = jax.random.split(key)
        center = jnp.tanh(drawn.apply(actor["policy"], key_policy, trunk.apply(actor["trunk"], h)))
        noise = std * jax.random.normal(key_noise, center.shape)
        return noisy_action(center, jnp.clip(noise, -config.noise_clip, config.noise_clip))

    def critic_loss(live, frozen, batch, key):
        h_next = encode(frozen, batch["next_obs"])
        q_next = q(frozen, h_next, noisy(frozen["actor"], h_next, frozen["std"], key), "target")
        discount = config.gamma * batch["discount"]
        target = jax.vmap(clipped_q_target, in_axes=(0, 0, 1))(batch["reward"], discount, q_next)
        error = q(live, encode(live, batch["obs"]), batch["action"]) - target
        return mean((error**2).sum(axis=0), batch), {"td_error": jnp.abs(error).mean(axis=0), "target": target}

    def actor_loss(live, frozen, batch, key):
        h = encode(frozen, batch["obs"])  # no gradient: the critic alone shapes the encoder
        q_new = q(frozen, h, noisy(live["actor"], h, frozen["std"], key)).min(axis=0)
        return -mean(q_new, batch), {"q": q_new}

    def init(key):
        key_encoder, key_actor, key_critic, key_code = jax.random.split(key, 4)
        (actor_trunk, actor_policy), (critic_trunk, critic_heads) = (
            tuple(jax.random.split(key)) for key in (key_actor, key_critic)
        )
        critic = {"trunk": trunk.init(critic_trunk), "heads": heads.init(critic_heads)}
        return {
            "encoder": eye.init(key_encoder),
            "code": code.init(key_code),
            "actor": {"trunk": trunk.init(actor_trunk), "policy": choice.init(actor_policy)},
            "critic": critic,
            "target": jax.tree.map(jnp.copy, critic),  # not the same buffers: the run is donated
            "std": jnp.float32(config.noise[0]),
        }

    def act(parts, memory, obs, ctx, explore):
        neck = trunk.apply(parts["actor"]["trunk"], encode(parts, obs))
        center = jnp.tanh(choice.apply(parts["actor"]["policy"], neck))
        noise = parts["std"] * jax.random.normal(ctx.key, center.shape) if explore else jnp.zeros_like(center)
        return noisy_action(center, noise), memory, {}

    def within_actor(parts, h, key=None):
        """What the actor's layers say; with a key as it learns, and without as it acts."""
        actor = parts["actor"]
        neck = trunk.apply(actor["trunk"], h)
        inner = choice.within(actor["policy"], neck) if key is None else drawn.within(actor["policy"], key, neck)
        return {**inner, "layers": trunk.within(actor["trunk"], h)["layers"] + inner["layers"]}

    def within_critic(parts, h, action):
        """What the layers of both critics' heads say, [2, B, units] each."""
        neck = trunk.apply(parts["critic"]["trunk"], h)
        return heads.within(parts["critic"]["heads"], neck, code.apply(parts["code"], action))

    noise = lambda parts, frames: spread(frames)
    policy_view = lambda parts, h, key: noisy(parts["actor"], h, parts["std"], key)
    looks = {"actor": within_actor, "critic": within_critic, "noise": noise}
    views = {"encode": encode, "q": q, "policy": policy_view, **looks}
    learned = ("encoder", "critic", "code")
    rules = {
        "noise": stateless(lambda parts, batch, ctx: ({"std": spread(ctx.frames)}, {}), "std"),
        "critic": minimise(critic_loss, adam(config.lr), learned, reads=("actor", "target", "std")),
        "actor": minimise(actor_loss, adam(config.lr), "actor", reads=("encoder", "critic", "code", "std")),
        "target": track("critic", "target", config.tau),
    }
    return Agent(init, act, rules, views=views)


def recipe(
    specs: Specs,
    config: Config,
    policy: Callable[..., Any] = MLP,
    code: Net | None = None,
    ahead: int | None = None,
) -> Recipe:
    """How DrQ-v2 runs. `policy` and `code` are those of `build`; `ahead` is the replay's."""
    agent = build(specs, config, policy, code)
    how = {"n": config.n, "gamma": config.gamma, "ahead": ahead}
    if len(specs.observation.shape) == 1:
        source = uniform(config.capacity, config.batch, **how)
    else:
        source = uniform(config.capacity, config.batch, frames=stacked("drqv2", specs), **how)
        source = shifted(source, config.pad)
    return Recipe(agent, source, config.num_envs, config.unroll, config.ratio, warmup=config.warmup)

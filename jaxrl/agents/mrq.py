"""MR.Q: model-free learning on a representation that a short model makes (Fujimoto et al. 2025).

TD3 whose actor and critics see codes of state and action. The codes learn nothing from values: they learn to predict,
five steps ahead, the next code, the reward and the end. All targets are copies, renewed together every 250 updates,
and with each renewal the codes learn in a burst of as many batches; in between they stand still.

Deviations: state vectors and continuous actions alone. A window that an episode's end cuts short is masked behind it,
where the authors exclude the starts before a time limit; a sum of rewards contains the last one of a terminated episode
and stops there (DR.Q's rule: the authors' code of MR.Q drops it and goes on).
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxrl.agents.common import at_least, continuous, vector, within
from jaxrl.agents.td3 import smoothed
from jaxrl.core import Agent, Batch, Ctx, Metrics, Parts, Recipe, Rule, Specs, adam, mean, minimise, on, stateless, when
from jaxrl.equations.categorical import cross_entropy, symexp, two_hot
from jaxrl.equations.values import huber
from jaxrl.nets import MLP, ensemble, net, xavier
from jaxrl.rules.statistics import merge, moments
from jaxrl.sources import prioritised
from jaxrl.sources.ring import bootstrap, discounted

BINS = 65  # of the predicted reward, even in its symlog
REACH = 10.0  # of the outermost, there


@dataclass(frozen=True)
class Config:
    """What MR.Q can be told; the defaults are the authors' code's, but for the sizes of replay and warm-up."""

    widths: tuple[int, int] = (512, 512)  # of hidden layers: of the encoder, and of actor and critics
    codes: tuple[int, int] = (512, 256)  # length of a state's code (and of state and action together), of an action's
    encoder_lr: float = 1e-4  # AdamW
    lr: float = 3e-4  # AdamW, for actor and critics
    decay: tuple[float, float] = (1e-4, 1e-4)  # of weights and biases: of the encoder, and of actor and critics
    clip: float | None = 20.0  # of the global norm of the critics' gradient
    gamma: float = 0.99  # discount a step (not a frame)
    n: int = 3  # steps of the critics' return
    horizon: int = 5  # steps that the codes predict ahead
    period: int = 250  # updates between renewals of the targets, and batches of the codes' burst
    noise: float = 0.2  # standard deviation of exploration
    smoothing: float = 0.2  # standard deviation of the noise on target actions
    smoothing_clip: float = 0.3  # of that noise, either way
    scaled: bool = True  # whether values are in units of the replay's mean |reward|
    saturation: float = 1e-5  # weight of the squared policy output before its tanh
    exponent: float = 0.4  # of the error, floored at 1, in a transition's priority
    fade: tuple[float, float] | None = None  # of priorities with age: see `sources.prioritised`
    batch: int = 256  # transitions (or windows) an update
    capacity: int = 100_000  # transitions kept; the authors' is a million
    warmup: int = 5_000  # frames of uniform actions before learning; the authors' are 10,000 steps
    num_envs: int = 1

    def __post_init__(self):
        at_least(self, encoder_lr=0, lr=0, n=1, horizon=1, period=1, noise=0, smoothing=0, smoothing_clip=0)
        at_least(self, saturation=0, exponent=0, batch=1, capacity=1, warmup=0, num_envs=1)
        within(self, gamma=(0, 1), n=(1, self.horizon))


# ------------------------------------------------------------------------------------------------------------- clock


def phases(specs: Specs, config: Config) -> tuple[Callable, Callable, Callable, Callable]:
    """(updates of a tick; whether an update renews targets, trains the codes, trains values), each of the clock.

    A tick makes one update of values. Every `period`-th one makes `period` updates of the codes before it, of which the
    first renews the targets.
    """
    most = config.period + 1
    first = config.warmup // (config.num_envs * specs.frames)  # the first tick that learns
    renewing = lambda ctx: ctx.update // most % config.period == first % config.period
    within_tick = lambda ctx: ctx.update % most
    count = lambda parts, ctx: jnp.where(renewing(ctx), most, 1)
    starts = lambda ctx: renewing(ctx) & (within_tick(ctx) == 0)
    codes = lambda ctx: renewing(ctx) & (within_tick(ctx) < config.period)
    return count, starts, codes, lambda ctx: ~codes(ctx)


# ------------------------------------------------------------------------------------------------------------- terms

# What the codes learn beside dynamics and reward, from frozen parts, predicted codes [B, c], guesses of the end [B] and
# one step of the batch: its name and loss [B].
Further = Callable[[Parts, jax.Array, jax.Array, Batch], dict[str, jax.Array]]


def ending(frozen, predicted, guess, now) -> dict[str, jax.Array]:
    """Whether the episode terminates, by a squared error; nothing until one has."""
    return {"ending": frozen["seen"]["ended"] * (guess - now["ended"]) ** 2}


def n_step(config: Config) -> Callable[[Parts, Batch, Ctx], Batch]:
    """Windows [B, horizon] as transitions of n steps [B], without weights; gamma within as `sources.ring` has it."""

    def transitions(parts, batch, ctx):
        n = config.n
        inside = batch["weight"][:, :n] > 0
        return {
            "obs": batch["obs"][:, 0],
            "action": batch["action"][:, 0],
            "reward": discounted(config.gamma, batch["reward"][:, :n], inside),
            "discount": bootstrap(config.gamma, batch["discount"][:, :n], inside),
            "next_obs": batch["next_obs"][:, n - 1],  # the last one again behind an episode's end
        }

    return transitions


def experience() -> Rule:
    """Counts what the fresh transitions show: the mean |reward|, and whether any episode has terminated."""

    def count(parts, batch, ctx):
        size = merge(parts["seen"]["size"], jnp.abs(batch["reward"]), jnp.ones_like(batch["reward"]))
        ended = jnp.maximum(parts["seen"]["ended"], 1 - batch["discount"].min())
        return {"seen": {"size": size, "ended": ended}}, {}

    return stateless(count, "seen")


# ------------------------------------------------------------------------------------------------------------- agent


def build(specs: Specs, config: Config, further: Further = ending) -> Agent:
    """The agent for an environment of these specs.

    Args:
        further: a term that the codes learn beside dynamics and reward.

    Raises:
        BadInput: observations that are no vector, or actions that are no Box of [-1, 1].
    """
    dims = continuous("mrq", specs.action)
    vector("mrq", specs.observation)
    (wide, width), (code, action_code) = config.widths, config.codes
    shape = lambda n: jax.ShapeDtypeStruct((n,), jnp.float32)
    mlp = lambda hidden, outputs, activation=jax.nn.elu: MLP(
        hidden, outputs, activation, norm="plain", kernel_init=xavier(2**0.5)
    )
    state_net = net(mlp((wide, wide), code), specs.observation)
    action_net = net(mlp((), action_code), shape(dims))
    both_net = net(mlp((wide, wide), code), shape(code), shape(action_code))
    model_net = net(mlp((), 1 + code + BINS), shape(code))
    policy_net = net(mlp((width, width), dims, jax.nn.relu), shape(code))
    critic_net = ensemble(net(mlp((width, width, width), 1), shape(code)), 2)
    bins = symexp(jnp.linspace(-REACH, REACH, BINS))

    def encode(encoder, obs):
        """A state's code [..., c]."""
        return jax.nn.elu(jax.nn.standardize(state_net.apply(encoder["state"], obs), axis=-1))

    def joint(encoder, z, action):
        """The code of a state's code and an action [..., c]."""
        return both_net.apply(encoder["both"], z, jax.nn.elu(action_net.apply(encoder["action"], action)))

    def mu(actor, z):
        """The action without noise, and before its tanh: each [..., dims]."""
        free = policy_net.apply(actor, z)
        return jnp.tanh(free), free

    def q(critic, codes):
        return critic_net.apply(critic, codes)[..., 0]  # [2, B]

    def encoder_loss(live, frozen, batch, key):
        """The unrolled model against the targets' codes: batch [B, horizon, ...]."""
        now = {
            "action": batch["action"],
            "target": encode(frozen["encoder_target"], batch["next_obs"]),
            "reward": jax.vmap(jax.vmap(two_hot, (0, None)), (0, None))(batch["reward"], bins),
            "ended": 1 - batch["discount"],
            "inside": batch["weight"],
        }

        def step(z, now):
            out = model_net.apply(live["encoder"]["model"], joint(live["encoder"], z, now["action"]))
            guess, z, logits = out[:, 0], out[:, 1:-BINS], out[:, -BINS:]
            terms = {
                "dynamics": ((z - now["target"]) ** 2).mean(axis=-1),
                "reward": 0.1 * jax.vmap(cross_entropy)(logits, now["reward"]),
                **{name: 0.1 * term for name, term in further(frozen, z, guess, now).items()},
            }
            return z, {name: (now["inside"] * term).mean() for name, term in terms.items()}

        first = encode(live["encoder"], batch["obs"][:, 0])
        terms = jax.lax.scan(step, first, jax.tree.map(lambda x: x.swapaxes(0, 1), now))[1]
        total = {name: term.sum() for name, term in terms.items()}
        return sum(total.values()), total

    def critic_loss(live, frozen, batch, key):
        unit, unit_before = frozen["unit"]
        z_next = encode(frozen["encoder_target"], batch["next_obs"])
        center, _ = mu(frozen["actor_target"], z_next)
        action = smoothed(center, config.smoothing, config.smoothing_clip, key)
        q_next = q(frozen["target"], joint(frozen["encoder_target"], z_next, action)).min(axis=0) * unit_before
        target = (batch["reward"] + config.gamma * batch["discount"] * q_next) / unit
        z = encode(frozen["encoder"], batch["obs"])
        error = q(live["critic"], joint(frozen["encoder"], z, batch["action"])) - target
        priority = jnp.maximum(jnp.abs(error).max(axis=0), 1)
        return mean(huber(error).mean(axis=0), batch), {"priority": priority, "target": target * unit}

    def actor_loss(live, frozen, batch, key):
        z = encode(frozen["encoder"], batch["obs"])
        action, free = mu(live["actor"], z)
        q_new = q(frozen["critic"], joint(frozen["encoder"], z, action)).mean(axis=0)
        return mean(config.saturation * (free**2).mean(axis=-1) - q_new, batch), {"q": q_new}

    def renew(parts, batch, ctx) -> tuple[Parts, Metrics]:
        size = jnp.maximum(parts["seen"]["size"].mean, 1e-8)
        unit = jnp.stack([size, parts["unit"][0]]) if config.scaled else parts["unit"]
        return {copy: parts[name] for copy, name in COPIES.items()} | {"unit": unit}, {}

    def init(key):
        keys = jax.random.split(key, 6)
        nets = {"state": state_net, "action": action_net, "both": both_net, "model": model_net}
        online = {
            "encoder": {name: one.init(key) for (name, one), key in zip(nets.items(), keys)},
            "actor": policy_net.init(keys[4]),
            "critic": critic_net.init(keys[5]),
        }
        copies = {copy: jax.tree.map(jnp.copy, online[name]) for copy, name in COPIES.items()}
        seen = {"size": moments(), "ended": jnp.float32(0)}
        return {**online, **copies, "seen": seen, "unit": jnp.ones(2)}

    def act(parts, memory, obs, ctx, explore):
        action, _ = mu(parts["actor"], encode(parts["encoder"], obs))
        noise = config.noise * jax.random.normal(ctx.key, action.shape) if explore else 0.0
        return jnp.clip(action + noise, -1, 1), memory, {}

    _, starts, codes, values = phases(specs, config)
    descend = lambda lr, decay, clip=None: adam(lr, clip, decay=decay)
    transitions = lambda rule: when(values, on(n_step(config), rule))
    encoding = minimise(
        encoder_loss, descend(config.encoder_lr, config.decay[0]), "encoder", reads=("encoder_target", "seen")
    )
    critic = minimise(
        critic_loss,
        descend(config.lr, config.decay[1], config.clip),
        "critic",
        reads=("encoder", "encoder_target", "actor_target", "target", "unit"),
    )
    actor = minimise(actor_loss, descend(config.lr, config.decay[1]), "actor", reads=("encoder", "critic"))
    rules = {
        "targets": when(starts, stateless(renew, (*COPIES, "unit"), (*COPIES.values(), "seen"))),
        "encoder": when(codes, encoding),
        "critic": transitions(critic),
        "actor": transitions(actor),
    }
    return Agent(init, act, rules, {"experience": experience()})


COPIES = {"encoder_target": "encoder", "actor_target": "actor", "target": "critic"}


def recipe(specs: Specs, config: Config, build: Callable[[Specs, Config], Agent] = build) -> Recipe:
    source = prioritised(
        config.capacity,
        config.batch,
        config.exponent,
        beta=0,
        metric="critic/priority",
        gamma=config.gamma,
        sequence=config.horizon,
        fade=config.fade,
    )
    count = phases(specs, config)[0]
    return Recipe(
        build(specs, config),
        source,
        config.num_envs,
        ratio=count,
        most=config.period + 1,
        warmup=config.warmup,
    )

"""REPPO: relative entropy pathwise policy optimisation (Voelcker et al. 2025).

PPO's flow of data without replay or target networks, but the policy climbs a learned Q, as SAC's does. Where it has
moved too far from the policy that acted it goes back instead, and both the temperature and the pull back are learned.
The critic is categorical (HL-Gauss), learns soft lambda-returns, and predicts its own next features. Deviations: the
divergence between the two normals is exact, before the tanh, where the authors estimate it from 16 actions; a
truncated episode is bootstrapped from its true last observation, where theirs cut the return one step earlier and mask
the last; no entropy is paid for what follows an end; features, values and entropies of what comes next are those of
fresh actions of the policy that acted, made after the rollout, not in it; observations are normalised as PPO's are,
after the epochs. Not here: episodes that begin at different ages. Both networks' steps are one rule: `also` cannot add.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxrl.agents import sac
from jaxrl.agents.common import at_least, continuous, vector, within
from jaxrl.core import Agent, BadInput, Recipe, Specs, adam, chain, epochs, everywhere, minimise, on
from jaxrl.equations.categorical import cross_entropy, expected, hl_gauss
from jaxrl.equations.distributions import tanh_normal_sample
from jaxrl.equations.policies import soft_policy_loss
from jaxrl.equations.returns import lambda_returns
from jaxrl.nets import MLP, net
from jaxrl.rules.statistics import moments, normalise, observation_statistics
from jaxrl.sources import rollout

ORIGIN = 40.0  # logits by which values of 0 are likelier at the start
FLOOR = 0.1  # of the standard deviation


@dataclass(frozen=True)
class Config:
    """What REPPO can be told; the defaults are the authors' for DM Control with much data, which want a GPU."""

    widths: tuple[int, ...] = (512, 512)  # the actor's hidden widths
    critic_width: int = 512  # of all the critic's layers, and of its features
    bins: int = 151  # of a value
    support: tuple[float, float] = (0.0, 150.0)  # the outermost bins; `learn/critic/outside` says what lies beyond
    lr: float = 3e-4  # Adam, for both
    clip: float = 0.5  # of each gradient's global norm
    gamma: float = 0.99  # discount a step (not a frame)
    lambda_: float = 0.95  # of the returns
    prediction: float = 1.0  # weight of the predicted features and reward
    alpha: float = 0.01  # temperature at the start
    target_entropy: float | None = None  # nats; None is minus half the number of action dimensions
    pull: float = 0.01  # weight of the divergence at the start
    divergence: float = 0.1  # nats from the policy that acted, from which on a policy goes back
    epochs: int = 8  # passes over a rollout
    minibatches: int = 64  # parts of a pass
    num_envs: int = 1024
    unroll: int = 128  # steps of each environment a rollout

    def __post_init__(self):
        at_least(self, critic_width=1, bins=2, lr=0, clip=0, prediction=0, alpha=1e-8, pull=1e-8, divergence=0)
        at_least(self, epochs=1, minibatches=1, num_envs=1, unroll=1)
        within(self, gamma=(0, 1), lambda_=(0, 1))
        if not self.support[0] < self.support[1]:
            raise BadInput(f"support is {self.support}; its first end must be below its second.")


def normal_kl(center_0: jax.Array, log_std_0: jax.Array, center_1: jax.Array, log_std_1: jax.Array) -> jax.Array:
    """KL(N_0 || N_1) of independent components, summed over the last axis; a tanh of both would not change it."""
    ratio = jnp.exp(2 * (log_std_0 - log_std_1))
    shift = (center_0 - center_1) * jnp.exp(-log_std_1)
    return (log_std_1 - log_std_0 + 0.5 * (ratio + shift**2) - 0.5).sum(axis=-1)


def build(specs: Specs, config: Config) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless it shows vectors and acts in [-1, 1]."""
    dims, length = continuous("reppo", specs.action), vector("reppo", specs.observation)
    target_entropy = -dims / 2 if config.target_entropy is None else config.target_entropy
    action = jax.ShapeDtypeStruct((dims,), jnp.float32)
    features = jax.ShapeDtypeStruct((config.critic_width,), jnp.float32)
    of = lambda outputs, *seen: net(MLP((config.critic_width,), outputs, jax.nn.swish, "rms"), *seen)
    actor = net(MLP(config.widths, 2 * dims, jax.nn.swish, "rms"), specs.observation)
    encoder = of(config.critic_width, specs.observation, action)
    head, predictor = of(config.bins, features), of(1 + config.critic_width, features)
    bins = jnp.linspace(*config.support, config.bins)
    means = jnp.vectorize(expected, signature="(n),(n)->()")

    def policy(parameters, obs):
        """Mean and log standard deviation, before the tanh: each [..., dims]."""
        center, spread = jnp.split(actor.apply(parameters, obs), 2, axis=-1)
        return center, jnp.log(jnp.exp(spread) + FLOOR)

    def judged(critic, obs, action):
        """Features of an action [..., critic_width], and the logits of its value [..., bins]."""
        h = encoder.apply(critic["encoder"], obs, action)
        return h, head.apply(critic["head"], jax.nn.swish(h)) + ORIGIN * critic["origin"]

    def seen(parts, obs):
        return normalise(parts["norm"], obs, clip=10.0)

    def returns(parts, batch, ctx):
        """What the epochs need of a rollout [T, N], made once, by the policy and the critic of that rollout."""
        obs, next_obs = seen(parts, batch["obs"]), seen(parts, batch["next_obs"])
        keys = jax.random.split(ctx.key, obs.shape[0])
        action, log_prob = jax.vmap(sac.drawn_from)(*policy(parts["actor"], next_obs), keys)
        following, logits = judged(parts["critic"], next_obs, action)
        discount = config.gamma * batch["discount"]
        soft = batch["reward"] - discount * jnp.exp(parts["log_alpha"]) * log_prob
        along = jax.vmap(lambda_returns, in_axes=(1, 1, 1, None, 1), out_axes=1)
        target = along(soft, discount, means(logits, bins), config.lambda_, batch["end"])
        center, log_std = policy(parts["actor"], obs)
        made = {"obs": obs, "target": target, "following": following, "center": center, "log_std": log_std}
        return {**made, **{name: batch[name] for name in ("action", "reward", "discount")}}

    def critic_loss(live, frozen, batch, key):
        h, logits = judged(live["critic"], batch["obs"], batch["action"])
        wanted = jax.vmap(hl_gauss, in_axes=(0, None))(batch["target"], bins)
        predicted = predictor.apply(live["critic"]["predictor"], jax.nn.swish(h))
        actual = jnp.concatenate([batch["reward"][:, None], batch["following"]], axis=-1)
        surprise = batch["discount"] * ((predicted - actual) ** 2).mean(axis=-1)
        loss = jax.vmap(cross_entropy)(logits, wanted) + config.prediction * surprise
        outside = (batch["target"] < bins[0]) | (batch["target"] > bins[-1])
        error = jnp.abs(means(logits, bins) - batch["target"])
        return loss.mean(), {"td_error": error, "target": batch["target"], "surprise": surprise, "outside": outside}

    def actor_loss(live, frozen, batch, key):
        center, log_std = policy(live["actor"], batch["obs"])
        action, log_prob = sac.drawn_from(center, log_std, key)
        q = means(judged(frozen["critic"], batch["obs"], action)[1], bins)
        kl = normal_kl(batch["center"], batch["log_std"], center, log_std)
        alpha, pull = (jnp.exp(frozen[name]) for name in ("log_alpha", "log_pull"))
        climb = jax.vmap(soft_policy_loss, in_axes=(0, 0, None))(log_prob, q, alpha)
        moved = jnp.where(kl < config.divergence, climb, pull * kl)
        # The temperature falls where there is more entropy than asked for; the pull rises where there is more distance.
        spare, excess = jax.lax.stop_gradient((-log_prob - target_entropy, kl - config.divergence))
        settled = jnp.exp(live["log_alpha"]) * spare - jnp.exp(live["log_pull"]) * excess
        metrics = {"q": q, "kl": kl, "entropy": -log_prob, "alpha": alpha, "pull": pull}
        return (moved + settled).mean(), {**metrics, "back": kl >= config.divergence}

    def init(key):
        made = {"encoder": encoder, "head": head, "predictor": predictor}
        key_actor, *keys = jax.random.split(key, 1 + len(made))
        critic = {name: part.init(key) for (name, part), key in zip(made.items(), keys)}
        critic["origin"] = hl_gauss(jnp.float32(0), bins)  # learned, as the authors' is
        duals = {f"log_{name}": jnp.log(jnp.float32(getattr(config, name))) for name in ("alpha", "pull")}
        return {"actor": actor.init(key_actor), "critic": critic, **duals, "norm": moments((length,))}

    def act(parts, memory, obs, ctx, explore):
        center, log_std = policy(parts["actor"], seen(parts, obs))
        action = tanh_normal_sample(ctx.key, center, log_std)[0] if explore else jnp.tanh(center)
        return action, memory, {}

    descend = adam(config.lr, clip=config.clip)
    steps = {
        "critic": minimise(critic_loss, descend, "critic"),
        "actor": minimise(actor_loss, descend, ("actor", "log_alpha", "log_pull"), reads="critic"),
    }
    learn = epochs(config.epochs, config.minibatches, chain(steps))
    rules = {
        "learn": on(returns, learn, reads=("actor", "critic", "log_alpha", "norm")),
        "norm": everywhere(observation_statistics()),  # after the epochs: rollout and update see the same statistics
    }
    return Agent(init, act, rules)


def recipe(specs: Specs, config: Config) -> Recipe:
    return Recipe(build(specs, config), rollout(), config.num_envs, config.unroll)

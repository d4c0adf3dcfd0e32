"""PPO: clipped policy gradients on fresh rollouts (Schulman et al. 2017), discrete or continuous, with or without GRU.

Time limits are bootstrapped: the value of the true last observation counts where an episode was truncated.
Not here: reward clipping and the Atari details.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from jaxrl.agents.common import at_least, continuous, falling, vector, within
from jaxrl.core import Agent, BadInput, Batch, Discrete, Recipe, Specs, adam, epochs, everywhere, minimise, on
from jaxrl.equations.distributions import categorical_entropy, categorical_log_prob, normal_entropy, normal_log_prob
from jaxrl.equations.policies import clipped_value_loss, ppo_surrogate
from jaxrl.equations.returns import gae
from jaxrl.nets import MLP, gru_net, mlp_net, orthogonal, unrolled
from jaxrl.rules.statistics import moments, normalise, observation_statistics, return_statistics, scale
from jaxrl.sources import rollout


@dataclass(frozen=True)
class Config:
    """What PPO can be told; the defaults solve CartPole. Continuous tasks want more environments and `normalise`."""

    widths: tuple[int, ...] = (64, 64)  # hidden widths of policy and value (the heads', with a GRU)
    gru: int = 0  # width of a recurrent memory in each of the two; 0 has none
    lr: float = 2.5e-4  # Adam, eps 1e-5
    decay_frames: int = 0  # frames over which lr falls linearly to 0; 0 keeps it
    gamma: float = 0.99  # discount a step
    lambda_: float = 0.95  # of the generalised advantage
    epsilon: float = 0.2  # clip of the probability ratio
    value_epsilon: float | None = 0.2  # clip of the value's change; None has none
    value_weight: float = 0.5  # of the half square
    entropy_weight: float = 0.01
    clip: float = 0.5  # of the gradient's global norm
    epochs: int = 4  # passes over a rollout
    minibatches: int = 4  # parts of a pass; with a GRU they divide the environments
    normalise: bool = False  # observations by running moments, rewards by the spread of their return
    num_envs: int = 4
    unroll: int = 128  # steps of each environment a rollout

    def __post_init__(self):
        at_least(
            self,
            gru=0,
            lr=0,
            decay_frames=0,
            value_weight=0,
            entropy_weight=0,
            clip=0,
            epochs=1,
            minibatches=1,
            num_envs=1,
            unroll=1,
        )
        within(self, gamma=(0, 1), lambda_=(0, 1), epsilon=(0, 1))


LEARNED = ("action", "log_prob", "value", "advantage", "target")  # what the loss looks at beside the networks' inputs


def build(specs: Specs, config: Config) -> Agent:
    """The agent for an environment of these specs. Raises BadInput for action spaces PPO cannot act in."""
    length, choices = vector("ppo", specs.observation), isinstance(specs.action, Discrete)
    outputs = specs.action.n if choices else continuous("ppo", specs.action)

    def network(outputs: int, gain: float):
        head = MLP(config.widths, outputs, jnp.tanh, kernel_init=orthogonal(2**0.5), final_init=orthogonal(gain))
        return gru_net(head, config.gru, specs.observation) if config.gru else mlp_net(head, specs.observation)

    actor, critic = network(outputs, 0.01), network(1, 1.0)

    def log_prob_of(parameters, output, action):
        if choices:
            return categorical_log_prob(action, output)
        return normal_log_prob(action, output, parameters["log_std"])

    def entropy_of(parameters, output):
        return categorical_entropy(output) if choices else normal_entropy(parameters["log_std"])

    def seen(parts, obs):
        return normalise(parts["norm"], obs, clip=10.0) if config.normalise else obs

    def init(key):
        key_actor, key_critic = jax.random.split(key)
        parts = {"actor": {"net": actor.init(key_actor)}, "critic": critic.init(key_critic)}
        if not choices:
            parts["actor"]["log_std"] = jnp.zeros(outputs)
        if config.normalise:
            parts |= {"norm": moments((length,)), "reward_norm": moments()}
        return parts

    def act(parts, memory, obs, ctx, explore):
        obs = seen(parts, obs)
        memory_actor, output = actor.step(parts["actor"]["net"], memory["actor"], obs)
        memory_critic, _ = critic.step(parts["critic"], memory["critic"], obs)
        if choices:
            raw = (jax.random.categorical(ctx.key, output) if explore else output.argmax()).astype(jnp.int32)
            action = raw
        else:
            noise = jax.random.normal(ctx.key, output.shape) if explore else 0.0
            raw = output + jnp.exp(parts["actor"]["log_std"]) * noise
            action = jnp.clip(raw, -1, 1)  # for the environment only: the ratio is of the unclipped action
        extras = {"output": output} | ({} if choices else {"raw": raw})
        return action, {"actor": memory_actor, "critic": memory_critic}, extras

    def advantages(parts, batch, ctx) -> Batch:
        """What the epochs need of a rollout [T, N]: advantages and value targets, made once.

        The parts are those that acted, so values and log-probabilities are made here at once, not one by one there.
        """

        def values(memory, obs, next_obs):
            carried, now = critic.step(parts["critic"], memory["critic"], seen(parts, obs))
            return now[0], critic.step(parts["critic"], carried, seen(parts, next_obs))[1][0]

        over = lambda fn: jax.vmap(jax.vmap(fn))
        reward = scale(parts["reward_norm"], batch["reward"]) if config.normalise else batch["reward"]
        value, value_next = over(values)(batch["memory"], batch["obs"], batch["next_obs"])
        discount = config.gamma * batch["discount"]
        advantage = jax.vmap(gae, in_axes=(1, 1, 1, 1, None, 1), out_axes=1)(
            reward, discount, value, value_next, config.lambda_, batch["end"]
        )
        began = jnp.concatenate([jnp.zeros_like(batch["end"][:1]), batch["end"][:-1]])
        action = batch["extras"].get("raw", batch["action"])
        log_prob = over(lambda output, action: log_prob_of(parts["actor"], output, action))
        made = {"obs": seen(parts, batch["obs"]), "action": action, "began": began, "reward": reward}
        made |= {"log_prob": log_prob(batch["extras"]["output"], action), "value": value, "memory": batch["memory"]}
        return {**made, "advantage": advantage, "target": advantage + value}

    def outputs_of(live, batch):
        """Policy output and value for each sample [B], or, with a GRU, each step of each sequence [T, B]."""
        pairs = ((actor, live["actor"]["net"], "actor"), (critic, live["critic"], "critic"))
        if not config.gru:
            return tuple(net.step(parameters, (), batch["obs"])[1] for net, parameters, _ in pairs)
        return tuple(
            unrolled(net, parameters, batch["memory"][name], batch["obs"], batch["began"])
            for net, parameters, name in pairs
        )

    def standardised(parts, batch, ctx) -> Batch:
        """A minibatch whose advantages have mean 0 and deviation 1, over all devices."""
        advantage = batch["advantage"]
        if advantage.size == 1:
            raise BadInput(
                f"minibatches is {config.minibatches}, which leaves 1 sample each, whose advantage less its mean is 0: "
                "choose fewer, or more num_envs or unroll."
            )
        advantage = advantage - ctx.shared(advantage.mean())
        return {**batch, "advantage": advantage / (jnp.sqrt(ctx.shared((advantage**2).mean())) + 1e-8)}

    def loss(live, frozen, batch, key):
        output, value = outputs_of(live, batch)
        flat = lambda x: x.reshape(-1, *x.shape[batch["reward"].ndim :])
        output, value, batch = flat(output), flat(value)[:, 0], {k: flat(batch[k]) for k in LEARNED}
        log_prob = jax.vmap(lambda o, a: log_prob_of(live["actor"], o, a))(output, batch["action"])
        surrogate = jax.vmap(ppo_surrogate, in_axes=(0, 0, 0, None))(
            log_prob, batch["log_prob"], batch["advantage"], config.epsilon
        )
        value_loss = jax.vmap(clipped_value_loss, in_axes=(0, 0, 0, None))(
            value, batch["value"], batch["target"], config.value_epsilon
        )
        entropy = jax.vmap(lambda o: entropy_of(live["actor"], o))(output)
        total = surrogate.mean() + config.value_weight * value_loss.mean() - config.entropy_weight * entropy.mean()
        log_ratio = log_prob - batch["log_prob"]
        metrics = {
            "surrogate": surrogate,
            "value": value_loss,
            "entropy": entropy,
            "kl": jnp.exp(log_ratio) - 1 - log_ratio,
            "clipped": (jnp.abs(jnp.exp(log_ratio) - 1) > config.epsilon).astype(jnp.float32),
        }
        return total, metrics

    statistics = ("norm", "reward_norm") if config.normalise else ()
    # Over one vector: norm and Adam are then a few operations, not a dozen for each of many small arrays.
    descend = optax.flatten(adam(falling(config.lr, config.decay_frames), clip=config.clip, eps=1e-5))
    learn = on(standardised, minimise(loss, descend, ("actor", "critic")))
    axis = "env" if config.gru else "sample"
    passes = epochs(config.epochs, config.minibatches, learn, axis)
    rules = {"policy": on(advantages, passes, ("actor", "critic", *statistics))}
    if config.normalise:
        # After the epochs, so that the first ratio is 1: rollout and update see the same statistics.
        rules["norm"] = everywhere(observation_statistics("norm"))
        rules["reward_norm"] = everywhere(return_statistics(config.gamma, config.num_envs, "reward_norm"))
    told = lambda memory, extras, action: (memory, extras if choices else {**extras, "raw": action})
    return Agent(init, act, rules, memory=lambda: {"actor": actor.memory(), "critic": critic.memory()}, told=told)


def recipe(specs: Specs, config: Config) -> Recipe:
    return Recipe(build(specs, config), rollout(), config.num_envs, config.unroll)

"""PQN: parallelised Q-learning on fresh rollouts, without replay and without a target network (Gallici et al. 2025).

LayerNorm in every hidden layer keeps the values from diverging; the targets are lambda-returns over the greedy values
of a rollout, made once for all of its epochs. Deviation: a truncated episode is bootstrapped from its true last
observation, where the authors' code counts it as ended.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from jaxrl.agents.common import at_least, discrete, falling, vector, within
from jaxrl.core import Agent, Recipe, Specs, by_frames, epochs, minimise, on
from jaxrl.equations.distributions import epsilon_greedy
from jaxrl.equations.returns import lambda_returns
from jaxrl.nets import MLP, net
from jaxrl.sources import rollout


@dataclass(frozen=True)
class Config:
    """What PQN can be told; the defaults are the authors' for CartPole, but that lr stays unless told to fall."""

    widths: tuple[int, ...] = (256, 256)  # hidden widths
    lr: float = 1e-4  # rectified Adam
    decay_frames: int = 0  # frames over which lr falls linearly to 0; 0 keeps it
    gamma: float = 0.99  # discount a step
    lambda_: float = 0.95  # of the returns
    reward: float = 0.1  # what rewards are multiplied by
    clip: float = 10.0  # of the gradient's global norm
    epochs: int = 4  # passes over a rollout
    minibatches: int = 16  # parts of a pass
    epsilon: float = 0.2  # exploration in the end
    epsilon_frames: int = 100_000  # frames over which it falls to that, linearly from 1
    num_envs: int = 32
    unroll: int = 64  # steps of each environment a rollout

    def __post_init__(self):
        at_least(self, lr=0, decay_frames=0, reward=0, clip=0, epochs=1, minibatches=1)
        at_least(self, epsilon_frames=1, num_envs=1, unroll=1)
        within(self, gamma=(0, 1), lambda_=(0, 1), epsilon=(0, 1))


def build(specs: Specs, config: Config) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless its actions are Discrete."""
    vector("pqn", specs.observation)
    critic = net(MLP(config.widths, discrete("pqn", specs.action), norm="affine"), specs.observation)
    exploration = optax.linear_schedule(1.0, config.epsilon, config.epsilon_frames)

    def act(parts, memory, obs, ctx, explore):
        q = critic.apply(parts["critic"], obs)
        return epsilon_greedy(ctx.key, q, exploration(ctx.frames) if explore else 0.0), memory, {}

    def returns(parts, batch, ctx):
        """A rollout [T, N] with the lambda-returns that its epochs learn from."""
        value = critic.apply(parts["critic"], batch["next_obs"]).max(axis=-1)
        of_each = jax.vmap(lambda_returns, in_axes=(1, 1, 1, None, 1), out_axes=1)
        reward, discount = config.reward * batch["reward"], config.gamma * batch["discount"]
        target = of_each(reward, discount, value, config.lambda_, batch["end"])
        return {name: batch[name] for name in ("obs", "action", "reward")} | {"target": target}

    def critic_loss(live, frozen, batch, key):
        q = critic.apply(live["critic"], batch["obs"])
        error = jnp.take_along_axis(q, batch["action"][:, None], axis=1)[:, 0] - batch["target"]
        return (0.5 * error**2).mean(), {"td_error": jnp.abs(error), "q": q.max(axis=-1)}

    rate = by_frames(falling(config.lr, config.decay_frames))
    descend = optax.chain(optax.clip_by_global_norm(config.clip), optax.scale_by_radam(), rate)
    learn = epochs(config.epochs, config.minibatches, minimise(critic_loss, descend, "critic"))
    return Agent(lambda key: {"critic": critic.init(key)}, act, {"critic": on(returns, learn, reads="critic")})


def recipe(specs: Specs, config: Config) -> Recipe:
    return Recipe(build(specs, config), rollout(), config.num_envs, config.unroll)

"""Stream Q(lambda): Q-learning from a stream, with traces  (Elsayed et al. 2024, algorithm 5)."""

from dataclasses import dataclass

import jax.numpy as jnp
import optax

from jaxrl.agents.common import at_least, discrete, within
from jaxrl.agents.streaming import Stream, clock, features, network, streaming, traced
from jaxrl.core import Agent, Recipe, Specs
from jaxrl.equations.distributions import epsilon_greedy
from jaxrl.equations.values import q_target


@dataclass(frozen=True)
class Config(Stream):
    """Stream Q and stream SARSA explore alike."""

    epsilon: float = 0.01  # exploration in the end
    epsilon_frames: int = 20_000  # frames over which it falls, linearly from 1; a tenth of the run in the paper

    def __post_init__(self):
        super().__post_init__()
        at_least(self, epsilon_frames=1)
        within(self, epsilon=(0, 1))


def build(specs: Specs, config: Config) -> Agent:
    """The agent for an environment of these specs. Raises BadInput unless its actions are Discrete."""
    feature = features(specs, config)
    critic = network(feature.shape, discrete("stream_q", specs.action), config)
    exploration = optax.linear_schedule(1.0, config.epsilon, config.epsilon_frames)

    def prediction(live, frozen, batch, key):
        """Minus q(s, a), and the TD error that scales its trace."""
        now = feature.view(frozen, batch)
        q = critic.apply(live["critic"], now.x)
        target = q_target(now.reward, now.discount, critic.apply(frozen["critic"], now.x_next))
        # A trace credits the greedy policy: it ends where another action was tried.
        reset = jnp.maximum(now.reset, batch["extras"]["explored"][0])
        return -q[now.action], {"delta": target - q[now.action], "reset": reset}

    def act(parts, memory, obs, ctx, explore):
        q = critic.apply(parts["critic"], feature.of(parts, obs, memory))
        epsilon = exploration(ctx.frames) if explore else 0.0
        action = epsilon_greedy(ctx.key, q, epsilon)
        return action, memory + 1, {"explored": q[action] < q.max()}

    rules = {"critic": traced(prediction, feature, config)}
    init = lambda key: {"critic": critic.init(key), **feature.parts()}
    told = lambda memory, extras, action: (memory, {"explored": jnp.bool_(True)})  # the policy had no say in it
    return Agent(init, act, rules, feature.observe, clock, told=told)


def recipe(specs: Specs, config: Config) -> Recipe:
    return streaming(build(specs, config))

"""Streaming agents one transition at a time against the algorithm written out: what their unit tests share.

Elsayed et al. 2024: observations and rewards as the wrappers make them (section 4.4), traces and the bounded step
(algorithm 3)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.core import Ctx
from jaxrl.nets import MLP, leaky_relu, net
from jaxrl.rules.statistics import Moments
from tests.pinned import KEY, LENGTH, disturbed, near, transitions

LIMIT, WIDTH = 10, 6
SEEN = jax.ShapeDtypeStruct((LENGTH + 1,), jnp.float32)  # with the time
GAMMA, LAMBDA, KAPPA, LR = 0.9, 0.7, 1.5, 0.8
STREAM = {"width": WIDTH, "gamma": GAMMA, "lambda_": LAMBDA, "kappa": KAPPA, "lr": LR, "sparsity": 0.5}


def network(outputs: int, seen=SEEN):
    return net(MLP((WIDTH, WIDTH), outputs, leaky_relu, "plain"), seen)


def experience(actions=None, memory=range(3, 9)) -> list[dict]:
    """Six transitions of a batch of one: the third breaks off, the fifth terminates."""
    made = []
    for i, t in enumerate(memory):
        batch = {name: x[:1] for name, x in transitions(20 + i).items() if name != "weight"}
        batch |= {"end": np.array([i in (2, 4)]), "discount": np.array([i != 4], np.float32)}
        batch |= {"memory": np.array([t], np.int32), "extras": {}, "reward": 9 * batch["reward"]}
        made.append(batch if actions is None else {**batch, "action": np.array([actions[i]], np.int32)})
    return made


def started(agent, *names: str) -> dict:
    """Parts with statistics of several samples, and noise on the networks named."""
    parts = disturbed(jax.jit(agent.init)(KEY), *names, by=0.8)
    norm = Moments(jnp.array([0.5, -1.0, 0.2]), jnp.array([2.0, 8.0, 1.0]), jnp.float32(5))
    return {**parts, "norm": norm, "reward_norm": Moments(*map(jnp.float32, (0.7, 12.0, 5.0)))}


def x_of(obs, t):
    """(o - mean) / std, and t / T - 1/2."""
    z = (np.asarray(obs, np.float64) - [0.5, -1.0, 0.2]) / np.sqrt(np.array([2.0, 8.0, 1.0]) / 4 + 1e-8)
    return np.append(z, -0.5 + t / LIMIT).astype(np.float32)


def seen(batch) -> dict:
    """x, x', the reward over the deviation of the return, gamma (1 - done), done; and what was done."""
    t, done = batch["memory"][0], bool(batch["end"][0])
    now = {"x": x_of(batch["obs"][0], t), "x_next": x_of(batch["next_obs"][0], t + 1), "done": done}
    now |= {"reward": batch["reward"][0] / np.sqrt(12 / 4 + 1e-8), "discount": GAMMA * (1 - done)}
    return {**now, "action": batch["action"][0], "extras": jax.tree.map(lambda x: x[0], batch["extras"])}


@dataclass
class Traced:
    """A network that learns along traces: z <- gamma lambda z + g; theta <- theta + eta delta z; z <- 0 at a reset.

    Attributes:
        part, kappa: its name, and how far below overshooting its step stays.
        told: `(parts, now) -> (delta, reset, further metrics)`, of what `seen` says.
        followed: `(parameters, now) -> []`, what g is the gradient of; now["delta"] is there too.
    """

    part: str
    told: Callable
    followed: Callable
    kappa: float = KAPPA
    z: dict | None = field(default=None)

    def __post_init__(self):
        self.slope = jax.jit(jax.value_and_grad(self.followed))

    def step(self, parts, batch):
        now = seen(batch)
        delta, reset, metrics = self.told(parts, now)
        value, g = self.slope(parts[self.part], {**now, "delta": delta})
        z = jax.tree.map(np.zeros_like, g) if self.z is None else self.z
        z = jax.tree.map(lambda z, g: GAMMA * LAMBDA * z + np.asarray(g), z, g)
        m = LR * self.kappa * max(abs(delta), 1) * sum(np.abs(x).sum() for x in jax.tree.leaves(z))
        eta = LR / m if m > 1 else LR
        new = jax.tree.map(lambda x, z: (x + eta * delta * z).astype(np.float32), parts[self.part], z)
        self.z = jax.tree.map(np.zeros_like, z) if reset else z
        told = {"loss": -value, "delta": delta, "reset": np.float32(reset)}
        return {**parts, self.part: new}, told | metrics


def follows(agent, parts: dict, references: dict[str, Traced], batches: list[dict]) -> dict:
    """Each rule with a reference does with each transition what that does; the others just run. The last parts."""
    run = {name: jax.jit(rule.update) for name, rule in agent.rules.items()}
    states = {name: rule.init(parts) for name, rule in agent.rules.items()}
    ctx = Ctx(KEY, jnp.int32(0))
    for batch in batches:
        for name in agent.rules:
            after, states[name], found = run[name](parts, states[name], batch, ctx)
            if name in references:
                wanted, told = references[name].step(parts, batch)
                near(after, wanted)
                near(found, told)
                near(states[name].trace[references[name].part], references[name].z)
            parts = after
    return parts

"""TACO, on top of an agent that sees: codes of actions, and of what they lead to (Zheng et al. 2023).

What is seen now, with a short code of each of the next few actions, must tell what is seen after them from all else in
the batch (InfoNCE), and the reward; one view of a picture must tell another of it. Encoder and action code learn from
that and from the critic, which is shown the code in place of the action. Deviations: DrQ-v2's; of the three views one
is that of the critic's update; windows that an episode's end cuts off count nothing, where the authors' code does not
draw them. `objective` alone adds to any rule of `minimise` on such batches, an offline learner's for one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.agents.common import at_least, continuous, further, present, viewed
from jaxrl.core import Key, Loss, Parts, Recipe, Specs, adam, mean, minimise
from jaxrl.equations.contrastive import info_nce
from jaxrl.nets import MLP, Net, Trunk, net, orthogonal


@dataclass(frozen=True)
class Config:
    """What TACO adds; the defaults are the authors'."""

    steps: int = 3  # of actions, each of `repeat` frames, from what is seen to what it is to be told by
    hidden: int = 1024  # width of the heads' hidden layers
    temporal: float = 1.0  # weights: of telling what comes,
    curl: float = 1.0  # of telling another view,
    reward: float = 1.0  # and of the rewards' sum

    def __post_init__(self):
        at_least(self, steps=1, hidden=1, temporal=0, curl=0, reward=0)


NUMBERS = {"batch": 1024}  # of which each row's target is told from all other rows'


def code_length(dims: int) -> int:
    """The length of an action's code."""
    return int(1.25 * dims) + 1


def action_code(dims: int) -> Net:
    """`apply(parameters, action [..., dims]) -> [..., code_length(dims)]`."""
    module = MLP((64,), code_length(dims), jnp.tanh, kernel_init=orthogonal())
    return net(module, jax.ShapeDtypeStruct((dims,), jnp.float32))


class Heads(NamedTuple):
    """Parameters `init(key)`; the `objective`, a Loss whose live parts are 'encoder', 'code' and 'taco'; and the `code`
    of what is seen, (parts, obs [B, ...]) -> [B, features]."""

    init: Callable[[Key], Parts]
    objective: Loss
    code: Callable[[Parts, jax.Array], jax.Array]


def heads(config: Config, features: int, dims: int, encode: Callable, seen: jax.ShapeDtypeStruct) -> Heads:
    """What TACO learns with.

    Args:
        features: length of a picture's code.
        encode: (parts, obs [B, ...]) -> what the codes are made of, [B, n]; `seen` is its shape for one.
    """
    code, length = action_code(dims), config.steps * code_length(dims)
    floats = lambda n: jax.ShapeDtypeStruct((n,), jnp.float32)
    state, sequence = net(Trunk(features), seen), net(Trunk(length), floats(length))
    head = lambda outputs: net(
        MLP((config.hidden,), outputs, kernel_init=orthogonal()), floats(features), floats(length)
    )
    nets = {"state": state, "sequence": sequence, "both": head(features), "reward": head(1)}

    def init(key):
        keys = dict(zip((*nets, "bilinear"), jax.random.split(key, len(nets) + 1)))
        bilinear = jax.random.uniform(keys["bilinear"], (features, features))
        return {**{name: one.init(keys[name]) for name, one in nets.items()}, "bilinear": bilinear}

    def coded(parts, obs):
        return state.apply(parts["taco"]["state"], encode(parts, obs))

    def objective(live, frozen, batch, key):
        own, ahead, z = live["taco"], batch["ahead"], coded(live, batch["obs"])
        # No gradient by way of the targets: what is to be told apart is given.
        given = lambda obs: jax.lax.stop_gradient(coded(live, obs))
        told = lambda guess, target: info_nce(guess @ own["bilinear"] @ given(target).T)
        actions = code.apply(live["code"], ahead["action"])
        plan = sequence.apply(own["sequence"], actions.reshape(actions.shape[0], -1))
        return_error = nets["reward"].apply(own["reward"], z, plan)[:, 0] - batch["reward"]
        terms = {
            "temporal": ahead["weight"] * told(nets["both"].apply(own["both"], z, plan), ahead["obs"]),
            "curl": told(z, ahead.get("again", batch["obs"])),
            "return": ahead["weight"] * return_error**2,
        }
        weights = {"temporal": config.temporal, "curl": config.curl, "return": config.reward}
        return mean(sum(weights[name] * term for name, term in terms.items()), batch), terms

    return Heads(init, objective, coded)


def seams(specs: Specs, config: Config, base: Any) -> dict[str, Any]:
    return {"code": action_code(continuous("taco", specs.action)), "ahead": config.steps}


def add(recipe: Recipe, specs: Specs, config: Config, base: Any) -> Recipe:
    """The recipe with TACO's rule after its own. Raises BadInput where its agent shows no encoding."""
    agent, dims = recipe.agent, continuous("taco", specs.action)
    encode = viewed("taco", agent, "encode")["encode"]
    seen = jax.eval_shape(encode, agent.shapes, specs.observation)
    made = heads(config, base.features, dims, encode, seen)
    rule = minimise(made.objective, adam(base.lr), (*present(agent, "encoder"), "code", "taco"))
    init = further("taco", agent, lambda key, parts: {"taco": made.init(key)})
    return replace(recipe, agent=replace(agent, init=init, rules={**agent.rules, "taco": rule}))

"""Mixtures of experts in place of a policy's hidden layers, with the losses that keep their routers in order.

Huang et al. 2025 (MENTOR) for the shape and the losses of their code; Fedus et al. 2022 (Switch) and Zoph et al. 2022
for those that reach the router with a gradient. Deviations: where a router has dropout, the losses on it are of another
draw than the policy's own; SAC's policy draws nothing while it learns, and so has neither dropout nor random spill.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax

from jaxrl.agents.common import at_least, present, viewed, within
from jaxrl.core import BadInput, Recipe, Specs, also, clipped, unknown
from jaxrl.equations.routing import balance, gate_entropy, load_variance, z_loss
from jaxrl.nets import MoEMLP
from jaxrl.nets.moe import ROUTERS, SPILLS

BALANCING = ("mentor", "switch", "none")


@dataclass(frozen=True)
class Config:
    """What a policy of experts can be told; the defaults are MENTOR's."""

    experts: int = 16
    k: int = 4  # experts of a token
    router: str = "top"  # top, expert_choice or soft
    capacity: float | None = None  # an expert's slots relative to an even share; None has no slots and drops nothing
    spill: str = "position"  # whom a full expert keeps: position, random or probability
    gate: int = 256  # width of the router's hidden layer, 0 for none
    dropout: float = 0.1  # of that layer, while learning
    residual: bool = False  # whether a dense layer stands beside the experts
    balancing: str = "mentor"  # mentor, the variance of loads and the entropy of gates; switch, E sum f P; or none
    weight: float = 1.0  # of the balancing; 0.002 is in the configuration of MENTOR's code, which does not use it
    z: float = 0.0  # weight of the squared log sum exp of the router's logits
    clip: float | None = 0.001  # of the global norm of the policy's gradient; None leaves it

    def __post_init__(self):
        at_least(self, experts=1, k=1, gate=0, weight=0, z=0)
        within(self, dropout=(0, 0.99))
        if self.k > self.experts:
            raise BadInput(f"k is {self.k}, more than the {self.experts} experts: lower it.")
        for name, known in (("router", ROUTERS), ("spill", SPILLS), ("balancing", BALANCING)):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)


def seams(specs: Specs, config: Config, base: Any) -> dict[str, Any]:
    if len(base.widths) < 2:
        raise BadInput(f"widths is {base.widths}: experts replace hidden layers after the first, so give two.")
    names = ("k", "router", "capacity", "spill", "gate", "dropout", "residual")
    how = {name: getattr(config, name) for name in names}
    return {"policy": partial(MoEMLP, experts=config.experts, how=how)}


def add(recipe: Recipe, specs: Specs, config: Config, base: Any) -> Recipe:
    """The recipe, of which the policy's rule also balances the routers. Raises BadInput where it shows none."""
    agent = recipe.agent
    look = viewed("moe", agent, "encode", "actor")

    def routers(live, frozen, batch, key):
        parts = {**frozen, **live}
        gates = look["actor"](parts, look["encode"](parts, batch["obs"]), key)["gates"]
        loss, metrics = 0.0, {}
        for i, gate in enumerate(gates):
            probs = jax.nn.softmax(gate.logits)
            load, entropy, even = load_variance(gate.mask), gate_entropy(gate.logits), balance(probs, gate.mask)
            loss += config.weight * {"mentor": load + entropy, "switch": even, "none": 0.0}[config.balancing]
            loss += config.z * z_loss(gate.logits)
            said = {"load": load, "entropy": entropy, "balance": even, "dropped": gate.dropped}
            metrics |= {f"moe_{i}_{name}": value for name, value in said.items()}
        return loss, metrics

    rule = also(agent.rules["actor"], routers, reads=present(agent, "encoder"))
    rule = rule if config.clip is None else clipped(rule, "actor", config.clip)
    return replace(recipe, agent=replace(agent, rules={**agent.rules, "actor": rule}))

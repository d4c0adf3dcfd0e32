"""MEX with all models of a small world to choose from: the one that is worth most, less how badly it fits.

Liu et al. 2023 (Maximize to Explore), algorithm 1 with model-based hypotheses: a model is chances and rewards by table,
the misfit is the negative log-likelihood of what was seen and the squared error of rewards, and before each episode the
best model is looked for by gradient from the last one. Deviation: where the value is looked uphill for, the best of
actions is a soft one, or a model in which a better action is not yet the best would never be found.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from jaxrl.agents import tabular
from jaxrl.agents.common import at_least
from jaxrl.core import Recipe, Rule, Specs
from jaxrl.equations.tabular import planned, soft_best


@dataclass(frozen=True)
class Config(tabular.Config):
    """What MEX can be told."""

    eta: float = 1.0  # weight of the misfit against the value
    most: float = 1.0  # the largest reward of a step; the smallest is 0
    steps: int = 20  # uphill, an episode
    lr: float = 0.1  # Adam
    softness: float = 0.1  # temperature of the best of actions, in rewards

    def __post_init__(self):
        super().__post_init__()
        at_least(self, eta=0, most=0, steps=1, lr=0)


def table(model: dict[str, jax.Array], most: float | jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log chances [S, A, S + 1] and rewards [S, A] of a hypothesis."""
    return jax.nn.log_softmax(model["next"]), most * jax.nn.sigmoid(model["reward"])


def misfit(model: dict[str, jax.Array], counts: dict[str, jax.Array], most: float | jax.Array) -> jax.Array:
    """Minus the log-likelihood of all that was seen, and the squared error of rewards."""
    chances, r = table(model, most)
    n, _, mean = tabular.tables(counts)
    return -(counts["next"] * chances).sum() + (n * (r - mean) ** 2).sum()


def recipe(specs: Specs, config: Config) -> Recipe:
    """Raises BadInput as `tabular.world`."""
    tx = optax.adam(config.lr)

    def own(w):
        return {
            "model": {
                "next": jnp.zeros((w.states, w.actions, w.states + 1)),
                "reward": jnp.zeros((w.states, w.actions)),
            }
        }

    def plan(w):
        def worth(model, best):
            chances, r = table(model, config.most)
            return planned(jnp.exp(chances[..., :-1]), r, w.horizon, best=best)

        def objective(model, counts):
            first = counts["first"] / jnp.maximum(counts["first"].sum(), 1)
            best = soft_best(config.softness)
            value = first @ best(worth(model, best)[0])
            return config.eta * misfit(model, counts, config.most) - value

        def update(parts, state, batch, ctx):
            def step(carry, _):
                model, state = carry
                change, state = tx.update(jax.grad(objective)(model, parts["counts"]), state, model)
                return (optax.apply_updates(model, change), state), None

            (model, state), _ = jax.lax.scan(step, (parts["model"], state), None, length=config.steps)
            made = {"model": model, "plan": worth(model, lambda q: q.max(axis=-1))}
            return {**parts, **made}, state, {"misfit": misfit(model, parts["counts"], config.most)}

        return Rule(lambda parts: tx.init(parts["model"]), update, ("model", "plan", "counts"), ("model", "plan"))

    return tabular.planning("mex_tabular", specs, config, own, plan)

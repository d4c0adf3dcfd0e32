"""Loss scaling: gradients of float16 are lifted above its smallest numbers, and steps that overflow are not taken."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl.core import Descent, Rule, inside, minimise, where


class LossScale(NamedTuple):
    """factor float32 [], what losses are multiplied by; good int32 [], steps taken since it last changed."""

    factor: jax.Array
    good: jax.Array


def loss_scaled(rule: Rule, start: float = 2.0**15, period: int = 2000) -> Rule:
    """A rule of `minimise` whose loss is multiplied by a factor and whose gradients are divided by it.

    A step after which anything is not finite is not taken, and halves the factor; `period` steps in a row that are
    taken double it (Micikevicius et al. 2018, section 3.2). It reaches through `on`, `epochs`, `repeat` and `every`.

    Raises:
        BadInput: there is no `minimise` within.
    """
    return inside(rule, lambda old: _scaled(old, start, period))


def _scaled(rule: Descent, start: float, period: int) -> Rule:
    plain, descend = rule.loss, rule.tx

    def scaled(factor: jax.Array) -> Rule:
        def loss(*seen):
            value, metrics = plain(*seen)
            return value * factor, metrics

        return minimise(
            loss, optax.chain(optax.scale(1 / factor), descend), rule.wrt, rule.reads, rule.signals, rule.sets
        )

    def init(parts):
        return scaled(jnp.float32(start)).init(parts), LossScale(jnp.float32(start), jnp.int32(0))

    def update(parts, state, batch, ctx):
        inner, scale = state
        new, stepped, metrics = scaled(scale.factor).update(parts, inner, batch, ctx)
        changed = {name: new[name] for name in rule.writes}
        finite = jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves((changed, stepped)) if _floating(x)]).all()
        kept = {name: parts[name] for name in rule.writes}
        changed, stepped = where(finite, (changed, stepped), (kept, inner))
        grown = finite & (scale.good + 1 >= period)
        factor = jnp.where(finite, jnp.where(grown, 2.0, 1.0), 0.5) * scale.factor
        good = jnp.where(finite & ~grown, scale.good + 1, 0)
        metrics = {**metrics, "loss": metrics["loss"] / scale.factor, "loss_scale": scale.factor, "taken": finite}
        return parts | changed, (stepped, LossScale(factor, good)), metrics

    return Rule(init, update, rule.reads, rule.writes)


def _floating(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)

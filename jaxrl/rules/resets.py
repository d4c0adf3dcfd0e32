"""Parts that are put back: on a surface, or to a beginning, wholly or a little, so that they stay able to learn."""

from collections.abc import Callable, Mapping

import jax

from jaxrl.core import Ctx, Key, Parts, PyTree, Rule, fold, stateless

BEGUN = 1 << 28  # a stream of keys apart from those of the rules within


def restarting(rule: Rule, init: Callable[[Key], Parts], due: Callable[[Ctx], jax.Array]) -> Rule:
    """The rule, where before an update that is due all parts that it writes and its own state begin anew.

    Nikishin et al. 2022, with replay kept. `due(ctx) -> bool []` must depend on the clock alone, which all seeds share.

    Args:
        init: makes the parts; only those that the rule writes are taken.
    """

    def begun(parts, key):
        made = init(key)
        parts = {**parts, **{name: made[name] for name in rule.writes}}
        return parts, rule.init(parts)

    def update(parts, state, batch, ctx):
        parts, state = jax.lax.cond(due(ctx), lambda: begun(parts, fold(ctx.key, BEGUN)), lambda: (dict(parts), state))
        return rule.update(parts, state, batch, ctx)

    return Rule(rule.init, update, tuple(dict.fromkeys((*rule.reads, *rule.writes))), rule.writes)


def mixed(old: PyTree, new: PyTree, keep: float | jax.Array) -> PyTree:
    """keep * old + (1 - keep) * new: shrink and perturb  (Ash and Adams 2020; D'Oro et al. 2023)."""
    return jax.tree.map(lambda a, b: keep * a + (1 - keep) * b, old, new)


def dense(fn: Callable[..., jax.Array], tree: PyTree, *others: PyTree) -> PyTree:
    """`fn` on the leaves of dense layers (kernels of two axes, of members and experts too, and their biases).

    The rest, such as what a normaliser has learned, stays as it is in the first tree.
    """
    if not isinstance(tree, Mapping):
        return tree
    if "kernel" in tree:
        return {name: fn(tree[name], *(other[name] for other in others)) for name in tree}
    return {name: dense(fn, tree[name], *(other[name] for other in others)) for name in tree}


def forgetting(rule: Rule, due: Callable[[Ctx], jax.Array]) -> Rule:
    """The rule, whose own state (an optimiser's moments) begins anew before an update that is due by the clock."""

    def update(parts, state, batch, ctx):
        state = jax.lax.cond(due(ctx), lambda: rule.init(parts), lambda: state)
        return rule.update(parts, state, batch, ctx)

    return Rule(rule.init, update, rule.reads, rule.writes, (lambda inner: forgetting(inner, due), rule))


def passing(period: int, tick: int) -> Callable[[Ctx], jax.Array]:
    """Due at the first update of a tick of `tick` frames in which the clock passes a multiple of `period` frames."""
    return lambda ctx: (ctx.clock >= period) & (ctx.clock % period < tick) & (ctx.turn == 0)


def shrink_and_perturb(part: str, init: Callable[[Key], Parts], keep: float | jax.Array = 0.8) -> Rule:
    """Move a part towards a fresh one of `init` at each update: to be met now and then, in `every(n, ...)`."""
    return stateless(lambda parts, batch, ctx: ({part: mixed(parts[part], init(ctx.key)[part], keep)}, {}), part)


def project(part: str, onto: Callable[[PyTree], PyTree]) -> Rule:
    """A part put back where it belongs after it was updated, such as weights on a sphere."""
    return stateless(lambda parts, batch, ctx: ({part: onto(parts[part])}, {}), part)

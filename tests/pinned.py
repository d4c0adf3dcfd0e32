"""One update at a time, against equations written out: what unit tests of agents share.

An agent's rules are run one after another on small batches, and each is compared with a reference: a literal
transcription of the paper's loss, differentiated by `jax.grad` and descended by an Adam of NumPy, or the parts that a
formula gives. Only networks' `apply` is the product's own.
"""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import Agent, BadInput, Box, Ctx, Specs, stateless

LENGTH, DIMS, B = 3, 2, 6
OBS, ACTION = (jax.ShapeDtypeStruct((n,), jnp.float32) for n in (LENGTH, DIMS))
SPECS = Specs(OBS, Box((DIMS,)), limit=10)
KEY = jax.random.key(11)


def transitions(seed: int = 0, shape: tuple[int, ...] = (B,)) -> dict[str, np.ndarray]:
    """A batch with an end that terminates (its discount is 0), a masked row and uneven weights."""
    rng = np.random.default_rng(seed)
    normal = lambda *more: rng.normal(size=(*shape, *more)).astype(np.float32)
    batch = {"obs": normal(LENGTH), "next_obs": normal(LENGTH), "reward": normal()}
    batch["action"] = rng.uniform(-1, 1, (*shape, DIMS)).astype(np.float32)
    batch["discount"], batch["weight"] = np.ones(shape, np.float32), rng.uniform(0.5, 2, shape).astype(np.float32)
    batch["discount"][1], batch["weight"][2] = 0, 0
    return batch


def rolled(seed: int = 0, steps: int = 6, envs: int = 3) -> dict[str, np.ndarray]:
    """A rollout [T, N]: the first environment terminates at step 1, the others break off at 2 and terminate at 3."""
    batch = transitions(seed, (steps, envs))
    del batch["weight"]
    batch["discount"], batch["end"] = np.ones((steps, envs), np.float32), np.zeros((steps, envs), bool)
    for step, env, goes_on in ((1, 0, 0), (2, 1, 1), (3, 2, 0)):
        batch["end"][step, env], batch["discount"][step, env] = True, goes_on
    length = np.arange(5, 5 + steps)[:, None] - np.zeros((1, envs), np.int32)
    for step, env in np.argwhere(batch["end"]):
        length[step + 1 :, env] = np.arange(1, steps - step)
    return {**batch, "info": {"episode": {"length": length.astype(np.int32)}}}


def mapped(rule, parts: dict, batch: dict, ctx: Ctx) -> dict:
    """The batch that the outermost `on` of a rule makes."""
    seen = lambda parts, batch, ctx: ({}, batch)
    wrap, _ = rule.around
    return jax.jit(lambda *given: wrap(stateless(seen, ())).update(given[0], (), *given[1:])[2])(parts, batch, ctx)


def mean(x, batch):
    """sum(w x) over the number of rows that count."""
    weight = batch["weight"]
    return (weight * x).sum() / (weight > 0).sum()


def disturbed(parts: dict, *names: str, by: float = 0.2, seed: int = 1) -> dict:
    """The parts, those named with noise on every number, so that copies differ and no bias is 0."""
    rng = np.random.default_rng(seed)
    noisy = lambda x: x + jnp.asarray(by * rng.normal(size=x.shape), x.dtype)
    return {**parts, **{name: jax.tree.map(noisy, parts[name]) for name in names}}


def taking_numpy(fn: Callable) -> Callable:
    """A function of JAX's arrays as one of NumPy's, positional ones alone: expectations are then worked in NumPy."""
    array = lambda x: jnp.asarray(x) if isinstance(x, np.ndarray | np.generic) else x
    return lambda *args, **settings: fn(*jax.tree.map(array, args), **settings)


def member(parameters, i: int):
    return jax.tree.map(lambda x: x[i], parameters)


def squashed(output, key, weights=1.0):
    """a = tanh(mean + std noise) [B, dims] and log pi(a) [B] by the change of variables (SAC, appendix C).

    The log standard deviation is within [-5, 2]; row i draws from `split(key, B)[i]`.
    """
    center, log_std = normal(output)
    noise = jnp.stack([jax.random.normal(one, center.shape[1:]) for one in jax.random.split(key, center.shape[0])])
    u = center + jnp.exp(log_std) * noise
    log_normal = -(noise**2) / 2 - log_std - jnp.log(2 * jnp.pi) / 2
    log_slope = -2 * (jnp.logaddexp(u, -u) - jnp.log(2))  # of 1 - tanh(u)^2 = 1 / cosh(u)^2
    return jnp.tanh(u), (weights * (log_normal - log_slope)).sum(axis=1)


def normal(output):
    """Mean and log standard deviation within [-5, 2] of an actor's output."""
    dims = output.shape[-1] // 2
    return output[..., :dims], (2 - 5) / 2 + (2 + 5) / 2 * jnp.tanh(output[..., dims:])


def stacked(trees: list):
    """Members of an ensemble as one tree, [n] leading."""
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)


def expected(logits, bins):
    """The mean over the bins of softmax(logits) [..., n]."""
    return (jax.nn.softmax(logits) * bins).sum(axis=-1)


def on_bins(values, probabilities, bins):
    """Each row's values [B, n] with these probabilities on equal bins (Bellemare et al. 2017, algorithm 1): [B, n]."""
    b = jnp.clip((values - bins[0]) / (bins[1] - bins[0]), 0, len(bins) - 1)
    low = jnp.floor(b)
    onto = lambda place, share: ((probabilities * share)[..., None] * jax.nn.one_hot(place, len(bins))).sum(axis=1)
    return onto(low, 1 - (b - low)) + onto(low + 1, b - low)


def soft_distribution(reward, discount, logits, bonus, bins):
    """r + d (z + bonus) of the critic that expects less, row by row, of two [2, B, n] (or of one [1, B, n])."""
    least = logits[0]
    for other in logits[1:]:
        least = jnp.where((expected(other, bins) < expected(least, bins))[:, None], other, least)
    values = reward[:, None] + discount[:, None] * (bins + bonus[:, None])
    return on_bins(values, jax.nn.softmax(least), bins)


def cross_entropies(guess, target, bins, batch):
    """-sum p log q of each critic's logits [n, B, bins], summed over the critics, and what is told of it."""
    each = jnp.stack([-(target * jax.nn.log_softmax(one)).sum(axis=-1) for one in guess])
    aims = (target * bins).sum(axis=-1)
    error = jnp.stack([abs(expected(one, bins) - aims) for one in guess])
    return mean(each.sum(axis=0), batch), {"td_error": error.mean(axis=0), "target": aims}


# ------------------------------------------------------------------------------------------------------------- rules


def always(update: int) -> bool:
    return True


def last_of(n: int) -> Callable[[int], bool]:
    """Due with the last update of each n."""
    return lambda update: update % n == n - 1


class Descended:
    """What Adam (Kingma and Ba 2015, algorithm 1; with AdamW's decay) makes of a literal loss.

    Args:
        loss: `(live, parts, batch, key) -> (value, metrics)`, which takes its constants from `parts`.
        learns: of each part that it moves, its optimiser's settings: lr, and what is not usual of b1, b2, eps, AdamW's
            decay and the share of itself by which it fades, whatever lr is.
        due: whether it learns with an update; metrics of the others are NaN.
        sets: parts whose new values the loss has among its metrics.
        clip: of the gradient's global norm.
    """

    def __init__(self, loss: Callable, learns: dict[str, dict], due=always, sets: tuple[str, ...] = (), clip=None):
        self.slope = jax.jit(jax.value_and_grad(loss, has_aux=True))
        self.learns, self.due, self.sets, self.clip = learns, due, sets, clip
        self.begin()

    def begin(self):
        self.count, self.mu, self.nu = 0, {}, {}

    def predict(self, update, before, batch, key, state):
        if not self.due(update):
            return before, None
        (value, metrics), slope = self.slope({name: before[name] for name in self.learns}, before, batch, key)
        new = {name: metrics.pop(name) for name in self.sets}
        if self.clip is not None:
            norm = np.sqrt(sum((np.asarray(g) ** 2).sum() for g in jax.tree.leaves(slope)))
            slope = jax.tree.map(lambda g: g * min(1, self.clip / norm), slope)
        self.count += 1
        for name, how in self.learns.items():
            new[name] = self.stepped(name, before[name], slope[name], state, **how)
        return {**before, **new}, {"loss": value, **metrics}

    def stepped(self, name, parameters, slope, state, lr, b1=0.9, b2=0.999, decay=0.0, eps=1e-8, fade=0.0):
        none = jax.tree.map(lambda g: np.zeros(g.shape), slope)
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * np.asarray(g), self.mu.get(name, none), slope)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * np.asarray(g) ** 2, self.nu.get(name, none), slope)
        # From here on with the numbers that were found: Adam magnifies how a gradient of 0 is rounded.
        m = self.mu[name] = near(moment(state, "mu")[name], m, together=True)
        v = self.nu[name] = near(moment(state, "nu")[name], v, together=True)
        rate = lambda m, v: (m / (1 - b1**self.count)) / (np.sqrt(v / (1 - b2**self.count)) + eps)
        step = lambda x, m, v: (x - lr * (rate(m, v) + decay * np.asarray(x)) - fade * np.asarray(x)).astype(np.float32)
        return jax.tree.map(step, parameters, *jax.tree.map(lambda x: np.asarray(x, np.float64), (m, v)))


class Put:
    """What a formula makes of parts: `fn(parts, batch) -> the parts that it changes`."""

    def __init__(self, fn: Callable, due=always):
        self.fn, self.due = fn, due

    def predict(self, update, before, batch, key, state):
        return {**before, **(self.fn(before, batch) if self.due(update) else {})}, {}


def explored(agent: Agent, parts: dict, memory=(), count: int = 48) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Observations [count, LENGTH], keys [count], and the actions that an agent explores with there."""
    obs, keys = 2 * jax.random.normal(KEY, (count, LENGTH)), jax.random.split(KEY, count)
    act = lambda obs, key: agent.act(parts, memory, obs, Ctx(key, jnp.int32(0)), True)[0]
    return obs, keys, jax.jit(jax.vmap(act))(obs, keys)


def noisy(center, noise):
    """center + noise within [-1, 1], where both bounds are met."""
    action = np.minimum(np.maximum(np.asarray(center) + np.asarray(noise), -1), 1)
    assert action.min() == -1 and action.max() == 1
    return action


def tracked(source: str, target: str, tau: float, due=always) -> Put:
    """Polyak averaging: (1 - tau) target + tau source."""
    mix = lambda new, old: ((1 - tau) * np.asarray(old) + tau * np.asarray(new)).astype(np.float32)
    return Put(lambda parts, batch: {target: jax.tree.map(mix, parts[source], parts[target])}, due)


def compared(reference, update: int, before: dict, after: dict, state, found: dict, batch: dict, key):
    """One update of a rule is what its reference says: the parts after it, its optimiser's moments, its metrics."""
    wanted, metrics = reference.predict(update, before, batch, key, state)
    near(after, wanted)
    if metrics is None:
        same(after, before)
        metrics = jax.tree.map(lambda x: np.full(x.shape, np.nan), found)
    near(found, metrics)


def agrees(agent: Agent, parts: dict, references: dict[str, Any], batches: list[dict] | dict[int, dict]) -> dict:
    """Each rule's every update is what its reference says, in this order; returns the parts after the last.

    Update i, of the i-th batch or of that of key i, has the key `fold_in(KEY, i)`, and all rules of an update the same.
    """
    assert list(agent.rules) == list(references)
    run = {name: jax.jit(rule.update) for name, rule in agent.rules.items()}
    states = {name: rule.init(parts) for name, rule in agent.rules.items()}
    for i, batch in batches.items() if isinstance(batches, dict) else enumerate(batches):
        key = jax.random.fold_in(KEY, i)
        for name, reference in references.items():
            after, states[name], found = run[name](parts, states[name], batch, Ctx(key, jnp.int32(0), jnp.int32(i)))
            compared(reference, i, parts, after, states[name], found, batch, key)
            parts = after
    return parts


def descent(rule):
    """What `minimise` made, within the wrappings of a rule."""
    return descent(rule.around[1]) if rule.around else rule


def slope(rule, part: str, parts: dict, batch: dict):
    """The gradient of a rule's loss in one part."""
    loss = lambda value: descent(rule).loss({**parts, part: value}, parts, batch, KEY)[0]
    return jax.jit(jax.grad(loss))(parts[part])


def moment(state, name: str) -> dict:
    """Adam's `mu` or `nu` by part, wherever in an optimiser's state it is."""
    found = {}
    for _, tree in optax.tree_utils.tree_get_all_with_path(state, name):
        found |= {part: value for part, value in tree.items() if not isinstance(value, optax.MaskedNode)}
    return found


def same(a, b):
    """Equal structures, and equal in every bit."""
    jax.tree.map(assert_array_equal, a, b)


def near(a, b, together: bool = False):
    """Equal structures, and numbers as near as float32 computes them; returns the first.

    Args:
        together: whether what counts as nothing is measured by the largest number of all, not of each array.
    """
    assert jax.tree.structure(a) == jax.tree.structure(b)
    largest = lambda *arrays: max([1e-6, *(np.abs(x[np.isfinite(x)]).max(initial=0) for x in arrays)])
    every = [np.asarray(y, np.float64) for y in jax.tree.leaves(b)]
    for (path, x), y in zip(jax.tree.leaves_with_path(a), every):
        nothing = 2e-4 * largest(*every) if together else 2e-5 * largest(y)
        assert_allclose(np.asarray(x, np.float64), y, rtol=3e-4, atol=nothing, err_msg=str(path))
    return a


# ----------------------------------------------------------------------------------------------------- configurations


def bounded(kind: type, lowest: dict[str, float], ranges: dict[str, tuple[float, float]] | None = None, **base):
    """A configuration takes each number at its bound, and refuses it beyond, by its name."""
    ends = [(name, low, low - (1 if isinstance(low, int) else 1e-4)) for name, low in lowest.items()]
    for name, (low, high) in (ranges or {}).items():
        ends += [(name, low, low - 1e-4), (name, high, high + 1e-4)]
    for name, inside, outside in ends:
        kind(**{**base, name: inside})
        with pytest.raises(BadInput, match=f"^{name} is "):
            kind(**{**base, name: outside})


def defaults(config: Any, **wanted):
    """The configuration's numbers, all of them, for good."""
    assert asdict(config) == wanted
    with pytest.raises(FrozenInstanceError):
        config.gamma = 0


def replayed(recipe) -> tuple[int, int]:
    """Transitions that a recipe's source keeps, and those in a batch of it."""
    one = jax.tree.map(lambda x: np.stack([x[: recipe.num_envs]]), transitions(shape=(max(B, recipe.num_envs),)))
    example = {**one, "end": one.pop("weight") == 0}
    s = jax.eval_shape(recipe.source.init, example)
    batch = jax.eval_shape(recipe.source.sample, s, {}, KEY)
    held = jax.eval_shape(recipe.source.everything, s)["reward"].size  # with a slot for each environment's newest
    return held - recipe.num_envs, batch["reward"].shape[0]


def summed(recipe, steps: int = 12, obs=None) -> dict:
    """A batch of a recipe's replay of one endless episode whose rewards are 1, whose actions are 0, and which always
    shows `obs`, where there is one."""
    made = transitions(shape=(steps, recipe.num_envs))
    ones = np.ones_like(made.pop("weight"))
    made |= {"reward": ones, "discount": ones, "end": ones == 0, "action": np.zeros_like(made["action"])}
    if obs is not None:
        made |= dict.fromkeys(("obs", "next_obs"), np.broadcast_to(obs, (steps, recipe.num_envs, *obs.shape)))
    s = recipe.source.add(recipe.source.init(made), made, Ctx(KEY, jnp.int32(0)))
    return jax.jit(lambda s: recipe.source.sample(s, {}, KEY))(s)


def explores(act: Callable, q, low: float, frames: int):
    """`act(key, step)` is uniform for a share that falls linearly from 1 to `low` over the frames, else best by q."""

    def wanted(key, step):
        key_share, key_action = jax.random.split(key)
        share = low + (1 - low) * jnp.maximum(1 - step / frames, 0)
        drawn = jax.random.randint(key_action, (), 0, len(q), jnp.int32)
        return jnp.where(jax.random.uniform(key_share) < share, drawn, jnp.argmax(q))

    keys, steps = jax.random.split(KEY, 60), jnp.array([0, frames // 3, frames, 3 * frames], jnp.int32)
    grid = lambda fn: jax.vmap(jax.vmap(fn, (0, None)), (None, 0))
    actions, right = jax.jit(lambda *given: (grid(act)(*given), grid(wanted)(*given)))(keys, steps)
    assert_array_equal(actions, right)
    assert actions.dtype == jnp.int32
    assert (actions != jnp.argmax(q)).any(axis=1).all()

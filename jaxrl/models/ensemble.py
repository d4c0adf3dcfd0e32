"""An ensemble of probabilistic dynamics: what an action leads to, and how far its members disagree about it.

Chua et al. 2018 (PETS), as Janner et al. 2019 (MBPO) fit it: each member has a bootstrap of the data, tells the reward
and the change of the observation as normals with a bounded variance that is learned, and is kept as it was when a
hold-out was told best; the best few members make the model's steps. Deviations: minibatches are drawn with replacement
from a member's bootstrap; whether a transition ends the task is `Specs.over` or, where observations do not tell, a
further output; what is told has unit variance over the data, reward and each change by itself, as otherwise the
smaller ones are learned late and their variances later still (Barkley and Fridovich-Keil 2025); and errors count more
where they are expected (Seitzer et al. 2022). A member whose numbers are no longer finite goes back to what it was when
they last were.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from jaxrl.core import BadInput, Box, Discrete, Key, Metrics, PyTree, Specs, below, where
from jaxrl.nets import MLP, net, truncated


@dataclass(frozen=True)
class Config:
    """What an ensemble is and how it is fitted; the defaults are the authors' of MBPO, but for `beta`."""

    members: int = 7
    elites: int = 5  # of the members, which make the model's steps
    widths: tuple[int, ...] = (200, 200, 200, 200)  # hidden widths of a member
    angles: tuple[int, ...] = ()  # which numbers of an observation are angles, in radians: members see sine and cosine
    lr: float = 1e-3  # Adam
    batch: int = 256  # transitions of a member's minibatch; few data ask for a smaller one
    decay: tuple[float, float] = (2.5e-5, 1e-4)  # half the penalty of squared weights, in the first and the last layer
    beta: float = 0.5  # share of its variance by which an error counts more: 0 is the likelihood, 1 the squared error
    held_out: float = 0.2  # share of the data that tells when to stop
    most_held_out: int = 5_000  # and their number, at most
    patience: int = 5  # passes over the data without a member getting better after which one more is the last
    passes: int = 500  # over the data at one fit, at most: a cap on time, not meant to be met

    def __post_init__(self):
        lowest = {"members": 1, "elites": 1, "batch": 1, "most_held_out": 1, "patience": 0, "passes": 1}
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise BadInput(f"{name} is {getattr(self, name)}; an ensemble needs at least {low}.")
        if self.elites > self.members:
            raise BadInput(f"elites is {self.elites}, more than the {self.members} members: lower elites.")
        if not 0 <= self.beta <= 1:
            raise BadInput(f"beta is {self.beta}; it is a share of a variance, from 0 to 1.")
        if not 0 < self.held_out < 1:
            raise BadInput(f"held_out is {self.held_out}; it is a share of the data, above 0 and below 1.")


class Told(NamedTuple):
    """What the members tell of [B] pairs: mean and log_var of (reward, change of the observation) [M, B, 1 + d], and
    over [M, B], the logit that the task ends (None where the specs tell)."""

    mean: Float[Array, "M B n"]
    log_var: Float[Array, "M B n"]
    over: Float[Array, "M B"] | None


class Step(NamedTuple):
    """Where [B] actions lead: next_obs [B, d], reward [B], discount [B], 0 where the task ends."""

    next_obs: Float[Array, "B d"]
    reward: Float[Array, "B"]
    discount: Float[Array, "B"]


class Model(NamedTuple):
    """A model of the world as functions of its part.

    `init(key) -> part`. `fit(part, data, key, further=None) -> (part, metrics)` is from all data at once, [S, ...] with
    a `weight` that is 0 where there are none (`Source.everything`); `further(tell, batch, key)` is one more term of its
    loss, where `tell(obs, action) -> Told` is of the members that are learning. `tell(part, obs, action) -> Told`;
    `step(part, obs [B, d], action [B, ...], key) -> Step`, as a random elite has it; `survey(part, obs, action, key) ->
    (Step, doubt [B])`, as a random member has it, with how far the members are apart, in the data's spreads.
    """

    init: Callable[[Key], PyTree]
    fit: Callable[..., tuple[PyTree, Metrics]]
    tell: Callable[..., Told]
    step: Callable[..., Step]
    survey: Callable[..., tuple[Step, Float[Array, "B"]]]


def dynamics(specs: Specs, config: Config = Config()) -> Model:
    """The ensemble for an environment. Raises BadInput unless its observations are one vector."""
    d, known = flat(specs.observation), specs.over is not None
    dims = specs.action.n if isinstance(specs.action, Discrete) else math.prod(specs.action.shape)
    for i in config.angles:
        if not 0 <= i < d:
            raise BadInput(f"angles has {i}, and an observation here has numbers 0 to {d - 1}: name some of these.")
    turning, straight = (jnp.array([i for i in range(d) if (i in config.angles) == turns], int) for turns in (1, 0))
    seen = d + len(turning) + dims  # numbers that a member sees
    mlp = MLP(config.widths, 2 * (1 + d) + (not known), jax.nn.swish, kernel_init=truncated(0.5))
    one = net(mlp, jax.ShapeDtypeStruct((seen,), jnp.float32))
    tx, m = optax.adam(config.lr), config.members
    decays = jnp.linspace(*config.decay, len(config.widths) + 1)

    def init(key):
        members = jax.vmap(one.init)(jax.random.split(key, m))
        bounds = {"high": jnp.full(1 + d, 0.5), "low": jnp.full(1 + d, -10.0)}
        learned = {"members": members, "bounds": bounds}
        unit = lambda n: {"mean": jnp.zeros(n), "std": jnp.ones(n)}
        norm = {"input": unit(seen), "told": unit(1 + d)}
        return {**learned, "norm": norm, "elites": jnp.arange(config.elites), "adam": tx.init(learned)}

    def inputs(obs, action):
        angles = obs[..., turning]
        sides = [obs[..., straight], jnp.sin(angles), jnp.cos(angles)] if len(turning) else [obs]
        return jnp.concatenate([*sides, encoded(specs.action, action)], axis=-1)

    def member(parameters, bounds, norm, x):
        """One member at inputs [B, ...]: mean, log_var [B, 1 + d], standardised, and an end's logit [B] or None."""
        output = one.apply(parameters, standard(x, norm["input"]))
        mean, log_var, over = jnp.split(output, (1 + d, 2 * (1 + d)), axis=-1)
        return Told(mean, soft_clamp(log_var, bounds["low"], bounds["high"]), None if known else over[..., 0])

    def every(learned, norm, x, shared):
        """The members, at the same inputs [B, ...] or each at its own [M, B, ...]."""
        over = (0, None, None, None if shared else 0)
        return jax.vmap(member, over)(learned["members"], learned["bounds"], norm, x)

    def real(told, norm):
        """What was told, in the units of rewards and observations."""
        mean, std = norm["told"]["mean"], norm["told"]["std"]
        return told._replace(mean=told.mean * std + mean, log_var=told.log_var + 2 * jnp.log(std))

    def tell(part, obs, action):
        return real(every(part, part["norm"], inputs(obs, action), True), part["norm"])

    def loss(learned, norm, x, y, ends):
        """The sum over members, each with data [B, ...] of its own."""
        told = every(learned, norm, x, False)
        value = gaussian_nll(told.mean, told.log_var, y, config.beta).mean(axis=(1, 2)).sum()
        if not known:
            value += optax.sigmoid_binary_cross_entropy(told.over, ends).mean(axis=1).sum()
        layers = sorted(learned["members"], key=lambda name: (len(name), name))
        kernels = [learned["members"][name]["kernel"] for name in layers]
        value += sum(decay / 2 * (kernel**2).sum() for decay, kernel in zip(decays, kernels))
        return value + 0.01 * (learned["bounds"]["high"].sum() - learned["bounds"]["low"].sum())

    def fit(part, data, key, further=None):
        key_order, key_boot, key_fit = jax.random.split(key, 3)
        # The data in random order, what is held first: so the first few are the hold-out, and the next train.
        held = data["weight"] > 0
        order = jnp.where(held, jax.random.uniform(key_order, held.shape), jnp.inf).argsort()
        data, size, slots = jax.tree.map(lambda x: x[order], data), held.sum(), held.shape[0]
        x = inputs(data["obs"], data["action"])
        y = jnp.concatenate([data["reward"][:, None], data["next_obs"] - data["obs"]], axis=1)
        ends = 1.0 - data["discount"]
        few = min(config.most_held_out, slots)
        tested = jnp.clip((config.held_out * size).astype(jnp.int32), 1, few)
        trained = jnp.maximum(size - tested, 1)
        place = jnp.arange(slots)
        test, train = place[:few] < tested, (place >= tested) & (place < size)
        norm = {"input": moments(x, train), "told": moments(y, train)}
        y = standard(y, norm["told"])
        boot = tested + below(key_boot, (m, slots), trained)  # whom each member has, again and again
        batches = -(-trained // config.batch)

        def pass_over(carry):
            learned, adam, best, turn, idle = carry

            def descend(i, carry):
                learned, adam = carry
                key_rows, key_further = jax.random.split(jax.random.fold_in(key_fit, turn * batches + i))
                drawn = below(key_rows, (m, config.batch), trained)
                rows = jnp.take_along_axis(boot, drawn, axis=1)

                def objective(learned):
                    value = loss(learned, norm, x[rows], y[rows], ends[rows])
                    if further is None:
                        return value
                    now = lambda obs, action: real(every(learned, norm, inputs(obs, action), True), norm)
                    return value + further(now, jax.tree.map(lambda x: x[rows[0]], data), key_further)

                steps, adam = tx.update(jax.grad(objective)(learned), adam, learned)
                return optax.apply_updates(learned, steps), adam

            learned, adam = jax.lax.fori_loop(0, batches, descend, (learned, adam))
            error = held_out_error(every(learned, norm, x[:few], True).mean, y[:few], test)
            better = (best["error"] - error) / best["error"] > 0.01  # false of what is not finite
            best = {
                "members": where(better, learned["members"], best["members"]),
                "error": jnp.where(better, error, best["error"]),
            }
            return learned, adam, best, turn + 1, jnp.where(better.any(), 0, idle + 1)

        goes_on = lambda carry: (carry[-1] <= config.patience) & (carry[-2] < config.passes)
        learned = {"members": part["members"], "bounds": part["bounds"]}
        best = {"members": part["members"], "error": jnp.full(m, 1e10)}
        start = (learned, part["adam"], best, jnp.int32(0), jnp.int32(0))
        learned, adam, best, turns, _ = jax.lax.while_loop(goes_on, pass_over, start)
        sound = finite(learned["members"], m)
        sane = lambda new, old: jnp.where(jnp.isfinite(new), new, old)
        bounds = jax.tree.map(sane, learned["bounds"], part["bounds"])
        kept = {"members": best["members"], "bounds": bounds}
        fresh = tx.init(kept)  # moments that have met what is not finite would spoil the next fit too
        adam = jax.tree.map(lambda a, b: jnp.where(sound.all(), a, b), adam, fresh)
        elites = best["error"].argsort()[: config.elites]
        metrics = {"error": best["error"][elites].mean(), "passes": turns, "diverged": (~sound).sum()}
        return {**kept, "norm": norm, "elites": elites, "adam": adam}, metrics

    def drawn(told, obs, action, key):
        """A Step [B], drawn from normals [B, 1 + d]."""
        change = told.mean + jnp.exp(0.5 * told.log_var) * jax.random.normal(key, told.mean.shape)
        next_obs = obs + change[:, 1:]
        if known:
            over = jax.vmap(specs.over)(next_obs)
        else:
            over = jax.random.uniform(jax.random.fold_in(key, 1), told.over.shape) < jax.nn.sigmoid(told.over)
        return Step(next_obs, change[:, 0], 1.0 - over)

    def step(part, obs, action, key):
        # The rows are dealt to the elites at random: each row has a random one, at the cost of one.
        key_deal, key_draw = jax.random.split(key)
        rows, elites = obs.shape[0], config.elites
        each = -(-rows // elites)
        dealt = jax.random.uniform(key_deal, (rows,)).argsort()
        filled = jnp.concatenate([dealt, dealt[jnp.arange(each * elites - rows) % rows]]).reshape(elites, each)
        chosen = {"members": jax.tree.map(lambda x: x[part["elites"]], part["members"]), "bounds": part["bounds"]}
        told = real(every(chosen, part["norm"], inputs(obs, action)[filled], False), part["norm"])
        place = jnp.argsort(dealt)
        back = jax.tree.map(lambda x: x.reshape(each * elites, *x.shape[2:])[place], told)
        return drawn(back, obs, action, key_draw)

    def survey(part, obs, action, key):
        key_members, key_choice = jax.random.split(key)
        told = tell(part, obs, action)
        each = jax.vmap(lambda told, key: drawn(told, obs, action, key))(told, jax.random.split(key_members, m))
        change = jnp.concatenate([each.reward[..., None], each.next_obs - obs], axis=-1)
        doubt = disagreement(change / part["norm"]["told"]["std"])
        who = below(key_choice, (obs.shape[0],), m)
        return jax.tree.map(lambda x: x[who, jnp.arange(obs.shape[0])], each), doubt

    return Model(init, fit, tell, step, survey)


def flat(observation: PyTree) -> int:
    """The length of observations that are one vector; `BadInput` for others."""
    shape = getattr(observation, "shape", ())
    if len(shape) != 1 or not jnp.issubdtype(observation.dtype, jnp.floating):
        raise BadInput(f"a model of dynamics needs observations that are one vector of floats, not {observation}.")
    return shape[0]


def soft_clamp(x: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """x kept between two bounds, smoothly, first from above  (Chua et al. 2018, appendix A.1)."""
    x = high - jax.nn.softplus(high - x)
    return low + jax.nn.softplus(x - low)


def gaussian_nll(mean: jax.Array, log_var: jax.Array, target: jax.Array, beta: float = 0.0) -> jax.Array:
    """var^beta ((mean - target)^2 / var + log var): twice the negative log-likelihood, less a constant, at beta 0.

    The likelihood alone is learned least where its variance is large, so what is told badly at first, it may tell badly
    for good; the factor, through which no gradient flows, gives back some of the weight  (Seitzer et al. 2022, eq. 5).
    """
    value = (mean - target) ** 2 * jnp.exp(-log_var) + log_var
    return jax.lax.stop_gradient(jnp.exp(beta * log_var)) * value


def disagreement(each: Float[Array, "M B n"]) -> Float[Array, "B"]:
    """The mean over what is told of its unbiased standard deviation over members."""
    return each.std(axis=0, ddof=1).mean(axis=-1) if each.shape[0] > 1 else jnp.zeros(each.shape[1])


def moments(x: Float[Array, "S n"], mask: Bool[Array, "S"]) -> dict[str, jax.Array]:
    """Mean and standard deviation over the rows of a mask: 1 where nothing varies, or what float32 makes of it."""
    count = jnp.maximum(mask.sum(), 1)
    mean = jnp.where(mask[:, None], x, 0).sum(axis=0) / count
    std = jnp.sqrt(jnp.where(mask[:, None], (x - mean) ** 2, 0).sum(axis=0) / count)
    return {"mean": mean, "std": jnp.where(std < 1e-12 + 1e-6 * jnp.abs(mean), 1.0, std)}


def standard(x: jax.Array, norm: dict[str, jax.Array]) -> jax.Array:
    return (x - norm["mean"]) / norm["std"]


def held_out_error(mean: Float[Array, "M S n"], y: Float[Array, "S n"], mask: Bool[Array, "S"]) -> Float[Array, "M"]:
    """Each member's mean square error over the rows of a mask."""
    return (((mean - y) ** 2).mean(axis=-1) * mask).sum(axis=-1) / jnp.maximum(mask.sum(), 1)


def finite(members: PyTree, count: int) -> Bool[Array, "M"]:
    """Which members, leading axis [M], have finite numbers alone."""
    each = [jnp.isfinite(x).reshape(count, -1).all(axis=1) for x in jax.tree.leaves(members)]
    return jnp.stack(each).all(axis=0)


def encoded(space: Box | Discrete, action: jax.Array) -> jax.Array:
    """Actions [..., *shape] as vectors [..., n]: those of a Discrete space one-hot."""
    if isinstance(space, Discrete):
        return jax.nn.one_hot(action, space.n)
    return action.reshape(*action.shape[: action.ndim - len(space.shape)], -1)

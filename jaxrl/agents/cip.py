"""CIP, on top of SAC: explore and augment by what causes the reward (Cao et al. 2025).

Now and then what was experienced tells, by linear regressions, which numbers of the state and of the action cause the
reward, and which cause those. Entropy then counts by how much an action's number matters; numbers of the state that
matter to nothing are exchanged between transitions, which makes further ones that could have been; and a bonus pays
where what was done can be told from what came of it. Each of the three can be left out.

The authors' code trains SAC without any of this (its weights never reach the losses, its augmented data no learner):
this is the method that the paper states. Deviations: rewards' causes are the last of the order without asking, unless
`method` is 'lingam'; numbers that cause a cause count as causes; weights are relative to the largest; the resets of
policy and critics are `drm`'s.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxrl.agents.common import at_least, continuous, experienced, further, periodic, rows, vector, within
from jaxrl.core import Recipe, Specs, adam, below, happening, mean, minimise, on
from jaxrl.equations.causal import ancestors, before, causal_order, lasso, least_squares, standardised
from jaxrl.equations.distributions import normal_log_prob
from jaxrl.nets import MLP, net


@dataclass(frozen=True)
class Config:
    """What CIP adds; the defaults are the authors' code's, where it has any."""

    period: int = 10_000  # frames between looks at what causes what; rounded up to whole ticks
    samples: int = 10_000  # transitions of a look, drawn from all
    method: Literal["ols", "lasso", "lingam"] = "ols"  # of the reward's causes; the authors' is lingam
    penalty: float = 0.01  # of lasso
    edge: float = 0.05  # least coefficient, of standardised numbers, that is a cause
    sharpness: float = 3.0  # of the softmax that makes weights of strengths, which are relative to the largest
    entropy: bool = True  # whether the entropy of an action's number counts by its weight
    exchanged: float = 0.25  # share of a batch whose causeless numbers come from other transitions
    empowerment: float = 0.01  # weight of the bonus
    widths: tuple[int, ...] = (128, 128)  # hidden widths of what tells actions from what came of them
    lr: float = 3e-4  # Adam, of that

    def __post_init__(self):
        at_least(self, period=1, samples=2, penalty=0, edge=0, sharpness=0, empowerment=0)
        within(self, exchanged=(0, 1))


def seams(specs: Specs, config: Config, base: Any) -> dict[str, Any]:
    return {"weighed": True} if config.entropy else {}


def strengths(obs, action, reward, next_obs, weight, config: Config) -> tuple[jax.Array, jax.Array]:
    """How strongly each number of the state [d] and of the action [dims] causes the reward, itself or through others.

    Of numbers that cause another, the coefficient counts where that other matters; 0 where nothing reaches the edge.
    """
    d = obs.shape[1]
    x = standardised(jnp.concatenate([obs, action], axis=1), weight)
    r = standardised(reward[:, None], weight)
    if config.method == "lasso":
        direct = lasso(x, r, weight, config.penalty)[0]
    elif config.method == "lingam":
        causes = before(causal_order(jnp.concatenate([x, r], axis=1), weight), x.shape[1])[:-1]
        direct = least_squares(x * causes, r, weight)[0] * causes
    else:
        direct = least_squares(x, r, weight)[0]
    # What changes of the state, so that what stays as it was is no effect of anything.
    through = jnp.abs(least_squares(x, standardised(next_obs - obs, weight), weight))
    direct = jnp.where(jnp.abs(direct) > config.edge, jnp.abs(direct), 0)
    matters = ancestors(direct[:d] > 0, through[:, :d] > config.edge)
    through = jnp.where(through > config.edge, through, 0) * matters[:, None]
    total = direct + through.sum(axis=0)
    return jnp.where(matters, total[:d], 0), total[d:]


def weights(strength: jax.Array, sharpness: float | jax.Array) -> jax.Array:
    """Weights [n] of mean 1 from strengths: equal where all are."""
    return strength.shape[0] * jax.nn.softmax(sharpness * strength / jnp.maximum(strength.max(), 1e-9))


def exchanged(batch, idle: jax.Array, share: float | jax.Array, key):
    """The batch, in which some rows have their idle numbers, of the state and of the next alike, from another row.

    Actions, rewards and ends stay. Nothing is exchanged where nothing is idle.
    """
    key_rows, key_from = jax.random.split(key)
    size = batch["reward"].shape[0]
    chosen = jax.random.uniform(key_rows, (size, 1)) < share
    other = below(key_from, (size,), size)
    swap = lambda x: jnp.where(chosen & idle, x[other], x)
    return {**batch, "obs": swap(batch["obs"]), "next_obs": swap(batch["next_obs"])}


def add(recipe: Recipe, specs: Specs, config: Config, base: Any) -> Recipe:
    """The recipe that knows causes.

    Raises:
        BadInput: observations that are no vector, actions that are no Box, or a source that does not keep what was
            experienced.
    """
    agent, d, dims = recipe.agent, vector("cip", specs.observation), continuous("cip", specs.action)
    everything = experienced("cip", recipe)
    both = jax.ShapeDtypeStruct((2 * d,), jnp.float32)
    teller = net(MLP(config.widths, 2 * dims), both)

    def own(key, parts):
        # Until something is known nothing is idle, and all numbers count alike.
        causal = {"state": jnp.ones(d), "action": jnp.ones(dims)}
        return {"causal": causal, "inverse": teller.init(key)}

    def look(run, ctx):
        data = everything(run.source)
        at = rows(ctx.key, data["weight"], config.samples)
        data = jax.tree.map(lambda x: x[at], data)
        fields = (data[name] for name in ("obs", "action", "reward", "next_obs"))
        state, action = strengths(*fields, data["weight"], config)
        sound = (state > 0).any() & jnp.isfinite(state).all() & jnp.isfinite(action).all()
        found = {"state": jnp.where(sound, state, 1.0), "action": jnp.where(sound, action, 1.0)}
        parts = {**run.parts, "causal": found}
        if "entropy" in agent.shapes:
            parts["entropy"] = weights(found["action"], config.sharpness)
        metrics = {"causal/idle": (found["state"] == 0).mean(), "causal/spread": found["action"].std()}
        return run._replace(parts=parts), metrics

    def told(parameters, batch):
        """The log-probability of each number of the actions, as what came of them tells: [B, dims]."""
        output = teller.apply(parameters, jnp.concatenate([batch["obs"], batch["next_obs"]], axis=1))
        center, spread = jnp.split(output, 2, axis=-1)
        each = jnp.vectorize(normal_log_prob, signature="(k),(k),(k)->()")
        lift = lambda x: x[..., None]
        return each(lift(batch["action"]), lift(jnp.tanh(center)), lift(jnp.clip(spread, -3, 1)))

    def tell(live, frozen, batch, key):
        return -mean(told(live["inverse"], batch).sum(axis=-1), batch), {}

    def changed(parts, batch, ctx):
        """What the agent learns from: exchanged, and with the bonus."""
        if config.exchanged:
            batch = exchanged(batch, parts["causal"]["state"] == 0, config.exchanged, ctx.key)
        if config.empowerment:
            # What can be told beyond chance: the log-density of uniform actions is - log 2 a number.
            gain = told(parts["inverse"], batch) + jnp.log(2.0)
            bonus = (weights(parts["causal"]["action"], config.sharpness) * gain).mean(axis=-1)
            batch = {**batch, "reward": batch["reward"] + config.empowerment * bonus}
        return batch

    learned = {name: on(changed, rule, reads=("causal", "inverse")) for name, rule in agent.rules.items()}
    teach = {"inverse": minimise(tell, adam(config.lr), "inverse")} if config.empowerment else {}
    made = replace(agent, init=further("cip", agent, own), rules={**teach, **learned})
    event = periodic("cip", config.period, happening(lambda run, ctx: ctx.clock >= recipe.warmup, look), recipe, specs)
    return replace(recipe, agent=made, events=(*recipe.events, event))

"""A finite Markov decision process as three tables, the environment that it is, and its exact solutions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.core import BadInput, Discrete, Env, Specs, TimeStep, first, time_limit


class MDP(NamedTuple):
    """Tables of a finite MDP.

    Fields: P float32 [S, A, S], chances of the next state; what a row lacks to 1 is the chance that the episode ends.
    r float32 [S, A], the expected reward. start float32 [S], chances of the first state.
    """

    P: jax.Array
    r: jax.Array
    start: jax.Array


def environment(mdp: MDP, limit: int, name: str = "tabular") -> Env:
    """The MDP, lived: observation one-hot float32 [S] (zeros after an end), reward r[s, a], truncated after `limit`.

    Raises:
        BadInput: tables whose shapes or chances do not fit.
    """
    states, actions = mdp.r.shape
    if mdp.P.shape != (states, actions, states) or mdp.start.shape != (states,):
        raise BadInput(f"P {mdp.P.shape} and start {mdp.start.shape} of {name} do not fit r {mdp.r.shape}.")
    if not bool((mdp.P >= 0).all() & (mdp.P.sum(axis=-1) < 1 + 1e-4).all() & (jnp.abs(mdp.start.sum() - 1) < 1e-4)):
        raise BadInput(f"a row of P or the start of {name} is no distribution: chances are positive and sum to 1.")
    # Running sums, so that a draw is one number and a comparison; what is beyond the last is the end, state S.
    upto, begin = jnp.cumsum(mdp.P, axis=-1), jnp.cumsum(mdp.start)
    ends = 1 - upto[..., -1] > 1e-4
    see = lambda s: jax.nn.one_hot(s, states)

    def reset(key):
        key, key_now = jax.random.split(key)
        s = (begin[:-1] <= jax.random.uniform(key_now)).sum(dtype=jnp.int32)
        return {"s": s, "key": key}, first(see(s))

    def step(state, action):
        key, key_now = jax.random.split(state["key"])
        s = state["s"]
        after = (upto[s, action] <= jax.random.uniform(key_now)).sum(dtype=jnp.int32)
        # A row that sums to 1 but for rounding never ends.
        after = jnp.where(ends[s, action], after, jnp.minimum(after, states - 1))
        out = TimeStep(see(after), mdp.r[s, action], after == states, jnp.bool_(False))
        return {"s": jnp.minimum(after, states - 1), "key": key}, out

    specs = Specs(jax.ShapeDtypeStruct((states,), jnp.float32), Discrete(actions))
    return time_limit(Env(reset, step, specs, name), limit)


# ---------------------------------------------------------------------------------------------------- exact solutions


def backup(mdp: MDP, v: jax.Array, discount: Any) -> jax.Array:
    """q [S, A] one step before values v [S]."""
    return mdp.r + discount * mdp.P @ v


def value_iteration(mdp: MDP, discount: float, tolerance: float = 1e-5) -> tuple[jax.Array, jax.Array]:
    """(v [S], q [S, A]) of the optimal policy, to `tolerance` (float32 gives about 1e-6 of the values)."""
    # An error e after a sweep that changes values by d is at most d discount / (1 - discount).
    enough = tolerance * (1 - discount) / max(discount, 1e-8)

    def sweep(carry):
        v, _, n = carry
        new = backup(mdp, v, discount).max(axis=1)
        return new, jnp.abs(new - v).max(), n + 1

    go_on = lambda carry: (carry[1] > enough) & (carry[2] < 100_000)
    v, *_ = jax.lax.while_loop(go_on, sweep, (jnp.zeros(mdp.r.shape[0]), jnp.float32(jnp.inf), jnp.int32(0)))
    q = backup(mdp, v, discount)
    return q.max(axis=1), q


def evaluate(mdp: MDP, policy: jax.Array, discount: float) -> jax.Array:
    """v [S] of a policy, chances [S, A]: the solution of v = r_pi + discount P_pi v."""
    P = jnp.einsum("sa,sat->st", policy, mdp.P)
    r = (policy * mdp.r).sum(axis=1)
    return jnp.linalg.solve(jnp.eye(len(r)) - discount * P, r)


def policy_iteration(mdp: MDP, discount: float) -> tuple[jax.Array, jax.Array]:
    """(v [S], actions int32 [S]): evaluates exactly and takes the greedy policy until none is better."""
    actions = mdp.r.shape[1]

    def improve(carry):
        _, chosen, _ = carry
        v = evaluate(mdp, jax.nn.one_hot(chosen, actions), discount)
        q = backup(mdp, v, discount)
        # Only what is better by more than rounding replaces an action: else ties would go round for ever.
        kept = q[jnp.arange(len(v)), chosen]
        new = jnp.where(q.max(axis=1) > kept + 1e-5 * (1 + jnp.abs(kept)), q.argmax(axis=1), chosen).astype(jnp.int32)
        return v, new, (new != chosen).any()

    start = (jnp.zeros(mdp.r.shape[0]), mdp.r.argmax(axis=1).astype(jnp.int32), jnp.bool_(True))
    v, chosen, _ = jax.lax.while_loop(lambda carry: carry[2], improve, start)
    return v, chosen


def backward_induction(mdp: MDP, horizon: int, discount: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """(v [H + 1, S], q [H, S, A]) with H steps to go in row 0, and none, worth nothing, in the last row of v."""

    def back(v, _):
        q = backup(mdp, v, discount)
        return q.max(axis=1), (q.max(axis=1), q)

    last = jnp.zeros(mdp.r.shape[0])
    _, (v, q) = jax.lax.scan(back, last, None, length=horizon)
    return jnp.concatenate([v[::-1], last[None]]), q[::-1]


def stationary(mdp: MDP, policy: jax.Array, steps: int = 64) -> jax.Array:
    """The long-run share of each state [S] under a policy [S, A] of an MDP without ends and periods: P_pi^(2^steps)."""
    P = jnp.einsum("sa,sat->st", policy, mdp.P)
    normal = lambda P: P / P.sum(axis=-1, keepdims=True)  # squaring would add up rounding
    return mdp.start @ jax.lax.fori_loop(0, steps, lambda _, P: normal(P @ P), P)

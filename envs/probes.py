"""Tiny worlds whose answers are known. They run in seconds and catch what a return curve hides.

| | tests | optimal value (discount g) |
|---|---|---|
| `probe(1)` | the value's bias: reward 1, one-step episodes | 1 |
| `probe(2)` | the value's input: the reward is the observation, -1 or 1 | the observation |
| `probe(3)` | bootstrapping: two steps, reward 1 on the second; the observation is the stage, 0 or 1 | g, then 1 |
| `probe(4)` | the policy: the action chooses the reward | 1 |
| `probe(5)` | the policy's input: the right action depends on the observation, -1 or 1 | 1 |
| `countdown(4, terminates=False)` | a time limit is not an end | 1 / (1 - g); 10 at g = 0.9 |
| `countdown(4, terminates=True)` | an end is an end | 1 + g + g^2 + g^3; 3.439 at g = 0.9 |
| `random_walk(5)` | prediction | 1/6, 2/6, ..., 5/6 at g = 1 |
| `drifting_series()` | prediction that keeps up with change | none; compare with the discounted sum of rewards |

The five probes are those of Andy Jones, "Debugging RL, without the agonizing pain" (2021).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from envs.core import BadInput, Box, Discrete, Env, Specs, TimeStep, first, time_limit

SCALAR = jax.ShapeDtypeStruct((1,), jnp.float32)


def probe(n: int, continuous: bool = False) -> Env:
    """The n-th probe world, 1 to 5. Observation float32 [1].

    Discrete actions are 0 and 1. In probes 4 and 5 the right one (1; or 1 where the observation is positive) gives 1
    and the wrong one -1. A continuous action a in [-1, 1] gives 1 - (a - b)^2 there, with the best action
    b = 0.5 in probe 4 and b = observation / 2 in probe 5.

    Raises:
        BadInput: there is no such probe.
    """
    if n not in range(1, 6):
        raise BadInput(f"probe is {n}; there are 1, 2, 3, 4 and 5.")
    match = _near if continuous else _same
    reward: Callable[[jax.Array, jax.Array], jax.Array] = {
        1: lambda obs, action: jnp.float32(1),
        2: lambda obs, action: obs[0],
        3: lambda obs, action: obs[0],
        4: lambda obs, action: match(action, jnp.float32(1)),
        5: lambda obs, action: match(action, obs[0]),
    }[n]
    length = 2 if n == 3 else 1
    mixed = n in (2, 5)

    def reset(key):
        obs = jax.random.rademacher(key, (1,), jnp.float32) if mixed else jnp.zeros(1)
        return obs, first(obs)

    def step(obs, action):
        # The stage, which only probe 3 gets beyond; the others end at once and go on showing what they showed.
        after = obs + 1 if n == 3 else obs
        over = after[0] >= length if n == 3 else jnp.bool_(True)
        return after, TimeStep(after, reward(obs, action), over, jnp.bool_(False))

    return Env(reset, step, Specs(SCALAR, _action(continuous), limit=length), f"probe-{n}")


def known_values(n: int, discount: float) -> tuple[jax.Array, jax.Array]:
    """The observations of a probe, float32 [K, 1], and their optimal values, float32 [K]."""
    views = {1: [0.0], 2: [-1.0, 1.0], 3: [0.0, 1.0], 4: [0.0], 5: [-1.0, 1.0]}[n]
    values = {1: [1.0], 2: [-1.0, 1.0], 3: [discount, 1.0], 4: [1.0], 5: [1.0, 1.0]}[n]
    return jnp.array(views)[:, None], jnp.array(values)


def countdown(limit: int = 4, terminates: bool = False, continuous: bool = False) -> Env:
    """Reward 1 for ever around a ring of `limit` places, cut off after one round, by truncation or by termination.

    The observation is the place, one-hot float32 [limit]. The view after the last step is the first place again, so
    that a truncated episode's next observation is one whose value is learned.
    """
    if limit < 1:
        raise BadInput(f"limit of countdown is {limit}; an episode has at least 1 step.")
    see = lambda t: jax.nn.one_hot(t % limit, limit)

    def reset(key):
        t = jnp.int32(0)
        return t, first(see(t))

    def step(t, action):
        t = t + 1
        over = t >= limit
        return t, TimeStep(see(t), jnp.float32(1), over & terminates, over & jnp.logical_not(terminates))

    observation = jax.ShapeDtypeStruct((limit,), jnp.float32)
    return Env(reset, step, Specs(observation, _action(continuous), limit=limit), "countdown")


def random_walk(n: int = 5, limit: int = 1000) -> Env:
    """`n` places in a row, left and right with equal chance whatever the action; reward 1 only at the right exit.

    A prediction problem (Sutton & Barto, example 6.2): at discount 1 the i-th place is worth i / (n + 1). The
    observation is the place, one-hot float32 [n], and zeros past an exit. Episodes begin in the middle.
    """
    if n < 1:
        raise BadInput(f"n of random_walk is {n}; there is at least 1 place.")
    see = lambda at: jax.nn.one_hot(at, n)  # zeros at -1 and n

    def reset(key):
        at = jnp.int32(n // 2)
        return {"at": at, "key": key}, first(see(at))

    def step(state, action):
        key, key_move = jax.random.split(state["key"])
        at = state["at"] + jax.random.rademacher(key_move, (), jnp.int32)
        out = TimeStep(see(at), (at == n).astype(jnp.float32), (at < 0) | (at == n), jnp.bool_(False))
        return {"at": at, "key": key}, out

    specs = Specs(jax.ShapeDtypeStruct((n,), jnp.float32), Discrete(1))
    return time_limit(Env(reset, step, specs, "random-walk"), limit)


def drifting_series(lags: int = 8, regime: int = 2_000, noise: float = 0.05, limit: int | None = 100_000) -> Env:
    """A noisy wave to be predicted, whose level, amplitude and period change at once every `regime` steps.

    The reward is the next value of the series, so that a value function is a forecast of its discounted sum; actions
    do nothing. The observation is the last `lags` values, float32 [lags], newest last. `info['regime']` is the
    regime that the newest value came from, int32 [].

    Args:
        noise: standard deviation added to each value.
        limit: steps after which the series is cut and another begins; None never does.
    """
    if lags < 1 or regime < 1:
        raise BadInput(f"lags is {lags} and regime {regime} in drifting_series; both are at least 1.")

    def push(state):
        """The state with the next value in its window."""
        key_wave, key_noise = jax.random.split(state["key"])
        wave = jax.random.uniform(jax.random.fold_in(key_wave, state["t"] // regime), (3,))
        level, amplitude, period = 4 * wave[0] - 2, 0.5 + wave[1], 8 + 24 * wave[2]
        phase = (state["phase"] + 2 * jnp.pi / period) % (2 * jnp.pi)
        error = noise * jax.random.normal(jax.random.fold_in(key_noise, state["t"]))
        window = jnp.append(state["window"][1:], level + amplitude * jnp.sin(phase) + error)
        return {**state, "t": state["t"] + 1, "phase": phase, "window": window}

    def info(state):
        return {"regime": (state["t"] - 1) // regime}

    def reset(key):
        state = {"key": key, "t": jnp.int32(0), "phase": jnp.float32(0), "window": jnp.zeros(lags)}
        # Filled by the series itself: an observation of zeros would be one that never comes again.
        state = jax.lax.fori_loop(0, lags, lambda _, state: push(state), state)
        return state, first(state["window"], info(state))

    def step(state, action):
        state = push(state)
        window = state["window"]
        return state, TimeStep(window, window[-1], jnp.bool_(False), jnp.bool_(False), info(state))

    env = Env(reset, step, Specs(jax.ShapeDtypeStruct((lags,), jnp.float32), Discrete(1)), "drifting-series")
    return env if limit is None else time_limit(env, limit)


def _action(continuous: bool) -> Box | Discrete:
    return Box((1,)) if continuous else Discrete(2)


def _same(action: jax.Array, best: jax.Array) -> jax.Array:
    """1 where the discrete action is the one asked for by the sign of `best`, and -1 where it is the other."""
    return jnp.where((action == 1) == (best > 0), 1.0, -1.0)


def _near(action: jax.Array, best: jax.Array) -> jax.Array:
    """1 at the continuous action best / 2, less around it."""
    return 1 - (action[0] - best / 2) ** 2

"""Repeat previous: name the symbol that was shown k steps ago (Morad et al. 2023, POPGym)."""

import jax
import jax.numpy as jnp

from envs.core import BadInput, Discrete, Env, Specs, TimeStep, first, time_limit


def repeat_previous(k: int = 4, symbols: int = 4, length: int = 52) -> Env:
    """A random symbol each step, one-hot float32 [symbols]; the action is to be the one shown `k` steps before it.

    Right answers give 1 / (length - k), wrong ones the same less, and the first k answers nothing: the optimum is 1,
    chance 2 / symbols - 1. An answer is given with the newest symbol in view, which k = 0 asks for.
    Truncated after `length` steps.
    """
    if k < 0 or symbols < 2 or length <= k:
        raise BadInput(f"repeat_previous has k {k}, {symbols} symbols, length {length}: 0 <= k < length, 2 symbols.")
    worth = 1 / (length - k)

    def reset(key):
        key, key_now = jax.random.split(key)
        # Oldest first; the last is in view. Those before the first are never asked for.
        past = jnp.zeros(k + 1, jnp.int32).at[-1].set(jax.random.randint(key_now, (), 0, symbols))
        return {"past": past, "t": jnp.int32(0), "key": key}, first(jax.nn.one_hot(past[-1], symbols))

    def step(state, action):
        key, key_now = jax.random.split(state["key"])
        asked = state["t"] >= k
        reward = jnp.where(asked, jnp.where(action == state["past"][0], worth, -worth), 0.0)
        past = jnp.append(state["past"][1:], jax.random.randint(key_now, (), 0, symbols))
        state = {"past": past, "t": state["t"] + 1, "key": key}
        return state, TimeStep(jax.nn.one_hot(past[-1], symbols), reward, jnp.bool_(False), jnp.bool_(False))

    specs = Specs(jax.ShapeDtypeStruct((symbols,), jnp.float32), Discrete(symbols))
    return time_limit(Env(reset, step, specs, "repeat-previous"), length)

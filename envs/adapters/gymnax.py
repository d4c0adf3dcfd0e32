"""gymnax's environments: 'gymnax:Breakout-MinAtar', tested with gymnax 0.0.9 and 1.0.1.

Both versions' `step` reset by themselves and differ in what they return (five values, six since 1.0), so that the
dynamics below it are adapted. In 0.0.9 `done` is true at the time limit too, and is taken apart here.
"""

from typing import Any

from envs.adapters import built, needed
from envs.adapters.keyed import keyed
from envs.core import Env
from jaxrl.core import unknown

NEVER = 2**30  # steps


def environment(name: str, limit: int | None = None, flat: bool = True, **settings: Any) -> Env:
    """gymnax's environment of that name, with its default parameters.

    Args:
        limit: steps of an episode, at most the environment's own, which None takes.
        flat: make an observation of several axes (MinAtar's is [10, 10, channels]) one vector.
        **settings: of the environment's class.
    """
    id = f"gymnax:{name}"
    gymnax = needed("gymnax", id, "gymnax")
    if name not in gymnax.registered_envs:
        raise unknown("gymnax environment", name, gymnax.registered_envs)
    raw, params = built(id, gymnax.make, name, **settings)
    own = int(params.max_steps_in_episode)

    def terminated(state, done):
        if hasattr(raw, "is_truncated"):
            return done
        # Where the clock has run out, the task is asked again without it.
        endless = params.replace(max_steps_in_episode=NEVER)
        return done & ((state.time < own) | raw.is_terminal(state, endless))

    return keyed(raw, params, id, min(limit or own, own), terminated, flat)

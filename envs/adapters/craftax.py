"""Craftax: 'craftax:Craftax-Symbolic-v1', tested with craftax 1.6.1.

Death and victory terminate. The clock truncates, where Craftax's `done` makes no difference between them.
"""

from typing import Any

from envs.adapters import needed
from envs.adapters.keyed import keyed
from envs.core import Env
from jaxrl.core import unknown

NAMES = ("Craftax-Symbolic-v1", "Craftax-Pixels-v1", "Craftax-Classic-Symbolic-v1", "Craftax-Classic-Pixels-v1")
NEVER = 2**30  # steps


def environment(name: str, limit: int | None = None) -> Env:
    """Craftax's environment of that name, with its default parameters.

    Args:
        limit: steps of an episode; None takes Craftax's own (100,000, and 10,000 for Classic).
    """
    id = f"craftax:{name}"
    if name not in NAMES:
        raise unknown("craftax environment", name, NAMES)
    module = needed("craftax.craftax_env", id, "craftax")
    raw: Any = module.make_craftax_env_from_name(name, auto_reset=False)
    params = raw.default_params
    endless = params.replace(max_timesteps=NEVER)  # read by nothing but the end of the game
    return keyed(raw, endless, id, limit or int(params.max_timesteps), lambda state, done: done, flat=False)

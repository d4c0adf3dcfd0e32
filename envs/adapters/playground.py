"""MuJoCo Playground's environments: 'playground:CheetahRun', made and traced with playground 0.2.0.

They run on MJX's own implementation (`impl="jax"`) where Playground's default is Warp, which needs CUDA. Each episode
begins with a reset of its own, where Playground's wrapper keeps one first state for all. Locomotion and manipulation
fetch robot meshes from the network when one is first made; the control suite does not.
"""

import warnings
from typing import Any

from envs.adapters import built, needed
from envs.adapters.brax import adapted
from envs.core import Env
from jaxrl.core import unknown


def environment(name: str, limit: int | None = None, **overrides: Any) -> Env:
    """Playground's environment of that name.

    Args:
        limit: steps of an episode; None takes the environment's configuration.
        **overrides: of that configuration, by name.
    """
    id = f"playground:{name}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        registry = needed("mujoco_playground", id, "playground").registry
    if name not in registry.ALL_ENVS:
        raise unknown("playground environment", name, registry.ALL_ENVS)
    config = registry.get_default_config(name)
    raw = built(id, registry.load, name, config_overrides={"impl": "jax", **overrides})
    return adapted(raw, id, limit or int(config.episode_length))

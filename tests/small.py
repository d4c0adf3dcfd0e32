"""The smallest configuration of every agent and addition, and specs that suit each: what laws over all of them run."""

from dataclasses import fields

import jax
import jax.numpy as jnp

from jaxrl.agents import ADDITIONS, AGENTS, addends
from jaxrl.agents.combined import configured, find
from jaxrl.core import Box, Discrete, Recipe, Specs

VECTOR, DIMS, ACTIONS, STATES = 3, 2, 3, 4
OBS = jax.ShapeDtypeStruct((VECTOR,), jnp.float32)
CONTINUOUS = Specs(OBS, Box((DIMS,)), limit=10)
DISCRETE = Specs(OBS, Discrete(ACTIONS), limit=10)
PICTURES = Specs(jax.ShapeDtypeStruct((12, 12, 3), jnp.uint8), Box((DIMS,)), limit=10)
TABLE = Specs(jax.ShapeDtypeStruct((STATES,), jnp.float32), Discrete(ACTIONS), limit=10)  # one-hot states

# Of every agent, those of these fields that it has.
TINY = {
    "widths": (8, 8), "critic_widths": (8, 8), "critic_width": 8, "width": 8, "features": 8, "codes": (8, 4),
    "blocks": (1, 1), "batch": 8, "capacity": 64, "warmup": 8, "num_envs": 2, "unroll": 4, "ratio": 1,
    "epochs": 1, "minibatches": 2, "atoms": 5, "bins": 5, "quantiles": 4, "critics": 2, "resets": (),
    "channels": (4,), "strides": (2,), "sizes": (3,), "pad": 1, "noise_frames": 100, "epsilon_frames": 100,
    "target_period": 2, "horizon": 2, "population": 6, "turns": 2, "particles": 2, "n": 1,
}  # fmt: skip
DENOISER = {"width": 8, "blocks": 1, "embedding": 8, "updates": 2, "batch": 8, "levels": 2, "lot": 8}
MODEL = {"members": 2, "elites": 2, "widths": (8,), "batch": 8, "passes": 2}
OWN = {
    "redq": {"critics": 3},
    "xqc": {"widths": (8, 8), "critic_widths": (8, 8)},
    "flash_sac": {"widths": (8,), "critic_widths": (8,), "blocks": 1},
    "simba_v2": {"critics": 1},
    "fast_td3": {"num_envs": 4},
    "mrq": {"horizon": 2, "period": 4},
    "dr_q": {"horizon": 2, "period": 4},
    "pets": {"period": 8, "model": MODEL},
    "stream_td": {}, "stream_q": {}, "stream_sarsa": {}, "stream_ac": {},
}  # fmt: skip
OF_ADDITIONS = {
    "adaptive_rr": {"period": 32, "window": 16, "gap": 1.0},
    "cip": {"period": 16, "samples": 16, "widths": (8,)},
    "coplanner": {"period": 16, "starts": 8, "candidates": 2, "ahead": 2, "model": MODEL},
    "drm": {"period": 24},
    "dyna": {"horizon": 2, "model": {"widths": (8,)}},
    "mbpo": {"period": 16, "starts": 8, "model": MODEL},
    "mex_mb": {"period": 16, "starts": 8, "model": MODEL},
    "mentor": {"period": 24, "size": 2, "moe": {"experts": 4, "k": 2, "gate": 8}},
    "moe": {"experts": 4, "k": 2, "gate": 8},
    "synther": {"period": 16, "samples": 16, "least": 8, "model": DENOISER},
    "taco": {"hidden": 8},
}
SIGHTED = ("drq",)
TABULAR = ("ucbvi", "mex_tabular")
ON_DISCRETE = ("dqn", "pqn", "stream_q", "stream_sarsa")
# The sums that stand for additions in laws: each addition on a base that takes it.
SUMS = {
    "adaptive_rr": "sac", "cip": "sac", "coplanner": "sac", "drm": "drqv2", "dyna": "dqn", "lipschitz": "sac",
    "mbpo": "sac", "mentor": "drqv2", "mex": "td3", "mex_mb": "sac", "moe": "sac", "synther": "sac", "taco": "drqv2",
}  # fmt: skip
BASES = [name for name, target in AGENTS.items() if "+" not in target]
EVERYONE = [*BASES, *(f"{base}+{name}" for name, base in SUMS.items())]
assert SUMS.keys() == ADDITIONS.keys()


def specs(name: str) -> Specs:
    """Specs that the agent of that name takes."""
    base = name.split("+")[0]
    if base in SIGHTED:
        return PICTURES
    if base in TABULAR:
        return TABLE
    return DISCRETE if base in ON_DISCRETE else CONTINUOUS


def known(kind: type, settings: dict) -> dict:
    """Those of some settings that a configuration has a field for."""
    return {name: value for name, value in settings.items() if name in {field.name for field in fields(kind)}}


def config(name: str, **settings):
    """The smallest configuration of an agent, a sum included, with these settings changed."""
    module, (_, added) = find(name), addends(name)
    own = known(module.Config, TINY) | OWN.get(name.split("+")[0], {})
    own |= {addition: OF_ADDITIONS.get(addition, {}) for addition in added}
    return configured(module.Config, {**own, **settings})


def small(name: str, on: Specs | None = None, **settings) -> Recipe:
    """The smallest recipe of an agent, a sum included, for its own specs or for those given."""
    return find(name).recipe(on or specs(name), config(name, **settings))

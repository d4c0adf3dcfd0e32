"""purejaxrl, from the checkout that PUREJAXRL names: its `make_train` of PPO on CartPole.

Its `train` begins anew and runs to its end, so that each window also initialises, some milliseconds of a second. Its
`wrappers.py` imports brax and navix for other environments than this one: where they are missing, empty modules stand
in. The favours are that its printing and what it returns for every step are left out.
"""

import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp

from experiments.bench.worker import Side

HOME = Path(os.environ.get("PUREJAXRL") or "/nowhere")
if not (HOME / "purejaxrl/ppo.py").exists():
    raise ImportError("PUREJAXRL does not name a checkout of purejaxrl, which has purejaxrl/ppo.py")


def commit() -> str:
    words = ["git", "-C", str(HOME), "rev-parse", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


VERSIONS = {"purejaxrl": commit()}


def stand_in(package: str, **members: object) -> None:
    """Modules without content where `package` is not installed; `members` are of the innermost, named with dots."""
    names = package.split(".")
    if importlib.util.find_spec(names[0]) is not None:
        return
    for i in range(len(names)):
        made = sys.modules[".".join(names[: i + 1])] = types.ModuleType(names[i])
        if i:
            setattr(sys.modules[".".join(names[:i])], names[i], made)
    made.__dict__.update(members)


def make_train(config: dict):
    stand_in("navix")
    stand_in("brax.envs.wrappers.training", EpisodeWrapper=None, AutoResetWrapper=None)
    sys.path.insert(0, str(HOME / "purejaxrl"))
    return importlib.import_module("ppo").make_train(config)


def ppo(settings: dict) -> Side:
    """Its widths are 64, 64 whatever one wants; the count of parameters shows whether that is what was wanted."""
    frames = settings["num_envs"] * settings["unroll"]
    ticks = settings["units"] // frames
    config = {
        "LR": settings["lr"],
        "NUM_ENVS": settings["num_envs"],
        "NUM_STEPS": settings["unroll"],
        "TOTAL_TIMESTEPS": ticks * frames,
        "UPDATE_EPOCHS": settings["epochs"],
        "NUM_MINIBATCHES": settings["minibatches"],
        "GAMMA": 0.99,
        "GAE_LAMBDA": 0.95,
        "CLIP_EPS": 0.2,
        "ENT_COEF": 0.01,
        "VF_COEF": 0.5,
        "MAX_GRAD_NORM": 0.5,
        "ACTIVATION": settings["activation"],
        "ENV_NAME": settings["env"],
        "ANNEAL_LR": False,
        "DEBUG": False,
    }
    train = make_train(config)
    state = {"key": jax.random.PRNGKey(0)}
    learner = lambda key: train(key)["runner_state"][0].params
    shapes = jax.eval_shape(learner, state["key"])

    def compile():
        state["train"] = jax.jit(learner).lower(state["key"]).compile()

    def window():
        state["key"], key = jax.random.split(state["key"])
        state["parameters"] = jax.block_until_ready(state["train"](key))

    def finite():
        return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state["parameters"]))

    return Side(ticks * frames, compile, window, finite, sum(x.size for x in jax.tree.leaves(shapes)), 1 / frames)

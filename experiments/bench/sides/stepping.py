"""Raw stepping of our MJX tasks, of bare `mjx.step` with the same model or another package's, and of C MuJoCo.

The unit is a physics step. Ours pays for observations, rewards, the clock and automatic resets as well.
"""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import mjx, rollout

from envs.control import physics
from envs.core import batched
from envs.registry import make
from experiments.bench.worker import Side


def controls(settings: dict, size: int) -> jax.Array:
    """Uniform controls, float32 [steps, num_envs, size]."""
    shape = (settings["units"], settings["num_envs"], size)
    return jax.random.uniform(jax.random.key(1), shape, minval=-1.0, maxval=1.0)


def stepper(start, step, actions: jax.Array, units: int, look) -> Side:
    """A scan of `step(state, action) -> state` over `actions`; `look(state)` is what must stay finite."""
    state = {"now": start}

    def chunk(now, actions):
        return jax.lax.scan(lambda s, a: (step(s, a), None), now, actions)[0]

    def compile():
        state["chunk"] = jax.jit(chunk, donate_argnums=0).lower(state["now"], actions).compile()

    def window():
        state["now"] = jax.block_until_ready(state["chunk"](state["now"], actions))

    return Side(units, compile, window, lambda: bool(jnp.isfinite(look(state["now"])).all()))


def ours(settings: dict) -> Side:
    env = make(settings["env"])
    many = batched(env, settings["num_envs"], settings["starts"])
    actions = controls(settings, env.specs.action.shape[0])
    state, obs = jax.jit(many.reset)(jax.random.key(0))

    def step(carry, action):
        inner, _, total = carry
        inner, out, obs = many.step(inner, action)
        return inner, obs, total + out.reward  # the sum keeps the reward from being left out of the program

    units = actions.shape[0] * actions.shape[1] * settings["substeps"]
    return stepper((state, obs, jnp.zeros(actions.shape[1])), step, actions, units, lambda carry: carry[1])


# Where packages keep their models of the control suite: XML files, for which none of their code is needed.
FOLDERS = {"dm_control": "suite", "mujoco_playground": "_src/dm_control_suite/xmls"}
PACKAGES = {"dm_control": "dm_control==1.0.50", "mujoco_playground": "playground==0.2.0"}


def foreign(settings: dict) -> physics.Model:
    """Another package's model of the task as it is, but for the time step, which is ours so that steps are equal."""
    package = settings["package"]
    found = importlib.util.find_spec(package)
    if found is None:
        raise ImportError(f"{package} is not installed: .venv/bin/pip install --no-deps {PACKAGES[package]}")
    folder = Path(found.submodule_search_locations[0]) / FOLDERS[package]
    c = mujoco.MjModel.from_xml_path(str(folder / f"{settings['model']}.xml"))
    c.opt.timestep = physics.load(settings["model"]).c.opt.timestep
    return physics.compiled(c)


def bare(settings: dict) -> Side:
    model = foreign(settings) if "package" in settings else physics.load(settings["model"])
    width, substeps = settings["num_envs"], settings["substeps"]
    data = jax.tree.map(lambda x: jnp.broadcast_to(x, (width, *jnp.shape(x))).copy(), model.data)
    reset, _ = jax.vmap(make(settings["env"]).reset)(jax.random.split(jax.random.key(0), width))
    body = positions(reset)
    data = data.replace(qpos=body.qpos, qvel=body.qvel)

    def step(data, control):
        data = data.replace(ctrl=control)
        once = lambda d, _: (jax.vmap(mjx.step, in_axes=(None, 0))(model.x, d), None)
        return jax.lax.scan(once, data, None, length=substeps)[0]

    actions = controls(settings, model.c.nu)
    return stepper(data, step, actions, actions.shape[0] * width * substeps, lambda data: data.qpos)


def positions(state):
    """The record with `qpos` somewhere inside an environment's state."""
    found = [x for x in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "qpos")) if hasattr(x, "qpos")]
    return found[0]


def mujoco_c(settings: dict) -> Side:
    """C MuJoCo's own `rollout`, one thread, no Python between steps."""
    model = physics.load(settings["model"]).c
    width, substeps = settings["num_envs"], settings["substeps"]
    data = mujoco.MjData(model)
    reset, _ = jax.vmap(make(settings["env"]).reset)(jax.random.split(jax.random.key(0), width))
    body = positions(reset)
    start = np.zeros((width, mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS)))
    for i in range(width):
        data.qpos[:], data.qvel[:] = body.qpos[i], body.qvel[i]
        mujoco.mj_getState(model, data, start[i], mujoco.mjtState.mjSTATE_FULLPHYSICS)
    held = np.repeat(np.asarray(controls(settings, model.nu), np.float64), substeps, axis=0).swapaxes(0, 1)
    state = {"now": start}

    def window():
        path, _ = rollout.rollout(model, data, state["now"], held)
        state["now"] = path[:, -1]

    return Side(held.shape[0] * held.shape[1], lambda: None, window, lambda: bool(np.isfinite(state["now"]).all()))

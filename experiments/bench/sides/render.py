"""Pictures of a model in random postures: by our ray caster, and by MuJoCo's renderer in software (OSMesa).

The unit is a frame. Postures are placed beforehand on both sides; ours holds `abreast` of them at a time.
"""

import os

import numpy as np

from experiments.bench.worker import Side


def postures(c, count: int) -> np.ndarray:
    """Joint positions [count, nq] around rest."""
    return c.qpos0 + np.random.default_rng(0).normal(0, 0.3, (count, c.nq))


def placed(c, qpos):
    import mujoco

    data = mujoco.MjData(c)
    data.qpos[:] = qpos
    mujoco.mj_forward(c, data)
    return data


def ours(settings: dict) -> Side:
    import jax
    import jax.numpy as jnp

    from envs.control import physics
    from envs.render import poses, render, scene, view

    c, shape = physics.load(settings["model"]).c, (settings["size"],) * 2
    drawn, datas = scene(c), [placed(c, qpos) for qpos in postures(c, settings["abreast"])]
    stack = lambda each: jax.tree.map(lambda *x: jnp.stack(x), *each)
    at, seen = stack([poses(drawn, data) for data in datas]), stack([view(drawn, data) for data in datas])
    turns = settings["units"] // settings["abreast"]
    state = {}

    def compile():
        shadow = settings["shadow"]
        draw = jax.vmap(lambda at, seen: render(drawn, at, seen, shape, shadow=shadow, samples=1))
        state["draw"] = jax.jit(draw).lower(at, seen).compile()

    def window():
        for _ in range(turns):
            state["images"] = jax.block_until_ready(state["draw"](at, seen))

    return Side(turns * settings["abreast"], compile, window, lambda: bool(np.ptp(np.asarray(state["images"])) > 50))


def mujoco_gl(settings: dict) -> Side:
    os.environ["MUJOCO_GL"] = "osmesa"  # read when mujoco is imported
    import mujoco

    from envs.control import physics

    c, size = physics.load(settings["model"]).c, settings["size"]
    try:
        renderer = mujoco.Renderer(c, size, size)
    except Exception as error:  # whatever a missing library raises, and that differs by version
        raise ImportError(f"MuJoCo does not draw with MUJOCO_GL=osmesa (libosmesa6): {error}") from error
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = settings["shadow"]
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    datas = [placed(c, qpos) for qpos in postures(c, min(settings["units"], 16))]
    state = {}

    def window():
        for i in range(settings["units"]):
            renderer.update_scene(datas[i % len(datas)], camera=0)
            state["image"] = renderer.render()

    return Side(settings["units"], lambda: None, window, lambda: bool(np.ptp(state["image"]) > 50))

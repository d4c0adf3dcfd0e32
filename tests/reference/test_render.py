"""Silhouettes of every control task against MuJoCo: its ray caster, and its GL renderer where that is asked for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import envs.render.pictures as pictures
from envs.control import TABLE
from envs.core import bare
from envs.registry import make
from envs.render import poses, scene, shoot, view
from tests.render_reference import cast, overlap, silhouettes

pytestmark = pytest.mark.reference

STATES, SHAPE = 8, (192, 192)  # in fewer pixels the fish is all edge
WITH_GL = "JAXRL_GL" in os.environ  # the name of a back end of MuJoCo, such as osmesa: needs libosmesa6


def drawn(id):
    """(model, MuJoCo's data, our Shot, the View) of states of a task: its starts, disturbed."""
    import mujoco

    env, caught = make(id), {}

    # The model is in the closure of the environment: what it draws from is caught where it passes.
    def catch(c, *_, **__):
        caught["c"] = c
        return np.zeros((1, 1, 3), np.uint8)

    original, pictures_of = pictures.picture, sys.modules["envs.render"]
    pictures_of.picture = catch
    try:
        starts = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), STATES))[0]
        first = jax.tree.map(lambda x: x[0], bare(starts))
        env.draw(first, (1, 1), None)
    finally:
        pictures_of.picture = original
    c, random = caught["c"], np.random.default_rng(0)
    table = scene(c)
    shots = jax.jit(lambda at, v: shoot(table, at, v, SHAPE))
    for i in range(STATES):
        data = mujoco.MjData(c)
        data.qpos[:] = np.asarray(bare(starts).qpos[i])
        velocity = random.normal(0, 0.1, c.nv)
        mujoco.mj_integratePos(c, data.qpos, velocity, 1.0)
        mujoco.mj_forward(c, data)
        seen = view(table, data)
        yield c, data, shots(poses(table, data), seen), seen


@pytest.mark.parametrize("id", TABLE)
def test_silhouettes_equal_mujocos_rays(id, record_property):
    shown, least = 0, 1.0
    for c, data, shot, seen in drawn(id):
        _, theirs = cast(c, data, seen, SHAPE)
        masks = silhouettes(c, np.asarray(shot.geom), theirs)
        least = min(least, float(overlap(*masks)))
        shown += masks[1].sum()
    record_property("overlap", round(least, 4))
    assert least >= 0.98, id
    assert shown > STATES * 5, f"{id} shows next to nothing"


@pytest.mark.skipif(not WITH_GL, reason="asked for by JAXRL_GL=osmesa: GL is not everywhere")
def test_silhouettes_equal_mujocos_gl():
    root = Path(__file__).parents[2]
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.reference.render_gl"],
        env={**os.environ, "MUJOCO_GL": os.environ["JAXRL_GL"]},
        capture_output=True,
        text=True,
        cwd=root,
    )
    assert answer.returncode == 0, f"MuJoCo does not draw with {os.environ['JAXRL_GL']}:\n{answer.stderr[-2000:]}"
    found = json.loads(answer.stdout.splitlines()[-1])
    assert set(found) == set(TABLE) and min(found.values()) >= 0.98, found

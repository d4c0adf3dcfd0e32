"""A process that has MuJoCo draw, apart since the choice of its back end is made at import.

With MUJOCO_GL set, `python -m tests.reference.render_gl [ID ...]` prints one JSON line: the worst intersection over
union of silhouettes by task.
"""

import json
import sys

import mujoco
import numpy as np

from envs.control import TABLE
from tests.reference.test_render import SHAPE, drawn
from tests.render_reference import overlap


def silhouette(c, renderer, data) -> np.ndarray:
    """bool [H, W]: geoms that are no planes, as MuJoCo's GL renderer segments them."""
    renderer.update_scene(data, camera=0)
    ids, kinds = np.moveaxis(renderer.render(), -1, 0)
    plane = np.append(c.geom_type == mujoco.mjtGeom.mjGEOM_PLANE, True)
    return ~plane[np.where(kinds == mujoco.mjtObj.mjOBJ_GEOM, ids, -1)]


def ours(c, shot) -> np.ndarray:
    plane = np.append(c.geom_type == mujoco.mjtGeom.mjGEOM_PLANE, True)
    ids = np.asarray(shot.geom)
    return ~plane[np.where(ids < c.ngeom, ids, -1)]


def worst(id: str) -> float:
    found, renderer = [], None
    for c, data, shot, _ in drawn(id):
        if renderer is None:
            # It draws polygons: of so many that a small ball has no corners.
            c.vis.quality.numslices = c.vis.quality.numstacks = 128
            renderer = mujoco.Renderer(c, *SHAPE)
            renderer.enable_segmentation_rendering()
        found.append(overlap(ours(c, shot), silhouette(c, renderer, data)))
    renderer.close()
    return float(np.min(found))


if __name__ == "__main__":
    print(json.dumps({id: worst(id) for id in sys.argv[1:] or TABLE}))

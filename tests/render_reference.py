"""What MuJoCo's own ray caster sees, which needs no graphics library: for tests of the renderer."""

import mujoco
import numpy as np


def cast(c, data, view, shape):
    """Depth along the camera's axis [H, W] (inf where nothing) and geom ids [H, W] (-1)."""
    height, width = shape
    x = ((np.arange(width) + 0.5) * 2 / width - 1) * width / height
    y = 1 - (np.arange(height) + 0.5) * 2 / height
    slope = float(view.slope)
    rays = np.stack(np.broadcast_arrays(slope * x[None, :], slope * y[:, None], -1.0), axis=-1).reshape(-1, 3)
    length = np.linalg.norm(rays, axis=1)
    ways = (rays / length[:, None]) @ np.float64(view.rotation).T
    groups = np.array([1, 1, 1, 0, 0, 0], np.uint8)
    # Ray by ray: `mj_multiRay` leaves out halves of some capsules (MuJoCo 3.17).
    hit, ids, far = np.zeros(1, np.int32), np.full(len(rays), -1, np.int32), np.zeros(len(rays))
    for i, way in enumerate(ways):
        far[i] = mujoco.mj_ray(c, data, np.float64(view.position), way, groups, 1, -1, hit)
        ids[i] = hit[0]
    depth = np.where(ids >= 0, far / length, np.inf)
    return depth.reshape(shape), ids.reshape(shape)


def silhouettes(c, ours, theirs):
    """Masks [H, W] of what is neither plane nor background, and not behind a site, which MuJoCo's rays pass through."""
    plane = np.append(c.geom_type == mujoco.mjtGeom.mjGEOM_PLANE, True)  # -1, nothing, is the last
    known = ours < c.ngeom
    return tuple(known & ~plane[np.where(known, ids, -1)] for ids in (ours, theirs))


def overlap(a, b):
    """Intersection over union of two masks; 1 where both are empty."""
    return (a & b).sum() / max((a | b).sum(), 1) if (a | b).any() else 1.0

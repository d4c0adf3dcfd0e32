"""What there is to draw: a table made once from a MuJoCo model, where its geoms are now, and from where they are seen.

Geoms and sites of one kind lie side by side, so that the ray caster meets each kind as one slice of an array. Left out
is what MuJoCo's viewer leaves out by default: groups from 3 on, and what is wholly transparent. Drawn opaque: the rest.
Not drawn at all: textures, lights, tendons, skins; meshes and signed-distance geoms are refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from jaxrl.core import BadInput, unknown

# In the order in which kinds lie in the table: planes, which cast no shadow, come first.
KINDS = ("plane", "sphere", "capsule", "cylinder", "ellipsoid", "box")
GREY = (0.5, 0.5, 0.5)  # MuJoCo's colour for what was given none,
BRASS = (0.84, 0.57, 0.29)  # and ours,
GROUND = (0.36, 0.43, 0.52)  # of planes likewise
HIDDEN_GROUP = 3
FIELD_OF_VIEW = 45.0  # degrees, of the camera that a model without one is seen from


@dataclass(frozen=True, eq=False)
class Scene:
    """A model as the ray caster reads it: K things to draw, sorted by kind. Arrays are numpy's.

    Attributes:
        c: the model.
        geoms: ids [G] of the geoms among them; sites: ids [S] of the sites; order: int [K] that sorts both by kind.
        spans: (kind, first, end) of each kind that occurs.
        size: float32 [K, 3], as in MuJoCo: radius, half-lengths (m); a plane's are 0 where it has no edge.
        colour: float32 [K, 3], sRGB in [0, 1].
        names: index in the table by site name.
    """

    c: mujoco.MjModel
    geoms: np.ndarray
    sites: np.ndarray
    order: np.ndarray
    spans: tuple[tuple[str, int, int], ...]
    size: np.ndarray
    colour: np.ndarray
    names: dict[str, int]

    @property
    def ids(self) -> np.ndarray:
        """int32 [K]: what the segmentation calls each: a geom's id, or the number of geoms plus a site's."""
        return np.concatenate([self.geoms, self.c.ngeom + self.sites])[self.order].astype(np.int32)


class Poses(NamedTuple):
    """Where each thing of a scene is. Fields: position [K, 3] (m), rotation [K, 3, 3] (its axes as columns)."""

    position: jax.Array
    rotation: jax.Array


@partial(jax.tree_util.register_dataclass, data_fields=["position", "rotation"], meta_fields=["slope"])
@dataclass(frozen=True)
class View:
    """From where a scene is seen.

    Attributes:
        position: [3] (m).
        rotation: [3, 3], columns right, up, backwards.
        slope: tangent of half the vertical angle of view; static, so that rays are constants of the program, which
            makes a frame three times as fast on a CPU.
    """

    position: jax.Array
    rotation: jax.Array
    slope: float


def scene(c: mujoco.MjModel) -> Scene:
    """The table of a model.

    Raises:
        BadInput: a visible geom is of a kind that is not drawn, or nothing is visible.
    """
    geoms = [i for i in range(c.ngeom) if c.geom_group[i] < HIDDEN_GROUP and _rgba(c, i)[3] > 0]
    sites = [i for i in range(c.nsite) if c.site_group[i] < HIDDEN_GROUP and c.site_rgba[i, 3] > 0]
    kinds = [_kind(c, i) for i in geoms] + [mujoco.mjtGeom(c.site_type[i]).name[7:].lower() for i in sites]
    if not kinds:
        raise BadInput("the model shows nothing: give a geom a group below 3 and an rgba that is not transparent.")
    order = np.argsort([KINDS.index(kind) for kind in kinds], kind="stable")
    ranked = [kinds[i] for i in order]
    spans = tuple((k, ranked.index(k), ranked.index(k) + ranked.count(k)) for k in KINDS if k in ranked)
    size = np.concatenate([c.geom_size[geoms].reshape(-1, 3), c.site_size[sites].reshape(-1, 3)])[order]
    colour = np.array([_rgba(c, i)[:3] for i in geoms] + [c.site_rgba[i, :3] for i in sites])[order]
    plain = np.isclose(colour, GREY).all(axis=1)
    colour[plain] = np.where(np.array(ranked)[plain, None] == "plane", GROUND, BRASS)
    names = {c.site(sites[i - len(geoms)]).name: k for k, i in enumerate(order) if i >= len(geoms)}
    ids = (np.array(found, int) for found in (geoms, sites))
    return Scene(c, *ids, order, spans, np.float32(size), np.float32(colour), names)


def _rgba(c: mujoco.MjModel, geom: int) -> np.ndarray:
    """Its material's colour, unless it has its own, as in MuJoCo's viewer."""
    own, material = c.geom_rgba[geom], c.geom_matid[geom]
    return c.mat_rgba[material] if material >= 0 and np.allclose(own, (*GREY, 1)) else own


def _kind(c: mujoco.MjModel, geom: int) -> str:
    kind = mujoco.mjtGeom(c.geom_type[geom]).name[7:].lower()
    if kind in KINDS:
        return kind
    name = c.geom(geom).name or f"number {geom} of body '{c.body(c.geom_bodyid[geom]).name}'"
    raise BadInput(
        f"geom '{name}' is of type {kind}, which is not drawn: build it from {', '.join(KINDS)}, or hide it with "
        f'group="{HIDDEN_GROUP}".'
    )


def poses(scene: Scene, data: Any, marks: Mapping[str, jax.Array] | None = None) -> Poses:
    """Where everything is in `data` (MuJoCo's or MJX's, with kinematics done).

    Args:
        marks: positions [3] that replace those of sites, by name.

    Raises:
        BadInput: a mark is no visible site of the model.
    """
    both = lambda geom, site: jnp.concatenate([jnp.asarray(geom)[scene.geoms], jnp.asarray(site)[scene.sites]])
    position = both(data.geom_xpos, data.site_xpos)[scene.order]
    rotation = both(data.geom_xmat.reshape(-1, 3, 3), data.site_xmat.reshape(-1, 3, 3))[scene.order]
    for name, place in (marks or {}).items():
        if name not in scene.names:
            raise unknown("site to mark", name, scene.names)
        position = position.at[scene.names[name]].set(place)
    return Poses(position.astype(jnp.float32), rotation.astype(jnp.float32))


# --------------------------------------------------------------------------------------------------------- cameras


def cameras(c: mujoco.MjModel) -> list[str]:
    return [c.camera(i).name for i in range(c.ncam)]


def view(scene: Scene, data: Any, camera: str | None = None) -> View:
    """Where a camera is in `data`: fixed to its body, following it (track, trackcom), or looking at another.

    Args:
        camera: its name; None is the model's first, or one that shows the whole model where it has none.

    Raises:
        BadInput: the model has no camera of that name.
    """
    c = scene.c
    if camera is None and not c.ncam:
        return _overview(c, data)
    if camera is not None and camera not in cameras(c):
        raise unknown("camera", camera, cameras(c))
    i = 0 if camera is None else cameras(c).index(camera)
    body, target, mode = c.cam_bodyid[i], c.cam_targetbodyid[i], mujoco.mjtCamLight(c.cam_mode[i]).name[11:].lower()
    at, turned = jnp.asarray(data.xpos)[body], jnp.asarray(data.xmat).reshape(-1, 3, 3)[body]
    upright = c.cam_mat0[i].reshape(3, 3)
    if mode == "track":
        position, rotation = at + c.cam_pos0[i], upright
    elif mode == "trackcom":
        position, rotation = jnp.asarray(data.subtree_com)[body] + c.cam_poscom0[i], upright
    else:
        position, rotation = at + turned @ c.cam_pos[i], turned @ _matrix(c.cam_quat[i])
    if mode in ("targetbody", "targetbodycom") and target >= 0:
        goal = jnp.asarray(data.subtree_com if mode == "targetbodycom" else data.xpos)[target]
        rotation = facing(position - goal)
    return _view(position, rotation, c.cam_fovy[i])


def facing(backwards: jax.Array) -> jax.Array:
    """The rotation [3, 3] of a camera that looks along -`backwards` [3], its right-hand side level."""
    back = backwards / jnp.linalg.norm(backwards)
    right = jnp.cross(jnp.array([0.0, 0.0, 1.0]), back)
    # Looking straight down, any direction is level.
    right = jnp.where(jnp.linalg.norm(right) > 1e-6, right, jnp.array([1.0, 0.0, 0.0]))
    right = right / jnp.linalg.norm(right)
    return jnp.stack([right, jnp.cross(back, right), back], axis=1)


def _overview(c: mujoco.MjModel, data: Any) -> View:
    """From in front, a little above, at a distance that shows the model's extent; it follows the centre of mass."""
    back = np.array([0.35, -1.0, 0.35])
    far = 0.75 * c.stat.extent / np.tan(np.deg2rad(FIELD_OF_VIEW) / 2)
    rest = mujoco.MjData(c)
    mujoco.mj_forward(c, rest)
    centre = c.stat.center + (jnp.asarray(data.subtree_com)[0] - rest.subtree_com[0]) * np.array([1.0, 1.0, 0.0])
    return _view(centre + far * back / np.linalg.norm(back), facing(jnp.asarray(back, jnp.float32)), FIELD_OF_VIEW)


def _matrix(quaternion: np.ndarray) -> np.ndarray:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def _view(position, rotation, degrees) -> View:
    position, rotation = (jnp.asarray(x, jnp.float32) for x in (position, rotation))
    return View(position, rotation, float(np.tan(np.deg2rad(degrees) / 2)))

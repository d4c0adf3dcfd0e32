"""Rays against analytic shapes, all geoms of a kind at once, and the light on what they hit.

The camera is the origin and a ray runs along (x, y, -1), so that distances along rays are depths and the whole of a
frame's geometry is made of constants and a few numbers a geom. Work is [K, P], geoms by pixels; the nearest is a
minimum over K, and its few numbers are looked up once a pixel. Barriers keep XLA from computing the first stage again
within the later ones, which costs a factor of four on a CPU.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from envs.render.scene import KINDS, Poses, Scene, View
from jaxrl.core import BadInput

NEVER = 1e9  # m, the depth of a ray that meets nothing
SUN = np.array([0.28, -0.52, 0.81])  # towards the light
SUN_LIGHT, SKY_LIGHT, GROUND_LIGHT = 0.78, 0.42, 0.16  # direct, and the ambient from above and from below
ZENITH, HORIZON = (0.20, 0.36, 0.60), (0.80, 0.88, 0.94)  # sRGB
DARKER = 0.62  # the dark squares of a floor, as a share of the light ones, in linear light
CACHED = 2**16  # geoms x pixels that a CPU core works on at a time: 256 kB an array

Vector = tuple[Any, ...]  # three arrays that broadcast: components apart are what a CPU's registers like
barrier = jax.lax.optimization_barrier


class Shot(NamedTuple):
    """What the rays of a frame met. Fields: depth float32 [H, W] (m along the camera's axis; NEVER where nothing), geom
    int32 [H, W] (its id; sites count on from the number of geoms; -1 where nothing), normal float32 [H, W, 3]."""

    depth: jax.Array
    geom: jax.Array
    normal: jax.Array


class Look(NamedTuple):
    """What may differ in looks from episode to episode.

    Fields: colour float32 [K, 3], sRGB; sky float32 [H, W, 3], sRGB, in place of the gradient, or None; cover float32
    [], the sky's share in the colour of floors, or None.
    """

    colour: jax.Array
    sky: jax.Array | None = None
    cover: jax.Array | None = None


# ---------------------------------------------------------------------------------------------------- intersections
# Each takes rays in the frame of its geoms: origin o and direction d, components [K, P] or what broadcasts to it;
# dd = d . d; and half-lengths s, components [K, 1]. It returns distances [K, P] along d, NEVER for a miss. Square roots
# of negative numbers give NaN, which compares as a miss: guards would cost more than the rest.


def plane(o: Vector, d: Vector, dd: jax.Array, s: Vector) -> jax.Array:
    """Seen from above only, as in MuJoCo; half-lengths of 0 mean without end."""
    t = -o[2] / d[2]
    within = lambda i: (s[i] <= 0) | (jnp.abs(o[i] + t * d[i]) <= s[i])
    return jnp.where((d[2] < 0) & (o[2] > 0) & within(0) & within(1), t, NEVER)


def sphere(o: Vector, d: Vector, dd: jax.Array, s: Vector) -> jax.Array:
    return _root(dd, _dot(o, d), _dot(o, o) - s[0] * s[0])


def capsule(o: Vector, d: Vector, dd: jax.Array, s: Vector) -> jax.Array:
    """The sphere whose centre is nearest to where the ray enters the endless cylinder, which touches it there."""
    a = d[0] * d[0] + d[1] * d[1] + 1e-12
    b, c = o[0] * d[0] + o[1] * d[1], o[0] * o[0] + o[1] * o[1] - s[0] * s[0]
    entry = o[2] - (b + jnp.sqrt(b * b - a * c)) / a * d[2]
    z = o[2] - _clip(entry, s[1])
    return _root(dd, b + z * d[2], c + z * z)


def cylinder(o: Vector, d: Vector, dd: jax.Array, s: Vector) -> jax.Array:
    a = d[0] * d[0] + d[1] * d[1] + 1e-12
    b, c = o[0] * d[0] + o[1] * d[1], o[0] * o[0] + o[1] * o[1] - s[0] * s[0]
    root = jnp.sqrt(b * b - a * c)
    side = -(b + root) / a
    cap = (jnp.where(d[2] > 0, -s[1], s[1]) - o[2]) / d[2]
    t = jnp.where(jnp.abs(o[2] + side * d[2]) <= s[1], side, jnp.where(jnp.abs(b + a * cap) < root, cap, -1.0))
    return jnp.where(t > 0, t, NEVER)


def ellipsoid(o: Vector, d: Vector, dd: jax.Array, s: Vector) -> jax.Array:
    """The unit sphere, in a space where the half-axes are 1.

    From where the ray is nearest to the centre: for thin ones the camera is so far away in that space that of the
    difference of squares in `_root` little would be left.
    """
    o, d = tuple(x / y for x, y in zip(o, s)), tuple(x / y for x, y in zip(d, s))
    a = _dot(d, d)
    middle = -_dot(o, d) / a
    off = tuple(x + middle * y for x, y in zip(o, d))
    t = middle - jnp.sqrt((1.0 - _dot(off, off)) / a)
    return jnp.where(t > 0, t, NEVER)


def box(o: Vector, d: Vector, dd: jax.Array, s: Vector) -> jax.Array:
    """The last entry into the three slabs, if it comes before the first exit."""
    inverse = tuple(1.0 / jnp.where(jnp.abs(x) < 1e-9, 1e-9, x) for x in d)
    middle, half = tuple(-x * y for x, y in zip(o, inverse)), tuple(jnp.abs(x) * y for x, y in zip(inverse, s))
    into = _larger(_larger(middle[0] - half[0], middle[1] - half[1]), middle[2] - half[2])
    out = _smaller(_smaller(middle[0] + half[0], middle[1] + half[1]), middle[2] + half[2])
    return jnp.where((into < out) & (into > 0), into, NEVER)


INTERSECT: dict[str, Callable[..., jax.Array]] = {
    "plane": plane,
    "sphere": sphere,
    "capsule": capsule,
    "cylinder": cylinder,
    "ellipsoid": ellipsoid,
    "box": box,
}


def _root(a, b, c):
    """The first t > 0 of a t^2 + 2 b t + c = 0 seen from outside."""
    t = -(b + jnp.sqrt(b * b - a * c)) / a
    return jnp.where(t > 0, t, NEVER)


def _dot(a: Vector, b: Vector) -> jax.Array:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


# jnp's own propagate NaN, at twice the instructions.
def _larger(a, b):
    return jnp.where(a > b, a, b)


def _smaller(a, b):
    return jnp.where(a < b, a, b)


def _clip(x, most):
    return jnp.where(x > most, most, jnp.where(x < -most, -most, x))


# --------------------------------------------------------------------------------------------------------- one frame


class Frame(NamedTuple):
    """A scene in the camera's frame.

    Fields: axes [K, 3, 3] (each row an axis of a geom), centre [K, 3], origin [K, 3] (the camera in the geom's frame),
    code int32 [K] (colour and kind in one number); up and sun, components []; place, components [] of the camera's
    position and of the world's x and y in its frame.
    """

    axes: jax.Array
    centre: jax.Array
    origin: jax.Array
    code: jax.Array
    up: Vector
    sun: Vector
    place: tuple[Vector, Vector, Vector]


def framed(scene: Scene, poses: Poses, view: View, colour: jax.Array) -> Frame:
    turn = lambda x: jnp.matmul(x, view.rotation, precision="highest")
    axes = turn(jnp.swapaxes(poses.rotation, 1, 2))
    centre = turn(poses.position - view.position)
    origin = -jnp.einsum("kij,kj->ki", axes, centre, precision="highest")
    kind = np.repeat([KINDS.index(kind) for kind, *_ in scene.spans], [end - at for _, at, end in scene.spans])
    levels = jnp.round(jnp.clip(colour, 0.0, 1.0) * 255).astype(jnp.int32)
    code = levels[:, 0] | (levels[:, 1] << 8) | (levels[:, 2] << 16) | (jnp.int32(kind) << 24)
    sun = turn(jnp.float32(SUN / np.linalg.norm(SUN)))
    # Numbers one by one, behind a barrier: read out of arrays within the loop over pixels, they slow it down.
    apart = lambda x: tuple(x[i] for i in range(3))
    up, sun, place, across, along = barrier(
        tuple(apart(x) for x in (view.rotation[2], sun, view.position, view.rotation[0], view.rotation[1]))
    )
    return Frame(axes, centre, origin, code, up, sun, (place, across, along))


def nearest(scene: Scene, frame: Frame, ray: Vector, dd: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Depth [P] and index in the table, int32 [P], of what each ray [P] from the camera meets first."""
    found = []
    for kind, at, end in scene.spans:
        # Each number in an array of its own: sliced within the loop over pixels, they would keep it from vectorising.
        axes, o = barrier(([_columns(frame.axes[at:end, i]) for i in range(3)], _columns(frame.origin[at:end])))
        d = tuple(row[0] * ray[0] + row[1] * ray[1] - row[2] for row in axes)
        s = _columns(scene.size[at:end])
        found.append(INTERSECT[kind](o, d, dd, s))
    t = barrier(jnp.concatenate(found) if len(found) > 1 else found[0])
    depth = barrier(t.min(axis=0))
    place = np.arange(t.shape[0], dtype=np.float32)[:, None]  # as floats: minima of integers do not vectorise
    return depth, barrier(jnp.where(t == depth, place, np.float32(t.shape[0] - 1)).min(axis=0)).astype(jnp.int32)


def _columns(x: jax.Array) -> Vector:
    """[K, 3] -> three of [K, 1]."""
    return tuple(x[:, i, None] for i in range(3))


def normals(scene: Scene, frame: Frame, point: Vector, index: jax.Array) -> tuple[Vector, jax.Array, jax.Array]:
    """Unit normals at points of the camera's frame, components [P]; and the colour and the kind there, int32 [P]."""
    kinds = {kind for kind, *_ in scene.spans}
    look = lambda table: table.at[index].get(mode="promise_in_bounds")
    # Behind a barrier: what a look-up is fused with is computed again for every pixel.
    looks = lambda table, count=3: tuple(look(column) for column in barrier([table[:, i] for i in range(count)]))
    code = look(barrier(frame.code))
    kind, known = code >> 24, lambda name: kind == KINDS.index(name)
    axis = looks(frame.axes[:, 2])
    solid = kinds & {"ellipsoid", "box"}
    size = looks(jnp.asarray(scene.size), 3 if solid else 2)
    from_centre = tuple(x - y for x, y in zip(point, looks(frame.centre)))
    along = _dot(axis, from_centre)
    # The point of a capsule's axis that is nearest; a sphere's is its centre.
    reach = jnp.where(known("sphere"), 0.0, size[1]) if "sphere" in kinds else size[1]
    out = tuple(x - _clip(along, reach) * u for x, u in zip(from_centre, axis))
    if "plane" in kinds:
        out = _choose(known("plane"), axis, out)
    if "cylinder" in kinds:
        radial = tuple(x - along * u for x, u in zip(from_centre, axis))
        on_cap = jnp.abs(along) - size[1] > jnp.sqrt(_dot(radial, radial)) - size[0]
        end = tuple(jnp.sign(along) * u for u in axis)
        out = _choose(known("cylinder"), _choose(on_cap, end, radial), out)
    if solid:
        first = looks(frame.axes[:, 0])
        axes = (first, _cross(axis, first), axis)
        local = tuple(_dot(u, from_centre) for u in axes)
        if "ellipsoid" in kinds:
            slope = tuple(x / (s * s) for x, s in zip(local, size))
            out = _choose(known("ellipsoid"), _combine(slope, axes), out)
        if "box" in kinds:
            beyond = tuple(jnp.abs(x) - s for x, s in zip(local, size))
            most = _larger(_larger(beyond[0], beyond[1]), beyond[2])
            face = tuple(jnp.where(x == most, jnp.sign(y), 0.0) for x, y in zip(beyond, local))
            out = _choose(known("box"), _combine(face, axes), out)
    length = jax.lax.rsqrt(_dot(out, out) + 1e-20)
    return tuple(x * length for x in out), code & 0xFFFFFF, kind


def _choose(mask, yes: Vector, no: Vector) -> Vector:
    return tuple(jnp.where(mask, a, b) for a, b in zip(yes, no))


def _combine(weights: Vector, axes) -> Vector:
    return tuple(_dot(weights, tuple(u[i] for u in axes)) for i in range(3))


def _cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def lit(scene: Scene, frame: Frame, point: Vector, normal: Vector) -> jax.Array:
    """bool [P]: no geom stands between the point and the sun. Planes cast no shadow."""
    lifted = tuple(x + 1e-3 * scene.c.stat.extent * n for x, n in zip(point, normal))
    found = []
    for kind, at, end in scene.spans:
        if kind == "plane":
            continue
        axes, size = frame.axes[at:end], _columns(jnp.asarray(scene.size[at:end]))
        offset = tuple(x - c for x, c in zip(lifted, _columns(frame.centre[at:end])))
        row = lambda i, axes=axes: tuple(axes[:, i, j, None] for j in range(3))
        o, d = (tuple(_dot(row(i), v) for i in range(3)) for v in (offset, frame.sun))
        found.append(INTERSECT[kind](o, d, 1.0, size))
    if not found:
        return jnp.ones_like(point[0], bool)
    return barrier(jnp.concatenate(found)).min(axis=0) >= NEVER


def checker(x: jax.Array, y: jax.Array, width: jax.Array) -> jax.Array:
    """Squares of side 1, averaged over a window of `width`: 0 dark to 1 light."""

    def wave(x):
        fold = lambda x: jnp.abs(x / 2 - jnp.floor(x / 2) - 0.5)
        return 2 * (fold(x - width / 2) - fold(x + width / 2)) / width

    return 0.5 - 0.5 * wave(x) * wave(y)


def linear(srgb) -> Any:
    """Light from sRGB, as a square: near enough, and its inverse is one instruction."""
    return srgb * srgb


def painted(
    scene: Scene,
    frame: Frame,
    ray: Vector,
    pixel: float,
    shadow: bool,
    sky: Vector | None,
    cover: jax.Array | None = None,
) -> Vector:
    """Linear light of each ray [P]; `pixel` is the side of a pixel at depth 1."""
    dd = ray[0] * ray[0] + ray[1] * ray[1] + 1.0
    depth, index = nearest(scene, frame, ray, dd)
    point = tuple(depth * x for x in ray)
    normal, colour, kind = barrier(normals(scene, frame, point, index))
    rise = lambda v: v[0] * frame.up[0] + v[1] * frame.up[1] + v[2] * frame.up[2]
    sun = _larger(_dot(normal, frame.sun), 0.0)
    if shadow:
        sun = jnp.where(lit(scene, frame, point, normal), sun, 0.0)
    middle, half = (SKY_LIGHT + GROUND_LIGHT) / 2, (SKY_LIGHT - GROUND_LIGHT) / 2
    light = SUN_LIGHT * sun + middle + half * rise(normal)
    albedo = tuple(linear(((colour >> (8 * i)) & 255).astype(jnp.float32) / 255) for i in range(3))
    steep = jax.lax.rsqrt(dd) * rise(ray)  # sine of the ray's elevation
    back = sky or tuple(
        linear(low) + (linear(high) - linear(low)) * jnp.sqrt(_larger(steep, 0.0)) for low, high in zip(HORIZON, ZENITH)
    )
    if scene.spans[0][0] == "plane":
        floor = kind == KINDS.index("plane")
        start, *ways = frame.place
        place = tuple(at + _dot(way, point) for at, way in zip(start, ways))
        cell = square(scene)
        width = pixel * depth * dd / (cell * _larger(-_dot(normal, ray) * jnp.sqrt(dd), 1e-3))
        pattern = DARKER + (1 - DARKER) * checker(place[0] / cell, place[1] / cell, _smaller(_larger(width, 1e-3), 1e3))
        light = jnp.where(floor, light * pattern, light)
        # Floors fade into the horizon, so that they need no edge.
        haze = jnp.where(floor, depth * depth / (depth * depth + (8 * scene.c.stat.extent) ** 2), 0.0)
        hidden = tuple(a * light + haze * (linear(h) - a * light) for a, h in zip(albedo, HORIZON))
        if cover is not None:
            hidden = tuple(a + jnp.where(floor, cover, 0.0) * (b - a) for a, b in zip(hidden, back))
    else:
        hidden = tuple(a * light for a in albedo)
    return tuple(jnp.where(depth < NEVER, a, b) for a, b in zip(hidden, back))


def square(scene: Scene) -> float:
    """The side of a floor's squares (m): a power of two near a quarter of the model's extent."""
    return 2.0 ** np.round(np.log2(scene.c.stat.extent / 4))


# ---------------------------------------------------------------------------------------------------------- pictures


def render(
    scene: Scene, poses: Poses, view: View, shape: tuple[int, int], look: Look | None = None, shadow: bool = False,
    samples: int = 1,
) -> jax.Array:  # fmt: skip
    """A picture, uint8 [H, W, 3]. Pure: `jit` and `vmap` over poses, view and look as you like.

    Args:
        shape: (height, width) in pixels.
        look: colours and sky other than the scene's own.
        shadow: whether things shade one another and the floor; about doubles the cost.
        samples: rays along each side of a pixel, averaged: 2 is four rays a pixel and smooth edges.

    Raises:
        BadInput: a side is below one pixel, or `samples` below 1.
    """
    if samples < 1:
        raise BadInput(f"samples is {samples}; a pixel needs at least 1 ray.")
    look = look or Look(jnp.asarray(scene.colour))

    def frame(poses, view, look):
        now = framed(scene, poses, view, look.colour)

        def band(ray, sky):
            sky = None if sky is None else tuple(linear(sky[i]) for i in range(3))
            paint = painted(scene, now, ray, 2 * view.slope / shape[0] / samples, shadow, sky, look.cover)
            return _stacked(barrier(paint))

        light = _banded(band, scene, view, checked(shape), samples, look.sky)
        # The conversion of all three planes at once, then one transposition: anything else is scalar code.
        light = barrier(light)
        levels = (jnp.sqrt(_smaller(_larger(light, 0.0), 1.0)) * 255 + 0.5).astype(jnp.uint8)
        return levels.T.reshape(*shape, 3)

    return _chunked(frame, _abreast(scene, shape, samples))(poses, view, look)


def shoot(scene: Scene, poses: Poses, view: View, shape: tuple[int, int]) -> Shot:
    """Depth, segmentation and normals (in the world's frame) of a picture of that shape.

    Raises:
        BadInput: a side is below one pixel.
    """

    def frame(poses, view):
        now = framed(scene, poses, view, jnp.asarray(scene.colour))

        def band(ray, _):
            depth, index = nearest(scene, now, ray, ray[0] * ray[0] + ray[1] * ray[1] + 1.0)
            normal, _, _ = normals(scene, now, tuple(depth * x for x in ray), index)
            met = depth < NEVER
            return jnp.stack([depth, jnp.where(met, jnp.asarray(scene.ids)[index], -1).astype(jnp.float32), *normal])

        found = _banded(band, scene, view, checked(shape))
        normal = jnp.matmul(view.rotation, found[2:], precision="highest")
        normal = jnp.where(found[1] >= 0, normal, 0.0).T
        return Shot(found[0].reshape(shape), found[1].astype(jnp.int32).reshape(shape), normal.reshape(*shape, 3))

    return _chunked(frame, _abreast(scene, shape))(poses, view)


def _abreast(scene: Scene, shape: tuple[int, int], samples: int = 1) -> int:
    """Frames that a CPU core draws at a time."""
    return max(1, CACHED // (len(scene.size) * shape[0] * shape[1] * samples**2))


def checked(shape: tuple[int, int]) -> tuple[int, int]:
    if len(shape) != 2 or min(shape) < 1:
        raise BadInput(f"image size is {' x '.join(map(str, shape))}; height and width are at least 1 pixel.")
    return shape


def _stacked(planes: Vector) -> jax.Array:
    """Three planes [P] as [3, P], by selection: a concatenation of so much is slower than the rays."""
    which = np.arange(3)[:, None]
    return jnp.where(which == 0, planes[0], jnp.where(which == 1, planes[1], planes[2]))


def _banded(band, scene, view, shape, samples=1, sky=None) -> jax.Array:
    """`band(ray, sky) -> [C, P]` over bands of rows that fit a core's cache: [C, H * W], the samples averaged."""
    height, width = shape
    rows, columns = samples * height, samples * width
    work = len(scene.size) * rows * columns
    bands = next((n for n in range(1, height) if height % n == 0 and work <= 2 * n * CACHED), height)
    # A pixel's n^2 rays stand on a turned grid, no two in one column or row: an edge that is upright or level has n^2
    # shades to move through, not n.
    row, column = np.indices((rows, columns))
    x = (column + (row % samples + 0.5) / samples) * 2 / columns - 1
    y = 1 - (row + ((-1 - column) % samples + 0.5) / samples) * 2 / rows
    x, y = (np.float32(grid).reshape(bands, -1) for grid in (x * width / height, y))
    if sky is not None:
        sky = jnp.repeat(jnp.repeat(sky, samples, axis=0), samples, axis=1).reshape(bands, -1, 3)

    def one(x, y, sky):
        ray = (np.float32(view.slope) * x, np.float32(view.slope) * y, np.float32(-1))
        found = band(ray, None if sky is None else sky.T)
        if samples == 1:
            return found
        return found.reshape(-1, height // bands, samples, width, samples).mean(axis=(2, 4)).reshape(len(found), -1)

    if bands == 1:
        return one(x[0], y[0], None if sky is None else sky[0])
    strips = jax.lax.map(lambda a: one(*a), (x, y, sky))  # [bands, C, pixels of a band]
    return jnp.moveaxis(strips, 0, 1).reshape(strips.shape[1], -1)


def _chunked(fn: Callable, most: int) -> Callable:
    """`fn`, which under `vmap` on a CPU works through the batch in chunks of at most `most`: beyond, what passes from
    stage to stage falls out of the cache."""
    if jax.default_backend() != "cpu":
        return fn
    mapped = custom_vmap(fn)

    @mapped.def_vmap
    def rule(size, batched, *args):
        leaves, tree = jax.tree.flatten(args)
        moving = jax.tree.leaves(batched)
        width = next(n for n in range(min(most, size), 0, -1) if size % n == 0)
        chunks = [x.reshape(size // width, width, *x.shape[1:]) if m else None for x, m in zip(leaves, moving)]
        axes = jax.tree.unflatten(tree, [0 if m else None for m in moving])

        def some(chunk):
            whole = [c if m else x for c, x, m in zip(chunk, leaves, moving)]
            return jax.vmap(fn, in_axes=axes)(*jax.tree.unflatten(tree, whole))

        out = jax.lax.map(some, chunks)
        out = jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), out)
        return out, jax.tree.map(lambda _: True, out)

    return mapped

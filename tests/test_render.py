"""The renderer: rays worked by hand, MuJoCo's own ray caster, flat worlds, and pictures as observations."""

from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs.classic import acrobot, cartpole, mountain_car, pendulum
from envs.control import physics
from envs.core import Discrete, Env, Specs, TimeStep, action_repeat, bare, batched, first, frame_stack
from envs.registry import make
from envs.render import distracted, flat, picture, pixels, poses, render, scene, shoot, view
from envs.render.cast import NEVER
from envs.render.scene import View, cameras
from jaxrl.core import BadInput
from tests.render_reference import cast, overlap, silhouettes

GOLDEN = Path(__file__).parent / "golden" / "pictures.npz"

# Geoms 10 m apart along x, each seen along +y from 3 m in front of its centre: (geom, depth, normal) of the middle ray.
HALF = np.sqrt(0.5)
SHAPES = [
    ('type="sphere" size="0.5"', 2.5, (0, -1, 0)),
    ('type="sphere" size="0.5" pos="0 0 0.3"', 3 - 0.4, (0, -0.8, -0.6)),
    ('type="capsule" size="0.3 0.4" euler="90 0 0"', 2.3, (0, -1, 0)),
    ('type="capsule" size="0.3 0.4" euler="0 90 0"', 2.7, (0, -1, 0)),
    ('type="capsule" size="0.5 0.4" pos="0 0 -0.7"', 3 - 0.4, (0, -0.8, 0.6)),
    ('type="cylinder" size="0.3 0.4" euler="90 0 0"', 2.6, (0, -1, 0)),
    ('type="cylinder" size="0.5 0.4" pos="0.3 0 0"', 3 - 0.4, (-0.6, -0.8, 0)),
    ('type="ellipsoid" size="0.2 0.5 0.3"', 2.5, (0, -1, 0)),
    ('type="box" size="0.2 0.3 0.4"', 2.7, (0, -1, 0)),
    ('type="box" size="0.5 0.5 0.5" euler="0 0 45" pos="0.1 0 0"', 3 - (np.sqrt(0.5) - 0.1), (-HALF, -HALF, 0)),
    ('type="plane" size="1 1 1" euler="90 0 0"', 3.0, (0, -1, 0)),
    ('type="plane" size="1 1 1" euler="90 0 0" pos="1.1 0 0"', NEVER, (0, 0, 0)),
    ('type="plane" size="1 1 1" euler="-90 0 0"', NEVER, (0, 0, 0)),
    ('type="sphere" size="0.5" pos="0 -6 0"', NEVER, (0, 0, 0)),
    ('type="capsule" size="0.1 0.2" pos="0.2 0 0"', NEVER, (0, 0, 0)),
]  # fmt: skip


def seen(name, state, shape, **how):
    """A picture of a control model in a state."""
    model = physics.load(name)
    return picture(model.c, physics.placed(model, state), shape, **how)


def model(inside):
    return mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{inside}</worldbody></mujoco>")


def kinematics(c, qpos=None):
    data = mujoco.MjData(c)
    if qpos is not None:
        data.qpos[:] = qpos
    mujoco.mj_forward(c, data)
    return data


def ahead(x=0.0, y=-3.0, z=0.0, degrees=45.0):
    """A camera that looks along +y."""
    rotation = jnp.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    return View(jnp.array([x, y, z], jnp.float32), rotation, float(np.tan(np.deg2rad(degrees) / 2)))


def test_an_upright_or_level_edge_crosses_a_pixel_in_as_many_shades_as_rays():
    """No two of a pixel's four rays share a column or a row, so that none to four of them meet a plate."""
    c = model('<geom type="box" size="0.5 0.001 0.5" rgba="1 0 0 1"/>')
    drawn, at = scene(c), poses(scene(c), kinematics(c))
    move = np.linspace(0.45, 0.55, 40, dtype=np.float32)  # the edge is at 0.5, the pixel 5 cm wide
    look = lambda x, z: render(drawn, at, ahead(x, z=z, degrees=0.955), (1, 1), samples=2)[0, 0]
    pixels_of = jax.jit(jax.vmap(look))
    for x, z in ((move, 0 * move), (0 * move, move)):
        assert len(np.unique(pixels_of(x, z), axis=0)) == 5


def test_rays_worked_by_hand():
    bodies = [f'<body pos="{10 * i} 0 0"><geom {geom}/></body>' for i, (geom, *_) in enumerate(SHAPES)]
    c = model("".join(bodies))
    drawn, at = scene(c), poses(scene(c), kinematics(c))
    views = jax.vmap(ahead)(10.0 * jnp.arange(len(SHAPES)))
    shot = jax.jit(jax.vmap(lambda v: shoot(drawn, at, v, (1, 1))))(views)
    _, depth, normal = (np.array(x) for x in zip(*SHAPES, strict=True))
    np.testing.assert_allclose(shot.depth[:, 0, 0], depth, rtol=1e-5)
    np.testing.assert_allclose(shot.normal[:, 0, 0], normal, atol=1e-4)
    np.testing.assert_array_equal(shot.geom[:, 0, 0], np.where(depth < NEVER, np.arange(len(SHAPES)), -1))


@pytest.mark.parametrize("name", ["cartpole", "cheetah"])
def test_depth_and_segmentation_equal_mujocos_rays(name):
    c, shape = physics.load(name).c, (48, 64)
    drawn, random = scene(c), np.random.default_rng(0)
    shots = jax.jit(lambda at, v: shoot(drawn, at, v, shape))
    for _ in range(4):
        data = kinematics(c, c.qpos0 + random.normal(0, 0.5, c.nq))
        seen = view(drawn, data)
        shot, (depth, ids) = shots(poses(drawn, data), seen), cast(c, data, seen, shape)
        ours, theirs = silhouettes(c, np.asarray(shot.geom), ids)
        assert theirs.sum() > 30 and overlap(ours, theirs) >= 0.98
        assert (shot.geom == ids).mean() > 0.99  # neighbours meet in joints they share
        same = (np.asarray(shot.geom) == ids) & (ids >= 0) & (depth < 50)
        np.testing.assert_allclose(np.asarray(shot.depth)[same], depth[same], rtol=2e-3)


def test_cameras_stand_where_mujocos_do():
    eyes = "".join(
        f'<camera name="{mode}" mode="{mode}" pos="0.3 -2 0.4" xyaxes="1 0.1 0 0 0.2 1" fovy="{fovy}" {target}/>'
        for mode, fovy, target in [
            ("fixed", 30, ""), ("track", 40, ""), ("trackcom", 50, ""),
            ("targetbody", 60, 'target="other"'), ("targetbodycom", 70, 'target="other"'),
        ]
    )  # fmt: skip
    c = model(
        f'<body name="one"><freejoint/><geom size="0.1"/><body pos="0.4 0 0"><geom size="0.2"/></body>{eyes}</body>'
        '<body name="other" pos="1 1 1"><freejoint/><geom size="0.1"/><geom size="0.1" pos="0 0.5 0"/></body>'
    )
    turned = np.random.default_rng(0).normal(size=c.nq)
    data = kinematics(c, turned)
    drawn = scene(c)
    for i, name in enumerate(cameras(c)):
        found = view(drawn, data, name)
        np.testing.assert_allclose(found.position, data.cam_xpos[i], atol=1e-5, err_msg=name)
        np.testing.assert_allclose(found.rotation, data.cam_xmat[i].reshape(3, 3), atol=1e-5, err_msg=name)
        np.testing.assert_allclose(found.slope, np.tan(np.deg2rad(c.cam_fovy[i]) / 2), rtol=1e-6)
    np.testing.assert_array_equal(view(drawn, data).position, view(drawn, data, "fixed").position)


def test_what_is_hidden_what_is_marked_and_what_is_shaded():
    c = model(
        '<geom type="plane" size="0 0 1" pos="0 0 -1"/><geom size="0.4" rgba="0 1 0 1"/>'
        '<geom size="1" group="3"/><geom size="1" rgba="1 1 1 0"/>'
        '<site name="mark" size="0.3" pos="0 0 -9" rgba="1 0 0 1"/>'
    )
    drawn, data, shape = scene(c), kinematics(c), (32, 32)
    np.testing.assert_array_equal(drawn.ids, [0, 1, 4])
    at = poses(drawn, data, {"mark": jnp.array([0.0, -1.0, 0.0])})
    images = jax.jit(lambda at: [render(drawn, at, ahead(), shape, shadow=on) for on in (False, True)])
    bare_, marked = images(poses(drawn, data)), images(at)
    assert bare_[0].dtype == jnp.uint8 and bare_[0].shape == (32, 32, 3)
    middle = lambda image: np.asarray(image[16, 16], int)
    assert middle(bare_[0])[1] > 2 * middle(bare_[0])[0] and middle(marked[0])[0] > 2 * middle(marked[0])[1]
    darker = np.asarray(bare_[1], int).sum(-1) < np.asarray(bare_[0], int).sum(-1) - 20
    assert darker[20:].sum() > 10 and not darker[:8].any()  # a shadow on the floor, none in the sky


def test_batches_and_bands_change_nothing():
    c = physics.load("walker").c
    drawn, random = scene(c), np.random.default_rng(0)
    each = [kinematics(c, random.normal(0, 0.5, c.nq)) for _ in range(6)]
    at = jax.tree.map(lambda *x: jnp.stack(x), *[poses(drawn, data) for data in each])
    see = lambda at: render(drawn, at, view(drawn, each[0]), (96, 96))
    many = np.asarray(jax.jit(jax.vmap(see))(at), int)
    one = np.asarray(jax.jit(see)(jax.tree.map(lambda x: x[4], at)), int)
    assert (np.abs(many[4] - one) > 1).mean() < 0.001 and np.ptp(many, axis=0).max() > 50
    large = np.asarray(jax.jit(lambda at: render(drawn, at, view(drawn, each[0]), (192, 192), samples=2))(
        jax.tree.map(lambda x: x[4], at)), int)  # fmt: skip
    assert np.abs(large.reshape(96, 2, 96, 2, 3).mean((1, 3)) - one).mean() < 4


def test_scenes_that_cannot_be_drawn():
    corners = '<asset><mesh name="m" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset>'
    rock = '<worldbody><geom name="rock" type="mesh" mesh="m"/></worldbody>'
    with pytest.raises(BadInput, match="geom 'rock' is of type mesh, which is not drawn: build it from"):
        scene(mujoco.MjModel.from_xml_string(f"<mujoco>{corners}{rock}</mujoco>"))
    with pytest.raises(BadInput, match="the model shows nothing"):
        scene(model('<geom group="4" size="1"/>'))


def test_bad_input():
    cheetah, blind = make("cheetah-run"), Env(lambda key: None, lambda s, a: None, Specs(None, Discrete(2)), "blind")
    state = bare(jax.eval_shape(cheetah.reset, jax.random.key(0))[0])
    see = lambda shape, camera=None: jax.eval_shape(lambda s: cheetah.draw(s, shape, camera), state)
    for words, call in {
        "image size is 0 x 8": lambda: see((0, 8)),
        "unknown camera 'sid'.*Did you mean 'side'": lambda: see((8, 8), "sid"),
        "unknown site to mark": lambda: jax.eval_shape(
            lambda s: seen("cheetah", s, (8, 8), marks={"goal": jnp.zeros(3)}), state
        ),
        "image size is 0;": lambda: pixels(cheetah, 0),
        "frames of pixels is 0": lambda: pixels(cheetah, 8, frames=0),
        "unknown camera 'front'": lambda: pixels(cheetah, 8, camera="front"),
        "blind has no picture": lambda: pixels(blind, 8),
        "unknown camera 'top'": lambda: pixels(make("cartpole"), 8, camera="top"),
        "camera of distracted is 2": lambda: distracted(cheetah, camera=2),
        "not drawn from a MuJoCo model": lambda: distracted(make("cartpole")),
        "cells have the shape": lambda: flat.tiles(jnp.zeros((3, 3), jnp.uint8), (6, 6)),
        "samples is 0": lambda: render(scene(physics.load("cheetah").c), None, None, (8, 8), samples=0),
    }.items():
        with pytest.raises(BadInput, match=words):
            call()


# ------------------------------------------------------------------------------------------------------ flat worlds


def test_flat_shapes_cover_their_area():
    white = (1.0, 1.0, 1.0)
    draw = jax.jit(lambda shapes: flat.draw(*shapes, shape=(80, 80), background=(0.0, 0.0, 0.0)))
    see = lambda *shapes: np.asarray(draw(shapes)[..., 0]) / 255
    area = lambda *shapes: see(*shapes).mean() * 4.0
    assert area(flat.disc((0.2, 0.1), 0.5, white)) == pytest.approx(np.pi / 4, rel=0.01)
    assert area(flat.box((0, 0), (0.4, 0.2), white, 0.6)) == pytest.approx(0.32, rel=0.01)
    round_ends = 0.2 * np.sqrt(0.5) + np.pi * 0.01
    assert area(flat.segment((0.0, 0.0), (0.5, 0.5), 0.2, white)) == pytest.approx(round_ends, rel=0.02)
    under = see(flat.disc((0, 0), 0.5, white), flat.disc((0, 0), 0.3, (0, 0, 0)))
    assert under[40, 40] == 0 and under[40, 55] == 1  # later shapes lie on top
    up = see(flat.disc((0.5, 0.5), 0.2, white))
    assert up[20, 60] == 1 and up[60, 20] == 0  # y points up, rows down


def test_tiles_are_exact():
    cells = jnp.arange(2 * 3 * 3, dtype=jnp.uint8).reshape(2, 3, 3)
    np.testing.assert_array_equal(flat.tiles(cells, (4, 6)), np.repeat(np.repeat(cells, 2, 0), 2, 1))
    sprites = jnp.arange(2 * 2 * 2 * 3, dtype=jnp.uint8).reshape(2, 2, 2, 3)
    whole = flat.tiles(sprites[jnp.array([[0, 1], [1, 0]])], (4, 4))
    np.testing.assert_array_equal(whole[:2, 2:], sprites[1])
    np.testing.assert_array_equal(whole[2:, 2:], sprites[0])


def thumbnails():
    """Means over 8 x 8 blocks of pictures of fixed states, by name: coarse, so that rounding does not show."""
    small = lambda image: np.asarray(image, np.float32).reshape(6, 8, 6, 8, 3).mean(axis=(1, 3))
    shape = (48, 48)
    bodies = {"cartpole": [0.4, 2.8], "reacher": [0.5, 0.8]}
    solid = lambda name, qpos: seen(name, physics.start(jnp.float32(qpos), jnp.zeros(2)), shape, shadow=True)
    draw = lambda: {
        "cartpole": cartpole.draw(cartpole.Body(jnp.array([0.5, 0, 0.2, 0])), shape),
        "pendulum": pendulum.draw(pendulum.Body(jnp.array([2.0, 0])), shape),
        "acrobot": acrobot.draw(jnp.array([0.7, -1.2, 0, 0]), shape),
        "mountain-car": mountain_car.draw(0.5, jnp.array([-0.3, 0]), shape),
        **{f"{name}-solid": solid(name, qpos) for name, qpos in bodies.items()},
    }
    return {name: small(image) for name, image in jax.jit(draw)().items()}


def test_pictures_are_as_they_were():
    # To be renewed where looks change on purpose: python -c "import tests.test_render as t; t.renew()"
    with np.load(GOLDEN) as stored:
        for name, now in thumbnails().items():
            assert np.abs(now - stored[name]).max() < 4, name
            assert np.ptp(stored[name]) > 30, name


def renew():
    GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN, **thumbnails())


# ----------------------------------------------------------------------------------------------------------- pixels


def counting(log=None, length=100):
    """A world that shows the step it is at."""

    def draw(t, shape, camera):
        if log is not None:
            jax.debug.callback(lambda t: log.append(int(t)), t)
        return jnp.broadcast_to(t.astype(jnp.uint8), (*shape, 3))

    def step(t, action):
        return t + 1, TimeStep(t[None] + 1, jnp.float32(1), t + 1 >= length, jnp.bool_(False))

    reset = lambda key: (jnp.int32(0), first(jnp.zeros(1, jnp.int32)))
    return Env(reset, step, Specs(jax.ShapeDtypeStruct((1,), jnp.int32), Discrete(2)), "counting", draw)


def test_pixels_stack_as_frame_stack_does():
    seen, plain = pixels(counting(), 4, frames=3), frame_stack(counting(), 3)
    assert (seen.specs.observation.shape, seen.specs.observation.dtype) == ((4, 4, 9), jnp.uint8)
    (state, out), (other, numbers) = seen.reset(jax.random.key(0)), plain.reset(jax.random.key(0))
    for _ in range(5):
        np.testing.assert_array_equal(out.obs[0, 0], np.repeat(numbers.obs, 3))  # three channels a frame, newest last
        state, out = seen.step(state, jnp.int32(0))
        other, numbers = plain.step(other, jnp.int32(0))
    assert out.obs[1, 2].tolist() == [3, 3, 3, 4, 4, 4, 5, 5, 5]


def test_pixels_draw_once_a_step_however_long_it_holds():
    log = []
    many = batched(pixels(action_repeat(counting(log), 4), 2), 3)
    state, _ = jax.jit(many.reset)(jax.random.key(0))
    step = jax.jit(many.step)
    jax.effects_barrier()
    log.clear()
    for _ in range(5):
        state, _, obs = step(state, jnp.zeros(3, jnp.int32))
    jax.effects_barrier()
    assert sorted(log) == sorted(3 * [4, 8, 12, 16, 20])  # no more than one picture a step, the last of a repeat
    assert obs[0, 0, 0].tolist() == 3 * [12] + 3 * [16] + 3 * [20]


def test_pixels_of_a_task_keep_the_last_picture_of_an_episode():
    many = batched(pixels(counting(length=2), 2, frames=1), 1)
    state, _ = many.reset(jax.random.key(0))
    for _ in range(2):
        state, out, obs = many.step(state, jnp.zeros(1, jnp.int32))
    assert out.terminated.all() and (out.obs == 2).all() and (obs == 0).all()


@pytest.mark.reference
def test_distractors_change_looks_and_nothing_else():
    def step(state, action):  # without physics, which would take a minute to compile
        state = state._replace(qpos=state.qpos + 0.01 * action)
        return state, first(state.qpos)

    reset = lambda key: (physics.start(jax.random.normal(key, (2,)), jnp.zeros(2)), first(jnp.zeros(2)))
    draw = lambda state, shape, camera: seen("cartpole", state, shape, camera=camera)
    plain = Env(reset, step, Specs(jax.ShapeDtypeStruct((2,), jnp.float32), Discrete(2)), "drifting cart-pole", draw)
    env = distracted(plain, floor=0.5)
    keys = jax.random.split(jax.random.key(0), 2)

    def play(key):
        (state, _), (same, _) = env.reset(key), plain.reset(jax.random.split(key)[0])

        def step(pair, _):
            (state, out), (same, wanted) = env.step(pair[0], jnp.ones(1)), plain.step(pair[1], jnp.ones(1))
            return (state, same), jnp.abs(out.obs - wanted.obs).max()

        (later, _), off = jax.lax.scan(step, (state, same), None, length=2)
        see = jax.vmap(lambda state: env.draw(state, (24, 24), None))
        return see(jax.tree.map(lambda *x: jnp.stack(x), state, later)), off

    images, off = jax.tree.map(np.asarray, jax.jit(jax.vmap(play))(keys))
    before, after = images.astype(int).swapaxes(0, 1)
    assert np.abs(before[0] - before[1]).mean() > 10  # another episode, other looks
    assert 0.5 < np.abs(before - after).mean() < 40  # which move from step to step
    assert off.max() < 1e-5  # and the body moves as without
    assert pixels(env, 8).specs.observation.shape == (8, 8, 9)

"""Agents that see: DrQ-v2 and DrQ. Their augmentation, noise and encoder by hand, where gradients go, and a probe
world seen as images."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from envs.core import Env, Specs, TimeStep, first, frame_stack, scale_action
from envs.registry import make
from jaxrl.agents import drq, drqv2
from jaxrl.core import BadInput, Box, Ctx
from jaxrl.equations.distributions import noisy_action
from jaxrl.loop import loop
from jaxrl.nets import Conv, Impala, net, side_after
from jaxrl.nets.conv import convolution, padded
from jaxrl.rules.statistics import contrast, merge, moments
from jaxrl.sources import random_shift, shifted

KEY = jax.random.key(2)
SMALL = drqv2.Config(
    channels=(8,),
    strides=(2,),
    sizes=(3,),
    features=8,
    widths=(16,),
    lr=1e-3,
    n=1,
    noise_frames=500,
    pad=2,
    batch=32,
    capacity=500,
    warmup=64,
    unroll=1,
)


def shades(size: int = 8) -> Env:
    """One-step episodes: the picture is a shade of grey in [0, 1], and the action that equals it is the best."""

    def see(shade):
        return jnp.full((size, size, 3), shade * 255).astype(jnp.uint8)

    def reset(key):
        shade = jax.random.uniform(key)
        return shade, first(see(shade))

    def step(shade, action):
        return shade, TimeStep(see(shade), 1 - (action[0] - shade) ** 2, jnp.bool_(True), jnp.bool_(False))

    specs = Specs(jax.ShapeDtypeStruct((size, size, 3), jnp.uint8), Box((1,)), limit=2)
    return frame_stack(Env(reset, step, specs, "shades"), 3)


@pytest.fixture(scope="module")
def trained():
    """(recipe, run, metrics) after 1500 steps."""
    env = shades()
    recipe = drqv2.recipe(env.specs, SMALL)
    one = loop(env, recipe)
    return recipe, *jax.jit(lambda key: one.chunk(one.init(key), 1500))(KEY)


@pytest.mark.reference
def test_it_acts_on_what_it_sees(trained):
    recipe, run, metrics = trained
    assert run.source.nodes["obs"].shape == (501, 1, 8, 8, 3)  # one frame a step, though three are seen
    seen = jnp.array([0.1, 0.5, 0.9])
    obs = jax.vmap(lambda shade: jnp.full((8, 8, 9), shade * 255).astype(jnp.uint8))(seen)
    act = lambda o: recipe.agent.act(run.parts, (), o, Ctx(KEY, jnp.int32(0)), False)[0]
    action = jax.jit(jax.vmap(act))(obs)
    assert_allclose(action[:, 0], seen, atol=0.25)
    assert metrics["critic/td_error"] < 0.3


def test_the_critic_alone_shapes_the_encoder():
    rules = drqv2.build(shades().specs, SMALL).rules
    assert {name: rule.writes for name, rule in rules.items()} == {
        "noise": ("std",),
        "critic": ("encoder", "critic", "code"),
        "actor": ("actor",),
        "target": ("target",),
    }


def test_drq_is_sac_on_what_its_critic_sees():
    env = shades()
    shared = ("channels", "strides", "sizes", "features", "widths", "pad", "batch")
    small = {name: getattr(SMALL, name) for name in shared}
    config = drq.Config(**small, lr=3e-3, tau=0.05, capacity=500, warmup=64, target_entropy=-3.0)
    recipe = drq.recipe(env.specs, config)
    agent = recipe.agent
    assert {name: rule.writes for name, rule in agent.rules.items()} == {
        "critic": ("encoder", "critic"),
        "actor": ("actor", "log_alpha"),
        "target": ("target",),
    }
    one = loop(env, recipe)
    run, _ = jax.jit(lambda key: one.chunk(one.init(key), 1000))(KEY)
    shown = jnp.array([0.1, 0.5, 0.9])
    obs = jax.vmap(lambda shade: jnp.full((8, 8, 9), shade * 255).astype(jnp.uint8))(shown)
    action = jax.jit(jax.vmap(lambda o: agent.act(run.parts, (), o, Ctx(KEY, jnp.int32(0)), False)[0]))(obs)
    assert_allclose(action[:, 0], shown, atol=0.3)


def test_noise_falls_by_the_clock_and_is_not_clipped_when_acting():
    agent = drqv2.build(shades().specs, replace(SMALL, noise=(0.5, 0.1), noise_frames=1000))
    parts, image = agent.init(KEY), jnp.full((8, 8, 9), 127, jnp.uint8)
    rule = agent.rules["noise"]
    at = lambda step: rule.update(parts, (), {}, Ctx(KEY, jnp.int32(step)))[0]["std"]
    assert_allclose([at(step) for step in (0, 500, 1000, 5000)], [0.5, 0.3, 0.1, 0.1], rtol=1e-6)
    act = lambda key, std, explore: agent.act({**parts, "std": std}, (), image, Ctx(key, jnp.int32(0)), explore)[0]
    keys = jax.random.split(KEY, 2000)
    center, *many = jax.jit(
        lambda: (
            act(KEY, 0.0, False),
            *(jax.vmap(lambda key, std=std: act(key, std, True))(keys) for std in (0.5, 0.1)),
        )
    )()
    for std, actions in zip((0.5, 0.1), many):
        # The median of |N(0, std)| is 0.674 std, whatever the bounds of the action cut off beyond.
        assert_allclose(jnp.median(jnp.abs(actions - center)), 0.6745 * std, rtol=0.1)
    assert jnp.abs(many[0] - center).max() > 0.9


def test_a_bound_lets_the_gradient_through():
    mean, noise = jnp.array([0.99, 0.0]), jnp.array([0.3, 0.1])
    action, slope = jax.value_and_grad(lambda m: noisy_action(m, noise).sum())(mean)
    assert_allclose(action, 1.1, atol=1e-5)
    assert_array_equal(slope, [1.0, 1.0])


def test_a_shift_moves_whole_images_and_repeats_their_edges():
    image = jnp.arange(2 * 5 * 5 * 3).reshape(2, 5, 5, 3).astype(jnp.uint8)
    assert_array_equal(random_shift(KEY, image, 0), image)
    flat = jnp.full((3, 5, 5, 2), 7, jnp.uint8)
    assert_array_equal(random_shift(KEY, flat, 2), flat)
    many = jnp.broadcast_to(image[:1], (200, 5, 5, 3))
    out = np.asarray(random_shift(KEY, many, 2))
    padded = np.pad(np.asarray(image[0]), ((2, 2), (2, 2), (0, 0)), mode="edge")
    crops = {padded[i : i + 5, j : j + 5].tobytes() for i in range(5) for j in range(5)}
    seen = {one.tobytes() for one in out}
    assert seen <= crops and len(seen) >= 20  # 200 draws of 25 places
    assert out.dtype == np.uint8


@pytest.mark.reference
def test_a_batch_is_shifted_once_for_all_rules(trained):
    recipe, run, _ = trained
    batches = [jax.jit(lambda k: recipe.source.sample(run.source, run.parts, k))(KEY) for _ in range(2)]
    assert_array_equal(*(batch["obs"] for batch in batches))
    with pytest.raises(BadInput, match="pad is -1"):
        shifted(recipe.source, -1)


def test_contrast_takes_away_what_always_stands_there():
    """One pixel of four changes, by 40 around 30: its variance is 4 * 20^2 / 3, and a quarter of that the mean one."""
    pictures = jnp.full((4, 2, 2, 1), 200, jnp.uint8).at[:, 0, 0, 0].set(jnp.array([10, 50, 10, 50], jnp.uint8))
    m = merge(moments((2, 2, 1)), pictures, jnp.ones(4))
    scale = (4 * 20**2 / 3 / 4) ** 0.5
    assert_allclose(contrast(m, pictures[1])[..., 0], [[20 / scale, 0], [0, 0]], rtol=1e-5)


def test_the_papers_encoder():
    assert [side_after(84, (2, 1, 1, 1)[:n], (3,) * n) for n in range(1, 5)] == [41, 39, 37, 35]
    obs = jax.ShapeDtypeStruct((84, 84, 9), jnp.uint8)
    encoder = net(Conv(), obs)
    shapes = jax.eval_shape(encoder.init, KEY)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 30_368
    assert jax.eval_shape(lambda p, o: encoder.apply(p, o), shapes, obs).shape == (39_200,)


def test_our_convolution_is_laxs():
    key_x, key_kernel = jax.random.split(KEY)
    how = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}

    def both(side, size, stride):
        """Sum of squares with its gradients, ours and lax's."""
        x, kernel = jax.random.normal(key_x, (2, side, side, 3)), jax.random.normal(key_kernel, (size, size, 3, 4))
        of = lambda f: lambda x, kernel: (f(x, kernel, (stride, stride), "VALID", **how) ** 2).sum()
        return [
            jax.value_and_grad(of(f), argnums=(0, 1))(x, kernel) for f in (convolution, jax.lax.conv_general_dilated)
        ]

    cases = [(12, 3, 1), (13, 3, 2), (13, 4, 3)]
    for ours, theirs in jax.jit(lambda: [both(*case) for case in cases])():
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
            assert_allclose(a, b, rtol=1e-4, atol=1e-3)


def test_a_padded_convolution_is_laxs_and_impala_keeps_its_sides():
    x, kernel = jax.random.normal(KEY, (2, 7, 7, 3)), jax.random.normal(KEY, (3, 3, 3, 4))
    how = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    ours = padded(x, kernel, (1, 1), **how)
    assert_allclose(ours, jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **how), rtol=1e-4, atol=1e-4)
    obs = jax.ShapeDtypeStruct((48, 48, 9), jnp.uint8)
    encoder = net(Impala(), obs)
    shapes = jax.eval_shape(encoder.init, KEY)
    assert jax.eval_shape(encoder.apply, shapes, obs).shape == (6 * 6 * 32,)  # 48 -> 24 -> 12 -> 6


def test_vectors_and_small_images_are_refused():
    with pytest.raises(BadInput, match="drq learns from images"):
        drq.build(scale_action(make("pendulum")).specs, drq.Config())
    with pytest.raises(BadInput, match="unknown encoder 'convnet'"):
        drqv2.build(shades().specs, replace(SMALL, encoder="convnet"))
    with pytest.raises(BadInput, match=r"patch is 8, and a side of 13 pixels.*side of 8 or 16 fits"):
        drqv2.build(shades(13).specs, replace(SMALL, encoder="convit"))
    with pytest.raises(BadInput, match="too small"):
        drqv2.build(shades(6).specs, replace(SMALL, channels=(8,) * 4, strides=(2, 1, 1, 1), sizes=(3,) * 4))
    with pytest.raises(BadInput, match="channels has 1, strides has 2, sizes has 1 layers"):
        drqv2.build(shades().specs, replace(SMALL, strides=(2, 1)))
    with pytest.raises(BadInput, match="stacks of 3 frames, and an episode has 2"):
        drqv2.recipe(replace(shades().specs, limit=1), SMALL)

"""Encoders by attention: ConViT and T2T-ViT, layer by layer against their papers' equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jaxrl.core import BadInput
from jaxrl.nets import net
from jaxrl.nets.attention import Attention
from jaxrl.nets.convit import (
    GPSA,
    ConViT,
    gated,
    head_locality,
    local_directions,
    patches,
    positional_attention,
    relative_features,
)
from jaxrl.nets.t2t import (
    T2T,
    T2T_FULL,
    T2T_SMALL,
    T2TStem,
    TokenPerformer,
    TokenTransformer,
    grid_after,
    log_features,
    orthogonal_features,
    performer_attention,
    sinusoids,
    soft_split,
)

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)


def normal(*shape, std=1.0):
    return RNG.normal(0, std, shape).astype(np.float32)


def shapes(module, *shape):
    return jax.eval_shape(module.init, KEY, jax.ShapeDtypeStruct(shape, jnp.float32))["params"]


def random_parameters(module, x):
    """As `init` shapes them, all random: nothing then is 0 or 1 by luck of its initialiser."""
    return jax.tree.map(lambda leaf: normal(*leaf.shape, std=0.5), shapes(module, *x.shape))


def zeros(tree):
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)


def count(module, *shape):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(module, *shape)))


def apply(module, parameters, x):
    return jax.jit(module.apply)({"params": parameters}, x)


def convolution(x, kernel):
    how = {"window_strides": (1, 1), "padding": "VALID", "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    return jax.lax.conv_general_dilated(x, kernel, **how)


# ---- ConViT ----


def test_relative_features_turn_their_sign_with_the_direction():
    r = relative_features(2, 3)
    assert_array_equal(r[0, 5], [2, 1, 5])  # from the first of 2 x 3 to the last: two to the right, one down
    assert_array_equal(r[..., :2], -r.swapaxes(0, 1)[..., :2])
    assert_array_equal(r[..., 2], r[..., 2].T)


@pytest.mark.parametrize(("heads", "locality"), [(9, 1.0), (4, 0.5)])
def test_positional_attention_starts_as_gaussians_at_the_places_of_a_kernel(heads, locality):
    r = relative_features(4, 5)
    found = positional_attention(local_directions(heads, locality), r)
    side = int(heads**0.5)
    for h in range(heads):
        h2, h1 = divmod(h, side)
        place = np.array([h2, h1]) - (side - 1) / 2
        expected = np.exp(-locality * ((r[..., :2] - place) ** 2).sum(-1))
        assert_allclose(found[h], expected / expected.sum(-1, keepdims=True), rtol=1e-5, atol=1e-7)


def test_rows_of_gated_attention_sum_to_one():
    content = jax.nn.softmax(normal(2, 4, 6, 6))
    positional = positional_attention(normal(3, 4), relative_features(2, 3))
    assert_allclose(gated(content, positional, jax.nn.sigmoid(normal(4))).sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize("local", [True, False])
def test_how_heads_start(local):
    layer, names = GPSA(9, (2, 2), locality=3.0, use_local_init=local), ("u", "lambda", "value")

    @jax.jit
    def start(key):
        parameters = layer.init(key, jnp.zeros((4, 18)))["params"]
        return {name: parameters[name] for name in names}

    made = start(KEY)
    u, value = made["u"], made["value"]["kernel"]
    assert_array_equal(made["lambda"], np.ones(9))
    if local:
        assert_array_equal(u, local_directions(9, 3.0))
        assert_array_equal(value, np.eye(18))
    else:
        for drawn in (np.asarray(u), np.asarray(value)):
            assert 0.01 < drawn.std() < 0.03
            assert np.abs(drawn).max() < 0.05


def test_very_local_attention_is_a_convolution():
    """Heads split the channels: the tap of head h is W_o's rows of that head, on the channels of that head alone."""
    side, width, heads = 5, 18, 9
    x = normal(2, side * side, width)
    layer = GPSA(heads, (side, side))
    local = {"u": local_directions(heads, 50.0), "lambda": np.full(heads, 20.0), "value": {"kernel": np.eye(width)}}
    parameters = {**random_parameters(layer, x), **local}
    out, kernel = parameters["out"], np.zeros((3, 3, width, width), np.float32)
    for h in range(heads):
        column, row = divmod(h, 3)
        own = slice(2 * h, 2 * h + 2)
        kernel[row, column, own] = out["kernel"][own]
    image = x.reshape(2, side, side, width)
    found = apply(layer, parameters, x).reshape(image.shape)
    assert_allclose(found[:, 1:-1, 1:-1], convolution(image, kernel) + out["bias"], rtol=1e-4, atol=1e-4)


def test_closed_gates_leave_plain_attention_and_open_ones_use_the_grid():
    x, order = normal(12, 8), RNG.permutation(12)
    layer = GPSA(4, (3, 4))
    parameters = random_parameters(layer, x)
    with_gate = jax.jit(lambda gate, x: layer.apply({"params": {**parameters, "lambda": jnp.full(4, gate)}}, x))
    together = np.concatenate([parameters["query_key"]["kernel"], parameters["value"]["kernel"]], axis=1)
    plain = {"query_key_value": {"kernel": together}, "out": parameters["out"]}
    closed, half_open = with_gate(-20.0, x), with_gate(1.0, x)
    assert_allclose(closed, apply(Attention(4), plain, x), rtol=1e-5, atol=1e-6)
    assert_allclose(with_gate(-20.0, x[order]), closed[order], rtol=1e-5, atol=1e-6)
    assert np.abs(with_gate(1.0, x[order]) - half_open[order]).max() > 0.1


def test_attention_by_hand():
    """One head of width 1; queries, keys and values are the tokens 0 and log 2, with scores 0, 0 and 0, log^2 2."""
    ones = {"query_key_value": {"kernel": np.ones((1, 3))}, "out": {"kernel": np.ones((1, 1)), "bias": np.zeros(1)}}
    x = np.log(np.array([[1.0], [2.0]], np.float32))
    weight = 1 / (1 + np.exp(-(np.log(2) ** 2)))
    assert_allclose(apply(Attention(1), ones, x)[:, 0], np.log(2) * np.array([0.5, weight]), rtol=1e-6)


def test_gates_learn():
    x = normal(2, 9, 8)
    layer = GPSA(4, (3, 3))
    loss = lambda parameters: (layer.apply({"params": parameters}, x) ** 2).sum()
    gradient = jax.jit(jax.grad(loss))(random_parameters(layer, x))
    assert (np.abs(gradient["lambda"]) > 1e-4).all()
    assert (np.abs(gradient["u"]).max(axis=0) > 1e-4).all()


def test_heads_tell_how_local_they_are():
    """On a grid of 3 x 3 and without content, a kernel's middle stays where it is, and the other places move by one."""
    encoder = ConViT(patch=2, width=9, heads=9, local=2, plain=1, ratio=1)
    image = np.zeros((2, 6, 6, 1), np.float32)
    parameters = zeros(shapes(encoder, *image.shape))
    for i, gate in enumerate((20.0, 0.0)):
        parameters[f"Block_{i}"]["GPSA_0"] |= {"u": local_directions(9, 50.0), "lambda": np.full(9, gate, np.float32)}
    found = jax.jit(lambda parameters: head_locality(encoder, parameters, image))(parameters)
    assert_allclose(found["gate"], [[1.0] * 9, [0.5] * 9], rtol=1e-6)
    # Straight places move six tokens of nine by 1. Of the oblique ones' tokens four move by sqrt 2; four at the border
    # are drawn to their nearest token inside, by 1; and the corner stays.
    straight, oblique = 6 / 9, (4 * 2**0.5 + 4) / 9
    row = np.array([oblique, straight, oblique, straight, 0, straight, oblique, straight, oblique])
    anywhere = np.sqrt(relative_features(3, 3)[..., 2]).mean()
    assert_allclose(found["distance"], [row, (row + anywhere) / 2], atol=1e-5)


def test_patches_are_what_a_strided_convolution_sees():
    x = normal(2, 6, 4, 3)
    expected = [[x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(2, -1) for j in range(2)] for i in range(3)]
    assert_array_equal(patches(x, 2), np.array(expected).transpose(2, 0, 1, 3))


def test_parameters_of_convit():
    width, heads, ratio, tokens, seen = 144, 9, 4, 64, 8 * 8 * 9
    mlp = 2 * ratio * width**2 + (ratio + 1) * width
    plain = 4 * width**2 + width + mlp + 4 * width
    local = plain + 4 * heads
    expected = (seen + 1) * width + tokens * width + 3 * local + plain + 2 * width
    assert count(ConViT(), 64, 64, 9) == expected
    assert count(ConViT(local=0, plain=4), 64, 64, 9) == expected - 3 * 4 * heads


# ---- T2T-ViT ----


@pytest.mark.parametrize(("k", "s", "p"), [(3, 2, 1), (7, 4, 2)])
def test_soft_split_by_loops(k, s, p):
    x = normal(2, 9, 8, 3)
    padded = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
    rows, columns = grid_after(9, 8, [(k, s, p)])
    expected = np.zeros((2, rows, columns, 3 * k * k), np.float32)
    for row, column, channel, ky, kx in np.ndindex(rows, columns, 3, k, k):
        one = padded[:, row * s + ky, column * s + kx, channel]
        expected[:, row, column, (channel * k + ky) * k + kx] = one
    assert_array_equal(soft_split(x[None], k, s, p)[0], expected)


@pytest.mark.parametrize(
    ("side", "stages", "sides"), [(224, T2T_FULL, (56, 28, 14)), (84, T2T_FULL, (21, 11, 6)), (64, T2T_SMALL, (16, 8))]
)
def test_numbers_of_tokens(side, stages, sides):
    x = jax.ShapeDtypeStruct((side, side, 1), jnp.float32)
    for i, (stage, expected) in enumerate(zip(stages, sides, strict=True)):
        split = jax.eval_shape(lambda x, stage=stage: soft_split(x, *stage)[..., :1], x)
        assert split.shape == (expected, expected, 1)
        assert grid_after(side, side, stages[: i + 1]) == (expected, expected)
        x = split


def test_random_features_estimate_the_kernel():
    """Mean over 2000 W of phi(q).phi(k), against exp(q.k). The longer q + k, the more it tells that all rows of W are
    of one length, where those of a normal matrix are not."""
    d = 32
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) * 0.4 for x in (normal(4, d), normal(4, d)))
    k[0] = q[0]
    w = np.concatenate([orthogonal_features.__wrapped__(d, d, seed) for seed in range(2000)])
    found = jnp.exp(log_features(q, w) + log_features(k, w)).mean(-1)
    assert_allclose(found, np.exp((q * k).sum(-1)), rtol=0.02)


def test_rows_of_random_features():
    wide, tall = orthogonal_features(4, 16, 0), orthogonal_features(16, 4, 0)
    assert_allclose(wide @ wide.T, 4 * np.eye(4), atol=1e-5)
    assert_allclose(tall.T @ tall, 16 * np.eye(4), atol=1e-5)
    assert_array_equal(wide, orthogonal_features.__wrapped__(4, 16, 0))
    assert np.abs(wide - orthogonal_features(4, 16, 1)).max() > 0.1


def test_performer_attention_is_the_papers_quotient():
    q, k, v, w = normal(5, 4), normal(5, 4), normal(5, 4), normal(3, 4)
    phi = lambda u: np.exp(u @ w.T - (u**2).sum(-1, keepdims=True) / 2) / 3**0.5
    products = phi(q) @ phi(k).T
    expected = products @ v / products.sum(-1, keepdims=True)
    assert_allclose(jax.jit(performer_attention)(q, k, v, w), expected, rtol=1e-4, atol=1e-5)


def test_performer_attention_is_near_softmax_attention():
    q, k, v = normal(3, 24, 16, std=0.15), normal(3, 24, 16, std=0.15), normal(3, 24, 16)
    found = jax.jit(performer_attention)(q, k, v, orthogonal_features(512, 16, 0))
    expected = jax.nn.softmax(q @ k.swapaxes(-1, -2)) @ v
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_performer_attention_stays_finite():
    """With queries and keys so long that exp(W u) overflows and exp(-|u|^2 / 2) is 0, and few features."""
    q, k, v, w = normal(24, 16, std=30), normal(24, 16, std=30), normal(24, 16), orthogonal_features(8, 16, 0)
    loss = lambda q, k, v: (performer_attention(q, k, v, w) ** 2).sum()
    for found in jax.tree.leaves(jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(q, k, v)):
        assert np.isfinite(found).all()


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("kind", [TokenTransformer, TokenPerformer])
def test_values_skip(kind, silent):
    """Without its MLP a layer gives v + W_o A v, and with W_o = 0 v alone. A scales by the width of x, or not."""
    x, module = normal(6, 10), kind(4)
    parameters = random_parameters(module, x)
    parameters |= {name: zeros(parameters[name]) for name in ("FeedForward_0", "out")[: 1 + silent]}
    norm, out = parameters["LayerNorm_0"], parameters["out"]
    normed = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True) * norm["scale"] + norm["bias"]
    if kind is TokenTransformer:
        q, k, v = np.split(normed @ parameters["query_key_value"]["kernel"], 3, axis=-1)
        seen = jax.nn.softmax(q @ k.T / 10**0.5) @ v
    else:
        dense = parameters["key_query_value"]
        k, q, v = np.split(normed @ dense["kernel"] + dense["bias"], 3, axis=-1)
        seen = performer_attention(q, k, v, orthogonal_features(32, 4, 0))
    assert_allclose(apply(module, parameters, x), v + seen @ out["kernel"] + out["bias"], rtol=1e-3, atol=1e-3)


def test_a_shift_by_a_cell_shifts_the_tokens():
    """Where attention is silent; two stages make cells of 8 pixels. Cells at the border see the zeros around."""
    image = normal(1, 48, 48, 1)
    stem = T2TStem(6, kind="transformer", token_width=4)
    parameters = random_parameters(stem, image)
    parameters["TokenTransformer_0"]["out"] = zeros(parameters["TokenTransformer_0"]["out"])
    before, after = apply(stem, parameters, np.stack([image, np.roll(image, (8, 16), axis=(1, 2))]))
    assert before.shape == (1, 6, 6, 6)
    assert_allclose(after[:, 2:5, 3:5], before[:, 1:4, 1:3], rtol=1e-4, atol=1e-5)
    assert np.abs(after[:, 2:5, 3:5] - before[:, 2:5, 3:5]).max() > 0.1


def test_sinusoids_by_hand():
    assert_allclose(sinusoids(2, 4), [[0, 1, 0, 1], [np.sin(1), np.cos(1), np.sin(0.01), np.cos(0.01)]], rtol=1e-6)


def test_parameters_of_t2t_vit_14():
    """The paper's 21.5 million; it has a token for the class, and 1000 classes, where our features end."""
    width = 384
    ours = count(T2T(width, 14, 6, 3, {"stages": T2T_FULL}), 224, 224, 3)
    token, head = width, (width + 1) * 1000
    assert ours == 21_080_422
    assert 21.4e6 < ours + token + head < 21.6e6


# ---- both ----


TINY = {
    "convit-48": (ConViT(width=8, heads=4, local=1, ratio=1), 48),
    "convit-64": (ConViT(width=8, heads=4, local=1, ratio=1), 64),
    "transformer-48": (T2T(8, 1, 2, 1, {"token_width": 4, "kind": "transformer"}), 48),
    "performer-64": (T2T(8, 1, 2, 1, {"token_width": 4, "features": 4}), 64),
}


@pytest.mark.parametrize("name", TINY)
def test_encoders_learn_from_pictures(name):
    """uint8 [..., side, side, 9] gives float32 [..., width], and every parameter has a gradient."""
    module, side = TINY[name]
    image = RNG.integers(0, 256, (2, 1, side, side, 9), np.uint8)
    aim = normal(2, 1, 8)
    encoder = net(module, jax.ShapeDtypeStruct(image.shape[2:], jnp.uint8))

    def loss(parameters):
        features = encoder.apply(parameters, image)
        return (features * aim).sum(), features

    found, features = jax.jit(jax.grad(loss, has_aux=True))(random_parameters(module, image))
    assert features.shape == (2, 1, 8)
    assert features.dtype == jnp.float32
    for leaf in jax.tree.leaves(found):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0


@pytest.mark.parametrize(
    "module", [ConViT(width=4, heads=1, local=0, plain=0), T2T(4, 0, stem={"stages": ((3, 2, 1),)})]
)
def test_pictures_of_bytes_are_centred_and_floats_are_not(module):
    image = RNG.integers(0, 256, (16, 16, 1), np.uint8)
    parameters = random_parameters(module, image)
    floats = image / np.float32(255) - np.float32(0.5)
    assert_allclose(apply(module, parameters, floats), apply(module, parameters, image), rtol=1e-5, atol=1e-6)


BAD = {
    "patch": (
        ConViT(),
        50,
        "patch is 8, and a side of 50 pixels is not a multiple of it: a patch of 5 or 10 fits pictures of 50 x 50, or "
        "a side of 48 or 56 fits this patch.",
    ),
    "square": (ConViT(heads=8), 64, "heads is 8, which is not a square number: 4 or 9 is."),
    "heads": (ConViT(width=64), 64, "heads is 9, which does not divide a width of 64: 63 or 72 fits."),
    "locality": (ConViT(locality=-1.0), 64, "locality is -1.0; it must be at least 0."),
    "stages": (
        T2T(stem={"stages": T2T_FULL}),
        16,
        "stages is ((7, 4, 2), (3, 2, 1), (3, 2, 1)), after which a picture of 16 x 16 pixels is fewer than 2 x 2 "
        "tokens: drop a stage or lower a stride.",
    ),
    "kind": (T2T(stem={"kind": "mlp"}), 64, "unknown kind 'mlp': there are performer, transformer."),
}


@pytest.mark.parametrize("field", BAD)
def test_bad_input(field):
    module, side, sentence = BAD[field]
    with pytest.raises(BadInput) as raised:
        shapes(module, side, side, 3)
    assert str(raised.value) == sentence

"""Paper 059, T2T-ViT: tokens made of overlapping windows, step by step, see lines that cross the borders of patches.

How many thin lines there are in a picture is told from few pictures; they are the shorter the more there are, so that
brightness says nothing. The control, in which the colour of the ground tells the class, is as easy for patches.
"""

from experiments.evidence import AtLeast, Better, Claim, Scale
from experiments.evidence.pictures import accuracy

SIDE, CLASSES, LENGTH = 24, 4, 12  # pixels; how many lines there may be; pixels of one line alone


def lines(shared, key, coloured: bool = False):
    """A picture [24, 24, 1] with one to four lines of a pixel's width, and how many less one."""
    import jax
    import jax.numpy as jnp

    if shared is None:
        return ()
    key_label, key_angle, key_place, key_noise = jax.random.split(key, 4)
    label = jax.random.randint(key_label, (), 0, CLASSES)
    angle = jax.random.uniform(key_angle, (CLASSES,), maxval=jnp.pi)
    through = jax.random.uniform(key_place, (CLASSES, 2), minval=6.0, maxval=SIDE - 6.0)
    y, x = jnp.mgrid[:SIDE, :SIDE].astype(jnp.float32)
    normal = jnp.stack([-jnp.sin(angle), jnp.cos(angle)], axis=1)
    along = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    offset = jnp.stack([x, y], axis=-1)[None] - through[:, None, None]
    away, far = (jnp.abs(jnp.einsum("lhwd,ld->lhw", offset, direction)) for direction in (normal, along))
    drawn = (away < 0.6) & (far < LENGTH / (label + 1)) & (jnp.arange(CLASSES) <= label)[:, None, None]
    picture = drawn.any(axis=0) * (0.0 if coloured else 1.0) + 0.1 * jax.random.normal(key_noise, (SIDE, SIDE))
    return (picture + (0.5 * label if coloured else 0.0))[..., None], label


def told(images: int, stem: str, coloured: bool = False):
    def encoder():
        from jaxrl.nets import T2T, ConViT

        if stem == "t2t":  # by performers, as agents have it
            stem_of = {"token_width": 32, "stages": ((5, 2, 2), (3, 2, 1))}  # 12 x 12, then 6 x 6 tokens
            return T2T(width=48, depth=2, heads=4, stem=stem_of)
        return ConViT(patch={"patches of 4": 4, "patches of 6": 6}[stem], width=48, heads=4, local=0, plain=2, ratio=2)

    def draw(shared, key):
        return lines(shared, key, coloured)

    return accuracy(encoder, draw, CLASSES, images, pad=2)


STEMS = ("t2t", "patches of 4", "patches of 6")

CLAIMS = (
    Claim(
        id="p059",
        paper=59,
        claim="From 500 pictures of thin lines a vision transformer on tokens of tokens counts at least 5 points more "
        "right than on patches.",
        environment="24 x 24 pixels; one to four lines of a pixel's width at any place and angle, noise 0.1; "
        "6 x 6 tokens, and 4 x 4 for patches of 6; the same trunk of 2 blocks, 48 wide",
        metric="share of 1,000 fresh pictures told right",
        arms={
            **{f"{stem}, 500": told(500, stem) for stem in STEMS},
            **{f"{stem}, 500, by colour": told(500, stem, coloured=True) for stem in ("t2t", "patches of 4")},
        },
        checks=(
            Better("t2t, 500", "patches of 4, 500", by=0.05),
            Better("t2t, 500", "patches of 6, 500", by=0.05),
            AtLeast("t2t, 500", 0.4),
        ),
        expected="5 points or more at 500 pictures; no difference where the ground's colour tells the class",
        scales={"smoke": Scale(20, 1, 2), "cpu": Scale(1_500, 8, 10), "gpu": Scale(10_000, 10)},
    ),
)

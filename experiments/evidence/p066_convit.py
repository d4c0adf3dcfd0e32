"""Paper 066, ConViT: attention that starts local learns more from few pictures, and loses nothing with many.

Stripes of 7 x 7 pixels, at one of eight angles, lie somewhere among patches of noise.
"""

from experiments.evidence import AtLeast, Better, Claim, Scale
from experiments.evidence.pictures import accuracy

SIDE, PATCH, CLASSES, CLUTTER = 24, 7, 8, 2


def striped(shared, key):
    """A picture [24, 24, 1] and at which angle its stripes are. Seeds share nothing."""
    import jax
    import jax.numpy as jnp

    if shared is None:
        return ()
    key_label, key_phase, key_places, key_clutter, key_noise = jax.random.split(key, 5)
    label = jax.random.randint(key_label, (), 0, CLASSES)
    y, x = jnp.mgrid[:PATCH, :PATCH]
    angle, phase = jnp.pi * label / CLASSES, jax.random.uniform(key_phase, maxval=2 * jnp.pi)
    stripes = jnp.sin(2 * jnp.pi / 4 * (x * jnp.cos(angle) + y * jnp.sin(angle)) + phase)
    clutter = jnp.sign(jax.random.normal(key_clutter, (CLUTTER, PATCH, PATCH)))
    places = jax.random.randint(key_places, (CLUTTER + 1, 2), 0, SIDE - PATCH + 1)
    picture = 0.3 * jax.random.normal(key_noise, (SIDE, SIDE))
    for patch, at in zip((*clutter, 1.5 * stripes), places):  # the stripes last, over what they meet
        picture = jax.lax.dynamic_update_slice(picture, patch, (at[0], at[1]))
    return picture[..., None], label


def told(images: int, shuffled: bool = False, **how):
    def encoder():
        from jaxrl.nets import ConViT

        return ConViT(**{"patch": 4, "width": 72, "heads": 9, "local": 2, "plain": 1, "ratio": 2, **how})

    return accuracy(encoder, striped, CLASSES, images, pad=0 if shuffled else 2, shuffled=shuffled)


VIT, BLIND = {"local": 0, "plain": 3}, {"use_local_init": False}

CLAIMS = (
    Claim(
        id="p066",
        paper=66,
        claim="From 500 pictures a ConViT whose heads start local tells at least 5 points more right than the same "
        "network without that start and than a plain vision transformer.",
        environment="24 x 24 pixels; stripes of 7 x 7 at one of 8 angles and any place, two patches of clutter, "
        "noise 0.3",
        metric="share of 1,000 fresh pictures told right",
        arms={
            "local, 500": told(500),
            "not local, 500": told(500, **BLIND),
            "plain, 500": told(500, **VIT),
            "local, 2000": told(2_000),
            "plain, 2000": told(2_000, **VIT),
            "local, 500, pixels shuffled": told(500, shuffled=True),
            "plain, 500, pixels shuffled": told(500, shuffled=True, **VIT),
        },
        checks=(
            Better("local, 500", "plain, 500", by=0.05),
            Better("local, 500", "not local, 500", by=0.05),
            AtLeast("local, 500", 0.25),
        ),
        expected="5 points or more at 500 pictures, less than 2 from 2,000 on; none where pixels are shuffled",
        scales={"smoke": Scale(20, 1, 2), "cpu": Scale(3_000, 8, 10), "gpu": Scale(10_000, 10)},
    ),
)

"""Paper 066, ConViT: attention that starts local learns more from few pictures, and loses nothing with many.

Two signs of 4 x 4 pixels stand beside each other somewhere on a grid; in which of eight directions the second lies from
the first is what has to be told. No sign says it alone, and none that is further away.
"""

from experiments.evidence import AtLeast, Better, Claim, Scale
from experiments.evidence.pictures import accuracy

GRID, SIGN, CLUTTER = 6, 4, 6
AROUND = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))


def signs(shared, key):
    """A picture [24, 24, 1], and in which direction the second sign lies. Seeds share the signs, one for clutter."""
    import jax
    import jax.numpy as jnp

    if shared is None:
        return jax.random.rademacher(key, (3, SIGN, SIGN), jnp.float32)
    key_label, key_at, key_clutter, key_noise = jax.random.split(key, 4)
    label = jax.random.randint(key_label, (), 0, len(AROUND))
    first = jax.random.randint(key_at, (2,), 1, GRID - 1)
    second = first + jnp.asarray(AROUND)[label]
    spots = jax.random.permutation(key_clutter, GRID * GRID)[:CLUTTER]
    cells = jnp.full((GRID * GRID,), 3).at[spots].set(2).reshape(GRID, GRID)
    cells = cells.at[tuple(first)].set(0).at[tuple(second)].set(1)
    pieces = jnp.concatenate([shared, jnp.zeros((1, SIGN, SIGN))])[cells]  # [GRID, GRID, SIGN, SIGN]
    picture = pieces.swapaxes(1, 2).reshape(GRID * SIGN, GRID * SIGN)
    return (picture + 0.3 * jax.random.normal(key_noise, picture.shape))[..., None], label


def told(images: int, shuffled: bool = False, **how):
    def encoder():
        from jaxrl.nets import ConViT

        return ConViT(**{"patch": SIGN, "width": 36, "heads": 9, "local": 1, "plain": 1, "ratio": 2, **how})

    return accuracy(encoder, signs, len(AROUND), images, shuffled=shuffled)


VIT, BLIND = {"local": 0, "plain": 2}, {"use_local_init": False}

CLAIMS = (
    Claim(
        id="p066",
        paper=66,
        claim="From 2,000 pictures a ConViT whose heads start local tells at least 5 points more right than the same "
        "network without that start and than a plain vision transformer.",
        environment="24 x 24 pixels, tokens of 4 x 4 each; two signs beside each other, at one of 8 directions and any "
        "place, among 6 of another kind, noise 0.3; 2 layers of 36, 9 heads",
        metric="share of 1,000 fresh pictures told right",
        arms={
            "local, 2000": told(2_000),
            "not local, 2000": told(2_000, **BLIND),
            "plain, 2000": told(2_000, **VIT),
            "local, 16000": told(16_000),
            "plain, 16000": told(16_000, **VIT),
            "local, 2000, pixels shuffled": told(2_000, shuffled=True),
            "plain, 2000, pixels shuffled": told(2_000, shuffled=True, **VIT),
        },
        checks=(
            Better("local, 2000", "plain, 2000", by=0.05),
            Better("local, 2000", "not local, 2000", by=0.05),
            AtLeast("local, 2000", 0.25),
        ),
        expected="5 points or more from few pictures, less with many; none where pixels are shuffled",
        scales={"smoke": Scale(20, 1, 2), "cpu": Scale(2_000, 8, 10), "gpu": Scale(20_000, 10)},
    ),
)

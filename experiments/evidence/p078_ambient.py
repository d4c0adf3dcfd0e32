"""Paper 078, ambient diffusion: a few clean points and many noisy ones are nearly as good as all of them clean."""

from experiments.evidence import Better, Claim, Outcome, Scale

POINTS, MODES, RADIUS, SPREAD, NOISE, FRESH = 500, 8, 2.0, 0.05, 0.5, 2_000


def ring(key, count: int):
    """Points [count, 2] about eight places on a ring."""
    import jax
    import jax.numpy as jnp

    key_mode, key_off = jax.random.split(key)
    angle = 2 * jnp.pi * jax.random.randint(key_mode, (count,), 0, MODES) / MODES
    return RADIUS * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1) + SPREAD * jax.random.normal(
        key_off, (count, 2)
    )


def energy(x, y):
    """The squared energy distance of two samples [n, 2]  (Szekely and Rizzo 2013): 0 between equal laws."""
    import jax.numpy as jnp

    apart = lambda a, b: jnp.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=-1) + 1e-12).mean()
    return 2 * apart(x, y) - apart(x, x) - apart(y, y)


def told(clean: float, noisy: bool, known: bool = True):
    """An arm: minus the energy distance of what a denoiser makes, that learned from a share of clean points.

    Args:
        noisy: whether the other points are there, with noise; `known` is whether it is told of that.
    """

    def run(scale: Scale, seeds: tuple[int, ...]) -> Outcome:
        import jax
        import jax.numpy as jnp

        from experiments.evidence.fitting import each_seed
        from jaxrl.models.diffusion import Config, generator

        config = Config(
            width=128, blocks=3, embedding=64, updates=scale.steps, lr=2e-3, average=0.99, apart=1, levels=40, churn=0.0
        )
        made = generator(2, config)

        def one(key):
            key_points, key_noise, key_fit, key_draw, key_fresh = jax.random.split(key, 5)
            is_clean = jnp.arange(POINTS) < clean * POINTS
            noise = jnp.where(is_clean, 0.0, NOISE)[:, None]
            x = ring(key_points, POINTS) + noise * jax.random.normal(key_noise, (POINTS, 2))
            weight = (is_clean | noisy).astype(jnp.float32)
            part, _ = made.fit(made.init(key), x, weight, key_fit, noise if known else 0.0)
            return -energy(made.draw(part, key_draw, FRESH), ring(key_fresh, FRESH))

        return each_seed(one, seeds)

    return run


CLAIMS = (
    Claim(
        id="p078",
        paper=78,
        claim="A denoiser that is told how noisy each point is learns from a tenth clean and nine tenths noisy points "
        "to at most twice the distance of all clean, and a quarter of a tenth alone or of not being told.",
        environment=f"{POINTS} points about {MODES} places on a ring of radius {RADIUS:g}, spread {SPREAD:g}; noise "
        f"{NOISE:g}; 3 blocks of 128",
        metric=f"minus the energy distance of {FRESH:,} samples to as many fresh points",
        arms={
            "a tenth clean, the rest noisy": told(0.1, noisy=True),
            "all clean": told(1.0, noisy=False),
            "a tenth clean alone": told(0.1, noisy=False),
            "noise not told": told(0.1, noisy=True, known=False),
            "all noisy": told(0.0, noisy=True),
        },
        checks=(
            Better("a tenth clean, the rest noisy", "a tenth clean alone", factor=0.25),
            Better("a tenth clean, the rest noisy", "noise not told", factor=0.25),
            Better("a tenth clean, the rest noisy", "all clean", factor=2.0),
        ),
        expected="0.0070 against 0.0053, 0.042 and 0.036 (four seeds of an earlier trial)",
        scales={"smoke": Scale(20, 1), "cpu": Scale(4_000, 8), "gpu": Scale(20_000, 10)},
    ),
)

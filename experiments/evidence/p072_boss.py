"""Paper 072, BOSS: the steps of a flow that cost least, chosen by dynamic programming, and paths straightened on them.

First with the exact velocities of flows to mixtures of normals in the plane, then with a learned one. What is minimised
is the summed cost of single steps: whether the endpoint gains is another question, and where the flow splits it loses.
"""

from experiments.evidence import AtLeast, Claim, OnMostSeeds, Outcome, Scale

GRID, STEPS, POINTS = 100, 4, 1_000


def modes(count: int, radius: float):
    """Means [count, 2] of a mixture on a ring; of one, a point off the middle."""
    import jax.numpy as jnp

    angle = 2 * jnp.pi * jnp.arange(count) / count
    return radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)


TARGETS = {"one normal": (1, 4.0, 0.1), "four modes": (4, 4.0, 0.1), "ring of eight": (8, 4.0, 0.1)}


def exact(count: int, radius: float, spread: float):
    """The velocity E[x_1 - x_0 | x_t] of the straight flow from a standard normal to the mixture."""
    import jax

    means = modes(count, radius)

    def velocity(x, t):
        variance = (1 - t) ** 2 + (t * spread) ** 2
        off = x - t * means
        share = jax.nn.softmax(-(off**2).sum(axis=1) / (2 * variance))
        each = means + (t * spread**2 - (1 - t)) / variance * off
        return share @ each

    return velocity


def chosen(target: str, score: str):
    """An arm: minus the chosen steps' summed cost over that of even ones, or minus the same of errors at the end."""

    def run(scale: Scale, seeds: tuple[int, ...]) -> Outcome:
        import jax
        import jax.numpy as jnp

        from experiments.evidence.fitting import each_seed
        from jaxrl.equations.diffusion import best_steps, euler, jump_cost

        velocity = exact(*TARGETS[target])
        grid = jnp.linspace(0.0, 1.0, GRID + 1)
        even = jnp.linspace(0, GRID, STEPS + 1).astype(jnp.int32)

        def one(key):
            key_cost, key_end = jax.random.split(key)
            noise = jax.random.normal(key_cost, (scale.steps, 2))
            cost = jax.lax.map(lambda x: jump_cost(velocity, euler(velocity, x, grid), grid), noise).mean(axis=0)
            best, least = best_steps(cost, STEPS)
            if score == "cost":
                return -least / cost[even[:-1], even[1:]].sum()
            start = jax.random.normal(key_end, (POINTS, 2))
            end = lambda times: jax.vmap(lambda x: euler(velocity, x, times)[-1])(start)
            truth = end(jnp.linspace(0.0, 1.0, 1_001))
            off = lambda at: jnp.sqrt(((end(grid[at]) - truth) ** 2).sum(axis=1).mean())
            return -off(best) / off(even)

        return each_seed(one, seeds)

    return run


def learned(straight: bool):
    """An arm: how many times smaller the error at the end of the chosen steps is than that of even ones unstraightened.

    Of a velocity learned from the four modes; the truth is its own fine path.
    """

    def run(scale: Scale, seeds: tuple[int, ...]) -> Outcome:
        import jax
        import jax.numpy as jnp

        from experiments.evidence.fitting import each_seed
        from jaxrl.models import diffusion
        from jaxrl.models.flow import flow

        count, radius, spread = TARGETS["four modes"]
        config = diffusion.Config(
            width=64, blocks=2, embedding=32, updates=10 * scale.steps, lr=2e-3, average=0.99, apart=1
        )
        made = flow(2, config, grid=GRID)

        def one(key):
            key_data, key_fit, key_steps, key_straight, key_end = jax.random.split(key, 5)
            means = modes(count, radius)[jax.random.randint(key_data, (2_000,), 0, count)]
            x = means + spread * jax.random.normal(key_fit, means.shape)
            part, _ = made.fit(made.init(key), x, jnp.ones(len(x)), key_fit)
            times, _ = made.steps(part, key_steps, STEPS)
            end = lambda part, times: made.draw(part, key_end, POINTS, times)
            truth = end(part, jnp.linspace(0.0, 1.0, GRID + 1))
            off = lambda part, times: jnp.sqrt(((end(part, times) - truth) ** 2).sum(axis=1).mean())
            before = off(part, jnp.linspace(0.0, 1.0, STEPS + 1))
            return before / off(made.straightened(part, key_straight, times) if straight else part, times)

        return each_seed(one, seeds)

    return run


WHERE = f"flows in the plane, {STEPS} of a grid of {GRID} steps"
SCALES = {"smoke": Scale(8, 1), "cpu": Scale(256, 10), "gpu": Scale(1_000, 10)}

CLAIMS = (
    Claim(
        id="p072",
        paper=72,
        claim="The steps chosen by dynamic programming cost at most 0.7 of what even ones do.",
        environment=f"{WHERE}, exact velocities of mixtures of normals",
        metric="minus the summed cost over that of even steps",
        arms={name: chosen(name, "cost") for name in TARGETS},
        checks=tuple(AtLeast(name, -0.7) for name in TARGETS),
        expected="a tenth to 0.65 of the cost",
        scales=SCALES,
    ),
    Claim(
        id="p072-endpoint",
        paper=72,
        claim="For a flow to one normal they also end nearer to where the fine path does: at most 0.7 of the error.",
        environment=f"{WHERE}, exact velocities of mixtures of normals",
        metric="minus the root mean square error at the end over that of even steps",
        arms={name: chosen(name, "end") for name in TARGETS},
        checks=(AtLeast("one normal", -0.7),),
        expected="0.4 for one normal; above 1, a loss, where the flow splits into modes",
        scales=SCALES,
    ),
    Claim(
        id="p072-straight",
        paper=72,
        claim="Straightening on the chosen steps makes the error at the end at least two times smaller.",
        environment=f"{WHERE}, a velocity of 2 x 64 units learned from 2,000 points of four modes",
        metric="the error of even steps over the error of the chosen ones",
        arms={"chosen": learned(False), "chosen and straightened": learned(True)},
        checks=(OnMostSeeds("chosen and straightened", 2.0, 0.9),),
        expected="three to six times",
        scales=SCALES,
    ),
)

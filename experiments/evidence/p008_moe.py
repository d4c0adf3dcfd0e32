"""Paper 008, what trains mixtures of experts: on a mixture of tasks they beat a dense layer of the same active width;
a balancing loss keeps experts in use; and random token selection is fairer than first come, first served.

A regression of 16 clusters, each with a linear map of its own. The dense network is the same with one expert, which
does as much work for a token as the mixture does. Slots are scarce in training alone: fresh data find room.
"""

from experiments.evidence import Better, Claim, Outcome, Scale

CLUSTERS, INPUTS, OUTPUTS, WIDTH, BATCH = 16, 16, 8, 32, 256
SPREAD = 0.5  # of a cluster about its centre, where centres have a spread of 2


def mixture(score: str = "error", weight: float = 0.01, ordered: bool = False, **how):
    """An arm: minus the error on fresh data, or the entropy of the experts' loads in nats."""

    def arm(scale: Scale, seeds: tuple[int, ...]) -> Outcome:
        import jax
        import jax.numpy as jnp
        from flax import linen as nn

        from experiments.evidence.fitting import fitted
        from jaxrl.equations.routing import balance
        from jaxrl.nets import MoE, drawing

        class Network(nn.Module):
            how: dict

            @nn.compact
            def __call__(self, x):
                h = nn.relu(nn.Dense(WIDTH)(x))
                # The residual carries what finds no slot.
                return nn.Dense(OUTPUTS)(h + MoE(**{"experts": 8, "hidden": WIDTH, "outputs": WIDTH, **self.how})(h))

        made = lambda how: drawing(Network(how), jax.ShapeDtypeStruct((BATCH, INPUTS), jnp.float32))
        network, roomy = made(how), made({**how, "capacity": None})

        def task(key):
            centres, maps = jax.random.split(key)
            size = (CLUSTERS, INPUTS, OUTPUTS)
            return 2 * jax.random.normal(centres, size[:2]), jax.random.normal(maps, size) / INPUTS**0.5

        def data(task, key):
            centres, maps = task
            key_cluster, key_x = jax.random.split(key)
            cluster = jax.random.randint(key_cluster, (BATCH,), 0, CLUSTERS)
            cluster = jnp.sort(cluster) if ordered else cluster
            x = centres[cluster] + SPREAD * jax.random.normal(key_x, (BATCH, INPUTS))
            return x, jnp.einsum("bi,bio->bo", x, maps[cluster])

        def loss(parameters, task, key):
            x, y = data(task, key)
            error = ((network.apply(parameters, key, x) - y) ** 2).mean()
            (gates,) = network.within(parameters, key, x)["gates"]
            return error + weight * balance(nn.softmax(gates.logits), gates.mask)

        def judged(parameters, task, key):
            def batch(key):
                x, y = data(task, key)
                (gates,) = roomy.within(parameters, key, x)["gates"]
                load = gates.mask.reshape(-1, gates.mask.shape[-1]).mean(axis=0)
                return ((roomy.apply(parameters, key, x) - y) ** 2).mean(), load

            errors, loads = jax.lax.map(batch, jax.random.split(key, 16))
            entropy = jax.scipy.special.entr(loads.mean(axis=0)).sum()
            return -errors.mean() if score == "error" else entropy

        return fitted(scale, seeds, task, network.init, loss, judged)

    return arm


TIGHT = {"capacity": 0.5, "least": 1, "ordered": True}
SCALES = {"smoke": Scale(60, 1, 3), "cpu": Scale(6_000, 10), "gpu": Scale(20_000, 10)}
WHERE = "regression of 16 clusters in 16 dimensions, each with a linear map of its own; batches of 256"

CLAIMS = (
    Claim(
        id="p008",
        paper=8,
        claim="A mixture of 8 experts has at most half the error of a dense layer of the same active width, and random "
        "token selection a smaller one than first come, first served where slots are scarce.",
        environment=WHERE,
        metric="minus the mean square error on fresh data",
        arms={
            "dense": mixture(experts=1, weight=0.0),
            "experts": mixture(),
            "scarce, first come": mixture(**TIGHT),
            "scarce, random": mixture(spill="random", **TIGHT),
        },
        checks=(Better("experts", "dense", factor=0.5), Better("scarce, random", "scarce, first come")),
        expected="half the error; a smaller error with random selection, as tokens come sorted by cluster",
        scales=SCALES,
    ),
    Claim(
        id="p008-balance",
        paper=8,
        claim="With a balancing loss of weight 0.01 experts are used more evenly than without.",
        environment=WHERE,
        metric="entropy of the experts' shares of tokens, in nats; 2.08 is even",
        arms={"balanced": mixture("entropy"), "free": mixture("entropy", weight=0.0)},
        checks=(Better("balanced", "free", by=0.2 * 2.0794),),
        expected="above 0.9 x 2.08 with it, below 0.7 x 2.08 without",
        scales=SCALES,
    ),
)

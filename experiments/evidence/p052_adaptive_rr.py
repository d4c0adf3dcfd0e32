"""Paper 052, plasticity in visual RL: much reuse of few data costs activity, and the ratio had better rise later.

Two probes that two cores can run: networks on one small random task after another, and SAC from the states of a task
after hardly any warm-up. The effect that the paper measures is one of pictures and of heavier critics: what is found
here, from states, says little about it.
"""

from experiments.evidence import AtLeast, Better, Claim, Outcome, Scale, Trained, TrainingReturn

SAMPLES, BATCH, WIDTH = 64, 32, 256


def reused(epochs: int, score: str):
    """An arm: an MLP on `scale.steps` tasks of random labels, one after another, each seen `epochs` times.

    The score is the active fraction of its hidden layers after the last five tasks ('active'), or how much more error
    is left on them than on the first five ('rise').
    """

    def arm(scale: Scale, seeds: tuple[int, ...]) -> Outcome:
        import jax
        import jax.numpy as jnp
        import numpy as np
        import optax

        from jaxrl.core import fold
        from jaxrl.nets import MLP, net
        from jaxrl.statistics.plasticity import active_fraction

        network = net(MLP((WIDTH, WIDTH), 1), jax.ShapeDtypeStruct((16,), jnp.float32))
        tx = optax.adam(1e-3)
        updates = epochs * SAMPLES // BATCH

        def one(key):
            def task(carry, i):
                key_x, key_y, key_order = jax.random.split(fold(key, i), 3)
                x, y = jax.random.normal(key_x, (SAMPLES, 16)), jax.random.normal(key_y, (SAMPLES,))
                loss = lambda p, x, y: ((network.apply(p, x)[:, 0] - y) ** 2).mean()

                def step(carry, j):
                    parameters, state = carry
                    at = jax.random.randint(fold(key_order, j), (BATCH,), 0, SAMPLES)
                    slope = jax.grad(loss)(parameters, x[at], y[at])
                    steps, state = tx.update(slope, state, parameters)
                    return (optax.apply_updates(parameters, steps), state), None

                carry, _ = jax.lax.scan(step, carry, jnp.arange(updates))
                active = active_fraction(network.within(carry[0], x)["layers"][:-1])
                return carry, (active, loss(carry[0], x, y))

            parameters = network.init(key)
            return jax.lax.scan(task, (parameters, tx.init(parameters)), jnp.arange(scale.steps))[1]

        active, error = jax.jit(lambda keys: jax.lax.map(one, keys))(jax.vmap(jax.random.key)(jnp.asarray(seeds)))
        curve = np.asarray(active if score == "active" else error, np.float64)
        late, early = curve[:, -5:].mean(axis=1), curve[:, :5].mean(axis=1)
        axes = ("tasks", "fraction of active units" if score == "active" else "mean square error left")
        return Outcome(late if score == "active" else late - early, np.arange(1, scale.steps + 1), curve, axes=axes)

    return arm


REPEAT, ENVS = 8, 2  # two environments: half an update a step at a ratio of one a tick
SIZES = {"widths": (64, 64), "batch": 128, "num_envs": ENVS, "warmup": 256 * REPEAT}


def ratio(updates: int, agent: str = "sac", **own):
    score = TrainingReturn(after=0.5)
    return Trained(agent, "cartpole-swingup", score, {**SIZES, "ratio": updates, **own}, repeat=REPEAT)


TASKS = "regressions of 64 random labels each, one after another, without a reset"

CLAIMS = (
    Claim(
        id="p052",
        paper=52,
        claim="SAC whose replay ratio rises from 0.5 to 4 once its critics' activity stands still earns more than with "
        "either throughout.",
        environment="cartpole-swingup from states: action repeat 8; a warm-up of 256 steps; not the paper's pictures",
        metric=str(TrainingReturn(after=0.5)),
        arms={
            "half": ratio(1),
            "four": ratio(8),
            "adaptive": ratio(1, "sac+adaptive_rr", adaptive_rr={"factor": 8, "period": 8_000, "window": 1_000}),
        },
        checks=(Better("adaptive", "half"), Better("adaptive", "four")),
        expected="the high ratio has the worst seeds; the adaptive one is no worse than the better of both",
        scales={"smoke": Scale(10_000, 1, 2), "cpu": Scale(80_000, 10), "gpu": Scale(240_000, 10)},
    ),
    Claim(
        id="p052-activity",
        paper=52,
        claim="The more often few data are used again, the fewer units of a network stay active over many tasks.",
        environment=TASKS,
        metric="fraction of active units of the hidden layers, last five tasks",
        arms={f"{epochs} epochs": reused(epochs, "active") for epochs in (2, 20, 200)},
        checks=(Better("2 epochs", "20 epochs"), Better("20 epochs", "200 epochs")),
        expected="monotone",
        scales={"smoke": Scale(2, 1), "cpu": Scale(30, 10), "gpu": Scale(100, 10)},
    ),
    Claim(
        id="p052-error",
        paper=52,
        claim="Used often, few data leave a network that learns later tasks worse than the first.",
        environment=TASKS,
        metric="mean square error left on the last five tasks, less that on the first five",
        arms={f"{epochs} epochs": reused(epochs, "rise") for epochs in (2, 20, 200)},
        checks=(Better("200 epochs", "2 epochs"), AtLeast("200 epochs", 0.0)),
        expected="rising with reuse",
        scales={"smoke": Scale(2, 1), "cpu": Scale(30, 10), "gpu": Scale(100, 10)},
    ),
)

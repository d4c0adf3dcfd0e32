"""Paper 006, MENTOR: weights drawn to what served best lose less by it, and experts keep apart what conflicts.

Returns around a perturbation, from states; and a regression whose sign a bit of the input turns around.
"""

from dataclasses import dataclass

import numpy as np

from experiments.evidence import AtLeast, Better, Claim, Outcome, Scale, Trained, TrainingReturn

EPISODE, PERIOD = 200, 4_000  # frames: of an episode, and between perturbations
FIVE = 5 * EPISODE

SIZES = {"widths": (64, 64), "lr": 1e-3, "batch": 64, "warmup": 1_000, "noise_frames": lambda scale: scale.steps // 4}
MIXTURE = {"experts": 8, "k": 2, "gate": 32}


@dataclass(frozen=True)
class Dip:
    """An arm: minus the mean fall of the return from the five episodes before a perturbation to the five after.

    Over all perturbations of the later half, by the curve of an arm whose points are five episodes long.
    """

    of: Trained

    def __call__(self, scale: Scale, seeds: tuple[int, ...]) -> Outcome:
        found = self.of(scale, seeds)
        after = np.arange(PERIOD // FIVE, len(found.steps), PERIOD // FIVE)  # the points that begin with a perturbation
        after = after[after >= len(found.steps) // 2]
        return found._replace(scores=-(found.curve[:, after - 1] - found.curve[:, after]).mean(axis=1))


def arm(task: bool, mixture: bool, period: int = PERIOD) -> Trained:
    own = {"period": period, "keep": (0.5, 0.5), "task": task, "mixture": mixture, "moe": MIXTURE}
    return Trained("mentor", "pendulum", TrainingReturn(after=0.5), {**SIZES, "mentor": own})


FOUR = {
    f"{net}, drawn to {to}": arm(task, mixture)
    for mixture, net in ((False, "dense"), (True, "experts"))
    for task, to in ((False, "fresh weights"), (True, "the best"))
}


INPUTS, TEACHER, HIDDEN, TOKENS, BALANCE = 8, 8, 16, 128, 0.1


def turned(experts: int, score: str):
    """An arm: a regression of +-f(x), the sign a bit of the input. Minus the error, or how far gates tell the sign.

    f is a layer of 8 units, and each expert has 16 for the twice 8 that both signs ask. Without a term for balance
    a router may send everything one way.
    """

    def run(scale: Scale, seeds: tuple[int, ...]) -> Outcome:
        import jax
        import jax.numpy as jnp

        from experiments.evidence.fitting import fitted
        from jaxrl.equations.routing import balance
        from jaxrl.nets import MoE, net

        example = jax.ShapeDtypeStruct((TOKENS, INPUTS + 1), jnp.float32)
        network = net(MoE(experts, HIDDEN, 1, k=1), example)

        def task(key):
            key_in, key_out = jax.random.split(key)
            return jax.random.normal(key_in, (INPUTS, TEACHER)) / INPUTS**0.5, jax.random.normal(key_out, (TEACHER,))

        def data(task, key):
            key_x, key_bit = jax.random.split(key)
            x, bit = jax.random.normal(key_x, (TOKENS, INPUTS)), jax.random.rademacher(key_bit, (TOKENS, 1), float)
            return jnp.concatenate([x, bit], axis=1), bit[:, 0] * (jax.nn.relu(x @ task[0]) @ task[1])

        def error(parameters, task, key):
            x, y = data(task, key)
            return ((network.apply(parameters, x)[:, 0] - y) ** 2).mean()

        def gates(parameters, task, key):
            return network.within(parameters, data(task, key)[0])["gates"][0]

        def loss(parameters, task, key):
            seen = gates(parameters, task, key)
            return error(parameters, task, key) + BALANCE * balance(jax.nn.softmax(seen.logits), seen.mask)

        def judged(parameters, task, key):
            if score == "error":
                return -jax.lax.map(lambda key: error(parameters, task, key), jax.random.split(key, 16)).mean()
            same = (gates(parameters, task, key).mask[0, :, 0] == (data(task, key)[0][:, -1] > 0)).mean()
            return jnp.maximum(same, 1 - same)  # which expert has which sign is chance

        return fitted(scale, seeds, task, network.init, loss, judged)

    return run


PENDULUM = "pendulum from states, 200 steps; a perturbation of half every 2,000 updates"
SCALES = {"smoke": Scale(10_000, 1, 10), "cpu": Scale(50_000, 10, 50), "gpu": Scale(100_000, 10, 100)}
TURNED = {"smoke": Scale(50, 1, 2), "cpu": Scale(20_000, 10), "gpu": Scale(50_000, 10)}
WHERE = "regression of 8 inputs and a bit that turns the target's sign; experts as wide as the dense layer, one a token"

CLAIMS = (
    Claim(
        id="p006",
        paper=6,
        claim="After a perturbation towards the best weights so far the return falls at least 30 % less than after one "
        "towards fresh weights.",
        environment=PENDULUM,
        metric="minus the fall of the mean return of five episodes",
        arms={name: Dip(one) for name, one in {**FOUR, "dense, left alone": arm(True, False, period=0)}.items()},
        checks=(
            Better("experts, drawn to the best", "experts, drawn to fresh weights", factor=0.7),
            Better("dense, drawn to the best", "dense, drawn to fresh weights", factor=0.7),
            Better("dense, left alone", "dense, drawn to fresh weights"),
        ),
        expected="a fall at least 30 % smaller",
        scales=SCALES,
    ),
    Claim(
        id="p006-return",
        paper=6,
        claim="An actor of experts drawn to the best weights earns at most 20 less than a dense one drawn to "
        "fresh ones.",
        environment=PENDULUM,
        metric=str(TrainingReturn(after=0.5)),
        arms=FOUR,
        checks=(Better("experts, drawn to the best", "dense, drawn to fresh weights", by=-20),),
        expected="more, or as much: differences of the final return are noisy",
        scales=SCALES,
    ),
    Claim(
        id="p006-conflict",
        paper=6,
        claim="Two experts learn two tasks that conflict to less than a tenth of the error of a dense layer as wide as "
        "one of them.",
        environment=WHERE,
        metric="minus the mean square error",
        arms={"dense": turned(1, "error"), "experts": turned(2, "error")},
        checks=(Better("experts", "dense", factor=0.1),),
        expected="less than 10 % of the error",
        scales=TURNED,
    ),
    Claim(
        id="p006-gate",
        paper=6,
        claim="The router of those two experts tells the two tasks apart.",
        environment=WHERE,
        metric="share of inputs that go where their bit says",
        arms={"gate": turned(2, "gate")},
        checks=(AtLeast("gate", 0.95),),
        expected="above 95 %",
        scales=TURNED,
    ),
)

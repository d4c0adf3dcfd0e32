"""Paper 010, DrM: an actor that mostly sleeps is awoken by perturbation, and learns then.

From states, where a network does not fall asleep by itself: the weights into six of ten hidden units of the actor are
all but taken away at the start. The arms without that are reported beside: there the paper's effect, which is one of
pictures, is not to be expected. Pendulum with a reward of 1 near the top alone; the sizes are those of a CPU.
"""

from dataclasses import replace

from experiments.evidence import AtLeast, Better, Claim, FirstBelow, Scale, Trained, TrainingReturn


def sparse_pendulum():
    """The pendulum, that pays 1 where it is within 18 degrees of upright and nothing elsewhere."""
    import jax.numpy as jnp

    from envs.registry import make

    env = make("pendulum")

    def step(state, action):
        state, out = env.step(state, action)
        return state, out._replace(reward=(out.obs[0] > 0.95).astype(jnp.float32))

    return replace(env, step=step)


def asleep(recipe):
    """The recipe, whose actor begins with six of ten units of each hidden layer all but cut off from their inputs."""
    import jax
    import jax.numpy as jnp

    agent = recipe.agent

    def cut(key, layer):
        few = jax.random.uniform(key, layer["kernel"].shape[-1:]) < 0.6
        return {**layer, "kernel": jnp.where(few, 1e-3, 1.0) * layer["kernel"]}

    def init(key):
        parts = agent.init(key)
        policy = dict(parts["actor"]["policy"])
        for i, name in enumerate(sorted(policy)[:-1]):  # the last is the output
            policy[name] = cut(jax.random.fold_in(key, i), policy[name])
        return {**parts, "actor": {**parts["actor"], "policy": policy}}

    return replace(recipe, agent=replace(agent, init=init))


SIZES = {
    "widths": (64, 64),
    "lr": 1e-3,
    "batch": 64,
    "warmup": 1_000,
    "noise_frames": lambda scale: scale.steps // 4,
}
NONE = {"period": 0, "explore": False, "exploit": 0.0}
ARMS = {
    "nothing": NONE,
    "noise": {**NONE, "explore": True},
    "perturbation": {**NONE, "period": 4_000},
    "all three": {"period": 4_000},
}


def arm(score, changed=asleep, **own):
    env = "experiments.evidence.p010_drm:sparse_pendulum"
    return Trained("drm", env, score, {**SIZES, "drm": own}, changed=changed)


LATE, AWAKE = TrainingReturn(after=0.75), FirstBelow("dormancy/share", 0.2)
SCALES = {"smoke": Scale(2_000, 1, 4), "cpu": Scale(60_000, 10, 60), "gpu": Scale(200_000, 10, 100)}
WHERE = "pendulum from states, 200 steps, a reward of 1 where cos > 0.95"

CLAIMS = (
    Claim(
        id="p010",
        paper=10,
        claim="An actor of which six units in ten begin all but cut off earns more with DrM's three uses of its "
        "dormant neurons than without.",
        environment=WHERE,
        metric=str(LATE),
        arms={
            **{name: arm(LATE, **own) for name, own in ARMS.items()},
            "nothing, awake from the start": arm(LATE, None, **NONE),
            "all three, awake from the start": arm(LATE, None, **ARMS["all three"]),
        },
        checks=(Better("all three", "nothing"), AtLeast("all three", 50)),
        expected="success in 8 seeds of 10 against 5 of 10",
        scales=SCALES,
    ),
    Claim(
        id="p010-awake",
        paper=10,
        claim="Perturbation halves the time until fewer than one neuron in five of such an actor is dormant.",
        environment=WHERE,
        metric=str(AWAKE),
        arms={name: arm(AWAKE, **own) for name, own in ARMS.items()},
        checks=(Better("perturbation", "nothing", factor=0.5), Better("all three", "nothing", factor=0.5)),
        expected="at least twice as soon",
        scales=SCALES,
    ),
)

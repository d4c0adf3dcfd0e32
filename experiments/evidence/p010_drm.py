"""Paper 010, DrM: an actor that mostly sleeps is awoken by perturbation, and learns then.

From states, where a network does not fall asleep by itself: the weights into and out of nineteen of twenty hidden units
of the actor are taken away at the start. The arms without that are reported beside: there the paper's effect, which is
one of pictures, is not to be expected; and an arm where a thousandth is left, which Adam wakes within a few updates.
Pendulum with a reward of 1 near the top alone; the sizes are those of a CPU.
"""

from dataclasses import replace

from experiments.evidence import Better, Claim, FirstBelow, OnMostSeeds, Scale, Trained, TrainingReturn


def sparse_pendulum():
    """The pendulum, that pays 1 where it is within 18 degrees of upright and nothing elsewhere."""
    import jax.numpy as jnp

    from envs.registry import make

    env = make("pendulum")

    def step(state, action):
        state, out = env.step(state, action)
        return state, out._replace(reward=(out.obs[0] > 0.95).astype(jnp.float32))

    return replace(env, step=step)


def asleep(share: float = 0.95, left: float = 0.0):
    """Changes a recipe: of the weights into and out of a share of the actor's hidden units, `left` stays.

    Of none the gradient is zero for good. Of a thousandth it is not, and Adam, which no scale slows, makes it whole.
    """

    def changed(recipe):
        import jax
        import jax.numpy as jnp

        agent = recipe.agent

        def init(key):
            parts = agent.init(key)
            policy, before = dict(parts["actor"]["policy"]), jnp.ones(())
            for i, name in enumerate(sorted(policy)):
                kernel = before * policy[name]["kernel"]
                if name != max(policy):  # the last is the output
                    few = jax.random.uniform(jax.random.fold_in(key, i), kernel.shape[-1:]) < share
                    kernel, before = jnp.where(few, left, 1.0) * kernel, jnp.where(few, left, 1.0)[:, None]
                policy[name] = {**policy[name], "kernel": kernel}
            return {**parts, "actor": {**parts["actor"], "policy": policy}}

        return replace(recipe, agent=replace(agent, init=init))

    return changed


SIZES = {
    "widths": (64, 64),
    "lr": 1e-3,
    "batch": 64,
    "warmup": 1_000,
    "noise_frames": lambda scale: scale.steps // 4,
}
NONE = {"period": 0, "explore": False, "exploit": 0.0}
ASLEEP = asleep()
ARMS = {
    "nothing": NONE,
    "noise": {**NONE, "explore": True},
    "perturbation": {**NONE, "period": 4_000},
    "all three": {"period": 4_000},
}


def arm(score, changed=ASLEEP, **own):
    env = "experiments.evidence.p010_drm:sparse_pendulum"
    return Trained("drm", env, score, {**SIZES, "drm": own}, changed=changed)


LATE, AWAKE = TrainingReturn(after=0.75), FirstBelow("dormancy/share", 0.2)
SCALES = {"smoke": Scale(2_000, 1, 4), "cpu": Scale(20_000, 10, 40), "gpu": Scale(200_000, 10, 100)}
WHERE = "pendulum from states, 200 steps, a reward of 1 where cos > 0.95"

CLAIMS = (
    Claim(
        id="p010",
        paper=10,
        claim="An actor that begins with nineteen units in twenty cut off earns more with DrM's uses of its dormant "
        "neurons than without, and a return of 100 on at least 8 seeds of 10.",
        environment=WHERE,
        metric=str(LATE),
        arms={
            **{name: arm(LATE, **own) for name, own in ARMS.items()},
            "nothing, awake from the start": arm(LATE, None, **NONE),
            "all three, awake from the start": arm(LATE, None, **ARMS["all three"]),
        },
        checks=(Better("all three", "nothing"), OnMostSeeds("all three", 100, 0.8)),
        expected="success in 8 seeds of 10 against 5 of 10",
        scales=SCALES,
    ),
    Claim(
        id="p010-awake",
        paper=10,
        claim="Perturbation halves the time until fewer than one neuron in five of such an actor is dormant.",
        environment=WHERE,
        metric=str(AWAKE),
        arms={
            **{name: arm(AWAKE, **own) for name, own in ARMS.items()},
            "nothing, a thousandth left": arm(AWAKE, asleep(left=1e-3), **NONE),
        },
        checks=(Better("perturbation", "nothing", factor=0.5), Better("all three", "nothing", factor=0.5)),
        expected="at least twice as soon",
        scales=SCALES,
    ),
)

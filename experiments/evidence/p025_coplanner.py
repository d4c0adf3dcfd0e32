"""Paper 025, COPlanner: doubt sought in the world shows more of it, avoided in the model it spoils less."""

from experiments.evidence import Better, Claim, Scale, TrainingReturn
from experiments.evidence.modelled import Left, model_based

WHOLE = TrainingReturn(after=0.0)
BINS = 20


def arm(avoid: float | None, seek: float | None):
    return model_based("sac+coplanner", "pendulum", WHOLE, coplanner={"avoid": avoid, "seek": seek})


def spread(run, recipe, env, key):
    """The entropy, in nats, of where the pendulum was: 20 bins of its angle by 20 of its velocity."""
    import jax.numpy as jnp

    data = recipe.source.everything(run.source)
    cosine, sine, velocity = data["obs"].T
    angle = jnp.floor((jnp.arctan2(sine, cosine) / jnp.pi + 1) / 2 * BINS).clip(0, BINS - 1)
    speed = jnp.floor((velocity / 8 + 1) / 2 * BINS).clip(0, BINS - 1)
    cell = (angle * BINS + speed).astype(jnp.int32)
    share = jnp.zeros(BINS * BINS).at[cell].add(data["weight"]) / data["weight"].sum()
    return -(share * jnp.log(jnp.maximum(share, 1e-9))).sum()


FOUR = {
    "neither": arm(None, None),
    "avoids": arm(2.0, None),
    "seeks": arm(None, 1.0),
    "both": arm(2.0, 1.0),
}
WHERE = "pendulum, 200 steps an episode; SAC with 10 updates a step, five members of 2 x 64"

CLAIMS = (
    Claim(
        id="p025",
        paper=25,
        claim="MBPO that avoids doubt in its model and seeks it in the world earns more on the way than without.",
        environment=WHERE,
        metric=str(WHOLE),
        arms=FOUR,
        checks=(Better("both", "neither"),),
        expected="both reach a level first",
        scales={"smoke": Scale(1_000, 1, 2), "cpu": Scale(2_000, 8, 10), "gpu": Scale(5_000, 10)},
    ),
    Claim(
        id="p025-spread",
        paper=25,
        claim="Doubt that is sought in the world brings the agent to more of it.",
        environment=WHERE,
        metric=f"entropy of where it was, over {BINS} x {BINS} bins of angle and velocity (nats)",
        arms={name: Left(FOUR[name], spread) for name in ("neither", "seeks")},
        checks=(Better("seeks", "neither"),),
        expected="an entropy 1.2 times as large",
        scales={"smoke": Scale(600, 1), "cpu": Scale(1_200, 8), "gpu": Scale(5_000, 10)},
    ),
)

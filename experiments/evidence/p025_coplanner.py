"""Paper 025, COPlanner: doubt sought in the world shows more of it, avoided in the model it spoils less."""

from experiments.evidence import Better, Claim, Scale, TrainingReturn
from experiments.evidence.modelled import Left, model_based

WHOLE = TrainingReturn(after=0.0)
BINS = 20
REAL = 0.05  # share of a batch that was experienced, as MBPO has it; COPlanner's authors have none


def arm(avoid: float | None, seek: float | None):
    return model_based("sac+coplanner", "pendulum", WHOLE, coplanner={"avoid": avoid, "seek": seek, "real": REAL})


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


def astray(run, recipe, env, key):
    """Minus how far the last rollouts end from where they should: root mean square, in the spread of a change."""
    import jax
    import jax.numpy as jnp

    from envs.classic import pendulum

    def after(obs, action):
        body = jnp.stack([jnp.arctan2(obs[1], obs[0]), obs[2]])
        angle, velocity = pendulum.advance(body, pendulum.TORQUE * action[0], pendulum.CONTEXT)
        return jnp.stack([jnp.cos(angle), jnp.sin(angle), velocity])

    pile, spread = run.source["model"], run.parts["model"]["norm"]["told"]["std"][1:]
    off = (pile.rows["next_obs"] - jax.vmap(after)(pile.rows["obs"], pile.rows["action"])) / spread
    return -jnp.sqrt((off**2).mean(axis=1).mean(where=jnp.arange(len(off)) < pile.count))


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
    Claim(
        id="p025-error",
        paper=25,
        claim="The model errs less in rollouts that avoid its doubt.",
        environment=WHERE,
        metric="minus the root mean square error of rollouts' next observations, in standard deviations of a change",
        arms={name: Left(FOUR[name], astray) for name in ("neither", "avoids")},
        checks=(Better("avoids", "neither"),),
        expected="0.8 times the error",
        scales={"smoke": Scale(600, 1), "cpu": Scale(1_600, 8), "gpu": Scale(5_000, 10)},
    ),
)

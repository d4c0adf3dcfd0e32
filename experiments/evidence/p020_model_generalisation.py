"""Paper 020, the benefits of model-based generalisation: where many small parts make a world, a model learns it sooner.

A flute of pipes that all have to sound at once. A learner sees replayed steps, or as many of a model's rollouts that
begin where it was, the model having seen the same: where data come from is all that differs. Each arm has the
temperature, of 0.03 and 0.1, and with five pipes the learning rate, of 3e-4, 1e-3 and 3e-3, that served it best on the
tuning seeds.
"""

from dataclasses import dataclass, replace

from experiments.evidence import Better, Claim, Outcome, Scale, Trained, TrainingReturn

STARTS, HORIZON = 8, 10
LATE = TrainingReturn(after=0.8)
ADAM = {"eps": 1e-8, "b2": 0.999, "decay": 0.0}  # for replay and models alike; the authors' is AdamW's, dyna's default
SIZES = {
    "double": False,
    "n": 1,
    "huber": None,
    "gamma": 0.9,
    "warmup": 500,
    "capacity": 10_000,
    "num_envs": 1,
    **ADAM,
}


def true_dynamics(pipes: int):
    """What `dyna` asks of a model, of the flute itself: nothing is learned."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from envs.factored.worlds import blown
    from jaxrl.models.bits import Model
    from jaxrl.models.ensemble import Step

    cells = np.tril_indices(pipes)

    def step(part, obs, action, key):
        def one(obs, action, key):
            sounds, reward = blown(jnp.zeros((pipes, pipes), bool).at[cells].set(obs > 0.5), action, key)
            return Step(sounds[cells].astype(obs.dtype), reward, jnp.float32(1))

        return jax.vmap(one)(obs, action, jax.random.split(key, obs.shape[0]))

    return Model(lambda key: jnp.zeros(()), lambda part, batch: 0 * part, step)


def dreamt(pipes: int):
    """DQN's recipe with the flute itself for a model."""

    def changed(recipe):
        from jaxrl.agents import dyna

        return dyna.add(recipe, None, dyna.Config(horizon=HORIZON), None, true_dynamics(pipes))

    return changed


def arm(pipes: int, source: str, temperature: float = 0.03, lr: float = 1e-3) -> Trained:
    """DQN from 'replay', from a 'learned' model or from the 'true' one."""
    updates, task = (4, "pan-flute") if pipes == 5 else (2, "pan-flute-4")
    own = {**SIZES, "ratio": updates, "target_period": 20 * updates, "temperature": temperature, "lr": lr}
    if source == "learned":
        return Trained("dqn+dyna", task, LATE, {**own, "batch": STARTS, "dyna": {"horizon": HORIZON, "model": ADAM}})
    batch, changed = (STARTS * HORIZON, None) if source == "replay" else (STARTS, dreamt(pipes))
    return Trained("dqn", task, LATE, {**own, "batch": batch}, changed=changed)


@dataclass(frozen=True)
class Gap:
    """An arm: how much more a model earns than replay, as a share of the best, on each seed."""

    pipes: int
    steps: int

    def __call__(self, scale: Scale, seeds: tuple[int, ...]) -> Outcome:
        scale = replace(scale, steps=scale.steps * self.steps // FIVE)
        model, replay = (ARMS[self.pipes][name](scale, seeds) for name in ("learned", "replay"))
        most = EPISODE / self.pipes
        curve = (model.curve - replay.curve) / most
        return model._replace(scores=(model.scores - replay.scores) / most, curve=curve, axes=("frames", "gap"))


EPISODE, FIVE, FOUR = 1_000, 5_000, 8_000  # frames: of an episode, and of the card's runs with 5 and with 4 pipes
ARMS = {
    5: {"replay": arm(5, "replay", lr=3e-4), "learned": arm(5, "learned"), "true": arm(5, "true", temperature=0.1)},
    4: {"replay": arm(4, "replay"), "learned": arm(4, "learned")},
}
WHERE = "pan-flute, truncated after 1,000 steps; DQN of 2 x 64 units, 80 transitions an update"
SCALES = {"smoke": Scale(2_000, 1, 2), "cpu": Scale(FIVE, 10, 5), "gpu": Scale(4 * FIVE, 10)}

CLAIMS = (
    Claim(
        id="p020",
        paper=20,
        claim="With five pipes DQN that learns from a learned model's rollouts alone earns more than from replay, at "
        "as many transitions an update.",
        environment=f"{WHERE}, 4 updates a step",
        metric=str(LATE),
        arms=ARMS[5],
        checks=(Better("learned", "replay"),),
        expected="80 an episode more, of at most 200 and what sounds by itself (four seeds of an earlier trial)",
        scales=SCALES,
    ),
    Claim(
        id="p020-size",
        paper=20,
        claim="With four pipes, of 2^10 combinations of sounds where five have 2^15, that gap is smaller.",
        environment=f"{WHERE}, 4 updates a step with five pipes and 2 over 8,000 steps with four",
        metric="what a learned model earns more than replay, as a share of the best policy's return",
        arms={"five pipes": Gap(5, FIVE), "four pipes": Gap(4, FOUR)},
        checks=(Better("five pipes", "four pipes"),),
        expected="none with four pipes (four seeds of an earlier trial)",
        scales=SCALES,
    ),
)

"""Paper 057, SynthER: with half of its batches dreamt up, an agent is not led astray by many updates."""

from experiments.evidence import Better, Claim, Scale, Trained, TrainingReturn

EARLY = TrainingReturn(after=0.0)
SIZES = {"widths": (64, 64), "batch": 128, "warmup": 400}
DREAMS = {
    "period": 1_000,
    "samples": 5_000,
    "least": 500,
    "delay": 1,
    "plain_reward": False,
    "model": {"width": 128, "blocks": 3, "updates": 3_000, "lr": 1e-3, "average": 0.95, "levels": 24},
}

CLAIMS = (
    Claim(
        id="p057",
        paper=57,
        claim="SAC with 20 updates a step earns more over its first 3,000 steps where half of each batch is dreamt up.",
        environment="pendulum, 200 steps an episode; a refit every 1,000 steps",
        metric=str(EARLY),
        arms={
            "dreams": Trained("sac+synther", "pendulum", EARLY, {**SIZES, "ratio": 20, "synther": DREAMS}),
            "20 updates": Trained("sac", "pendulum", EARLY, {**SIZES, "ratio": 20}),
            "1 update": Trained("sac", "pendulum", EARLY, {**SIZES, "ratio": 1}),
        },
        checks=(Better("dreams", "20 updates"), Better("dreams", "1 update")),
        expected="15 % more than 20 updates of what was experienced alone",
        scales={"smoke": Scale(1_200, 1, 2), "cpu": Scale(3_000, 8, 15), "gpu": Scale(5_000, 10)},
    ),
)

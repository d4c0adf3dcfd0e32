"""Paper 057, SynthER: with half of its batches dreamt up, an agent makes more of many updates.

Not on the pendulum, where 20 updates of what was experienced did as well on three tuning seeds, so that nothing was
left to gain.
"""

from experiments.evidence import Better, Claim, Scale, Trained, TrainingReturn

EARLY = TrainingReturn(after=0.0)
SIZES = {"widths": (64, 64), "batch": 128, "warmup": 1_600}
DREAMS = {
    "period": 4_000,
    "samples": 5_000,
    "least": 500,
    "delay": 1,
    "plain_reward": False,
    "model": {"width": 128, "blocks": 3, "updates": 3_000, "lr": 1e-3, "average": 0.95, "levels": 24},
}


def arm(agent: str, ratio: int, **own):
    return Trained(agent, "cheetah-run", EARLY, {**SIZES, "ratio": ratio, **own}, repeat=4)


CLAIMS = (
    Claim(
        id="p057",
        paper=57,
        claim="SAC with 20 updates a step earns more over its first 6,000 steps where half of each batch is dreamt up.",
        environment="cheetah-run: action repeat 4, 250 steps an episode; a refit every 1,000 steps",
        metric=str(EARLY),
        arms={
            "dreams": arm("sac+synther", 20, synther=DREAMS),
            "20 updates": arm("sac", 20),
            "1 update": arm("sac", 1),
        },
        checks=(Better("dreams", "20 updates"), Better("dreams", "1 update")),
        expected="15 % more than 20 updates of what was experienced alone",
        scales={"smoke": Scale(6_000, 1, 2), "cpu": Scale(24_000, 8, 10), "gpu": Scale(200_000, 6)},
    ),
)

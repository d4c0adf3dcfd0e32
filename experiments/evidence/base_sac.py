"""SAC solves what it should: claims about our own base agent, not about a paper."""

from experiments.evidence import Claim, GreedyReturn, OnMostSeeds, Scale, Trained

SCORE = GreedyReturn(episodes=8)


def solves(task: str, repeat: int, level: float, steps: int, seeds: int, share: float, note: str) -> Claim:
    # A share of the run, so that a smoke run reaches some updates too; 5,000 frames of 100,000.
    arm = Trained("sac", task, SCORE, {"warmup": lambda scale: scale.steps // 20}, repeat=repeat)
    return Claim(
        id=f"sac-{task}",
        claim=f"SAC reaches a return of {level:g} on {task} within {steps:,} frames.",
        environment=f"{task}: action repeat {repeat}; {note}",
        metric=str(SCORE),
        arms={"sac": arm},
        checks=(OnMostSeeds("sac", level, share),),
        scales={
            "smoke": Scale(steps=300 * repeat, seeds=2, points=3),
            "cpu": Scale(steps, seeds),
            "gpu": Scale(steps, 10),
        },
    )


CLAIMS = (
    solves("cartpole-swingup", 8, 800, 100_000, 10, 0.9, "1000 control steps of 10 ms"),
    solves("pendulum", 1, -200, 10_000, 5, 0.8, "200 steps of 50 ms"),
    solves("reacher-easy", 4, 800, 100_000, 5, 0.8, "1000 control steps of 20 ms"),
)

"""SAC solves what it should: claims about our own base agent, not about a paper."""

from experiments.evidence import Better, Claim, GreedyReturn, OnMostSeeds, Scale, Trained, TrainingReturn

SCORE = GreedyReturn(episodes=8)


def solves(task: str, repeat: int, level: float, steps: int, seeds: int, share: float, note: str, **how) -> Claim:
    """A claim that SAC reaches a level on a share of the seeds; `how` changes its settings or the claim's seeds."""
    # A share of the run, so that a smoke run reaches some updates too; 5,000 frames of 100,000.
    settings = {"warmup": lambda scale: scale.steps // 20, **how.pop("settings", {})}
    arm = Trained("sac", task, SCORE, settings, repeat=repeat)
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
        **how,
    )


# At 100,000 frames 2x256 reached 800 on 3 of the seeds 0 to 4 (IQM 869 [254, 955]): one was just short of it, and one
# had not found the target. Hence twice the frames, a network that pays for them, and seeds that no one had looked at.
SMALLER = {"widths": (128, 128), "batch": 128}


def begins(task: str, repeat: int) -> Claim:
    """A claim that SAC is on its way after 100,000 frames, on a task that takes an accelerator to finish: a curve."""
    score = TrainingReturn(after=0.8)
    idle = {"warmup": lambda scale: scale.steps, "widths": (8,), "batch": 8}  # uniform actions to the end
    early = {"warmup": lambda scale: scale.steps // 20, **SMALLER}
    return Claim(
        id=f"sac-{task}",
        claim=f"SAC earns more than twice what uniform actions do on {task} before 100,000 frames are over.",
        environment=f"{task}: action repeat {repeat}; 1000 control steps",
        metric=str(score),
        arms={
            "sac": Trained("sac", task, score, early, repeat=repeat),
            "uniform": Trained("sac", task, score, idle, repeat=repeat),
        },
        checks=(Better("sac", "uniform", factor=2),),
        scales={
            "smoke": Scale(steps=6_000, seeds=2, points=3),
            "cpu": Scale(steps=100_000, seeds=3),
            "gpu": Scale(steps=100_000, seeds=10),
        },
    )


CLAIMS = (
    begins("finger-spin", 2),
    begins("walker-walk", 2),
    begins("cheetah-run", 4),
    solves("cartpole-swingup", 8, 800, 100_000, 10, 0.9, "1000 control steps of 10 ms"),
    solves("pendulum", 1, -200, 10_000, 5, 0.8, "200 steps of 50 ms"),
    solves(
        "reacher-easy",
        4,
        800,
        200_000,
        10,
        0.8,
        "1000 control steps of 20 ms",
        settings=SMALLER,
        test_seeds=tuple(range(10, 20)),
    ),
)

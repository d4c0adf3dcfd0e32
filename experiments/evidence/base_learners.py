"""SAC and what came after it, at equal frames on three tasks: is the ordering of the literature ours too?

Sizes for a CPU: two hidden layers of 128 where the papers have 256 to 2048 (SimbaV2's and FlashSAC's blocks, four times
as wide within, are 64 wide), and at most 4 updates a step where REDQ, DroQ and BRO have 10 to 20. What the papers claim
of their full sizes and ratios is not tried here. REDQ and DroQ take SAC's learning rate, which is 1e-3 here for so few
steps, so that what differs is theirs alone; the others keep their own.

Seeds 0 to 4 are not among the test seeds: SAC, TD3, REDQ and DroQ were looked at on them with other learning rates.
"""

from experiments.evidence import Better, Claim, GreedyReturn, Scale, Trained

STEPS = 15_000  # of the agent, each of which is one or more frames
SCORE = GreedyReturn(episodes=8)
WARMUP = {"warmup": lambda scale: scale.steps // 15}

TWO = {"widths": (128, 128)}
SETTINGS = {
    "sac": TWO,
    "td3": {**TWO, "lr": 1e-3},
    "redq": {**TWO, "critics": 5, "ratio": 4, "lr": 1e-3},
    "droq": {**TWO, "ratio": 4, "lr": 1e-3},
    "crossq": {**TWO, "critic_widths": (128, 128)},
    "simba_v2": {"widths": (64, 64), "ratio": 2},
    "bro": {"widths": (64, 128), "ratio": 2, "resets": ()},
    "xqc": {"widths": (64, 64), "critic_widths": (128, 128), "ratio": 2},
    "dr_q": {"widths": (64, 128), "codes": (64, 32)},
    "flash_sac": {"widths": (64,), "critic_widths": (64,), "batch": 256},
}


def compared(task: str, repeat: int) -> Claim:
    """A claim that each recipe after SAC is above it on a task, at equal frames."""
    arms = {name: Trained(name, task, SCORE, {**how, **WARMUP}, repeat=repeat) for name, how in SETTINGS.items()}
    return Claim(
        id=f"base-{task}",
        claim=f"After {STEPS:,} steps of {task} each recipe that followed SAC is above it.",
        environment=f"{task}: action repeat {repeat}; layers of 64 to 128, at most 4 updates a step",
        metric=str(SCORE),
        arms=arms,
        checks=tuple(Better(name, "sac") for name in SETTINGS if name not in ("sac", "td3")),
        scales={
            "smoke": Scale(steps=200 * repeat, seeds=1, points=2),
            "cpu": Scale(steps=STEPS * repeat, seeds=5),
        },
        test_seeds=tuple(range(10, 15)),
    )


def term(agent: str, task: str, repeat: int, claim: str, **changed: float) -> Claim:
    """A claim that one term of a recipe is what holds it back on a task: without it, it is better."""
    arm = lambda **more: Trained(agent, task, SCORE, {**SETTINGS[agent], **WARMUP, **more}, repeat=repeat)
    return Claim(
        id=f"term-{agent}-{task}",
        claim=claim,
        environment=f"{task}: action repeat {repeat}; otherwise as base-{task}",
        metric=str(SCORE),
        arms={"as published": arm(), "changed": arm(**changed)},
        checks=(Better("changed", "as published"),),
        scales={
            "smoke": Scale(steps=200 * repeat, seeds=1, points=2),
            "cpu": Scale(steps=STEPS * repeat, seeds=5),
        },
        test_seeds=tuple(range(10, 15)),
    )


CLAIMS = (
    compared("cheetah-run", 4),
    compared("walker-walk", 4),
    compared("finger-spin", 2),
    term(
        "crossq",
        "finger-spin",
        2,
        "CrossQ earns more within 15,000 steps of finger-spin if its actor learns at every update, not every third.",
        delay=1,
    ),
    term(
        "bro",
        "walker-walk",
        4,
        "BRO earns more within 15,000 steps of walker-walk with SAC's learning rate and a temperature from 0.1 on.",
        alpha=0.1,
        lr=1e-3,
    ),
)

"""Agents that see: at their authors' sizes on the tasks that the papers show, for a GPU, and small ones for a CPU.

The authors' curves after a million frames: DrQ-v2 729 on cheetah-run, 546 on walker-run, 224 on hopper-hop, 459 on
quadruped-run; the newer ones above it. Deviations: our models of the bodies (docs/envs/control.md) and our renderer
(docs/envs/render.md), replays of 200,000 pictures, TACO at DrQ-v2's batch beside its own of 1024. None of those has
been run yet.

For a CPU: pictures of 48 pixels, two convolutions, layers of 256, batches of 128, an update a step and five times the
learning rate; what the mechanisms do by the clock comes ten times as often, as the run is a tenth as long. Returns are
of one step and the discount is 0.97: at an action repeat of 8 three steps are 24 frames of what the noise did, and with
them the policy mostly ended against a bound, whatever the rate and the noise (tuning seeds).
"""

from experiments.evidence import Better, Claim, GreedyReturn, OnMostSeeds, Scale, Trained

SCORE = GreedyReturn(episodes=10)
SIZES = {"capacity": 200_000, "noise_frames": lambda scale: scale.steps}
WARY = {"keep": (0.2, 0.9)}  # DrM's and MENTOR's for the humanoid
TASKS = {
    "cheetah-run": {},
    "walker-run": {"n": 1, "batch": 512},
    "hopper-hop": {},
    "quadruped-run": {"capacity": 100_000},
    "humanoid-walk": {"lr": 8e-5, "features": 100},
}


def agents(task: str, own: dict) -> dict[str, tuple[str, dict]]:
    """By arm its agent and settings. TACO has DrQ-v2's batch, and its own besides where that is another."""
    keep = WARY if task.startswith("humanoid") else {}
    theirs = {} if task.startswith("walker") else {"taco, batches of 1024": ("taco", {**own, "batch": 1024})}
    return {
        "drqv2": ("drqv2", own),
        "drm": ("drm", {**own, "drm": keep}),
        "mentor": ("mentor", {**own, "mentor": keep}),
        "taco": ("taco", {"batch": 256, **own}),
        **theirs,
        "drqv2+adaptive_rr": ("drqv2+adaptive_rr", own),
    }


def seen(task: str, own: dict) -> Claim:
    """A claim that each of the newer agents is above DrQ-v2 after a million frames of a task."""
    made = agents(task, own)
    arms = {
        name: Trained(agent, task, SCORE, {**SIZES, **how}, repeat=2, pixels=84, starts=256)
        for name, (agent, how) in made.items()
    }
    return Claim(
        id=f"visual-{task}",
        claim=f"After a million frames of {task}, seen in 84 pixels, each agent that followed DrQ-v2 is above it.",
        environment=f"{task}: 84 x 84 x 3 pixels, stacks of 3, action repeat 2, 1000 frames an episode",
        metric=str(SCORE),
        arms=arms,
        checks=tuple(Better(name, "drqv2") for name in made if name != "drqv2"),
        scales={"smoke": Scale(steps=4_800, seeds=1, points=2), "gpu": Scale(steps=1_000_000, seeds=3)},
        expected="the authors' ordering",
    )


SMALL = {
    "channels": (32, 64),
    "strides": (4, 2),
    "sizes": (4, 2),
    "widths": (256, 256),
    "batch": 128,
    "capacity": 20_000,
    "unroll": 1,
    "pad": 2,
    "lr": 5e-4,
    "n": 1,
    "gamma": 0.97,
    "warmup": lambda scale: scale.steps // 20,
    "noise_frames": lambda scale: scale.steps // 2,
}
SHORT = {
    "drqv2": ("drqv2", {}),
    "drm": ("drm", {"drm": {"period": 20_000}}),
    "taco": ("taco", {"taco": {"hidden": 256}}),
    "mentor": ("mentor", {"mentor": {"period": 4_000, "moe": {"experts": 4, "k": 2}}}),
}


def small(name: str, task: str, repeat: int, episodes: int = 8) -> Trained:
    agent, how = SHORT[name]
    return Trained(agent, task, GreedyReturn(episodes), {**SMALL, **how}, repeat=repeat, pixels=48)


def learns(
    task: str,
    repeat: int,
    level: float,
    steps: int,
    others: tuple[str, ...] = (),
    seeds: int = 8,
    share: float = 0.75,
    episodes: int = 8,
) -> Claim:
    """A claim that DrQ-v2 reaches a level on a task on most seeds, and each of the others more."""
    more = f", and {' and '.join(others)} more" if others else ""
    return Claim(
        id=f"drqv2-{task}",
        claim=f"DrQ-v2 reaches {level:g} on {task} from pictures of 48 pixels within {steps:,} frames{more}.",
        environment=f"{task}: 48 x 48 x 3 pixels, stacks of 3, action repeat {repeat}, 1000 frames an episode",
        metric=str(GreedyReturn(episodes)),
        arms={name: small(name, task, repeat, episodes) for name in ("drqv2", *others)},
        checks=(OnMostSeeds("drqv2", level, share), *(Better(name, "drqv2") for name in others)),
        scales={"smoke": Scale(steps=300 * repeat, seeds=1, points=3), "cpu": Scale(steps, seeds)},
        test_seeds=tuple(range(10, 20)),  # the first ten have been seen with returns of three steps
    )


CLAIMS = (
    *(seen(task, own) for task, own in TASKS.items()),
    learns("cartpole-swingup", 8, 300, 100_000, ("taco",)),
    learns("reacher-easy", 8, 400, 300_000, seeds=3, share=2 / 3, episodes=32),  # an episode has 0 or nearly all
)

"""Paper 015, MEX: to look for the model that is worth most, less its misfit, explores; and so may critics that lean up.

With all models of a small world to choose from, against optimism by bonus and against chance; then its deep form
without a model, on a task that pays only near its goal.
"""

from experiments.evidence import Better, Claim, OnMostSeeds, Scale, Trained, TrainingReturn

LATE, ALL = TrainingReturn(after=0.8), TrainingReturn(after=0.0)
EPISODES = 500
SEEDS = tuple(range(20))
LEARNERS = {
    "mex": ("mex_tabular", {}),
    "ucbvi": ("ucbvi", {"scale": 0.003}),  # the best of 0.003, 0.01 and 0.03 on the tuning seeds
    "by chance": ("ucbvi", {"scale": 0.0, "epsilon": 0.1}),
}


def small(task: str, score: TrainingReturn) -> dict[str, Trained]:
    return {name: Trained(agent, task, score, how, layout="vmap") for name, (agent, how) in LEARNERS.items()}


def scales(horizon: int) -> dict[str, Scale]:
    return {
        "smoke": Scale(10 * horizon, 1, 2),
        "cpu": Scale(EPISODES * horizon, len(SEEDS)),
        "gpu": Scale(4 * EPISODES * horizon, len(SEEDS)),
    }


PLAIN = {"widths": (64, 64), "batch": 64, "lr": 1e-3, "warmup": 4_000, "capacity": 50_000}


def deep(eta: float | None = None, **more: bool) -> Trained:
    """TD3 on a task that pays near its goal alone, with critics that lean up by a weight."""
    agent, own = ("td3", {}) if eta is None else ("td3+mex", {"mex": {"eta": eta, **more}})
    return Trained(agent, "reacher-easy", ALL, {**PLAIN, **own}, repeat=4)


RIVER = "tabular-river-swim: 6 states, 20 steps; the best policy earns 3.40 an episode on average"
SEA = "tabular-deep-sea: 10 x 10 states, 10 steps; the best policy earns 0.99 an episode"


def found(name: str, task: str, where: str, what: str, level: float, horizon: int) -> Claim:
    """A claim that MEX finds what is far, and chance does not."""
    return Claim(
        id=name,
        paper=15,
        claim=f"MEX with all models of {what}, which a greedy planner with a tenth of its actions by chance does not.",
        environment=where,
        metric=str(LATE),
        arms=small(task, LATE),
        checks=(OnMostSeeds("mex", level, 0.9), Better("mex", "by chance")),
        expected="18 seeds of 20, against 4",
        scales=scales(horizon),
        test_seeds=SEEDS,
    )


CLAIMS = (
    found("p015", "tabular-river-swim", RIVER, "RiverSwim finds the far reward", 0.8 * 3.40, 20),
    found("p015-sea", "tabular-deep-sea", SEA, "the deep sea finds its treasure", 0.9 * 0.99, 10),
    Claim(
        id="p015-regret",
        paper=15,
        claim="Over all episodes on RiverSwim MEX earns at least nine tenths of what UCBVI with its best bonus does.",
        environment=RIVER,
        metric=str(ALL),
        arms=small("tabular-river-swim", ALL),
        checks=(Better("mex", "ucbvi", factor=0.9), Better("mex", "by chance")),
        expected="as little regret",
        scales=scales(20),
        test_seeds=SEEDS,
    ),
    Claim(
        id="p015-sparse",
        paper=15,
        claim="TD3 whose critics lean up by a little earns more on the way where only being near a goal pays.",
        environment="reacher-easy, from states: 1 at the target, 0 elsewhere; action repeat 4, 250 steps an episode",
        metric=str(ALL),
        arms={
            "td3": deep(),
            "mex": deep(0.005),
            "mex, a fifth": deep(0.001),
            "mex, standing out": deep(0.005, standing_out=True),
        },
        checks=(Better("mex", "td3"),),
        expected="the goal is found in 20 more of 100 runs",
        scales={"smoke": Scale(6_000, 1, 2), "cpu": Scale(100_000, 10), "gpu": Scale(400_000, 10)},
    ),
)

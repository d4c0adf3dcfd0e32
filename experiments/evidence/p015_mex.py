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


RIVER, SEA = "tabular-river-swim: 6 states, 20 steps", "tabular-deep-sea: 10 x 10 states, 10 steps"

CLAIMS = (
    Claim(
        id="p015",
        paper=15,
        claim="MEX with all models of RiverSwim finds the far reward, which a greedy planner with a tenth of its "
        "actions by chance does not.",
        environment=f"{RIVER}; the best policy earns 3.40 an episode on average",
        metric=str(LATE),
        arms=small("tabular-river-swim", LATE),
        checks=(OnMostSeeds("mex", 0.8 * 3.40, 0.9), Better("mex", "by chance")),
        expected="18 seeds of 20, against 4",
        scales=scales(20),
        test_seeds=SEEDS,
    ),
    Claim(
        id="p015-sea",
        paper=15,
        claim="MEX with all models of the deep sea finds its treasure, which a greedy planner with a tenth of its "
        "actions by chance does not.",
        environment=f"{SEA}; the best policy earns 0.99 an episode",
        metric=str(LATE),
        arms=small("tabular-deep-sea", LATE),
        checks=(OnMostSeeds("mex", 0.9 * 0.99, 0.9), Better("mex", "by chance")),
        expected="18 seeds of 20, against 4",
        scales=scales(10),
        test_seeds=SEEDS,
    ),
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
)

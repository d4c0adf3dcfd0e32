"""Paper 038, CIP: to know what causes the reward makes exploration and data about that.

A point that is to go to a place, among twenty numbers that go their own way and four of the action that do nothing.
"""

from experiments.evidence import AtLeast, Better, Claim, Scale, Trained, TrainingReturn
from experiments.evidence.modelled import Left

SIZES = {"widths": (64, 64), "batch": 64, "warmup": 1_000}
LOOKS = {"period": 2_000, "samples": 5_000}
NONE = {"entropy": False, "exchanged": 0.0, "empowerment": 0.0}
WHOLE = TrainingReturn(after=0.0)


def treated(**parts) -> Trained:
    return Trained("sac+cip", "point-among-noise", WHOLE, {**SIZES, "cip": {**LOOKS, **NONE, **parts}})


ARMS = {
    "sac": Trained("sac", "point-among-noise", WHOLE, SIZES),
    "exchange": treated(exchanged=0.5),
    "entropy": treated(entropy=True),
    "empowerment": treated(empowerment=0.01),
    "all": treated(exchanged=0.5, entropy=True, empowerment=0.01),
}
WHERE = "point-among-noise: 24 numbers seen, 4 of them the point's; 6 of the action, 2 of them its; 50 steps an episode"
SCALES = {"smoke": Scale(3_000, 1, 3), "cpu": Scale(15_000, 10), "gpu": Scale(30_000, 10)}


def told(run, recipe, env, key):
    """By how much more the action's numbers that matter weigh than the others, the least against the most."""
    from jaxrl.agents.cip import Config, weights

    found = weights(run.parts["causal"]["action"], Config().sharpness)
    return found[:2].min() / found[2:].max()


CLAIMS = (
    Claim(
        id="p038",
        paper=38,
        claim="SAC that exchanges what causes nothing, counts entropy by what actions cause and is paid for what can "
        "be told of them earns more on the way than SAC.",
        environment=WHERE,
        metric=str(WHOLE),
        arms=ARMS,
        checks=(Better("all", "sac"), Better("exchange", "sac")),
        expected="80 % of the final return in 0.7 of the steps, by the exchange alone",
        scales=SCALES,
    ),
    Claim(
        id="p038-weights",
        paper=38,
        claim="From its own experience the agent knows which two of six numbers of its action have effects.",
        environment=WHERE,
        metric="the least weight of the two over the largest of the others",
        arms={"all": Left(ARMS["all"], told)},
        checks=(AtLeast("all", 3.0),),
        expected="three times the weight",
        scales=SCALES,
    ),
)

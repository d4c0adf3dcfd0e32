"""Paper 038, CIP: to know what causes the reward makes exploration and data about that.

A point that is to go to a place, among twenty numbers that go their own way and four of the action that do nothing.
"""

from experiments.evidence import Trained, TrainingReturn

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

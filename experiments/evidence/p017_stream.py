"""Paper 017, streaming deep RL: each of its stabilisers is needed for stream Q(lambda) to learn CartPole.

The sizes expected come from a run of another implementation of the same card (10 seeds, last episodes: full 442, no
normalisation 298, no bound 189 at best, no LayerNorm 9). The dense initialisation is reported only: there its gap was
within the noise.
"""

from experiments.evidence import AtLeast, Better, Claim, Scale, Trained, TrainingReturn

SCORE = TrainingReturn(after=0.5)


def arm(**settings):
    # Tiny networks: on any machine all seeds side by side cost little more than one.
    return Trained("stream_q", "cartpole", SCORE, settings, layout="vmap")


CLAIMS = (
    Claim(
        id="p017",
        paper=17,
        claim="Stream Q(lambda) learns CartPole from single samples, without replay or target network, and needs its "
        "step-size bound, its normalisation and its LayerNorm to do so.",
        environment="cartpole: 500-step limit, no repeat; the limit truncates",
        metric=str(SCORE),
        arms={
            "full": arm(),
            "no normalisation": arm(normalise=False),
            "no bound": arm(bound=False),
            "no LayerNorm": arm(layer_norm=False),
            "dense init": arm(sparsity=0.0),
        },
        checks=(
            AtLeast("full", 400),
            Better("full", "no normalisation", apart=True),
            Better("full", "no bound", apart=True),
            Better("full", "no LayerNorm", apart=True),
        ),
        expected="full at least 400 of 500; 140 above no normalisation, 250 above no bound, 430 above no LayerNorm",
        scales={
            "smoke": Scale(steps=4_000, seeds=2, points=4),
            "cpu": Scale(steps=200_000, seeds=10),
            "gpu": Scale(steps=1_000_000, seeds=10),
        },
    ),
)

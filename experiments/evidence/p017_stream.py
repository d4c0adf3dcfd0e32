"""Paper 017, streaming deep RL: each of its stabilisers is needed for stream Q(lambda) to learn CartPole.

The sizes expected come from a run of another implementation of the same card (10 seeds, last episodes: full 442, no
normalisation 298, no bound 189 at step 0.001 and 66 at 0.01, no LayerNorm 9). Without its bound the paper's step of 1
diverges at once, which would prove little: the arms without it have the steps that suited them. The dense
initialisation is reported only: there the gap was within the noise. Seeds differ much, as single streams do: on 30
tuning seeds the full method gave 429 [387, 459] and no normalisation 308 [229, 382]; hence 100 test seeds, so that the
intervals can tell.
"""

from experiments.evidence import AtLeast, Better, Claim, Scale, Trained, TrainingReturn

SCORE = TrainingReturn(after=0.5)


def arm(**settings):
    explore = {"epsilon_frames": lambda scale: scale.steps // 10}
    # Tiny networks: on any machine all seeds side by side cost little more than one.
    return Trained("stream_q", "cartpole", SCORE, {**explore, **settings}, layout="vmap")


CLAIMS = (
    Claim(
        id="p017",
        paper=17,
        claim="Stream Q(lambda) learns CartPole from single samples, without replay or target network, and needs its "
        "step-size bound, its normalisation and its LayerNorm to do so.",
        environment="cartpole: 500-step limit, no repeat; the limit counts as an end, as in the authors' code",
        metric=str(SCORE),
        arms={
            "full": arm(),
            "no normalisation": arm(normalise=False),
            "no bound, step 0.001": arm(bound=False, lr=1e-3),
            "no bound, step 0.01": arm(bound=False, lr=1e-2),
            "no LayerNorm": arm(layer_norm=False),
            "dense init": arm(sparsity=0.0),
        },
        checks=(
            AtLeast("full", 400),
            Better("full", "no normalisation", apart=True),
            Better("full", "no bound, step 0.001", apart=True),
            Better("full", "no bound, step 0.01", apart=True),
            Better("full", "no LayerNorm", apart=True),
        ),
        expected="full at least 400 of 500; 140 above no normalisation, 250 above no bound, 430 above no LayerNorm",
        scales={
            "smoke": Scale(steps=4_000, seeds=2, points=4),
            "cpu": Scale(steps=200_000, seeds=100),
            "gpu": Scale(steps=200_000, seeds=100),
        },
        test_seeds=tuple(range(100)),
        tuning_seeds=tuple(range(100, 130)),
    ),
)

"""DrQ-v2 learns from pictures that the device draws. A claim about our own base agent, at a size for a CPU."""

from experiments.evidence import Claim, GreedyReturn, OnMostSeeds, Scale, Trained

SCORE = GreedyReturn(episodes=8)

# A smaller encoder and batch than the paper's, and twice as many updates: `make train PIXELS=48`.
SMALL = {"channels": (16, 16, 16), "strides": (2, 2, 1), "widths": (256, 256), "batch": 64, "lr": 1e-3, "unroll": 1}
SMALL |= {"capacity": 20_000, "noise_frames": lambda scale: scale.steps // 2, "warmup": lambda scale: scale.steps // 25}

CLAIMS = (
    Claim(
        id="drqv2-cartpole-swingup",
        claim="DrQ-v2 reaches a return of 600 on cartpole-swingup from pictures of 48 pixels within 100,000 frames.",
        environment="cartpole-swingup: action repeat 8; 1000 control steps of 10 ms; 48 x 48 x 3 pixels, stacks of 3",
        metric=str(SCORE),
        arms={"drqv2": Trained("drqv2", "cartpole-swingup", SCORE, SMALL, repeat=8, pixels=48)},
        checks=(OnMostSeeds("drqv2", 600),),
        scales={
            "smoke": Scale(steps=2_400, seeds=1, points=3),
            "cpu": Scale(steps=100_000, seeds=3),
            "gpu": Scale(steps=100_000, seeds=10),
        },
    ),
)

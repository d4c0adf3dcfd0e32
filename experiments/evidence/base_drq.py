"""DrQ learns from pictures that the device draws. A claim about our own base agent, at a size for a CPU."""

from experiments.evidence import Claim, GreedyReturn, OnMostSeeds, Scale, Trained

SCORE = GreedyReturn(episodes=8)

CLAIMS = (
    Claim(
        id="drq-cartpole-swingup",
        claim="DrQ reaches a return of 600 on cartpole-swingup from pictures of 48 pixels within 100,000 frames.",
        environment="cartpole-swingup: action repeat 8; 1000 control steps of 10 ms; 48 x 48 x 3 pixels, stacks of 3",
        metric=str(SCORE),
        arms={
            "drq": Trained(
                "drq", "cartpole-swingup", SCORE, {"warmup": lambda scale: scale.steps // 20}, repeat=8, pixels=48
            )
        },
        checks=(OnMostSeeds("drq", 600),),
        scales={
            "smoke": Scale(steps=2_400, seeds=1, points=3),
            "cpu": Scale(steps=100_000, seeds=3),
            "gpu": Scale(steps=100_000, seeds=10),
        },
    ),
)

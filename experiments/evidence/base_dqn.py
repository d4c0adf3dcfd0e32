"""DQN solves what it should: a claim about our own base agent, not about a paper."""

from experiments.evidence import Claim, GreedyReturn, OnMostSeeds, Scale, Trained

SCORE = GreedyReturn(episodes=16)

SETTINGS = {"warmup": lambda scale: min(1_000, scale.steps // 2), "decay_frames": lambda scale: scale.steps}

CLAIMS = (
    Claim(
        id="dqn-cartpole",
        claim="DQN reaches a return of 475 on CartPole within 200,000 steps.",
        environment="cartpole: 500-step limit, no repeat",
        metric=str(SCORE),
        arms={"dqn": Trained("dqn", "cartpole", SCORE, SETTINGS)},
        checks=(OnMostSeeds("dqn", 475, share=0.8),),
        scales={
            "smoke": Scale(steps=2_000, seeds=2, points=4),
            "cpu": Scale(steps=200_000, seeds=10),
            "gpu": Scale(steps=200_000, seeds=10),
        },
    ),
)

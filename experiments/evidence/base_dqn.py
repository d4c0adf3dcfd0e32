"""DQN solves what it should: a claim about our own base agent, not about a paper."""

from experiments.evidence import Claim, GreedyReturn, OnMostSeeds, Scale, Trained

SCORE = GreedyReturn(episodes=16)

CLAIMS = (
    Claim(
        id="dqn-cartpole",
        claim="DQN reaches a return of 400 on CartPole within 50,000 steps.",
        environment="cartpole: 500-step limit, no repeat",
        metric=str(SCORE),
        arms={"dqn": Trained("dqn", "cartpole", SCORE, {"warmup": lambda scale: min(1_000, scale.steps // 2)})},
        checks=(OnMostSeeds("dqn", 400, share=0.8),),
        scales={
            "smoke": Scale(steps=2_000, seeds=2, points=4),
            "cpu": Scale(steps=50_000, seeds=10),
            "gpu": Scale(steps=50_000, seeds=10),
        },
    ),
)

"""Stream TD predicts what it should: a known answer, and a series that keeps changing."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from experiments.evidence import Better, Claim, OnMostSeeds, Outcome, Scale


def predictions(env_id: str, settings: dict, scale: Scale, seeds: tuple[int, ...], freeze_at: float = 1.0):
    """Stream TD along one stream a seed: `(forecast, reward) [seeds, steps]`, final runs [seeds] and the recipe.

    From a share `freeze_at` of the stream on, nothing is learned any more.
    """
    from envs.registry import make
    from jaxrl.agents import stream_td
    from jaxrl.loop import loop

    env = make(env_id)
    recipe = stream_td.recipe(env.specs, stream_td.Config(**settings))
    learning, frozen = loop(env, recipe), loop(env, replace(recipe, ratio=0))

    def ticks(one, run, length):
        def tick(run, _):
            run, seen = one.collect(run)
            return one.learn(run, seen)[0], (seen["extras"]["prediction"][0, 0], seen["reward"][0, 0])

        return jax.lax.scan(tick, run, None, length=length)

    def stream(key):
        split = int(freeze_at * scale.steps)
        run, before = ticks(learning, learning.init(key), split)
        run, after = ticks(frozen, run, scale.steps - split)
        return run, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), before, after)

    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    runs, seen = jax.jit(jax.vmap(stream))(keys)
    return (*seen, runs, recipe)


WALK = {"width": 32, "gamma": 1.0, "lambda_": 0.8, "lr": 5e-5, "sparsity": 0.0, "normalise": False}


def walk_error(scale: Scale, seeds: tuple[int, ...]) -> Outcome:
    """Minus the root mean square error of the five places' values, mid-episode, by the final weights."""
    from jaxrl.core import Ctx

    _, _, runs, recipe = predictions("random-walk", WALK, scale, seeds)

    def value(parts, place):
        ctx = Ctx(jax.random.key(0), jnp.int32(0))
        return recipe.agent.act(parts, jnp.int32(5), jax.nn.one_hot(place, 5), ctx, False)[2]["prediction"]

    found = jax.vmap(jax.vmap(value, (None, 0)), (0, None))(runs.parts, jnp.arange(5))
    error = np.sqrt(((np.asarray(found) - np.arange(1, 6) / 6) ** 2).mean(axis=1))
    return Outcome(-error)


def explained(freeze_at: float):
    """An arm: the share of the discounted return's variance that the forecasts explain, over the stream's last half."""

    def arm(scale: Scale, seeds: tuple[int, ...]) -> Outcome:
        from jaxrl.agents.stream_td import Config
        from jaxrl.equations.returns import lambda_returns

        gamma = Config().gamma
        forecast, reward, _, _ = predictions("drifting-series", {}, scale, seeds, freeze_at)
        discount = jnp.full(reward.shape[1:], gamma)
        actual = jax.vmap(lambda r: lambda_returns(r, discount, jnp.zeros_like(r), 1.0))(reward)
        window = slice(scale.steps // 2, scale.steps - 100)  # the last returns are cut short
        forecast, actual = np.asarray(forecast)[:, window], np.asarray(actual)[:, window]
        return Outcome(1 - ((actual - forecast) ** 2).mean(axis=1) / actual.var(axis=1))

    return arm


CLAIMS = (
    Claim(
        id="stream-td-random-walk",
        claim="Stream TD converges to the values of the five-state random walk, 1/6 to 5/6.",
        environment="random-walk: 5 places, start in the middle, reward 1 at the right exit; a small "
        "constant step of 5e-5, discount 1, dense initialisation, rewards and observations as they are",
        metric="minus the root mean square error over the five places",
        arms={"stream td": walk_error},
        checks=(OnMostSeeds("stream td", -0.04),),
        scales={"smoke": Scale(2_000, 2), "cpu": Scale(400_000, 10), "gpu": Scale(400_000, 10)},
    ),
    Claim(
        id="stream-td-drifting-series",
        claim="Stream TD follows a series whose level, amplitude and period change at once every 2,000 steps.",
        environment="drifting-series: 8 lags observed, noise 0.05",
        metric="share of the variance of the discounted return explained over the last half of the stream",
        arms={"streaming": explained(1.0), "frozen at half": explained(0.5)},
        checks=(OnMostSeeds("streaming", 0.8), Better("streaming", "frozen at half")),
        scales={"smoke": Scale(4_000, 2), "cpu": Scale(40_000, 10), "gpu": Scale(40_000, 10)},
    ),
)

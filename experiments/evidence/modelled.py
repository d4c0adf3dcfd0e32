"""What claims about learners with models share: their sizes, and arms that look into the run that training leaves."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from experiments.evidence import Outcome, Scale, Trained

MODEL = {"members": 5, "elites": 5, "widths": (64, 64), "batch": 32}  # few data ask for small batches
SAC = {"widths": (64, 64), "batch": 64, "warmup": 400, "ratio": 10}


def model_based(agent: str, task: str, score: Any, repeat: int = 1, **own: Any) -> Trained:
    """An agent on top of SAC, with a model of five members of 2 x 64, fitted each 250 frames.

    Args:
        own: settings of the additions, by their names; `mbpo` and `coplanner` have the model.
    """
    last = next(name for name in reversed(agent.split("+")) if name in ("mbpo", "coplanner"))
    mine = {"period": 250 * repeat, "model": MODEL, **own.pop(last, {})}
    return Trained(agent, task, score, {**SAC, "warmup": 400 * repeat, last: mine, **own}, repeat=repeat)


@dataclass(frozen=True)
class Sooner:
    """An arm that is given a share of the scale's steps."""

    of: Trained
    share: float

    def __call__(self, scale: Scale, seeds: tuple[int, ...]) -> Outcome:
        return self.of(replace(scale, steps=round(scale.steps * self.share)), seeds)


@dataclass(frozen=True)
class Left:
    """An arm whose score is a number that the run at the end of training tells.

    Attributes:
        of: what is trained.
        tell: `(run, recipe, env, key) -> []`.
    """

    of: Trained
    tell: Callable[..., Any]

    def __call__(self, scale: Scale, seeds: tuple[int, ...]) -> Outcome:
        import jax

        import envs
        from experiments.evidence.fitting import each_seed
        from experiments.evidence.training import bounded
        from jaxrl.agents.combined import configured, find
        from jaxrl.loop import loop

        module = find(self.of.agent)
        env = bounded(envs.make(self.of.environment, repeat=self.of.repeat))
        recipe = module.recipe(env.specs, configured(module.Config, self.of.chosen(scale)))
        one = loop(env, recipe)

        def each(key):
            run, _ = one.chunk(one.init(key), scale.steps // one.frames)
            return self.tell(run, recipe, env, jax.random.fold_in(key, 1))

        return each_seed(each, seeds)

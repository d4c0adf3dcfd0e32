"""What a claim is, and when it holds.

A claim names arms (functions that run something on given seeds and return a score a seed) and checks on the arms'
scores. It is judged on test seeds that no tuning has seen. `python -m experiments.evidence ID --scale cpu` runs one.

A paper's claim is one file here, `pNNN_name.py`; claims about the agents that papers build on are in `base_name.py`.
Each such file exports `CLAIMS`. Nothing in it imports jax until an arm runs, so that names and mistakes in them cost
no time.
"""

import importlib
import math
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxrl.statistics import difference, interval, iqm, proportion

Verdict = Literal["supported", "not supported", "inconclusive"]
Scores = dict[str, NDArray]  # by arm: [seeds]


class Outcome(NamedTuple):
    """What an arm returns.

    Fields: scores [seeds]; steps [points] and curve [seeds, points], the learning curve (NaN where nothing was
    measured; both may be empty); compile_seconds, spent before anything ran; axes, what steps and curve are, in words.
    """

    scores: NDArray
    steps: NDArray = np.zeros(0)
    curve: NDArray = np.zeros((0, 0))
    compile_seconds: float = 0.0
    axes: tuple[str, str] = ("frames", "return of training episodes")


@dataclass(frozen=True)
class Scale:
    """How much to spend: frames of one run, how many of the claim's test seeds, points of the learning curve."""

    steps: int
    seeds: int
    points: int = 20


Arm = Callable[[Scale, tuple[int, ...]], Outcome]


# ----------------------------------------------------------------------------------------------------------- checks


@dataclass(frozen=True)
class Finding:
    """What a check found: `effect` lies within [low, high] with 95 % confidence; `level` is the score asked for.

    low and high are NaN where there is one seed, and equal where no score depends on the seed.
    """

    check: str
    verdict: Verdict
    effect: float
    low: float
    high: float
    level: float | None = None


@dataclass(frozen=True)
class Better:
    """The treated arm's IQM exceeds `factor` times the baseline's by more than `by`.

    Supported where the interval of that difference lies above `by` (and, if `apart`, where moreover the two arms' own
    intervals do not touch); not supported where it lies at or below `by`; inconclusive between.
    """

    treated: str
    baseline: str
    by: float = 0.0
    factor: float = 1.0
    apart: bool = False

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.treated, self.baseline)

    def judge(self, scores: Scores) -> Finding:
        treated, baseline = scores[self.treated], self.factor * np.asarray(scores[self.baseline])
        effect, low, high = difference(treated, baseline)
        holds = low > self.by and (not self.apart or interval(treated)[0] > interval(baseline)[1])
        scaled = self.baseline if self.factor == 1 else f"{self.factor:g} x {self.baseline}"
        return Finding(f"{self.treated} - {scaled} > {self.by:g}", _verdict(holds, high <= self.by), effect, low, high)


@dataclass(frozen=True)
class AtLeast:
    """The arm's IQM is at least `level`: judged by where its interval lies. The effect is the IQM above the level."""

    treated: str
    level: float

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.treated,)

    def judge(self, scores: Scores) -> Finding:
        effect, low, high = _above(scores[self.treated], self.level)
        verdict = _verdict(low >= 0, high < 0)
        return Finding(f"{self.treated} >= {self.level:g}", verdict, effect, low, high, self.level)


@dataclass(frozen=True)
class OnMostSeeds:
    """Most seeds reach `level`: at least a `share` of those that ran, and more than half of all that there could be.

    Supported where that share of the seeds that ran reach it and the exact 95 % interval (Clopper and Pearson 1934) of
    the probability that a seed does lies above one half, so that a level which half of all seeds reach is supported in
    at most 2.5 % of cases; 6 seeds are the fewest that can. Not supported where the interval lies below `share`.
    """

    treated: str
    level: float
    share: float = 0.9

    @property
    def arms(self) -> tuple[str, ...]:
        return (self.treated,)

    def judge(self, scores: Scores) -> Finding:
        values = np.asarray(scores[self.treated])
        reached, needed = int((values >= self.level).sum()), math.ceil(self.share * len(values) - 1e-9)
        check = f"{self.treated} >= {self.level:g} on at least {needed} of {len(values)} seeds (here {reached})"
        low, high = proportion(reached, len(values))
        verdict = _verdict(reached >= needed and low > 0.5, reached < needed and high < self.share)
        return Finding(check, verdict, *_above(values, self.level), self.level)


def _verdict(holds: bool, fails: bool) -> Verdict:
    return "supported" if holds else "not supported" if fails else "inconclusive"


def _above(scores: NDArray, level: float) -> tuple[float, float, float]:
    low, high = interval(scores)
    return float(iqm(scores)) - level, low - level, high - level


# ----------------------------------------------------------------------------------------------------------- claims


@dataclass(frozen=True)
class Claim:
    """One claim: who says what, how it is measured, and what would make it hold.

    Attributes:
        id: names the record; `pNNN` for a paper's.
        claim: what is claimed, one sentence.
        environment: where, with repeat, limits and deviations from the paper.
        metric: what a score is, with its unit.
        arms: what is run, by name.
        checks: what must hold, the main one first; arms that no check names are only reported.
        scales: by name, of `smoke` (seconds), `cpu` (minutes to about an hour), `gpu`.
        paper: its number in docs/papers.json, or None.
        expected: the size of the effect expected beforehand, in words.
        test_seeds: judged by; a scale takes the first of them.
        tuning_seeds: for choosing settings.

    Raises:
        BadInput: a test seed is a tuning seed, a scale asks for more seeds than there are, a check names no arm.
    """

    id: str
    claim: str
    environment: str
    metric: str
    arms: dict[str, Arm]
    checks: tuple[Better | AtLeast | OnMostSeeds, ...]
    scales: dict[str, Scale]
    paper: int | None = None
    expected: str = ""
    test_seeds: tuple[int, ...] = field(default=tuple(range(10)))
    tuning_seeds: tuple[int, ...] = field(default=tuple(range(100, 105)))

    def __post_init__(self):
        shared = sorted(set(self.test_seeds) & set(self.tuning_seeds))
        if shared:
            raise bad_input(f"claim {self.id}: test seed {shared[0]} is also a tuning seed; keep the two apart.")
        if not self.checks:
            raise bad_input(f"claim {self.id}: checks is empty, so nothing could make it fail.")
        for check in self.checks:
            for arm in check.arms:
                if arm not in self.arms:
                    raise unknown(f"arm in a check of claim {self.id}", arm, self.arms)
        for name, scale in self.scales.items():
            held = len(self.test_seeds)
            if not 1 <= scale.seeds <= held:
                raise bad_input(f"claim {self.id}: scale {name} asks for {scale.seeds} of the {held} test seeds.")


def overall(findings: tuple[Finding, ...]) -> Verdict:
    """A claim holds where all of its checks do, and does not where one of them does not."""
    verdicts = {finding.verdict for finding in findings}
    return _verdict(verdicts == {"supported"}, "not supported" in verdicts)


def claims() -> dict[str, Claim]:
    """Every claim in this folder, by id."""
    stems = sorted(m.name for m in pkgutil.iter_modules(__path__) if re.match(r"p\d{3}_|base_", m.name))
    modules = [importlib.import_module(f"{__name__}.{stem}") for stem in stems]
    return {claim.id: claim for module in modules for claim in module.CLAIMS}


# ------------------------------------------------------------------------------------------------------- usual arms


@dataclass(frozen=True)
class TrainingReturn:
    """A seed's score is the mean return of the training episodes that end after a share of the run."""

    after: float = 0.5

    def __str__(self):
        return f"mean return of training episodes ending in the last {1 - self.after:.0%} of the run"


@dataclass(frozen=True)
class FirstBelow:
    """A seed's score is minus the frames after which a metric's mean over a point of the curve is first below a level.

    Where it never is, it counts as reached one point after the end. The curve is the metric's.
    """

    metric: str
    level: float

    def __str__(self):
        return f"minus the frames until {self.metric} is below {self.level:g}"


@dataclass(frozen=True)
class GreedyReturn:
    """A seed's score is the IQM of the final policy's returns without exploration."""

    episodes: int = 8

    def __str__(self):
        return f"IQM return of {self.episodes} greedy episodes of the final policy"


@dataclass(frozen=True, eq=False)
class Trained:
    """The usual arm: train a recipe in an environment by the one loop, all seeds in one program.

    Attributes:
        agent: one of `jaxrl.agents`, or a sum.
        environment: an id for `envs.make`.
        score: what to make of a run.
        settings: fields of the agent's `Config`, an addition's as a dict; a function is given the scale first.
        repeat: action repeat.
        pixels: side of the pictures that are observed in place of the state.
        layout: 'vmap' (seeds side by side: small agents, accelerators), 'map' (one after another), or None to choose by
            backend.
        starts: start states in the bank that episodes begin from; None begins each inline, which costs seeds side by
            side a reset of all environments at every step.
        seconds: wall time after which training stops, at the next point of the curve; None trains to the end.
        changed: what is done to the recipe before it is run; None leaves it.
    """

    agent: str
    environment: str
    score: TrainingReturn | FirstBelow | GreedyReturn
    settings: dict[str, Any] = field(default_factory=dict)
    repeat: int = 1
    pixels: int | None = None
    layout: Literal["vmap", "map"] | None = None
    starts: int | None = None
    seconds: float | None = None
    changed: Callable[[Any], Any] | None = None

    def chosen(self, scale: Scale) -> dict[str, Any]:
        """The settings at that scale."""
        return {name: value(scale) if callable(value) else value for name, value in self.settings.items()}

    @cache  # noqa: B019  arms live as long as the process, and claims may score the same runs
    def __call__(self, scale: Scale, seeds: tuple[int, ...]) -> Outcome:
        import envs
        from experiments.evidence.training import bounded, train
        from jaxrl.agents.combined import configured, find

        module = find(self.agent)
        env = bounded(envs.make(self.environment, repeat=self.repeat))
        if self.pixels is not None:
            from envs.render import pixels

            env = pixels(env, self.pixels)
        recipe = replace(module.recipe(env.specs, configured(module.Config, self.chosen(scale))), starts=self.starts)
        recipe = recipe if self.changed is None else self.changed(recipe)
        return train(env, recipe, self.score, scale, seeds, self.layout, self.seconds)


# The core's sentences, imported where they are raised: the core imports jax.


def bad_input(sentence: str) -> Exception:
    from jaxrl.core import BadInput

    return BadInput(sentence)


def unknown(kind: str, name: str, known: Any) -> Exception:
    from jaxrl import core

    return core.unknown(kind, name, known)

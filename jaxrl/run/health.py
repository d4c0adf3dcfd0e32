"""The check after each chunk: is all finite that was collected and learned, what spoilt it if not, and who is left.

A run of one seed ends there. Of several, those that diverge keep the parts that they had before the chunk, and are no
longer logged or evaluated; the others never notice, for the program that computes them is the same.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.core import Metrics, Parts, where
from jaxrl.loop import Run
from jaxrl.run import checkpoint
from jaxrl.run.diagnose import Finding, diagnose, dump, first_bad, one_seed
from jaxrl.run.directory import Home
from jaxrl.run.programs import Many, Programs, learned, of_run
from jaxrl.transitions import NOT_FINITE, NotFinite, Place

BOUND = "lower its learning rate or bound its loss"
MEND = "mend the environment"


class Diverged(RuntimeError):
    """Numbers are no longer finite, and no seed is left: one sentence that names where, the cause and what was kept."""


@dataclass(frozen=True)
class Lost:
    """A seed that diverged.

    Attributes:
        step: where its parts were left, in frames: the beginning of the chunk that spoilt them.
        cause: in words.
    """

    seed: int
    step: int
    cause: str


class Health:
    """Which seeds of a run are finite still.

    Args:
        begin: the run in a checkpoint (path, manifest), or a fresh one for None.
        lost: seeds that diverged before, as `stored` gives them.
    """

    def __init__(
        self,
        runs: Many,
        programs: Programs,
        home: Home,
        chunk: int,
        begin: Callable[[tuple[Path, dict] | None], Run],
        lost: list[dict],
        say: Callable[[str], None],
    ):
        self.runs, self.programs, self.home, self.chunk, self.begin, self.say = runs, programs, home, chunk, begin, say
        self.lost = {lost.seed: lost for lost in (Lost(**stored) for stored in lost)}
        self.copy = jax.jit(lambda parts: jax.tree.map(jnp.copy, parts))
        self.choose = jax.jit(where)
        if self.lost:
            say(f"{self.names()} diverged and will stay as they were: the others go on.")

    def rows(self) -> list[int]:
        """The rows of the seeds that are left."""
        return [row for row, seed in enumerate(self.runs.seeds) if seed not in self.lost]

    def names(self) -> str:
        return f"Seed{'s' * (len(self.lost) > 1)} {', '.join(map(str, sorted(self.lost)))}"

    def stored(self) -> list[dict]:
        """The seeds that diverged, as JSON."""
        return [asdict(lost) for lost in self.lost.values()]

    def before(self, parts: Parts) -> Parts | None:
        """What `check` may need of the parts before a chunk takes them."""
        return self.copy(parts) if self.runs.batched else None

    def check(self, before: Parts | None, run: Run, metrics: Metrics, step: int) -> Run:
        """The run after a chunk, where seeds that have diverged have the parts that they had before it.

        Args:
            before: see the method `before`.
            step: the clock, in frames.

        Raises:
            Diverged: no seed is left.
        """
        bad = self.bad(run, metrics)
        if bad:
            began = self.played(step - self.chunk)
            for row, found in bad.items():
                self.report(row, *self.cause(row, found, began, step), step)
        if not self.lost:
            return run
        gone = np.array([seed in self.lost for seed in self.runs.seeds])
        return run._replace(parts=self.choose(gone, before, run.parts))

    def bad(self, run: Run, metrics: Metrics) -> dict[int, str | None]:
        """The rows of seeds that have just diverged, with what is not finite of `of_run`; None if that is other."""
        collected = np.atleast_1d(jax.device_get(metrics.get(NOT_FINITE, jnp.zeros(len(self.runs.seeds))))) > 0
        verdict = jax.device_get(self.programs.finite(of_run(run)))
        verdict = {name: np.atleast_1d(good) for name, good in verdict.items()}
        found = {row: first_bad({name: good[row] for name, good in verdict.items()}) for row in self.rows()}
        return {row: bad and bad[0] for row, bad in found.items() if bad or collected[row]}

    def report(self, row: int, cause: str, remedy: str, step: int) -> None:
        """Say of a seed that it is lost; raise `Diverged` where it was the last one."""
        seed = self.runs.seeds[row]
        self.lost[seed] = Lost(seed, step - self.chunk, cause)
        if self.rows():
            self.say(f"{cause}: seed {seed} stays as it was at step {step - self.chunk:,}, and the other seeds go on.")
        else:
            raise self.diverged(cause, remedy)

    def diverged(self, cause: str, remedy: str) -> Diverged:
        """The end of a run, in a sentence with what was kept and how to go on from there."""
        good = checkpoint.newest(self.home.checkpoints, self.say)
        kept = f"the last good checkpoint is {good[0]}" if good else "no checkpoint had been written"
        alone = "no seed is left: " if self.runs.batched else ""
        there = ", ".join(str(int(path.name)) for path in checkpoint.published(self.home.checkpoints))
        if remedy == BOUND:
            back = f", then --resume --at STEP (there are {there}), where another learning rate is accepted"
        else:
            back = f", then --resume, or from an older one --resume --at STEP (there are {there})"
        return Diverged(f"{alone}{cause}, {kept}: {remedy}{back if good else ''}.")

    def hosted(self, error: NotFinite) -> Diverged:
        """The same of what a simulator on the host gave or was given, which is known without playing it again."""
        spoilt = first_bad(self.programs.finite(of_run(error.run)))
        return self.diverged(*(self.cause(0, spoilt[0], None, error.place.step) if spoilt else blame(error.place, "")))

    def played(self, step: int) -> Run | None:
        """The run at that step, played again from the last good state; None where it cannot be."""
        if self.runs.on_host:
            return None
        self.say("Something is not finite: playing the run again to find where that began ...")
        try:
            good = checkpoint.newest(self.home.checkpoints, self.say)
            run = self.begin(good)
            for _ in range((step - (good[1]["step"] if good else 0)) // self.chunk):
                run, _ = self.programs.chunk(run)
            return run
        except jax.errors.JaxRuntimeError as error:  # no memory for a second run beside this one
            self.say(f"It cannot be played again ({str(error).splitlines()[0]}).")
            return None

    def cause(self, row: int, found: str | None, began: Run | None, step: int) -> tuple[str, str]:
        """(what spoilt a seed, a remedy), in words.

        Args:
            found: as `bad` has it.
            began: the run at the beginning of the bad chunk.
        """
        seed = f" (seed {self.runs.seeds[row]})" if self.runs.batched else ""
        ticks = self.chunk // self.runs.loop.frames
        finding = None if began is None else diagnose(self.runs, one_seed(began, row, self.runs.batched), ticks)
        if isinstance(finding, Place):
            return blame(finding, seed)
        if finding is not None:
            return self.told(finding, seed, row)
        again = "cannot be played again" if began is None else "did not happen again when played alone"
        again += " on the host" if self.runs.on_host else ""
        if found is None:
            return f"what was collected before step {step} is not finite{seed}, which {again}", MEND
        what = f"{found} is not finite at step {step}{seed}"
        return f"{what}; it is written by {self.writers(found)}, which {again}", BOUND

    def told(self, finding: Finding, seed: str, row: int) -> tuple[str, str]:
        """A finding in words, and its batch in a file."""
        source = f", from a batch whose '{finding.bad}' was not finite already" if finding.bad else ""
        batch = ""
        if finding.batch:
            path = self.home.batch
            path = path.with_stem(f"{path.stem}-{self.runs.seeds[row]}") if self.runs.batched else path
            try:
                dump(finding.batch, path)
                batch = f"; its batch is in {path}"
            except OSError as error:
                batch = f"; its batch could not be written ({error.strerror})"
        cause = f"{finding.found} is not finite at step {finding.step}{seed}: {finding.writer} wrote it{source}"
        return cause + batch, "mend the environment or the source" if finding.bad else BOUND

    def writers(self, found: str) -> str:
        agent = self.runs.recipe.agent
        rules = {**agent.observe, **agent.rules}
        by = lambda name, rule: found in learned(dict.fromkeys(rule.writes), {name: ()})
        return " and ".join(f"rule '{name}'" for name, rule in rules.items() if by(name, rule)) or "an event"


def blame(place: Place, seed: str) -> tuple[str, str]:
    """(who gave a number that is not finite, a remedy), in words."""
    by_agent = place.field.split("/")[0] == "action"
    return f"{place}{seed}: {'the agent' if by_agent else 'the environment'} gave it", BOUND if by_agent else MEND

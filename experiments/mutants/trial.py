"""Mutants on trial: the tests of their file, in processes that import a copy of the package.

A worker is forked from a process that has imported jax and has not started it, and tries one mutant after another: all
of our modules are imported anew for each, and what jax compiled for single operations is kept. It is given up after
some mutants, when one takes too long, and when one takes it down. The copy's folder is put first on the path, of
processes that tests start too; the working tree is never written to.
"""

import contextlib
import importlib
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from experiments.mutants.places import Mutant
from jaxrl.errors import BadInput

ROOT = Path(__file__).parents[2]
HEAVY = ("jax", "jax.numpy", "flax.linen", "flax.nnx", "optax", "pytest", "jaxtyping", "beartype", "scipy.stats")
OURS = ("jaxrl", "envs", "tests", "experiments")
LOT = 40  # mutants that one worker tries
VERDICTS = {0: "survived", 5: "no tests"}  # by pytest's exit code
ELSEWHERE = 70  # exit code: another copy was imported

Trial = tuple[Mutant | None, list[str], float]  # a mutant, or None for the files as they are; tests; seconds at most


@dataclass(frozen=True)
class Outcome:
    """`verdict` is 'killed' (a test failed, nothing could be imported, or the process died), 'survived', 'timeout', or
    why there is none."""

    verdict: str
    seconds: float
    said: str = ""  # the line of pytest that names the test that failed


@dataclass
class Worker:
    """A process with a copy of the package in `folder`, spoken to in lines of JSON."""

    folder: Path
    pid: int = 0
    asked: Any = None
    told: Any = None
    trial: Trial | None = None
    start: float = 0.0
    tests: list[list[str]] = field(default_factory=list)  # of its trials so far

    def ask(self, trial: Trial) -> None:
        self.trial, self.start = trial, time.monotonic()
        self.tests.append(trial[1])
        if not self.pid:
            self.begin()
        mutant = trial[0]
        source = None if mutant is None else mutant.applied((ROOT / mutant.path).read_text())
        self.asked.write(json.dumps([mutant and mutant.path, source, trial[1]]) + "\n")
        self.asked.flush()

    def begin(self) -> None:
        shutil.copytree(ROOT / "jaxrl", self.folder / "jaxrl", dirs_exist_ok=True)
        (theirs, to), (back, told) = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()  # what tests start ends with it
            with contextlib.suppress(BaseException):
                serve(self.folder, os.fdopen(theirs), os.fdopen(told, "w"))
            os._exit(1)
        os.close(theirs)
        os.close(told)
        self.asked, self.told = os.fdopen(to, "w"), os.fdopen(back)

    def end(self) -> None:
        """Give the process up."""
        if self.pid:
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.asked.close()
            self.told.close()
        self.pid, self.tests = 0, []

    def outcome(self) -> Outcome | None:
        """What became of the trial, None while it goes on."""
        assert self.trial is not None
        seconds = time.monotonic() - self.start
        if select.select([self.told], [], [], 0)[0]:
            line = self.told.readline()
            if not line:
                self.end()
                return Outcome("killed", seconds, "the process died")
            return Outcome(verdict(int(line)), seconds, said(self.folder / "log"))
        if seconds > self.trial[2]:
            self.end()
            return Outcome("timeout", seconds)
        return None


def verdicts(trials: Iterable[Trial], workers: int) -> Iterator[tuple[Mutant | None, list[str], Outcome]]:
    """Run each trial, some at a time, as they end.

    Raises:
        BadInput: tests that passed fail in a process that has tried mutants, when there is none any longer.
    """
    for name in HEAVY:
        importlib.import_module(name)
    waiting = iter(trials)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        staff = [Worker(Path(folder) / str(i)) for i in range(workers)]
        try:
            yield from judged(waiting, staff)
        finally:
            for worker in staff:
                worker.end()


def judged(waiting: Iterator[Trial], staff: list[Worker]) -> Iterator[tuple[Mutant | None, list[str], Outcome]]:
    busy: list[Worker] = []
    idle = list(staff)
    while True:
        while idle and (trial := next(waiting, None)):
            idle[-1].ask(trial)
            busy.append(idle.pop())
        if not busy:
            break
        for worker in list(busy):
            outcome = worker.outcome()
            if outcome is not None and worker.trial is not None:
                yield worker.trial[0], worker.trial[1], outcome
                busy.remove(worker)
                idle.append(worker)
                if len(worker.tests) >= LOT:
                    sound(worker)
                    worker.end()
        time.sleep(0.01)
    for worker in staff:
        sound(worker)


def sound(worker: Worker) -> None:
    """Raise BadInput unless the last tests pass without a mutant in a process that has tried some."""
    if not worker.pid or len(worker.tests) < 2:
        return
    worker.ask((None, worker.tests[-1], 1800.0))
    while (outcome := worker.outcome()) is None:
        time.sleep(0.01)
    if outcome.verdict == "killed":
        raise BadInput(f"after mutants, tests fail without one, so that nothing can be said of them: {outcome.said}.")


def serve(folder: Path, asked: Any, told: Any) -> None:
    """In the worker: a line of pytest's exit code for each line of (path, source or None, tests)."""
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(ROOT)
    # A file that changes twice a second must not be taken from bytecode.
    sys.dont_write_bytecode, os.environ["PYTHONDONTWRITEBYTECODE"] = True, "1"
    sys.path[:0] = [str(folder), str(ROOT)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), str(ROOT)])
    for line in asked:
        path, source, tests = json.loads(line)
        os.ftruncate(log, 0)
        if path is not None:
            (folder / path).write_text(source)
        try:
            code = tried(folder, tests, keep=path is None)
        except BaseException:
            traceback.print_exc()
            code = 1
        if path is not None:
            shutil.copy2(ROOT / path, folder / path)
        told.write(f"{code}\n")
        told.flush()


def tried(folder: Path, tests: list[str], keep: bool) -> int:
    """pytest's exit code, with all of our modules imported anew; compiled programs are kept on disk if `keep`."""
    import jax
    import pytest

    here = (str(folder), str(ROOT / "tests"))
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in OURS or str(getattr(module, "__file__", None)).startswith(here):
            del sys.modules[name]

    def sessionstart(session):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0 if keep else 1e9)

    def sessionfinish(session):
        import jaxrl

        if not str(jaxrl.__file__).startswith(str(folder)):
            session.exitstatus = ELSEWHERE

    watch = SimpleNamespace(pytest_sessionstart=sessionstart, pytest_sessionfinish=sessionfinish)
    imported = "ignore::pytest.PytestAssertRewriteWarning"  # plugins among what was imported before
    finders, path = list(sys.meta_path), list(sys.path)
    try:
        return int(pytest.main(["-x", "-q", "-p", "no:xdist", "-W", imported, *tests], plugins=[watch]))
    finally:
        sys.meta_path[:], sys.path[:] = finders, path


def verdict(code: int) -> str:
    return "another copy was imported" if code == ELSEWHERE else VERDICTS.get(code, "killed")


def said(log: Path) -> str:
    """The last line of a log that tells of a test that failed, or else its last line."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] or [""]
    return next((line for line in reversed(lines) if line.startswith(("FAILED", "ERROR"))), lines[-1])

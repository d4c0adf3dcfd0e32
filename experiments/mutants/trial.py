"""One mutant on trial: the tests of its file, in a process of its own that imports a copy of the package.

Processes are forked from one that has imported jax, and has not started it: that saves its seconds of imports. The
copy's folder is put first on the path, of processes that tests start too; the working tree is never written to.
"""

import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from experiments.mutants.places import Mutant

ROOT = Path(__file__).parents[2]
HEAVY = ("jax", "jax.numpy", "flax.linen", "flax.nnx", "optax", "pytest", "jaxtyping", "beartype", "scipy.stats")
OURS = ("jaxrl", "envs", "tests", "experiments")
# Exit codes of a trial: pytest's where it found no test; another copy was imported; the trial itself went wrong.
NO_TESTS, ELSEWHERE, BROKEN = 5, 70, 71


@dataclass(frozen=True)
class Outcome:
    """`verdict` is 'killed' (a test failed, or nothing could be imported), 'survived', 'timeout', or why it is none."""

    verdict: str
    seconds: float
    said: str = ""  # the line of pytest that names the test that failed


def verdicts(
    trials: Iterable[tuple[Mutant | None, list[str], float]], workers: int
) -> Iterator[tuple[Mutant | None, list[str], Outcome]]:
    """Run each trial (mutant or None for the file as it is, tests, seconds at most), some at a time, as they end."""
    for name in HEAVY:
        importlib.import_module(name)
    waiting, running = iter(trials), {}
    with copies(workers) as idle:
        try:
            while True:
                while idle and (trial := next(waiting, None)):
                    folder = idle.pop()
                    running[begun(folder, trial[0], trial[1])] = (folder, trial, time.monotonic())
                if not running:
                    return
                for pid, verdict in ended(running):
                    folder, (mutant, tests, _), start = running.pop(pid)
                    idle.append(folder)
                    yield mutant, tests, Outcome(verdict, time.monotonic() - start, said(folder / "log"))
                time.sleep(0.02)
        finally:
            for pid in running:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


@contextmanager
def copies(workers: int) -> Iterator[list[Path]]:
    """A folder for each worker, with a copy of the package in it."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        folders = [Path(folder) / str(i) for i in range(workers)]
        for one in folders:
            shutil.copytree(ROOT / "jaxrl", one / "jaxrl")
        yield folders


def begun(folder: Path, mutant: Mutant | None, tests: list[str]) -> int:
    """The process of a trial; it leads a group of its own, so that what tests start ends with it."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            code = tried(folder, mutant, tests)
        except BaseException:
            traceback.print_exc()
            code = BROKEN
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return pid


def tried(folder: Path, mutant: Mutant | None, tests: list[str]) -> int:
    """In the process of the trial: pytest's exit code."""
    import jax
    import pytest

    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(ROOT)
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]
    # A file that changes twice a second must not be taken from bytecode.
    sys.dont_write_bytecode, os.environ["PYTHONDONTWRITEBYTECODE"] = True, "1"
    sys.path[:0] = [str(folder), str(ROOT)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), str(ROOT)])

    def sessionstart(session):
        if mutant is not None:  # programs of mutants are not kept
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)

    def sessionfinish(session):
        import jaxrl

        if not str(jaxrl.__file__).startswith(str(folder)):
            os._exit(ELSEWHERE)

    watch = SimpleNamespace(pytest_sessionstart=sessionstart, pytest_sessionfinish=sessionfinish)
    if mutant is not None:
        (folder / mutant.path).write_text(mutant.applied((ROOT / mutant.path).read_text()))
    imported = "ignore::pytest.PytestAssertRewriteWarning"  # plugins among what was imported before the fork
    return int(pytest.main(["-x", "-q", "-p", "no:xdist", "-W", imported, *tests], plugins=[watch]))


def ended(running: dict) -> Iterator[tuple[int, str]]:
    """The trials that are over, those out of time among them, with their verdicts; the copy is mended again."""
    for pid, (folder, (mutant, _, most), start) in list(running.items()):
        over, status = os.waitpid(pid, os.WNOHANG)
        late = not over and time.monotonic() - start > most
        if late:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if over or late:
            if mutant is not None:
                shutil.copy2(ROOT / mutant.path, folder / mutant.path)
            yield pid, "timeout" if late else verdict(os.waitstatus_to_exitcode(status))


def verdict(code: int) -> str:
    none = {NO_TESTS: "no tests", ELSEWHERE: "another copy was imported", BROKEN: "broken", 0: "survived"}
    return none.get(code, "killed")


def said(log: Path) -> str:
    """The last line of a log that tells of a test that failed, or else its last line."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] or [""]
    return next((line for line in reversed(lines) if line.startswith(("FAILED", "ERROR"))), lines[-1])

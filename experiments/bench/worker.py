"""The process of one side: one core, one window of work at a time, CPU seconds on stdout.

Started as `python -m experiments.bench.worker TARGET SETTINGS` in the interpreter that has the library. It answers one
JSON object a line: `{"absent": sentence}` where the library is missing, else once `{"ready": ...}` and then
`{"seconds": ...}` for each line of input, and `{"finite": ...}` when the input ends.
"""

import importlib
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

LIBRARIES = (
    "jax",
    "flax",
    "optax",
    "numpy",
    "mujoco",
    "brax",
    "rejax",
    "gymnax",
    "sbx_rl",
    "stable_baselines3",
    "torch",
    "mbrl",
)


class Side(NamedTuple):
    """What one library does in a case.

    Attributes:
        units: work in one window, in the case's unit.
        compile: traces and compiles what the window runs, and nothing else.
        window: does the work and waits for its end.
        finite: whether every number of the final state is finite.
        parameters: learned numbers (no targets), None where nothing learns.
        updates: calls of the learner for each unit, None where nothing learns.
        figures: what is counted rather than timed, such as bytes.
    """

    units: int
    compile: Callable[[], Any]
    window: Callable[[], Any]
    finite: Callable[[], bool]
    parameters: int | None = None
    updates: float | None = None
    figures: dict[str, float] | None = None


def quieten() -> None:
    """One core and one thread, before any library starts its pools."""
    if hasattr(os, "sched_setaffinity"):  # absent on macOS, where the thread settings must do
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    os.environ.setdefault("MUJOCO_GL", "disabled")


def versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def serve(target: str, settings: dict, say: Callable[[dict], None], turns) -> None:
    """Build the side, then one window for each turn."""
    module, _, factory = target.partition(":")
    seconds = {}

    def timed(name, fn, *args):
        began = time.process_time()
        value = fn(*args)
        seconds[name] = time.process_time() - began
        return value

    try:
        library = timed("import", importlib.import_module, module)
    except ImportError as error:
        return say({"absent": f"{error}."})
    side: Side = timed("build", getattr(library, factory), settings)
    timed("compile", side.compile)
    if settings.get("warm", True):  # also passes the start-up phase, in which nothing learns
        timed("first window", side.window)
    ready = {"seconds": seconds, "units": side.units, "parameters": side.parameters, "updates": side.updates}
    ready |= {"figures": side.figures}
    # A library that is not installed but lies somewhere tells its own version.
    say({"ready": {**ready, "versions": versions() | getattr(library, "VERSIONS", {})}})
    for _ in turns:
        timed("window", side.window)
        say({"seconds": seconds["window"]})
    say({"finite": bool(side.finite()), "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})


def main() -> None:
    quieten()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # several libraries print greetings: keep them out of the answers
    serve(sys.argv[1], json.loads(sys.argv[2]), lambda answer: print(json.dumps(answer), file=answers), sys.stdin)


if __name__ == "__main__":
    main()

"""What the scripts share: names checked before anything heavy is imported, flags, one sentence for bad input.

Nothing here imports jax at module level: `--help` and misspelt names answer at once.
"""

import contextlib
import dataclasses
import difflib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jaxrl import interrupts
from jaxrl.errors import BadInput, unknown

T = TypeVar("T")
TRUST = "names of agents and environments of others that the run may import"


def answer(main: Callable[[Sequence[str]], int], at_once: bool = False) -> NoReturn:
    """Run a script's main: what the user can mend is one sentence on stderr and exit code 2.

    Args:
        at_once: an interrupt ends the process where it is, as it has nothing to put away and no processes of its own.
    """
    if not at_once:
        interrupts.end_as_usual()
    try:
        code = main(sys.argv[1:])
    except BadInput as error:
        complain(f"error: {error}")
        code = 2
    except KeyboardInterrupt:
        complain("error: interrupted.")
        code = interrupts.INTERRUPTED
    interrupts.finish(code)


def complain(sentence: str) -> None:
    """A sentence on stderr, if there is one still: a terminal that was closed is none."""
    with contextlib.suppress(OSError):
        print(sentence, file=sys.stderr, flush=True)


def flags(kind: type[T], args: Sequence[str], program: str, description: str) -> T:
    """The flags as a frozen dataclass. `--help` and values of a wrong type are answered by tyro.

    Raises:
        BadInput: a flag that does not exist, with the nearest that does.
    """
    import tyro

    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            found, rest = tyro.cli(
                kind, args=list(args), prog=f"python -m {program}", description=description, return_unknown_args=True
            )
    except SystemExit as end:
        if end.code in (None, 0):
            raise
        raise BadInput(sentence(told.getvalue())) from None
    if rest:
        flag = next((word for word in rest if word.startswith("-")), rest[0]).split("=")[0]
        near = difflib.get_close_matches(flag, spelled(kind), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise BadInput(f"unknown flag {flag}: python -m {program} --help lists those there are.{hint}")
    return found


def sentence(box: str) -> str:
    """What tyro says in a box, as one line: its text up to the first rule."""
    lines = re.findall(r"^│ (.*?) *│$", box, re.MULTILINE)
    end = next((i for i, line in enumerate(lines) if line.startswith("──")), len(lines))
    return " ".join(line.strip() for line in lines[:end]) or box.strip()


def spelled(kind: Any, prefix: str = "--") -> list[str]:
    """All flags of a dataclass and of those within it."""
    found = []
    for field in dataclasses.fields(kind):
        name = NAMES.get(field.name, field.name).replace("_", "-")
        inner = field.type if dataclasses.is_dataclass(field.type) else None
        found += spelled(inner, f"{prefix}{name}.") if inner else [prefix + name]
    return found


NAMES = {"name": "agent"}  # fields whose flag is called otherwise


def peek(args: Sequence[str], flag: str, default: str) -> str:
    """The value of one flag, read before the parser is built from it."""
    for i, word in enumerate(args):
        if word == flag and i + 1 < len(args):
            return args[i + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return default


def without(args: Sequence[str], flag: str) -> list[str]:
    """The arguments without a flag and its value."""
    dropped = {i + k for i, word in enumerate(args) if word == flag for k in (0, 1)}
    return [word for i, word in enumerate(args) if i not in dropped and not word.startswith(f"{flag}=")]


def check_env(name: str) -> None:
    """Raise `BadInput` where no environment has that name; 'module:factory' is looked up when it is made."""
    from envs.registry import names

    if ":" not in name and name not in names():
        raise unknown("environment", name, names())


def agent_module(name: str) -> Any:
    """What exports an agent's `Config` and `recipe`: `jaxrl.agents.combined.find`, not before jax may be imported."""
    from jaxrl.agents.combined import find

    return find(name)


MOST = 4_000_000_000  # bytes of compiled programs that are kept in a folder of ours


def compile_cache() -> None:
    """Keep compiled programs between processes, every program, however small.

    In $JAXRL_CACHE, else where $JAX_COMPILATION_CACHE_DIR says, else in ~/.cache/jaxrl. A folder of ours is bounded:
    what was read least recently goes. One that $JAX_COMPILATION_CACHE_DIR names is left to its owner.
    """
    import jax

    platform_settings()
    ours, theirs = os.environ.get("JAXRL_CACHE"), os.environ.get("JAX_COMPILATION_CACHE_DIR")
    try:
        folder = Path(ours or theirs or Path.home() / ".cache" / "jaxrl")
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written")
    except (OSError, RuntimeError) as error:  # a home directory that does not exist, or is another's
        print(f"Compiled programs are not kept: {error}; JAXRL_CACHE can name a folder for them.", file=sys.stderr)
        return
    if ours or not theirs:
        prune(folder, MOST)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def prune(folder: Path, most: int) -> None:
    """Remove compiled programs, those read least recently first, until a folder holds three quarters of `most` bytes.

    Nothing is done below `most`. Another process may remove the same files.
    """
    entries = [(entry.stat(), Path(entry.path)) for entry in os.scandir(folder) if entry.name.endswith("-cache")]
    total = sum(stat.st_size for stat, _ in entries)
    if total <= most:
        return
    for stat, path in sorted(entries, key=lambda entry: max(entry[0].st_atime, entry[0].st_mtime)):
        path.unlink(missing_ok=True)
        total -= stat.st_size
        if total <= 0.75 * most:
            return


# Settings of jax under which a run does not work, or is another: what each has to be, and why.
USUAL = {
    "jax_enable_x64": (False, "arrays are float32 and the clock int32"),
    "jax_disable_jit": (False, "a run is one compiled program"),
    "jax_debug_nans": (
        False,
        "it stops at numbers that nothing looks at; a run finds the rule that made a NaN by itself",
    ),
    "jax_numpy_dtype_promotion": ("standard", "types are promoted as numpy does"),
    "jax_numpy_rank_promotion": ("allow", "shapes are broadcast as numpy does"),
    "jax_transfer_guard": (None, "what is logged and saved is transferred; within a chunk a run forbids it by itself"),
}


def platform_settings() -> None:
    """Raise `BadInput` for a setting of jax under which a run does not work, or is another, and an absent platform."""
    import jax

    for name, (usual, reason) in USUAL.items():
        value = getattr(jax.config, name)
        if value not in (usual, "allow"):
            raise BadInput(f"{name.upper()} is {value}, but {reason}: unset it.")
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS", "the default")
        reason = " ".join(str(error).split()) or "jax finds no such device"
        raise BadInput(f"JAX_PLATFORMS is {asked}, which is not here ({reason}): unset it, or name cpu.") from error


def environment(name: str, repeat: int | None, pixels: int | None = None, tried: bool = False):
    """(env, its action repeat): an environment by name, as agents expect them: continuous actions lie in [-1, 1], and
    an observation that is no image is one vector.

    Args:
        repeat: frames for which an action is held; None takes what the task is usually run with.
        pixels: side of the pictures that are observed in place of the state, three at a time; None shows the state.
        tried: it was looked at before. Otherwise what others wrote is stepped before it is trained on; of our own tasks
            and those of packages that are known here, only shapes are looked at.

    Raises:
        BadInput: it cannot be made, or something is wrong with it.
    """
    import numpy as np

    from envs import check, default_repeat, make
    from envs.adapters import PURE, host, on_host
    from envs.core import Box, flat_observation, is_plain, scale_action
    from envs.registry import TABLE

    repeat = default_repeat(name) if repeat is None else repeat
    if on_host(name):
        if pixels is not None:
            raise BadInput(f"pixels is {pixels}, but '{name}' runs on the host and is not drawn: leave --pixels away.")
        made = host(name, repeat)
        if not tried:
            from jaxrl.simulators import tried as trial

            trial(made.simulator, made.specs, name)
        return made, repeat
    env = make(name, repeat)
    if pixels is not None:
        from envs.render import pixels as pictures

        env = pictures(env, pixels)
    if not tried:
        check(env, steps=0 if name in TABLE or name.partition(":")[0] in PURE else None)
    if not is_plain(env.specs.observation):
        env = flat_observation(env)
    action = env.specs.action
    usual = lambda box: np.all(box.low == -1) and np.all(box.high == 1) and np.issubdtype(box.dtype, np.floating)
    return (scale_action(env) if isinstance(action, Box) and not usual(action) else env), repeat


@contextlib.contextmanager
def quiet_stdout():
    """What libraries print goes to stderr, so that stdout holds one JSON line."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def say_json(line: dict) -> None:
    """The last line of a command, on stdout.

    Raises:
        BadInput: stdout cannot be written.
    """
    try:
        print(json.dumps(line), flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter tries again as it ends
        raise BadInput(
            f"the last line could not be written to stdout ({error.strerror}): ask for it again elsewhere."
        ) from error

"""Simulators of others, watched: what one shows is checked as it comes, and what it raises is told in a sentence.

A simulator that raises in a step ends that episode as truncated, which is said; one that raises again within 100 steps,
or shows what its specs do not say, is at fault: from then on it stands still, so that the tick can be finished and the
run saved before it stops.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.core import BadInput, Box, PyTree, Specs

AGAIN = 100  # steps within which a second exception is one too many
TRIAL = 20  # steps of a simulator before it is trained on


class Step(NamedTuple):
    """What a simulator shows after a step; the fields are those of a TimeStep, in numpy."""

    obs: PyTree
    reward: float
    terminated: bool
    truncated: bool


class Simulator(Protocol):
    """One environment with a state of its own. `reset(seed)` must bring it to where that seed always does.

    One that has a `close()` is closed at the end, whatever happened.
    """

    def reset(self, seed: int) -> PyTree: ...

    def step(self, action: np.ndarray) -> Step: ...


class _FaultError(Exception):
    """A sentence about what a simulator showed, which stops the run."""


class _RaisedError(Exception):
    """A sentence about what a simulator raised, which ends an episode."""


class Watched:
    """A simulator whose results are those that the specs say.

    Attributes:
        fault: the sentence that stops the run, None while there is none.
    """

    def __init__(self, make: Callable[[], Simulator], specs: Specs, name: str, say: Callable[[str], None]):
        self.inner, self.specs, self.name, self.say = make(), specs, name, say
        self.fault: str | None = None
        self.steps, self.raised = 0, -AGAIN  # steps so far; at which of them an exception came last
        self.shown = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), specs.observation)

    def reset(self, seed: int) -> PyTree:
        """The first observation of an episode; the last one again where the simulator is at fault."""
        if self.fault is None:
            try:
                with _spoken("reset"):
                    obs = self.inner.reset(seed)
                self.shown = _observation("reset", obs, self.specs.observation)
            except (_FaultError, _RaisedError) as error:
                self.fault = f"{self.name}, after {self.steps} steps: {error}."
        return self.shown

    def step(self, action: np.ndarray) -> Step:
        """A step; after an exception, or at fault, the end of the episode where it stood."""
        stood = Step(self.shown, 0.0, False, True)
        if self.fault is not None or not np.isfinite(action).all():  # what an agent spoilt is not the simulator's
            return stood
        self.steps += 1
        try:
            with _spoken("step"):
                out = self.inner.step(action)
            out = _step(out, self.specs.observation)
        except _RaisedError as error:
            if self.steps - self.raised <= AGAIN:
                self.fault = f"{self.name}, step {self.steps}: {error}, twice within {AGAIN} steps."
            else:
                self.say(f"{self.name}, step {self.steps}: {error}; that episode ends here as truncated.")
            self.raised = self.steps
            return stood
        except _FaultError as error:
            self.fault = f"{self.name}, step {self.steps}: {error}."
            return stood
        self.shown = out.obs
        return out

    def close(self) -> None:
        """Close the simulator, if it can be; what it objects to is said."""
        try:
            getattr(self.inner, "close", lambda: None)()
        except Exception as error:  # whatever a foreign library raises
            self.say(f"{self.name} could not be closed ({_named(error)}).")


def tried(make: Callable[[], Simulator], specs: Specs, name: str) -> None:
    """Raise `BadInput` for what a simulator shows in some steps of random actions, before it is trained on."""
    told: list[str] = []
    one, rng = Watched(make, specs, name, told.append), np.random.default_rng(0)
    try:
        one.reset(0)
        for i in range(TRIAL):
            if one.fault is None and not told:
                out = one.step(_action(specs.action, rng))
                if out.terminated or out.truncated:
                    one.reset(i + 1)
    finally:
        one.close()
    if one.fault or told:
        raise BadInput(f"{(one.fault or told[0]).removesuffix('.')}: mend the environment.")


def _action(space: Any, rng: np.random.Generator) -> np.ndarray:
    if isinstance(space, Box):
        return rng.uniform(space.low, space.high, space.shape).astype(space.dtype)
    return np.asarray(rng.integers(space.n), np.int32)


@contextmanager
def _spoken(verb: str) -> Iterator[None]:
    """What is raised within as a sentence. A process that ends itself, or whose pipe breaks, counts as well."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BadInput as error:
        raise _FaultError(str(error).removesuffix(".")) from error
    except BaseException as error:
        raise _RaisedError(f"{verb} raised {_named(error)}") from error


def _named(error: BaseException) -> str:
    reason = " ".join(str(error).split())
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def _observation(verb: str, obs: PyTree, wanted: PyTree, over: bool = False) -> PyTree:
    """The observation as the specs have it; of one that is `over` the numbers are not looked at."""
    if jax.tree.structure(obs) != jax.tree.structure(wanted):
        raise _FaultError(f"{verb}'s observation is {jax.tree.structure(obs)}, where its specs say another structure")
    leaves = []
    for (path, want), have in zip(jax.tree_util.tree_leaves_with_path(wanted), jax.tree.leaves(obs)):
        have, name = np.asarray(have), f"{verb}'s observation{jax.tree_util.keystr(path)}"
        if (have.shape, have.dtype) != (want.shape, want.dtype):
            raise _FaultError(
                f"{name} is {have.dtype}{list(have.shape)}, where its specs say {want.dtype}{list(want.shape)}"
            )
        if not over and jnp.issubdtype(have.dtype, jnp.inexact) and not np.isfinite(have).all():
            raise _FaultError(f"{name} is not finite")
        leaves.append(have)
    return jax.tree.unflatten(jax.tree.structure(wanted), leaves)


def _step(out: Step, wanted: PyTree) -> Step:
    terminated, truncated = bool(out.terminated), bool(out.truncated) and not bool(out.terminated)
    obs = _observation("step", out.obs, wanted, over=terminated)
    try:
        reward = number(out.reward)
    except BadInput as error:
        raise _FaultError(str(error)) from error
    if not np.isfinite(reward):
        raise _FaultError(f"step's reward is {reward}, which is not finite")
    return Step(obs, reward, terminated, truncated)


def number(reward: Any) -> float:
    """A reward that is one number, also in an array; `BadInput` for anything else."""
    value = np.asarray(reward)
    if value.size != 1 or not (np.issubdtype(value.dtype, np.number) or value.dtype == bool) or np.iscomplexobj(value):
        raise BadInput(f"step's reward is {reward!r}, where one number is asked for")
    return float(value.item())

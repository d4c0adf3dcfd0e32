"""The nouns and verbs of jaxrl.

An agent is a dict of named *parts* (every array it owns) and a dict of named *rules* that change them;
sources give rules their batches; one compiled loop (`jaxrl.loop`) runs it all. Every record here is frozen and
holds pure functions over pytrees, so whatever is written in these nouns can be combined, `jit`-ted and `vmap`-ped.

The imports from within are `jaxrl.errors`, which a command line needs before jax is loaded, `shapes` and `wide`.
Not here: equations (`jaxrl.equations`), networks (`jaxrl.nets`), anything that opens a file (`jaxrl.run`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrl.errors import BadInput, unknown
from jaxrl.shapes import showing
from jaxrl.wide import Wide, approximate, saturated

__all__ = [
    "Agent", "BadInput", "Batch", "Box", "Ctx", "Descent", "Discrete", "Env", "Envs", "Event", "Key", "Loss",
    "Metrics", "Parts", "PyTree", "Recipe", "Rule", "Source", "Specs", "TimeStep", "Wide", "adam", "add", "also",
    "batched", "below", "by_frames", "chain", "clipped", "describe", "each", "each_key", "epochs", "every",
    "everywhere", "first", "fold", "happening", "inside", "mean", "minimise", "names", "nothing", "on",
    "repeat", "scoped", "shuffled", "stateless", "track", "unknown", "when", "where",
]  # fmt: skip

PyTree = Any
Key = jax.Array
Parts = dict[str, PyTree]  # every array an agent owns, by role: 'actor', 'critic', 'target', 'norm', ...
Batch = dict[str, PyTree]  # transitions by field: 'obs', 'action', 'reward', 'discount', 'end', 'next_obs', ...
Metrics = dict[str, jax.Array]


# ---------------------------------------------------------------------------------------------------- environments


@dataclass(frozen=True)
class Box:
    """Values of `shape` between `low` and `high` (scalars or arrays of that shape), integers up to `high` itself.

    Agents act in continuous ones of [-1, 1]; `envs.core.scale_action` makes these of others.
    """

    shape: tuple[int, ...]
    low: Any = -1.0
    high: Any = 1.0
    dtype: Any = jnp.float32

    def sample(self, key: Key) -> jax.Array:
        if jnp.issubdtype(self.dtype, jnp.integer):
            return jax.random.randint(key, self.shape, self.low, jnp.asarray(self.high) + 1, self.dtype)
        return jax.random.uniform(key, self.shape, self.dtype, self.low, self.high)


@dataclass(frozen=True)
class Discrete:
    """The integers 0 .. n - 1 (int32 scalars)."""

    n: int
    shape: tuple[int, ...] = ()
    dtype: Any = jnp.int32

    def sample(self, key: Key) -> jax.Array:
        return jax.random.randint(key, self.shape, 0, self.n, self.dtype)


@dataclass(frozen=True)
class Specs:
    """What an environment takes and gives.

    Attributes:
        observation: `jax.ShapeDtypeStruct`, or a pytree of them.
        action: `Box` or `Discrete`.
        frames: control steps of the task that one `step` advances; `action_repeat` multiplies it. Steps are counted
            in frames everywhere.
        limit: steps (not frames) after which an episode ends at the latest; None where nothing bounds it.
        over: `obs -> bool []`, whether a step that leads there terminates; None where the environment alone knows.
        layout: (name, how many numbers) of each part of an observation that was concatenated; empty elsewhere.
    """

    observation: PyTree
    action: Box | Discrete
    frames: int = 1
    limit: int | None = None
    over: Callable[[PyTree], jax.Array] | None = None
    layout: tuple[tuple[str, int], ...] = ()


class TimeStep(NamedTuple):
    """What one environment shows after a reset or a step.

    Fields: obs (pytree as in the specs), reward float32 [] or [agents], terminated bool [] or [agents] (the task is
    over: nothing follows), truncated bool [] (the clock ran out: what follows is worth its value), info (dict).
    """

    obs: PyTree
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    info: dict[str, PyTree] = {}  # noqa: RUF012  (never mutated)

    @property
    def discount(self) -> jax.Array:
        """0 where terminated and 1 elsewhere: a time limit does not make what follows worthless."""
        return 1.0 - self.terminated.astype(jnp.float32)

    @property
    def end(self) -> jax.Array:
        """bool []: the episode is over, for either reason."""
        over = self.terminated.all(axis=-1) if self.terminated.ndim > self.truncated.ndim else self.terminated
        return over | self.truncated


def first(obs: PyTree, info: dict[str, PyTree] | None = None) -> TimeStep:
    """The TimeStep of a reset: no reward, no end."""
    return TimeStep(obs, jnp.float32(0), jnp.bool_(False), jnp.bool_(False), info or {})


@dataclass(frozen=True)
class Env:
    """One environment: `reset(key) -> (state, TimeStep)`, `step(state, action) -> (state, TimeStep)`, both pure.

    Attributes:
        draw: `(state, (height, width), camera) -> uint8 [height, width, 3]`, a picture of a state without its wrappers'
            own (`envs.core.bare`); camera is a name, None the usual one. None where there is nothing to see.
        context: what may differ from episode to episode (gravity, mass, ...) by name, with its usual value. An
            environment that has any keeps the values of an episode in its state's field `context`, a dict, and takes
            the usual one for a name that is not there.
    """

    reset: Callable[[Key], tuple[PyTree, TimeStep]]
    step: Callable[[PyTree, jax.Array], tuple[PyTree, TimeStep]]
    specs: Specs
    name: str = "environment"
    draw: Callable[[PyTree, tuple[int, int], str | None], jax.Array] | None = None
    context: Mapping[str, float] = field(default_factory=dict)


class Envs(NamedTuple):
    """The n environments that the loop steps, with automatic reset.

    `reset(key, parts, first) -> (state, obs [N])`, of environments numbered from `first`; `step(state, actions [N]) ->
    (state, TimeStep [N], obs [N])`, where the TimeStep keeps the true next observation and `obs` is what to act on next
    (a fresh start where the episode ended); `refresh(state, parts, key) -> state` redraws the bank of starts, and is
    the identity without one.
    """

    reset: Callable[..., tuple[PyTree, PyTree]]
    step: Callable[[PyTree, jax.Array], tuple[PyTree, TimeStep, PyTree]]
    refresh: Callable[[PyTree, Parts, Key], PyTree]
    specs: Specs


def batched(env: Env, num_envs: int, starts: int | Callable[[Parts, Key], PyTree] | None = None) -> Envs:
    """`num_envs` copies of an environment that reset themselves.

    Args:
        starts: where an episode begins again. None resets inline, which suits cheap or procedurally generated
            worlds; an int keeps a bank of that many start states, redrawn by `refresh`; a function
            `(parts, key) -> (states, TimeSteps)` with a leading axis supplies the bank (snapshots, curricula).

    The TimeStep's `info['episode']` holds `return` (float32 [N]) and `length` (int32 [N], steps) up to now.
    """
    if num_envs < 1:
        raise BadInput(f"num_envs is {num_envs}; at least 1 environment is needed.")
    if isinstance(starts, int) and starts < 1:
        raise BadInput(f"starts is {starts}; a bank needs at least 1 start state (None resets inline).")
    draw = starts if callable(starts) else lambda parts, key: jax.vmap(env.reset)(jax.random.split(key, starts))

    def reset(key, parts=None, first=0):
        keys, draws = _split_each(each_key(key, num_envs, first))
        state, step = jax.vmap(env.reset)(draws)
        zero = {"return": jnp.zeros(num_envs), "length": jnp.zeros(num_envs, jnp.int32)}
        bank = None if starts is None else draw(parts or {}, fold(key, num_envs))
        return {"env": state, "bank": bank, "episode": zero, "keys": keys}, step.obs

    def fresh(bank, keys):
        """A start for each key: `(states, obs)`."""
        if bank is None:
            state, step = jax.vmap(env.reset)(keys)
        else:
            size = jax.tree.leaves(bank)[0].shape[0]
            at = jax.vmap(lambda key: jax.random.randint(key, (), 0, size))(keys)
            state, step = jax.tree.map(lambda x: x[at], bank)
        return state, step.obs

    def step(state, actions):
        inner, out = jax.vmap(env.step)(state["env"], actions)
        showing(env.specs, env.name, out.obs)
        episode = {"return": state["episode"]["return"] + _team(out.reward), "length": state["episode"]["length"] + 1}
        end = out.end

        def restart():
            keys, draws = _split_each(state["keys"])
            again = (*fresh(state["bank"], draws), keys, jax.tree.map(jnp.zeros_like, episode))
            return where(end, again, (inner, out.obs, state["keys"], episode))

        # Most steps end no episode: the branch spares them the cost of drawing starts.
        inner, obs, keys, running = jax.lax.cond(end.any(), restart, lambda: (inner, out.obs, state["keys"], episode))
        out = out._replace(info={**out.info, "episode": episode})
        return {"env": inner, "bank": state["bank"], "episode": running, "keys": keys}, out, obs

    def refresh(state, parts, key):
        return state if starts is None else {**state, "bank": draw(parts, key)}

    return Envs(reset, step, refresh, env.specs)


def _split_each(keys: Key) -> tuple[Key, Key]:
    """Two keys from each: [N] -> [N], [N]."""
    return tuple(jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0))


def _team(reward: jax.Array) -> jax.Array:
    """[N] from [N] or [N, agents]: an episode's return is the team's."""
    return reward if reward.ndim == 1 else reward.sum(axis=tuple(range(1, reward.ndim)))


# ------------------------------------------------------------------------------------------------- agents and rules


class Ctx(NamedTuple):
    """What a call may know beside its arguments.

    Fields: key, randomness for this call alone; clock (Wide, or an int32 []), the loop's in frames when the tick began,
    shared by all seeds; update (the same), the number of this update over the run, shared likewise, so that `every`
    never branches per seed; axis, the name of the mesh axis over which environments are spread (`loop.over_devices`),
    or None; turn (int32 []), the number of this update within its tick.

    `clock` and `update` are exact however long a run is: compare them, and take periods of them, as `ctx.clock %
    period < 10`. A schedule is a function of `frames` or `step`, which are the clock as plain arrays.

    Where the ratio is a function of parts, seeds side by side (`vmap`) may make different numbers of updates: what goes
    by `update` and `turn` is then no branch but a choice, and costs at every update. `map` such seeds, or go by `step`.
    Updates are numbered by the most that there may be in a tick.
    """

    key: Key
    clock: Any
    update: Any = np.int32(0)  # of numpy: a default of jax would start the backend at import
    axis: str | None = None
    turn: Any = np.int32(0)

    @property
    def step(self) -> jax.Array:
        """The clock as an int32 [], which stays at 2^31 - 1 from there on."""
        return saturated(self.clock)

    @property
    def frames(self) -> jax.Array:
        """The clock as a float32 [], for schedules."""
        return approximate(self.clock)

    @property
    def own_key(self) -> Key:
        """The key for what concerns a device's own batch; `key` is the same on all devices, as parts must be."""
        return self.key if self.axis is None else fold(self.key, jax.lax.axis_index(self.axis))

    def shared(self, x: PyTree) -> PyTree:
        """The mean over devices, where there are several."""
        return x if self.axis is None else jax.lax.pmean(x, self.axis)


# fn(live, frozen, batch, key) -> (scalar, metrics): gradient flows through `live` only; both are Parts.
Loss = Callable[[Parts, Parts, Batch, Key], tuple[jax.Array, Metrics]]


@dataclass(frozen=True)
class Rule:
    """Something that changes parts.

    `init(parts) -> state`; `update(parts, state, batch, ctx) -> (parts, state, metrics)`. `reads` and `writes` name
    the parts it looks at and the parts it changes: they are checked when an agent is built and printed by `describe`.
    Metrics keep the batch axis where they have one; the loop averages them.
    """

    init: Callable[[Parts], PyTree]
    update: Callable[[Parts, PyTree, Batch, Ctx], tuple[Parts, PyTree, Metrics]]
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    around: "tuple[Callable[[Rule], Rule], Rule] | None" = None  # of a wrapped rule: the wrapping, and what is within


@dataclass(frozen=True)
class Source:
    """Where batches come from.

    `init(example) -> s` from the shapes of one tick's transitions `[T, N, ...]`; `add(s, transitions, ctx) -> s`;
    `sample(s, parts, key) -> batch`; `note(s, batch, metrics) -> s`, what an update learned about its batch (None
    where nothing is noted); `size(s)`, transitions held, int32 []; `everything(s) -> batch [S, ...]`, all single
    transitions at once with 'weight' 0 in places that hold none, in no order (None where a source cannot).
    """

    init: Callable[[PyTree], PyTree]
    add: Callable[[PyTree, Batch, Ctx], PyTree]
    sample: Callable[[PyTree, Parts, Key], Batch]
    size: Callable[[PyTree], jax.Array]
    note: Callable[[PyTree, Batch, Metrics], PyTree] | None = None
    everything: Callable[[PyTree], Batch] | None = None


def nothing() -> tuple[()]:
    return ()


@dataclass(frozen=True)
class Agent:
    """Parts, how to act with them, and the rules that change them in the order in which they act.

    `views` are functions of parts that mechanisms put on top look through, by name. An actor-critic has 'encode',
    (parts, obs [B, ...]) -> features [B, ...]; 'q', (parts, features, action) -> [n, B]; as `Net.within` has it,
    'actor', (parts, features), and 'critic', (parts, features, action); and where its noise is the part 'std', 'noise',
    (parts, frames) -> what that is after so many frames; 'cost', (parts, error) -> what the critics' loss makes of an
    error, is there where that is not its square.

    `init(key) -> parts`; `act(parts, memory, obs, ctx, explore) -> (action, memory, extras)` for **one** environment
    (the loop vmaps it; `explore` is a Python bool; extras is a dict kept with the transition); `memory()` is what an
    episode begins with. `rules` see sampled batches; `observe` rules see each tick's fresh transitions `[T, N, ...]`.

    `told(memory, extras, action) -> (memory, extras)` of one environment mends what `act` returned where another action
    was done, a uniform one of the warm-up; None where neither memory nor extras depend on the action.

    Raises:
        BadInput: a rule names a part that `init` does not make.
    """

    init: Callable[[Key], Parts]
    act: Callable[[Parts, PyTree, PyTree, Ctx, bool], tuple[jax.Array, PyTree, dict]]
    rules: dict[str, Rule] = field(default_factory=dict)
    observe: dict[str, Rule] = field(default_factory=dict)
    memory: Callable[[], PyTree] = nothing
    views: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    told: Callable[[PyTree, dict, jax.Array], tuple[PyTree, dict]] | None = None
    shapes: Parts = field(init=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "shapes", jax.eval_shape(self.init, jax.random.key(0)))
        for name, rule in {**self.observe, **self.rules}.items():
            for verb, parts in (("reads", rule.reads), ("writes", rule.writes)):
                for part in parts:
                    if part not in self.shapes:
                        raise BadInput(f"rule '{name}' {verb} an {unknown('part', part, self.shapes)}")


class Event(NamedTuple):
    """A heavy rare thing between ticks: `fn(run, ctx) -> (run, metrics)` when the clock is at a multiple of `period`
    frames. It may look at and change all of a run: learn a model from what the source holds, refill a replay."""

    period: int
    fn: Callable[[Any, Ctx], tuple[Any, Metrics]]
    name: str = "event"


def happening(due: Callable[[Any, Ctx], jax.Array], fn: Callable[[Any, Ctx], tuple[Any, Metrics]]) -> Callable:
    """An event's `fn` where it is due, `due(run, ctx) -> bool []`; where not, the run stays and metrics are NaN."""

    def maybe(run, ctx):
        def do(run):
            run, metrics = fn(run, ctx)
            return run, {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}

        idle = jax.tree.map(lambda m: jnp.full(m.shape, jnp.nan), jax.eval_shape(do, run)[1])
        return jax.lax.cond(due(run, ctx), do, lambda run: (run, idle), run)

    return maybe


@dataclass(frozen=True)
class Recipe:
    """An agent with the source and the loop settings that its paper runs it with; `jaxrl.loop.loop` takes it apart.

    Attributes:
        num_envs: environments stepped side by side.
        unroll: environment steps of each in one tick.
        ratio: updates a tick, an int or a function `(parts, ctx) -> int32 []` of at most `most`.
        warmup: frames of uniform actions without an update, before learning begins.
        events: what happens between ticks, in this order; periods are multiples of a tick's frames.
        starts: see `batched`.
    """

    agent: Agent
    source: Source
    num_envs: int = 1
    unroll: int = 1
    ratio: int | Callable[[Parts, Ctx], jax.Array] = 1
    warmup: int = 0
    starts: int | Callable[[Parts, Key], PyTree] | None = None
    most: int | None = None  # needed where the ratio is a function: updates are numbered by it
    events: tuple[Event, ...] = ()


def describe(agent: Agent, specs: Specs | None = None) -> str:
    """The recipe in words: parts with shapes and bytes, rules in order with what each reads and writes.

    Args:
        specs: of the environment, to list the parts of an observation that was concatenated.
    """
    lines = []
    if specs is not None and specs.layout:
        lines.append("observation (one vector)")
        lines += [f"  {name:<14} {size:>12,} number{'s' * (size != 1)}" for name, size in specs.layout]
    lines.append("parts")
    for name, part in agent.shapes.items():
        leaves = jax.tree.leaves(part)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves[:6]) + (", ..." if len(leaves) > 6 else "")
        lines.append(f"  {name:<14} {size:>12,} bytes   {shapes}")
    for title, rules in (("observe (each tick's fresh transitions)", agent.observe), ("rules (in order)", agent.rules)):
        lines += [title] if rules else []
        for name, rule in rules.items():
            reads, writes = (", ".join(names) or "-" for names in (rule.reads, rule.writes))
            lines.append(f"  {name:<14} reads {reads}; writes {writes}")
    return "\n".join(lines)


# ----------------------------------------------------------------------------------------------------------- verbs


class _Declared(dict):
    """Parts that answer an undeclared name with a sentence rather than a KeyError."""

    def __missing__(self, name):
        raise BadInput(
            f"the loss looks at part '{name}', which its rule does not declare: add it to `wrt` (to learn it) or to "
            f"`reads` (to look at it); declared are {', '.join(self) or 'none'}."
        )


def names(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@dataclass(frozen=True)
class Descent(Rule):
    """The rule that `minimise` makes, which remembers what it descends and how, so that `also` can add to it."""

    loss: Any = None  # a Loss
    tx: Any = None  # an optax.GradientTransformation
    signals: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()

    @property
    def wrt(self) -> tuple[str, ...]:
        """The parts that gradients move."""
        return tuple(name for name in self.writes if name not in self.sets)


def minimise(
    loss: Loss,
    tx: optax.GradientTransformation,
    wrt: str | Iterable[str],
    reads: str | Iterable[str] = (),
    signals: Iterable[str] = (),
    sets: str | Iterable[str] = (),
) -> Descent:
    """A gradient step on the parts named in `wrt`, which descends `loss`.

    `live` holds the parts in `wrt`; `frozen` holds those in `wrt` and `reads`, as constants, and no other: what a loss
    looks at is written where the rule is made. `signals` are metrics of the loss handed to the optimiser
    as keyword arguments (streaming traces need the TD error); every optimiser is also offered `frames`, the clock,
    which `by_frames` uses. `sets` are further parts, which the loss sees as frozen and whose new values it hands over
    among its metrics, under their names (the running statistics of a normaliser).
    """
    wrt, reads, signals, sets = names(wrt), names(reads), tuple(signals), names(sets)
    tx = optax.with_extra_args_support(tx)

    def init(parts):
        return tx.init({name: parts[name] for name in wrt})

    def update(parts, state, batch, ctx):
        frozen = _Declared({name: parts[name] for name in (*wrt, *sets, *reads)})
        live = {name: parts[name] for name in wrt}
        objective = lambda live: loss(_Declared(live), frozen, batch, ctx.own_key)
        (value, metrics), gradients = jax.value_and_grad(objective, has_aux=True)(live)
        gradients = ctx.shared(gradients)
        extra = {name: metrics[name] for name in signals}
        steps, state = tx.update(gradients, state, live, frames=ctx.frames, **extra)
        new = ctx.shared({name: metrics.pop(name) for name in sets})
        return parts | optax.apply_updates(live, steps) | new, state, {"loss": value, **metrics}

    read = tuple(dict.fromkeys((*wrt, *sets, *reads)))
    return Descent(init, update, read, (*wrt, *sets), None, loss, tx, signals, sets)


def inside(rule: Rule, change: Callable[[Descent], Rule]) -> Rule:
    """The rule with what `minimise` made within it changed: through `on`, `epochs`, `repeat`, `every` and their like.

    Raises:
        BadInput: there is no `minimise` within.
    """
    if rule.around is not None:
        wrap, inner = rule.around
        return wrap(inside(inner, change))
    if not isinstance(rule, Descent):
        raise BadInput("what minimise(...) made was to be changed, and there is none in this rule.")
    return change(rule)


def also(
    rule: Rule,
    *losses: Loss,
    wrt: str | Iterable[str] = (),
    reads: str | Iterable[str] = (),
    sets: str | Iterable[str] = (),
) -> Rule:
    """A rule of `minimise` with further losses in its one backward pass, on further parts where they need some.

    `sets` are parts whose new values these losses hand over among their metrics. It reaches as far as `inside`.
    """

    def extended(old: Descent) -> Rule:
        learned, put = (tuple(dict.fromkeys(both)) for both in ((*old.wrt, *names(wrt)), (*old.sets, *names(sets))))
        return minimise(add(old.loss, *losses), old.tx, learned, (*old.reads, *names(reads)), old.signals, put)

    return inside(rule, extended)


def clipped(rule: Rule, part: str, norm: float) -> Rule:
    """A rule of `minimise`, where the gradient of one part has a global norm of at most that before its optimiser."""

    def clipping(old: Descent) -> Rule:
        clip = {name: optax.clip_by_global_norm(norm) if name == part else optax.identity() for name in old.wrt}
        return minimise(old.loss, optax.chain(each(**clip), old.tx), old.wrt, old.reads, old.signals, old.sets)

    return inside(rule, clipping)


# Streams of their own for `add` and `on`. `split(key, n)[i]` is `fold_in(key, i)`, so that small numbers would meet the
# keys that a loss splits for its batch.
ADDED, MAPPED = 1 << 30, 1 << 31


def add(*losses: Loss) -> Loss:
    """Several losses in one backward pass: the sum of their values, the union of their metrics."""

    def total(live, frozen, batch, key):
        # The first keeps the key it would have alone: a further loss of weight 0 changes nothing.
        keys = [key, *(fold(key, ADDED + i) for i in range(1, len(losses)))]
        values, metrics = zip(*(loss(live, frozen, batch, one) for loss, one in zip(losses, keys)))
        twice = [name for i, m in enumerate(metrics) for name in m if any(name in other for other in metrics[:i])]
        if twice:
            raise BadInput(f"added losses share the metric '{twice[0]}': rename it in one of them.")
        return jnp.stack(values).sum(), {name: value for m in metrics for name, value in m.items()}

    return total


def chain(rules: Mapping[str, Rule]) -> Rule:
    """Rules one after another, as one rule; metrics become `name/metric`. Each gets its own key."""

    def init(parts):
        return {name: rule.init(parts) for name, rule in rules.items()}

    def update(parts, state, batch, ctx):
        states, metrics = {}, {}
        for i, (name, rule) in enumerate(rules.items()):
            parts, states[name], found = rule.update(parts, state[name], batch, ctx._replace(key=fold(ctx.key, i)))
            metrics |= {f"{name}/{metric}": value for metric, value in found.items()}
        return parts, states, metrics

    return Rule(init, update, *_union(rules.values()))


def when(due: Callable[[Ctx], jax.Array], rule: Rule) -> Rule:
    """The rule on updates that are due; on the others its metrics are NaN, never 0.

    `due(ctx) -> bool []` must depend on the clock alone, which all seeds share, so that it stays a branch under vmap.
    """

    def update(parts, state, batch, ctx):
        run = lambda: rule.update(parts, state, batch, ctx)
        skipped = jax.tree.map(lambda m: jnp.full(m.shape, jnp.nan, jnp.float32), jax.eval_shape(run)[2])

        def do():
            new_parts, new_state, metrics = run()
            return new_parts, new_state, jax.tree.map(lambda m: m.astype(jnp.float32), metrics)

        return jax.lax.cond(due(ctx), do, lambda: (parts, state, skipped))

    return Rule(rule.init, update, rule.reads, rule.writes, (lambda inner: when(due, inner), rule))


def every(n: int, rule: Rule) -> Rule:
    """The rule on each n-th update, as `when`."""
    if n < 1:
        raise BadInput(f"every({n}, ...): the period is at least 1 update.")
    return when(lambda ctx: ctx.update % n == n - 1, rule)


def _scanned(rule: Rule, count: int, batch_at: Callable[[jax.Array], Batch]) -> Callable:
    """`count` updates in a row on `batch_at(i)`; metrics are their mean over the row."""

    def update(parts, state, ctx):
        def once(carry, i):
            at = ctx._replace(key=fold(ctx.key, i), update=ctx.update * count + i, turn=ctx.turn * count + i)
            parts, state, metrics = rule.update(*carry, batch_at(i), at)
            return (parts, state), metrics

        (parts, state), metrics = jax.lax.scan(once, (parts, state), jnp.arange(count))
        return parts, state, jax.tree.map(lambda m: jnp.nanmean(m.astype(jnp.float32), axis=0), metrics)

    return update


def repeat(n: int, rule: Rule) -> Rule:
    """The rule `n` times on the same batch."""
    if n < 1:
        raise BadInput(f"repeat({n}, ...): at least 1 time.")

    def update(parts, state, batch, ctx):
        return _scanned(rule, n, lambda i: batch)(parts, state, ctx)

    return Rule(rule.init, update, rule.reads, rule.writes, (lambda inner: repeat(n, inner), rule))


def epochs(n: int, minibatches: int, rule: Rule, axis: str = "sample") -> Rule:
    """`n` passes over a rollout `[T, N, ...]` in shuffled minibatches.

    Args:
        axis: 'sample' shuffles all T x N steps, and the rule sees `[T * N / minibatches, ...]`; 'env' shuffles whole
            columns, and the rule sees `[T, N / minibatches, ...]`, as recurrent agents need.

    Raises:
        BadInput: the axis is not a multiple of `minibatches`.
    """
    if axis not in ("sample", "env"):
        raise unknown("axis of epochs", axis, ("sample", "env"))

    def update(parts, state, batch, ctx):
        time, envs = jax.tree.leaves(batch["reward"])[0].shape[:2]
        size = time * envs if axis == "sample" else envs
        if size % minibatches:
            raise BadInput(
                f"minibatches is {minibatches}, which does not divide the {size} "
                f"{'samples' if axis == 'sample' else 'environments'} of a rollout: choose a divisor."
            )
        if axis == "sample":
            flat = jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), batch)
            pick = lambda at: jax.tree.map(lambda x: x[at], flat)
        else:
            pick = lambda at: jax.tree.map(lambda x: x[:, at], batch)
        # The updates fold 0 .. n * minibatches - 1 into the same key.
        order = shuffled(fold(ctx.key, n * minibatches), n, size).reshape(n * minibatches, -1)
        return _scanned(rule, n * minibatches, lambda i: pick(order[i]))(parts, state, ctx)

    return Rule(rule.init, update, rule.reads, rule.writes, (lambda inner: epochs(n, minibatches, inner, axis), rule))


def shuffled(key: Key, n: int, size: int) -> jax.Array:
    """`n` independent permutations of 0 .. size - 1: int32 [n, size]."""
    if size > 4096:
        return jax.vmap(lambda key: jax.random.permutation(key, size))(jax.random.split(key, n)).astype(jnp.int32)
    # Random words that carry the index in their low bits: sorting one array is five times as fast as sorting pairs,
    # and at least 20 random bits order them.
    low = jnp.uint32((1 << (size - 1).bit_length()) - 1)
    words = jax.random.bits(key, (n, size), jnp.uint32) & ~low | jnp.arange(size, dtype=jnp.uint32)
    return (jnp.sort(words, axis=1) & low).astype(jnp.int32)


def on(batch_map: Callable[[Parts, Batch, Ctx], Batch], rule: Rule, reads: str | Iterable[str] = ()) -> Rule:
    """The rule on a batch made from the one it is given: advantages, relabelled rewards, augmentations."""
    reads = names(reads)

    def update(parts, state, batch, ctx):
        mapped = batch_map(
            _Declared({name: parts[name] for name in reads}), batch, ctx._replace(key=fold(ctx.own_key, MAPPED))
        )
        return rule.update(parts, state, mapped, ctx)

    around = (lambda inner: on(batch_map, inner, reads), rule)
    return Rule(rule.init, update, tuple(dict.fromkeys((*reads, *rule.reads))), rule.writes, around)


def stateless(
    fn: Callable[[Parts, Batch, Ctx], tuple[Parts, Metrics]],
    writes: str | Iterable[str],
    reads: str | Iterable[str] = (),
) -> Rule:
    """A rule without a state of its own: `fn(parts, batch, ctx) -> (the parts it changed, metrics)`."""
    writes, reads = names(writes), names(reads)

    def update(parts, state, batch, ctx):
        changed, metrics = fn(_Declared({name: parts[name] for name in (*writes, *reads)}), batch, ctx)
        return {**parts, **{name: changed[name] for name in writes}}, state, metrics

    return Rule(lambda parts: (), update, tuple(dict.fromkeys((*writes, *reads))), writes)


def everywhere(rule: Rule) -> Rule:
    """The rule on the rollouts [T, N, ...] of all devices side by side, where there are several.

    For a rule that counts what its batch holds, so that it counts the same on each device. `observe` rules are shown
    all environments already.
    """

    def update(parts, state, batch, ctx):
        if ctx.axis is not None:
            batch = jax.lax.all_gather(batch, ctx.axis, axis=1, tiled=True)
        return rule.update(parts, state, batch, ctx)

    return replace(rule, update=update, around=(everywhere, rule))


def track(source: str, target: str, tau: float | jax.Array) -> Rule:
    """Polyak averaging: target <- (1 - tau) target + tau source."""

    def step(parts, batch, ctx):
        return {target: optax.incremental_update(parts[source], parts[target], tau)}, {}

    return stateless(step, writes=target, reads=source)


def scoped(prefix: str, agent: Agent) -> Agent:
    """The agent with every part and rule called `prefix/name`, so that two agents can live in one."""
    here = lambda parts: {n.removeprefix(f"{prefix}/"): p for n, p in parts.items() if n.startswith(f"{prefix}/")}
    there = lambda parts: {f"{prefix}/{n}": p for n, p in parts.items()}

    def lift(rule: Rule) -> Rule:
        def update(parts, state, batch, ctx):
            inner, state, metrics = rule.update(here(parts), state, batch, ctx)
            return {**parts, **there(inner)}, state, metrics

        return Rule(
            lambda parts: rule.init(here(parts)),
            update,
            *(tuple(there(dict.fromkeys(n))) for n in (rule.reads, rule.writes)),
        )

    return Agent(
        init=lambda key: there(agent.init(key)),
        act=lambda parts, *rest: agent.act(here(parts), *rest),
        rules=there({name: lift(rule) for name, rule in agent.rules.items()}),
        observe=there({name: lift(rule) for name, rule in agent.observe.items()}),
        memory=agent.memory,
        views={name: lambda parts, *rest, view=view: view(here(parts), *rest) for name, view in agent.views.items()},
        told=agent.told,
    )


# --------------------------------------------------------------------------------------------------- small helpers


def by_frames(schedule: Callable[[jax.Array], jax.Array] | float | jax.Array) -> optax.GradientTransformationExtraArgs:
    """Scale steps by minus a learning rate that is a number or a function of the clock in frames."""
    rate = schedule if callable(schedule) else lambda frames: schedule

    def update(steps, state, params=None, *, frames, **extra):
        return jax.tree.map(lambda g: -rate(frames) * g, steps), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def adam(
    lr: Callable[[jax.Array], jax.Array] | float | jax.Array,
    clip: float | None = None,
    eps: float = 1e-8,
    b1: float = 0.9,
    b2: float = 0.999,
    decay: float = 0.0,
) -> optax.GradientTransformation:
    """Adam with an optional clip of the global norm; `lr` is a number (traced or not) or a schedule in frames.

    With `decay` every parameter also falls by lr * decay of itself  (Loshchilov and Hutter 2019, AdamW).
    """
    head = [] if clip is None else [optax.clip_by_global_norm(clip)]
    tail = [] if isinstance(decay, int | float) and decay == 0 else [optax.add_decayed_weights(decay)]
    return optax.chain(*head, optax.scale_by_adam(b1=b1, b2=b2, eps=eps), *tail, by_frames(lr))


def each(**optimisers: optax.GradientTransformation) -> optax.GradientTransformation:
    """One optimiser made of one for each part, by its name."""
    return optax.partition(optimisers, {name: name for name in optimisers})


def mean(x: jax.Array, batch: Batch) -> jax.Array:
    """The mean of a loss over its batch, weighted by `batch['weight']` where present (importance, masks, coresets).

    `x` is [B] or [B, T] like the weight; further axes of x are averaged evenly. Masked entries (weight 0) leave no
    trace, in the sum or in the count; importance weights average to their own scale, as sum(w x) / n(w > 0).
    """
    if "weight" not in batch:
        return x.mean()
    weight = batch["weight"]
    x = x.reshape(*weight.shape, -1).mean(axis=-1)
    return jnp.where(weight > 0, weight * x, 0).sum() / jnp.maximum((weight > 0).sum(), 1)


def where(mask: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
    """`jnp.where` over pytrees whose leaves lead with the axes of `mask`."""

    def pick(a, b):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            data = pick(jax.random.key_data(a), jax.random.key_data(b))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(a))
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim)), a, b)

    return jax.tree.map(pick, yes, no)


def fold(key: Key, index: int | jax.Array | Wide) -> Key:
    """The key of a number; of a Wide, whose high word is mixed into the key itself, where 0 changes nothing."""
    if isinstance(index, Wide):
        data = jax.random.key_data(key) ^ index.high
        key, index = jax.random.wrap_key_data(data, impl=jax.random.key_impl(key)), index.low
    return jax.random.fold_in(key, index)


# Up to this bound `below` scales numbers of 23 bits, so that chances differ by 1/64 of themselves at most. Beyond, it
# scales words of 32 bits, of which an integer has 2^32 / bound, rounded down or up.
SCALED = 1 << 17


def below(key: Key, shape: tuple[int, ...], bound: int | jax.Array) -> jax.Array:
    """Integers uniform on 0 .. bound - 1, int32, for bounds up to 2^31 - 1: see `SCALED` for how nearly.

    Of one draw, where `jax.random.randint` makes two and divides: each draw is 0.3 s of compilation on a CPU.
    """
    bits = jax.random.bits(key, shape, jnp.uint32)
    few = jnp.minimum((bits >> 9).astype(jnp.float32) * 2.0**-23 * bound, bound - 1).astype(jnp.int32)
    if isinstance(bound, int) and bound <= SCALED:
        return few
    # The high word of bits * bound, of halves of 16 bits: no 64-bit integers are needed.
    bound = jnp.asarray(bound, jnp.uint32)
    low, high, small, large = bits & 0xFFFF, bits >> 16, bound & 0xFFFF, bound >> 16
    middle = high * small + (low * small >> 16)
    crossed = low * large + (middle & 0xFFFF)
    many = high * large + (middle >> 16) + (crossed >> 16)
    return jnp.where(bound <= SCALED, few, many.astype(jnp.int32))


def each_key(key: Key, n: int, first: int | jax.Array = 0) -> Key:
    """A key for each of n things by global index, so that the draw is the same in every layout. Returns [n]."""
    return jax.vmap(lambda i: fold(key, i))(first + jnp.arange(n))


def _union(rules: Iterable[Rule]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    rules = list(rules)
    return (
        tuple(dict.fromkeys(name for rule in rules for name in rule.reads)),
        tuple(dict.fromkeys(name for rule in rules for name in rule.writes)),
    )

"""The one loop: `Run`, chunks of it, and `train`, `fit` and `evaluate` on top.

A *tick* steps every environment `unroll` times, shows the fresh transitions to the agent's observe rules, adds them to
the source, and makes `ratio` updates. A *chunk* is one `lax.scan` over ticks, without Python, callbacks or transfers.
The host's turn between chunks (checkpoints, logs, plots) is `jaxrl.run`'s.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxrl.core import (
    Agent,
    BadInput,
    Batch,
    Ctx,
    Env,
    Event,
    Key,
    Metrics,
    Parts,
    PyTree,
    Recipe,
    Wide,
    batched,
    chain,
    each_key,
    fold,
    happening,
    where,
)
from jaxrl.shapes import fitting
from jaxrl.transitions import NOT_FINITE, any_bad


class Run(NamedTuple):
    """The whole state of a run: one pytree, and so one checkpoint.

    Fields: parts; rules and observe (the states of the agent's rules); source; envs; last (what to act on next [N]);
    memory [N]; key (constant over the run: each tick folds the clock into it); step (Wide, frames, never batched).
    """

    parts: Parts
    rules: PyTree
    observe: PyTree
    source: PyTree
    envs: PyTree
    last: PyTree
    memory: PyTree
    key: Key
    step: Wide


class Loop(NamedTuple):
    """A compiled loop's pure pieces.

    `init(key) -> run`; `collect(run) -> (run, transitions [T, N, ...])` steps the environments and advances the clock;
    `learn(run, transitions) -> (run, metrics)` does the rest of a tick; `chunk(run, ticks) -> (run, metrics)` scans
    ticks and reduces each metric to its mean over the chunk. `frames` is how far one tick moves the clock; `updates`
    is the (largest) number of updates in it. `act(run, t) -> (actions [N], memory, extras)` is what `collect` does at
    the tick's step t before it steps the environments (None over many seeds). `periods` are those of the events,
    `warmup` is the frames before learning begins. Jit `init` where a chunk is donated: made eagerly, what is acted on
    may share a buffer with the environments' state.
    """

    init: Callable[[Key], Run]
    collect: Callable[[Run], tuple[Run, Batch]]
    learn: Callable[[Run, Batch], tuple[Run, Metrics]]
    chunk: Callable[[Run, int], tuple[Run, Metrics]]
    frames: int
    updates: int
    act: Callable[[Run, jax.Array], tuple[jax.Array, PyTree, dict]] | None = None
    periods: tuple[int, ...] = ()
    warmup: int = 0


LONGEST = 1 << 40  # frames of a run

# The streams of randomness of one tick, folded into the run's key after the clock.
ACT, SAMPLE, LEARN, OBSERVE, REFRESH, RATIO = range(6)
HAPPEN = 100  # and those after it, of the events


def loop(env: Env | None, recipe: Recipe, axis: str | None = None, devices: int = 1) -> Loop:
    """The loop over an environment, or (with None) over the source alone, where the clock counts updates.

    Args:
        axis, devices: name and size of the mesh axis over which it runs; see `over_devices`, which gives them.

    Raises:
        BadInput: a setting of the recipe that cannot run, by name.
    """
    agent, source, ratio = recipe.agent, recipe.source, recipe.ratio
    if recipe.unroll < 1:
        raise BadInput(f"unroll is {recipe.unroll}; a tick needs at least 1 step.")
    if not callable(ratio) and ratio < 0:
        raise BadInput(f"ratio is {ratio}; the number of updates a tick is at least 0.")
    if recipe.warmup < 0:
        raise BadInput(f"warmup is {recipe.warmup}; it is a number of frames, at least 0.")
    envs = None if env is None else batched(env, recipe.num_envs, recipe.starts)
    frames = max(int(ratio), 1) if env is None else recipe.num_envs * recipe.unroll * env.specs.frames * devices
    most = recipe.most if callable(ratio) else ratio
    if most is None:
        raise BadInput("ratio is a function, so `most` has to say how many updates a tick it asks for at most.")
    periods = tuple(event.period for event in recipe.events)
    for period in periods:
        if not 0 < period < 2**31 or period % frames:
            raise BadInput(
                f"an event's period is {period} frames; it must be a multiple of a tick's {frames} below 2^31."
            )
    observe, rule = chain(agent.observe if envs else {}), chain(agent.rules)
    warmup = 0 if env is None else recipe.warmup  # a source alone has no actions to wait for

    def first() -> jax.Array | int:
        """The number of this device's first environment."""
        return 0 if axis is None else jax.lax.axis_index(axis) * recipe.num_envs

    def stream(run: Run, which: int, step: Wide | None = None) -> Key:
        return fold(fold(run.key, run.step if step is None else step), which)

    def context(key: Key, clock: Wide, update: Wide, turn: jax.Array | int = 0) -> Ctx:
        return Ctx(key, clock, update, axis, jnp.int32(turn))

    def init(key: Key) -> Run:
        key_parts, key_envs, key_run = jax.random.split(key, 3)
        parts = agent.init(key_parts)
        state, last = ((), ()) if envs is None else envs.reset(key_envs, parts, first())
        memory = jax.tree.map(lambda x: jnp.broadcast_to(x, (recipe.num_envs, *jnp.shape(x))), agent.memory())
        run = Run(parts, rule.init(parts), observe.init(parts), (), state, last, memory, key_run, Wide.of(0))
        example = () if envs is None else jax.eval_shape(collect, run)[1]
        return run._replace(source=source.init(example))

    def keys_at(run: Run, t: jax.Array) -> Key:
        """Each environment's key for acting at the tick's step t: [N]."""
        return each_key(fold(stream(run, ACT), t), recipe.num_envs, first())

    def act(run: Run, keys: Key, obs: PyTree, memory: PyTree):
        """Actions for all environments; uniform ones during the warm-up."""

        def policy(key, obs, memory):
            return agent.act(run.parts, memory, obs, Ctx(key, run.step), True)

        action, memory, extras = jax.vmap(policy)(keys, obs, memory)
        fitting(env.specs, env.name, action)
        if recipe.warmup > 0:
            early = run.step < recipe.warmup
            uniform = jax.vmap(lambda key: env.specs.action.sample(fold(key, 1)))(keys)
            action = jnp.where(early, uniform, action)
            if agent.told is not None:
                memory, extras = where(early, jax.vmap(agent.told)(memory, extras, action), (memory, extras))
        return action, memory, extras

    def collect(run: Run) -> tuple[Run, Batch]:
        def step(carry, keys):
            state, obs, memory = carry
            action, after, extras = act(run, keys, obs, memory)
            state, out, following = envs.step(state, action)
            end = out.end
            fresh = jax.tree.map(lambda x: jnp.broadcast_to(x, (recipe.num_envs, *jnp.shape(x))), agent.memory())
            transition = {
                "obs": obs,
                "action": action,
                "reward": out.reward,
                "discount": out.discount,
                "end": end,
                "next_obs": out.obs,
                "memory": memory,
                "extras": extras,
                "info": out.info,
            }
            return (state, following, where(end, fresh, after)), transition

        # All keys at once: hashed one by one in the scan they are a tenth of what a small policy's step costs.
        keys = jax.vmap(lambda t: keys_at(run, t))(jnp.arange(recipe.unroll))
        (state, last, memory), transitions = jax.lax.scan(step, (run.envs, run.last, run.memory), keys)
        return run._replace(envs=state, last=last, memory=memory, step=run.step + frames), transitions

    def learn(run: Run, transitions: Batch) -> tuple[Run, Metrics]:
        began = run.step - frames
        ctx = context(stream(run, OBSERVE, began), began, began // frames)
        # Parts are the same on all devices, so that what is learned by looking has to look at all environments.
        gathered = transitions
        if axis is not None and agent.observe:
            gathered = jax.lax.all_gather(transitions, axis, axis=1, tiled=True)
        parts, observing, seen = observe.update(run.parts, run.observe, gathered, ctx)
        held = run.source if env is None else source.add(run.source, transitions, ctx)
        run = run._replace(parts=parts, observe=observing, source=held)
        run, learned = update(run, began)
        return run, {**average(seen), **learned}

    def update(run: Run, began: Wide) -> tuple[Run, Metrics]:
        """`ratio` times: sample, the rules in order, note. A dynamic trip count needs no branch for the warm-up."""
        key_sample = context(stream(run, SAMPLE, began), began, began).own_key
        key_learn = stream(run, LEARN, began)
        number = began // frames * most
        note = source.note or (lambda held, batch, metrics: held)

        def learned(i, parts, rules, held):
            batch = source.sample(held, parts, fold(key_sample, i))
            parts, rules, metrics = rule.update(parts, rules, batch, context(fold(key_learn, i), began, number + i, i))
            return parts, rules, batch, metrics

        def noting(i, carry):
            parts, rules, held, total = carry
            parts, rules, batch, metrics = learned(i, parts, rules, held)
            return parts, rules, note(held, batch, metrics), tally(total, metrics)

        def only_learning(i, carry):
            # The source is closed over rather than carried: nothing changes it, so no seed's branch has to copy it.
            parts, rules, _, total = carry
            parts, rules, _, metrics = learned(i, parts, rules, run.source)
            return parts, rules, (), tally(total, metrics)

        shapes = jax.eval_shape(lambda: average(learned(0, run.parts, run.rules, run.source)[3]))
        total = jax.tree.map(lambda m: jnp.zeros(2), shapes)
        if callable(ratio):
            count = jnp.minimum(ratio(run.parts, Ctx(stream(run, RATIO, began), began, number)), most)
        else:
            count = ratio
        count = jnp.where(run.step > warmup, count, 0)
        held = run.source if source.note else ()
        body = only_learning if source.note is None else noting
        parts, rules, held, total = jax.lax.fori_loop(0, count, body, (run.parts, run.rules, held, total))
        run = run._replace(parts=parts, rules=rules, source=held if source.note else run.source)
        return run, jax.tree.map(lambda t: jnp.where(t[1] > 0, t[0] / t[1], jnp.nan), total)

    def tick(run: Run, _=None) -> tuple[Run, Metrics]:
        if env is None:
            return learn(run._replace(step=run.step + frames), {})
        run, transitions = collect(run)
        run, metrics = learn(run, transitions)
        episode, end = transitions["info"]["episode"], transitions["end"]
        ended = {f"episode/{name}": jnp.stack([jnp.where(end, x, 0).sum(), end.sum()]) for name, x in episode.items()}
        bad = any_bad(transitions, run.last).astype(jnp.float32)
        return run, {**metrics, **ended, NOT_FINITE: bad}

    def chunk(run: Run, ticks: int) -> tuple[Run, Metrics]:
        if recipe.starts is not None:
            run = run._replace(envs=envs.refresh(run.envs, run.parts, stream(run, REFRESH)))
        if not recipe.events:
            run, metrics = jax.lax.scan(tick, run, None, length=ticks)
        else:
            span = math.gcd(ticks, *(period // frames for period in periods))  # ticks between which nothing happens

            def turn(run, _):
                run, metrics = jax.lax.scan(tick, run, None, length=span)
                found = {}
                for i, event in enumerate(recipe.events):
                    run, seen = happen(run, i, event, axis)
                    found |= seen
                return run, (metrics, found)

            run, (metrics, found) = jax.lax.scan(turn, run, None, length=ticks // span)
            metrics = {**jax.tree.map(lambda m: m.reshape(ticks, *m.shape[2:]), metrics), **found}
        return run, {name: over_chunk(values, axis) for name, values in metrics.items()}

    def acting(run: Run, t: jax.Array):
        return act(run, keys_at(run, t), run.last, run.memory)

    return Loop(init, collect, learn, chunk, frames, most, acting, periods, warmup)


def tally(total: Metrics, metrics: Metrics) -> Metrics:
    """(sum, count) of each metric's averages so far, NaN left out: float32 [2]."""
    one = lambda m: jnp.stack([jnp.where(jnp.isnan(m), 0, m), ~jnp.isnan(m)])
    return jax.tree.map(lambda t, m: t + one(m), total, average(metrics))


def average(metrics: Metrics) -> Metrics:
    """Each metric's mean over all its axes, NaN left out: float32 []."""
    return {name: jnp.nanmean(jnp.asarray(m, jnp.float32)) for name, m in metrics.items()}


def over_chunk(values: jax.Array, axis: str | None = None) -> jax.Array:
    """[ticks] -> [], or [ticks, 2] of (sum, count) -> sum over count; NaN where there was nothing to average.

    Args:
        axis: a mesh axis whose devices are averaged over too.
    """
    if values.ndim == 1:
        values = jnp.stack([jnp.where(jnp.isnan(values), 0, values), ~jnp.isnan(values)], axis=1)
    both = values.astype(jnp.float32).sum(axis=0)
    total, count = both if axis is None else jax.lax.psum(both, axis)
    return jnp.where(count > 0, total / count, jnp.nan)


def layout() -> str:
    """How seeds are laid out where nobody says: 'map' on CPUs and 'vmap' on accelerators."""
    return "map" if jax.default_backend() == "cpu" else "vmap"


def over_seeds(one: Loop, how: str | None = None) -> Loop:
    """The loop of many seeds in one program: `init` takes keys [K], every field but the clock gains a leading [K].

    Args:
        how: 'vmap' (side by side, the point on accelerators) or 'map' (one after another inside the program, faster
            where cores are few); None is `layout`'s choice, by backend.
    """
    how = how or layout()
    axes = Run(*([0] * len(Run._fields)))._replace(step=None)

    def each(fn, run, *rest):
        if how == "vmap":
            return jax.vmap(fn, in_axes=(axes, *[0 for _ in rest]), out_axes=(axes, 0))(run, *rest)

        def of_one(args):
            single, *others = args
            after, result = fn(single._replace(step=run.step), *others)
            return after._replace(step=()), result

        return jax.lax.map(of_one, (run._replace(step=()), *rest))

    def init(keys):
        if how == "vmap":
            return jax.vmap(one.init, out_axes=axes)(keys)
        return jax.lax.map(lambda key: one.init(key)._replace(step=()), keys)._replace(step=Wide.of(0))

    def stepped(fn, run, *rest, frames):
        out, other = each(fn, run, *rest)
        return out._replace(step=run.step + frames), other

    return Loop(
        init,
        lambda run: stepped(one.collect, run, frames=one.frames),
        lambda run, transitions: stepped(one.learn, run, transitions, frames=0),
        lambda run, ticks: stepped(lambda r: one.chunk(r, ticks), run, frames=ticks * one.frames),
        one.frames,
        one.updates,
        periods=one.periods,
        warmup=one.warmup,
    )


SPREAD = ("source", "envs", "last", "memory")  # what each device has of its own


def over_devices(env: Env, recipe: Recipe, devices: Sequence[Any] | None = None) -> Loop:
    """The loop with environments and source spread over devices, each with a replay of its own, and gradients averaged.

    Nothing but gradients (and, for rules that observe, fresh transitions) passes between devices. Fields of a `Run`
    that are spread gain a leading [devices], sharded; the others are the same everywhere. Environments draw the numbers
    that they would on one device; replays, and losses that draw, have numbers of their own on each.

    Args:
        recipe: counts all environments in `num_envs`; its source is each device's, with a share of capacity and batch.
        devices: None takes all.

    Raises:
        BadInput: the environments are not a multiple of the devices, or the recipe has events.
    """
    devices = jax.devices() if devices is None else list(devices)
    for event in recipe.events:
        raise BadInput(
            f"event '{event.name}' learns from what one device's source holds, so that devices would differ: spread "
            "seeds over devices, not environments."
        )
    if recipe.num_envs % len(devices):
        raise BadInput(f"num_envs is {recipe.num_envs}, which {len(devices)} devices do not divide: choose a multiple.")
    share = replace(recipe, num_envs=recipe.num_envs // len(devices))
    one = loop(env, share, "env", len(devices))
    mesh = Mesh(np.array(devices), ("env",))
    whole, spread, columns = PartitionSpec(), PartitionSpec("env"), PartitionSpec(None, "env")
    run_specs = Run(*(spread if name in SPREAD else whole for name in Run._fields))
    own = lambda run: run._replace(**{n: jax.tree.map(lambda x: x[0], getattr(run, n)) for n in SPREAD})
    lead = lambda run: run._replace(**{n: jax.tree.map(lambda x: x[None], getattr(run, n)) for n in SPREAD})

    def each(fn, ins, outs):
        return jax.shard_map(fn, mesh=mesh, in_specs=ins, out_specs=outs, check_vma=False)

    def on_own(fn, ins, outs):
        def local(run, *rest):
            run, other = fn(own(run), *rest)
            return lead(run), other

        return each(local, (run_specs, *ins), (run_specs, outs))

    return Loop(
        each(lambda key: lead(one.init(key)), (whole,), run_specs),
        on_own(one.collect, (), columns),
        on_own(lambda *given: _mean_metrics(one.learn(*given)), (columns,), whole),
        lambda run, ticks: on_own(lambda run: one.chunk(run, ticks), (), whole)(run),
        one.frames,
        one.updates,
        periods=one.periods,
        warmup=one.warmup,
    )


def _mean_metrics(learned: tuple[Run, Metrics]) -> tuple[Run, Metrics]:
    return learned[0], jax.lax.pmean(learned[1], "env")


def train(env: Env, recipe: Recipe, key: Key, *, steps: int, chunk: int | None = None) -> tuple[Run, Metrics]:
    """A whole run, pure and so `jit`- and `vmap`-able over keys and numeric hyperparameters.

    Args:
        steps: frames to train for, rounded down to whole chunks.
        chunk: frames between points of the metrics; None makes one chunk of the whole run.

    Returns:
        The final run, and metrics with a leading axis of chunks.

    Raises:
        BadInput: a setting of the recipe that cannot run; see `check_lengths`.
    """
    return _train(loop(env, recipe), key, steps, chunk)


def fit(recipe: Recipe, key: Key, *, steps: int, chunk: int | None = None) -> tuple[Run, Metrics]:
    """`steps` updates from a source alone, as offline agents and models learn; otherwise as `train`.

    Of the recipe, what concerns environments (and so the warm-up) is left aside.
    """
    return _train(loop(None, recipe), key, steps, chunk)


def _train(one: Loop, key: Key, steps: int, chunk: int | None):
    length = chunk or steps
    check_lengths(one, steps, length)
    if steps // length >= 2**31:
        raise BadInput(f"chunk is {length} frames, of which {steps} steps are 2^31 chunks or more: lengthen it.")
    turn = lambda run, _: one.chunk(run, length // one.frames)
    return jax.lax.scan(turn, one.init(key), None, length=steps // length)


def happen(run: Run, number: int, event: Event, axis: str | None = None) -> tuple[Run, Metrics]:
    """The event of that number, if it is due by the run's own clock: a resumed run meets it again. Inside jit."""
    ctx = Ctx(fold(fold(run.key, run.step), HAPPEN + number), run.step, axis=axis)
    return happening(lambda run, ctx: run.step % event.period == 0, event.fn)(run, ctx)


def check_lengths(one: Loop, steps: int, chunk: int) -> None:
    """Raise `BadInput` unless ticks divide the chunk, the chunk an event's period, or that the chunk, and the run is
    longer than its warm-up and no longer than a clock can count."""
    if steps < 1 or chunk < 1:
        raise BadInput(f"steps is {steps} and chunk {chunk}; both are at least 1 frame.")
    if steps - chunk >= LONGEST:
        raise BadInput(f"steps is {steps}, more than the 2^40 frames that a run can have: ask for fewer.")
    if steps <= one.warmup:
        raise BadInput(
            f"steps is {steps}, all of them within the warm-up of {one.warmup} frames, in which nothing is learned: "
            "raise steps or lower warmup."
        )
    if chunk % one.frames:
        raise BadInput(f"chunk is {chunk} frames, which is not a multiple of a tick's {one.frames}.")
    if chunk > steps:
        raise BadInput(f"chunk is {chunk} frames, more than the run's {steps}: shorten it.")
    if chunk // one.frames >= 2**31:
        raise BadInput(f"chunk is {chunk} frames, which are 2^31 ticks of {one.frames} or more: shorten it.")
    for period in one.periods:
        if period % chunk and chunk % period:
            raise BadInput(f"chunk is {chunk} frames, neither a multiple nor a divisor of an event's period, {period}.")


def evaluate(env: Env, agent: Agent, parts: Parts, key: Key, episodes: int = 8) -> Metrics:
    """Play whole episodes side by side on the task's own starts, without exploration, inside jit.

    Returns:
        `return` float32 [episodes] and `length` int32 [episodes], in the environment's steps.

    Raises:
        BadInput: the environment has no limit, so that an episode might never end.
    """
    if env.specs.limit is None:
        raise BadInput(f"{env.name} is endless, so an evaluation would never end: wrap it in time_limit(env, steps).")
    everyone = jnp.arange(episodes)
    key_reset, key_act = jax.random.split(key)
    state, first = jax.vmap(env.reset)(each_key(key_reset, episodes))
    memory = jax.tree.map(lambda x: jnp.broadcast_to(x, (episodes, *jnp.shape(x))), agent.memory())

    def step(carry):
        t, state, obs, memory, total, length, alive = carry
        ctx = lambda i: Ctx(fold(fold(key_act, t), i), jnp.int32(0))
        action, memory, _ = jax.vmap(lambda i, o, m: agent.act(parts, m, o, ctx(i), False))(everyone, obs, memory)
        fitting(env.specs, env.name, action)
        state, out = jax.vmap(env.step)(state, action)
        reward = out.reward.reshape(episodes, -1).sum(axis=-1)
        total, length = total + jnp.where(alive, reward, 0), length + alive
        return t + 1, state, out.obs, memory, total, length, alive & ~out.end

    start = (
        jnp.int32(0),
        state,
        first.obs,
        memory,
        jnp.zeros(episodes),
        jnp.zeros(episodes, jnp.int32),
        jnp.ones(episodes, bool),
    )
    *_, total, length, _ = jax.lax.while_loop(lambda c: (c[0] < env.specs.limit) & c[-1].any(), step, start)
    return {"return": total, "length": length}

"""A ring of transitions that stores each observation once; the ground under `uniform` and `prioritised`.

Each environment is a column of `L` slots. A slot (a *node*) holds one observation and what was done there; the next
observation of a node is the next node's. An episode's end therefore takes one node more, for its true last
observation, and columns are written at their own pace:

    slot      0     1     2     3     4     5     6     7
    obs       o0    o1    o2    o3*   p0    p1    p2    (old)
    mark      on    on    last  dead  on    on    dead  (old)
                                                  ^ head: holds the newest next_obs, or is free after an episode's end

A transition may be drawn where its mark is not `DEAD`. Nodes are overwritten from the head on, and whatever follows
the newest transition is a dead node, so that no window crosses the head or an episode's end.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.core import BadInput, Batch, PyTree, unknown
from jaxrl.sources import budget as room

DEAD, ON, LAST = 0, 1, 2  # what a node is: not the start of a transition; one that goes on; an episode's last

STORED = ("action", "reward", "discount")  # per node, beside the observation; `end` is in the mark


class Ring(NamedTuple):
    """The state: one pytree of arrays, updated in place where the loop donates it.

    Fields:
        nodes: obs, action, reward, discount, keep (by path) and mark int8, each [L, N, ...]; with frames also age
            uint8 [L, N], steps since the episode began, up to frames - 1.
        head: int32 [N], the slot to write next.
        age: int32 [N], the same count as nodes' age for the observation at the head (unused without frames).
        rows: int32 [], slots of a column that have ever been written, at most (draws stay below it).
    """

    nodes: dict[str, PyTree]
    head: jax.Array
    age: jax.Array
    rows: jax.Array


@dataclass(frozen=True)
class Layout:
    """What a ring holds and how it is read.

    Attributes:
        capacity: slots over all columns. An endless task has that many transitions; each episode's end costs a slot.
        batch: transitions (or sequences) in a batch.
        n: steps summed into a reward before bootstrapping.
        gamma: discount per step within the n; may be traced.
        sequence: None, or the length of sequences to read instead of transitions.
        frames: None, or the depth of observations that are stacks of frames along the last axis, newest last, an
            episode's first frame repeated (as `frame_stack` makes them): only the newest is stored.
        keep: further fields of a transition to store, by name or path ('memory', 'extras', 'info/context').
        budget: bytes the ring may take; None allows half of what is free.
        ahead: None, or how many steps ahead a transition also looks, whatever n is: `batch['ahead']` then holds the
            actions of those steps, [B, ahead, ...], the `obs` after them, and `weight`, float32 [B], which is 0 where
            the episode (or what is held of it) ends before.
    """

    capacity: int
    batch: int
    n: int = 1
    gamma: float | jax.Array = 0.99
    sequence: int | None = None
    frames: int | None = None
    keep: tuple[str, ...] = ()
    budget: int | None = None
    ahead: int | None = None

    def __post_init__(self):
        for name in ("capacity", "batch", "n", "sequence", "frames", "ahead"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"{name} is {value}; a replay needs at least 1.")
        if self.batch > self.capacity:
            raise BadInput(f"batch is {self.batch}, more than the capacity of {self.capacity}: lower batch.")
        if self.sequence is not None and self.n > 1:
            raise BadInput(f"n is {self.n} with sequences of {self.sequence}: choose one of n and sequence.")
        if self.sequence is not None and self.ahead is not None:
            raise BadInput(f"ahead is {self.ahead} with sequences of {self.sequence}: a sequence shows what follows.")
        if isinstance(self.gamma, float | int) and not 0 <= self.gamma <= 1:
            raise BadInput(f"gamma is {self.gamma}; a discount is between 0 and 1.")
        object.__setattr__(self, "keep", (self.keep,) if isinstance(self.keep, str) else tuple(self.keep))

    @property
    def depth(self) -> int:
        return self.frames or 1


# ------------------------------------------------------------------------------------------------------- allocation


def shapes(layout: Layout, example: PyTree) -> dict[str, PyTree]:
    """The ring's nodes as `ShapeDtypeStruct`s, from the shapes of one tick `[T, N, ...]`.

    Raises:
        BadInput: no transitions, a field to keep that they lack, an observation that is no stack of `frames`, or a
            capacity that a single tick would overrun or an int32 cannot count.
    """
    if "end" not in (example or ()):
        raise BadInput("a replay holds an environment's transitions, of which there are none: use dataset(...).")
    time, envs = example["end"].shape
    length = -(-layout.capacity // envs) + 1
    least = 2 * time + layout.depth
    if length < least:
        raise BadInput(
            f"capacity is {layout.capacity}, which ticks of {time} x {envs} steps overrun: "
            f"at least {(least - 1) * envs} is needed."
        )
    if length * envs >= 2**31:
        raise BadInput(f"capacity is {layout.capacity}, more than an int32 can count: at most {2**31 - 2 * envs}.")

    def node(x):
        return jax.ShapeDtypeStruct((length, envs, *x.shape[2:]), x.dtype)

    chosen = {name: example[name] for name in STORED} | {"keep": {path: at(example, path) for path in layout.keep}}
    nodes = jax.tree.map(node, chosen | {"obs": jax.eval_shape(lambda obs: newest(layout, obs), example["obs"])})
    nodes["mark"] = jax.ShapeDtypeStruct((length, envs), jnp.int8)
    if layout.frames:
        nodes["age"] = jax.ShapeDtypeStruct((length, envs), jnp.uint8)
    return nodes


def allocate(layout: Layout, example: PyTree) -> Ring:
    """An empty ring; raises `BadInput` with the figure before anything is allocated that exceeds the budget."""
    nodes = shapes(layout, example)
    room.require(room.footprint(nodes), layout.budget, f"a replay of capacity {layout.capacity}")
    # Each counter has a buffer of its own: a shared one could not be donated.
    column = lambda: jnp.zeros(nodes["mark"].shape[1], jnp.int32)
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), nodes)
    return Ring(empty, column(), column(), jnp.zeros((), jnp.int32))


def held(ring: Ring) -> jax.Array:
    """Transitions in the ring, int32 []; counted anew, which costs a pass over the marks."""
    return (ring.nodes["mark"] != DEAD).sum(dtype=jnp.int32)


def at(transitions: Batch, path: str) -> PyTree:
    """The field at a path such as 'info/context'."""
    for name in path.split("/"):
        if name not in transitions:
            raise unknown("field to keep", name, transitions)
        transitions = transitions[name]
    return transitions


def newest(layout: Layout, obs: PyTree) -> PyTree:
    """The newest frame of each stack `[..., k * c]` -> `[..., c]`."""

    def frame(x):
        if x.shape[2:] == () or x.shape[-1] % layout.depth:
            raise BadInput(f"frames is {layout.frames}, but an observation of shape {x.shape[2:]} is no such stack.")
        return x[..., -(x.shape[-1] // layout.depth) :]

    return jax.tree.map(frame, obs) if layout.frames else obs


# ---------------------------------------------------------------------------------------------------------- writing


def places(ring: Ring, end: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Where a tick's transitions go: slots of obs [T, N], slots of next_obs [T, N], and the head after them [N]."""
    length = ring.nodes["mark"].shape[0]
    taken = 1 + end.astype(jnp.int32)
    after = ring.head + jnp.cumsum(taken, axis=0)
    return (after - taken) % length, (after - taken + 1) % length, after[-1]


def write(layout: Layout, ring: Ring, transitions: Batch) -> Ring:
    """Append one tick `[T, N, ...]` whose observations follow on from the tick before."""
    length, envs = ring.nodes["mark"].shape
    end = transitions["end"]
    here, following, head = places(ring, end)
    columns = jnp.arange(envs)
    age, age_next, age_head = ages(layout, ring.age, end)

    def put(x, rows, value):
        return x.at[rows, columns].set(value.astype(x.dtype), unique_indices=True, mode="promise_in_bounds")

    def place(nodes, rows, values):
        values = {name: value for name, value in values.items() if name in nodes}
        return {
            **nodes,
            **{name: jax.tree.map(lambda x, v: put(x, rows, v), nodes[name], value) for name, value in values.items()},
        }

    # What follows first: where the episode goes on, the next transition overwrites it with the same observation.
    # Nothing is read from the nodes meanwhile: else XLA copies a whole ring to keep what it was.
    nodes = place(
        ring.nodes,
        following,
        {
            "obs": newest(layout, transitions["next_obs"]),
            "mark": jnp.full(end.shape, DEAD),
            "age": age_next,
        },
    )
    nodes = place(
        nodes,
        here,
        {
            **{name: transitions[name] for name in STORED},
            "obs": newest(layout, transitions["obs"]),
            "keep": {path: at(transitions, path) for path in layout.keep},
            "mark": jnp.where(end, LAST, ON),
            "age": age,
        },
    )
    rows = jnp.minimum(jnp.maximum(ring.rows, head.max() + 1), length)
    return Ring(nodes, head % length, age_head, rows)


def ages(layout: Layout, age: jax.Array, end: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Steps since the episode began, up to frames - 1: of obs [T, N], of next_obs [T, N], of what comes next [N]."""
    most = layout.depth - 1
    steps = jnp.arange(end.shape[0])[:, None]
    began = jnp.concatenate([-age[None], jnp.where(end[:-1], steps[1:], -most)])
    here = jnp.minimum(steps - jax.lax.cummax(began), most)
    following = jnp.minimum(here + 1, most)
    return here, following, jnp.where(end[-1], 0, following[-1])


# ---------------------------------------------------------------------------------------------------------- reading


def drawable(layout: Layout, ring: Ring, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """bool, where the node starts a transition whose observation is still whole."""
    mark = ring.nodes["mark"]
    starts = mark[rows, columns] != DEAD
    if not layout.frames:
        return starts
    # Nodes ahead of the head are the oldest. The head itself still holds old data where an episode has just ended.
    ahead_by = (rows - ring.head[columns]) % mark.shape[0]
    needed = ring.nodes["age"][rows, columns]
    head_whole = mark[ring.head[columns], columns] != DEAD
    return starts & ((needed < ahead_by) | ((needed == ahead_by) & head_whole))


def oldest(layout: Layout, ring: Ring) -> jax.Array:
    """The slots from each column's head on whose stacks may reach behind it: int32 [frames, N]."""
    return (ring.head + jnp.arange(layout.depth)[:, None]) % ring.nodes["mark"].shape[0]


def draw(layout: Layout, ring: Ring, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`batch` slots, each uniform over all that are drawable: (rows, columns), int32 [B].

    They are the first `batch` drawable ones of a stream of uniform slots, which is exact at a cost that does not
    depend on the capacity. The stream comes in lots with an eighth to spare, so that one lot mostly does. An empty
    ring gives slot 0, an empty node.
    """
    envs = ring.head.shape[0]
    lot = layout.batch + layout.batch // 8 + 1

    def propose(key):
        fresh = below(key, lot, jnp.maximum(ring.rows * envs, 1))
        return fresh, (fresh >= 0) & drawable(layout, ring, fresh // envs, fresh % envs)

    slots = first_accepted(propose, layout.batch, key, ring.rows > 0)
    return slots // envs, slots % envs


def covering(layout: Layout, ring: Ring, rows: jax.Array, columns: jax.Array, key: jax.Array) -> jax.Array:
    """Where sequences begin in which the drawn steps have any place: rows int32 [B].

    A sequence that began at the drawn step would show an episode's first step once where it shows others `sequence`
    times. Here it begins up to `sequence` - 1 steps earlier, but within the episode and what is held whole of it, so
    that its first step is seen at least half as often as those in its middle.
    """
    length, sequence = ring.nodes["mark"].shape[0], layout.sequence or 1
    earlier = (rows[:, None] - 1 - jnp.arange(sequence - 1)) % length
    # A dead node lies before an episode's first step, and before the oldest one that is held.
    whole = jnp.cumprod(drawable(layout, ring, earlier, columns[:, None]), axis=1).sum(axis=1)
    return (rows - jnp.minimum(whole, jax.random.randint(key, rows.shape, 0, sequence))) % length


def since(ring: Ring, index: jax.Array) -> jax.Array:
    """Slots written, over all columns, since these flat ones [...]: int32 [...], 0 for the newest transition."""
    length, envs = ring.nodes["mark"].shape
    row, column = index // envs, index % envs
    return ((ring.head[column] - 1 - row) % length) * envs


def first_accepted(
    propose: Callable[[jax.Array], tuple[jax.Array, jax.Array]], size: int, key: jax.Array, any_at_all: jax.Array
) -> jax.Array:
    """The first `size` accepted ones of a stream of proposals: int32 [size].

    Args:
        propose: `(key) -> (slots int32 [K], accepted bool [K])`, the stream's next lot.
        any_at_all: bool [], whether anything can be accepted; where not, all are slot 0.
    """

    def more(carry):
        turn, slots, found = carry
        fresh, good = propose(jax.random.fold_in(key, turn))
        place = jnp.where(good, found + jnp.cumsum(good) - 1, size)
        return turn + 1, slots.at[place].set(fresh, mode="drop"), found + good.sum()

    start = (jnp.int32(0), jnp.zeros(size, jnp.int32), jnp.int32(0))
    return jax.lax.while_loop(lambda carry: any_at_all & (carry[2] < size), more, start)[1]


def below(key: jax.Array, size: int, bound: jax.Array) -> jax.Array:
    """Integers uniform on 0 .. bound - 1, without the bias of a remainder: int32 [size], -1 where none came of it."""
    bits = jax.random.bits(key, (size,), jnp.uint32)
    bound = bound.astype(jnp.uint32)
    surplus = -bound % bound  # 2^32 mod bound: that many draws at the top would favour the first integers
    return jnp.where(bits <= ~surplus, (bits % bound).astype(jnp.int32), -1)


def everything(layout: Layout, ring: Ring) -> Batch:
    """All slots as single transitions, [S, ...] as `read` has them, with `weight` float32 [S], 0 where none begins."""
    length, envs = ring.nodes["mark"].shape
    rows, columns = jnp.divmod(jnp.arange(length * envs), envs)
    one = replace(layout, n=1, sequence=None, ahead=None)
    return {**read(one, ring, rows, columns), "weight": drawable(layout, ring, rows, columns).astype(jnp.float32)}


def read(layout: Layout, ring: Ring, rows: jax.Array, columns: jax.Array) -> Batch:
    """The batch that starts at these slots [B].

    Returns:
        obs, action, reward, discount, end, next_obs and the kept fields, each [B, ...]; index int32 [B], the flat
        slot. With `sequence` each is [B, L, ...] but for index and a kept 'memory', which are the start's; weight
        float32 [B, L] is 0 past the episode's end or the newest transition, where the last one is repeated. With
        `ahead` there is a field of that name, as `Layout` has it.
    """
    nodes, (length, envs) = ring.nodes, ring.nodes["mark"].shape
    rows, column = rows[:, None], columns[:, None]
    inside, steps, here = window(ring, rows, column, layout.sequence or layout.n)
    field = lambda name: nodes[name][here, column]
    index = rows[:, 0] * envs + columns

    if layout.sequence:
        obs = observation(layout, ring, (rows + jnp.minimum(jnp.arange(layout.sequence + 1), steps)) % length, column)
        batch = {
            "obs": jax.tree.map(lambda x: x[:, :-1], obs),
            "next_obs": jax.tree.map(lambda x: x[:, 1:], obs),
            **{name: field(name) for name in STORED},
            "end": field("mark") == LAST,
            "weight": inside.astype(jnp.float32),
            "index": index,
        }
        return kept(batch, nodes["keep"], rows, here, column)

    edge = jnp.concatenate([rows, (rows + steps) % length], axis=1)
    if layout.ahead:
        whole, reach, along = window(ring, rows, column, layout.ahead)
        edge = jnp.concatenate([edge, (rows + reach) % length], axis=1)
    obs = observation(layout, ring, edge, column)
    batch = {
        "obs": jax.tree.map(lambda x: x[:, 0], obs),
        "next_obs": jax.tree.map(lambda x: x[:, 1], obs),
        "action": nodes["action"][rows[:, 0], columns],
        "reward": discounted(layout.gamma, field("reward"), inside),
        "discount": bootstrap(layout.gamma, field("discount"), inside),
        "end": field("mark")[:, -1] == LAST,
        "index": index,
    }
    if layout.ahead:
        last = {"obs": jax.tree.map(lambda x: x[:, 2], obs), "weight": whole[:, -1].astype(jnp.float32)}
        batch["ahead"] = {"action": nodes["action"][along, column], **last}
    return kept(batch, nodes["keep"], rows[:, 0], rows[:, 0], columns)


def window(ring: Ring, rows: jax.Array, column: jax.Array, span: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The `span` steps from slots [B, 1] on: which are inside [B, span], how many [B, 1], and their slots [B, span].

    Positions past the last transition repeat it: nothing of another episode is ever looked at.
    """
    length = ring.nodes["mark"].shape[0]
    mark = ring.nodes["mark"][(rows + jnp.arange(span)) % length, column]
    # A dead node follows an episode's last transition and the newest one: nothing beyond it belongs to the window.
    inside = jnp.cumprod(mark != DEAD, axis=1) > 0
    steps = jnp.maximum(inside.sum(axis=1, keepdims=True), 1)
    return inside, steps, (rows + jnp.minimum(jnp.arange(span), steps - 1)) % length


def discounted(gamma: float | jax.Array, reward: jax.Array, inside: jax.Array) -> jax.Array:
    """sum_k gamma^k r_k over the steps inside (bool or 0 and 1, [B, n]): [B, n, ...] -> [B, ...]."""
    weight = inside * jnp.asarray(gamma, jnp.float32) ** jnp.arange(inside.shape[1])
    return (_along(weight, reward) * reward).sum(axis=1)


def bootstrap(gamma: float | jax.Array, discount: jax.Array, inside: jax.Array) -> jax.Array:
    """gamma^(steps - 1) times the product of discounts inside: [B, n, ...] -> [B, ...].

    The one gamma left out is the agent's own, in `reward + gamma * discount * V(next_obs)`.
    """
    total = jnp.where(_along(inside, discount), discount, 1).prod(axis=1)
    factor = jnp.asarray(gamma, jnp.float32) ** (inside.sum(axis=1) - 1)
    return _along(factor, total) * total


def observation(layout: Layout, ring: Ring, rows: jax.Array, columns: jax.Array) -> PyTree:
    """Observations at slots [...], stacks rebuilt by index: the first frame again where the episode is younger."""
    if not layout.frames:
        return jax.tree.map(lambda x: x[rows, columns], ring.nodes["obs"])
    back = jnp.arange(layout.depth)[::-1]
    age = ring.nodes["age"][rows, columns].astype(jnp.int32)
    rows = (rows[..., None] - jnp.minimum(back, age[..., None])) % ring.nodes["mark"].shape[0]

    def stack(x):
        frames = x[rows, columns[..., None]]  # [..., k, *shape]
        frames = jnp.moveaxis(frames, rows.ndim - 1, -2)
        return frames.reshape(*frames.shape[:-2], -1)

    return jax.tree.map(stack, ring.nodes["obs"])


def kept(batch: Batch, keep: dict[str, PyTree], start: jax.Array, rows: jax.Array, columns: jax.Array) -> Batch:
    """The batch with each kept field at its path; of 'memory' only what the start began with."""
    for path, field in keep.items():
        if path.split("/")[0] == "memory":
            value = jax.tree.map(lambda x: x[start.reshape(-1), columns.reshape(-1)], field)
        else:
            value = jax.tree.map(lambda x: x[rows, columns], field)
        batch = _placed(batch, path.split("/"), value)
    return batch


def _placed(tree: dict, path: list[str], value: PyTree) -> dict:
    name, *rest = path
    return {**tree, name: _placed(tree.get(name, {}), rest, value) if rest else value}


def _along(weight: jax.Array, x: jax.Array) -> jax.Array:
    """`weight` with trailing axes until it broadcasts against x: a reward may be [..., agents]."""
    return weight.reshape(weight.shape + (1,) * (x.ndim - weight.ndim))

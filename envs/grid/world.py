"""MiniGrid's world: a grid of tiles, an agent that sees what lies before it, seven actions.

Chevalier-Boisvert et al. (2023), "Minigrid & Miniworld"; behaviour of the package minigrid 3.2. A cell is one byte, so
that a change of one is a comparison over the whole grid (a few vector instructions) and an episode a few hundred bytes.
Not here: how grids are laid out (`layouts`), who solves them (`expert`), how they look (`picture`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.core import BadInput, Discrete, Env, Specs, TimeStep, first
from envs.grid.picture import draw
from jaxrl.core import Key

# A tile is kind * 8 + colour. Kinds up to AGENT are minigrid's objects, with DOOR an open one; what minigrid keeps
# beside the object (a door's state, a box's contents) makes kinds of its own: FILLED + c is a box that hides a key of
# colour c.
UNSEEN, EMPTY, WALL, FLOOR, DOOR, KEY, BALL, BOX, GOAL, LAVA, AGENT, CLOSED, LOCKED, FILLED = range(14)
RED, GREEN, BLUE, PURPLE, YELLOW, GREY = range(6)
LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE, DONE = range(7)
STEPS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.int32)  # (x, y) of east, south, west, north; y points down

VIEW = 7  # cells on a side of what the agent sees; it stands in the middle of the nearest row


def tile(kind, colour=0):
    """The byte of a kind and a colour; uint8 of their shape."""
    return jnp.uint8(kind * 8 + colour)


FREE, STONE, FINISH = EMPTY * 8, WALL * 8 + GREY, GOAL * 8 + GREEN


class State(NamedTuple):
    """An episode so far.

    Fields: grid uint8 [H, W], tiles by (y, x); position int32 [2], (x, y); direction int32 [], 0 east, 1 south, 2 west,
    3 north; carrying uint8 [], a tile, FREE for nothing; mission uint8 [], the tile that the mission names (0: none);
    t int32 [], steps taken; extra, what a layout keeps for itself.
    """

    grid: jax.Array
    position: jax.Array
    direction: jax.Array
    carrying: jax.Array
    mission: jax.Array
    t: jax.Array
    extra: Any = ()


def begun(grid: jax.Array, position: jax.Array, direction: jax.Array, mission: Any = FINISH, extra: Any = ()) -> State:
    """The state of a fresh grid."""
    position, direction = jnp.asarray(position, jnp.int32), jnp.asarray(direction, jnp.int32)
    return State(grid, position, direction, jnp.uint8(FREE), jnp.uint8(mission), jnp.int32(0), extra)


def at(grid: jax.Array, position: jax.Array) -> jax.Array:
    """The tiles at positions (x, y) [..., 2], which lie in the grid."""
    width = grid.shape[1]
    return grid.reshape(-1).at[position[..., 1] * width + position[..., 0]].get(mode="promise_in_bounds")


def put(grid: jax.Array, position: jax.Array, tile: jax.Array | int) -> jax.Array:
    """The grid with another tile at one position. A scatter would cost more than comparing all bytes."""
    height, width = grid.shape
    cells = np.arange(height * width, dtype=np.int32).reshape(height, width)
    return jnp.where(cells == position[1] * width + position[0], jnp.uint8(tile), grid)


def faced(state: State) -> jax.Array:
    """The position before the agent, int32 [2]."""
    return state.position + jnp.asarray(STEPS)[state.direction]


def act(state: State, action: jax.Array) -> State:
    """What an action does to the world; the clock and the task are the environment's."""
    front = faced(state)
    ahead, hand = at(state.grid, front), state.carrying
    kind, free = ahead >> 3, hand == FREE
    passable = (kind == EMPTY) | (kind == FLOOR) | (kind == DOOR) | (kind == GOAL) | (kind == LAVA)
    liftable = (kind == KEY) | (kind == BALL) | (kind == BOX) | (kind >= FILLED)

    lifts = (action == PICKUP) & liftable & free
    drops = (action == DROP) & (ahead == FREE) & ~free
    unlocked = (hand == tile(KEY) + (ahead & 7)).astype(jnp.uint8) * 8 * (LOCKED - DOOR)  # down to an open door
    toggled = jnp.select(
        [kind == DOOR, kind == CLOSED, kind == LOCKED, kind == BOX, kind >= FILLED],
        [ahead + 8 * (CLOSED - DOOR), ahead - 8 * (CLOSED - DOOR), ahead - unlocked, FREE, tile(KEY) + kind - FILLED],
        ahead,
    )
    left_there = jnp.where(action == TOGGLE, toggled, ahead)
    left_there = jnp.where(lifts, FREE, jnp.where(drops, hand, left_there)).astype(jnp.uint8)
    turn = jnp.where(action == LEFT, 3, jnp.where(action == RIGHT, 1, 0))
    return state._replace(
        grid=put(state.grid, front, left_there),
        position=jnp.where((action == FORWARD) & passable, front, state.position),
        direction=(state.direction + turn) & 3,
        carrying=jnp.where(lifts, ahead, jnp.where(drops, FREE, hand)).astype(jnp.uint8),
    )


# ----------------------------------------------------------------------------------------------------- what is seen


def seen(state: State, see_through: bool) -> jax.Array:
    """The agent's view as tiles, uint8 [7, 7] by (x, y): it stands at (3, 6) and looks towards y = 0.

    What it cannot see is 0; its own cell shows what it carries.
    """
    height, width = state.grid.shape
    i, j = np.mgrid[:VIEW, :VIEW].astype(np.int32)
    ahead, aside = jnp.asarray(STEPS)[state.direction], jnp.asarray(STEPS)[(state.direction + 1) & 3]
    x, y = (state.position[n] + (VIEW - 1 - j) * ahead[n] + (i - VIEW // 2) * aside[n] for n in (0, 1))
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    cells = at(state.grid, jnp.stack([jnp.clip(x, 0, width - 1), jnp.clip(y, 0, height - 1)], axis=-1))
    cells = jnp.where(inside, cells, jnp.uint8(STONE))
    if not see_through:
        kind = cells >> 3
        cells = jnp.where(visible((kind != WALL) & (kind != CLOSED) & (kind != LOCKED)), cells, 0)
    return jnp.where((i == VIEW // 2) & (j == VIEW - 1), state.carrying, cells)


def visible(clear: jax.Array) -> jax.Array:
    """Which cells of a view the agent sees, bool [7, 7] by (x, y), given which let light pass.

    Light spreads from the agent's cell row by row: within a row from lit clear cells to their neighbours, first to the
    right and then to the left, and from these to the three cells before them less the one on the other side. A row is
    seven bits of an integer, so that spreading through it is a few shifts.
    """
    bits = np.arange(VIEW, dtype=np.int32)
    rows = (clear.astype(jnp.int32) << bits[:, None]).sum(axis=0)
    every, all_but_last, all_but_first = (1 << VIEW) - 1, (1 << VIEW - 1) - 1, (1 << VIEW) - 2

    def spread(lit, clear, up, down):
        """Lit bits spread through runs of clear ones by 1, 2 and 4 places, hence by up to 7."""
        for n in (1, 2, 4):
            lit, clear = lit | up(lit & clear, n), clear & down(clear, n)
        return lit & every

    def row(lit, clear):
        right = spread(lit, clear, jnp.left_shift, jnp.right_shift)
        both = spread(right, clear, jnp.right_shift, jnp.left_shift)
        from_left, from_right = right & clear & all_but_last, both & clear & all_but_first
        return (from_left | from_left << 1 | from_right | from_right >> 1), both

    _, lit = jax.lax.scan(row, jnp.int32(1 << VIEW // 2), rows, reverse=True)
    return (lit >> bits[:, None]) & 1 == 1


def encode(tiles: jax.Array) -> jax.Array:
    """minigrid's (object, colour, state) of tiles, uint8 [..., 3]."""
    kind = tiles >> 3
    object = jnp.where(kind <= AGENT, kind, jnp.where(kind <= LOCKED, DOOR, BOX)).astype(jnp.uint8)
    door = jnp.where((kind == CLOSED) | (kind == LOCKED), kind - AGENT, 0).astype(jnp.uint8)
    return jnp.stack([object, tiles & 7, door], axis=-1)


def symbolic(cells: jax.Array, state: State) -> dict[str, jax.Array]:
    """minigrid's own observation; the mission is the object and the colour that it names."""
    return {"image": encode(cells), "direction": state.direction, "mission": encode(state.mission)[:2]}


# Of a tile's 20 ones and zeros: which of (object, colour, state) each looks at, and the value that makes it 1.
LOOKS = np.repeat([0, 1, 2], [11, 6, 3])
VALUES = np.concatenate([np.arange(11), np.arange(6), np.arange(3)]).astype(np.uint8)


def hot(tiles: jax.Array) -> jax.Array:
    """float32 [..., 20]: 11 objects, 6 colours, 3 states. One comparison each: to join three one-hots costs more."""
    object, colour, door = (code[..., None] for code in jnp.moveaxis(encode(tiles), -1, 0))
    looked = jnp.where(LOOKS == 0, object, jnp.where(LOOKS == 1, colour, door))
    return (looked == VALUES).astype(jnp.float32)


def flat(cells: jax.Array, state: State) -> jax.Array:
    """The same in ones and zeros, float32 [1004]: each cell's `hot`, the direction, the mission's `hot`."""
    direction = jax.nn.one_hot(state.direction, 4)
    return jnp.concatenate([hot(cells).reshape(-1), direction, hot(state.mission)])


VIEWS = {"flat": flat, "symbolic": symbolic}


# --------------------------------------------------------------------------------------------------------- the task


def reach(before: State, after: State, action: jax.Array) -> jax.Array:
    """1 on the goal, -1 in lava, 0 elsewhere, int32 []."""
    kind = at(after.grid, after.position) >> 3
    return (kind == GOAL).astype(jnp.int32) - (kind == LAVA)


def fetch(before: State, after: State, action: jax.Array) -> jax.Array:
    """1 with what the mission names in hand, 0 without, int32 []."""
    return (after.carrying == after.mission).astype(jnp.int32)


def environment(
    name: str,
    generate: Callable[[Key], State],
    limit: int,
    judge: Callable[[State, State, jax.Array], jax.Array] = reach,
    advance: Callable[[State, jax.Array], State] = act,
    view: str = "flat",
    see_through: bool = False,
    actions: int = 7,
    penalty: float = 0.0,
) -> Env:
    """The task on the grids that `generate` draws.

    Args:
        limit: steps after which an episode is truncated; success after t steps gives 1 - 0.9 t / limit.
        judge: (before, after, action) -> 1 success, -1 failure (both terminate), 0 neither.
        view: 'flat', one float32 vector; or 'symbolic', minigrid's dict of image, direction and mission.
        see_through: walls and closed doors hide nothing.
        penalty: taken from the reward of a failure.

    Raises:
        BadInput: there is no such view, or the limit is below 1.
    """
    if view not in VIEWS:
        raise BadInput(f"view is '{view}'; a grid is seen as {' or '.join(repr(name) for name in VIEWS)}.")
    if limit < 1:
        raise BadInput(f"limit of {name} is {limit}; an episode has at least 1 step.")

    def observe(state):
        return VIEWS[view](seen(state, see_through), state)

    def reset(key):
        state = generate(key)
        return state, first(observe(state))

    def step(state, action):
        after = advance(state, action)._replace(t=state.t + 1)
        outcome = judge(state, after, action)
        won = 1 - 0.9 * after.t.astype(jnp.float32) / limit
        reward = jnp.where(outcome > 0, won, jnp.where(outcome < 0, jnp.float32(-penalty), 0))
        over = outcome != 0
        return after, TimeStep(observe(after), reward, over, (after.t >= limit) & ~over)

    observation = jax.eval_shape(lambda key: observe(generate(key)), jax.random.key(0))
    return Env(reset, step, Specs(observation, Discrete(actions), limit=limit), name, draw)


# ------------------------------------------------------------------------------------------------------------- text

LETTERS = {
    WALL: "W",
    FLOOR: "F",
    DOOR: "_",
    CLOSED: "D",
    LOCKED: "L",
    KEY: "K",
    BALL: "A",
    BOX: "B",
    GOAL: "G",
    LAVA: "V",
}


def text(state: State) -> str:
    """A grid as minigrid prints it, two letters a cell: what, and the initial of its colour; the agent is an arrow."""
    grid, (x, y) = np.asarray(state.grid), np.asarray(state.position)

    def letters(cell):
        kind = min(cell >> 3, FILLED)
        if kind <= EMPTY:
            return "  "
        return "__" if kind == DOOR else LETTERS[BOX if kind == FILLED else kind] + "RGBPYG"[cell & 7]

    rows = [[letters(int(cell)) for cell in row] for row in grid]
    rows[y][x] = 2 * ">V<^"[int(state.direction)]
    return "\n".join("".join(row) for row in rows)

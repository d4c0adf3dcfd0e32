"""MiniGrid's layouts, drawn inside jit: fixed shapes, a handful of random numbers, no retries but in `multiroom`.

Distributions are minigrid's. Where it draws again until a place is free, `pick` counts the free places once.
"""

import jax
import jax.numpy as jnp
import numpy as np

from envs.core import BadInput, Env
from envs.grid.world import (
    BALL,
    BLUE,
    CLOSED,
    FILLED,
    FINISH,
    FORWARD,
    FREE,
    GREEN,
    GREY,
    KEY,
    LEFT,
    LOCKED,
    PICKUP,
    STEPS,
    STONE,
    TOGGLE,
    WALL,
    YELLOW,
    act,
    at,
    begun,
    environment,
    faced,
    fetch,
    put,
    reach,
    tile,
)
from jaxrl.core import Key


def walled(height: int, width: int) -> np.ndarray:
    """An empty room, uint8 [H, W]."""
    grid = np.full((height, width), STONE, np.uint8)
    grid[1:-1, 1:-1] = FREE
    return grid


def whole(u: jax.Array, low: int | jax.Array, high: int | jax.Array) -> jax.Array:
    """The integer from low to high - 1 that u in [0, 1) points at, int32."""
    return low + (u * (high - low)).astype(jnp.int32)


def pick(u: jax.Array, free: jax.Array) -> jax.Array:
    """The free cell that u in [0, 1) points at, all alike: int32 [2], (x, y), of bool [H, W].

    The k-th of them, row by row: one random number, where a draw for each cell would cost more than all else.
    """
    rows = free.sum(axis=1, dtype=jnp.int32)
    k = (u * rows.sum()).astype(jnp.int32)
    y = (running(rows) <= k).sum()
    row = free[y].astype(jnp.int32)
    x = (running(row) <= k - jnp.where(np.arange(len(rows)) < y, rows, 0).sum()).sum()
    return jnp.stack([x, y]).astype(jnp.int32)


def running(counts: jax.Array) -> jax.Array:
    """Sums up to each, int32 [n]. As a masked table, which on a CPU is a tenth of a scan."""
    n = counts.shape[0]
    return jnp.where(np.tri(n, dtype=bool), counts, 0).sum(axis=1)


def inside(shape: tuple[int, ...], top: jax.Array, size: int | jax.Array) -> jax.Array:
    """bool [H, W]: cells of the rectangle that begins at top, (x, y), and is `size` wide and high ([2] or a number)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    size = jnp.broadcast_to(jnp.asarray(size), (2,))
    return (x >= top[0]) & (x < top[0] + size[0]) & (y >= top[1]) & (y < top[1] + size[1])


def but(position: jax.Array, free: jax.Array) -> jax.Array:
    """The free cells less one."""
    y, x = np.mgrid[: free.shape[0], : free.shape[1]]
    return free & ~((x == position[0]) & (y == position[1]))


def shuffle(key: Key, n: int) -> jax.Array:
    """0 .. n - 1 in random order, int32."""
    return jnp.argsort(jax.random.uniform(key, (n,))).astype(jnp.int32)


# --------------------------------------------------------------------------------------------------- single rooms


def empty(size: int = 8, random: bool = False, view: str = "flat") -> Env:
    """A bare room with the goal in the far corner. The agent starts in the near one, or anywhere. Nothing hides."""
    at_least(size=(size, 4))
    room = walled(size, size)
    room[-2, -2] = FINISH

    def generate(key):
        if not random:
            return begun(jnp.asarray(room), np.array([1, 1]), 0)
        u = jax.random.uniform(key, (2,))
        return begun(jnp.asarray(room), pick(u[0], jnp.asarray(room == FREE)), whole(u[1], 0, 4))

    return environment(f"grid-empty-{size}x{size}", generate, 4 * size**2, view=view, see_through=True)


def doorkey(size: int = 8, view: str = "flat") -> Env:
    """Two rooms with a locked door between: the key lies in the agent's, the goal in the other."""
    at_least(size=(size, 5))
    room = jnp.asarray(walled(size, size))
    columns = np.arange(size)

    def generate(key):
        u = jax.random.uniform(key, (5,))
        split = whole(u[0], 2, size - 2)
        left = (room == FREE) & (columns < split)
        position = pick(u[1], left)
        grid = jnp.where(columns == split, jnp.uint8(STONE), room)
        grid = put(grid, jnp.stack([split, whole(u[2], 1, size - 2)]), tile(LOCKED, YELLOW))
        grid = put(grid, pick(u[3], but(position, left)), tile(KEY, YELLOW)).at[-2, -2].set(FINISH)
        return begun(grid, position, whole(u[4], 0, 4))

    return environment(f"grid-doorkey-{size}x{size}", generate, 10 * size**2, view=view)


def four_rooms(view: str = "flat") -> Env:
    """Four rooms of 8 x 8 with a gap in each wall between them; agent and goal anywhere."""
    size, middle = 19, 9
    walls = walled(size, size)
    walls[middle, :] = walls[:, middle] = STONE

    def generate(key):
        u = jax.random.uniform(key, (7,))
        grid = jnp.asarray(walls)
        for n, (vertical, low) in enumerate(((True, 1), (True, middle + 1), (False, 1), (False, middle + 1))):
            gap, wall = whole(u[n], low, low + middle - 1), jnp.int32(middle)
            grid = put(grid, jnp.stack([wall, gap] if vertical else [gap, wall]), FREE)
        position = pick(u[4], grid == FREE)
        goal = pick(u[5], but(position, grid == FREE))
        return begun(put(grid, goal, FINISH), position, whole(u[6], 0, 4))

    return environment("grid-fourrooms", generate, 100, view=view)


def dynamic_obstacles(size: int = 8, obstacles: int = 4, random: bool = False, view: str = "flat") -> Env:
    """A bare room in which blue balls wander. To walk into a ball or a wall costs 1 and ends it. Actions: 0, 1, 2.

    Each step the balls move before the agent, one after the other, each to a free cell of the nine around it. What
    counts is whether the agent's way was clear before they moved.
    """
    at_least(size=(size, 5), obstacles=(obstacles, 1))
    room = walled(size, size)
    room[-2, -2] = FINISH
    obstacles = obstacles if obstacles <= size / 2 + 1 else size // 2
    ball = tile(BALL, BLUE)

    def place(grid, position, u, free):
        where = pick(u, but(position, free & (grid == FREE)))
        return put(grid, where, ball), where

    def generate(key):
        key_start, key_balls, key_moves = jax.random.split(key, 3)
        u = jax.random.uniform(key_start, (2,))
        grid = jnp.asarray(room)
        position = pick(u[0], grid == FREE) if random else jnp.array([1, 1], jnp.int32)
        direction = whole(u[1], 0, 4) if random else 0
        once = lambda grid, u: place(grid, position, u, True)
        grid, balls = jax.lax.scan(once, grid, jax.random.uniform(key_balls, (obstacles,)))
        return begun(grid, position, direction, extra={"balls": balls, "key": key_moves})

    def advance(state, action):
        key, key_now = jax.random.split(state.extra["key"])

        def wander(grid, move):
            old, u = move
            free = but(state.position, inside(grid.shape, old - 1, 3) & (grid == FREE))
            new = jnp.where(free.any(), pick(u, free), old)
            return put(put(grid, old, FREE), new, ball), new

        moves = (state.extra["balls"], jax.random.uniform(key_now, (obstacles,)))
        grid, balls = jax.lax.scan(wander, state.grid, moves)
        state = act(state._replace(grid=grid), jnp.where(action > FORWARD, LEFT, action))
        return state._replace(extra={"balls": balls, "key": key})

    def judge(before, after, action):
        ahead = at(before.grid, faced(before))
        crash = (action == FORWARD) & (ahead != FREE) & (ahead != FINISH)
        return jnp.where(crash, -1, reach(before, after, action))

    name = f"grid-dynamic-obstacles-{size}x{size}"
    return environment(name, generate, 4 * size**2, judge, advance, view, True, 3, penalty=1.0)


def memory(size: int = 7, random: bool = False, view: str = "flat") -> Env:
    """A hallway from a room with a key or a ball to a fork with both: turn to the one that was in the room.

    `random` draws the hallway's length. Nothing can be lifted here.
    """
    at_least(size=(size, 7))
    if size % 2 == 0:
        raise BadInput(f"size of memory is {size}; the hallway lies in the middle: give an odd one.")
    y, x = np.mgrid[:size, :size]
    middle = size // 2
    start = np.isin(y, (middle - 2, middle + 2)) & (x >= 1) & (x <= 4)
    start |= np.isin(y, (middle - 1, middle + 1)) & (x == 4)
    room = np.where(start, np.uint8(STONE), walled(size, size))

    def generate(key):
        u = jax.random.uniform(key, (4,))
        end = whole(u[0], 4, size - 2) if random else jnp.int32(size - 3)
        wall = np.isin(y, (middle - 1, middle + 1)) & (x >= 5) & (x < end)
        wall |= (x == end) & (y != middle) | (x == end + 2)
        grid = jnp.where(wall, jnp.uint8(STONE), jnp.asarray(room))
        is_ball, ball_above = u[1] < 0.5, u[2] < 0.5
        things = jnp.where(jnp.array([is_ball, ball_above, ~ball_above]), tile(BALL, GREEN), tile(KEY, GREEN))
        for where, thing in zip(((jnp.int32(1), middle - 1), (end + 1, middle - 2), (end + 1, middle + 2)), things):
            grid = put(grid, jnp.asarray(where), thing)
        up, down = (jnp.stack([end + 1, jnp.int32(middle + side)]) for side in (-1, 1))
        right, wrong = jnp.where(is_ball == ball_above, jnp.stack([up, down]), jnp.stack([down, up]))
        position = jnp.stack([whole(u[3], 1, end + 1), jnp.int32(middle)])
        return begun(grid, position, 0, mission=0, extra={"right": right, "wrong": wrong})

    def advance(state, action):
        return act(state, jnp.where(action == PICKUP, TOGGLE, action))

    def judge(before, after, action):
        there = lambda place: (after.position == after.extra[place]).all().astype(jnp.int32)
        return there("right") - there("wrong")

    return environment(f"grid-memory-s{size}", generate, 5 * size**2, judge, advance, view)


# ------------------------------------------------------------------------------------------------- a chain of rooms


def multiroom(rooms: int = 6, largest: int = 10, view: str = "flat") -> Env:
    """A chain of rooms of random places and sizes (4 to `largest`), closed doors between; the goal is in the last.

    As minigrid does, a chain grows by trial: 8 trials for each next room, then it begins anew. The loop ends when a
    chain is whole, which takes some hundred cheap trials for six rooms: keep a bank of starts (`batched(starts=...)`).
    """
    at_least(rooms=(rooms, 1), largest=(largest, 4))
    size, trials = 25, 8

    def trial(carry):
        """One attempt at the next room. A row of `chain` is left, top, width, height, the entry's x and y."""
        chain, count, tried, wall, key = carry
        key, key_now = jax.random.split(key)
        u = jax.random.uniform(key_now, (7,))
        # The entry of the first room is its corner; later ones hang on the exit of the room before.
        width, height = (whole(u[n], 4, largest + 1) for n in (0, 1))
        first = count == 0
        before = chain[jnp.maximum(count - 1, 0)]
        exit = (wall + 1 + whole(u[2], 0, 3)) % 4  # any wall but the one it was entered by
        along = jnp.where(exit % 2 == 0, whole(u[3], 1, before[3] - 1), whole(u[3], 1, before[2] - 1))
        across = jnp.where(exit % 2 == 0, before[2] - 1, before[3] - 1) * (exit < 2)
        step = jnp.where(exit % 2 == 0, jnp.stack([across, along]), jnp.stack([along, across]))
        corner = whole(u[5:7], 0, size - 2)
        entry_new = jnp.where(first, corner, before[:2] + step)
        wall_new = jnp.where(first, 2, (exit + 2) % 4)
        slide = whole(u[4], 1, jnp.where(wall_new % 2 == 0, height, width) - 1)
        back = jnp.stack(
            [
                jnp.select([wall_new == 0, wall_new == 2], [width - 1, 0], slide),
                jnp.select([wall_new == 1, wall_new == 3], [height - 1, 0], slide),
            ]
        )
        top = jnp.where(first, corner, entry_new - back)
        room = jnp.concatenate([top, jnp.stack([width, height]), entry_new]).astype(jnp.int32)
        # Clear of all rooms but the one before, which it shares a wall with; minigrid's own inequalities.
        others = jnp.arange(rooms) < count - 1
        apart = (top + room[2:4] < chain[:, :2]) | (chain[:, :2] + chain[:, 2:4] <= top)
        fits = (top >= 0).all() & (top[0] + width <= size) & (top[1] + height < size)
        good = fits & (apart.any(axis=1) | ~others).all()
        chain = jnp.where(good & (jnp.arange(rooms) == count)[:, None], room, chain)
        tried = jnp.where(good, 0, tried + 1)
        again = ~good & (first | (tried >= trials))
        count = jnp.where(again, 0, count + good.astype(jnp.int32))
        return (chain, count, jnp.where(again, 0, tried), jnp.where(good, wall_new, wall), key)

    def generate(key):
        key_chain, key_rest = jax.random.split(key)
        carry = (jnp.zeros((rooms, 6), jnp.int32), jnp.int32(0), jnp.int32(0), jnp.int32(2))
        chain = jax.lax.while_loop(lambda carry: carry[1] < rooms, trial, (*carry, key_chain))[0]
        u = jax.random.uniform(key_rest, (rooms + 3,))

        def build(carry, room):
            grid, colour = carry
            (top, extent, entry), u, n = room[0].reshape(3, 2), *room[1:]
            rim = inside(grid.shape, top, extent) & ~inside(grid.shape, top + 1, extent - 2)
            # Any of the six colours for the first door, and then any but the one before.
            colour = jnp.where(n == 1, whole(u, 0, 6), (colour + 1 + whole(u, 0, 5)) % 6)
            grid = jnp.where(rim, jnp.uint8(STONE), grid)
            return (jnp.where(n > 0, put(grid, entry, tile(CLOSED, colour)), grid), colour), None

        start = (jnp.full((size, size), FREE, jnp.uint8), jnp.int32(0))
        (grid, _), _ = jax.lax.scan(build, start, (chain, u[:rooms], jnp.arange(rooms)))
        within = lambda room: (grid == FREE) & inside(grid.shape, room[:2], room[2:4])
        position = pick(u[rooms], within(chain[0]))
        goal = pick(u[rooms + 1], but(position, within(chain[-1])))
        return begun(put(grid, goal, FINISH), position, whole(u[rooms + 2], 0, 4))

    return environment(f"grid-multiroom-n{rooms}-s{largest}", generate, 20 * rooms, view=view)


# --------------------------------------------------------------------------------------------------- rooms in a grid


def lattice(rows: int, columns: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rooms of `size` with their walls, sharing these: grid uint8 [H, W]; edges int32 [E, 2], neighbours by number.

    Rooms are numbered row by row; the edges between columns come first, then those between rows.
    """
    pitch = size - 1
    grid = np.full((rows * pitch + 1, columns * pitch + 1), FREE, np.uint8)
    grid[::pitch, :] = grid[:, ::pitch] = STONE
    number = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    beside = np.stack([number[:, :-1].ravel(), number[:, 1:].ravel()], axis=1)
    below = np.stack([number[:-1].ravel(), number[1:].ravel()], axis=1)
    return grid, np.concatenate([beside, below])


def doorways(u: jax.Array, edges: np.ndarray, columns: int, size: int) -> jax.Array:
    """Where each edge's wall may have its door, int32 [E, 2]: one place, drawn along the wall."""
    (y, x), pitch = np.divmod(edges[:, 0], columns), size - 1
    beside = edges[:, 1] == edges[:, 0] + 1
    along = whole(u, 1, pitch)
    return jnp.stack([
        x * pitch + jnp.where(beside, pitch, along),
        y * pitch + jnp.where(beside, along, pitch),
    ], axis=1).astype(jnp.int32)  # fmt: skip


def furnish(grid, u: jax.Array, tiles: jax.Array, tops: jax.Array, size: int, allowed: np.ndarray) -> jax.Array:
    """The grid with each tile [n] put on a free, allowed cell of the room that begins at its top [n, 2]."""

    def once(grid, thing):
        u, tile, top = thing
        return put(grid, pick(u, (grid == FREE) & allowed & inside(grid.shape, top, size)), tile), None

    return jax.lax.scan(once, grid, (u, tiles, tops))[0]


def enter(u: jax.Array, grid: jax.Array, top: np.ndarray, size: int) -> tuple[jax.Array, jax.Array]:
    """The agent's position and direction: a free cell of the room, and before it a wall or nothing."""
    height, width = grid.shape
    free = (grid == FREE) & inside(grid.shape, top, size)
    plain = jnp.pad((grid == FREE) | (grid >> 3 == WALL), 1)
    ahead = [plain[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dx, dy in STEPS.tolist()]
    x, y = pick(u, (free & jnp.stack(ahead)).reshape(4 * height, width))
    return jnp.stack([x, y % height]), y // height


def far_from_middle(rows: int, columns: int, size: int, shape: tuple[int, ...]) -> np.ndarray:
    """bool [H, W]: not next to where minigrid keeps the agent while it furnishes the rooms."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    middle = (columns // 2 * (size - 1) + size // 2, rows // 2 * (size - 1) + size // 2)
    return np.abs(x - middle[0]) + np.abs(y - middle[1]) >= 2


def keycorridor(size: int = 3, rows: int = 1, view: str = "flat") -> Env:
    """A corridor between rooms of inner width size - 2: a ball behind a locked door on the right, its key on the left.

    The ball is to be lifted, so the key has to be put down first.
    """
    at_least(size=(size, 3), rows=(rows, 1))
    columns, pitch = 3, size - 1
    walls, edges = lattice(rows, columns, size)
    for row in range(1, rows):
        walls[row * pitch, pitch + 1 : 2 * pitch] = FREE
    hall = (edges[:, 1] == edges[:, 0] + 3) & (edges[:, 0] % 3 == 1)
    allowed = far_from_middle(rows, columns, size, walls.shape)

    def generate(key):
        key_numbers, key_order = jax.random.split(key)
        u = jax.random.uniform(key_numbers, (7 + 2 * len(edges),))
        where = doorways(u[7 : 7 + len(edges)], edges, columns, size)
        row, key_row = whole(u[0], 0, rows), whole(u[1], 0, rows)
        colour, ball = whole(u[2], 0, 6), tile(BALL, whole(u[3], 0, 6))
        locked = (edges[:, 0] == 3 * row + 1) & (edges[:, 1] == 3 * row + 2)
        closed = connect(key_order, edges, jnp.asarray(hall), locked, 3 * row + 2)
        doors = jnp.where(closed, tile(CLOSED, whole(u[7 + len(edges) :], 0, 6)), 0)
        lock = where[jnp.argmax(locked)]

        grid = put(jnp.asarray(walls), lock, tile(LOCKED, colour))
        tops = pitch * jnp.stack([jnp.stack([2, row]), jnp.stack([0, key_row])])
        grid = furnish(grid, u[4:6], jnp.stack([ball, tile(KEY, colour)]), tops, size, allowed)
        position, direction = enter(u[6], grid, np.array([pitch, rows // 2 * pitch]), size)
        grid = hang(grid, where, doors)
        return begun(grid, position, direction, ball)

    return environment(f"grid-keycorridor-s{size}r{rows}", generate, 30 * size**2, fetch, view=view)


def connect(key: Key, edges: np.ndarray, open: jax.Array, locked: jax.Array, behind: jax.Array) -> jax.Array:
    """Which edges get a door, bool [E]: in random order, until every room can be reached.

    Args:
        open, locked: edges that connect their rooms already, bool [E].
        behind: the room behind the lock, which gets no second door.
    """
    rooms = int(edges.max()) + 1
    barred = open | locked | (edges == behind).any(axis=1)

    def join(label, edge, allowed):
        a, b = label[edge[0]], label[edge[1]]
        return jnp.where(allowed & (label == b), a, label)

    def settled(label, now):
        return join(label, jnp.asarray(edges)[now], open[now] | locked[now]), None

    def add(label, now):
        new = ~barred[now] & (label != label[0]).any()
        return join(label, jnp.asarray(edges)[now], new), new

    label, _ = jax.lax.scan(settled, jnp.arange(rooms), np.arange(len(edges)))
    order = shuffle(key, len(edges))
    _, added = jax.lax.scan(add, label, order)
    return jnp.zeros(len(edges), bool).at[order].set(added)


def hang(grid: jax.Array, where: jax.Array, doors: jax.Array) -> jax.Array:
    """The grid with a door [E] at each place [E, 2]; 0 is none."""
    y, x = np.mgrid[: grid.shape[0], : grid.shape[1]]
    here = (x[..., None] == where[:, 0]) & (y[..., None] == where[:, 1])
    door = jnp.where(here, doors, 0).max(axis=-1)
    return jnp.where(door > 0, door, grid)


def obstructed_maze(doors: str = "1", hidden: bool = False, blocked: bool = False, view: str = "flat") -> Env:
    """A blue ball behind locked doors; keys may be hidden in boxes, and doors blocked by green balls.

    Args:
        doors: '1' two rooms; else nine, of which '2' one side room with two locked doors and the agent in it, '1Q',
            '2Q' and 'full' one, two and four side rooms around the middle one, where the agent starts ('2Q': in the
            first side room).
    """
    quarters, start, visited = {
        "1": (0, (0, 0), 2),
        "2": (1, (2, 1), 4),
        "1Q": (1, (1, 1), 5),
        "2Q": (2, (2, 1), 11),
        "full": (4, (1, 1), 25),
    }.get(doors, (-1, (0, 0), 0))
    if quarters < 0:
        raise BadInput(f"doors of obstructed_maze is '{doors}'; there are '1', '2', '1Q', '2Q' and 'full'.")
    size, pitch = 6, 5
    rows, columns = (3, 3) if quarters else (1, 2)
    walls, edges = lattice(rows, columns, size)
    edge_of = {tuple(edge): n for n, edge in enumerate(edges.tolist())}
    # Each door by (room, direction, colour's place in the shuffled six, locked), then rooms that may hide the ball.
    hung: list[tuple[tuple[int, int], int, int, bool]] = []
    for i, side in enumerate([(2, 1), (1, 2), (0, 1), (1, 0)][:quarters]):
        hung += [((1, 1), i, i, False), (side, (i - 1) % 4, (i - 1) % 6, True), (side, (i + 1) % 4, (i + 1) % 6, True)]
    hung = hung or [((0, 0), 0, 0, True)]
    corners = np.array([(2, 0), (2, 2), (0, 2), (0, 0)][:quarters] or [(1, 0)], np.int32)

    def edge(room, direction):
        here, there = (int(r[0] + columns * r[1]) for r in (np.array(room), np.array(room) + STEPS[direction]))
        return edge_of[min(here, there), max(here, there)]

    index = np.array([edge(room, direction) for room, direction, _, _ in hung])
    place = np.array([colour for _, _, colour, _ in hung])
    locks = np.array([locked for _, _, _, locked in hung])
    facing = np.array([STEPS[direction] for _, direction, _, _ in hung])
    tops = np.array([room for room, _, _, _ in hung], np.int32)[locks] * pitch
    allowed = far_from_middle(rows, columns, size, walls.shape)

    def generate(key):
        key_numbers, key_colours = jax.random.split(key)
        u = jax.random.uniform(key_numbers, (3 + len(tops) + len(edges),))
        colours = shuffle(key_colours, 6)[place]
        where = doorways(u[3 + len(tops) :], edges, columns, size)[index]
        grid = hang(jnp.asarray(walls), where, tile(jnp.where(locks, LOCKED, CLOSED), colours))
        if blocked:
            grid = hang(grid, (where - facing)[locks], jnp.full(len(tops), tile(BALL, GREEN)))
        # A key's colour is its kind's last number inside a box, whose own colour is grey.
        keys = colours[locks]
        things = tile(FILLED + keys, GREY) if hidden else tile(KEY, keys)
        corner = jnp.asarray(corners)[whole(u[0], 0, len(corners))] * pitch
        ball = tile(BALL, BLUE)
        grid = furnish(
            grid, u[2 : 3 + len(tops)], jnp.append(things, ball), jnp.append(tops, corner[None], 0), size, allowed
        )
        position, direction = enter(u[1], grid, np.array(start) * pitch, size)
        return begun(grid, position, direction, ball)

    name = f"grid-obstructedmaze-{doors}"
    return environment(name, generate, 4 * visited * size**2, fetch, view=view)


def at_least(**values: tuple[int, int]) -> None:
    for name, (value, low) in values.items():
        if value < low:
            raise BadInput(f"{name} of this grid is {value}; the smallest is {low}.")

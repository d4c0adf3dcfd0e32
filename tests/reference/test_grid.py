"""Grids beside the Python package minigrid: our starts are put into it, and both play the same actions.

Compared at each step until an episode ends: image, direction, reward, terminated, truncated. Half of the actions are
the expert's, so that doors are opened, keys carried and goals reached; the other half are uniform. The expert alone
then has to solve 64 starts of every id.
"""

from functools import cache

import gymnasium
import jax
import jax.numpy as jnp
import minigrid  # noqa: F401  (registers its environments)
import numpy as np
import pytest
from minigrid.core.grid import Grid
from minigrid.core.world_object import Ball, Box, Door, Floor, Goal, Key, Lava, Wall

import envs
from envs.core import where
from envs.grid import TABLE, world
from envs.grid.expert import expert

pytestmark = pytest.mark.reference

SEEDS, COMPARED = 64, 4
COLOURS = ["red", "green", "blue", "purple", "yellow", "grey"]
LONGEST = {"grid-obstructedmaze-full": 400, "grid-obstructedmaze-2q": 300, "grid-obstructedmaze-1q": 300}

# Our id -> minigrid's, less "MiniGrid-" and the version.
THEIRS = {
    **{f"grid-empty-{n}x{n}": f"Empty-{n}x{n}" for n in (5, 6, 8, 16)},
    **{f"grid-empty-random-{n}x{n}": f"Empty-Random-{n}x{n}" for n in (5, 6)},
    "grid-fourrooms": "FourRooms",
    **{f"grid-doorkey-{n}x{n}": f"DoorKey-{n}x{n}" for n in (5, 6, 8, 16)},
    "grid-multiroom-n2-s4": "MultiRoom-N2-S4",
    "grid-multiroom-n4-s5": "MultiRoom-N4-S5",
    "grid-multiroom-n6": "MultiRoom-N6",
    **{f"grid-keycorridor-{n.lower()}": f"KeyCorridor{n}" for n in ("S3R1", "S3R2", "S3R3", "S4R3", "S5R3", "S6R3")},
    **{f"grid-obstructedmaze-{n.lower()}": f"ObstructedMaze-{n}" for n in ("1Dl", "1Dlh", "1Dlhb", "2Dl", "2Dlh")},
    **{f"grid-obstructedmaze-{n.lower()}": f"ObstructedMaze-{n}" for n in ("2Dlhb", "1Q", "2Q", "Full")},
    **{f"grid-dynamic-obstacles-{n}x{n}": f"Dynamic-Obstacles-{n}x{n}" for n in (5, 6, 8, 16)},
    **{f"grid-dynamic-obstacles-random-{n}x{n}": f"Dynamic-Obstacles-Random-{n}x{n}" for n in (5, 6)},
    **{f"grid-memory-s{n}": f"MemoryS{n}" for n in (7, 9, 11, 13)},
    **{f"grid-memory-s{n}-random": f"MemoryS{n}Random" for n in (13, 17)},
}
SECOND = {"MultiRoom-N4-S5", *(f"ObstructedMaze-{n}" for n in ("2Dlhb", "1Q", "2Q", "Full"))}  # versions, not first


def theirs(id):
    """minigrid's environment of the same name."""
    name = THEIRS[id]
    return gymnasium.make(f"MiniGrid-{name}-v{int(name in SECOND)}").unwrapped


def test_every_id_has_its_like_in_minigrid():
    assert set(THEIRS) == set(TABLE)


def ours(id):
    entry = TABLE[id]
    return envs.make(entry.target, **entry.settings, view="symbolic")


@cache
def played(id):
    """64 starts (state, observation) and what came of them [N, T]: under the expert, and under it mixed with chance."""
    env = ours(id)
    steps = min(env.specs.limit + 2, LONGEST.get(id, 200))

    def once(noise, carry, key):
        state, over = carry
        key_choice, key_action = jax.random.split(key)
        chance = jax.random.uniform(key_choice) < noise
        action = jnp.where(chance, env.specs.action.sample(key_action), expert(state))
        after, out = env.step(state, action)
        kept = where(over, state, after)
        return (kept, over | out.end), {"action": action, "out": out, "over": over, "state": after}

    def play(key, noise):
        state, out = env.reset(key)
        keys = jax.random.split(key, steps)
        _, path = jax.lax.scan(lambda carry, key: once(noise, carry, key), (state, jnp.bool_(False)), keys)
        return state, out.obs, path

    run = jax.jit(jax.vmap(play, in_axes=(0, None)))
    keys = jax.random.split(jax.random.key(3), SEEDS)
    return [jax.tree.map(_host, run(keys, jnp.float32(noise))) for noise in (0.0, 0.5)]


def pick(tree, *index):
    return jax.tree.map(lambda x: x[index], tree)


def _host(x):
    return None if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x)


def thing(cell):
    """minigrid's object for a tile."""
    kind, colour = int(cell) >> 3, COLOURS[int(cell) & 7]
    if kind >= world.FILLED:
        return Box(colour, contains=Key(COLOURS[kind - world.FILLED]))
    return {
        world.EMPTY: lambda: None,
        world.WALL: lambda: Wall(colour),
        world.FLOOR: lambda: Floor(colour),
        world.GOAL: lambda: Goal(),
        world.LAVA: lambda: Lava(),
        world.KEY: lambda: Key(colour),
        world.BALL: lambda: Ball(colour),
        world.BOX: lambda: Box(colour),
        world.DOOR: lambda: Door(colour, is_open=True),
        world.CLOSED: lambda: Door(colour),
        world.LOCKED: lambda: Door(colour, is_locked=True),
    }[kind]()


def put_into(env, state):
    """minigrid's environment in our state."""
    env.reset(seed=0)
    height, width = state.grid.shape
    assert (env.width, env.height) == (width, height)
    env.grid = Grid(width, height)
    for y in range(height):
        for x in range(width):
            found = thing(state.grid[y, x])
            env.grid.set(x, y, found)
            if found is not None:
                found.cur_pos = (x, y)
            if int(state.grid[y, x]) == int(state.mission):
                env.obj = found
    env.agent_pos, env.agent_dir = tuple(int(n) for n in state.position), int(state.direction)
    env.carrying, env.step_count = None, 0
    if isinstance(state.extra, dict) and "right" in state.extra:
        env.success_pos, env.failure_pos = (tuple(int(n) for n in state.extra[k]) for k in ("right", "wrong"))
    return env


@pytest.mark.parametrize("id", [id for id in TABLE if "dynamic" not in id])
def test_the_same_actions_give_what_minigrid_gives(id):
    starts, first, path = played(id)[1]
    reference = theirs(id)
    assert reference.max_steps == ours(id).specs.limit
    events = 0
    for n in range(COMPARED):
        state = pick(starts, n)
        put_into(reference, state)
        assert world.text(state) == reference.pprint_grid()
        np.testing.assert_array_equal(first["image"][n], reference.gen_obs()["image"])
        for t in range(path["over"].shape[1]):
            if path["over"][n, t]:
                break
            seen, reward, terminated, truncated, _ = reference.step(int(path["action"][n, t]))
            out = pick(path["out"], n, t)
            np.testing.assert_array_equal(out.obs["image"], seen["image"], err_msg=f"start {n}, step {t}")
            assert out.obs["direction"] == seen["direction"]
            assert out.reward == pytest.approx(reward, abs=1e-6)
            assert out.terminated == terminated
            assert out.truncated == (truncated and not terminated)
            events += terminated or truncated
    assert events > 0  # ends have been compared too


@pytest.mark.parametrize("id", [id for id in TABLE if "dynamic" in id])
def test_wandering_balls_move_as_minigrid_lets_them(id):
    starts, _, path = played(id)[1]
    reference = theirs(id)
    assert (reference.max_steps, reference.n_obstacles) == (ours(id).specs.limit, starts.extra["balls"].shape[1])
    moved = met = 0
    for n in range(SEEDS):
        before = pick(starts, n)
        for t in range(path["over"].shape[1]):
            if path["over"][n, t]:
                break
            out = pick(path["out"], n, t)
            after = pick(path["state"], n, t)
            action = int(path["action"][n, t])
            # Their step with balls that stay: what we saw must be the same once our balls are put where ours went.
            put_into(reference, after)
            for ball, (x, y) in zip(before.extra["balls"], after.extra["balls"]):
                assert np.abs(ball - [x, y]).max() <= 1
                assert after.grid[y, x] == world.BALL * 8 + world.BLUE
                moved += (ball != [x, y]).any()
            assert (after.grid == world.BALL * 8 + world.BLUE).sum() == len(before.extra["balls"])
            np.testing.assert_array_equal(out.obs["image"], reference.gen_obs()["image"])
            ahead = before.position + world.STEPS[int(before.direction)]
            cell = before.grid[ahead[1], ahead[0]]
            crash = action == world.FORWARD and cell not in (world.FREE, world.FINISH)
            assert (out.reward == -1) == crash
            assert not crash or out.terminated
            met += crash
            before = after
    assert moved > 500
    assert met > 0


@pytest.mark.parametrize("id", TABLE)
def test_the_expert_solves_every_start(id):
    _, _, path = played(id)[0]
    alive = ~path["over"]
    won = (path["out"].reward > 0) & path["out"].terminated & alive
    assert won.any(axis=1).all(), f"not solved: starts {np.nonzero(~won.any(axis=1))[0]}"


def counts(grid):
    """How many tiles of each kind, boxes with a key as FILLED whatever its colour."""
    kinds = np.asarray(grid) >> 3
    return {n: int((np.minimum(kinds, world.FILLED) == n).sum()) for n in range(14)}


@pytest.mark.parametrize("id", TABLE)
def test_layouts_hold_what_they_should(id):
    starts = played(id)[0][0]
    family = id.split("-")[1]
    for n in range(SEEDS):
        found = counts(starts.grid[n])
        x, y = starts.position[n]
        assert starts.grid[n, y, x] == world.FREE
        doors = found[world.CLOSED], found[world.LOCKED]
        things = found[world.KEY], found[world.BALL], found[world.FILLED], found[world.GOAL]
        if family in ("empty", "fourrooms"):
            assert (doors, things) == ((0, 0), (0, 0, 0, 1))
        elif family == "doorkey":
            assert (doors, things) == ((0, 1), (1, 0, 0, 1))
        elif family == "multiroom":
            rooms = int(id.split("-")[2][1:])
            assert (doors, things) == ((rooms - 1, 0), (0, 0, 0, 1))
        elif family == "keycorridor":
            rows = int(id[-1])
            assert doors[1] == 1
            assert doors[0] >= 2 * rows - 1  # a tree over hall, left and right rooms needs so many, the lock aside
            assert things == (1, 1, 0, 0)
        elif family == "dynamic":
            assert things == (0, starts.extra["balls"].shape[1], 0, 1)
        elif family == "memory":
            assert things[0] + things[1] == 3
            assert 1 <= things[0] <= 2
        else:
            quarters = {"1q": 1, "2q": 2, "full": 4}.get(id.split("-")[2], int(id.split("-")[2][0] == "2"))
            locks = 2 * quarters or 1
            blocked = "b" in id.split("-")[2] or "q" in id or "full" in id
            hidden = "h" in id.split("-")[2] or "q" in id or "full" in id
            assert doors == (quarters, locks)
            assert things == (0 if hidden else locks, 1 + blocked * locks, locks if hidden else 0, 0)


STATISTICS = {
    "grid-keycorridor-s3r3": {
        "closed doors": lambda grid, x, y: (grid >> 3 == world.CLOSED).sum(),
        "agent x": lambda grid, x, y: x,
    },
    "grid-multiroom-n6": {
        "walls": lambda grid, x, y: (grid >> 3 == world.WALL).sum(),
        "agent x": lambda grid, x, y: x,
        "goal y": lambda grid, x, y: np.argwhere(grid >> 3 == world.GOAL)[0, 0],
    },
    "grid-doorkey-8x8": {
        "door x": lambda grid, x, y: np.argwhere(grid >> 3 == world.LOCKED)[0, 1],
        "key y": lambda grid, x, y: np.argwhere(grid >> 3 == world.KEY)[0, 0],
        "agent x": lambda grid, x, y: x,
    },
    "grid-obstructedmaze-full": {
        "ball x": lambda grid, x, y: np.argwhere(grid == world.BALL * 8 + world.BLUE)[0, 1],
        "free": lambda grid, x, y: (grid == world.FREE).sum(),
        "agent y": lambda grid, x, y: y,
    },
}


@pytest.mark.parametrize("id", STATISTICS)
def test_layouts_are_drawn_from_the_same_distribution(id):
    """Of 400 starts each, means differ by less than 5 standard errors and spreads by less than a quarter."""
    many = 400
    starts, _ = jax.tree.map(_host, jax.jit(jax.vmap(ours(id).reset))(jax.random.split(jax.random.key(9), many)))
    reference = theirs(id)
    drawn = []
    for seed in range(many):
        reference.reset(seed=seed)
        code = reference.grid.encode().transpose(1, 0, 2).astype(int)
        kind = code[..., 0] + (code[..., 2] > 0) * (world.AGENT + code[..., 2] - code[..., 0])
        drawn.append((kind * 8 + np.where(kind == world.EMPTY, 0, code[..., 1]), *reference.agent_pos))
    for name, statistic in STATISTICS[id].items():
        mine = np.array([statistic(g.astype(int), *p) for g, p in zip(starts.grid, starts.position)], float)
        its = np.array([statistic(*one) for one in drawn], float)
        error = np.sqrt((mine.var() + its.var()) / many)
        assert abs(mine.mean() - its.mean()) < 5 * error + 1e-9, f"{name}: {mine.mean()} and {its.mean()}"
        assert abs(np.log((mine.std() + 1e-9) / (its.std() + 1e-9))) < 0.25, f"{name}: {mine.std()} and {its.std()}"

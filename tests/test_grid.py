"""Grids: occlusion and doors by hand, the reward's formula, text and pictures, the expert against a plain search.

Beside the Python package: tests/reference/test_grid.py.
"""

import operator
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.core import BadInput
from envs.grid import TABLE, layouts, picture, world
from envs.grid.expert import expert
from envs.grid.world import (
    BALL,
    BLUE,
    BOX,
    CLOSED,
    DOOR,
    DROP,
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
    RED,
    RIGHT,
    STONE,
    TOGGLE,
    WALL,
    YELLOW,
)

GOAL = FINISH >> 3

EAST, SOUTH, WEST, NORTH = range(4)
act = jax.jit(world.act)
seen = jax.jit(world.seen, static_argnums=1)


def room(*things, position=(1, 1), direction=EAST, carrying=FREE, size=7):
    """A walled room with (x, y, kind, colour) in it."""
    grid = layouts.walled(size, size)
    for x, y, kind, colour in things:
        grid[y, x] = kind * 8 + colour
    return world.begun(jnp.asarray(grid), np.array(position), direction)._replace(carrying=jnp.uint8(carrying))


def done(state, *actions):
    for action in actions:
        state = act(state, jnp.int32(action))
    return state


# -------------------------------------------------------------------------------------------------------- what is seen


def test_what_a_wall_hides():
    """From (3, 5), looking north at a wall two cells ahead; columns of the view are then the room's own."""
    wall = [(x, 3, WALL, GREY) for x in range(2, 6)]
    view = lambda *things: np.asarray(seen(room(*things, position=(3, 5), direction=NORTH), False)).T
    shut = view(*wall, (1, 3, WALL, GREY))
    assert (shut[4:] != 0).all()  # the wall itself, and what is before it
    assert (shut[:4] == 0).all()
    # Through a gap at one end light enters the row beyond and, that being clear, fills it, and so on to the outer wall.
    assert (view(*wall)[1:] != 0).all()
    assert (view(*wall)[0] == 0).all()
    # With a pillar beyond the gap it fills the cells before the pillar alone, and what is ahead of these.
    pillar = view(*wall, (2, 2, WALL, GREY), (1, 1, WALL, GREY), (2, 1, WALL, GREY))
    assert (pillar[3] != 0).tolist() == [True, True, True, False, False, False, False]
    assert (pillar[2] != 0).tolist() == [True, True, True, False, False, False, False]
    assert (pillar[:2] == 0).all()


def test_light_goes_round_corners_as_the_rule_says():
    """Against the rule in words, cell by cell: nearest row first, to the right, then to the left."""
    boards = np.random.default_rng(0).random((64, 7, 7)) < 0.55  # clear cells by [y, x]
    found = np.asarray(jax.jit(jax.vmap(world.visible))(jnp.asarray(boards.swapaxes(1, 2)))).swapaxes(1, 2)
    for clear, shown in zip(boards, found):
        lit = np.zeros((7, 7), bool)
        lit[6, 3] = True
        for y in range(6, -1, -1):
            for order, step in ((range(6), 1), (range(6, 0, -1), -1)):
                for x in order:
                    if lit[y, x] and clear[y, x]:
                        lit[y, x + step] = True
                        if y > 0:
                            lit[y - 1, [x, x + step]] = True
        np.testing.assert_array_equal(shown, lit)
    assert 0.1 < found.mean() < 0.9


def test_a_closed_door_hides_and_an_open_one_shows():
    wall = [(3, y, 2, GREY) for y in (1, 2, 4, 5)]
    view = lambda kind: np.asarray(seen(room(*wall, (3, 3, kind, RED), (5, 3, GOAL, GREEN), position=(1, 3)), False))
    assert view(DOOR)[3, 2] == FINISH
    assert view(CLOSED)[3, 2] == view(LOCKED)[3, 2] == 0
    assert view(CLOSED)[3, 4] == CLOSED * 8 + RED


def test_the_agent_sees_what_it_carries_and_turns_its_view():
    state = room((4, 1, BALL, BLUE), carrying=KEY * 8 + YELLOW)
    assert seen(state, False)[3, 6] == KEY * 8 + YELLOW
    assert seen(state, False)[3, 3] == BALL * 8 + BLUE  # three ahead
    assert seen(done(state, RIGHT), False)[0, 6] == BALL * 8 + BLUE  # three to the left


def test_codes_are_minigrids():
    tiles = jnp.array([FREE, STONE, FINISH, DOOR * 8, CLOSED * 8 + RED, LOCKED * 8 + BLUE, (FILLED + 4) * 8 + GREY, 0])
    codes, hot = jax.jit(lambda tiles: (world.encode(tiles), world.hot(tiles)))(tiles.astype(jnp.uint8))
    assert codes.tolist() == [
        [1, 0, 0], [2, 5, 0], [8, 1, 0], [4, 0, 0], [4, 0, 1], [4, 2, 2], [7, 5, 0], [0, 0, 0]
    ]  # fmt: skip
    assert hot.shape == (8, 20)
    assert (hot.sum(axis=1) == 3).all()
    assert hot[5].nonzero()[0].tolist() == [4, 11 + 2, 17 + 2]


# ------------------------------------------------------------------------------------------------------------- actions


def test_a_locked_door_wants_the_key_of_its_colour():
    door = (2, 1, LOCKED, RED)
    ahead = lambda state: int(state.grid[1, 2])
    assert ahead(done(room(door), TOGGLE)) == LOCKED * 8 + RED
    assert ahead(done(room(door, carrying=KEY * 8 + BLUE), TOGGLE)) == LOCKED * 8 + RED
    opened = done(room(door, carrying=KEY * 8 + RED), TOGGLE)
    assert ahead(opened) == DOOR * 8 + RED
    assert opened.carrying == KEY * 8 + RED  # which is kept
    assert ahead(done(opened, TOGGLE)) == CLOSED * 8 + RED  # not locked again
    assert done(opened, FORWARD).position.tolist() == [2, 1]
    assert done(opened, TOGGLE, FORWARD).position.tolist() == [1, 1]


def test_things_are_lifted_one_at_a_time_and_put_down_where_nothing_is():
    state = done(room((2, 1, KEY, RED), (1, 2, BALL, BLUE)), PICKUP)
    assert (int(state.carrying), int(state.grid[1, 2])) == (KEY * 8 + RED, FREE)
    both = done(state, RIGHT, PICKUP)
    assert (int(both.carrying), int(both.grid[2, 1])) == (KEY * 8 + RED, BALL * 8 + BLUE)
    assert int(done(both, DROP).carrying) == KEY * 8 + RED  # the ball is in the way
    down = done(both, LEFT, DROP)
    assert (int(down.carrying), int(down.grid[1, 2])) == (FREE, KEY * 8 + RED)


def test_boxes_open_to_what_they_hide():
    assert int(done(room((2, 1, FILLED + YELLOW, GREY)), TOGGLE).grid[1, 2]) == KEY * 8 + YELLOW
    assert int(done(room((2, 1, BOX, GREY)), TOGGLE).grid[1, 2]) == FREE


def test_success_pays_less_the_later_it_comes_and_the_limit_truncates():
    env = layouts.empty(5, view="symbolic")
    step = jax.jit(env.step)
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    for n, action in enumerate((FORWARD, FORWARD, RIGHT, FORWARD, FORWARD)):
        state, out = step(state, jnp.int32(action))
        assert bool(out.terminated) == (n == 4)
    assert float(out.reward) == pytest.approx(1 - 0.9 * 5 / 100)
    late, out = step(state._replace(t=jnp.int32(99), position=jnp.array([1, 1])), jnp.int32(LEFT))
    assert bool(out.truncated) and not bool(out.terminated) and float(out.reward) == 0
    # Success on the last step is success.
    _, out = step(late._replace(t=jnp.int32(99), position=jnp.array([2, 3]), direction=jnp.int32(EAST)), jnp.int32(2))
    assert bool(out.terminated) and not bool(out.truncated) and float(out.reward) == pytest.approx(0.1)


# -------------------------------------------------------------------------------------------------- layouts, the expert


def test_a_free_cell_is_picked_by_its_number():
    free = jnp.asarray(np.random.default_rng(0).random((5, 6)) < 0.4)
    cells = np.argwhere(np.asarray(free))[:, ::-1]
    u = (jnp.arange(len(cells)) + 0.5) / len(cells)
    np.testing.assert_array_equal(jax.jit(jax.vmap(lambda u: layouts.pick(u, free)))(u), cells)


def fewest(state):
    """Steps to the goal by a search in plain Python over position, direction, key in hand, door open."""
    grid = np.asarray(state.grid)
    start = (tuple(state.position.tolist()), int(state.direction), False, False)
    queue, known = deque([(start, 0)]), {start}
    while queue:
        ((x, y), way, key, open), steps = queue.popleft()
        if grid[y, x] == FINISH:
            return steps
        ahead = (x + world.STEPS[way][0], y + world.STEPS[way][1])
        kind = grid[ahead[1], ahead[0]] >> 3
        after = [((x, y), (way + turn) % 4, key, open) for turn in (1, 3)]
        passes = grid[ahead[1], ahead[0]] in (FREE, FINISH) or (kind == KEY and key) or (kind == LOCKED and open)
        after += [(tuple(int(n) for n in ahead), way, key, open)] if passes else []
        after += [((x, y), way, True, open)] if kind == KEY else []
        after += [((x, y), way, key, True)] if kind == LOCKED and key else []
        for new in after:
            if new not in known:
                known.add(new)
                queue.append((new, steps + 1))
    raise AssertionError("no way")


@pytest.mark.reference
def test_the_expert_takes_the_fewest_steps_through_a_locked_door():
    env = layouts.doorkey(6, view="symbolic")

    def solve(key):
        start, _ = env.reset(key)

        def step(carry, _):
            state, over, steps = carry
            after, out = env.step(state, expert(state))
            return (after, over | out.terminated, steps + ~over), None

        return start, jax.lax.scan(step, (start, jnp.bool_(False), jnp.int32(0)), None, length=40)[0]

    starts, (_, over, steps) = jax.jit(jax.vmap(solve))(jax.random.split(jax.random.key(0), 16))
    assert over.all()
    each = [jax.tree.map(operator.itemgetter(n), starts) for n in range(16)]
    assert steps.tolist() == [fewest(start) for start in each]


# ------------------------------------------------------------------------------------------------- ids, text, pictures


@pytest.mark.parametrize(
    ("id", "view"),
    [
        ("grid-fourrooms", "symbolic"),
        ("grid-multiroom-n6", "flat"),
        ("grid-keycorridor-s3r3", "flat"),
        ("grid-obstructedmaze-1dlhb", "flat"),
        ("grid-memory-s17-random", "flat"),
    ],
)
def test_shapes_and_purity_of_each_layout(id, view):
    entry = TABLE[id]
    assert envs.check_env(envs.make(entry.target, **entry.settings, view=view), steps=0) == []


@pytest.mark.reference
def test_one_layout_passes_the_whole_check():
    assert envs.check_env(layouts.dynamic_obstacles(5, 2, random=True), steps=101) == []


def test_text_is_minigrids():
    state = room(
        (2, 1, CLOSED, RED), (3, 1, DOOR, RED), (1, 2, FILLED, GREY), (3, 3, GOAL, GREEN), direction=SOUTH, size=5
    )
    assert world.text(state) == "WGWGWGWGWG\nWGVVDR__WG\nWGBG    WG\nWG    GGWG\nWGWGWGWGWG"


def test_pictures_show_walls_the_goal_and_which_way_the_agent_faces():
    draw = jax.jit(lambda state: picture.draw(state, (60, 60)))
    state = room((3, 3, GOAL, GREEN), size=5)
    image = np.asarray(draw(state)).astype(int)
    assert image.shape == (60, 60, 3)
    tile = lambda x, y: image[12 * y + 2 : 12 * y + 11, 12 * x + 2 : 12 * x + 11].reshape(-1, 3).mean(axis=0)
    assert np.ptp(tile(0, 0)) < 15 and tile(0, 0).mean() > 80  # grey
    assert tile(3, 3).argmax() == 1 and tile(3, 3)[1] > 150  # green
    assert tile(1, 1).argmax() == 0 and tile(2, 2).mean() < 30  # the agent red, the floor dark
    # An arrow is broad where it begins: on the left when it faces east, above when south.
    south = np.asarray(draw(state._replace(direction=jnp.int32(SOUTH)))).astype(int)
    east, south = (shown[13:24, 13:24, 0] > 120 for shown in (image, south))
    assert east[:, :5].sum() > 1.5 * east[:, 6:].sum()
    assert south[:5].sum() > 1.5 * south[6:].sum()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: layouts.doorkey(4), "size of this grid is 4"),
        (lambda: layouts.empty(5, view="pixels"), "view is 'pixels'"),
        (lambda: layouts.memory(8), "size of memory is 8"),
        (lambda: layouts.obstructed_maze("3"), "doors of obstructed_maze is '3'"),
        (lambda: layouts.empty(5).draw(room(), (0, 5), None), "0 by 5 pixels"),
        (lambda: layouts.empty(5).draw(room(), (5, 5), "top"), "camera is 'top'"),
    ],
)
def test_impossible_grids_are_refused(make, words):
    with pytest.raises(BadInput, match=words):
        make()

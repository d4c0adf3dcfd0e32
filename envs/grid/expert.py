"""Who solves the grids: shortest paths over cells and directions, chained backwards through what has to be done.

The expert sees the whole state. It is exact where nothing movable stands in the way (Empty, FourRooms, DoorKey,
MultiRoom, Memory) or only the key has to be put down (KeyCorridor); elsewhere it is a good plan, made anew at each
step. Wandering balls are waited for.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.grid.world import (
    BALL,
    BOX,
    CLOSED,
    DONE,
    DOOR,
    DROP,
    EMPTY,
    FILLED,
    FLOOR,
    FORWARD,
    FREE,
    GOAL,
    KEY,
    LEFT,
    LOCKED,
    PICKUP,
    RIGHT,
    TOGGLE,
    State,
    faced,
    tile,
)

FAR = 100_000  # steps to what cannot be reached
DETOUR = 8  # steps to enter a cell from which something must first be taken away


class Stage(NamedTuple):
    """One thing to be done, by which the stage before is reached.

    Fields: event int32 [4, H, W], steps that doing it takes for an agent there, FAR where it cannot; drop bool [],
    whether it is to put down what is carried; cost int32 [H, W], steps to enter a cell meanwhile.
    """

    event: jax.Array
    drop: jax.Array
    cost: jax.Array


def ahead(cells: jax.Array) -> jax.Array:
    """[4, H, W] from [H, W] or [4, H, W]: what is in the cell before an agent that looks east, south, west, north."""
    east, south, west, north = jnp.broadcast_to(cells, (4, *cells.shape[-2:]))
    return jnp.stack([jnp.roll(east, -1, 1), jnp.roll(south, -1, 0), jnp.roll(west, 1, 1), jnp.roll(north, 1, 0)])


def distances(goal: jax.Array, cost: jax.Array) -> jax.Array:
    """Steps to the end from each direction and cell, int32 [4, H, W]: the least solution of

        d = min(goal, 1 + d after a turn, cost of the cell ahead + d there)

    where `goal` [4, H, W] is what is left to do where one may stop walking, and `cost` [H, W] is of entering a cell.
    """

    def relax(carry):
        d, _ = carry
        turned = 1 + jnp.minimum(jnp.roll(d, 1, 0), jnp.roll(d, -1, 0))
        walked = ahead(jnp.minimum(d, turned) + cost)
        new = jnp.minimum(jnp.minimum(d, turned), walked)
        return new, (new < d).any()

    return jax.lax.while_loop(lambda carry: carry[1], relax, (jnp.minimum(goal, FAR), jnp.bool_(True)))[0]


def plan(stages: Stage) -> tuple[jax.Array, jax.Array]:
    """(goal, distances) of each stage, int32 [S, 4, H, W]; the first leads to the end, each other to the one before."""

    def back(after, stage):
        goal = jnp.minimum(stage.event + after, FAR)
        # What is put down lies ahead, and so must be no place that the way goes on through.
        in_the_way = 1 + ahead(after) <= after
        goal = jnp.where(stage.drop & in_the_way, FAR, goal)
        steps = distances(goal, stage.cost)
        return steps, (goal, steps)

    return jax.lax.scan(back, jnp.zeros(stages.event.shape[1:], jnp.int32), stages)[1]


def expert(state: State) -> jax.Array:
    """The next action for a state without its wrappers (`envs.core.bare`), int32 []."""
    grid, hand = state.grid, state.carrying
    kind, holding = grid >> 3, hand != FREE
    y, x = np.mgrid[: grid.shape[0], : grid.shape[1]]
    spot = lambda position: (x == position[0]) & (y == position[1])
    here = lambda field: field[state.direction, state.position[1], state.position[0]]
    facing = lambda cells, steps=1: jnp.where(ahead(cells), steps, FAR)

    marked = isinstance(state.extra, dict) and "right" in state.extra  # the task is to stand somewhere
    wandering = isinstance(state.extra, dict) and "balls" in state.extra
    lifts = jnp.bool_(False) if marked else state.mission >> 3 != GOAL
    target = spot(state.extra["right"]) if marked else grid == state.mission
    end = jnp.where(lifts, facing(target), jnp.where(target, 0, FAR))

    movable = (kind == KEY) | (kind == BALL) | (kind == BOX) | (kind >= FILLED)
    open = (kind == EMPTY) | (kind == FLOOR) | (kind == DOOR) | (kind == GOAL)
    cost = jnp.where(open, 1, jnp.where(kind == CLOSED, 2, jnp.where(movable, DETOUR, FAR)))
    if marked:
        cost = jnp.where(spot(state.extra["wrong"]), FAR, cost)

    # The lock that is in the way, if any: of those from which the end can be reached, the nearest to it.
    beyond = distances(end, cost)
    locked = here(beyond) >= FAR
    lock = jnp.where(kind == LOCKED, beyond.min(axis=0), FAR + 1)
    lock = locked & (lock == lock.min()) & (jnp.cumsum((lock == lock.min()).reshape(-1)).reshape(lock.shape) == 1)
    colour = jnp.where(lock, grid & 7, 0).max()
    key = locked & (grid == tile(KEY) + colour)
    chest = locked & (kind == FILLED + colour)
    has_key, in_hand = hand == tile(KEY) + colour, hand >> 3 == FILLED + colour  # the key itself; its box, moved away
    before_lock = ahead(lock).any(axis=0)
    blocker = before_lock & movable & ~key & ~chest & ~target
    blocked = blocker.any()

    walls = jnp.where(key, 1, cost)  # once the key is in hand
    through = jnp.where(lock, 1, walls)
    burdened = lambda cost: jnp.where(movable, FAR, cost)  # nothing can be taken away with full hands
    aside = facing((grid == FREE) & ~before_lock)  # not where it would have to be taken away again
    away = jnp.where(lifts, facing(grid == FREE), 0)  # only who has to lift something needs a free hand in the end
    stages = [  # (event, drop, cost), from the last to the first
        (end, False, through),
        (away, lifts, burdened(through)),
        (facing(lock), False, walls),
        (jnp.where(in_hand, 0, jnp.minimum(facing(key), facing(chest, 2))), False, cost),
        (aside, True, burdened(cost)),
        (facing(blocker), False, cost),
        (aside, True, burdened(cost)),
    ]
    column = lambda n, dtype: jnp.stack([jnp.asarray(stage[n], dtype) for stage in stages])
    stages = Stage(column(0, jnp.int32), column(1, bool), column(2, jnp.int32))
    goals, fields = plan(stages)

    unlocking = jnp.where(blocked, jnp.where(holding, 6, 5), jnp.where(has_key, 2, jnp.where(holding, 4, 3)))
    now = jnp.where(locked, unlocking, jnp.where(holding & lifts, 1, 0))
    goal, steps, cost = goals[now], fields[now], stages.cost[now]

    front = faced(state)
    kind_ahead, blocked_ahead = (cells[front[1], front[0]] for cells in (kind, movable))
    done = jnp.where(lifts, PICKUP, DONE)
    take = jnp.where(kind_ahead == KEY, PICKUP, TOGGLE)
    event = jnp.stack([done, DROP, TOGGLE, take, DROP, PICKUP, DROP])[now]
    instead = LEFT if wandering else jnp.where(holding, LEFT, PICKUP)
    walk = jnp.where(kind_ahead == CLOSED, TOGGLE, jnp.where(blocked_ahead, instead, FORWARD))
    turned = lambda turn: 1 + steps[(state.direction + turn) % 4, state.position[1], state.position[0]]
    choices = jnp.stack([here(goal), here(ahead(steps + cost)), turned(3), turned(1)])
    return jnp.stack([event, walk, jnp.int32(LEFT), jnp.int32(RIGHT)])[choices.argmin()].astype(jnp.int32)


def solve(reset: Callable, step: Callable, key: jax.Array, limit: int) -> tuple[jax.Array, jax.Array]:
    """One episode of the expert from a fresh start: (steps int32 [], reward at its end float32 [])."""

    def once(carry):
        state, _, t, _ = carry
        state, out = step(state, expert(state))
        return state, out.end, t + 1, out.reward

    start = (reset(key)[0], jnp.bool_(False), jnp.int32(0), jnp.float32(0))
    return jax.lax.while_loop(lambda carry: ~carry[1] & (carry[2] < limit), once, start)[2:]

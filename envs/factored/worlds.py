"""The four worlds of Young, Ramesh, Kirsch & Schmidhuber (2023), "The benefits of model-based generalisation in RL".

Dynamics and chances are those of the paper's code. Two of them never end there; here all are truncated after `limit`
steps, with the value of what follows left to the learner. Moves: 0 stays, 1 up, 2 left, 3 down, 4 right.
"""

from math import ceil

import jax
import jax.numpy as jnp
import numpy as np

from envs.core import BadInput, Discrete, Env, Specs, TimeStep, first, time_limit, where
from envs.grid.layouts import pick

MOVES = np.array([[0, 0], [-1, 0], [0, -1], [1, 0], [0, 1]], np.int32)  # (row, column)


def pan_flute(pipes: int = 5, limit: int = 1000) -> Env:
    """Action i puts a sound into pipe i, which is i + 1 cells long; all pipes move on one cell a step.

    Reward 1 where, before the step, all pipes sounded at their ends at once: the best is one in `pipes` steps, by the
    longest first. With chance 1 / pipes^2 all ends sound by themselves. Observation: the cells of the shortest pipe,
    of the next, ..., float32 [pipes (pipes + 1) / 2].
    """
    _least("pipes of pan_flute", pipes, 1)
    cells = np.tril_indices(pipes)

    def see(sounds):
        return sounds[cells].astype(jnp.float32)

    def reset(key):
        sounds = jnp.zeros((pipes, pipes), bool)  # row i is pipe i, of which the first i + 1 cells are there
        return {"sounds": sounds, "key": key}, first(see(sounds))

    def step(state, action):
        key, key_now = jax.random.split(state["key"])
        moved, reward = blown(state["sounds"], action, key_now)
        return {"sounds": moved, "key": key}, TimeStep(see(moved), reward, jnp.bool_(False), jnp.bool_(False))

    specs = Specs(jax.ShapeDtypeStruct((len(cells[0]),), jnp.float32), Discrete(pipes))
    return time_limit(Env(reset, step, specs, "pan-flute"), limit)


def blown(sounds: jax.Array, action: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A step of a pan flute's sounds, bool [pipes, pipes] (row i is pipe i, i + 1 cells long), and its reward []."""
    pipes = sounds.shape[0]
    ends = np.arange(pipes)
    reward = sounds[ends, ends].all().astype(jnp.float32)
    moved = jnp.concatenate([(ends == action)[:, None], sounds[:, :-1]], axis=1)
    return moved | (np.eye(pipes, dtype=bool) & jax.random.bernoulli(key, 1 / pipes**2)), reward


def button_grid(size: int = 10, buttons: int = 3, limit: int = 1000) -> Env:
    """To move onto a button switches it; the step after all are on gives 1, and agent and buttons are drawn anew.

    With chance 1 / (10 size^2) all go on by themselves. Observation: agent, buttons that are on, buttons that are off,
    float32 [size * size * 3].
    """
    _least("size of button_grid", size, 2)
    if not 1 <= buttons <= size**2:
        raise BadInput(f"buttons of button_grid is {buttons}; there is room for 1 to {size**2}.")

    def start(key):
        key_agent, key_buttons = jax.random.split(key)
        spots = jax.random.permutation(key_buttons, size * size)[:buttons].astype(jnp.int32)
        return {
            "agent": jax.random.randint(key_agent, (2,), 0, size),
            "spots": jnp.stack([spots // size, spots % size], axis=1),
            "on": jnp.zeros(buttons, bool),
        }

    def see(state):
        on = (board(size, state["spots"]) * state["on"]).sum(axis=-1)
        off = (board(size, state["spots"]) * ~state["on"]).sum(axis=-1)
        agent = board(size, state["agent"][None]).sum(axis=-1)
        return jnp.stack([agent, on, off], axis=-1).reshape(-1).astype(jnp.float32)

    def reset(key):
        key, key_now = jax.random.split(key)
        state = start(key_now)
        return {**state, "key": key}, first(see(state))

    def step(state, action):
        key, key_all, key_again = jax.random.split(state["key"], 3)
        done = state["on"].all()
        agent = jnp.clip(state["agent"] + jnp.asarray(MOVES)[action], 0, size - 1)
        stepped = (agent != state["agent"]).any() & (state["spots"] == agent).all(axis=1)
        on = (state["on"] ^ stepped) | jax.random.bernoulli(key_all, 1 / (10 * size**2))
        state = where(done, start(key_again), {"agent": agent, "spots": state["spots"], "on": on})
        out = TimeStep(see(state), done.astype(jnp.float32), jnp.bool_(False), jnp.bool_(False))
        return {**state, "key": key}, out

    specs = Specs(jax.ShapeDtypeStruct((size * size * 3,), jnp.float32), Discrete(5))
    return time_limit(Env(reset, step, specs, "button-grid"), limit)


def maze(size: int = 4, limit: int = 1000) -> Env:
    """A new maze each episode, -1 a step; the step after the goal is reached ends it.

    With chance 0.1 / ((size + 1) ceil(size / 2) - size mod 2) the agent finds itself at the goal. Observation: agent,
    goal, walls, open cells, float32 [size * size * 4].
    """
    _least("size of maze", size, 2)
    chance = 0.1 / ((size + 1) * ceil(size / 2) - size % 2)

    def see(state):
        agent, goal = (board(size, state[name][None])[..., 0] for name in ("agent", "goal"))
        return jnp.stack([agent, goal, ~state["open"], state["open"]], axis=-1).reshape(-1).astype(jnp.float32)

    def reset(key):
        key, key_maze, key_places = jax.random.split(key, 3)
        open = carve(key_maze, size)
        agent, goal = (pick(u, open)[::-1] for u in jax.random.uniform(key_places, (2,)))
        state = {"open": open, "agent": agent, "goal": goal}
        return {**state, "key": key}, first(see(state))

    def step(state, action):
        key, key_now = jax.random.split(state["key"])
        over = (state["agent"] == state["goal"]).all()
        to = jnp.clip(state["agent"] + jnp.asarray(MOVES)[action], 0, size - 1)
        agent = jnp.where(state["open"][to[0], to[1]], to, state["agent"])
        agent = jnp.where(jax.random.bernoulli(key_now, chance), state["goal"], agent)
        state = {**state, "agent": agent, "key": key}
        return state, TimeStep(see(state), jnp.float32(-1), over, jnp.bool_(False))

    specs = Specs(jax.ShapeDtypeStruct((size * size * 4,), jnp.float32), Discrete(5))
    return time_limit(Env(reset, step, specs, f"maze-{size}x{size}"), limit)


def carve(key: jax.Array, size: int) -> jax.Array:
    """A maze without loops, bool [size, size], True where open: randomised depth-first search from a random cell.

    A cell is opened next to the newest one that still has a closed neighbour with no other open neighbour.
    """
    y, x = np.mgrid[:size, :size]

    def once(carry):
        open, stack, top, key = carry
        key, key_now = jax.random.split(key)
        here = stack[top - 1]
        walls = jnp.pad(open, 1).astype(jnp.int32)
        beside = walls[:-2, 1:-1] + walls[2:, 1:-1] + walls[1:-1, :-2] + walls[1:-1, 2:]
        near = jnp.abs(y - here[0]) + jnp.abs(x - here[1]) == 1
        fit = near & ~open & (beside == 1)
        new = pick(jax.random.uniform(key_now), fit)[::-1]
        grows = fit.any()
        open = open | (grows & (y == new[0]) & (x == new[1]))
        stack = jnp.where(grows & (jnp.arange(size * size) == top)[:, None], new, stack)
        return open, stack, jnp.where(grows, top + 1, top - 1), key

    key_start, key_rest = jax.random.split(key)
    start = jax.random.randint(key_start, (2,), 0, size)
    open = (y == start[0]) & (x == start[1])
    stack = jnp.zeros((size * size, 2), jnp.int32).at[0].set(start)
    return jax.lax.while_loop(lambda carry: carry[2] > 0, once, (open, stack, jnp.int32(1), key_rest))[0]


def open_grid(size: int = 10, limit: int = 1000) -> Env:
    """A bare grid with the goal in the last corner, -1 a step; the step after the goal is reached ends it.

    With chance 0.1 / size the agent finds itself at the goal. Observation: its cell, one-hot float32 [size * size].
    """
    _least("size of open_grid", size, 2)
    goal = np.array([size - 1, size - 1], np.int32)
    see = lambda agent: board(size, agent[None]).astype(jnp.float32).reshape(-1)

    def reset(key):
        key, key_now = jax.random.split(key)
        agent = jax.random.randint(key_now, (2,), 0, size)
        return {"agent": agent, "key": key}, first(see(agent))

    def step(state, action):
        key, key_now = jax.random.split(state["key"])
        over = (state["agent"] == goal).all()
        agent = jnp.clip(state["agent"] + jnp.asarray(MOVES)[action], 0, size - 1)
        agent = jnp.where(jax.random.bernoulli(key_now, 0.1 / size), goal, agent)
        return {"agent": agent, "key": key}, TimeStep(see(agent), jnp.float32(-1), over, jnp.bool_(False))

    specs = Specs(jax.ShapeDtypeStruct((size * size,), jnp.float32), Discrete(5))
    return time_limit(Env(reset, step, specs, "open-grid"), limit)


def board(size: int, spots: jax.Array) -> jax.Array:
    """Where each of n spots, (row, column) [n, 2], is: bool [size, size, n]."""
    y, x = np.mgrid[:size, :size]
    return (y[..., None] == spots[:, 0]) & (x[..., None] == spots[:, 1])


def _least(name: str, value: int, low: int) -> None:
    if value < low:
        raise BadInput(f"{name} is {value}; the smallest is {low}.")

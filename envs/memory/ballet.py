"""Ballet: watch dancers dance one after the other, then go to the one whose dance is named (Lampinen et al. 2021).

The room, the dances, their times and the choice are those of the paper's released environment.
"""

import jax
import jax.numpy as jnp
import numpy as np

from envs.core import BadInput, Discrete, Env, Specs, TimeStep, first, time_limit

ROOM = 11  # squares on a side, the wall included
COMPASS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")
MOVES = np.array([[-1, 0], [-1, 1], [0, 1], [1, 1], [1, 0], [1, -1], [0, -1], [-1, -1]], np.int32)  # (row, column)
PLACES = np.array([(r, c) for r in (2, 5, 8) for c in (2, 5, 8) if (r, c) != (5, 5)], np.int32)
STEPS = 16  # moves in a dance
DANCES = {
    "circle_cw": "N E S S W W N N E E S S W W N E",
    "circle_ccw": "N W S S E E N N W W S S E E N W",
    "up_and_down": "N S S N N S S N N S S N N S S N",
    "left_and_right": "E W W E E W W E E W W E E W W E",
    "diagonal_uldr": "NW SE SE NW NW SE SE NW NW SE SE NW NW SE SE NW",
    "diagonal_urdl": "NE SW SW NE NE SW SW NE NE SW SW NE NE SW SW NE",
    "plus_cw": "N S E W S N W E N S E W S N W E",
    "plus_ccw": "N S W E S N E W N S W E S N E W",
    "times_cw": "NE SW SE NW SW NE NW SE NE SW SE NW SW NE NW SE",
    "times_ccw": "NW SE SW NE SE NW NE SW NW SE SW NE SE NW NE SW",
    "zee": "NE W W E E SW NE SW SW E E W W NE SW NE",
    "chevron_down": "NW S SE NE N SW NE SW NE S SW NW N SE NW SE",
    "chevron_up": "SE N NW SW S NE SW NE SW N NE SE S NW SE NW",
}
# Where a dancer stands after 0 .. 16 moves, from its place: int32 [13, 17, 2].
MOVED = np.array([[MOVES[COMPASS.index(move)] for move in dance.split()] for dance in DANCES.values()])
PATHS = np.pad(np.cumsum(MOVED, axis=1), ((0, 0), (1, 0), (0, 0))).astype(np.int32)
PIXELS = 9  # on a side of a square
COLOURS = np.array([
    [255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 0, 128], [255, 165, 0], [255, 255, 0], [128, 64, 0], [255, 64, 255],
    [0, 255, 255], [0, 100, 0], [100, 0, 0], [0, 0, 100], [100, 100, 0], [0, 100, 100], [215, 200, 255],
    [255, 210, 170], [255, 205, 230], [200, 255, 200], [255, 255, 200],
], np.uint8)  # fmt: skip
SHAPES = 15
WATCH = len(DANCES)  # the instruction before the choice; then it is the number of a dance


def ballet(dancers: int = 2, pause: int = 16, view: str = "symbolic", limit: int | None = None) -> Env:
    """Actions: the eight compass moves from north, clockwise; ignored until the choice.

    A dancer's 16 moves begin as the one before has rested for `pause` frames. Then the target's dance is named, and to
    step on a dancer ends the episode, with reward 1 for the target.

    Args:
        view: 'symbolic', float32 [304]: of each of the 8 places the colour (19) and shape (15) of its dancer, if any,
            and where it is from the agent (2, in rooms); where the agent is (2); the instruction (14). 'pixels', a
            dict: image uint8 [99, 99, 3] with the agent in the middle, instruction float32 [14].
        limit: steps after which it is truncated; 320, or 1024 where the pause is above 16.
    """
    if not 1 <= dancers <= len(PLACES):
        raise BadInput(f"dancers of ballet is {dancers}; the room has places for 1 to {len(PLACES)}.")
    if pause < 1:
        raise BadInput(f"pause of ballet is {pause}; dances are at least 1 frame apart.")
    if view not in ("symbolic", "pixels"):
        raise BadInput(f"view of ballet is '{view}'; there are 'symbolic' and 'pixels'.")
    turn = STEPS - 1 + pause  # frames from one dance's first move to the next one's
    choice = dancers * turn  # the frame in which the dance is named; moves count from the next one on

    def dancing(state):
        """Where each dancer stands, int32 [dancers, 2]."""
        moved = jnp.clip(state["t"] - turn * np.arange(dancers) + 1, 0, STEPS)
        return jnp.asarray(PLACES)[state["place"]] + jnp.asarray(PATHS)[state["dance"], moved]

    def instruction(state):
        named = jnp.where(state["t"] >= choice, state["dance"][state["target"]], WATCH)
        return jax.nn.one_hot(named, WATCH + 1)

    def symbolic(state):
        offset = (dancing(state) - state["agent"]) / ROOM
        one = [jax.nn.one_hot(state["colour"], len(COLOURS)), jax.nn.one_hot(state["shape"], SHAPES), offset]
        places = jax.nn.one_hot(state["place"], len(PLACES)).T @ jnp.concatenate(one, axis=1)
        return jnp.concatenate([places.reshape(-1), state["agent"] / ROOM, instruction(state)])

    def pixels(state):
        return {"image": picture(state["agent"], dancing(state), state), "instruction": instruction(state)}

    see = symbolic if view == "symbolic" else pixels

    def reset(key):
        keys = jax.random.split(key, 5)
        some = lambda key, n: jax.random.permutation(key, n)[:dancers].astype(jnp.int32)
        sizes = {"place": len(PLACES), "dance": len(DANCES), "colour": len(COLOURS), "shape": SHAPES}
        state = {name: some(key, n) for (name, n), key in zip(sizes.items(), keys)}
        state |= {"target": jax.random.randint(keys[4], (), 0, dancers), "t": jnp.int32(0)}
        state |= {"agent": jnp.array([ROOM // 2, ROOM // 2], jnp.int32)}
        return state, first(see(state))

    def step(state, action):
        free = state["t"] >= choice
        agent = jnp.where(free, jnp.clip(state["agent"] + jnp.asarray(MOVES)[action], 1, ROOM - 2), state["agent"])
        # A wall stops the whole move, a diagonal one too.
        blocked = (agent != state["agent"] + jnp.asarray(MOVES)[action]).any()
        agent = jnp.where(blocked, state["agent"], agent)
        state = {**state, "t": state["t"] + 1, "agent": agent}
        met = (dancing(state) == agent).all(axis=1)
        reward = met[state["target"]].astype(jnp.float32)
        return state, TimeStep(see(state), reward, met.any(), jnp.bool_(False))

    def draw(state, shape, camera):
        if camera not in (None, "agent"):
            raise BadInput(f"camera is '{camera}'; the ballet is seen whole (None), or with the 'agent' in the middle.")
        centre = state["agent"] if camera else jnp.array([ROOM // 2, ROOM // 2])
        image = picture(centre, dancing(state), state)
        rows, columns = (np.arange(n) * ROOM * PIXELS // n for n in shape)
        return image[rows[:, None], columns[None, :]]

    observation = jax.eval_shape(lambda key: reset(key)[1].obs, jax.random.key(0))
    env = Env(reset, step, Specs(observation, Discrete(len(MOVES))), f"ballet-{dancers}", draw)
    return time_limit(env, limit or (320 if pause <= 16 else 1024))


def shapes() -> np.ndarray:
    """Which pixels each of the 15 shapes fills, bool [15, 9, 9]."""
    n, half = PIXELS, PIXELS // 2
    i, j = np.mgrid[:n, :n]
    edge = lambda *sides: np.any([{"t": i < 3, "b": i >= n - 3, "l": j < 3, "r": j >= n - 3}[s] for s in sides], axis=0)
    bar, beam = np.abs(j - half) <= 1, np.abs(i - half) <= 1
    cross = (np.abs(i - j) <= 1) | (np.abs(n - 1 - i - j) <= 1)
    radius2 = (i - half) ** 2 + (j - half) ** 2
    frame = (i < 2) | (i >= n - 2) | (j < 2) | (j >= n - 2)
    return np.stack([
        i >= 2 * np.abs(j - half), frame, bar | beam, ~(bar | beam), cross, ~cross, radius2 <= half**2,
        np.abs(radius2 - half**2) < 6, bar | edge("t"), bar | edge("b"), beam | edge("l", "r"), edge("l", "r", "b"),
        edge("l", "r", "t"), j % 2 == 0, i % 2 == 0,
    ])  # fmt: skip


def picture(centre: jax.Array, standing: jax.Array, state: dict) -> jax.Array:
    """The room around a square, uint8 [99, 99, 3]: walls grey, agent white, dancers in their shapes and colours."""
    r, c = (np.mgrid[:ROOM, :ROOM][n] - ROOM // 2 + centre[n] for n in (0, 1))
    wall = ((r == 0) | (r == ROOM - 1) | (c == 0) | (c == ROOM - 1)) & (r >= 0) & (r < ROOM) & (c >= 0) & (c < ROOM)
    agent = (r == state["agent"][0]) & (c == state["agent"][1])
    here = (r[..., None] == standing[:, 0]) & (c[..., None] == standing[:, 1])
    masks = jnp.asarray(shapes())[state["shape"]]
    fill = (here[..., None, None] & masks).astype(jnp.int32)  # [row, column, dancer, pixel, pixel]
    dancers = jnp.einsum("rcdij,dk->ricjk", fill, jnp.asarray(COLOURS).astype(jnp.int32)[state["colour"]])
    plain = jnp.where(agent, 255, jnp.where(wall, 40, 0))[:, None, :, None, None]
    return jnp.where(plain > 0, plain, dancers).reshape(ROOM * PIXELS, ROOM * PIXELS, 3).astype(jnp.uint8)

"""Memory worlds and factored worlds: hand-worked episodes, best policies, chances, drawings of mazes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import factored, memory
from envs.core import BadInput
from envs.factored import worlds
from envs.memory import ballet as ballets
from envs.memory.repeat import repeat_previous
from envs.memory.tmaze import EAST, tmaze


def lived(env, actions, key=0):
    """(state, obs, rewards, terminated, truncated) along fixed actions, the first observation apart."""

    @jax.jit
    def run(key):
        state, out = env.reset(key)
        step = lambda state, action: (lambda after, out: (after, (after, out)))(*env.step(state, action))
        return out.obs, jax.lax.scan(step, state, jnp.asarray(actions, jnp.int32))[1]

    shown, (states, out) = run(jax.random.key(key))
    return states, shown, out


@pytest.mark.parametrize("id", [*memory.TABLE, *factored.TABLE])
def test_small_worlds_pass_the_check(id):
    entry = {**memory.TABLE, **factored.TABLE}[id]
    assert envs.check_env(envs.make(entry.target, **entry.settings), steps=0) == []


# ---------------------------------------------------------------------------------------------------------- memory


def test_the_sign_of_the_tmaze_decides():
    env = tmaze(3)
    states, shown, out = lived(env, [2, EAST, EAST, EAST, 1])
    north = bool(states["inner"]["north"][0])
    assert shown.tolist() == ([1, 0, 0, 0] if north else [0, 1, 0, 0])
    assert out.obs.argmax(axis=1).tolist()[1:4] == [2, 2, 3]  # neither of which tells the sign
    np.testing.assert_allclose(out.reward, [-0.1, 0, 0, 0, 4.0 if north else -0.1], rtol=1e-6)
    assert out.terminated.tolist() == [False] * 4 + [True]
    assert env.specs.limit == 8


def test_both_signs_come_up():
    state, out = jax.vmap(tmaze(3).reset)(jax.random.split(jax.random.key(0), 200))
    assert 60 < state["inner"]["north"].sum() < 140
    assert (out.obs[:, 0] == state["inner"]["north"]).all()


def test_who_remembers_repeats_and_who_does_not_guesses():
    k, env = 3, repeat_previous(3)

    def play(key, remembers):
        state, out = env.reset(key)

        def step(carry, _):
            state, seen = carry
            guess = jnp.where(remembers, seen[0], seen[-1])
            state, out = env.step(state, guess.astype(jnp.int32))
            return (state, jnp.append(seen[1:], out.obs.argmax())), out

        seen = jnp.zeros(k + 1, jnp.int32).at[-1].set(out.obs.argmax())
        return jax.lax.scan(step, (state, seen), None, length=52)[1]

    out = jax.jit(jax.vmap(jax.vmap(play, (0, None)), (None, 0)))(
        jax.random.split(jax.random.key(0), 64), jnp.array([True, False])
    )
    returns = out.reward.sum(axis=2)
    np.testing.assert_allclose(returns[0], 1.0, rtol=1e-5)
    assert abs(float(returns[1].mean()) + 0.5) < 0.1  # chance: 2 / 4 - 1; 64 x 49 answers spread by 0.016
    assert out.truncated[0, 0].tolist() == [False] * 51 + [True]


def test_dances_stay_near_their_place_and_return_to_it():
    assert ballets.PATHS.shape == (13, 17, 2)
    assert np.abs(ballets.PATHS).max() == 1
    assert (ballets.PATHS[:, -1] == 0).all()
    assert len({path.tobytes() for path in ballets.PATHS}) == 13
    assert len({shape.tobytes() for shape in ballets.shapes()}) == 15


def test_the_ballet_goes_by_its_clock():
    env = ballets.ballet(2, pause=16)
    states, shown, out = lived(env, [2] * 70, key=1)
    state = jax.tree.map(lambda x: np.asarray(x[-1]), states["inner"])
    instruction = np.concatenate([shown[None], out.obs])[:, -14:].argmax(axis=1)
    # Two dances, the second 31 frames after the first; the name comes 31 frames after that.
    assert (instruction[:62] == ballets.WATCH).all()
    assert (instruction[62:] == state["dance"][state["target"]]).all()
    agent = np.asarray(states["inner"]["agent"])
    assert (agent[:62] == 5).all()
    assert agent[62].tolist() == [5, 6]
    # What is shown of a dancer's motion is its dance, one move a frame from its first frame on.
    for dancer in range(2):
        place = int(state["place"][dancer])
        moved = np.concatenate([shown[None], out.obs])[:62, place * 36 + 34 : place * 36 + 36] * 11
        path = ballets.PATHS[state["dance"][dancer], 1:] + ballets.PLACES[place] - 5
        np.testing.assert_allclose(moved[31 * dancer : 31 * dancer + 16], path, atol=1e-5)


@pytest.mark.reference
def test_only_the_named_dancer_pays():
    env = ballets.ballet(8)

    def go(key, wrong):
        state, _ = env.reset(key)
        inner = {**state["inner"], "t": jnp.int32(8 * 31)}
        dancer = jnp.where(wrong, (inner["target"] + 1) % 8, inner["target"])
        towards = jnp.asarray(ballets.PLACES)[inner["place"][dancer]]

        def step(state, _):
            way = jnp.sign(towards - state["inner"]["agent"])
            action = (jnp.asarray(ballets.MOVES) == way).all(axis=1).argmax()
            return env.step(state, action.astype(jnp.int32))

        return jax.lax.scan(step, {**state, "inner": inner}, None, length=3)[1]

    run = jax.jit(jax.vmap(jax.vmap(go, (0, None)), (None, 0)))
    out = run(jax.random.split(jax.random.key(0), 16), jnp.array([False, True]))
    assert out.terminated[:, :, 2].all()
    assert not out.terminated[:, :, :2].any()
    assert (out.reward[0, :, 2] == 1).all()
    assert (out.reward[1] == 0).all()


def test_the_ballet_is_drawn_with_the_agent_in_the_middle():
    env = ballets.ballet(2, view="pixels")
    state, out = jax.jit(env.reset)(jax.random.key(0))
    image = np.asarray(out.obs["image"])
    assert image.shape == (99, 99, 3)
    assert (image[45:54, 45:54] == 255).all()
    assert (image[:9] == 40).all()
    colours = {tuple(pixel) for pixel in image[9:-9, 9:-9].reshape(-1, 3).tolist()}
    wanted = ballets.COLOURS[np.asarray(state["inner"]["colour"])]
    assert colours == {(0, 0, 0), (255, 255, 255), *map(tuple, wanted.tolist())}


# -------------------------------------------------------------------------------------------------------- factored


def test_the_longest_pipe_first_makes_the_flute_sound():
    _, shown, out = lived(worlds.pan_flute(5), [4, 3, 2, 1, 0] * 200)
    assert shown.shape == (15,)
    # All ends sound after every fifth action, and the step after it pays, whatever sounded by chance besides.
    assert (np.asarray(out.reward)[5::5] == 1).all()
    _, _, idle = lived(worlds.pan_flute(5), [4] * 1000)
    # By chance alone one step in 25: 1000 draws spread by 6.2 around 40.
    assert abs(float(idle.reward.sum()) - 40) < 31


def test_a_button_is_switched_by_moving_onto_it():
    env = worlds.button_grid(10, 3)
    step = jax.jit(env.step)
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    inner = {**state["inner"], "agent": jnp.array([0, 0]), "spots": jnp.array([[0, 1], [5, 5], [9, 9]])}
    inner["on"] = jnp.array([False, True, True])
    state = {**state, "inner": inner}
    state, out = step(state, jnp.int32(4))
    assert out.obs.reshape(10, 10, 3)[0, 1].tolist() == [1, 1, 0]
    assert float(out.reward) == 0
    off, out = step({**state, "inner": {**state["inner"], "agent": jnp.array([0, 0])}}, jnp.int32(4))
    assert float(out.reward) == 1  # all were on before
    assert not off["inner"]["on"].any()  # drawn anew


def test_mazes_are_trees_and_all_that_is_open_is_one():
    open = np.asarray(jax.jit(jax.vmap(lambda key: worlds.carve(key, 6)))(jax.random.split(jax.random.key(0), 200)))
    for maze in open:
        links = (maze[1:] & maze[:-1]).sum() + (maze[:, 1:] & maze[:, :-1]).sum()
        reached = np.zeros_like(maze)
        reached[tuple(np.argwhere(maze)[0])] = True
        for _ in range(36):
            near = np.pad(reached, 1)
            reached |= maze & (near[:-2, 1:-1] | near[2:, 1:-1] | near[1:-1, :-2] | near[1:-1, 2:])
        assert (reached == maze).all()
        assert links == maze.sum() - 1
        assert maze.sum() >= 12
    assert len({maze.tobytes() for maze in open}) > 150


def test_the_step_after_the_goal_ends_the_maze():
    env = worlds.maze(4)
    step = jax.jit(env.step)
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    inner = {**state["inner"], "agent": state["inner"]["goal"]}
    _, out = step({**state, "inner": inner}, jnp.int32(0))
    assert bool(out.terminated)
    assert float(out.reward) == -1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tmaze(0), "corridor is 0"),
        (lambda: repeat_previous(60), "k 60"),
        (lambda: ballets.ballet(9), "dancers of ballet is 9"),
        (lambda: ballets.ballet(2, view="text"), "view of ballet is 'text'"),
        (lambda: worlds.button_grid(2, 5), "buttons of button_grid is 5"),
        (lambda: worlds.maze(1), "size of maze is 1"),
    ],
)
def test_impossible_worlds_are_refused(make, words):
    with pytest.raises(BadInput, match=words):
        make()

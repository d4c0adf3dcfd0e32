"""Which steps the sequences of a replay show, and how often."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.core import Ctx
from jaxrl.sources import uniform

NOBODY = Ctx(None, None)


def shares(length: int, episode: int, capacity: int = 400, total: int = 350, frames: int | None = None):
    """How often each step of an episode is seen, over the average, in episodes of that length: [episode].

    One environment, ticks of 10 steps; a step's observation is its number within the episode.
    """
    source = uniform(capacity, 64, sequence=length, frames=frames)
    t = np.arange(total)
    of = lambda x: jnp.asarray(x, jnp.float32).reshape(-1, 10, 1)
    stack = lambda t: jnp.asarray(np.maximum(t[:, None] - np.arange(frames or 1)[::-1], 0), jnp.float32)
    step, end = t % episode, t % episode == episode - 1
    ticks = {
        "obs": stack(step).reshape(-1, 10, 1, frames or 1),
        "action": of(step),
        "reward": of(t),
        "discount": of(1 + 0 * t),
        "end": of(end) > 0,
        "next_obs": stack(step + 1).reshape(-1, 10, 1, frames or 1),
    }

    @jax.jit
    def seen(ticks, keys):
        example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), ticks)
        s = jax.lax.scan(lambda s, x: (source.add(s, x, NOBODY), None), source.init(example), ticks)[0]
        return jax.lax.map(lambda key: source.sample(s, {}, key), keys)

    batch = jax.tree.map(np.asarray, seen(ticks, jax.random.split(jax.random.key(0), 400)))
    real = batch["weight"] > 0
    follow = np.diff(batch["reward"], axis=-1) == 1
    assert (follow == real[..., 1:]).all()  # one step after another, up to the weights' end
    assert (batch["action"] == batch["obs"][..., -1])[real].all()
    counts = np.bincount(batch["action"][real].astype(int), minlength=episode)
    return counts / counts.mean(), batch["action"][..., 0]


@pytest.mark.parametrize("length, episode", [(16, 35), (50, 70), (16, 7)])
def test_every_step_of_an_episode_is_seen_about_as_often(length, episode):
    share, _ = shares(length, episode)
    assert share.min() > 0.45 and share.max() < 2, share.round(2)


def test_every_step_is_seen_where_the_oldest_have_been_overwritten():
    share, _ = shares(8, 35, capacity=100, total=390)
    assert share.min() > 0.4 and share.max() < 2, share.round(2)
    share, _ = shares(8, 35, capacity=100, total=390, frames=3)
    assert share.min() > 0.4 and share.max() < 2, share.round(2)


def test_sequences_of_one_step_are_steps():
    share, begins = shares(1, 5)
    assert abs(share - 1).max() < 0.1 and set(begins.reshape(-1).astype(int)) == set(range(5))

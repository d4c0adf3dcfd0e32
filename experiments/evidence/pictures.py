"""Arms that classify generated pictures: an encoder and a linear layer learn from few of them."""

from collections.abc import Callable
from typing import Any

from experiments.evidence import Outcome, Scale

BATCH, FRESH = 32, 1_000


def accuracy(
    encoder: Callable[[], Any],
    draw: Callable[..., Any],
    classes: int,
    images: int,
    pad: int = 0,
    shuffled: bool = False,
):
    """An arm: the share of fresh pictures told right, after learning from `images` of them with random shifts.

    Args:
        encoder: makes a module from pictures [B, H, W, 1] to features.
        draw: (what pictures of a seed share, key) -> picture [H, W, 1], label; of None it makes what they share.
        shuffled: whether all pixels are put elsewhere, by one permutation: what is near says nothing then.
    """

    def arm(scale: Scale, seeds: tuple[int, ...]) -> Outcome:
        import jax
        import jax.numpy as jnp
        import optax
        from flax import linen as nn

        from experiments.evidence.fitting import fitted
        from jaxrl.nets import net
        from jaxrl.sources import random_shift

        class Network(nn.Module):
            @nn.compact
            def __call__(self, x):
                return nn.Dense(classes)(encoder()(x))

        def pictures(shared, key, count):
            x, label = jax.vmap(lambda key: draw(shared["task"], key))(jax.random.split(key, count))
            if shuffled:
                x = x.reshape(count, -1)[:, shared["order"]].reshape(x.shape)
            return x, label

        example = jax.eval_shape(lambda key: draw(draw(None, key), key)[0], jax.random.key(0))

        def task(key):
            key_task, key_order, key_images = jax.random.split(key, 3)
            shared = {"task": draw(None, key_task), "order": jax.random.permutation(key_order, example.size)}
            return shared, pictures(shared, key_images, images)

        network = net(Network(), jax.ShapeDtypeStruct((1, *example.shape), jnp.float32))

        def loss(parameters, task, key):
            key_choice, key_shift = jax.random.split(key)
            x, label = jax.tree.map(lambda x: x[jax.random.randint(key_choice, (BATCH,), 0, images)], task[1])
            x = random_shift(key_shift, x, pad) if pad else x
            return optax.softmax_cross_entropy_with_integer_labels(network.apply(parameters, x), label).mean()

        def judged(parameters, task, key):
            x, label = pictures(task[0], key, FRESH)
            lots = lambda x: x.reshape(-1, 100, *x.shape[1:])
            told = jax.lax.map(lambda x: network.apply(parameters, x).argmax(axis=-1), lots(x))
            return (told.reshape(-1) == label).mean()

        return fitted(scale, seeds, task, network.init, loss, judged, lr=5e-4)

    return arm

"""Normalisation over the batch, with running statistics kept apart from the parameters that gradients move."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrl.core import Key, PyTree
from jaxrl.nets.hyper import HyperDense, unit, unit_columns


class NormedNet(NamedTuple):
    """A network with running statistics: `init(key) -> (parameters, running)`.

    `train(parameters, running, *inputs [B, ...]) -> (output, new running)` normalises by the batch's statistics;
    `apply(parameters, running, *inputs)` by the running ones, for single inputs too.
    """

    init: Callable[[Key], tuple[PyTree, PyTree]]
    train: Callable[..., tuple[Any, PyTree]]
    apply: Callable[..., Any]


def normed(module: nn.Module, *inputs: Any) -> NormedNet:
    """The functions of a module whose `__call__(*inputs, train)` keeps a collection 'running'."""

    def init(key):
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), inputs)
        made = module.init(key, *zeros, train=False)
        return made["params"], made["running"]

    def train(parameters, running, *inputs):
        together = {"params": parameters, "running": running}
        output, new = module.apply(together, *inputs, train=True, mutable=["running"])
        return output, new["running"]

    def apply(parameters, running, *inputs):
        return module.apply({"params": parameters, "running": running}, *inputs, train=False)

    return NormedNet(init, train, apply)


def normed_ensemble(one: NormedNet, size: int) -> NormedNet:
    """`size` independent copies, each with statistics of its own: all but the inputs lead with [size]."""
    repeated = lambda inputs: jax.tree.map(lambda x: jnp.broadcast_to(x, (size, *x.shape)), inputs)
    return NormedNet(
        lambda key: jax.vmap(one.init)(jax.random.split(key, size)),
        lambda parameters, running, *inputs: jax.vmap(one.train)(parameters, running, *repeated(inputs)),
        lambda parameters, running, *inputs: jax.vmap(one.apply)(parameters, running, *repeated(inputs)),
    )


class BatchRenorm(nn.Module):
    """(x - mean) / std over the batch, bent towards the running statistics once these are known  (Ioffe 2017).

    After `warmup` passes of plain batch normalisation the gradient-free r = std / running std and
    d = (mean - running mean) / running std, within bounds, make training's output what the running statistics would
    give. Scale and shift are learned.

    Attributes:
        momentum: what the running statistics keep of themselves at each pass.
        warmup: passes of plain batch normalisation; None has no others.
        r_max, d_max: bounds of r, in [1 / r_max, r_max], and of d, in [-d_max, d_max].
    """

    momentum: float = 0.99
    epsilon: float = 1e-3
    warmup: int | None = None
    r_max: float = 3.0
    d_max: float = 5.0

    @nn.compact
    def __call__(self, x, train):
        features = x.shape[-1:]
        mean = self.variable("running", "mean", jnp.zeros, features)
        var = self.variable("running", "var", jnp.ones, features)
        passes = self.variable("running", "passes", jnp.zeros, (), jnp.int32)
        scale, shift = (
            self.param(name, make, features)
            for name, make in (("scale", nn.initializers.ones), ("shift", nn.initializers.zeros))
        )
        usual = jnp.sqrt(var.value + self.epsilon)
        if not train:
            return (x - mean.value) / usual * scale + shift
        now_mean, now_var = x.mean(axis=0), x.var(axis=0)
        std = jnp.sqrt(now_var + self.epsilon)
        y = (x - now_mean) / std
        if self.warmup is not None:
            r = jnp.clip(std / usual, 1 / self.r_max, self.r_max)
            d = jnp.clip((now_mean - mean.value) / usual, -self.d_max, self.d_max)
            bent = y * jax.lax.stop_gradient(r) + jax.lax.stop_gradient(d)
            y = jnp.where(passes.value >= self.warmup, bent, y)
        if not self.is_initializing():
            keep = lambda old, new: self.momentum * old + (1 - self.momentum) * jax.lax.stop_gradient(new)
            mean.value, var.value = keep(mean.value, now_mean), keep(var.value, now_var)
            passes.value += 1
        return y * scale + shift


class NormedMLP(nn.Module):
    """Dense layers on normalised inputs, each with a normaliser and an activation; inputs are concatenated.

    Attributes:
        widths, outputs: hidden widths, and of the linear output layer.
        plain: passes until the normalisers are bent towards their running statistics; None never bends them.
        first: whether a normaliser stands before its activation, and the dense layer then has no bias.
        kernel_init: initialiser of all dense layers.
    """

    widths: Sequence[int]
    outputs: int
    plain: int | None = None
    first: bool = False
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, *inputs, train):
        norm = lambda x: BatchRenorm(warmup=self.plain)(x, train)
        x = norm(jnp.concatenate(inputs, axis=-1))
        for width in self.widths:
            x = nn.Dense(width, use_bias=not self.first, kernel_init=self.kernel_init)(x)
            x = nn.relu(norm(x)) if self.first else norm(nn.relu(x))
        return nn.Dense(self.outputs, kernel_init=self.kernel_init)(x)


def bounded_spectra(parameters: PyTree, most: float = 1.0, turns: int = 10) -> PyTree:
    """The parameters with no kernel's largest singular value above `most`; the rest stays  (Miyato et al. 2018).

    The value is estimated anew, by `turns` of power iteration from a fixed start, and so from below: a spectrum whose
    two largest values lie close may stay a little above. Kernels of convolutions count as [inputs, outputs] matrices.
    """

    def one(path, x):
        if path[-1] != jax.tree_util.DictKey("kernel"):
            return x
        matrix = x.reshape(-1, x.shape[-1])
        u = jax.lax.fori_loop(0, turns, lambda i, u: unit(matrix.T @ (matrix @ u)), unit(jnp.ones(x.shape[-1])))
        return x * jnp.minimum(1, most / jnp.maximum(jnp.linalg.norm(matrix @ u), 1e-8))

    return jax.tree_util.tree_map_with_path(one, parameters)


class UnitRMS(nn.Module):
    """x / root mean square, times a learned gain."""

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x):
        gain = self.param("gain", nn.initializers.ones, x.shape[-1:])
        return x * jax.lax.rsqrt((x**2).mean(axis=-1, keepdims=True) + self.epsilon) * gain


class NormedResidual(nn.Module):
    """Normalised inputs into a residual stream; blocks x + ReLU(N(W ReLU(N(W x)))); RMS; linear heads.

    FlashSAC's network. A block's hidden layer is four times as wide; its weights, and the scales and shifts of its
    normalisers, are meant to be kept at constant norms (`unit_weights`).

    Attributes:
        width, blocks: of the residual stream.
        outputs: of each of the `heads`, which are concatenated.
    """

    width: int
    blocks: int
    outputs: int
    heads: int = 1

    @nn.compact
    def __call__(self, *inputs, train):
        norm = lambda x: BatchRenorm(epsilon=1e-5)(x, train)
        x = HyperDense(self.width)(norm(jnp.concatenate(inputs, axis=-1)))
        for _ in range(self.blocks):
            h = nn.relu(norm(HyperDense(4 * self.width)(x)))
            x = x + nn.relu(norm(HyperDense(self.width)(h)))
        x = UnitRMS()(x)
        heads = range(self.heads)
        biases = [self.param(f"bias_{i}", nn.initializers.zeros, (self.outputs,)) for i in heads]
        return jnp.concatenate([HyperDense(self.outputs)(x) + bias for bias in biases], axis=-1)


def unit_weights(parameters: PyTree) -> PyTree:
    """The parameters with columns of kernels at norm 1, and scales with their shifts, and gains, at sqrt(width)."""

    def scales(tree):
        if not isinstance(tree, dict):
            return tree
        together = [name for name in ("scale", "shift", "gain") if name in tree]
        if not together:
            return {name: scales(value) for name, value in tree.items()}
        norm = jnp.sqrt(sum((tree[name] ** 2).sum(axis=-1, keepdims=True) for name in together))
        size = tree[together[0]].shape[-1] ** 0.5 / jnp.maximum(norm, 1e-8)
        return {**tree, **{name: tree[name] * size for name in together}}

    return scales(unit_columns(parameters))

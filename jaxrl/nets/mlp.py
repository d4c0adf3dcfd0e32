"""Multi-layer perceptrons, their initialisers, and ensembles of any module."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrl.core import BadInput, Key, PyTree

Within = dict[str, list[Any]]  # what was recorded inside a network, in the order in which it was computed


def closed(parameters: PyTree, *inputs: Any) -> Within:
    raise BadInput("this agent's networks do not show what is inside them, which is what is to be measured here.")


class Net(NamedTuple):
    """A module as pure functions: `init(key) -> parameters`, `apply(parameters, *inputs) -> output`.

    `within(parameters, *inputs)` is what a pass computes inside: 'layers', the output of each dense layer and each
    convolution before its activation, [..., units]; 'gates', what routers decide (`nets.moe`). Some raise BadInput.
    """

    init: Callable[[Key], PyTree]
    apply: Callable[..., Any]
    within: Callable[..., Within] = closed


def net(module: nn.Module, *inputs: Any) -> Net:
    """The functions of a flax module; `inputs` are examples (arrays or ShapeDtypeStructs) of one item."""

    def init(key):
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), inputs)
        return module.init(key, *zeros)["params"]

    def within(parameters, *inputs):
        return looked_into(module, {"params": parameters}, *inputs)

    return Net(init, lambda parameters, *inputs: module.apply({"params": parameters}, *inputs), within)


def looked_into(module: nn.Module, variables: PyTree, *inputs: Any, **how: Any) -> Within:
    """`Net.within` of a module; of what it is applied with, `how` has the rest."""
    layer = lambda inner, method: isinstance(inner, nn.Dense | nn.Conv) and method == "__call__"
    looking = {"capture_intermediates": layer, "mutable": ["intermediates", "gates"]}
    _, seen = module.apply(variables, *inputs, **looking, **how)
    return {"layers": list(_ordered(seen.get("intermediates", {}))), "gates": list(_ordered(seen.get("gates", {})))}


def _ordered(tree: Any) -> Iterator[Any]:
    """What nested dicts and tuples hold, as it was put in: `jax.tree.leaves` would sort Dense_10 before Dense_2."""
    if isinstance(tree, Mapping) or type(tree) is tuple:
        for inner in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _ordered(inner)
    else:
        yield tree


def drawing(module: nn.Module, *inputs: Any) -> Net:
    """As `net`, of a module that draws whenever it is applied: `apply(parameters, key, *inputs)`."""

    def init(key):
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), inputs)
        return module.init({"params": key, "dropout": key}, *zeros)["params"]

    def apply(parameters, key, *inputs):
        return module.apply({"params": parameters}, *inputs, rngs={"dropout": key})

    def within(parameters, key, *inputs):
        return looked_into(module, {"params": parameters}, *inputs, rngs={"dropout": key})

    return Net(init, apply, within)


def ensemble(one: Net, size: int) -> Net:
    """`size` independent copies: parameters and outputs lead with [size]. Fewer members' parameters give fewer outputs.

    All members see the same inputs, but that a key among these is split, so that each draws for itself.
    """

    def over(fn, parameters, *inputs: Any):
        members = jax.tree.leaves(parameters)[0].shape[0]

        def each(x):
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                return jax.random.split(x, members)
            # Repeated, not shared: XLA then multiplies batch by batch, without transposing the outputs.
            return jnp.broadcast_to(x, (members, *x.shape))

        return jax.vmap(fn)(parameters, *jax.tree.map(each, inputs))

    init = lambda key: jax.vmap(one.init)(jax.random.split(key, size))
    return Net(init, partial(over, one.apply), partial(over, one.within))


@jax.custom_jvp
def _product(x: jax.Array, w: jax.Array) -> jax.Array:
    """x [B, n] times w [n, m], whose gradient in w is x turned round, times the outputs' gradient.

    XLA on CPUs folds the turning into that product, and so leaves the kernels that it multiplies everything else with
    for ones that take a third longer. The barrier keeps the two apart: a matrix is copied more cheaply than that.
    """
    return x @ w


@_product.defjvp
def _product_jvp(primals, tangents):
    (x, w), (x_dot, w_dot) = primals, tangents
    turned = jax.lax.optimization_barrier(x.T)
    return x @ w, x_dot @ w + jax.lax.dot_general(turned, w_dot, (((0,), (0,)), ((), ())))


SMALL = 1 << 15  # numbers that are copied within the caches next to a core


def _dot(x: jax.Array, w: jax.Array, dimensions: Any, precision: Any = None, **how: Any) -> jax.Array:
    """What a dense layer multiplies with: `dot_general`, by way of `_product` where that is faster.

    Large matrices are copied too slowly, and where w is a vector there is nothing to gain.
    """
    if jax.default_backend() == "cpu" and x.ndim == 2 and x.size <= SMALL and w.shape[1] > 1:
        return _product(x, w)
    return jax.lax.dot_general(x, w, dimensions, precision, **how)


class MLP(nn.Module):
    """Dense layers with an activation between them; inputs are concatenated on the last axis.

    Attributes:
        widths: hidden widths.
        outputs: width of the linear output layer.
        norm: before each activation: LayerNorm, 'plain' without a learned scale and shift and 'affine' with both; or
            'rms', RMSNorm with a learned scale.
        dropout: share of the hidden units that are dropped before norm and activation, the others scaled up; above 0
            the network draws (`drawing`).
        final_init: initialiser of the output layer; None uses `kernel_init`.
    """

    widths: Sequence[int]
    outputs: int
    activation: Callable = nn.relu
    norm: str | None = None
    dropout: float = 0.0
    kernel_init: Callable = nn.initializers.lecun_normal()
    final_init: Callable | None = None

    @nn.compact
    def __call__(self, *inputs):
        x = jnp.concatenate(inputs, axis=-1)
        for width in self.widths:
            x = nn.Dense(width, kernel_init=self.kernel_init, dot_general=_dot)(x)
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=False)(x)
            if self.norm == "rms":
                x = nn.RMSNorm()(x)
            elif self.norm:
                affine = self.norm == "affine"
                x = nn.LayerNorm(epsilon=1e-5, use_scale=affine, use_bias=affine)(x)
            x = self.activation(x)
        return nn.Dense(self.outputs, kernel_init=self.final_init or self.kernel_init, dot_general=_dot)(x)


class ResidualMLP(nn.Module):
    """Dense, LayerNorm, ReLU; then blocks x + LN(Dense(ReLU(LN(Dense x)))); then a linear output.

    Nauman et al. 2024 (BRO), figure 2. Inputs are concatenated on the last axis.

    Attributes:
        width, blocks: of the residual stream.
        final_init, final_bias: of the output layer.
    """

    width: int
    blocks: int
    outputs: int
    final_init: Callable | None = None
    final_bias: bool = True

    @nn.compact
    def __call__(self, *inputs):
        init = orthogonal(2**0.5)
        normed = lambda x: nn.LayerNorm()(nn.Dense(self.width, kernel_init=init)(x))
        x = nn.relu(normed(jnp.concatenate(inputs, axis=-1)))
        for _ in range(self.blocks):
            x = x + normed(nn.relu(normed(x)))
        return nn.Dense(self.outputs, use_bias=self.final_bias, kernel_init=self.final_init or init)(x)


@jax.custom_batching.sequential_vmap
def _orthonormal(matrix: jax.Array) -> jax.Array:
    """Q of the QR decomposition [n, m], n >= m, made unique. One after another under vmap: batches of LAPACK's QR wait
    for ever on a CPU of two cores (jaxlib 0.10.2)."""
    q, r = jnp.linalg.qr(matrix)
    return q * jnp.sign(jnp.diagonal(r))


def orthogonal(gain: float = 1.0) -> Callable:
    """Orthonormal rows or columns, whichever are fewer, times a gain  (Saxe et al. 2014)."""

    def init(key, shape, dtype=jnp.float32):
        fan_in, fan_out = math.prod(shape[:-1]), shape[-1]
        tall = jax.random.normal(key, (max(fan_in, fan_out), min(fan_in, fan_out)), dtype)
        q = _orthonormal(tall)
        return gain * (q if fan_in >= fan_out else q.T).reshape(shape)

    return init


def xavier(gain: float = 1.0) -> Callable:
    """W ~ U(+-gain sqrt(6 / (fan_in + fan_out)))  (Glorot and Bengio 2010, eq. 16)."""
    return nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform")


def truncated(gain: float = 1.0) -> Callable:
    """A normal with a standard deviation of gain / sqrt(fan_in), cut at two of them."""
    return nn.initializers.variance_scaling((0.87962566 * gain) ** 2, "fan_in", "truncated_normal")


leaky_relu = nn.leaky_relu  # slope 0.01


def sparse_uniform(sparsity: float = 0.9) -> Callable:
    """W ~ U(+-1/sqrt(fan_in)), then ceil(sparsity x fan_in) random inputs of each output set to 0.

    Elsayed et al. 2024 (streaming deep RL), section 4. Fan-in of 9 or less at 0.9 leaves no weight: such a layer
    starts at zero and is reached through its biases.
    """

    def init(key, shape, dtype=jnp.float32):
        key_weights, key_zeros = jax.random.split(key)
        fan_in, fan_out = math.prod(shape[:-1]), shape[-1]
        bound = fan_in**-0.5
        weights = jax.random.uniform(key_weights, (fan_in, fan_out), dtype, -bound, bound)
        rank = jax.random.uniform(key_zeros, (fan_in, fan_out)).argsort(axis=0).argsort(axis=0)
        return jnp.where(rank < math.ceil(sparsity * fan_in), 0, weights).reshape(shape)

    return init

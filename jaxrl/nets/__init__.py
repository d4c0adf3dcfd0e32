"""Network modules: the only room that imports flax. Agents see `init` and `apply` and nothing else of it."""

from jaxrl.nets.mlp import MLP, Net, ensemble, leaky_relu, net, orthogonal, sparse_uniform
from jaxrl.nets.recurrent import MemoryNet, gru_net, mlp_net, unrolled

__all__ = [
    "MLP",
    "MemoryNet",
    "Net",
    "ensemble",
    "gru_net",
    "leaky_relu",
    "mlp_net",
    "net",
    "orthogonal",
    "sparse_uniform",
    "unrolled",
]

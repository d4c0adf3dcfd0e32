"""Network modules: the only room that imports flax. Agents see `init` and `apply` and nothing else of it."""

from jaxrl.nets.conv import Conv, Impala, Trunk, TrunkMLP, side_after
from jaxrl.nets.convit import GPSA, ConViT, head_locality
from jaxrl.nets.denoising import Denoising
from jaxrl.nets.hyper import HyperNet, unit_columns
from jaxrl.nets.mlp import (
    MLP,
    Net,
    ResidualMLP,
    drawing,
    ensemble,
    leaky_relu,
    net,
    orthogonal,
    sparse_uniform,
    truncated,
    xavier,
)
from jaxrl.nets.moe import Gates, MoE, MoEMLP
from jaxrl.nets.norm import NormedMLP, NormedNet, NormedResidual, bounded_spectra, normed, normed_ensemble, unit_weights
from jaxrl.nets.precision import Policy, computing, in_precision
from jaxrl.nets.recurrent import MemoryNet, gru_net, mlp_net, unrolled
from jaxrl.nets.t2t import T2T, T2T_FULL, T2T_SMALL

__all__ = [
    "GPSA",
    "MLP",
    "T2T",
    "T2T_FULL",
    "T2T_SMALL",
    "ConViT",
    "Conv",
    "Denoising",
    "Gates",
    "HyperNet",
    "Impala",
    "MemoryNet",
    "MoE",
    "MoEMLP",
    "Net",
    "NormedMLP",
    "NormedNet",
    "NormedResidual",
    "Policy",
    "ResidualMLP",
    "Trunk",
    "TrunkMLP",
    "bounded_spectra",
    "computing",
    "drawing",
    "ensemble",
    "gru_net",
    "head_locality",
    "in_precision",
    "leaky_relu",
    "mlp_net",
    "net",
    "normed",
    "normed_ensemble",
    "orthogonal",
    "side_after",
    "sparse_uniform",
    "truncated",
    "unit_columns",
    "unit_weights",
    "unrolled",
    "xavier",
]

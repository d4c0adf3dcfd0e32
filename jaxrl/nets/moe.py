"""Mixtures of experts, as layers of a network: a few experts are all evaluated for each token and weighed; many have
slots, to which tokens travel, over the devices of a mesh where experts are spread over one.

Kim et al. 2021 (DeepSpeed-MoE's training) and Huang et al. 2025 (MENTOR); who goes where is in `equations.routing`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Int

from jaxrl.core import BadInput, PyTree, unknown
from jaxrl.equations.routing import chosen, expert_choice, slots, soft_routing, top_routing, weights
from jaxrl.nets.mlp import orthogonal

ROUTERS = ("top", "expert_choice", "soft")
SPILLS = ("position", "random", "probability")


class Gates(NamedTuple):
    """What a router said of its tokens: logits [G, S, E], mask (what was chosen) bool [G, S, E], dropped [G]."""

    logits: jax.Array
    mask: jax.Array
    dropped: jax.Array


class ExpertDense(nn.Module):
    """A dense layer of each expert: [E, S, D] -> [E, S, width]."""

    width: int
    kernel_init: Callable

    @nn.compact
    def __call__(self, x):
        experts, inputs = x.shape[0], x.shape[-1]
        each = lambda key, shape: jax.vmap(lambda one: self.kernel_init(one, shape[1:]))(
            jax.random.split(key, shape[0])
        )
        kernel = self.param("kernel", each, (experts, inputs, self.width))
        y = (
            jnp.einsum("esi,eio->eso", x, kernel)
            + self.param("bias", nn.initializers.zeros, (experts, self.width))[:, None]
        )
        self.sow("intermediates", "__call__", y)
        return y


class MoE(nn.Module):
    """A layer of experts, each with one hidden layer: [..., S, D] -> [..., S, outputs].

    The second-last axis are tokens that share slots; other axes are groups with slots of their own. A single token [D]
    is a group. What the router says is found in `Net.within` under 'gates', as `Gates`.

    Attributes:
        experts, hidden, outputs: how many experts, and the widths of each one's layers.
        k: experts of a token, where tokens choose.
        router: 'top', each token's k best; 'expert_choice'; or 'soft', with `least` slots of an expert.
        capacity: an expert's slots, relative to an even share of the tokens; None, for 'top' alone, evaluates all
            experts for each token, which suits few of them and drops nothing.
        least: slots of an expert at least.
        spill: see `top_routing`. 'random' is 'position' where nothing is drawn, as when acting.
        gate, dropout: width of a hidden layer of the router, 0 for none, and the share of it dropped while learning.
        noise: scale of the Gumbel noise on the logits by which experts are chosen while learning.
        residual: whether a dense layer stands beside the experts, weighed against them token by token.
        axis: name of a mesh axis over whose devices groups and experts are spread (within `shard_map`); None for none.
    """

    experts: int
    hidden: int
    outputs: int
    k: int = 1
    router: str = "top"
    capacity: float | None = None
    least: int = 4
    spill: str = "position"
    gate: int = 0
    dropout: float = 0.0
    noise: float = 0.0
    residual: bool = False
    axis: str | None = None
    kernel_init: Callable = orthogonal()

    def __post_init__(self):
        super().__post_init__()
        for name, value, known in (("router", self.router, ROUTERS), ("spill", self.spill, SPILLS)):
            if value not in known:
                raise unknown(name, value, known)
        if not 1 <= self.k <= self.experts:
            raise BadInput(f"k is {self.k} of {self.experts} experts: it must lie between 1 and their number.")
        if self.capacity is None and self.router != "top":
            raise BadInput(
                f"capacity is None, but the router '{self.router}' fills slots: give it a factor, such as 1."
            )
        if self.least < 1 or (self.capacity is not None and self.capacity <= 0):
            raise BadInput(f"capacity is {self.capacity} with at least {self.least} slots: an expert needs 1 or more.")

    @nn.compact
    def __call__(self, x):
        groups = x.reshape(-1, x.shape[-2] if x.ndim > 1 else 1, x.shape[-1])
        logits = self.router_logits(groups.astype(jnp.float32))
        y, mask, dropped = (self.everywhere if self.capacity is None else self.slotted)(groups, logits)
        if self.router == "soft":  # of an expert's slots together
            logits = jax.nn.logsumexp(logits.reshape(*mask.shape, self.least), axis=-1)
        self.sow("gates", "gates", Gates(logits, mask, dropped))
        if self.residual:
            share, within = nn.softmax(self.plain(2, "share")(groups)), nn.relu(self.plain(self.hidden, "in")(groups))
            y = share[..., :1] * y + share[..., 1:] * self.plain(self.outputs, "out")(within)
        return y.reshape(*x.shape[:-1], self.outputs)

    def plain(self, width: int, name: str) -> nn.Dense:
        return nn.Dense(width, kernel_init=self.kernel_init, name=name)

    def router_logits(self, groups: jax.Array) -> jax.Array:
        """[G, S, E], or [G, S, E * slots] of the soft router."""
        if self.gate:
            groups = nn.relu(self.plain(self.gate, "gate_in")(groups))
            groups = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(groups)
        return self.plain(self.experts * (self.least if self.router == "soft" else 1), "gate_out")(groups)

    def choice(self, logits: jax.Array) -> jax.Array:
        """What each token chooses, bool [G, S, E]."""
        if self.noise and self.has_rng("dropout"):
            logits = logits + self.noise * jax.random.gumbel(self.make_rng("dropout"), logits.shape)
        return chosen(logits, self.k)

    def bank(self, x: jax.Array) -> jax.Array:
        """The experts at [E, S, D]."""
        within = nn.relu(ExpertDense(self.hidden, self.kernel_init, name="experts_in")(x))
        return ExpertDense(self.outputs, self.kernel_init, name="experts_out")(within)

    def everywhere(self, groups: jax.Array, logits: jax.Array):
        """All experts at every token, and the weighted sum of those that it chose."""
        mask, tokens = self.choice(logits), groups.reshape(-1, groups.shape[-1])
        each = self.bank(jnp.broadcast_to(tokens, (self.experts, *tokens.shape)))
        share = weights(nn.softmax(logits), mask).reshape(-1, self.experts)
        y = jnp.einsum("se,eso->so", share, each).reshape(*groups.shape[:-1], self.outputs)
        return y, mask, jnp.zeros(groups.shape[0])

    def slotted(self, groups: jax.Array, logits: jax.Array):
        """Tokens into slots, over the mesh to where their experts are, and back."""
        tokens = groups.shape[1]
        capacity = slots(tokens, self.experts, self.k, self.capacity, self.least)
        if self.router == "soft":
            split = logits.reshape(*logits.shape[:2], self.experts, self.least)
            mask, routing = jnp.ones(split.shape[:-1], bool), jax.vmap(soft_routing)(split)
        elif self.router == "expert_choice":
            routing = jax.vmap(partial(expert_choice, capacity=capacity))(nn.softmax(logits))
            mask = routing.dispatch.any(axis=-1)
        else:
            mask, drawing = self.choice(logits), self.spill == "random" and self.has_rng("dropout")
            keys = jax.random.split(self.make_rng("dropout"), logits.shape[0]) if drawing else None
            spill = "position" if self.spill == "random" and not drawing else self.spill
            route = lambda probs, mask, key: top_routing(probs, mask, capacity, spill, key)
            routing = jax.vmap(route, (0, 0, None if keys is None else 0))(nn.softmax(logits), mask, keys)
        sent = jnp.einsum("gsec,gsd->egcd", routing.dispatch, groups)
        if self.axis is not None:  # [E, groups here] -> [experts here, groups of all devices]
            sent = jax.lax.all_to_all(sent, self.axis, split_axis=0, concat_axis=1, tiled=True)
        made = self.bank(sent.reshape(sent.shape[0], -1, sent.shape[-1]))
        made = made.reshape(*sent.shape[:-1], self.outputs)
        if self.axis is not None:
            made = jax.lax.all_to_all(made, self.axis, split_axis=1, concat_axis=0, tiled=True)
        return jnp.einsum("gsec,egco->gso", routing.combine, made), mask, routing.dropped


class MoEMLP(nn.Module):
    """An `MLP` whose hidden layers after the first are mixtures of experts; inputs are concatenated on the last axis.

    Huang et al. 2025 (MENTOR), with a ReLU behind every hidden layer and a quarter of its width within each expert.
    Where experts choose, or mix, each row is a group of its own: what a network says of it does not depend on others.

    Attributes:
        widths, outputs: hidden widths, and of the linear output layer.
        experts, how: of each mixture, and what else `MoE` is told.
    """

    widths: Sequence[int]
    outputs: int
    experts: int = 16
    how: Mapping[str, Any] = FrozenDict()
    kernel_init: Callable = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, *inputs):
        x = jnp.concatenate(inputs, axis=-1)
        for i, width in enumerate(self.widths):
            if i == 0:
                layer = nn.Dense(width, kernel_init=self.kernel_init)
            else:
                layer = MoE(self.experts, max(width // 4, 1), width, kernel_init=self.kernel_init, **self.how)
            alone = i > 0 and layer.router != "top"
            x = nn.relu(layer(x[..., None, :])[..., 0, :] if alone else layer(x))
        return nn.Dense(self.outputs, kernel_init=self.kernel_init)(x)


EXPERTS, ROUTER = ("experts_in", "experts_out"), "gate_out"


def expert_parallel(module: MoE, mesh: Mesh, axis: str = "expert") -> Callable[[PyTree, jax.Array], tuple[Any, Gates]]:
    """The layer with groups and experts spread over a mesh: `(parameters, x [G, S, D]) -> ([G, S, outputs], gates)`.

    Each device routes its own groups, all-to-all brings tokens to their experts and back, and gradients are what they
    are on one device.

    Raises:
        BadInput: experts that the devices do not divide, or no slots for tokens to travel in.
    """
    devices = mesh.shape[axis]
    if module.experts % devices:
        raise BadInput(f"experts is {module.experts}, which {devices} devices do not divide: choose a multiple.")
    if module.capacity is None:
        raise BadInput("capacity is None, and tokens travel in slots: give it a factor, such as 1.")
    spread = module.clone(axis=axis)

    def here(parameters, groups):
        y, seen = spread.apply({"params": parameters}, groups, mutable=["gates"])
        gates: Any = seen["gates"]["gates"]
        return y, gates[0]

    def apply(parameters, groups):
        of = {name: PartitionSpec(axis) if name in EXPERTS else PartitionSpec() for name in parameters}
        own = PartitionSpec(axis)
        return jax.shard_map(here, mesh=mesh, in_specs=(of, own), out_specs=(own, own))(parameters, groups)

    return apply


# -------------------------------------------------------------------------------------------------------- surgery


def pruned(parameters: PyTree, keep: Int[Array, "n"]) -> PyTree:
    """The parameters of a MoE with the experts `keep` alone, such as those that are used most.

    Kim et al. 2021, section 4. The router loses the others' logits: the rest share their probability.

    Raises:
        BadInput: a soft router, whose logits are its slots'.
    """
    if parameters[ROUTER]["bias"].shape[-1] != parameters[EXPERTS[0]]["bias"].shape[0]:
        raise BadInput("a soft router has logits for slots, not for experts: prune one that chooses.")
    kept = {name: jax.tree.map(lambda x: x[keep], parameters[name]) for name in EXPERTS}
    return {**parameters, **kept, ROUTER: jax.tree.map(lambda x: x[..., keep], parameters[ROUTER])}


def aggregated(first: PyTree, second: PyTree) -> PyTree:
    """The parameters of a MoE with the experts of both, a start for one of twice as many  (Kim et al. 2021, section 4).

    The routers' logits stand side by side; what is no expert's and not theirs is the first's.
    """
    side = lambda axis: lambda a, b: jnp.concatenate([a, b], axis=axis)
    both = {name: jax.tree.map(side(0), first[name], second[name]) for name in EXPERTS}
    return {**first, **both, ROUTER: jax.tree.map(side(-1), first[ROUTER], second[ROUTER])}

"""DR.Q: MR.Q whose codes also tell each other apart, and whose replay forgets (code of its authors, 2026).

A predicted code must find its own target among the batch's (InfoNCE) in place of predicting the end; a transition's
priority fades with its age; values are not scaled; the encoder is wider and learns faster. Deviations: MR.Q's; a
window's part behind its end is left out row by row, where the authors' code weighs whole steps by their share of it.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxrl.agents import mrq
from jaxrl.core import Agent, Recipe, Specs
from jaxrl.equations.contrastive import info_nce

TEMPERATURE = 0.1


@dataclass(frozen=True)
class Config(mrq.Config):
    """MR.Q's numbers, as DR.Q has them."""

    widths: tuple[int, int] = (750, 512)
    encoder_lr: float = 3e-4
    decay: tuple[float, float] = (0.01, 0.01)
    clip: float | None = None
    scaled: bool = False
    saturation: float = 0.0
    fade: tuple[float, float] | None = (0.9999, 0.1)


def contrast(frozen, predicted, guess, now) -> dict[str, jax.Array]:
    """-log of the softmax share of each row's own target among all of the batch, by the cosine (van den Oord 2018)."""
    unit = lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-8)
    logits = unit(predicted) @ unit(now["target"]).T / TEMPERATURE
    return {"contrast": info_nce(logits)}


def build(specs: Specs, config: Config) -> Agent:
    """The agent for an environment of these specs. Raises BadInput as `mrq` does."""
    return mrq.build(specs, config, contrast)


def recipe(specs: Specs, config: Config) -> Recipe:
    return mrq.recipe(specs, config, build)

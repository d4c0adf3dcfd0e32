"""The forces that contacts exert on bodies, which Gymnasium shows to the ant and the humanoid."""

import jax

from envs.control.physics import mjx


def forces(x: mjx.Model, data: mjx.Data) -> jax.Array:
    """Torque then force on each body about the whole body's centre of mass, in the world's axes: N m, N [bodies, 6].

    What else `rne_postconstraint` computes is not used, so that XLA drops it.
    """
    return mjx.rne_postconstraint(x, data)._impl.cfrc_ext

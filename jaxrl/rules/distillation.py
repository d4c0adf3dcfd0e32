"""A network that learns to say what another says."""

from jaxrl.core import Loss, mean
from jaxrl.nets import Net


def distilled(student: Net, teacher: Net, learns: str, knows: str, field: str = "obs") -> Loss:
    """The squared difference of what part `learns` of the student and part `knows` of the teacher say of a batch.

    For a smaller network in place of a mixture of experts, say (Kim et al. 2021, section 4), or after `moe.pruned`.
    Outputs are what the networks put out: of a policy its mean before the tanh, of a classifier its logits.
    """

    def loss(live, frozen, batch, key):
        said = student.apply(live[learns], batch[field])
        error = ((said - teacher.apply(frozen[knows], batch[field])) ** 2).reshape(said.shape[0], -1).mean(axis=1)
        return mean(error, batch), {"apart": error}

    return loss

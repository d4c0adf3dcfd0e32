"""InfoNCE against the logarithm of a share, in NumPy."""

import jax
import numpy as np
from numpy.testing import assert_allclose

from jaxrl.equations import contrastive
from tests.pinned import taking_numpy

info_nce = taking_numpy(contrastive.info_nce)


def test_each_row_has_to_tell_its_own_target():
    logits = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert_allclose(info_nce(logits), [-np.log(share[i, i]) for i in range(4)], rtol=1e-5)
    slope = jax.grad(lambda x: info_nce(x).sum())(logits)
    assert_allclose(slope, share - np.eye(4), rtol=1e-4, atol=1e-6)

"""Distillation: the squared difference, whom it moves, and the mask of a batch."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose

from jaxrl.nets import MLP, net
from jaxrl.rules.distillation import distilled

OBS = jax.ShapeDtypeStruct((3,), jnp.float32)


def test_the_student_learns_what_the_teacher_says():
    student, teacher = net(MLP((4,), 2), OBS), net(MLP((5, 5), 2), OBS)
    parts = {"small": student.init(jax.random.key(0)), "large": teacher.init(jax.random.key(1))}
    seen = jax.random.normal(jax.random.key(2), (4, 3))
    batch = {"obs": -seen, "picture": seen, "weight": jnp.float32([1, 0, 2, 1])}
    loss = distilled(student, teacher, "small", "large", "picture")
    (value, metrics), slope = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(parts, parts, batch, None)
    gap = np.asarray(student.apply(parts["small"], seen) - teacher.apply(parts["large"], seen))
    error = (gap**2).mean(axis=1)
    assert_allclose(metrics["apart"], error, rtol=1e-5)
    assert_allclose(value, (error * [1, 0, 2, 1]).sum() / 3, rtol=1e-5)
    moved = lambda tree: any(leaf.any() for leaf in jax.tree.leaves(tree))
    assert moved(slope[0]["small"]) and not moved(slope[0]["large"]) and not moved(slope[1]["small"])
    plain = distilled(student, teacher, "small", "large")(parts, parts, batch, None)[1]["apart"]
    gap = np.asarray(student.apply(parts["small"], -seen) - teacher.apply(parts["large"], -seen))
    assert_allclose(plain, (gap**2).mean(axis=1), rtol=1e-5)

"""Test set-up: CPU, a persistent compile cache, shapes checked by jaxtyping and beartype."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MUJOCO_GL", "disabled")
CACHE = os.environ.setdefault("JAXRL_CACHE", str(Path(__file__).parent.parent / ".cache" / "jax"))

import jax  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

install_import_hook("jaxrl.equations", "beartype.beartype")

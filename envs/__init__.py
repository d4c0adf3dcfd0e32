"""Environments for jaxrl. `make(id)` is the way in; nothing here imports jax before it is needed."""

from envs.registry import check, check_env, default_repeat, make, names

__all__ = ["check", "check_env", "default_repeat", "make", "names"]

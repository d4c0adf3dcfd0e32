"""Settings of the process: of jax, of the cache of compiled programs, of numbers on the command line."""

import os
import time

import jax
import pytest

from experiments import cli, train
from jaxrl.core import BadInput
from jaxrl.run import Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_enable_x64", True),
        ("jax_disable_jit", True),
        ("jax_debug_nans", True),
        ("jax_numpy_dtype_promotion", "strict"),
        ("jax_numpy_rank_promotion", "raise"),
        ("jax_numpy_rank_promotion", "warn"),
        ("jax_transfer_guard", "disallow"),
        ("jax_transfer_guard", "log"),
    ],
)
def test_settings_of_jax_that_do_not_suit_are_named(name, value):
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        with pytest.raises(BadInput, match=f"{name.upper()} is {value}, but .*unset it"):
            cli.platform_settings()
    finally:
        jax.config.update(name, before)
    cli.platform_settings()


@pytest.mark.parametrize("error", [RuntimeError("Unable to initialize backend 'tpu'"), AssertionError()])
def test_an_absent_platform_is_named(monkeypatch, error):
    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    with pytest.raises(BadInput, match=r"JAX_PLATFORMS is tpu, which is not here .*name cpu"):
        cli.platform_settings()


@pytest.fixture
def configured(monkeypatch):
    """What `compile_cache` sets, without setting it."""
    found = {}
    monkeypatch.setattr(jax.config, "update", lambda name, value: found.__setitem__(name, value))
    for name in ("JAXRL_CACHE", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    return found


def test_the_cache_is_where_jax_is_told(configured, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "theirs"))
    cli.compile_cache()
    assert configured["jax_compilation_cache_dir"] == str(tmp_path / "theirs")
    monkeypatch.setenv("JAXRL_CACHE", str(tmp_path / "ours"))
    cli.compile_cache()
    assert configured["jax_compilation_cache_dir"] == str(tmp_path / "ours")


def test_without_a_home_directory_nothing_is_kept_and_that_is_said(configured, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cli.Path, "home", lambda: tmp_path / "file")
    cli.compile_cache()
    assert "jax_compilation_cache_dir" not in configured
    assert "JAXRL_CACHE can name a folder" in capsys.readouterr().err

    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(cli.Path, "home", nowhere)
    cli.compile_cache()
    assert "Could not determine home directory" in capsys.readouterr().err


def test_the_cache_is_bounded_by_what_was_read_least_recently(tmp_path):
    for i in range(10):
        (tmp_path / f"p{i}-cache").write_bytes(b"x" * 100)
        os.utime(tmp_path / f"p{i}-cache", (time.time() - 1000 + i, time.time() - 2000))
    (tmp_path / "notes.txt").write_bytes(b"x" * 10_000)
    cli.prune(tmp_path, 1000)
    assert len(list(tmp_path.glob("*-cache"))) == 10  # full, and not above
    cli.prune(tmp_path, 900)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", *(f"p{i}-cache" for i in range(4, 10))]


def test_folders_of_others_are_not_pruned(configured, monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "MOST", 10)
    (tmp_path / "p-cache").write_bytes(b"x" * 100)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    cli.compile_cache()
    assert (tmp_path / "p-cache").exists()
    monkeypatch.setenv("JAXRL_CACHE", str(tmp_path))
    cli.compile_cache()
    assert not (tmp_path / "p-cache").exists()


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--agent.lr", "inf"], "agent.lr is inf; give a finite number"),
        (["--agent.target-entropy", "nan"], "agent.target_entropy is nan"),
        (["--agent", "synther", "--agent.synther.model.churn", "inf"], "agent.synther.model.churn is inf"),
        (["--agent", "fast_td3", "--agent.support", "-inf", "10"], r"agent.support is \(-inf, 10.0\)"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(args, sentence):
    options, _ = train.parse(args)
    with pytest.raises(BadInput, match=sentence):
        train.finite(options.agent)


@pytest.mark.parametrize("seed", [2**32, 2**63, 2**200])
def test_seeds_beyond_32_bits_are_refused(seed):
    with pytest.raises(BadInput, match=f"seed is {seed} with 1 seeds; all must be below"):
        Settings(seed=seed)


def test_seeds_that_count_on_beyond_32_bits_are_refused():
    assert Settings(seed=2**32 - 3, seeds=3).seed == 2**32 - 3
    with pytest.raises(BadInput, match="with 4 seeds"):
        Settings(seed=2**32 - 3, seeds=4)
    with pytest.raises(BadInput, match="saving is inf; it must be at least 0 and finite"):
        Settings(saving=float("inf"))

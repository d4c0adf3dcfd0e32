"""What a source costs: bytes counted, said in units, and refused where they do not fit."""

import os

import jax
import jax.numpy as jnp
import pytest

from jaxrl.core import BadInput
from jaxrl.sources import budget, generated

EXAMPLE = {
    name: jax.ShapeDtypeStruct((1, 1, 5), jnp.float32) for name in ("obs", "next_obs", "action", "reward", "discount")
}


def test_bytes_are_counted_by_size_and_item():
    tree = {"a": jnp.zeros((3, 4), jnp.float32), "b": jax.ShapeDtypeStruct((5,), jnp.uint8)}
    assert budget.footprint(tree) == 3 * 4 * 4 + 5


@pytest.mark.parametrize(
    "size, words",
    [(0, "0 B"), (999, "999 B"), (999.94, "1000 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"),
     (34_000_000, "34.0 MB"), (2.5e9, "2.5 GB"), (7e12, "7.0 TB"), (7e15, "7000.0 TB")],
)  # fmt: skip
def test_units_that_people_read(size, words):
    assert budget.human(size) == words


def test_a_report_is_of_one_seed_and_of_all():
    source = generated(10, 2)
    # 5 fields of 5 float32 in 10 rows, and three counters.
    assert budget.report(source, EXAMPLE) == "The source takes 1.0 kB (1,012 bytes a seed, 1 seed)."
    assert budget.report(source, EXAMPLE, 3) == "The source takes 3.0 kB (1,012 bytes a seed, 3 seeds)."


@pytest.mark.parametrize("size, limit, refused", [(100, 100, False), (101, 100, True), (1, 0, True)])
def test_a_budget_is_met_to_the_byte(size, limit, refused):
    if not refused:
        return budget.require(size, limit, "a replay")
    with pytest.raises(BadInput, match=f"a replay needs {size} B .* the budget of {limit} B"):
        budget.require(size, limit, "a replay")


def test_half_of_what_is_free_may_be_taken(monkeypatch):
    monkeypatch.setattr(budget, "available", lambda: 2001)
    budget.require(1000, None, "a replay")
    with pytest.raises(BadInput, match=r"half of the 2.0 kB that are free"):
        budget.require(1001, None, "a replay")
    monkeypatch.setattr(budget, "available", lambda: None)
    budget.require(10**18, None, "a replay")


def test_what_is_free_is_what_the_machine_says(tmp_path, monkeypatch):
    said = tmp_path / "meminfo"
    said.write_text("MemTotal: 9 kB\nMemAvailable:     1234 kB\n")
    found = budget.available(str(said))
    assert found is not None and found <= 1234 * 1024
    pages = {"SC_AVPHYS_PAGES": 10, "SC_PHYS_PAGES": 20, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    assert budget.available(str(tmp_path / "none")) == 40960
    monkeypatch.setattr(os, "sysconf_names", {"SC_PHYS_PAGES": 0})
    assert budget.available(str(tmp_path / "none")) == 81920


def test_an_accelerator_tells_what_it_has_left(monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 1000, "bytes_in_use": 300}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert budget.available() == 700

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


def files(root, contents):
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return str(root)


V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("contents", "left"),
    [
        ({}, None),
        ({f"{V2}/memory.max": "1000\n", f"{V2}/memory.current": "300\n"}, 700),
        ({f"{V2}/memory.max": "max\n", f"{V2}/memory.current": "300\n"}, None),
        ({f"{V2}/memory.max": "1000\n"}, None),
        # A cache of files gives way, whatever else the statistics say.
        ({f"{V2}/memory.max": "1000", f"{V2}/memory.current": "900",
          f"{V2}/memory.stat": "anon 100\ninactive_file 800\n"}, 900),
        ({f"{V2}/memory.max": "1000", f"{V2}/memory.current": "1200"}, 0),
        # A job's group, and a tighter one around it.
        ({"proc/self/cgroup": "0::/slurm/job/step\n", f"{V2}/slurm/job/memory.max": "500",
          f"{V2}/slurm/job/memory.current": "100", f"{V2}/slurm/memory.max": "350",
          f"{V2}/slurm/memory.current": "200"}, 150),
        ({"proc/self/cgroup": "3:cpu:/x\n4:hugetlb,memory:/docker/a\n0::/\n",
          f"{V1}/docker/a/memory.limit_in_bytes": "1000", f"{V1}/docker/a/memory.usage_in_bytes": "600",
          f"{V1}/docker/a/memory.stat": "total_inactive_file 50\n"}, 450),
        # Within the container its own group is the top.
        ({"proc/self/cgroup": "4:memory:/docker/a\n", f"{V1}/memory.limit_in_bytes": "1000",
          f"{V1}/memory.usage_in_bytes": "600"}, 400),
    ],
    ids=["none", "version 2", "no limit", "no use", "a cache", "beyond", "a job", "version 1", "in a container"],
)  # fmt: skip
def test_a_container_tells_what_it_leaves(tmp_path, contents, left):
    assert budget.container(files(tmp_path, contents)) == left


def test_the_least_of_machine_and_container_counts(tmp_path):
    root = files(tmp_path, {f"{V2}/memory.max": "5000", f"{V2}/memory.current": "0", "info": "MemAvailable: 4 kB\n"})
    assert budget.available(str(tmp_path / "info"), root) == 4096
    files(tmp_path, {f"{V2}/memory.max": "3000"})
    assert budget.available(str(tmp_path / "info"), root) == 3000

"""Test set-up: CPU, a persistent compile cache, shapes checked by jaxtyping and beartype; and a record of what passed
where JAXRL_RECORD names a file for it (`make check-envs`)."""

import json
import os
from importlib.util import find_spec
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

# On Python 3.13 dm_control cannot be installed, as labmaze has no wheel: what is held against it is left out.
BESIDE_DM_CONTROL = ["test_control.py", "test_control_suite.py", "reference/test_control_a.py"]
BESIDE_DM_CONTROL += ["reference/test_control_b.py", "reference/test_adapters.py"]
collect_ignore = BESIDE_DM_CONTROL if find_spec("dm_control") is None else []


def pytest_report_header():
    return [f"dm_control is not installed: left out are {', '.join(collect_ignore)}"] if collect_ignore else []


RECORD = os.environ.get("JAXRL_RECORD")
_rows: dict[str, dict] = {}


def pytest_runtest_logreport(report):
    """A row for each test that ran: its outcome, seconds, and what it measured (`record_property`)."""
    if report.when == "call" or report.outcome == "failed":
        row = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 1)}
        _rows[report.nodeid] = {**row, **dict(report.user_properties)}


def pytest_sessionfinish(session):
    """The rows take the places of older ones of the same tests."""
    if RECORD is None or not _rows or hasattr(session.config, "workerinput"):
        return
    from experiments.evidence.runner import provenance

    made = {name: value for name, value in provenance().items() if name != "versions"}
    path = Path(RECORD)
    rows = {row["test"]: row for row in json.loads(path.read_text())} if path.exists() else {}
    rows |= {name: {**row, **made} for name, row in _rows.items()}
    path.write_text(json.dumps([rows[name] for name in sorted(rows)], indent=1) + "\n")

"""Two kills and ten flips; `make faults` does twenty and fifty."""

import random

import pytest

from experiments import faults
from experiments.cli import compile_cache


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("faults")
        patch.setenv("JAXRL_CACHE", str(folder / "cache"))
        yield faults.undisturbed(folder)
    compile_cache()  # the flips' runs share this process: back to the cache of the other tests


def test_killed_runs_end_bit_equal(undisturbed, tmp_path):
    _, expected, seconds = undisturbed
    before, during = faults.kills(2, tmp_path, random.Random(0), expected, seconds)
    assert before["killed"] and before["checkpoints"] == 0 and before["bit_equal"]
    assert during["killed"] and during["bit_equal"]


def test_a_kill_that_comes_too_late_is_no_trial(monkeypatch, tmp_path):
    late = {"killed": False, "seconds": 1.0, "checkpoints": 3, "while_saving": False}

    def ended(run, moment):
        run.mkdir()
        return late

    monkeypatch.setattr(faults, "kill", ended)
    with pytest.raises(RuntimeError, match="ended before it could be killed"):
        faults.kills(1, tmp_path, random.Random(0), {}, 1.0)


def test_flipped_bytes_are_detected_or_harmless(undisturbed, tmp_path):
    finished, expected, _ = undisturbed
    trials = faults.flips(10, finished, tmp_path, random.Random(1), expected)
    assert len(trials) == 10 and {trial["outcome"] for trial in trials} == {"detected", "harmless"}


def test_a_silent_change_would_be_noticed(undisturbed, tmp_path, monkeypatch):
    finished, expected, _ = undisturbed
    trials = faults.flips(1, finished, tmp_path, random.Random(1), {**expected, "parameters_sha256": "another"})
    assert trials[0]["outcome"] == "silent"

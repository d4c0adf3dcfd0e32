"""The bench: ratios, absent peers, records and the protocol between the processes. Nothing here depends on a clock."""

import json
import sys
from pathlib import Path

import pytest

from experiments.bench import __main__ as bench
from experiments.bench import measure
from experiments.bench.cases import CASES, Case, Pair, quick
from experiments.bench.sides import ours
from experiments.bench.worker import Side

HERE = Path(sys.executable)

TOY = """
from experiments.bench.worker import Side

def counting(settings):
    print("a greeting on stdout")
    state = {"work": 0}
    def window():
        state["work"] += sum(range(20_000))
    return Side(settings["units"], lambda: None, window, lambda: settings.get("finite", True), settings.get("count"))
"""


CHECKOUT = """
import navix  # for another environment: nothing here uses it
import jax.numpy as jnp
from flax.training.train_state import TrainState

def make_train(config):
    def train(key):
        learner = TrainState(0, None, {"w": jnp.ones(3)}, None, None)
        return {"runner_state": (learner,), "metrics": jnp.zeros(config["NUM_STEPS"])}
    return train
"""
PURE = {"env": "CartPole-v1", "activation": "tanh", "lr": 1e-3, "epochs": 1, "minibatches": 1}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Sides of a made-up library, run by this interpreter."""
    (tmp_path / "toy_side.py").write_text(TOY)
    (tmp_path / "lacking_side.py").write_text("import a_library_that_nobody_has\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(measure, "interpreter", lambda target: HERE)


def known(**changes):
    return {"each": [200.0, 220.0, 240.0], "versions": {"jax": "0"}, "parameters": 10, "seconds": {}, **changes}


def test_ratios_pair_the_turns_and_not_the_extremes():
    found = measure.ratios([10.0, 30.0, 20.0], [5.0, 10.0, 20.0])
    assert found == {"ratio_low": 1.0, "ratio_median": 2.0, "ratio_high": 3.0}


def test_ratios_need_as_many_turns_of_both():
    with pytest.raises(ValueError):
        measure.ratios([1.0, 2.0], [1.0])


@pytest.mark.parametrize(("unit", "median"), [("steps a core-second", 2.0), ("core-seconds", 0.5), ("bytes", 0.5)])
def test_a_ratio_above_one_is_always_ours(unit, median):
    found = measure.record("n", unit, known(each=[2.0]), known(each=[1.0]), "", None, "ratio")
    assert found["ratio_median"] == median
    assert found["met"] is None


@pytest.mark.parametrize(
    ("goal", "goal_of", "met"), [(2.2, "ratio", True), (2.3, "ratio", False), (220, "ours", True), (219, "ours", False)]
)
def test_goals_bind_the_median(goal, goal_of, met):
    peer = known(each=[100.0, 100.0, 100.0])
    assert measure.record("n", "steps", known(), peer, "", goal, goal_of)["met"] is met


def test_an_absent_peer_gives_no_ratio_and_no_verdict_but_our_own_figure():
    found = measure.record("n", "steps", known(), None, "", 1.0, "ratio")
    assert found["ours"] == 220
    assert [found[name] for name in ("peer", "ratio_low", "ratio_median", "ratio_high", "met")] == [None] * 5
    # What binds our own figure alone is judged all the same.
    assert measure.record("n", "core-seconds", known(), None, "", 6.0, "ours")["met"] is False


def test_records_have_the_fields_that_the_table_is_made_from(tmp_path):
    found = measure.record("a-b", "steps", known(), known(), "", 1.0, "ratio") | measure.circumstances(
        ["python", "x y"]
    )
    needed = "name ours peer ratio_low ratio_median ratio_high goal command commit device versions unit"
    assert set(needed.split()) <= set(found)
    path = measure.write(tmp_path / "new", found)
    assert path.name == "a-b.json"
    assert json.loads(path.read_text()) == found
    assert found["command"] == "python 'x y'"


@pytest.mark.parametrize(("what", "value"), [("parameters", 6), ("updates", 0.5)])
def test_different_networks_and_update_rates_are_refused_by_name(what, value):
    one, none = {"parameters": 5, "updates": 1.0}, {"parameters": None, "updates": None}
    measure.equal_work({"ours": one, "peer": one, "stepping": none})
    with pytest.raises(RuntimeError, match=f"{what}.*'peer': {value}"):
        measure.equal_work({"ours": one, "peer": {**one, what: value}})


def test_workers_take_turns_and_what_libraries_print_is_not_an_answer(toy):
    sides = {name: ("toy_side:counting", {"units": 7, "count": 3}) for name in ("ours", "peer")}
    found, absent = measure.rates(sides, repeats=2)
    assert not absent
    assert found["ours"]["parameters"] == 3
    assert [len(found[name]["each"]) for name in sides] == [2, 2]
    assert all(rate > 0 for rate in found["peer"]["each"])


def test_a_missing_library_and_a_missing_interpreter_are_absent(toy, monkeypatch, tmp_path):
    workers, absent = measure.start({"peer": ("lacking_side:anything", {})})
    assert not workers
    assert "a_library_that_nobody_has" in absent["peer"]
    monkeypatch.setattr(measure, "interpreter", lambda target: tmp_path / ".venv-bench/bin/python")
    assert "make bench-peers" in measure.start({"peer": ("toy_side:counting", {})})[1]["peer"]


@pytest.mark.parametrize(("library", "home"), [("sb3", "peers"), ("purejaxrl", "peers"), ("brax", "ours")])
def test_peers_have_an_environment_of_their_own(library, home):
    assert measure.interpreter(f"experiments.bench.sides.{library}:ppo") == measure.PYTHON[home]


def test_a_checkout_is_named_by_a_variable_and_absent_without(toy, monkeypatch, tmp_path):
    target = "experiments.bench.sides.purejaxrl:ppo", PURE | {"num_envs": 2, "unroll": 4, "units": 16}
    monkeypatch.delenv("PUREJAXRL", raising=False)
    assert "PUREJAXRL" in measure.start({"peer": target})[1]["peer"]
    (tmp_path / "purejaxrl").mkdir()
    (tmp_path / "purejaxrl/ppo.py").write_text(CHECKOUT)
    monkeypatch.setenv("PUREJAXRL", str(tmp_path))
    found, absent = measure.rates({"peer": target}, repeats=1)
    assert not absent
    assert [found["peer"][name] for name in ("units", "parameters", "updates", "finite")] == [16, 3, 1 / 8, True]
    assert found["peer"]["versions"]["purejaxrl"] == "unknown"  # what is no repository has no commit


def test_an_update_as_the_unit_whatever_its_ratio_to_steps(monkeypatch):
    monkeypatch.setattr(ours, "whole", lambda settings: Side(75, None, None, None, 10, 8.0))
    side = ours.updating({})
    assert (side.units, side.updates) == (600, 1.0)


def test_states_that_are_not_finite_void_the_rate(toy):
    with pytest.raises(RuntimeError, match="not finite"):
        measure.rates({"ours": ("toy_side:counting", {"units": 1, "finite": False})}, repeats=1)


def test_an_unknown_case_is_refused_with_the_names(capsys):
    with pytest.raises(SystemExit) as stopped:
        bench.main(["sacc"])
    assert stopped.value.code == 2
    assert "there are sac, ppo" in capsys.readouterr().err


def test_every_pair_names_sides_of_its_case_and_records_have_unique_names():
    names = [pair.name for case in CASES.values() for pair in case.pairs]
    assert len(names) == len(set(names))
    for case in CASES.values():
        assert {pair.ours for pair in case.pairs} <= set(case.sides)
        if case.kind != "figures":
            # A goal that our own figure has to reach needs no peer.
            assert {pair.peer for pair in case.pairs if pair.goal_of != "ours"} <= set(case.sides)


def test_a_case_without_a_side_of_the_name_ours_is_run_by_the_names_that_it_has(toy):
    sides = {name: ("toy_side:counting", {"units": units}) for name, units in (("one", 7), ("eight", 56))}
    case = Case("updates a core-second", "", sides, (Pair("utd", "one", 0.0, ours="eight"),), repeats=1)
    (found,), _ = bench.run(case)
    assert found["met"]
    assert found["against"] == "one"


def test_quick_shortens_windows_but_never_below_their_least():
    short = quick(CASES["ppo"])
    _, settings = short.sides["sbx"]
    assert settings["units"] == 2 * 512
    assert short.repeats == 2

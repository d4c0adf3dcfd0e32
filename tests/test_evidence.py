"""The runner of claims: verdicts by hand, records, figures, refusals, and the tables made from records."""

import json
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import docs
from experiments.evidence import (
    AtLeast,
    Better,
    Claim,
    GreedyReturn,
    OnMostSeeds,
    Outcome,
    Scale,
    Trained,
    TrainingReturn,
    claims,
    overall,
)
from experiments.evidence import __main__ as command
from experiments.evidence.runner import judge_again, line, provenance, run
from experiments.evidence.training import bounded, late_mean, train
from jaxrl.core import Agent, BadInput, Box, Discrete, Env, Recipe, Source, Specs, TimeStep, first

WANTED = {
    *("paper", "claim", "verdict", "scale", "test_seeds", "tuning_seeds", "metric", "baseline", "treated", "effect"),
    *("low", "high", "environment", "steps", "command", "commit", "device", "versions", "wall_seconds"),
    "compile_seconds",
}


def fixed(level, spread=1.0):
    """An arm whose scores are known: level, level + spread, ... by seed, on a straight curve."""

    def arm(scale, seeds):
        scores = level + spread * np.arange(len(seeds), dtype=float)
        steps = np.linspace(0, scale.steps, scale.points + 1)[1:]
        return Outcome(scores, steps, scores[:, None] * steps / scale.steps, compile_seconds=0.25)

    return arm


def fake(**changes):
    settings = {
        "id": "p000",
        "claim": "Treatment helps.",
        "environment": "none",
        "metric": "score",
        "arms": {"plain": fixed(1.0), "treated": fixed(20.0), "aside": fixed(5.0)},
        "checks": (Better("treated", "plain"), AtLeast("treated", 15)),
        "scales": {"smoke": Scale(10, 2, 2), "cpu": Scale(100, 5, 4)},
        "paper": 0,
        "test_seeds": (0, 1, 2, 3, 4),
    }
    return Claim(**{**settings, **changes})


# -------------------------------------------------------------------------------------------------------- verdicts

FIVE = np.array([10.0, 11.0, 12.0, 13.0, 14.0])
TWELVE = np.array([10.0, *[11.0] * 3, *[12.0] * 4, *[13.0] * 3, 14.0])


@pytest.mark.parametrize(
    ("check", "scores", "verdict"),
    [
        (Better("a", "b"), {"a": FIVE, "b": FIVE - 9}, "supported"),
        (Better("a", "b"), {"a": FIVE, "b": FIVE}, "inconclusive"),
        (Better("a", "b"), {"a": FIVE - 9, "b": FIVE}, "not supported"),
        (Better("a", "b"), {"a": FIVE * 0, "b": FIVE * 0}, "not supported"),  # no difference, and no doubt about it
        (Better("a", "b", by=20), {"a": FIVE, "b": FIVE - 9}, "not supported"),
        (Better("a", "b", factor=3), {"a": FIVE * 3.1, "b": FIVE}, "inconclusive"),
        (Better("a", "b", factor=3), {"a": FIVE * 9, "b": FIVE}, "supported"),
        (Better("a", "b"), {"a": FIVE, "b": FIVE - 3}, "supported"),  # the difference is clear
        (Better("a", "b", apart=True), {"a": FIVE, "b": FIVE - 3}, "inconclusive"),  # but the intervals touch
        (AtLeast("a", 9.5), {"a": FIVE}, "supported"),
        (AtLeast("a", 12), {"a": FIVE}, "inconclusive"),
        (AtLeast("a", 14.5), {"a": FIVE}, "not supported"),
        (OnMostSeeds("a", 11, share=0.8), {"a": TWELVE}, "supported"),
        (OnMostSeeds("a", 11, share=0.8), {"a": FIVE}, "inconclusive"),  # four of five may be half of all
        (OnMostSeeds("a", 9, share=0.8), {"a": FIVE}, "inconclusive"),  # and so may five of five
        (OnMostSeeds("a", 13.5, share=0.8), {"a": TWELVE}, "not supported"),
        (OnMostSeeds("a", 11.5, share=0.8), {"a": TWELVE}, "inconclusive"),  # 8 of 12 reach it: below 0.8, perhaps
        (AtLeast("a", 9.5), {"a": FIVE[:1]}, "inconclusive"),  # one seed has no interval
        (Better("a", "b"), {"a": FIVE[:1], "b": FIVE[:1] - 9}, "inconclusive"),
    ],
)
def test_verdicts(check, scores, verdict):
    assert check.judge(scores).verdict == verdict


def test_effects_by_hand():
    found = Better("a", "b", factor=2).judge({"a": FIVE, "b": FIVE / 4})
    assert found.effect == 6 and found.low < 6 < found.high
    assert AtLeast("a", 10).judge({"a": FIVE}).effect == 2
    assert "at least 9 of 10 seeds (here 10)" in OnMostSeeds("a", 1).judge({"a": np.ones(10)}).check


def test_a_claim_is_as_good_as_its_worst_check():
    supported, unsure, failed = (Better("a", "b").judge({"a": FIVE, "b": FIVE - shift}) for shift in (9, 0, -9))
    assert overall((supported, supported)) == "supported"
    assert overall((supported, unsure)) == "inconclusive"
    assert overall((unsure, failed, supported)) == "not supported"


# --------------------------------------------------------------------------------------------------------- records


def test_a_record_holds_what_a_reader_needs(tmp_path):
    record = run(fake(), "cpu", out=tmp_path)
    assert json.loads((tmp_path / "p000-cpu.json").read_text()) == record
    assert set(record) >= WANTED
    assert record["verdict"] == "supported"
    assert record["effect"] == 19 and record["low"] < 19 < record["high"]
    assert record["treated"]["name"] == "treated" and record["treated"]["iqm"] == 22
    assert record["baseline"]["name"] == "plain" and record["baseline"]["iqm"] == 3
    assert record["arms"]["aside"]["scores"] == [5, 6, 7, 8, 9]
    curve = record["arms"]["aside"]["curve"]
    assert curve["steps"] == [25, 50, 75, 100] and curve["iqm"] == [1.75, 3.5, 5.25, 7.0]
    assert curve["low"][-1] == record["arms"]["aside"]["low"]
    assert record["compile_seconds"] == 0.75 and record["wall_seconds"] > 0
    assert record["command"] == "python -m experiments.evidence p000 --scale cpu"
    assert record["versions"]["jax"] == jax.__version__
    assert line(record).startswith("p000: supported (cpu, 5 test seeds). treated - plain > 0: effect 19 [")


def test_a_figure_lies_beside_the_record(tmp_path):
    run(fake(), "cpu", out=tmp_path)
    picture = (tmp_path / "p000-cpu.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5_000
    no_curves = {
        name: lambda scale, seeds: Outcome(np.arange(len(seeds), dtype=float)) for name in ("plain", "treated")
    }
    run(fake(arms=no_curves), "smoke", out=tmp_path)
    assert (tmp_path / "p000-smoke.png").exists()


def test_a_threshold_stands_in_for_the_baseline(tmp_path):
    record = run(fake(checks=(OnMostSeeds("treated", 21, share=0.8),)), "cpu", out=tmp_path)
    assert record["verdict"] == "inconclusive"  # four of five seeds
    assert record["baseline"] == {"name": "threshold", "iqm": 21}
    assert record["effect"] == 1


def test_scores_that_no_seed_changes_have_no_interval(tmp_path):
    same = lambda scale, seeds: Outcome(np.full(len(seeds), 3.0) + 1e-9 * np.arange(len(seeds)))
    record = run(fake(arms={"plain": same, "treated": fixed(20.0)}, checks=(AtLeast("plain", 2),)), "cpu", out=tmp_path)
    assert record["verdict"] == "supported" and record["arms"]["plain"]["low"] is None
    assert record["checks"][0]["low"] is None and "effect 1; 1 of 1" in line(record)


def test_a_record_is_judged_again_without_running_it(tmp_path):
    run(fake(), "cpu", out=tmp_path)
    path = tmp_path / "p000-cpu.json"
    before = json.loads(path.read_text())
    stern = fake(checks=(AtLeast("treated", 1000),), arms=dict.fromkeys(("plain", "treated", "aside")))
    after = judge_again(stern, path)
    assert after["verdict"] == "not supported" and after == json.loads(path.read_text())
    assert after["arms"] == before["arms"] and after["commit"] == before["commit"]
    with pytest.raises(BadInput, match="unknown arm in the record of p000 'other'"):
        judge_again(fake(arms={"other": None, "plain": None, "treated": None}), path)


def test_the_line_says_what_fails(tmp_path):
    record = run(fake(checks=(Better("treated", "plain"), AtLeast("treated", 1000))), "cpu", out=tmp_path)
    assert line(record).startswith("p000: not supported")
    assert "1 of 2 checks hold; not supported: treated >= 1000, effect -978 [" in line(record)


def test_missing_points_of_a_curve_are_null(tmp_path):
    hollow = lambda scale, seeds: Outcome(np.ones(len(seeds)), np.array([1, 2]), np.array([[np.nan, 1.0]] * len(seeds)))
    run(fake(arms={"plain": hollow, "treated": fixed(20.0)}), "cpu", out=tmp_path)
    assert json.loads((tmp_path / "p000-cpu.json").read_text())["arms"]["plain"]["curve"]["iqm"] == [None, 1.0]


def test_arms_that_are_done_are_kept(tmp_path):
    """A run broken off in its second arm goes on there; an arm of other settings, or without any, runs again."""
    calls = []

    class Counted(Trained):
        def __call__(self, scale, seeds):
            calls.append(self.agent)
            if self.environment == "broken":
                raise RuntimeError
            return fixed({"sac": 3.0, "td3": 22.0}[self.agent])(scale, seeds)

    arms = {name: Counted(agent, "fine", GreedyReturn()) for name, agent in (("plain", "sac"), ("treated", "td3"))}
    with pytest.raises(RuntimeError):
        run(fake(arms={**arms, "treated": replace(arms["treated"], environment="broken")}), "cpu", out=tmp_path)
    assert calls == ["sac", "td3"] and not (tmp_path / "p000-cpu.json").exists()
    record = run(fake(arms=arms), "cpu", out=tmp_path, keep=True)
    assert calls == ["sac", "td3", "td3"] and record["verdict"] == "supported"
    assert not (tmp_path / "p000-cpu.unfinished").exists()
    assert run(fake(arms=arms), "cpu", out=tmp_path, keep=True)["arms"] == record["arms"] and len(calls) == 3
    changed = {**arms, "plain": replace(arms["plain"], settings={"lr": 1.0})}
    run(fake(arms=changed), "cpu", out=tmp_path, keep=True)
    run(fake(arms=changed), "cpu", out=tmp_path)
    assert calls[3:] == ["sac", "sac", "td3"]


def test_tuning_runs_touch_no_test_seed(tmp_path):
    seen = []

    def arm(scale, seeds):
        seen.extend(seeds)
        return fixed(1.0)(scale, seeds)

    claim = fake(arms={"plain": arm, "treated": arm})
    record = run(claim, "cpu", tune=True, out=tmp_path)
    assert set(seen) <= set(claim.tuning_seeds) and record["test_seeds"] == []
    assert (tmp_path / "p000-cpu-tune.json").exists() and not (tmp_path / "p000-cpu.json").exists()
    seen.clear()
    run(claim, "cpu", out=tmp_path)
    assert set(seen) == set(claim.test_seeds)


def test_provenance_names_the_code():
    found = provenance()
    assert found["commit"] == "unknown" or len(found["commit"].removesuffix("+changes")) == 40
    assert found["versions"]["python"].startswith("3.") and found["device"]


# -------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tuning_seeds": (4, 5)}, "test seed 4 is also a tuning seed"),
        ({"scales": {"cpu": Scale(100, 6)}}, "scale cpu asks for 6 of the 5 test seeds"),
        ({"scales": {"cpu": Scale(100, 0)}}, "asks for 0"),
        ({"checks": (Better("treated", "plan"),)}, "unknown arm in a check of claim p000 'plan'.*Did you mean 'plain'"),
        ({"checks": ()}, "checks is empty"),
    ],
)
def test_claims_that_cannot_be_judged_are_refused(changes, sentence):
    with pytest.raises(BadInput, match=sentence):
        fake(**changes)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["p107"], "unknown claim 'p107'.*Did you mean 'p078'"),
        (["p017", "--scale", "gpuu"], "unknown scale 'gpuu'.*Did you mean 'gpu'"),
    ],
)
def test_unknown_names_are_one_sentence_and_exit_2(argv, sentence, capsys):
    assert command.main(argv) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert re.search(sentence, said.err)


def test_the_command_prints_one_verdict_line_a_claim(tmp_path, capsys, monkeypatch):
    known = {"p000": fake(), "short": fake(id="short", scales={"smoke": Scale(10, 2)})}
    monkeypatch.setattr(command, "claims", lambda: known)
    assert command.main(["--scale", "smoke", "--out", str(tmp_path)]) == 0
    assert [said.split(":")[0] for said in capsys.readouterr().out.splitlines()] == ["p000", "short"]
    assert command.main(["--scale", "cpu", "--out", str(tmp_path)]) == 0  # all that have such a scale
    assert [said.split(":")[0] for said in capsys.readouterr().out.splitlines()] == ["p000"]
    assert command.main(["short", "--scale", "cpu", "--out", str(tmp_path)]) == 2


def test_the_claims_of_the_house():
    known = claims()
    assert {"p017", "sac-cartpole-swingup", "ppo-cartpole", "dqn-cartpole"} <= set(known)
    for name, claim in known.items():
        assert claim.id == name and set(claim.scales) <= {"smoke", "cpu", "gpu"} and "smoke" in claim.scales
        assert not set(claim.test_seeds) & set(claim.tuning_seeds)


# ------------------------------------------------------------------------------------------------------- usual arms


def counter(limit=4):
    """Each step gives reward 1 to action 1; an episode is truncated after `limit` steps."""

    def reset(key):
        return jnp.int32(0), first(jnp.zeros(1))

    def step(t, action):
        return t + 1, TimeStep(jnp.zeros(1), action.astype(jnp.float32), jnp.bool_(False), t + 1 >= limit)

    return Env(reset, step, Specs(jax.ShapeDtypeStruct((1,), jnp.float32), Discrete(2), limit=limit), "counter")


def constant(action):
    """An agent that explores by action 0 and is greedy for another; it learns nothing."""

    def act(parts, memory, obs, ctx, explore):
        return jnp.where(explore, 0, action) + parts["zero"], memory, {}

    source = Source(lambda e: (), lambda s, t, ctx: s, lambda s, parts, key: {}, lambda s: jnp.int32(0))
    return Recipe(Agent(lambda key: {"zero": jnp.int32(0)}, act), source, num_envs=2, unroll=2)


@pytest.mark.parametrize("layout", ["vmap", "map"])
def test_training_by_the_one_loop(layout):
    outcome = train(counter(), constant(1), GreedyReturn(3), Scale(steps=50, seeds=2, points=3), (0, 1), layout)
    assert outcome.steps.tolist() == [16, 32, 48]  # whole ticks of 4 frames, and no more than asked for
    assert outcome.curve.tolist() == [[0.0] * 3] * 2  # exploring gives nothing
    assert outcome.scores.tolist() == [4.0, 4.0]  # greedy gives 1 a step
    assert outcome.compile_seconds > 0
    trained = train(counter(), constant(1), TrainingReturn(), Scale(steps=50, seeds=2, points=3), (0, 1), layout)
    assert trained.scores.tolist() == [0.0, 0.0]


def test_windows_are_averaged_by_episode():
    returns = np.array([[9.0, 9.0, 1.0, 4.0], [9.0, np.nan, np.nan, 6.0]])
    counts = np.array([[1.0, 1.0, 3.0, 1.0], [1.0, 0.0, 0.0, 2.0]])
    assert late_mean(returns, counts, 0.5, (7, 8)).tolist() == [1.75, 6.0]
    with pytest.raises(BadInput, match="seed 8 ended no episode"):
        late_mean(returns[:, :3], counts[:, :3], 0.5, (7, 8))


def test_a_scale_shorter_than_two_ticks_is_refused():
    with pytest.raises(BadInput, match="7 steps is shorter than two ticks of 4 frames"):
        train(counter(), constant(1), TrainingReturn(), Scale(steps=7, seeds=1), (0,), "vmap")


def test_continuous_actions_are_bounded():
    env = counter()
    wide = replace(env, specs=replace(env.specs, action=Box((1,), -2.0, 2.0)))
    assert bounded(env) is env
    assert bounded(wide).specs.action.low == -1.0


def test_settings_may_depend_on_the_scale():
    arm = Trained("dqn", "cartpole", TrainingReturn(), {"lr": -1.0, "warmup": lambda scale: scale.steps})
    with pytest.raises(BadInput, match="lr is -1"):
        arm(Scale(100, 1), (0,))
    late = replace(arm, settings={"warmup": lambda scale: -scale.steps})
    with pytest.raises(BadInput, match="warmup is -100"):
        late(Scale(100, 1), (0,))


# ---------------------------------------------------------------------------------------------------- tables in docs


@pytest.mark.parametrize("page", ["papers.md", "evidence.md", "performance.md", "environments.md"])
def test_committed_pages_are_what_the_records_say(page):
    assert (docs.DOCS / page).read_text() == docs.pages()[page], "run `make docs`"


def test_the_table_of_base_learners_is_what_the_records_say():
    of = lambda task: json.loads((docs.DOCS / "results" / "evidence" / f"base-{task}-cpu.json").read_text())["arms"]
    tasks = [of(task) for task in ("cheetah-run", "walker-walk", "finger-spin")]
    rows = re.findall(
        r"^\| (\w+) \| (.*) \| (.*) \| (.*) \| (0\.\d\d) \|$", (docs.DOCS / "base-learners.md").read_text(), re.M
    )
    assert {name for name, *_ in rows} == set(tasks[0])
    for name, *cells, share in rows:
        arms = [task[name] for task in tasks]
        bounds = ["" if arm["low"] is None else f" [{arm['low']:.0f}, {arm['high']:.0f}]" for arm in arms]
        assert cells == [f"{arm['iqm']:.0f}{told}" for arm, told in zip(arms, bounds)]
        best = [max(arm["iqm"] for arm in task.values()) for task in tasks]
        assert float(share) == pytest.approx(np.mean([arm["iqm"] / most for arm, most in zip(arms, best)]), abs=0.005)


def test_what_models_gave_is_what_the_records_say():
    text = (docs.DOCS / "learning-from-models.md").read_text()
    rows = re.findall(r"^\| (.*\(`.*) \| (.*) \| .* \|$", text, re.M)
    assert len(rows) == 14
    for about, found in rows:
        records = [docs.DOCS / "results" / "evidence" / f"{name}-cpu.json" for name in re.findall(r"`([\w-]+)`", about)]
        arms = [
            arm for path in records for arm in json.loads(path.read_text())["arms"].values() if arm["low"] is not None
        ]
        for three in re.findall(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]", found):
            digits = len(three[0].partition(".")[2])
            said = [tuple(f"{arm[key]:.{digits}f}" for key in ("iqm", "low", "high")) for arm in arms]
            assert three in said, (about, three)


def test_a_row_a_paper():
    listed = json.loads((docs.DOCS / "papers.json").read_text())
    assert [row["number"] for row in listed] == list(range(1, 108))
    text = (docs.DOCS / "papers.md").read_text()
    for row in listed:
        assert text.count(f"\n| {row['number']:03d} |") == 1
        assert (docs.DOCS.parent / row.get("module", "docs")).exists()


def test_papers_by_hand(tmp_path):
    listed = [
        {"number": 0, "short": "Zero", "title": "A | B", "form": "f", "family": "g", "module": "jaxrl/core.py"},
        {"number": 1, "short": "One", "title": "C", "form": "f", "family": "g"},
        {"number": 2, "short": "Two", "title": "D", "form": "f", "family": "g", "module": "jaxrl/loop.py"},
    ]
    claim = replace(fake(), scales={name: Scale(10, 5) for name in ("smoke", "cpu", "gpu")})
    assert docs.records(tmp_path) == []
    run(claim, "smoke", out=tmp_path)
    run(claim, "cpu", tune=True, out=tmp_path)
    assert docs.records(tmp_path) == []
    run(claim, "cpu", out=tmp_path)
    run(replace(claim, id="ours", paper=None), "cpu", out=tmp_path)
    table = docs.papers(listed, docs.records(tmp_path))
    verdict = "[supported](results/evidence/p000-cpu.json) (cpu, 5 seeds)"
    assert f"\n| 000 | Zero | A \\| B | f | g | [`jaxrl/core.py`](../jaxrl/core.py) | {verdict} | 20" in table
    assert "\n| 001 | One | C | f | g | planned | planned |  |\n" in table
    assert "| built |  |\n" in table
    assert "| Treatment helps. | [supported](results/evidence/ours-cpu.json) (cpu, 5 seeds) | 22 [" in table
    section = docs.evidence(docs.records(tmp_path)).split("## ours: supported\n\nTreatment helps.\n")[1]
    assert "\n| treated | 22 [20, 24] |\n" in section
    assert "\n| treated >= 15 | supported | 7 [5, 9] |\n" in section
    run(claim, "gpu", out=tmp_path)
    assert "p000-gpu.json" in docs.papers(listed, docs.records(tmp_path))


def test_performance_by_hand(tmp_path):
    assert "make bench" in docs.performance([])
    same = {"goal": 1.0, "command": "make bench", "commit": "0123456789abcdef", "device": "cpu", "versions": {}}
    ratio = {"ratio_low": 1.1, "ratio_median": 1.25, "ratio_high": 1.5}
    (tmp_path / "a.json").write_text(json.dumps({"name": "sac", "ours": 150.0, "peer": 120.0, **ratio, **same}))
    slow = {"name": "ppo", "ours": 1, "peer": {"rejax": 2}, **ratio, **same, "goal": 1.3}
    gone = {"name": "dqn", "ours": 3.0, "peer": None, **dict.fromkeys(ratio), **same}
    (tmp_path / "b.json").write_text(json.dumps([slow, gone]))
    table = docs.performance(docs.records(tmp_path))
    assert "| sac |  | 150 | 120 | 1.25 (1.10 to 1.50) | ratio at least 1 | reached | cpu | 012345678 |" in table
    assert "| ppo |  | 1 | rejax 2 | 1.25 (1.10 to 1.50) | ratio at least 1.3 | **missed** |" in table
    assert "| dqn |  | 3 | absent |  | ratio at least 1 | peer absent |" in table
    assert "Absent when measured, so not compared: dqn." in table
    seconds = {**gone, "name": "compile", "unit": "core-seconds", "goal": 6.0, "goal_of": "ours"}
    assert "| core-seconds | 3 | absent |  | ours at most 6 core-seconds | reached |" in docs.performance([seconds])
    assert "| **missed** |" in docs.performance([{**seconds, "goal": 2.5}])

"""`python -m experiments.docs`: the pages of docs/ that are made from what has been recorded."""

import json
from pathlib import Path
from typing import Any

from envs.registry import TABLE
from experiments.evidence.runner import spread

DOCS = Path(__file__).parents[1] / "docs"
MADE = "<!-- Made by `make docs`; edit the records, not this page. -->"

PAPERS = """# Papers

The papers behind jaxrl, in which form their idea is here, and whether its claim held when we tried it. A verdict is
given by `python -m experiments.evidence pNNN --scale cpu` (or `gpu`): *supported*, *not supported* or *inconclusive*,
from 95 % intervals over test seeds that no tuning has seen. It links to the record, with a figure beside it.
*Built* has code and no verdict yet, *planned* has none.

| # | name | title | form here | family | module | verdict | date |
|---|---|---|---|---|---|---|---|
"""

AGENTS = """
## The agents that papers build on

What our own base agents must solve, judged in the same way.

| claim | verdict | score | environment | date |
|---|---|---|---|---|
"""

EVIDENCE = """# Evidence

Each claim that was tried, with what every arm of it scored: the interquartile mean over its seeds and that mean's 95 %
interval, at equal steps; no interval where every seed scores the same. A finding is the difference that was asked for,
and its interval. Intervals are made to cover with few seeds (`python -m experiments.coverage` measures how often), so
that those of three seeds are wide and their verdicts often open; the bands of learning curves in figures from before
December 2026 are percentile intervals, which are narrower. [papers.md](papers.md),
[base-learners.md](base-learners.md) and [learning-from-models.md](learning-from-models.md) say what we make of it.

"""

PERFORMANCE = """# Performance

jaxrl beside its peers, both sides in one run, each pinned to one core, by CPU time, with compilation apart. A ratio is
ours to theirs, turned over where less is better, so that above 1 is always ours; low and high are its spread over
repetitions, and goals are held against the median. A peer that was not installed is reported as absent, and no ratio to
it is claimed. [profile.md](profile.md) says where the time goes, and what bounds what misses its goal.

"""

NO_BENCH = """No figures have been recorded yet. `make bench` measures what is installed and writes docs/results/bench/;
`make bench-peers` installs the peers beforehand.
"""

BENCH_HEAD = """| what | unit | ours | peer | ratio, median (low to high) | goal | outcome | device | commit |
|---|---|---|---|---|---|---|---|---|
"""


ENVIRONMENTS = """# Environments

Everything here runs on the device, in JAX. The pages of [envs/](envs) say what each task observes, does, pays and
starts from, and **every deviation** from what it is modelled on; [envs/render.md](envs/render.md) how they are drawn,
[envs/adapters.md](envs/adapters.md) how those of other packages come in, [custom-env.md](custom-env.md) how your own
does.

![All of them](images/environments.png)

`make check-envs` steps each for 2,000 steps of uniform actions, 8 side by side: everything stays finite and within its
specs, termination and time limits are told apart, the same key gives the same stream. The figures are of its record,
[results/check-envs.json](results/check-envs.json): environment steps with their resets a second of CPU time, and the
CPU time of tracing and compiling, for comparison with one another only; `make bench` is what measures.

"""

ENV_HEAD = """| | id | observation | action | limit | usual repeat | steps a core-s | compile, core-s | device | found |
|---|---|---|---|---|---|---|---|---|---|
"""


def environments(rows: list[dict[str, Any]], docs: Path = DOCS) -> str:
    """docs/environments.md from the record of `make check-envs`, one table a family."""
    families: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        families.setdefault(row["family"], []).append(row)
    parts = [f"{MADE}\n{ENVIRONMENTS}"]
    for family in sorted(families):
        page = family if (docs / "envs" / f"{family}.md").exists() else "small"
        lines = "".join(_environment(row, docs) for row in families[family])
        parts.append(f"## [{family}](envs/{page}.md)\n\n{ENV_HEAD}{lines}\n")
    missing = sorted(set(TABLE) - {row["name"] for row in rows})
    if missing:
        listed = ", ".join(f"`{name}`" for name in missing)
        parts.append(f"## Without a record yet\n\nIn the registry, but not stepped for this page: {listed}.\n")
    return "".join(parts).rstrip("\n") + "\n"


def _environment(row: dict[str, Any], docs: Path) -> str:
    image = f"images/envs/{row['name']}.png"
    picture = f'<img src="{image}" width="96" alt="{row["name"]}">' if (docs / image).exists() else ""
    figures = f"{row['steps_per_second']:.3g}", f"{row['compile_seconds']:.3g}"
    seen, limit = ", ".join(row["observation"]), str(row["limit"] or "none")
    found = "; ".join(row["findings"]) or "nothing"
    return _row(
        picture, f"`{row['name']}`", seen, row["action"], limit, str(row["repeat"]), *figures, row["device"], found
    )


def papers(listed: list[dict[str, Any]], records: list[dict[str, Any]]) -> str:
    """docs/papers.md from docs/papers.json and the evidence records."""
    best = {}
    for record in sorted(records, key=lambda r: ("cpu", "gpu").index(r["scale"])):  # gpu, the larger, wins
        best[record["id"]] = record
    of = lambda number: [record for _, record in sorted(best.items()) if record["paper"] == number]
    rows = [_paper(row, of(row["number"])) for row in listed]
    ours = [_agent(record) for name, record in sorted(best.items()) if record["paper"] is None]
    return f"{MADE}\n" + PAPERS + "".join(rows) + (AGENTS + "".join(ours) if ours else "")


def _paper(row: dict[str, Any], records: list[dict[str, Any]]) -> str:
    module = row.get("module")
    name = lambda record: f"{record['id']}: " if len(records) > 1 else ""
    verdict = "; ".join(name(record) + _verdict(record) for record in records)
    verdict = verdict or ("built" if module else "planned")
    code = f"[`{module}`](../{module})" if module else "planned"
    date = max((record["date"] for record in records), default="")
    title = [f"{row['number']:03d}", row["short"], row["title"], row["form"], row["family"]]
    return _row(*title, code, verdict, date)


def _agent(record: dict[str, Any]) -> str:
    score = spread(record["treated"], "iqm")
    return _row(record["claim"], _verdict(record), score, record["environment"], record["date"])


def _verdict(record: dict[str, Any]) -> str:
    where = f"results/evidence/{record['id']}-{record['scale']}.json"
    return f"[{record['verdict']}]({where}) ({record['scale']}, {len(record['test_seeds'])} seeds)"


def evidence(records: list[dict[str, Any]]) -> str:
    """docs/evidence.md from the evidence records, one section a claim."""
    return f"{MADE}\n" + EVIDENCE + "\n".join(map(_claim, sorted(records, key=lambda r: (r["id"], r["scale"]))))


def _claim(record: dict[str, Any]) -> str:
    stem = f"results/evidence/{record['id']}-{record['scale']}"
    arms = "".join(_row(name, spread(arm, "iqm")) for name, arm in record["arms"].items())
    found = "".join(_row(check["check"], check["verdict"], spread(check)) for check in record["checks"])
    command = f"    {record['command']}\n"
    return (
        f"## {record['id']}: {record['verdict']}\n\n{record['claim']}\n\n"
        f"{record['environment']}. Score: {record['metric']}. {record['steps']:,} steps, {len(record['test_seeds'])} "
        f"seeds. [Record]({stem}.json), [figure]({stem}.png).\n\n"
        f"| arm | score |\n|---|---|\n{arms}\n| finding | verdict | difference |\n|---|---|---|\n{found}\n{command}"
    )


def performance(records: list[dict[str, Any]]) -> str:
    """docs/performance.md from the records of the bench."""
    if not records:
        return f"{MADE}\n" + PERFORMANCE + NO_BENCH
    rows = "".join(_bench(record) for record in sorted(records, key=lambda r: r["name"]))
    absent = sorted(record["name"] for record in records if _absent(record))
    said = f"\nAbsent when measured, so not compared: {', '.join(absent)}.\n" if absent else ""
    commands = "".join(f"\n    {command}" for command in sorted({record["command"] for record in records}))
    return f"{MADE}\n" + PERFORMANCE + BENCH_HEAD + rows + said + f"\nMade by:\n{commands}\n"


def _bench(record: dict[str, Any]) -> str:
    unit, goal, absent = record.get("unit", ""), record["goal"], _absent(record)
    ratio = "" if absent else "{ratio_median:.2f} ({ratio_low:.2f} to {ratio_high:.2f})".format(**record)
    # A goal binds the ratio, or where the record says so our own figure, which then needs no peer.
    if goal is None:
        wanted, outcome = "", "peer absent" if absent else ""
    elif record.get("goal_of", "ratio") == "ours":
        wanted, outcome = f"ours at most {goal:g} {unit}".strip(), _outcome(record["ours"] <= goal)
    elif record.get("goal_of") == "rate":
        wanted, outcome = f"ours at least {goal:g}", _outcome(record["ours"] >= goal)
    else:
        wanted = f"ratio at least {goal:g}"
        outcome = "peer absent" if absent else _outcome(record["ratio_median"] >= goal)
    sides = (_side(record[name]) for name in ("ours", "peer"))
    return _row(record["name"], unit, *sides, ratio, wanted, outcome, record["device"], record["commit"][:9])


def _outcome(met: bool) -> str:
    return "reached" if met else "**missed**"


def _absent(record: dict[str, Any]) -> bool:
    return record["ratio_median"] is None


def _side(value: Any) -> str:
    """A rate, in whatever detail the bench recorded it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_side(item)}" for name, item in value.items())
    return "absent" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def records(folder: Path) -> list[dict[str, Any]]:
    """Every record of a folder, a file holding one or a list of them; smoke and tuning runs are not for the tables."""
    found = []
    for path in sorted(folder.glob("*.json")):
        held = json.loads(path.read_text())
        found += held if isinstance(held, list) else [held]
    return [record for record in found if record.get("scale") != "smoke" and record.get("test_seeds") != []]


def pages(docs: Path = DOCS) -> dict[str, str]:
    """Each generated page's text, by file name."""
    tried = records(docs / "results" / "evidence")
    return {
        "papers.md": papers(json.loads((docs / "papers.json").read_text()), tried),
        "evidence.md": evidence(tried),
        "performance.md": performance(records(docs / "results" / "bench")),
        "environments.md": environments(json.loads((docs / "results" / "check-envs.json").read_text()), docs),
    }


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text)

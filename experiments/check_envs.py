"""Step every environment of ours for 2,000 steps and report what is wrong with it, and what it looks like.

    python -m experiments.check_envs [NAME ...] [--record]

With --record, docs/results/check-envs.json keeps a row an environment, and docs/images/envs/ a picture of it, from
which `make docs` makes docs/environments.md. Exits with 1 where anything was found.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.cli import answer, check_env, compile_cache, flags

DOCS = Path(__file__).parents[1] / "docs"
RECORD = DOCS / "results" / "check-envs.json"
PICTURES = DOCS / "images" / "envs"
STEPS, SIDE = 2_000, 96


@dataclasses.dataclass(frozen=True)
class Options:
    names: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(help="which; all of ours if none")] = ()
    record: Annotated[bool, tyro.conf.arg(help="keep what is found, and pictures, under docs/")] = False
    steps: Annotated[int, tyro.conf.arg(help="under uniform actions, 8 environments side by side")] = STEPS


def main(args: Sequence[str]) -> int:
    options = flags(Options, args, "experiments.check_envs", __doc__)
    for name in options.names:
        check_env(name)
    compile_cache()
    import jax

    from envs.registry import TABLE

    wrong = 0
    for name in options.names or TABLE:
        row, image = looked_at(name, options.steps)
        print(f"{name:<32} {'; '.join(row['findings']) or 'nothing wrong'}", flush=True)
        wrong += any(not finding.startswith("note:") for finding in row["findings"])
        if options.record:
            keep(row, image)
        jax.clear_caches()
    if options.record:
        contact_sheet()
    return 1 if wrong else 0


def looked_at(name: str, steps: int) -> tuple[dict[str, Any], Any]:
    """The record's row of an environment, and a picture of it, uint8 [SIDE, SIDE, 3] or None."""
    import jax

    from envs.checks import examined
    from envs.core import bare
    from envs.registry import TABLE, default_repeat, make
    from experiments.evidence.runner import provenance

    env = make(name)
    found = examined(env, steps)
    specs = env.specs
    row = {
        "name": name,
        "family": TABLE[name].target.split(".")[1].split(":")[0],
        "observation": [f"{leaf.dtype} {list(leaf.shape)}" for leaf in jax.tree.leaves(specs.observation)],
        "action": str(specs.action.n) if hasattr(specs.action, "n") else str(list(specs.action.shape)),
        "limit": specs.limit,
        "repeat": default_repeat(name),
        "context": sorted(env.context),
        "findings": found.findings,
        "steps": steps,
        "compile_seconds": round(found.compile_seconds, 1),
        "steps_per_second": float(f"{found.steps_per_second:.3g}"),
        **{name: value for name, value in provenance().items() if name != "versions"},
    }
    draw = env.draw
    if draw is None:
        return row, None

    def later(key):
        """A state some steps after a start, where it has come down to the ground."""
        state, _ = env.reset(key)
        stepped = lambda state, key: (env.step(state, specs.action.sample(key))[0], None)
        state, _ = jax.lax.scan(stepped, state, jax.random.split(key, 8))
        return draw(bare(state), (SIDE, SIDE), None)

    return row, jax.jit(later)(jax.random.key(1))


def keep(row: dict[str, Any], image: Any) -> None:
    """Put the row in its place in the record, and the picture beside the others."""
    rows = {old["name"]: old for old in json.loads(RECORD.read_text())} if RECORD.exists() else {}
    rows[row["name"]] = row
    RECORD.write_text(json.dumps([rows[name] for name in sorted(rows)], indent=1) + "\n")
    if image is not None:
        import numpy as np
        from PIL import Image

        PICTURES.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(image)).save(PICTURES / f"{row['name']}.png")


def contact_sheet() -> None:
    """All pictures on one: docs/images/environments.png."""
    import numpy as np
    from PIL import Image

    from jaxrl.run.video import tiled

    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(PICTURES.glob("*.png"))]
    if pictures:
        Image.fromarray(tiled(np.stack(pictures))).save(PICTURES.parent / "environments.png")


if __name__ == "__main__":
    answer(main)

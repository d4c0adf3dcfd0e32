"""Where metrics go: JSON lines always, TensorBoard and Weights & Biases where asked for or installed.

A sink has `write(rows)` and `close()`. One that fails says so once and is left alone: it never stops training. But
JSON lines are never given up: rows that could not be written are kept and tried again.
A row is `{'step': frames, 'seed': seed, 'part/quantity': number or None, ...}`; None stands for NaN.
"""

import errno
import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from jaxrl.errors import BadInput
from jaxrl.run.directory import Home, write

Row = dict[str, Any]
Say = Callable[[str], None]


class Sink(Protocol):
    def write(self, rows: list[Row]) -> None: ...

    def close(self) -> None: ...


def plain(value: float) -> float | None:
    """A number as JSON can hold it: None for NaN and the infinities."""
    return float(value) if math.isfinite(value) else None


class JsonLines:
    """The metrics file. It knows the SHA-256 of what it holds, so that a checkpoint can say where to cut it.

    Rows that cannot be written (a full disk, a file that was made read-only) are held, go into each checkpoint's mark,
    and are written as soon as that is possible. The file is opened for each write, as it may be removed in between.
    """

    def __init__(self, path: Path, mark: dict | None, say: Say):
        """Continue at a checkpoint's `mark`, cutting off what was written after it; without one, start an empty file.

        Raises:
            BadInput: there is a file, and it cannot be read.
        """
        mark = mark or {"bytes": 0, "sha256": hashlib.sha256().hexdigest()}
        self.path, self.say, self.failing = path, say, False
        self.bytes, self.sha = mark["bytes"], hashlib.sha256()
        self.held: list[str] = list(mark.get("held", []))
        try:
            kept = path.read_bytes()[: self.bytes] if path.exists() else b""
        except OSError as error:
            raise BadInput(f"{path} cannot be read ({error.strerror}): mend that, or choose another --run.") from error
        self.sha.update(kept)
        if self.sha.hexdigest() != mark["sha256"]:
            say(f"{path} is not what the checkpoint recorded: some of its earlier rows were damaged, lost or edited.")
        self.bytes = len(kept)
        self.write([])

    def mark(self) -> dict:
        """What a checkpoint keeps: how many bytes there are, their SHA-256, and rows that are not written yet."""
        return {"bytes": self.bytes, "sha256": self.sha.hexdigest(), **({"held": self.held} if self.held else {})}

    def write(self, rows: list[Row]) -> None:
        self.held += [json.dumps(row, allow_nan=False) + "\n" for row in rows]
        try:
            self._append("".join(self.held).encode())
        except OSError as error:
            if not self.failing:
                self.say(f"{self.path} cannot be written ({error.strerror}): its rows are kept and tried again.")
            self.failing = True
            return
        if self.failing:
            self.say(f"{self.path} is written again, with the {len(self.held)} rows that were kept.")
        self.held, self.failing = [], False

    def _append(self, data: bytes) -> None:
        """Add to the file after its last whole row."""
        with open(self.path, "ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size < self.bytes:
                self.say(f"{self.path} was cut or removed: {self.bytes - size:,} bytes of its earlier rows are lost.")
                self.sha, self.bytes = hashlib.sha256(self.path.read_bytes()), size
            file.truncate(self.bytes)  # half a row that a failed write left
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.sha.update(data)
        self.bytes += len(data)

    def close(self) -> None:
        """Nothing is open between writes."""


def mark_of(path: Path, step: int, pending: bool) -> dict:
    """A mark for a checkpoint that recorded none: the rows up to its step, or before it where those are `pending`."""
    kept = b""
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        row = _row(line)
        if row is not None and row["step"] > step - pending:
            break
        kept += line
    return {"bytes": len(kept), "sha256": hashlib.sha256(kept).hexdigest()}


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and {"step", "seed"} <= row.keys() else None


def read(path: Path) -> list[Row]:
    """The rows of a metrics file; lines that are not rows are left out."""
    lines = path.read_bytes().splitlines() if path.exists() else ()
    return [row for line in lines if (row := _row(line)) is not None]


class TensorBoard:
    """Event files, one writer a seed. They are made anew from the metrics file when a run is continued."""

    def __init__(self, folder: Path):
        from tensorboardX import SummaryWriter

        shutil.rmtree(folder, ignore_errors=True)
        self.open = lambda seed: SummaryWriter(str(folder / f"seed-{seed}"))
        self.writers: dict[int, Any] = {}

    def write(self, rows: list[Row]) -> None:
        for row in rows:
            if row["seed"] not in self.writers:
                self.writers[row["seed"]] = self.open(row["seed"])
            for name, value in numbers(row):
                self.writers[row["seed"]].add_scalar(name, value, row["step"])
        for writer in self.writers.values():
            writer.flush()

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()


class Wandb:
    """Weights & Biases, one run for all seeds: `seed-0/critic/loss`, ..."""

    def __init__(self, home: Home, config: dict):
        import wandb  # pyright: ignore[reportMissingImports]  (an extra)

        # Random, and kept with the run: continuing it continues the same page, and no other of the same name.
        if not home.wandb.exists():
            write(home.wandb, secrets.token_hex(8).encode())
        id = home.wandb.read_text().strip()
        self.run = wandb.init(
            project="jaxrl", id=id, name=home.path.name, dir=str(home.path), config=config, resume="allow"
        )

    def write(self, rows: list[Row]) -> None:
        for row in rows:
            named = {f"seed-{row['seed']}/{name}": value for name, value in numbers(row)}
            self.run.log({"frames": row["step"], **named})

    def close(self) -> None:
        self.run.finish()


def numbers(row: Row) -> Iterable[tuple[str, float]]:
    return ((name, value) for name, value in row.items() if name not in ("step", "seed") and value is not None)


class Guarded:
    """A sink that may fail to open, to write or to close: the first failure is told, and the rest is silence."""

    def __init__(self, name: str, make: Callable[[], Sink], say: Say):
        self.name, self.say, self.sink = name, say, None
        self.sink = self._try(make)

    def _try(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Exception as error:  # whatever a foreign library raises
            self.say(f"{self.name} stopped recording ({type(error).__name__}: {error}); training goes on without it.")
            self.sink = None

    def write(self, rows: list[Row]) -> None:
        if self.sink is not None:
            self._try(lambda: self.sink.write(rows))

    def close(self) -> None:
        if self.sink is not None:
            self._try(self.sink.close)

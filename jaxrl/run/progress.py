"""What is seen on stderr while a run goes on: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

QUIET = 10.0  # seconds between lines where there is no terminal
GONE = contextlib.suppress(OSError)  # a terminal that was closed, a pipe that nobody reads: a run does not end of that


class Bar:
    """Steps, steps/s, return, time left and compile time."""

    def __init__(self, total: int, done: int, compile_seconds: float):
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.total, self.compile, self.last = total, compile_seconds, time.monotonic()
        self.progress = Progress(
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
            TextColumn("{task.fields[rate]:,.0f} steps/s"),
            TextColumn("return {task.fields[score]}"),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn(f"compile {compile_seconds:.1f} s"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task("", total=total, completed=done, rate=0.0, score="-")

    def __enter__(self) -> "Bar":
        with GONE:
            self.progress.start()
        return self

    def __exit__(self, *_) -> None:
        with GONE:
            self.progress.stop()

    def update(self, step: int, rate: float, score: float | None) -> None:
        shown = "-" if score is None else f"{score:.1f}"
        with GONE:
            self.progress.update(self.task, completed=step, rate=rate, score=shown)
        now = time.monotonic()
        if not self.console.is_terminal and (now - self.last >= QUIET or step == self.total):
            self.last = now
            left = (self.total - step) / max(rate, 1e-9)
            self.say(
                f"{step:,}/{self.total:,} steps, {rate:,.0f} steps/s, return {shown}, {left:,.0f} s left, "
                f"compile {self.compile:.1f} s"
            )

    def say(self, line: str) -> None:
        with GONE:
            self.console.print(line, markup=False)


def say(line: str) -> None:
    """A line on stderr."""
    with GONE:
        Console(stderr=True, highlight=False, soft_wrap=True).print(line, markup=False)

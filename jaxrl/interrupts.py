"""Signals that ask a process to stop. Imports nothing heavy, so that a command can answer while it imports the rest.

The first of SIGINT, SIGTERM and SIGHUP is noted by a run, which saves after its chunk. A second SIGINT does not wait
for the chunk; while something is being saved it changes nothing. `end_at_once` is for processes that are one run:
there an exception never passes through a compiler or a library's threads, for the process ends where it is, also
within a compiled program, whose end Python's own handlers wait for. Elsewhere it raises KeyboardInterrupt, as usual.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

INTERRUPTED = 130  # what shells answer for a process that SIGINT ended
STOPPING = [signal.SIGTERM, signal.SIGINT] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])
SHOW_CURSOR = "\x1b[?25h"


@dataclass
class Stop:
    """The signal that asked a run to stop, by name; '' while none has. `heard` counts them as they arrive."""

    signal: str = ""
    heard: int = 0


@dataclass
class State:
    """Of this process.

    Attributes:
        stop: of the run that is in its chunks, if one is.
        saving: blocks of `saving` that are entered.
        ends: an interrupt ends the process at once.
    """

    stop: Stop | None = None
    saving: int = 0
    ends: bool = False


STATE = State()


def tell(line: str) -> None:
    """A line on stderr, past Python's buffers: a handler may come while they are being written to."""
    clear = "\r\x1b[2K" if os.isatty(2) else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{clear}{line}\n".encode())


def leave() -> NoReturn:
    """End this process with 130, without unwinding and without tearing down libraries under their threads."""
    if os.isatty(2):
        with contextlib.suppress(OSError):
            os.write(2, SHOW_CURSOR.encode())
    os._exit(INTERRUPTED)


def finish(code: int) -> NoReturn:
    """End this process: by `leave` if it was interrupted, else by `sys.exit`."""
    if code != INTERRUPTED:
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    leave()


def _again() -> None:
    """A SIGINT that is no request to save."""
    if STATE.saving:
        return
    if not STATE.ends:
        raise KeyboardInterrupt
    tell("error: interrupted; what had been saved stays." if STATE.stop else "error: interrupted.")
    leave()


def _note(number: int, frame: object) -> None:
    """The handler, in the main thread."""
    stop = STATE.stop
    if stop is not None and not stop.signal:
        stop.signal = signal.Signals(number).name
        tell(f"{stop.signal}: saving after this chunk.")
    elif number == signal.SIGINT:
        _again()


@contextmanager
def stopping() -> Iterator[Stop]:
    """Note the first signal for the host's next turn; a second SIGINT interrupts at once.

    Only the main thread may set handlers: elsewhere a run is stopped by whoever owns the process. A signal that is
    ignored stays so (SIGHUP under nohup), but for SIGINT.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    heeded = [n for n in STOPPING if n == signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN]
    outer, STATE.stop = STATE.stop, stop
    before = {number: signal.signal(number, _note) for number in heeded}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        STATE.stop = outer


@contextmanager
def saving() -> Iterator[None]:
    """A block that interrupts wait for: what it writes is written whole."""
    STATE.saving += 1
    try:
        yield
    finally:
        STATE.saving -= 1


def end_at_once() -> None:
    """From now on an interrupt ends this process with 130, wherever it is, but for what `stopping` and `saving` say."""
    STATE.ends = True
    signal.signal(signal.SIGINT, _note)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), name="interrupts", daemon=True).start()


def _watch(reader: int) -> None:
    """Hears signals at once, while the main thread may be in a compiled program for minutes."""
    while numbers := os.read(reader, 64):
        for number in numbers:
            stop = STATE.stop
            if stop is not None and number in STOPPING:
                stop.heard += 1
            if number == signal.SIGINT and STATE.ends and (stop is None or stop.heard > 1):
                _again()


def end_as_usual() -> None:
    """From now on an interrupt raises KeyboardInterrupt, which lets a script end the processes that it started."""
    STATE.ends = False


def _forked() -> None:
    """A child process that was forked is stopped as any other: it neither saves nor wakes its parent."""
    if STATE.stop is not None or STATE.ends:
        STATE.stop, STATE.ends = None, False
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in STOPPING:
            if signal.getsignal(number) == _note:
                signal.signal(number, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

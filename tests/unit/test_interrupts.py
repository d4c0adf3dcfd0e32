"""Signals: noted, waited for, or answered at once."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from jaxrl import interrupts
from jaxrl.interrupts import STATE, saving, stopping


def interrupt(number=signal.SIGINT):
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def not_ignored():
    """A hang-up is as usual, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", interrupts.STOPPING)
def test_the_first_signal_is_noted(number):
    before = [signal.getsignal(n) for n in interrupts.STOPPING]
    with stopping() as stop:
        assert stop.signal == ""
        interrupt(number)
        assert stop.signal == number.name
    assert STATE.stop is None and [signal.getsignal(n) for n in interrupts.STOPPING] == before


def test_a_second_interrupt_raises_and_other_signals_do_not():
    with stopping() as stop:
        interrupt()
        interrupt(signal.SIGTERM)
        interrupt(signal.SIGHUP)
        assert stop.signal == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def test_an_interrupt_while_saving_waits():
    with stopping() as stop:
        with saving(), saving():
            for _ in range(3):
                interrupt()
            assert stop.signal == "SIGINT"
        assert STATE.saving == 0
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def test_a_hang_up_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping() as stop:
            interrupt(signal.SIGHUP)
            assert stop.signal == ""
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_no_handler_is_set():
    found = []

    def run():
        with stopping() as stop:
            found.append((stop.signal, STATE.stop, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [("", None, signal.SIG_DFL)]


HEAD = "import os, signal, sys, threading, time\nfrom jaxrl.interrupts import *\nme = os.getpid()\n"
# As a compiled program is: the main thread is in C for five seconds, with the interpreter's lock released, and hears
# of no signal meanwhile, as these are masked there.
DEAF = """
def send():
    for _ in range(TIMES):
        time.sleep(0.1)
        os.kill(me, signal.SIGINT)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
threading.Thread(target=send).start()
threading.Event().wait(5)
print('late')
"""


def ran(code):
    return subprocess.run([sys.executable, "-c", HEAD + code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("code", "status", "out"),
    [
        ("end_at_once()\nos.kill(me, 2)\ntime.sleep(5)", 130, ""),
        ("end_at_once()\ntry:\n os.kill(me, 2); time.sleep(5)\nfinally:\n print('unwound')", 130, ""),
        ("end_at_once()\nwith stopping():\n os.kill(me, 2); print('saved', flush=True)\n os.kill(me, 2); time.sleep(5)",
         130, "saved\n"),
        ("end_at_once()\nwith stopping() as s, saving():\n [os.kill(me, 2) for _ in '123']; time.sleep(.1)\n"
         " print(s.signal)\nfinish(130)", 130, "SIGINT\n"),
        ("end_at_once()\nend_as_usual()\ntry:\n os.kill(me, 2); time.sleep(5)\nexcept KeyboardInterrupt:\n finish(130)",
         130, ""),
        ("finish(0)", 0, ""),
        ("end_at_once()\nif os.fork() == 0:\n try:\n  os.kill(os.getpid(), 2); time.sleep(5)\n"
         " except KeyboardInterrupt:\n  print('child', flush=True); os._exit(0)\nos.wait(); print('parent')",
         0, "child\nparent\n"),
    ],
    ids=["at once", "without unwinding", "the second in a chunk", "while saving", "scripts with children",
         "no interrupt", "a forked child"],
)  # fmt: skip
def test_a_process_ends_with_its_code_and_no_traceback(code, status, out):
    done = ran(code)
    assert (done.returncode, done.stdout) == (status, out) and "Traceback" not in done.stderr


@pytest.mark.parametrize(("setting", "times"), [("pass", 1), ("stop = stopping(); stop.__enter__()", 2)])
def test_an_interrupt_does_not_wait_for_a_compiled_program(setting, times):
    done = ran(f"end_at_once()\n{setting}\n{DEAF.replace('TIMES', str(times))}")
    assert (done.returncode, done.stdout) == (130, "") and "Traceback" not in done.stderr

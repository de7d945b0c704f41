"""Ctrl-C and SIGTERM, sent to a process of their own."""

import os
import signal
import subprocess
import sys
import time

import pytest

from raylr import signals

WORKS = """
import sys, time
from raylr import signals
class Swallows:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(30)
try:
    with signals.signals_end(for_good=True):
        if "swallow" in sys.argv:
            made = Swallows()
            del made  # Python drops what is raised in it
            for _ in range(100):
                time.sleep(0.01)
                signals.check()
        else:
            print("ready", flush=True)
            time.sleep(30)
    print("not interrupted")
except KeyboardInterrupt:
    print("interrupted", flush=True)
    time.sleep(5 if "slow" in sys.argv else 0.2)
    import atexit; atexit.register(print, "cleaned", flush=True)
    signals.end_process(128 + signals.received())
"""


def interrupted(*words: str, again: float | None = None, number: int = signal.SIGINT) -> tuple[int, list[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKS, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    if again is not None:
        time.sleep(again)
        process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out.split(), err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_the_block_and_a_second_one_soon_after_changes_nothing(number: int) -> None:
    assert interrupted(again=0.1, number=number) == (128 + number, ["interrupted", "cleaned"], "")


def test_an_interrupt_that_python_dropped_is_raised_again() -> None:
    status, printed, _ = interrupted("swallow")
    assert (status, printed) == (130, ["interrupted", "cleaned"])


def test_a_later_signal_ends_the_process_at_once() -> None:
    status, printed, error = interrupted("slow", again=signals.GRACE_SECONDS + 0.2)
    assert (status, printed) == (130, ["interrupted"])
    assert error == "raylr: ended at once; what was measured is kept.\n"


def test_handlers_are_put_back_and_signals_of_a_block_that_has_ended_mean_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), signals.signals_end():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signals.received() == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    signals.check()

import os
import signal
import threading
import time

import pytest

from raylr.remote.undisturbed import CONNECTIONS, each, undisturbed


@pytest.fixture
def interrupts():
    """Let SIGINT raise KeyboardInterrupt in the main thread."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_every_item_once():
    seen = []
    each(seen.append, range(100))
    assert sorted(seen) == list(range(100))
    thread = threading.Thread(target=each, args=(seen.append, [100]))
    thread.start()
    thread.join()
    assert seen[-1] == 100


@pytest.mark.usefixtures("interrupts")
def test_interrupts_wait_for_what_is_under_way_and_nothing_more_is_begun():
    begun, ended = [], []

    def do(item):
        begun.append(item)
        if item == 0:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)
        time.sleep(0.1)
        ended.append(item)

    with pytest.raises(KeyboardInterrupt):
        each(do, range(10 * CONNECTIONS))
    assert sorted(begun) == sorted(ended)
    assert len(begun) < 10 * CONNECTIONS


def test_an_error_is_raised_and_nothing_more_is_begun():
    begun = []

    def do(item):
        begun.append(item)
        time.sleep(0.02)
        if item == 1:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        each(do, range(10 * CONNECTIONS))
    assert len(begun) < 10 * CONNECTIONS


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_comes_before_an_error():
    seen = []

    def do():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        raise ValueError("no")

    with pytest.raises(KeyboardInterrupt):
        undisturbed(do, lambda: seen.append(1))
    assert seen == [1]

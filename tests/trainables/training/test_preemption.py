"""SIGTERM while a run trains, in the main thread of a process whose loop runs in another one, as in a trial."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from raylr.trainables.training import preemption


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """When the handler that was there before was called."""
    found: list[float] = []
    monkeypatch.setattr(preemption, "_STATE", preemption._State())
    before = signal.signal(signal.SIGTERM, lambda *_: found.append(time.monotonic()))
    preemption.catch()
    preemption.catch()  # a process that is used again
    yield found
    signal.signal(signal.SIGTERM, before)


def wait_for(ended: list[float]) -> None:
    deadline = time.monotonic() + 10
    while not ended:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_sigterm_waits_for_the_checkpoint_of_a_run(ended: list[float]) -> None:
    steps: list[float] = []

    def train() -> None:
        with preemption.training():
            while not preemption.requested():
                time.sleep(0.01)
            time.sleep(0.05)
            steps.append(time.monotonic())
            preemption.saved()
            time.sleep(0.2)

    with preemption.training():  # a run before it, in the same process
        pass
    thread = threading.Thread(target=train)
    thread.start()
    while not preemption._STATE.running:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGTERM)
    assert not ended  # the main thread goes on, to take what the run reports
    wait_for(ended)
    assert steps[0] <= ended[0]
    thread.join()


def test_a_process_that_trains_nothing_ends_at_once(ended: list[float]) -> None:
    preemption.saved()
    os.kill(os.getpid(), signal.SIGTERM)
    assert len(ended) == 1
    assert not preemption.requested()


def test_a_run_that_does_not_come_to_save_is_not_waited_for_longer_than_the_grace(
    ended: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preemption, "GRACE_SECONDS", 0.05)
    with preemption.training():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # sent again by somebody who is in a hurry
        wait_for(ended)
    assert len(ended) == 1

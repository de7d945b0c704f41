import math
from dataclasses import dataclass, field

from raylr.searchers import RunEnd
from raylr.searchers.policies.failures import repeat_failed, without_repeats
from raylr.searchers.policies.types import RunState


@dataclass
class Rounds:
    runs: list
    queue: list = field(default_factory=list)
    max_trials: int = 8
    finished: bool = False

    def pending(self):
        return sum(r.running for r in self.runs)

    def tried(self):
        return len(self.runs)

    def repeat(self, run):
        self.queue.append(run.log_lr)


def run(lr, end, loss=math.nan):
    return RunState(math.log(lr), end=end, loss=loss)


def test_a_failed_run_is_repeated_once_and_then_counts_as_diverged():
    search = Rounds([run(1e-3, RunEnd.COMPLETED, 2.0), run(1e-2, RunEnd.FAILED)])
    repeat_failed(search)
    assert search.queue == [search.runs[1].log_lr]
    search.runs.append(run(1e-2, RunEnd.FAILED))
    search.queue.clear()
    repeat_failed(search)
    assert search.queue == []
    assert [r.end for r in search.runs] == [RunEnd.COMPLETED, RunEnd.DIVERGED, RunEnd.DIVERGED]


def test_a_failure_that_results_contradict_says_nothing():
    for lr in (1e-2, 2e-2):
        search = Rounds([run(1e-2, RunEnd.FAILED), run(lr, RunEnd.COMPLETED, 2.0)])
        repeat_failed(search)
        without_repeats(search.runs)
        assert search.queue == []
        assert search.runs[0].end is RunEnd.FAILED


def test_nothing_is_repeated_beyond_the_last_trial_or_in_the_middle_of_a_round():
    for options in ({"max_trials": 1}, {"finished": True}, {"queue": [0.0]}):
        search = Rounds([run(1e-2, RunEnd.FAILED)], **options)
        before = list(search.queue)
        repeat_failed(search)
        assert search.queue == before


def test_without_repeats_the_highest_failures_count():
    runs = [run(1e-3, RunEnd.FAILED), run(2e-3, RunEnd.COMPLETED, 2.0), run(1e-2, RunEnd.FAILED)]
    without_repeats(runs)
    assert [r.end for r in runs] == [RunEnd.FAILED, RunEnd.COMPLETED, RunEnd.DIVERGED]

"""Which runs hang. Time is simulated: a run is a list of intervals between its reports."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.analysis.runs import Run
from raylr.execution.executor import Job
from raylr.execution.pace import FIRST_SECONDS, IDLE_SHARE, LEAST_SECONDS, PATIENCE, START, WATCHED_SECONDS, Pace

POINTS = tuple(range(100, 1700, 100))
START_SECONDS = START * LEAST_SECONDS


def job_of(name="a", *, size="S", points=POINTS, flops=1.0):
    return Job(
        run=Run(measured={"name": name}, label=name), role="search", size=size, lr=1e-3, tokens=points[-1],
        stop_at=points[-1], eval_at=points, flops_per_token=flops,
    )  # fmt: skip


class Simulated:
    """A pace with a clock that is looked at every second."""

    def __init__(self, pace=None):
        self.pace, self.now = pace or Pace(), 0.0
        self.pace.look(self.now)

    def wait(self, seconds):
        """Let time pass; return the runs that hung, with their silence when that was noticed."""
        found = {}
        whole, rest = divmod(seconds, 1.0)
        for step in [1.0] * int(whole) + [rest]:
            self.now += step
            for silence in self.pace.look(self.now):
                found.setdefault(silence.job, silence.seconds)
        return found

    def train(self, job, intervals, points=POINTS):
        self.pace.started(job)
        for seconds, tokens in zip(intervals, points, strict=False):
            assert self.wait(seconds) == {}
            self.pace.heard(job, tokens)


@given(st.lists(st.floats(0.1, 3000), min_size=1, max_size=8), st.floats(1, PATIENCE))
def test_no_run_is_ended_that_is_less_slow_than_its_own_pace_allows(intervals, slower):
    """Whatever its pace, and however it varies within the patience."""
    simulated, job = Simulated(), job_of()
    simulated.pace.started(job)
    simulated.pace._watched += intervals[0]  # the start
    simulated.pace.heard(job, POINTS[0])
    for seconds, tokens in zip(intervals[1:], POINTS[1:], strict=False):
        limit = simulated.pace.limit(job)
        assert limit >= LEAST_SECONDS
        simulated.pace._watched += min(seconds, 0.999 * limit)
        assert simulated.pace.look(0.0) == []
        simulated.pace.heard(job, tokens)
    longest = simulated.pace._runs[job].longest or intervals[0]
    assert simulated.pace.limit(job) >= PATIENCE * longest
    simulated.pace._watched += 0.999 * slower * longest
    assert simulated.pace.look(0.0) == []


@pytest.mark.parametrize(("interval", "limit"), [(2.0, LEAST_SECONDS), (60.0, PATIENCE * 60.0)])
def test_a_run_that_has_reported_hangs_after_a_multiple_of_its_own_interval(interval, limit):
    simulated, job = Simulated(), job_of()
    simulated.train(job, [interval] * 4)
    found = simulated.wait(limit + 2)
    assert found[job] == pytest.approx(limit, abs=2)


def test_a_long_start_counts_until_there_is_another_interval():
    simulated, job = Simulated(), job_of()
    simulated.train(job, [300])
    assert simulated.pace.limit(job) == pytest.approx(PATIENCE * 300, rel=0.01)
    simulated.wait(20)
    simulated.pace.heard(job, POINTS[1])
    assert simulated.pace.limit(job) == pytest.approx(PATIENCE * 20, rel=0.1)


def test_a_late_report_raises_the_limit():
    simulated, job = Simulated(), job_of()
    simulated.train(job, [5, 5, 100, 5])
    assert simulated.pace.limit(job) == pytest.approx(PATIENCE * 100, rel=0.02)


def test_nothing_is_ended_for_a_day_while_no_run_has_reported():
    simulated, job = Simulated(), job_of()
    simulated.pace.started(job)
    assert simulated.wait(7200) == {}
    assert simulated.pace.limit(job) == FIRST_SECONDS
    assert Pace(first=10)._first == START_SECONDS


def test_that_day_may_be_shorter_and_doubles_with_each_hang():
    simulated, job = Simulated(Pace(first=1000)), job_of()
    simulated.pace.started(job)
    assert list(simulated.wait(1002)) == [job]
    simulated.pace.left(job, hung=True)
    simulated.pace.started(job)
    assert simulated.wait(1900) == {}
    assert list(simulated.wait(102)) == [job]


@pytest.mark.parametrize(
    ("share", "stopped", "hangs"),
    [(0.5 * IDLE_SHARE, False, True), (2 * IDLE_SHARE, False, False), (None, False, False), (None, True, True)],
)
def test_before_any_report_a_process_that_does_nothing_hangs(share, stopped, hangs):
    """Its processor time counts, or, where it may wait for work elsewhere, only that it is not stopped."""
    simulated, job = Simulated(), job_of()
    simulated.pace.started(job)
    found = {}
    for second in range(int(START_SECONDS + LEAST_SECONDS) + 20):
        found |= simulated.wait(1)
        for silent in simulated.pace.silent():
            assert second >= LEAST_SECONDS - 1
            used = None if share is None else 30 + share * second  # 30 s for its imports
            simulated.pace.noticed(silent, used, stopped=stopped)
    assert list(found) == ([job] if hangs else [])
    if hangs:
        assert all(silence.idle for silence in simulated.pace.look(simulated.now))


def test_once_a_run_has_reported_nobody_looks_at_processes():
    simulated, job = Simulated(), job_of()
    simulated.train(job_of("b"), [600])
    simulated.pace.started(job)
    simulated.wait(LEAST_SECONDS + 2)
    assert simulated.pace.silent() == []


def test_before_its_first_report_a_run_is_judged_by_the_others_and_its_own_size():
    simulated, first, large = Simulated(), job_of(), job_of("b", size="L", flops=100.0)
    simulated.train(first, [10] * 16)
    simulated.pace.forget(first)
    simulated.pace.started(large)
    assert simulated.pace.limit(large) == pytest.approx(PATIENCE * 100 * 10, rel=0.05)  # 100 times the FLOPs
    small = job_of("c")
    simulated.pace.started(small)
    assert simulated.pace.limit(small) == START_SECONDS
    found = simulated.wait(START_SECONDS + 2)
    assert list(found) == [small]


def test_reports_further_apart_than_they_were_asked_for_are_waited_for():
    """A function that reports at its end alone: so will the next one."""
    simulated, job = Simulated(), job_of("b")
    simulated.train(job_of(), [2000], points=[POINTS[-1]])
    simulated.pace.started(job)
    assert simulated.wait(4000) == {}


def test_a_first_report_that_comes_early_does_not_make_the_others_late():
    points = (10, *range(1000, 9000, 1000))
    simulated, job = Simulated(), job_of(points=points)
    simulated.train(job, [10, 60 * 90], points)


def test_losses_that_are_reported_again_are_signs_of_life_but_no_pace():
    simulated, job = Simulated(), job_of()
    simulated.train(job_of("b"), [600] * 4)
    simulated.pace.started(job, tokens=POINTS[7])
    for _ in POINTS[:8]:
        simulated.wait(0.1)
        simulated.pace.heard(job, POINTS[7])  # `Work.position` stays
    assert simulated.wait(2000) == {}


def test_another_attempt_has_time_to_start_and_twice_the_limit():
    simulated, job = Simulated(), job_of()
    simulated.train(job, [60] * 4)
    assert simulated.wait(PATIENCE * 60 + 2)
    simulated.pace.left(job, hung=True)
    assert simulated.wait(1000) == {}
    simulated.pace.started(job, tokens=POINTS[3])
    assert simulated.pace.limit(job) == pytest.approx(2 * max(PATIENCE * 60, START_SECONDS))
    simulated.wait(30)
    simulated.pace.heard(job, POINTS[4])
    assert simulated.pace.limit(job) == pytest.approx(2 * PATIENCE * 60, rel=0.02)


@pytest.mark.parametrize("least", [LEAST_SECONDS, 30.0, 4.0, 2.0])
def test_what_this_process_did_not_see_is_no_silence(least):
    """It was stopped, the machine slept, or a file system kept it waiting: the reports wait to be read."""
    simulated, job = Simulated(Pace(least)), job_of()
    simulated.train(job, [0.2] * 4)
    simulated.now += 100_000
    assert simulated.pace.look(simulated.now) == []
    assert simulated.pace._watched < 1 + WATCHED_SECONDS
    for _ in range(2):  # and once more before a report is read
        simulated.now += 100_000
    assert simulated.pace.look(simulated.now) == []
    simulated.now -= 50_000  # a clock that goes back
    assert simulated.pace.look(simulated.now) == []


def test_a_run_that_has_ended_is_silent():
    simulated, job = Simulated(), job_of()
    simulated.train(job, [2] * 4)
    simulated.pace.forget(job)
    assert simulated.wait(2000) == {}
    simulated.pace.heard(job, 10_000)  # a report on its way

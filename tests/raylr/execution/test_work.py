"""What a policy is given, what is recorded, and what is answered from the store."""

import json
import math

import numpy as np
import pytest

from raylr.analysis.curves.curve import Curve
from raylr.analysis.curves.schedule import Schedule
from raylr.analysis.runs import Run, RunEnd, Setting
from raylr.errors import DataError
from raylr.events import Listener
from raylr.execution.executor import Job
from raylr.execution.work import FixedPolicy, Work
from raylr.searchers.policies.quadratic import QuadraticPolicy
from raylr.searchers.policies.stopping import StoppingRule
from raylr.store.runs import RunStore
from raylr.store.runtable import evaluations_table, trials_table

TOKENS, POINTS = 20, (5, 10, 15, 20)


class Recorder(FixedPolicy):
    """Suggests what is in a list and remembers what it is given; `decides` is what it answers to reports."""

    def __init__(self, suggestions, decides=None):
        super().__init__(suggestions)
        self.given, self.decides = [], decides or {}

    def report(self, run, tokens, loss, *current_lr):
        self.given.append((run, tokens, loss, *current_lr))
        return self.decides.get(tokens)

    def tell(self, run, end, loss=None, stderr=0.0):
        self.given.append((run, end, loss))


class Events(Listener):
    def __init__(self):
        self.seen = []

    def run_started(self, event):
        self.seen.append(event)

    def loss_measured(self, event):
        self.seen.append(event)

    def run_ended(self, event):
        self.seen.append(event)


def job_of(suggestion):
    lr, stop_at = suggestion
    run = Run(measured={"lr": lr}, label=f"S-{lr}")
    return Job(run=run, role="search", size="S", lr=lr, tokens=TOKENS, stop_at=stop_at, handle=suggestion)


def search_job(found):
    run = Run(measured={"lr": found.lr}, label=f"S-{found.lr}")
    return Job(run=run, role="search", size="S", lr=found.lr, tokens=1000, stop_at=1000, handle=found.run)


def store_in(folder):
    return RunStore(evaluations_table(folder), trials_table(folder))


def loss_at(lr, tokens):
    return 5 - tokens / 10 + lr


def train(work, job, *, until=None, error=None, **more):
    for tokens in POINTS:
        if tokens > (until or job.stop_at):
            break
        if work.report(job, {"tokens": tokens, "loss": loss_at(job.lr, tokens), **more}) is not None:
            break
    work.end(job, error=error, seconds=1.5)


def test_what_was_measured_is_answered_from_the_tables_as_it_was_given(tmp_path):
    first = Recorder([(0.1, 20), (0.2, 20)])
    work = Work(first, job_of, store_in(tmp_path))
    train(work, work.next())
    events = Events()
    second = Recorder([(0.1, 20), (0.2, 20), (0.3, 20)])
    work = Work(second, job_of, store_in(tmp_path), events)
    assert work.needs_training()
    assert work.needs_training()
    assert second.given == first.given
    assert [event.known for event in events.seen] == [True]
    assert [work.next().lr, work.next().lr, work.next()] == [0.2, 0.3, None]
    assert work.finished


def test_a_finished_list_needs_no_training(tmp_path):
    work = Work(Recorder([(0.1, 20)]), job_of, store_in(tmp_path))
    train(work, work.next())
    assert not Work(Recorder([(0.1, 20)]), job_of, store_in(tmp_path)).needs_training()


def test_segments_of_a_run_are_known_one_by_one(tmp_path):
    work = Work(Recorder([(0.1, 10), (0.1, 15)]), job_of, store_in(tmp_path))
    for _ in range(2):
        train(work, work.next())
    ends = trials_table(tmp_path).read().to_pylist()
    assert [(row["tokens"], row["end"], row["evaluations"]) for row in ends] == [(10, "paused", 2), (15, "paused", 3)]
    policy = Recorder([(0.1, stop) for stop in (5, 10, 15, 20)])
    work = Work(policy, job_of, store_in(tmp_path))
    assert work.next().stop_at == 20  # all but the last are known
    ended = [(run, end) for run, end, _ in policy.given if isinstance(end, RunEnd)]
    assert ended == [((0.1, stop), RunEnd.PAUSED) for stop in (5, 10, 15)]
    assert len(evaluations_table(tmp_path)) == 3


def test_a_run_that_diverged_on_its_way_has_no_later_segment(tmp_path):
    work = Work(Recorder([(0.1, 10)]), job_of, store_in(tmp_path))
    job = work.next()
    work.report(job, {"tokens": 5, "loss": math.nan, "run_end": "diverged"})
    work.end(job)
    policy = Recorder([(0.1, 20)])
    assert not Work(policy, job_of, store_in(tmp_path)).needs_training()
    assert policy.given[-1][1] is RunEnd.DIVERGED


def test_an_end_at_other_tokens_is_no_answer(tmp_path):
    """With a constant LR the horizon is not part of the identity: a truncated or completed run may be too short."""
    for end, decides in (("completed", {}), ("truncated", {15: RunEnd.TRUNCATED})):
        folder = tmp_path / end
        work = Work(Recorder([(0.1, 20)], decides), job_of, store_in(folder))
        train(work, work.next())
        assert trials_table(folder).read()["end"].to_pylist() == [end]

        def longer(suggestion):
            return Job(**(vars(job_of(suggestion)) | {"tokens": 40, "stop_at": 40}))

        assert Work(Recorder([(0.1, 40)]), longer, store_in(folder)).needs_training()


def test_the_loss_of_a_truncated_run_is_foretold_from_the_curve_that_decided(tmp_path):
    """A run of the quickstart's size L, with a warmup: by the LRs alone, which show it, no power law is found."""
    losses = [6.022, 5.9085, 5.7243, 5.4505, 5.2599, 5.1659, 5.106, 5.0005, 4.9071, 4.8756, 4.8387, 4.7594, 4.7277]
    tokens = [30720, 61440, 94208, 124928, 155648, 188416, 219136, 249856, 280576, 311296, 344064, 374784, 405504]
    rule, target, found = StoppingRule(schedule="constant"), 499_712, {}
    for schedule in (None, Schedule.named("constant")):

        def job(suggestion, schedule=schedule):
            return Job(**(vars(job_of(suggestion)) | {"tokens": target, "stop_at": target, "schedule": schedule}))

        store = store_in(tmp_path / str(schedule))
        work, curve = Work(Recorder([(7.366e-3, target)], {tokens[-1]: RunEnd.TRUNCATED}), job, store), Curve()
        curve.given, one = Schedule.named("constant"), work.next()
        for at, loss in zip(tokens, losses, strict=True):
            lr = 7.366e-3 * min(1.0, at / 40_960)
            work.report(one, {"tokens": at, "loss": loss, "current_lr": lr})
            curve.add(at, loss)
            curve.note_lr(at, lr)
        work.end(one)
        (row,) = trials_table(tmp_path / str(schedule)).read().to_pylist()
        found[schedule is None] = row["target_loss"], row["target_loss_stderr"]
    assert rule.decide(curve, target) is RunEnd.TRUNCATED
    assert found[False] == pytest.approx(curve.extrapolate(target))
    assert found[False][1] < 0.01 * found[False][0] < found[True][1]


@pytest.mark.parametrize(
    ("decides", "loss", "end", "target_loss"),
    [
        ({}, 2.0, RunEnd.COMPLETED, 2.0),
        ({20: RunEnd.COMPLETED}, 2.0, RunEnd.COMPLETED, 2.0),
        ({5: RunEnd.TRUNCATED}, 3.0, RunEnd.TRUNCATED, 3.0),
        ({5: RunEnd.PRUNED}, 3.0, RunEnd.PRUNED, 3.0),
        ({5: RunEnd.DIVERGED}, 9.0, RunEnd.DIVERGED, None),
        ({}, math.nan, RunEnd.DIVERGED, None),
        ({}, None, RunEnd.DIVERGED, None),
    ],
)
def test_how_a_run_ended_is_recorded(tmp_path, decides, loss, end, target_loss):
    policy = Recorder([(0.1, 20)], decides)
    work = Work(policy, job_of, store_in(tmp_path))
    job = work.next()
    for tokens in POINTS:
        if work.report(job, {"tokens": tokens, "loss": loss}) is not None:
            break
    work.end(job, seconds=1.5)
    (row,) = trials_table(tmp_path).read().to_pylist()
    assert (row["end"], row["target_loss"], row["seconds"]) == (end, target_loss, 1.5)
    assert policy.given[-1][1] is end
    assert work.errors == []
    assert row["config"] == job.run.config


@pytest.mark.parametrize(
    ("until", "error", "end", "text"),
    [
        (10, None, RunEnd.FAILED, "it ended after 10 of 20 tokens"),
        (10, "OSError: full", RunEnd.FAILED, "OSError: full"),
        (20, "OSError: full", RunEnd.FAILED, "OSError: full"),
        (1, None, RunEnd.NO_REPORT, "it ended without a report"),
    ],
)
def test_a_run_that_failed_has_no_end_and_is_trained_again(tmp_path, until, error, end, text):
    policy = Recorder([(0.1, 20)])
    work = Work(policy, job_of, store_in(tmp_path))
    train(work, work.next(), until=until, error=error)
    assert policy.given[-1][1] is end
    assert text in work.errors[0]
    assert len(trials_table(tmp_path)) == 0
    assert len(evaluations_table(tmp_path)) == sum(tokens <= until for tokens in POINTS)  # what it measured is kept
    assert Work(Recorder([(0.1, 20)]), job_of, store_in(tmp_path)).needs_training()


def test_a_report_without_a_loss_ends_the_run(tmp_path):
    work = Work(Recorder([(0.1, 20)]), job_of, store_in(tmp_path))
    job = work.next()
    assert work.report(job, {"accuracy": 0.5, "tokens": 5}) is RunEnd.NO_REPORT
    work.end(job)
    assert "it reported no `loss`, but accuracy, tokens" in work.errors[0]


def test_every_metric_is_kept_and_lr_is_the_peak(tmp_path):
    work = Work(Recorder([(0.1, 20)]), job_of, store_in(tmp_path))
    train(work, work.next(), lr=0.05, mmlu=np.float32(0.25), note="warm", router={"load": [1, 2]})
    row = evaluations_table(tmp_path).read().to_pylist()[0]
    assert (row["lr"], row["current_lr"], row["mmlu"], row["note"]) == (0.1, 0.05, 0.25, "warm")
    assert json.loads(row["router"]) == {"load": [1, 2]}
    assert row["diverged"] is False


@pytest.mark.parametrize("key", ["current_lr", "learning_rate", "lr"])
def test_the_schedule_of_a_run_is_given_to_the_policy(tmp_path, key):
    policy = Recorder([(0.1, 20)])
    work = Work(policy, job_of, store_in(tmp_path))
    job = work.next()
    for tokens in POINTS:
        work.report(job, {"tokens": tokens, "loss": 3.0, key: 0.1 if tokens < 15 else 0.04})
    work.end(job)
    given = [one[3] for one in policy.given if len(one) == 4]
    assert given == [0.1, 0.1, 0.04, 0.04]
    replayed = Recorder([(0.1, 20)])
    assert not Work(replayed, job_of, store_in(tmp_path)).needs_training()
    assert replayed.given == policy.given


def test_a_run_whose_lr_falls_is_never_truncated(tmp_path):
    """A policy that truncates: with the LRs of a cosine it does not, without them it does."""
    setting = Setting(name="S", tokens=1000.0)
    tokens = np.arange(10, 1001, 10)
    ends = []
    for folder, known in ((tmp_path / "known", True), (tmp_path / "unknown", False)):
        policy = QuadraticPolicy([setting], lr_range=(1e-3, 1e-1), stopping=StoppingRule(min_fraction=0.3))
        work = Work(policy, search_job, store_in(folder))
        for _ in range(3):
            job = work.next()
            for t in tokens:
                loss = 2 + 3 * t**-0.5 + 0.02 * math.cos(math.pi * t / 1000)
                lr = {"current_lr": job.lr * (0.5 + 0.5 * math.cos(math.pi * t / 1000))} if known else {}
                if work.report(job, {"tokens": int(t), "loss": loss, **lr}) is not None:
                    break
            work.end(job)
        ends.append(set(trials_table(folder).read()["end"].to_pylist()))
    assert ends == [{"completed"}, {"truncated"}]


def test_a_metric_of_another_type_than_its_column_is_named(tmp_path):
    work = Work(Recorder([(0.1, 20)]), job_of, store_in(tmp_path))
    with pytest.raises(DataError, match="column 'grad_norm'"):
        train(work, work.next(), grad_norm="high")


def test_rows_that_were_reported_before_change_nothing(tmp_path):
    work = Work(Recorder([(0.1, 10)]), job_of, store_in(tmp_path))
    train(work, work.next())
    work = Work(Recorder([(0.1, 20)]), job_of, store_in(tmp_path))
    job = work.next()
    for tokens in POINTS:  # a resumed trainable reports its earlier rows once more
        work.report(job, {"tokens": tokens, "loss": loss_at(0.1, tokens), "train_seconds": 99})
    work.end(job)
    rows = evaluations_table(tmp_path).read().to_pylist()
    assert [(row["tokens"], row.get("train_seconds")) for row in rows] == [(5, None), (10, None), (15, 99), (20, 99)]
    assert trials_table(tmp_path).read()["evaluations"].to_pylist() == [2, 4]


def test_lost_evaluations_make_the_end_of_their_run_no_answer(tmp_path):
    store = store_in(tmp_path)
    work = Work(Recorder([(0.1, 10), (0.2, 20)]), job_of, store)
    for _ in range(2):
        train(work, work.next())
    evaluations_table(tmp_path).fragments()[1].unlink()
    store = store_in(tmp_path)
    assert list(store.lost()) == [job_of((0.2, 20)).run.name]
    assert Work(Recorder([(0.2, 20)]), job_of, store).needs_training()
    assert not Work(Recorder([(0.1, 10)]), job_of, store).needs_training()


def test_events_are_sent_in_their_order(tmp_path):
    events = Events()
    work = Work(Recorder([(0.1, 10)]), job_of, store_in(tmp_path), events)
    job = work.next()
    work.started(job)
    train(work, job)
    assert [type(event).__name__ for event in events.seen] == ["RunStarted", "LossMeasured", "LossMeasured", "RunEnded"]
    assert {event.run for event in events.seen} == {job.run.name}
    assert events.seen[-1].end is RunEnd.PAUSED

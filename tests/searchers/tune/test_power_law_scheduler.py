import logging
import math

import pytest

from raylr.analysis import Schedule
from raylr.fake_trials import FakeController, FakeTrial
from raylr.searchers import PowerLawScheduler
from raylr.testing import report, run_scheduler


def falling(lr, tokens):
    return 2.2 + 0.03 * math.log(lr / 3e-3) ** 2 + 0.3 * (tokens / 1e5) ** -0.5


@pytest.mark.parametrize("options", [{}, {"target": 1e5}])
def test_truncates_and_replaces_the_metric(options):
    trials, _ = run_scheduler(
        lambda: PowerLawScheduler(min_fraction=0.3, tolerance=0.02, **options), (1e-3, 3e-3), falling
    )
    for trial in trials:
        last = trial.last_result
        assert 3e4 <= last["tokens"] < 9e4
        assert last["raylr/decision"] == "truncated"
        assert last["raylr/loss"] == pytest.approx(falling(trial.config["lr"], 1e5), rel=2e-3)
        assert last["loss"] == last["raylr/loss"] < last["raylr/measured"]
        assert last["raylr/loss_stderr"] <= 0.02 * last["raylr/loss"]


def test_rewriting_can_be_turned_off():
    trials, _ = run_scheduler(
        lambda: PowerLawScheduler(min_fraction=0.3, tolerance=0.02, rewrite=False), [1e-3], falling
    )
    assert trials[0].last_result["loss"] > trials[0].last_result["raylr/loss"]
    assert "raylr/measured" not in trials[0].last_result


def test_complete_at_the_target():
    trials, _ = run_scheduler(lambda: PowerLawScheduler(target=5e4, min_fraction=1.0), [1e-3], falling)
    assert trials[0].last_result["tokens"] == 5e4
    assert trials[0].last_result["raylr/decision"] == "completed"
    assert trials[0].last_result["raylr/loss"] == falling(1e-3, 5e4)


def test_diverged_trials_carry_nan():
    trials, _ = run_scheduler(PowerLawScheduler, [1e-3], lambda lr, t: math.nan if t > 2e4 else falling(lr, t))
    assert trials[0].last_result["raylr/decision"] == "diverged"
    assert math.isnan(trials[0].last_result["raylr/loss"])
    assert trials[0].last_result["tokens"] == 2.1e4


def test_prunes_what_cannot_win():
    options = {"min_fraction": 0.3, "tolerance": 1e-9, "prune": True}
    trials, _ = run_scheduler(lambda: PowerLawScheduler(**options), (3e-3, 1e-1), falling)
    assert trials[0].last_result["raylr/decision"] == "completed"
    assert trials[1].last_result["raylr/decision"] == "pruned"


def test_decisions_do_not_depend_on_other_trials():
    together, _ = run_scheduler(PowerLawScheduler, (1e-3, 3e-3, 1e-2), falling)
    alone = [run_scheduler(PowerLawScheduler, [t.config["lr"]], falling)[0][0] for t in together]
    assert [t.last_result["tokens"] for t in together] == [t.last_result["tokens"] for t in alone]


def test_tokens_that_go_back_are_named_once(caplog):
    scheduler, controller, trial = PowerLawScheduler(metric="loss", mode="min"), FakeController(), FakeTrial("a")
    scheduler.on_trial_add(controller, trial)
    with caplog.at_level(logging.ERROR):
        for step in (3, 2, 1, 4):
            assert scheduler.on_trial_result(controller, trial, report(2.0, step)) == "CONTINUE"
    assert caplog.text.count("it must grow") == 1
    assert "from 3000 to 2000" in caplog.text


def test_a_missing_target_or_time_is_named(caplog):
    trial = FakeTrial("a")
    trial.config = {"lr": 1.0}
    for options, result in (({}, report(2.0)), ({"time_attr": "steps"}, report(2.0))):
        scheduler = PowerLawScheduler(metric="loss", mode="min", **options)
        scheduler.on_trial_add(FakeController(), trial)
        with caplog.at_level(logging.ERROR):
            assert scheduler.on_trial_result(FakeController(), trial, result) == "CONTINUE"
    assert "target='tokens_target' is not a positive number" in caplog.text
    assert "no number at 'steps' in the reports" in caplog.text


def test_a_report_without_the_metric_is_named_and_left_out(caplog):
    scheduler, controller, trial = PowerLawScheduler(metric="val_loss", mode="min"), FakeController(), FakeTrial("a")
    scheduler.on_trial_add(controller, trial)
    with caplog.at_level(logging.ERROR):
        for step in range(1, 6):
            result = {**report(2.0, step), "hostname": "here"}
            assert scheduler.on_trial_result(controller, trial, result) == "CONTINUE"
            trial.last_result = result
    assert caplog.text.count("no 'val_loss' in a report, which has loss, tokens:") == 1
    scheduler.on_trial_complete(controller, trial, trial.last_result)
    assert "raylr/decision" not in trial.last_result


@pytest.mark.parametrize(
    "options", [{"mode": "best"}, {"target": 0}, {"min_fraction": 0.0}, {"min_fraction": 1.5}, {"tolerance": 0}]
)
def test_bad_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        PowerLawScheduler(**options)


def decayed(lr, tokens):
    """A cosine's loss: the noise floor falls with the LR."""
    return falling(lr, tokens) + 0.3 * math.cos(0.5 * math.pi * tokens / 1e5)


def with_lr(key, value, loss=decayed, **options):
    """The scheduler and the only trial, whose reports have the LR of the schedule as well."""
    scheduler, controller = PowerLawScheduler(metric="loss", mode="min", target=1e5, **options), FakeController()
    trial = FakeTrial("a")
    scheduler.on_trial_add(controller, trial)
    for step in range(1, 100):
        trial.last_result = report(loss(3e-3, 1e3 * step), step) | {key: value(1e3 * step)}
        if scheduler.on_trial_result(controller, trial, trial.last_result) == "STOP":
            break
    scheduler.on_trial_complete(controller, trial, trial.last_result)
    return scheduler, trial


@pytest.mark.parametrize("key", ["current_lr", "learning_rate", "lr", "optim/lr"])
def test_trials_on_a_cosine_run_to_their_end(key, caplog):
    options = {"lr_attr": key} if "/" in key else {}
    with caplog.at_level(logging.ERROR):
        _, trial = with_lr(key, lambda t: 3e-3 * math.cos(0.5 * math.pi * t / 1e5), **options)
    assert trial.last_result["tokens"] == 9.9e4
    assert trial.last_result["loss"] == decayed(3e-3, 9.9e4)
    assert "raylr/measured" not in trial.last_result
    assert caplog.text.count("changes throughout") == 1


@pytest.mark.parametrize("decays", [True, False])
def test_a_trial_that_ends_in_its_decay_keeps_its_metric(decays):
    scheduler, trial = PowerLawScheduler(metric="loss", mode="min", target=1e5, min_fraction=1.0), FakeTrial("a")
    scheduler.on_trial_add(FakeController(), trial)
    for step in range(1, 60):
        lr = 1e-3 if step < 45 or not decays else 1e-3 * (60 - step) / 15
        trial.last_result = report(falling(3e-3, 1e3 * step), step) | {"current_lr": lr}
        assert scheduler.on_trial_result(FakeController(), trial, trial.last_result) == "CONTINUE"
    scheduler.on_trial_complete(FakeController(), trial, trial.last_result)
    assert ("raylr/measured" in trial.last_result) is not decays
    assert (trial.last_result["loss"] == falling(3e-3, 5.9e4)) is decays


@pytest.mark.parametrize("schedule", ["cosine", "linear", Schedule(name="wsd", decay_start=9e4)])
def test_a_schedule_may_be_named(schedule, caplog):
    with caplog.at_level(logging.ERROR):
        trials, _ = run_scheduler(lambda: PowerLawScheduler(schedule=schedule, target=1e5), [3e-3], falling)
    assert trials[0].last_result["raylr/decision"] == "completed"
    assert "Such trials run to their end" in caplog.text


def test_a_constant_lr_is_truncated_and_a_missing_one_is_named(caplog):
    with caplog.at_level(logging.WARNING):
        _, trial = with_lr("current_lr", lambda t: 1e-3 * min(t / 5e3, 1), falling)
        run_scheduler(lambda: PowerLawScheduler(target=1e5, schedule="constant"), [3e-3, 1e-3], falling)
    assert trial.last_result["raylr/decision"] == "truncated"
    assert not caplog.text
    with caplog.at_level(logging.WARNING):
        run_scheduler(lambda: PowerLawScheduler(target=1e5), [3e-3, 1e-3], falling)
    assert caplog.text.count("no LR to check that by") == 1


def test_a_resumed_trial_gives_the_decision_of_an_uninterrupted_one():
    ends = []
    for steps in (range(1, 100), [*range(1, 21), *range(12, 100)]):
        scheduler, trial = PowerLawScheduler(metric="loss", mode="min", target=1e5), FakeTrial("a")
        scheduler.on_trial_add(FakeController(), trial)
        for step in steps:
            if scheduler.on_trial_result(FakeController(), trial, report(falling(3e-3, 1e3 * step), step)) == "STOP":
                ends.append(step)
                break
    assert len(ends) == 2
    assert ends[0] == ends[1]

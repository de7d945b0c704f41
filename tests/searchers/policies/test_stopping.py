import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.analysis.curves.curve import Curve
from raylr.analysis.curves.schedule import Schedule
from raylr.errors import InputError
from raylr.searchers import RunEnd, StoppingRule
from raylr.searchers.policies.stopping import cannot_win, could_be_best, ended, final_loss, noise

TARGET = 1000.0


def curve(n=20, until=500.0, scatter=0.0, seed=0):
    t = np.linspace(until / n, until, n)
    y = 2.2 + 0.3 * (t / TARGET) ** -0.5 + scatter * np.random.default_rng(seed).standard_normal(n)
    return Curve(list(t), list(y))


@pytest.mark.parametrize(
    ("tolerance", "min_fraction", "want"),
    [(0.05, 0.4, RunEnd.TRUNCATED), (1e-5, 0.4, None), (0.05, 0.6, None), (0.05, 1.0, None)],
)
def test_a_run_is_truncated_once_its_loss_is_known(tolerance, min_fraction, want):
    assert StoppingRule(min_fraction=min_fraction, tolerance=tolerance).decide(curve(), TARGET) is want


def test_decisions_at_the_ends():
    rule = StoppingRule(tolerance=0.05)
    assert rule.decide(Curve(), TARGET) is None
    assert rule.decide(curve(until=TARGET), TARGET) is RunEnd.COMPLETED
    assert rule.decide(Curve([1.0, 2.0], [3.0, math.inf]), None) is RunEnd.DIVERGED
    assert rule.decide(curve(), None) is None


@pytest.mark.parametrize("options", [{"min_fraction": 0}, {"min_fraction": 1.1}, {"tolerance": 0}, {"tolerance": "x"}])
def test_bad_rules(options):
    with pytest.raises(InputError, match=next(iter(options))):
        StoppingRule(**options)


@pytest.mark.parametrize(
    ("tokens", "target", "want"),
    [
        ([1, 2, 3, 4], 4, RunEnd.COMPLETED),
        ([0, 1, 2, 3], 4, RunEnd.COMPLETED),  # for step in range(4)
        ([0, 1, 2], 4, RunEnd.PRUNED),
        ([1, 2, 3], 4, RunEnd.PRUNED),
        ([0, 100, 200, 300], 300, RunEnd.COMPLETED),  # a report before any training
        ([], 4, RunEnd.NO_REPORT),
    ],
)
def test_how_a_run_ended_by_itself(tokens, target, want):
    assert ended(Curve(list(tokens), [3.0] * len(tokens)), target) is want


def test_the_loss_at_the_target():
    assert final_loss(curve(), TARGET, RunEnd.TRUNCATED)[0] == pytest.approx(2.5, rel=2e-3)
    assert final_loss(curve(until=TARGET), TARGET, RunEnd.COMPLETED) == (curve(until=TARGET).loss[-1], 0.0)
    assert math.isnan(final_loss(curve(), TARGET, RunEnd.DIVERGED)[0])
    short = Curve([1.0, 2.0], [3.0, 2.5])
    assert final_loss(short, TARGET, RunEnd.PRUNED) == (2.5, 0.5)  # its whole fall
    assert final_loss(Curve([1.0], [3.0]), TARGET, RunEnd.PRUNED) == (3.0, math.inf)
    assert final_loss(short, None, RunEnd.PRUNED) == (2.5, 0.0)


def test_a_last_report_that_fits_no_power_law_takes_nothing_from_what_was_known():
    """A run reports once more after it was stopped: the losses of the quickstart's size S at an LR of 1.08e-2."""
    losses = [7.34, 6.6663, 6.4427, 6.2623, 6.0655, 5.9134, 5.758, 5.6056, 5.5279, 5.4847, 5.3841, 5.3124, 5.2553,
              5.1262, 5.057]  # fmt: skip
    tokens = [16384, 30720, 47104, 61440, 77824, 94208, 108544, 124928, 141312, 155648, 172032, 188416, 202752, 219136,
              233472]  # fmt: skip
    whole, part, target = Curve(), Curve(), 249_856
    for number, (at, loss) in enumerate(zip(tokens, losses, strict=True)):
        for one in (whole, part) if number < 13 else (whole,):
            one.add(at, loss)
            one.note_lr(at, 1.08e-2 * min(1.0, at / 40_960))
    loss, stderr = part.extrapolate(target)
    assert math.isinf(whole.extrapolate(target)[1])
    assert math.isfinite(stderr)
    now, error = final_loss(whole, target, RunEnd.TRUNCATED)
    assert losses[-1] - 0.1 < now < min(losses[-1], loss)
    assert stderr < error < 0.3 < losses[0] - losses[-1]  # what the beginning missed, not the whole fall


@given(
    losses=st.lists(st.floats(-5, 5), min_size=1, max_size=30),
    scale=st.sampled_from([1.0, 1e6, 1e-6]),
    level=st.sampled_from([0.0, 10.0, -10.0]),
)
def test_an_unfinished_run_is_never_exact_and_no_unit_matters(losses, scale, level):
    def found(values):
        return final_loss(Curve([10.0 * (step + 1) for step in range(len(values))], values), TARGET, RunEnd.PRUNED)

    loss, error = found(losses)
    assert error > 0
    other, error_there = found([scale * (value + level) for value in losses])
    if not (math.isinf(error) or math.isinf(error_there)):
        assert other / scale - level == pytest.approx(loss, abs=1e-3 + 0.02 * error)


def test_only_what_lies_above_by_both_errors_cannot_win():
    assert cannot_win(3.0, 0.1, [(2.0, 0.1)])
    assert not cannot_win(3.0, 0.1, [(2.0, 0.5)])
    assert not cannot_win(3.0, 0.1, [(2.0, math.inf)])
    assert not cannot_win(3.0, math.inf, [(2.0, 0.1)])


@given(st.floats(1e-3, 3e-2), st.integers(0, 1000))
def test_the_noise_of_reports_is_estimated(scatter, seed):
    assert noise(curve(200, scatter=scatter, seed=seed)) == pytest.approx(scatter, rel=0.45)
    assert noise(curve()) < 2e-2


def test_what_is_above_the_best_by_less_than_the_noise_could_be_best():
    noisy = curve(100, scatter=0.025)
    loss = noisy.extrapolate(TARGET)[0]
    assert could_be_best(noisy, TARGET, loss - 0.05)
    assert not could_be_best(noisy, TARGET, loss - 0.5)
    assert could_be_best(noisy, TARGET, math.inf)
    assert could_be_best(Curve([1.0], [3.0]), TARGET, 0.0)  # nothing is known of it


@pytest.mark.parametrize("schedule", ["cosine", Schedule(name="wsd", decay_start=0.8 * TARGET)])
def test_no_run_is_truncated_whose_lr_falls_before_the_target(schedule):
    long_enough = curve(until=0.7 * TARGET)
    assert StoppingRule(tolerance=0.05).decide(long_enough, TARGET) is RunEnd.TRUNCATED
    assert StoppingRule(tolerance=0.05, schedule=schedule).decide(long_enough, TARGET) is None
    assert StoppingRule(tolerance=0.05, schedule="constant").decide(long_enough, TARGET) is RunEnd.TRUNCATED
    with pytest.raises(InputError, match="schedule"):
        StoppingRule(schedule=1)  # type: ignore[arg-type]

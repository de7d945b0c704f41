import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis import QuadraticPrior, fit_quadratic
from raylr.analysis.optimum.quadratic import bend

LRS = np.geomspace(1e-4, 6e-3, 7)
STATUSES = {"ok", "edge_low", "edge_high", "flat", "concave", "too_few"}


def losses(lr, opt=8e-4, curvature=0.02, skew=0.0, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return 3 + curvature * bend(np.log(lr / opt), np.array(skew)) + rng.normal(0, 1, len(lr)) * noise


def test_a_quadratic_is_recovered_exactly():
    fit = fit_quadratic(LRS, losses(LRS))
    assert fit.ok
    assert fit.lr_opt == pytest.approx(8e-4, rel=1e-5)
    assert fit.loss_min == pytest.approx(3, abs=1e-7)
    assert fit.curvature == pytest.approx(0.02, rel=1e-4)
    assert fit.skew == 0
    assert fit.r2 == pytest.approx(1)
    assert fit.predict(LRS) == pytest.approx(losses(LRS), abs=1e-6)
    assert fit.regret(8e-4 * math.e) == pytest.approx(0.02, rel=1e-3)


def test_three_points_are_enough_and_two_are_not():
    assert fit_quadratic(LRS[::3], losses(LRS[::3])).lr_opt == pytest.approx(8e-4, rel=1e-4)
    two = fit_quadratic(LRS[:2], losses(LRS[:2]))
    assert two.status == "too_few"
    assert math.isnan(two.lr_opt)
    assert math.isnan(two.regret(1e-3))
    assert two.lr_interval() == (0, math.inf)


def test_a_prior_makes_two_points_enough():
    prior = QuadraticPrior(curvature=0.02, curvature_log_sd=0.2)
    lr = np.array([4e-4, 2e-3])
    fit = fit_quadratic(lr, losses(lr), prior=prior)
    assert fit.ok
    assert fit.lr_opt == pytest.approx(8e-4, rel=0.1)
    low, high = fit.lr_interval()
    assert low < 8e-4 < high < 2e-3


def test_a_prior_on_the_optimum_makes_one_point_enough():
    prior = QuadraticPrior(curvature=0.02, curvature_log_sd=0.3, lr_opt=1e-3, log_lr_opt_sd=0.2)
    low, high = fit_quadratic([5e-4], [3.0], prior=prior).lr_interval(0.9)
    assert low == pytest.approx(1e-3 * math.exp(-1.645 * 0.2), rel=0.5)
    assert 1e-3 < high < 3e-3


def test_diverged_runs_bound_the_optimum_and_nothing_more():
    y = losses(LRS)
    worse = np.concatenate([y[:-1], [math.nan]])
    fit, without = fit_quadratic(LRS, worse), fit_quadratic(LRS[:-1], y[:-1])
    assert fit.lr_opt == pytest.approx(without.lr_opt)
    assert fit.upper_bound == pytest.approx(LRS[-1])
    assert fit_quadratic(LRS, np.concatenate([y[:-1], [9.0]])).lr_opt == pytest.approx(without.lr_opt)
    edge = fit_quadratic(LRS[:4], [3.3, 3.2, 3.1, math.inf])
    assert edge.status == "edge_high"
    assert edge.lr_interval()[1] <= LRS[3] * (1 + 1e-12)


def test_a_steep_high_side_does_not_pull_the_optimum():
    y = losses(LRS, skew=0.0)
    y[-2:] += [0.1, 0.6]
    assert fit_quadratic(LRS, y).lr_opt == pytest.approx(8e-4, rel=0.12)
    assert np.exp(-np.polyfit(np.log(LRS), y, 2)[1] / 2 / np.polyfit(np.log(LRS), y, 2)[0]) < 6e-4
    bent = fit_quadratic(LRS, losses(LRS, skew=0.6))
    assert bent.lr_opt == pytest.approx(8e-4, rel=0.05)
    assert bent.skew > 0.3


@pytest.mark.parametrize(("opt", "status"), [(3e-5, "edge_low"), (5e-2, "edge_high")])
def test_an_optimum_outside_leaves_the_interval_open(opt, status):
    fit = fit_quadratic(LRS, losses(LRS, opt=opt, noise=2e-3))
    assert fit.status == status
    assert (fit.lr_opt < LRS[0]) if status == "edge_low" else (fit.lr_opt > LRS[-1])
    low, high = fit.lr_interval()
    assert low < opt < high


def test_flat_and_concave_losses_are_said_to_be_so():
    assert fit_quadratic(LRS, np.full(7, 3.0)).status == "flat"
    hill = fit_quadratic(LRS, 3 - 0.05 * np.log(LRS / 8e-4) ** 2)
    assert hill.status in {"concave", "edge_low", "edge_high"}


def test_repeated_lrs_in_any_order_sharpen_the_optimum():
    lr = np.concatenate([LRS] * 4)
    order = np.random.default_rng(1).permutation(lr.size)
    y = losses(lr, noise=4e-3)
    many, one = fit_quadratic(lr[order], y[order]), fit_quadratic(LRS, y[:7])
    assert many.ok
    assert many.log_lr_stderr() < one.log_lr_stderr()


def test_intervals_cover_under_noise():
    inside = []
    for seed in range(200):
        low, high = fit_quadratic(LRS, losses(LRS, noise=3e-3, seed=seed)).lr_interval(0.9)
        inside.append(low <= 8e-4 <= high)
    assert 0.85 <= np.mean(inside) <= 0.995


@pytest.mark.parametrize(
    ("lr", "loss", "words"),
    [
        ([1e-3, -1.0, 2e-3], [3, 3, 3], "above zero"),
        ([1e-3, 2e-3], [3, 3, 3], "one entry a measurement"),
        ([[1e-3, 2e-3]], [[3, 3]], "flat array"),
        (["a"], [3], "must be numbers"),
    ],
)
def test_bad_input_is_refused(lr, loss, words):
    with pytest.raises(ValueError, match=words):
        fit_quadratic(lr, loss)


def test_bad_priors_and_levels_are_refused():
    with pytest.raises(ValueError, match="curvature"):
        QuadraticPrior(curvature=-1, curvature_log_sd=1)
    with pytest.raises(ValueError, match="skew_sd"):
        QuadraticPrior(curvature=1, curvature_log_sd=1, skew_sd=0)
    with pytest.raises(ValueError, match="level"):
        fit_quadratic(LRS, losses(LRS)).lr_interval(90)


POINTS = st.lists(
    st.tuples(st.floats(1e-12, 1e3), st.floats(0, 20) | st.floats()),
    max_size=9,
)


@settings(deadline=None, max_examples=120)
@given(
    points=POINTS,
    stderr=st.none() | st.floats(1e-300, 1e300),
    curvature=st.none() | st.floats(1e-9, 1e6),
)
def test_any_input_gives_a_status_and_ok_means_numbers(points, stderr, curvature):
    lr, loss = np.array([p[0] for p in points]), np.array([p[1] for p in points])
    prior = None if curvature is None else QuadraticPrior(curvature=curvature, curvature_log_sd=1.0)
    fit = fit_quadratic(lr, loss, loss_stderr=stderr, prior=prior)
    assert fit.status in STATUSES
    assert fit.message
    low, high = fit.lr_interval()
    assert low <= high
    if fit.ok:
        assert all(math.isfinite(v) for v in (fit.lr_opt, fit.loss_min, fit.curvature, fit.skew, fit.rmse))
        assert low <= fit.lr_opt * (1 + 1e-9)
        assert fit.lr_opt <= high * (1 + 1e-9)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    lr_scale=st.floats(0.01, 100),
    loss_scale=st.floats(0.01, 100),
    shift=st.floats(-2, 2),
)
def test_other_units_order_and_offsets_change_nothing(seed, lr_scale, loss_scale, shift):
    y = losses(LRS, noise=2e-3, seed=seed)
    order = np.random.default_rng(seed).permutation(LRS.size)
    base = fit_quadratic(LRS, y, loss_stderr=2e-3)
    other = fit_quadratic(lr_scale * LRS[order], loss_scale * (y[order] + shift), loss_stderr=2e-3 * loss_scale)
    assert other.status == base.status
    assert math.log(other.lr_opt / base.lr_opt / lr_scale) == pytest.approx(0, abs=1e-5)
    assert other.loss_min / loss_scale - shift == pytest.approx(base.loss_min, rel=1e-6)
    assert np.array(other.lr_interval()) / lr_scale == pytest.approx(np.array(base.lr_interval()), rel=1e-5)


def test_draws_have_the_quantiles_of_the_interval():
    lr = np.geomspace(1e-4, 3e-3, 6)
    fit = fit_quadratic(lr, 3 + 0.02 * np.log(lr / 7e-4) ** 2 + np.array([1, -1, 1, -1, 1, -1]) * 1e-3)
    sample = fit.draws(20_000, np.random.default_rng(0))
    for level in (0.5, 0.9):
        low, high = np.log(fit.lr_interval(level)) - math.log(fit.lr_opt)
        assert np.quantile(sample, [0.5 - level / 2, 0.5 + level / 2]) == pytest.approx([low, high], abs=0.04)
    assert np.isnan(fit_quadratic([], []).draws(3, np.random.default_rng(0))).all()


def test_a_diverged_run_above_three_others_says_that_the_curve_is_steep_there():
    lr = np.array([2e-4, 8e-4, 2e-3, 8e-3])
    y = 3 + 0.05 * bend(np.log(lr / 1e-3), np.array(0.6))
    y[-1] = math.inf
    fit, without = fit_quadratic(lr, y), fit_quadratic(lr[:3], y[:3])
    assert fit.lr_opt == pytest.approx(1e-3, rel=0.02)
    assert without.lr_opt < 0.95e-3
    assert fit.upper_bound == pytest.approx(8e-3)


@pytest.mark.parametrize("loss", [[2.62, 2.57, 2.574, 6.5], [2.62, 2.6, 2.606, 2.8]])
@pytest.mark.parametrize("stderr", [None, 1e-4, 1e-3])
def test_ends_far_above_the_best_bound_the_optimum(loss, stderr):
    """A loss 2 % above the best is no noise, even where the curve's shape is not known that far out."""
    lr = np.array([5e-4, 1.4e-3, 5.5e-3, 1.6e-2])
    fit = fit_quadratic(lr, loss, loss_stderr=stderr)
    assert fit.ok
    low, high = fit.lr_interval()
    assert lr[0] * (1 - 1e-9) <= low < fit.lr_opt < high <= lr[-1] * (1 + 1e-9)

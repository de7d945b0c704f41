"""A loss that is known less well than others is never the reason for an answer that the others contradict."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis.optimum import fit_optimum
from raylr.analysis.optimum.response import fit_response
from raylr.analysis.status import Status

ERRORS = st.floats(1e-3, 1e3) | st.just(math.inf)


def runs(at, n=7, curvature=0.04, best=1.3e-3, lead=0.3):
    lr = np.geomspace(1e-4, 1e-1, n)
    loss = 3 + curvature * np.log(lr / best) ** 2
    wrong = loss.copy()
    wrong[at] = loss.min() - lead
    return lr, loss, wrong


@given(
    at=st.integers(0, 7), curvature=st.floats(0.005, 1.0), best=st.floats(3e-4, 3e-2), lead=st.floats(0.01, 3.0),
    error=ERRORS, scale=st.sampled_from([1.0, 1e6, 1e-6]),
)  # fmt: skip
@settings(max_examples=60)
def test_the_answer_is_never_expected_to_be_worse_than_what_was_measured(at, curvature, best, lead, error, scale):
    lr, loss, wrong = runs(at, 8, curvature, best, lead * curvature)
    stderr = np.where(np.arange(8) == at, error * curvature, 0.0)
    fit = fit_optimum(lr, scale * wrong, stderr=scale * stderr)
    measured = np.delete(loss, at).min()
    assert fit.loss / scale <= measured + 0.1 * curvature + 2 * fit.noise / scale
    if fit.status is Status.OK:
        assert 3 + curvature * math.log(fit.lr / best) ** 2 <= measured + 0.1 * curvature


@pytest.mark.parametrize("at", [0, 3, 6])
def test_a_loss_of_which_nothing_is_known_is_none(at):
    lr, _, wrong = runs(at)
    stderr = np.where(np.arange(7) == at, math.inf, 0.0)
    ranges = (1e-4, 1e-1)
    fit = fit_optimum(lr, wrong, stderr=stderr, lr_range=ranges)
    without = fit_optimum(np.delete(lr, at), np.delete(wrong, at), stderr=np.zeros(6), lr_range=ranges)
    assert (fit.lr, fit.status, fit.loss, fit.interval()) == (
        without.lr, without.status, without.loss, without.interval(),
    )  # fmt: skip
    assert fit.trials == 7
    nothing = fit_optimum(lr, wrong, stderr=math.inf)
    assert nothing.status is Status.TOO_FEW


def test_one_that_is_far_below_is_named_and_inside_the_interval():
    lr, _, wrong = runs(6, lead=0.5)
    fit = fit_optimum(lr, wrong, stderr=[0, 0, 0, 0, 0, 0, 0.3])
    assert fit.status is Status.CONTRADICTED
    assert "run at LR 0.1" in fit.message
    assert fit.lr == pytest.approx(1.3e-3, rel=0.05)
    assert fit.lr_low < 1.3e-3 < 0.1 < fit.lr_high
    assert fit.interval() == (fit.lr_low, fit.lr_high)


def test_a_precise_loss_is_not_overruled_and_a_diverged_run_stays():
    lr, _, wrong = runs(6, lead=0.5)
    assert fit_optimum(lr, wrong, stderr=[0, 0, 0, 0, 0, 0, 0.01]).status is Status.EDGE_HIGH
    losses = np.where(np.arange(7) == 6, math.nan, wrong)
    lost = fit_optimum(lr, losses, stderr=[0, 0, 0, 0, 0, 0, math.inf])
    assert lost.divergence_probability(0.1) == pytest.approx(1.0)


def test_many_learning_rates_with_imprecise_losses_end():
    rng = np.random.default_rng(0)
    lr = np.geomspace(1e-4, 1e-1, 200)
    loss = 3 + 0.04 * np.log(lr / 1.3e-3) ** 2
    stderr = rng.exponential(0.3, 200)
    fit = fit_optimum(lr, loss + stderr * rng.standard_normal(200), stderr=stderr)
    assert math.isfinite(fit.loss)


@given(seed=st.integers(0, 99), error=st.floats(0.4, 100.0) | st.just(math.inf))
@settings(max_examples=10)
def test_the_same_holds_over_two_axes(seed, error):
    rng = np.random.default_rng(seed)
    points = {"lr": 1e-4 * 1e3 ** rng.random(14), "weight_decay": 0.01 * 100 ** rng.random(14)}
    loss = 3 + 0.04 * np.log(points["lr"] / 2e-3) ** 2 + 0.02 * np.log(points["weight_decay"] / 0.1) ** 2
    at = int(np.argmax(loss))
    stderr = np.where(np.arange(14) == at, error, 0.0)
    fit = fit_response(points, np.where(np.arange(14) == at, 2.9, loss), stderr=stderr)
    assert fit.loss <= loss.min() + 0.01
    if fit.status is Status.OK or error > 2.0:  # more than all others differ by
        assert abs(math.log(fit.at["lr"] / 2e-3)) < 0.5
    if fit.status is Status.CONTRADICTED:
        assert fit.high["lr"] >= points["lr"][at] >= fit.low["lr"]

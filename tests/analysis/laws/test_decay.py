import math

import numpy as np
import pytest

from raylr.analysis import Conditions, fit_decay_shift, fit_lr_law
from raylr.analysis.laws import presets

STABLE = np.array([1e-3, 7e-4, 5e-4, 4e-4])


def test_the_shift_is_the_mean_ratio():
    shift = fit_decay_shift(STABLE, 3 * STABLE)
    assert shift.ok
    assert shift.log_shift == pytest.approx(math.log(3))
    assert shift.scatter == pytest.approx(0, abs=1e-12)
    noisy = fit_decay_shift(STABLE, STABLE * np.array([2.0, 3.0, 4.0, math.nan]), stderr=[0.1, 0.1, 0.1, 9.0])
    assert noisy.cells == 3
    assert noisy.stderr == pytest.approx(noisy.scatter / math.sqrt(3))


def test_a_stable_law_becomes_a_decayed_one():
    n, d = np.repeat([1e8, 4e8], 2), np.tile([1e9, 4e9], 2)
    draws = np.log(STABLE) + np.random.default_rng(0).normal(0, 0.1, (30, 4))
    law = fit_lr_law(n, d, STABLE, stderr=0.05, draws=draws, conditions=Conditions(objective="stable"))
    shift = fit_decay_shift(STABLE, 3 * STABLE, stderr=np.full(4, 0.2))
    decayed = shift.decayed(law)
    assert decayed.conditions.objective == "decayed"
    assert (decayed.alpha, decayed.beta) == (law.alpha, law.beta)
    before, after = law.predict(1e8, 1e9), decayed.predict(1e8, 1e9)
    assert after.lr == pytest.approx(3 * before.lr)
    assert after.lr_high / after.lr_low > before.lr_high / before.lr_low
    assert decayed.draws_covariance == law.draws_covariance
    with pytest.raises(ValueError, match="objective is decayed"):
        shift.decayed(decayed)
    assert math.isnan(shift.decayed(presets.get("zhou2026")).predict(1e9, 1e11).lr_low)


def test_no_common_cell_gives_no_shift():
    shift = fit_decay_shift([math.nan, 1e-3], [1e-3, math.nan])
    assert shift.status == "too_few"
    with pytest.raises(ValueError, match="no shift"):
        shift.decayed(presets.get("zhou2026"))


def test_one_cell_without_errors_is_not_trusted():
    assert fit_decay_shift([1e-3], [3e-3]).stderr == math.inf
    assert fit_decay_shift([1e-3], [3e-3], stderr=[0.1]).stderr == pytest.approx(0.1)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="decayed"):
        fit_decay_shift([1e-3], [-1.0])
    with pytest.raises(ValueError, match="one entry a measurement"):
        fit_decay_shift([1e-3, 2e-3], [1e-3])

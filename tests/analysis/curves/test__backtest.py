import numpy as np
import pytest

from raylr.analysis.curves import _backtest

X = np.linspace(-3, 0, 31)


def runs(change=0.0):
    out = {}
    for one in (-8.0, -7.3, -6.6):
        z = one + 7.3
        y = 3 + 0.3 * np.exp(-0.3 * z - 0.4 * X) + 0.15 * np.exp(0.6 * z) + change * np.maximum(X + 0.7, 0)
        out[one] = (X, y, np.full(X.size, 1e-8))
    return out


def test_the_models_own_curves_are_foreseen():
    missed, foreseen = _backtest.misses(runs(), 3, 3)
    assert missed.size == len(_backtest.SHARES)
    assert np.abs(missed).max() < 0.15  # the priors pull a little
    assert (foreseen > 0).all()
    assert _backtest.size(missed, foreseen) == _backtest.PRIOR_MISS / 2  # three tries and the prior, none beyond


@pytest.mark.parametrize("change", [-0.1, 0.1])
def test_a_change_of_course_is_a_miss_of_its_sign(change):
    missed, foreseen = _backtest.misses(runs(change), 3, 3)
    # half way, the best run gains 0.12 nats and more in an e-fold: 0.1 more or less is a miss of about 0.6
    assert np.sign(missed[1]) == np.sign(change)
    assert 0.3 < abs(missed[1]) < 1
    assert _backtest.size(missed, foreseen) > _backtest.PRIOR_MISS
    assert _backtest.size(missed, foreseen) < _backtest.size(missed, 0 * foreseen)


def test_runs_too_short_or_too_few_have_no_miss():
    assert _backtest.misses({one: tuple(v[-4:] for v in run) for one, run in runs().items()}, 3, 3)[0].size == 0
    assert _backtest.misses(dict(list(runs().items())[:2]), 3, 3)[0].size == 0
    assert _backtest.size(np.empty(0), np.empty(0)) == _backtest.PRIOR_MISS


def test_other_units_give_the_same_miss():
    scaled = {one: (x, 2 + 3 * y, 9 * v) for one, (x, y, v) in runs(0.05).items()}
    for one, other in zip(_backtest.misses(scaled, 3, 3), _backtest.misses(runs(0.05), 3, 3), strict=True):
        assert one == pytest.approx(other, rel=1e-4)

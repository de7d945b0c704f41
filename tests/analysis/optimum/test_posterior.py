import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.analysis.optimum.posterior import ShapePrior, posterior, rise

LOW, HIGH = math.log(1e-4), math.log(1e-1)


def see(x, y, **kwargs):
    return posterior(np.array(x, dtype=float), np.array(y, dtype=float), low=LOW, high=HIGH, **kwargs)


def bowl(x, best=-6.0, curvature=0.012, level=2.5):
    return level * (1 + curvature * (np.asarray(x) - best) ** 2)


@given(u=st.floats(-3, 3), k=st.floats(-1.2, 1.2))
def test_rise_is_a_convex_bowl_with_unit_curvature(u, k):
    f = float(rise(np.array(u), np.array(k)))
    assert f >= 0
    near = float(rise(np.array(1e-3), np.array(k)))
    assert near == pytest.approx(1e-6, rel=2e-3)


def test_rise_has_no_jump_at_no_skew():
    u = np.linspace(-3, 3, 13)
    assert np.allclose(rise(u, np.array(1e-6)), u**2, rtol=1e-5)


def test_probabilities_sum_to_one_and_shrink_with_data():
    widths = []
    for n in range(6):
        x = [-8.0, -5.0, -6.5, -6.0, -7.0][:n]
        p = see(x, bowl(x))
        assert p.p.sum() == pytest.approx(1.0)
        low, high = p.interval()
        widths.append(high - low)
        assert low < -6.0 < high
    assert widths[5] < widths[3] < widths[2] < widths[0]


def test_nothing_known_is_the_prior():
    p = see([], [], prior=ShapePrior(center=-6.0, center_sd=0.3))
    assert p.optimum()[0] == pytest.approx(-6.0, abs=0.1)
    assert p.count == 0


def test_order_and_units_do_not_matter():
    x = np.array([-8.0, -5.0, -6.5, -6.0])
    a, b = see(x, bowl(x)), see(x[::-1], 1e3 * bowl(x)[::-1])
    assert a.optimum()[0] == pytest.approx(b.optimum()[0], abs=1e-9)
    assert np.allclose(a.p, b.p)


def test_far_losses_on_a_cliff_do_not_move_the_optimum():
    x = [-7.0, -6.0, -5.5, -4.0, -3.0]
    y = [*bowl(x[:3]), 4.0, 7.0]
    assert see(x, y).optimum()[0] == pytest.approx(-6.0, abs=0.3)


def test_a_diverged_run_bounds_from_above_unless_a_better_run_lies_beyond():
    p = see([-8.0, -6.0], [2.55, math.nan])
    assert p.marginal()[p.x >= -6.0].sum() < 0.01
    q = see([-8.0, -7.0, -5.5, -6.0], [2.6, 2.55, 2.5, math.nan])
    assert q.marginal()[q.x >= -6.0].sum() > 0.5


def test_standard_errors_widen():
    x = [-8.0, -5.0, -6.5, -6.0]
    low, high = see(x, bowl(x)).interval()
    low_s, high_s = see(x, bowl(x), stderr=np.full(4, 0.03)).interval()
    assert high_s - low_s > 1.5 * (high - low)


def test_intervals_hold_what_they_promise():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(60):
        best, c = rng.uniform(-8, -4), 0.012 * math.exp(0.5 * rng.standard_normal())
        x = np.array([LOW + (HIGH - LOW) * f for f in (1 / 3, 2 / 3, 0.15, 0.5)])
        y = bowl(x, best, c) + 2.5e-3 * rng.standard_normal(4)
        low, high = see(x, y).interval(0.9)
        inside += low < best < high
    assert inside >= 50


def test_information_is_highest_where_the_optimum_is_undecided():
    x = [-8.0, -5.0]
    p = see(x, bowl(x))
    value = p.information()
    at = float(p.x[int(np.argmax(np.where((p.x >= LOW) & (p.x <= HIGH), value, 0)))])
    assert min(abs(at - t) for t in x) > 0.2
    assert np.isfinite(value).all()

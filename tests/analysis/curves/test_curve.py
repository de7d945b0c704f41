import math

import numpy as np
import pytest

from raylr.analysis.curves.curve import Curve

TARGET = 1000.0


def curve(n=20, until=500.0, noise=0.0):
    t = np.linspace(until / n, until, n)
    return Curve(list(t), list(2.2 + 0.3 * (t / TARGET) ** -0.5 + noise * np.random.default_rng(0).standard_normal(n)))


def test_extrapolates_a_power_law():
    loss, stderr = curve().extrapolate(TARGET)
    assert loss == pytest.approx(2.5, rel=1e-3)
    assert 0 < stderr < 0.1
    assert curve(until=300.0).extrapolate(TARGET)[1] > stderr


def test_a_short_curve_says_nothing():
    assert curve(n=4).extrapolate(TARGET) == (curve(n=4).loss[-1], math.inf)
    assert math.isnan(Curve().extrapolate(TARGET)[0])


def test_at_the_target_it_is_measured():
    c = Curve([500.0, 1500.0], [3.0, 2.0])
    assert c.extrapolate(1000.0) == (2.5, 0.0)


def test_divergence():
    assert Curve([1.0], [math.nan]).diverged()
    assert not Curve().diverged()
    assert not Curve([1, 2, 3, 4, 5, 6], [9, 4, 3, 8, 2.9, 2.8]).diverged()  # a spike
    assert Curve([1, 2, 3, 4, 5, 6], [9, 4, 3, 8, 8, 8]).diverged()
    assert not Curve([1, 2, 3, 4, 5, 6], [9, 9, 9, 9, 9, 9]).diverged()


def test_tokens_only_grow():
    c = Curve()
    assert c.add(10, 3.0)
    assert not c.add(10, 2.0)
    assert not c.add(5, 2.0)
    assert c.loss == [3.0]


def test_a_counter_may_start_at_zero():
    shifted = curve()
    with_zero = Curve([0.0, *shifted.tokens], [11.0, *shifted.loss])
    assert with_zero.extrapolate(TARGET) == shifted.extrapolate(TARGET)

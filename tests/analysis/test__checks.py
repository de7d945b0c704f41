import math

import numpy as np
import pytest

from raylr.analysis import _checks


def test_vectors_are_flat_numbers():
    assert _checks.vector([1, 2], "x").dtype == np.float64
    with pytest.raises(ValueError, match=r"x must be a flat array.*\(1, 2\)"):
        _checks.vector([[1, 2]], "x")
    with pytest.raises(ValueError, match="x must be numbers"):
        _checks.vector(["one"], "x")


@pytest.mark.parametrize("bad", [0, -1, np.nan, np.inf])
def test_positive_names_the_place(bad):
    with pytest.raises(ValueError, match=r"lr must be finite and above zero.*position 1"):
        _checks.positive([1, bad], "lr")


def test_standard_errors_are_repeated_or_matched():
    assert _checks.standard_errors(0.1, 3, "s").tolist() == [0.1] * 3
    assert _checks.standard_errors(None, 3, "s") is None
    with pytest.raises(ValueError, match=r"one entry a measurement \(3\), got 2"):
        _checks.standard_errors([1, 2], 3, "s")


@pytest.mark.parametrize("level", [0, 1, 90, np.nan])
def test_levels_lie_between_0_and_1(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        _checks.level_of(level)


def test_choices_suggest_the_nearest():
    assert _checks.one_of("b", ("a", "b"), "letter") == "b"
    with pytest.raises(ValueError, match="unknown fruit 'aple'; did you mean 'apple'"):
        _checks.one_of("aple", ("apple", "pear"), "fruit")


def test_losses_too_large_or_small_for_their_squares_are_rounded():
    y = _checks.losses_of([3.0, -1e30, 1e300, 1e-70, math.nan], "loss")
    assert y == pytest.approx([3.0, math.inf, math.inf, 0.0, math.nan], nan_ok=True)
    assert _checks.losses_of([1.0, 2.0], "losses", axes=2).shape == (1, 2)
    with pytest.raises(ValueError, match="2 axes"):
        _checks.losses_of(np.zeros((1, 1, 1)), "losses", axes=2)


def test_masked_entries_are_missing():
    assert np.isnan(_checks.vector(np.ma.array([1.0, 2.0], mask=[False, True]), "loss")).tolist() == [False, True]


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, 1e-21, 1e31])
def test_counts_lie_in_a_range_and_optima_may_be_missing(value):
    assert np.isnan(_checks.optima_of([1e-3, math.nan], "lr_opt")).tolist() == [False, True]
    for check in (_checks.positive, _checks.optima_of):
        with pytest.raises(ValueError, match=r"lr must be .*, got .* at position 1"):
            check([1e-3, value], "lr")


@pytest.mark.parametrize("values", [["a", "b"], [1j], [[1], [1, 2]]])
def test_what_are_not_numbers_is_refused(values):
    with pytest.raises(ValueError, match="loss must be numbers"):
        _checks.vector(values, "loss")

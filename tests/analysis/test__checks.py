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

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.searchers._config import LRDomain, as_float, flatten, lookup, nest, number, place


class Scalar:  # as PyTorch's
    ndim = 0

    def item(self):
        return 2.5


@pytest.mark.parametrize(
    "value", [2.5, np.float32(2.5), np.array(2.5), Decimal("2.5"), Fraction(5, 2), Scalar(), np.float16(2.5)]
)
def test_numbers_of_any_kind(value):
    assert as_float(value) == 2.5
    assert number(value)


@pytest.mark.parametrize("value", [None, True, np.bool_(True), "2.5", [2.5], np.array([2.5]), 2.5j, {}, object()])
def test_what_is_no_number(value):
    assert as_float(value) is None


def test_numbers_that_are_not_finite():
    assert as_float(10**400) == math.inf
    assert as_float(-(10**400)) == -math.inf
    assert math.isnan(as_float(Decimal("nan")))
    assert math.isnan(as_float(Decimal("snan")))
    assert not number(np.array(math.nan))


def test_paths_lead_into_dicts_and_lists():
    space = {"groups": [{"lr": 1, "wd": 2}, {"lr": 3}], "betas": [0.9, 0.95], "a": {"b": 4}}
    flat = flatten(space)
    assert flat == {"groups/0/lr": 1, "groups/0/wd": 2, "groups/1/lr": 3, "betas": [0.9, 0.95], "a/b": 4}
    assert all(lookup(space, path) == value for path, value in flat.items())
    assert lookup(space, "groups/7/lr") is None
    config = {}
    place(config, "groups/0/lr", 9, space)
    place(config, "a/b", 8, space)
    assert config == {"groups": [{"lr": 9, "wd": 2}, {"lr": 3}], "a": {"b": 8}}
    assert space["groups"][0]["lr"] == 1
    assert nest({"a/0/b": 1}) == {"a": {"0": {"b": 1}}}


@given(
    st.floats(1e-5, 1e-2), st.floats(1.5, 1e3), st.one_of(st.none(), st.floats(1e-5, 1e-2)), st.booleans(),
    st.floats(-14, 3),
)  # fmt: skip
def test_values_lie_in_their_domain(low, factor, step, from_low, log_lr):
    domain = LRDomain(low, low * factor, step=step, origin=low if from_low else 0.0)
    value = domain.within(log_lr)
    assert low * (1 - 1e-9) <= value <= low * factor * (1 + 1e-9) or (step is not None and not from_low)
    empty = step is not None and math.floor(domain.high / step) < math.ceil(domain.low / step)
    if step is not None and not (empty and not from_low):
        steps = (value - domain.origin) / step
        assert abs(steps - round(steps)) < 1e-5
        assert low * (1 - 1e-6) <= value <= low * factor * (1 + 1e-6)
    for beside in domain.neighbours(math.log(value)):
        assert beside != value


def test_whole_numbers():
    domain = LRDomain(1.0, 10.0, integer=True)
    assert domain.within(math.log(2.4)) == 2
    assert isinstance(domain.value(math.log(2.4)), int)
    assert domain.neighbours(math.log(10.0)) == [9.0]

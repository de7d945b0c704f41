import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.trainables.models.parametrization import Parametrization, parametrization
from raylr.trainables.models.transfer_cost import SEEDS, spreads, total, widened

RULE = parametrization("completed_p")


def test_without_a_difference_only_the_seeds_count():
    found = spreads(RULE, {"width": 1.0, "depth": 1.0, "tokens": 1.0, "batch": 1.0})
    assert [one.sd for one in found] == [SEEDS]


@given(width=st.floats(1.1, 64), depth=st.floats(1.1, 16), tokens=st.floats(1.1, 100))
def test_further_targets_have_wider_intervals_and_both_directions_are_alike(width, depth, tokens):
    near = {"width": width, "depth": depth, "tokens": tokens}
    far = {axis: ratio**2 for axis, ratio in near.items()}
    back = {axis: 1 / ratio for axis, ratio in near.items()}
    assert total(spreads(RULE, near)) < total(spreads(RULE, far))
    assert total(spreads(RULE, near)) == pytest.approx(total(spreads(RULE, back)))


def test_a_rule_nearer_to_the_measured_exponents_has_the_narrower_interval():
    half, fitted = (total(spreads(parametrization(token_lr=name), {"tokens": 16.0})) for name in ("half", "zhou"))
    none = total(spreads(parametrization("mup"), {"tokens": 16.0}))
    assert fitted < half < none


def test_no_rule_and_an_unknown_rule_cost_as_much_over_width():
    own = Parametrization.from_dict(
        {"name": "own", "terms": [{"quantity": "lr", "roles": ["hidden"], "width": -1, "source": "own"}]}
    )
    none, mine, known = (total(spreads(rule, {"width": 4.0})) for rule in (parametrization("standard"), own, RULE))
    assert none == mine > 4 * known
    assert "own table" in spreads(own, {"width": 4.0})[1].what


def test_a_rule_without_depth_has_the_wider_interval_over_depth():
    deep, none, mup = (
        total(spreads(rule, {"depth": 4.0})) for rule in (RULE, *map(parametrization, ("standard", "mup")))
    )
    assert none == mup > 2 * deep


@given(low=st.floats(0.1, 0.99), high=st.floats(1.01, 10), sd=st.floats(0, 2))
def test_a_widened_interval_holds_its_own(low, high, sd):
    below, above = widened(1.0, low, high, sd)
    assert below <= low * (1 + 1e-12)
    assert above >= high * (1 - 1e-12)


def test_an_open_end_stays_open():
    assert widened(1e-3, 0.0, math.inf, 0.2) == (0.0, math.inf)

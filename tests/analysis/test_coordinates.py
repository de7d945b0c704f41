import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis.coordinates import (
    CHANGE_TOLERANCE,
    INITIAL_TOLERANCE,
    Expected,
    Slope,
    Verdict,
    check_coordinates,
    fit_slope,
    judge,
)
from raylr.errors import InputError

FLAT = Expected(low=0.0, high=0.0, why="")


def made(slope, *, noise=0.0, seeds=4, scales=(1, 2, 4, 8), seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        (s, math.exp(slope * math.log(s) + noise * rng.normal() + 0.3 * k), k) for k in range(seeds) for s in scales
    ]
    return tuple(np.array(column) for column in zip(*rows, strict=True))


@settings(max_examples=30)
@given(slope=st.floats(-3, 3), factor=st.floats(1e-6, 1e6), seeds=st.integers(1, 5), order=st.randoms())
def test_a_power_law_is_found_whatever_its_units_and_order(slope, factor, seeds, order):
    scale, std, seed = made(slope, seeds=seeds)
    rows = list(zip(scale, std * factor, seed, strict=True))
    order.shuffle(rows)
    found = fit_slope(*zip(*rows, strict=True))
    assert found.slope == pytest.approx(slope, abs=1e-8)
    assert found.last == pytest.approx(slope, abs=1e-8)
    assert found.high - found.low < 1e-6
    assert (found.seeds, found.scales, found.problem) == (seeds, 4, "")


@pytest.mark.parametrize("seeds", [1, 4])
def test_intervals_hold_the_true_slope_as_often_as_they_say(seeds):
    inside = 0
    for k in range(400):
        found = fit_slope(*made(0.5, noise=0.1, seeds=seeds, seed=k))
        inside += found.low <= 0.5 <= found.high
    assert inside / 400 == pytest.approx(0.9, abs=0.04)


def test_what_has_no_slope_says_why():
    scale, std, seed = made(0.0)
    assert "zero everywhere" in fit_slope(scale, std * 0, seed).problem
    assert fit_slope(scale, np.where(scale == 4, 0, std), seed).problem == "zero at scale 4"
    diverged = fit_slope(scale, np.where(scale == 8, math.nan, std), seed)
    assert (diverged.problem, diverged.grew) == ("not finite at scale 8", True)
    assert not fit_slope(scale, np.where(scale == 1, math.inf, std), seed).grew
    assert "2 scales" in fit_slope([1, 2], [1, 1], [0, 0]).problem
    half = fit_slope([1, 2, 4, 1, 2], [1, 2, 4, 9, 9], [0, 0, 0, 1, 1])  # the second seed has no scale 4
    assert (half.seeds, half.slope) == (1, pytest.approx(1.0))
    with pytest.raises(InputError, match="equally long"):
        fit_slope([1, 2], [1], [0, 0])
    with pytest.raises(InputError, match="scale"):
        fit_slope([0, 1, 2], [1, 1, 1], [0, 0, 0])


def slope(value, half=0.01, **options):
    return Slope(slope=value, low=value - half, high=value + half, last=value, seeds=3, scales=4, **options)


@pytest.mark.parametrize(
    ("found", "expected", "tolerance", "verdict"),
    [
        (slope(0.05), FLAT, CHANGE_TOLERANCE, Verdict.AS_EXPECTED),
        (slope(-0.2), FLAT, CHANGE_TOLERANCE, Verdict.AS_EXPECTED),  # 0 is outside its interval: no alarm
        (slope(0.5), FLAT, CHANGE_TOLERANCE, Verdict.GROWS),
        (slope(-0.5), FLAT, CHANGE_TOLERANCE, Verdict.VANISHES),
        (slope(0.25), FLAT, INITIAL_TOLERANCE, Verdict.GROWS),  # an init variance wrong by 1/2
        (slope(0.5, half=0.6), FLAT, CHANGE_TOLERANCE, Verdict.CANNOT_TELL),
        (slope(0.0, half=0.6), FLAT, CHANGE_TOLERANCE, Verdict.CANNOT_TELL),
        (slope(-0.3), Expected(low=-0.5, high=0.0, why=""), CHANGE_TOLERANCE, Verdict.AS_EXPECTED),
        (slope(0.4), Expected(low=-0.5, high=0.0, why=""), CHANGE_TOLERANCE, Verdict.GROWS),
        (slope(0.0), Expected(low=-0.5, high=-0.5, why=""), INITIAL_TOLERANCE, Verdict.GROWS),  # a head with m⁻¹
        (slope(math.nan, problem="not finite at scale 4", grew=True), FLAT, CHANGE_TOLERANCE, Verdict.GROWS),
        (slope(math.nan, problem="zero everywhere"), FLAT, CHANGE_TOLERANCE, Verdict.CANNOT_TELL),
    ],
)
def test_verdicts_are_against_the_expected_slope(found, expected, tolerance, verdict):
    assert judge(found, expected, tolerance) is verdict


@settings(max_examples=60)
@given(value=st.floats(-2, 2), half=st.floats(0, 2), shift=st.floats(-1, 1))
def test_a_verdict_depends_on_the_distance_alone(value, half, shift):
    """Moving slope and expectation together changes nothing, and mirroring swaps growing and vanishing."""
    one = judge(slope(value, half), FLAT, CHANGE_TOLERANCE)
    mirrored = judge(slope(-value, half), FLAT, CHANGE_TOLERANCE)
    swap = {Verdict.GROWS: Verdict.VANISHES, Verdict.VANISHES: Verdict.GROWS}
    assert mirrored is swap.get(one, one)
    edges = (CHANGE_TOLERANCE, CHANGE_TOLERANCE / 2, 2 * CHANGE_TOLERANCE)
    if all(abs(abs(end) - edge) > 1e-9 for end in (value, value - half, value + half) for edge in edges):
        moved = Expected(low=shift, high=shift, why="")
        assert judge(slope(value + shift, half), moved, CHANGE_TOLERANCE) is one


def rows(slopes, **options):
    out = []
    for (observable, layer, step), value in slopes.items():
        for s, std, k in zip(*made(value, **options), strict=True):
            out.append(
                {
                    "scale": float(s),
                    "seed": int(k),
                    "observable": observable,
                    "layer": layer,
                    "step": step,
                    "std": float(std),
                }
            )
    return out


def test_the_verdict_of_a_check_is_that_of_the_slope_that_deviates_most():
    slopes = {("logits", "", 0): 0.0, ("logits", "", 4): 0.0, ("attention_logits", "last", 0): 0.0,
              ("attention_logits", "last", 4): 1.5, ("embeddings", "", 4): -0.4,
              ("router_logits", "first", 9): 3.0}  # fmt: skip

    def expected(observable, step):
        return Expected(low=-0.5, high=-0.5, why="") if (observable, step) == ("logits", 0) else FLAT

    check = check_coordinates("own", "width", rows(slopes), expected, (0, 4))
    assert [(row.name, row.step) for row in check.rows] == [
        ("word embeddings", 4), ("raw attention logits, last layer", 0), ("raw attention logits, last layer", 4),
        ("output logits", 0), ("output logits", 4),
    ]  # fmt: skip  # step 9 was not asked for
    assert check.verdict is Verdict.GROWS
    assert check.worst is not None
    assert check.worst.observable == "attention_logits"
    assert [row.verdict for row in check.deviating()] == [Verdict.GROWS, Verdict.GROWS, Verdict.VANISHES]
    written = json.loads(json.dumps(check.to_json(), allow_nan=False))
    assert written["verdict"] == "grows"
    assert len(written["measured"]) == 6 * 16


def test_an_activation_without_a_slope_leaves_the_verdict_open():
    known = rows({("embeddings", "", 4): 0.0, ("logits", "", 4): 0.0})
    zero = [{**row, "std": 0.0} if row["observable"] == "logits" else row for row in known]
    for measured, verdict in ((known, Verdict.AS_EXPECTED), (zero, Verdict.CANNOT_TELL), ([], Verdict.CANNOT_TELL)):
        check = check_coordinates("own", "width", measured, lambda *_: FLAT, (0, 4))
        assert check.verdict is verdict
    assert check_coordinates("own", "width", zero, lambda *_: FLAT, (4,)).undecided()[0].found.problem
    assert json.dumps(check_coordinates("own", "width", zero, lambda *_: FLAT, (4,)).to_json(), allow_nan=False)


def test_three_networks_of_one_seed_do_not_show_their_scatter():
    on_a_line = fit_slope([1, 2, 4], [1, 2.4, 5.76], [0, 0, 0])  # a slope of 1.26 without any scatter
    assert judge(on_a_line, Expected(low=1, high=1, why=""), INITIAL_TOLERANCE) is Verdict.CANNOT_TELL
    far = fit_slope([1, 2, 4], [1, 2.9, 8.41], [0, 0, 0])  # 1.54: the smallest mistake in a rule
    assert judge(far, Expected(low=1, high=1, why=""), INITIAL_TOLERANCE) is Verdict.GROWS

import math
from dataclasses import replace

import numpy as np
import pytest
from grid_of_cells import D, N, least_squares, optima
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from raylr.analysis import Conditions, LRLaw, fit_lr_law, presets
from raylr.analysis.laws._fitting import DRIFT, SCATTER, SCATTER_DOF
from raylr.analysis.status import Status
from raylr.errors import InputError


def test_a_law_is_recovered_exactly():
    law = least_squares(N, D, optima())
    assert law.ok
    assert (law.alpha, law.beta) == pytest.approx((0.25, 0.35), rel=1e-9)
    assert law.r2 == pytest.approx(1)
    assert law.lr(1e9, 1e10) == pytest.approx(
        float(optima(1e9, 1e10)[0]) if np.ndim(optima(1e9, 1e10)) else optima(1e9, 1e10)
    )
    assert law.lr([1e8, 1e9], [[1e9], [2e9]]).shape == (2, 2)


def test_a_prediction_says_how_far_it_extrapolates():
    law = least_squares(N, D, optima(noise=0.05))
    inside = law.predict(3e8, 3e9)
    assert (inside.params_beyond, inside.tokens_beyond) == (1.0, 1.0)
    assert inside.message == "inside the fitted range"
    far = law.predict(4e9, 4e7)
    assert (far.params_beyond, far.tokens_beyond) == pytest.approx((10, 25))
    assert "10 times beyond the fitted parameters" in far.message
    assert "25 times beyond the fitted tokens" in far.message
    assert "e+" not in far.message
    assert math.log(far.lr_high / far.lr_low) > math.log(inside.lr_high / inside.lr_low)
    assert far.lr_low < far.lr < far.lr_high


@pytest.mark.parametrize("error", [0.0, 0.1])
def test_intervals_cover(error):
    """Cells that scatter, and exponents that drift beyond them, as the priors assume: intervals then are exact."""
    inside, exponents, far = [], [], []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        scatter = SCATTER * math.sqrt(SCATTER_DOF / rng.chisquare(SCATTER_DOF))
        z = np.log(optima()) + rng.normal(0, scatter, N.size) + rng.normal(0, error, N.size)
        law = least_squares(N, D, np.exp(z), stderr=error or None)
        for (n, d), hits in (((2e8, 2e9), inside), ((1.6e9, 8e9), far)):
            beyond = math.hypot(math.log(max(n / 4e8, 1)), math.log(max(d / 4e9, 1)))
            moved = rng.normal(0, scatter) + rng.normal(0, DRIFT * beyond)
            prediction = law.predict(n, d)
            true = optima(np.array([n]), np.array([d]))[0] * math.exp(moved)
            hits.append(prediction.lr_low <= true <= prediction.lr_high)
        low, high = law.interval()["alpha"]
        exponents.append(low <= 0.25 <= high)
    for hits in (inside, exponents, far):
        assert 0.86 <= np.mean(hits) <= 0.95


def test_uncertain_cells_weigh_less_and_failed_ones_nothing():
    y, s = optima(), np.full(9, 0.05)
    y[0] *= 3
    s[0] = 5.0
    assert least_squares(N, D, y, stderr=s).alpha == pytest.approx(0.25, abs=1e-3)
    s[0] = math.inf
    law = least_squares(N, D, y, stderr=s)
    assert law.alpha == pytest.approx(0.25)
    assert law.cells == 8
    y[0] = math.nan
    assert least_squares(N, D, y).cells == 8


@pytest.mark.parametrize(
    ("n", "d", "status", "fitted"),
    [
        (np.full(3, 1e8), D[:3], "one_size", ("c", "beta")),
        (N[::3], np.full(3, 1e9), "one_budget", ("c", "alpha")),
        (N[:1], D[:1], "one_cell", ("c",)),
        (N[::3], 20 * N[::3], "collinear", ("c", "beta")),
        (np.array([2.151e9, 2.155e9, 2.151e9]), D[:3], "one_size", ("c", "beta")),
    ],
)
def test_degenerate_designs_fit_what_they_can(n, d, status, fitted):
    law = least_squares(n, d, optima(n, d), stderr=0.1)
    assert (law.status, law.fitted) == (status, fitted)
    assert law.message
    for a, b in zip(n, d, strict=True):
        assert law.lr(a, b) == pytest.approx(optima(np.array([a]), np.array([b]))[0], rel=0.02)
    missing = {"one_size": (1e10, d[0]), "one_budget": (n[0], 1e12), "one_cell": (1e10, 1e12)}
    if status in missing:
        prediction = law.predict(*missing[status])
        assert (prediction.lr_low, prediction.lr_high) == (0, math.inf)
        assert "do not determine" in prediction.message


def test_no_cells_make_a_law_that_says_so():
    law = least_squares([], [], [])
    assert law.status == "too_few"
    prediction = law.predict(1e9, 1e9)
    assert math.isnan(prediction.lr)
    assert "no cell" in prediction.message


def test_two_cells_scatter_as_the_prior_says():
    law = least_squares([1e8, 1e8], [1e9, 2e9], [1e-3, 8e-4])
    assert (law.scatter, law.dof) == pytest.approx((SCATTER, SCATTER_DOF))
    prediction = law.predict(1e8, 1.5e9)
    assert 3 < prediction.lr_high / prediction.lr_low < 6


@pytest.mark.parametrize("scatter", [0.02, 0.3])
def test_the_scatter_of_cells_is_told_from_their_errors(scatter):
    rng, found = np.random.default_rng(0), []
    n, d = (np.tile(v, 12) for v in (N, D))
    s = rng.choice([0.05, 0.3], n.size)
    for seed in range(20):
        z = np.log(optima(n, d, noise=scatter, seed=seed)) + rng.normal(0, s)
        found.append(least_squares(n, d, np.exp(z), stderr=s).scatter)
    assert np.median(found) == pytest.approx(scatter, abs=0.04)


def test_the_interval_widens_with_the_distance_from_the_cells():
    law = least_squares(N, D, optima(), stderr=0.01)
    width = [math.log(p.lr_high / p.lr_low) for p in (law.predict(k * 4e8, 4e9) for k in (1, 10, 100))]
    assert np.diff(width).min() > 0.1
    steady = replace(law, drift=0.0)
    assert math.log(steady.predict(4e10, 4e9).lr_high / steady.predict(4e10, 4e9).lr_low) < 0.8 * width[2]


def test_collinear_cells_say_little_off_their_line():
    n = np.array([1e8, 2e8, 4e8, 8e8])
    law = least_squares(n, 20 * n, optima(n, 20 * n), stderr=0.05)
    on, off = law.predict(3e8, 6e9), law.predict(1e8, 1.6e10)
    assert off.params_beyond == off.tokens_beyond == 1
    assert off.lr_high / off.lr_low > 10 * on.lr_high / on.lr_low
    ahead, across = law.predict(3.2e9, 6.4e10), law.predict(3.2e9, 2e9)
    assert ahead.lr == pytest.approx(optima(np.array([3.2e9]), np.array([6.4e10]))[0], rel=0.02)
    assert ahead.lr_high / ahead.lr_low < 10
    assert across.lr_high / across.lr_low > 1000
    assert "are not determined separately" in ahead.message


def test_bootstrap_draws_widen_the_interval():
    y = optima()
    draws = np.log(y) + np.random.default_rng(0).normal(0, 0.3, (200, y.size))
    plain, booted = (least_squares(N, D, y, stderr=0.01, draws=d).predict(1e9, 1e10) for d in (None, draws))
    assert booted.lr_high / booted.lr_low > 2 * plain.lr_high / plain.lr_low


@pytest.mark.parametrize(
    "matrix",
    [
        ((1.0, 0.0), (0.0, 1.0)),
        ((1.0, 2.0, 0.0), (2.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
        ((1.0, 0.5, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
        ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    ],
)
def test_a_covariance_is_symmetric_and_positive_semidefinite(matrix):
    with pytest.raises(InputError, match="covariance"):
        replace(least_squares(N, D, optima()), covariance=matrix)


def test_far_predictions_have_a_status_of_their_own():
    law = least_squares(N, D, optima(noise=0.05))
    assert law.predict(4e9, 4e10).status == "ok"
    assert law.predict(4.1e9, 4e9).status == "extrapolated"
    assert law.predict(4e8, 4.1e10).status == "extrapolated"
    assert law.predict(4.1e12, 4e9, extrapolation_limit=math.inf).ok
    assert law.predict(9e8, 4e9, extrapolation_limit=2).status == "extrapolated"
    with pytest.raises(InputError, match="extrapolation_limit"):
        law.predict(1e9, 1e10, extrapolation_limit=0.5)
    one = least_squares(N[:3], D[:3], optima()[:3])
    assert (one.predict(1e8, 2e9).status, one.predict(2e9, 2e9).status) == ("ok", "one_size")
    assert not one.ok
    assert one.usable


def test_where_a_law_has_no_value_its_prediction_is_not_ok():
    law = presets.get("kaplan2020")  # logarithmic: below zero above 1.2e10 parameters
    found = law.predict(params=1e15, tokens=1e18, extrapolation_limit=math.inf)
    assert found.status is Status.NOT_DETERMINED
    assert "the law gives no LR there" in found.message
    assert law.predict(params=1e9, tokens=1e11).ok


def test_a_prediction_names_the_conditions_that_differ():
    conditions = Conditions(batch_tokens=4e6, schedule="constant", optimizer="adamw", beta2=0.95)
    law = least_squares(N, D, optima(), conditions=conditions)
    same = law.predict(2e8, 2e9, conditions=replace(conditions, seq_len=4096))
    assert same.message == "inside the fitted range"
    prediction = law.predict(2e8, 2e9, conditions=Conditions(batch_tokens=8e6, schedule="cosine", beta2=0.99)).message
    for words in ("batch 8M tokens (runs of the law: 4M", "schedule cosine (runs of the law: constant)", "β₂ 0.99"):
        assert words in prediction
    assert "optimizer" not in prediction


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"params": [0.0]}, "params"),
        ({"lr_opt": [-1.0]}, "lr_opt"),
        ({"stderr": [0.0]}, "stderr"),
        ({"draws": np.zeros((3, 4))}, "draws"),
        ({"tokens": [1.0, 2.0]}, "one entry a measurement"),
    ],
)
def test_bad_input_is_refused(kwargs, words):
    arguments = {"params": [1e8], "tokens": [1e9], "lr_opt": [1e-3]} | kwargs
    with pytest.raises(ValueError, match=words):
        least_squares(arguments.pop("params"), arguments.pop("tokens"), arguments.pop("lr_opt"), **arguments)


def test_a_prediction_refuses_what_is_not_a_cell():
    with pytest.raises(ValueError, match="tokens"):
        least_squares(N, D, optima()).predict(1e9, -1)


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 999),
    n=st.integers(1, 9),
    units=st.tuples(st.floats(1, 1e9), st.floats(1, 1e9), st.floats(1e-5, 1)),
)
def test_units_and_order_change_no_prediction(seed, n, units):
    pick = np.random.default_rng(seed).permutation(9)[:n]
    y = optima(noise=0.05, seed=seed)
    base = least_squares(np.sort(N[pick]), D[pick][np.argsort(N[pick])], y[pick][np.argsort(N[pick])])
    other = least_squares(N[pick], D[pick], y[pick], params_unit=units[0], tokens_unit=units[1], lr_unit=units[2])
    assert other.status == base.status
    a, b = base.predict(5e8, 3e9), other.predict(5e8, 3e9)
    assert b.lr == pytest.approx(a.lr, rel=1e-6)
    assert np.array([b.lr_low, b.lr_high]) == pytest.approx(np.array([a.lr_low, a.lr_high]), rel=1e-4)


@settings(deadline=None, max_examples=100)
@given(
    cells=st.lists(
        st.tuples(
            st.floats(1e3, 1e13), st.floats(1e3, 1e15), st.floats(1e-12, 1e3) | st.just(math.nan), st.floats(1e-9, 1e9)
        ),
        max_size=9,
    ),
    with_errors=st.booleans(),
)
def test_any_input_gives_a_status_and_ok_means_numbers(cells, with_errors):
    n, d, lr, s = (np.array(v, dtype=float) for v in (zip(*cells, strict=True) if cells else ((), (), (), ())))
    try:
        law = least_squares(n, d, lr, stderr=s if with_errors else None)
        fit_lr_law(n, d, lr, stderr=s if with_errors else None)
    except InputError as error:
        assume("in two units" not in str(error))
        raise
    assert law.status in {"ok", "one_size", "one_budget", "one_cell", "collinear", "no_law", "too_few"}
    assert LRLaw.from_json(law.to_json()).status == law.status
    if law.ok:
        prediction = law.predict(1e9, 1e10)
        assert 0 <= prediction.lr_low <= prediction.lr <= prediction.lr_high
        assert np.isfinite([law.c, law.alpha, law.beta, law.rmse, law.scatter, prediction.lr]).all()


def test_optima_that_jump_between_equal_cells_are_no_law():
    law = least_squares([1e8, 1.06e8, 1e8], [1e9, 1e9, 2e9], [1e-5, 1e-2, 1e-3])
    assert law.status == "no_law"
    assert "follow no law" in law.message
    assert math.isnan(law.predict(1e9, 1e10).lr)

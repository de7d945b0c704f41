import math

import numpy as np
import pytest

from raylr.analysis import compare_families

N = np.repeat([1e8, 2e8, 4e8, 8e8], 6)
D = np.tile(np.repeat([2e9, 8e9, 3e10], 2), 4)
B = np.tile([1e5, 4e5], 12)


def optimum(noise=0.03):
    z = -0.3 * np.log(N) - 0.2 * np.log(D) + 0.4 * np.log(B)
    return np.exp(z - 5 + np.random.default_rng(0).normal(0, noise, N.size))


def test_the_family_that_made_the_optima_wins():
    scores = compare_families(optimum(), params=N, tokens=D, batch=B)
    assert scores[0].family == "params_tokens_batch"
    assert scores[0].exponents == pytest.approx({"params": -0.3, "tokens": -0.2, "batch": 0.4}, abs=0.05)
    assert scores[0].cv_rmse == pytest.approx(0.03, rel=0.5)
    assert [s.cv_rmse for s in scores] == sorted(s.cv_rmse for s in scores)
    assert scores[-1].cv_rmse > 5 * scores[0].cv_rmse


def test_only_families_whose_features_are_given_take_part():
    names = {s.family for s in compare_families(optimum(), params=N, tokens=D)}
    assert names == {"constant", "params", "tokens", "params_tokens", "compute"}
    active = compare_families(optimum(), params=N, tokens=D, active=N / 8, families=("active_tokens", "params_tokens"))
    assert active[0].cv_rmse == pytest.approx(active[1].cv_rmse)


def test_groups_are_left_out_together():
    by_cell = compare_families(optimum(), params=N, tokens=D, batch=B, families=("params",))[0]
    by_size = compare_families(optimum(), params=N, tokens=D, batch=B, families=("params",), groups=N)[0]
    assert by_size.cv_rmse != by_cell.cv_rmse
    assert by_size.rmse == by_cell.rmse


def test_what_the_cells_cannot_tell_is_nan():
    same = np.full(N.size, 1e8)
    scores = {s.family: s for s in compare_families(optimum(), params=same, tokens=D)}
    assert math.isnan(scores["params"].cv_rmse)
    assert math.isnan(scores["params"].exponents["params"])
    assert scores["params"].status == "not_determined"
    assert scores["params"].message == "all cells have nearly the same params"
    assert scores["tokens"].ok
    assert math.isfinite(scores["tokens"].cv_rmse)
    one_group = compare_families(optimum(), params=N, tokens=D, groups=np.zeros(N.size), families=("constant",))[0]
    assert math.isnan(one_group.cv_rmse)
    assert math.isfinite(one_group.rmse)
    assert one_group.status == "uncertain"
    line = {s.family: s for s in compare_families(optimum()[:6], params=D[:6] / 20, tokens=D[:6])}
    assert "are not determined separately" in line["params_tokens"].message
    few = compare_families(optimum()[:2], params=N[:2], tokens=D[:2], families=("params_tokens",))[0]
    assert few.message == "2 cells with an optimum for 3 parameters"


def test_failed_cells_are_left_out_and_errors_weigh():
    y = optimum(0.0)
    y[0] = math.nan
    y[1] *= 10
    s = np.full(N.size, 0.05)
    s[1] = 50.0
    score = compare_families(y, params=N, tokens=D, batch=B, stderr=s, families=("params_tokens_batch",))[0]
    assert score.exponents["params"] == pytest.approx(-0.3, abs=1e-3)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="did you mean 'params_tokens'"):
        compare_families(optimum(), params=N, tokens=D, families=("params_token",))
    with pytest.raises(ValueError, match="batch"):
        compare_families(optimum(), params=N, tokens=D, batch=-B)
    with pytest.raises(ValueError, match="one entry a measurement"):
        compare_families(optimum()[:3], params=N, tokens=D)

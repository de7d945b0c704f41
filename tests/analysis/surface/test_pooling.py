import math

import numpy as np
import pytest

from raylr.analysis import fit_optimum, pooled_priors

X = np.linspace(0, 3, 12)[:, None]
OPT = np.exp(math.log(1e-3) - 0.4 * X[:, 0])
LRS = np.geomspace(5e-5, 8e-3, 8)


def cell(opt, lrs=LRS, noise=1e-3, seed=0):
    rng = np.random.default_rng(seed)
    return fit_optimum(lrs, 3 + 0.02 * np.log(lrs / opt) ** 2 + rng.normal(0, noise, lrs.size))


def fits():
    return [cell(opt, seed=i) for i, opt in enumerate(OPT)]


def test_each_cell_learns_from_the_others():
    priors = pooled_priors(fits(), X)
    for prior, opt in zip(priors, OPT, strict=True):
        assert abs(prior.center - math.log(opt)) < 0.25
        assert prior.curvature == pytest.approx(0.02, rel=0.3)
        assert 0.1 <= prior.center_sd < 0.4
        assert abs(prior.skew) < 0.3


def test_a_cells_own_outlier_does_not_reach_its_prior():
    cells = fits()
    cells[5] = cell(20 * OPT[5])
    assert abs(pooled_priors(cells, X)[5].center - math.log(OPT[5])) < 0.25
    assert abs(pooled_priors(cells, X)[6].center - math.log(OPT[6])) < 0.3


def test_the_prior_helps_where_points_are_few():
    priors = pooled_priors(fits(), X)
    few = LRS[[1, 6]]
    errors = [
        math.log(fit_optimum(few, 3 + 0.02 * np.log(few / opt) ** 2, prior=prior).lr / opt)
        for opt, prior in zip(OPT, priors, strict=True)
    ]
    assert np.abs(errors).max() < 0.25


def test_too_few_cells_give_no_prior():
    every = fits()
    assert pooled_priors(every[:3], X[:3]) == [None, None, None]
    failed = [fit_optimum([], [])] * 12
    assert pooled_priors(failed, X) == [None] * 12
    assert pooled_priors([*every[:8], *failed[:4]], X)[-1].center == pytest.approx(math.log(OPT[-1]), abs=0.4)
    assert all(p is not None for p in pooled_priors(every, np.empty((12, 0))))


def test_bad_features_are_refused():
    with pytest.raises(ValueError, match=r"shape \(12, k\)"):
        pooled_priors(fits(), X[:5])
    with pytest.raises(ValueError, match="finite"):
        pooled_priors(fits(), X * math.nan)

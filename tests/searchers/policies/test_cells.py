import math

import pytest

from raylr.analysis.optimum.posterior import ShapePrior
from raylr.searchers.policies.cells import Cell, Known, cell_of, covariates, in_order_of_cost, prior_from

CELLS = [Cell(f"{n}/{d}", {"n": n, "kind": "moe"}, params=n, tokens=d) for n in (1e6, 4e6, 1.6e7) for d in (1e8, 4e8)]


def known(cell, scale=1.0):
    center = math.log(2e-3) - 0.2 * math.log(cell.params / 1e6) - 0.4 * math.log(cell.tokens / 1e8)
    return Known(cell, {"center": (center, 0.1), "curvature": (math.log(0.02), 0.2), "skew": (0.1, 0.2)})


def test_the_law_of_known_cells_is_the_prior_of_the_next():
    prior = prior_from(CELLS[-1], [known(c) for c in CELLS[:-1]], CELLS, ShapePrior())
    assert prior.center == pytest.approx(known(CELLS[-1]).moments["center"][0], abs=0.15)
    assert prior.center_sd < 0.5
    assert math.log(prior.curvature) == pytest.approx(math.log(0.02), abs=0.1)
    assert prior.curvature_log_sd < ShapePrior().curvature_log_sd


def test_one_known_cell_leaves_the_next_wide():
    one = prior_from(CELLS[-1], [known(CELLS[0])], CELLS, ShapePrior())
    many = prior_from(CELLS[-1], [known(c) for c in CELLS[:-1]], CELLS, ShapePrior())
    assert one.center_sd > 2 * many.center_sd


def test_nothing_known_changes_nothing():
    assert prior_from(CELLS[0], [], CELLS, ShapePrior()) == ShapePrior()


def test_a_law_from_outside_is_combined():
    base = ShapePrior(center=-6.0, center_sd=0.01)
    assert prior_from(CELLS[-1], [known(CELLS[0])], CELLS, base).center == pytest.approx(-6.0, abs=0.02)


def test_covariates_are_what_varies_and_is_positive():
    assert set(covariates(CELLS)) == {"params", "tokens"}  # n is params under another name, kind no number
    assert covariates(CELLS[:1]) == {}
    assert set(covariates([Cell("a", {"batch": 8}), Cell("b", {"batch": 64})])) == {"batch"}


def test_cheapest_first():
    assert in_order_of_cost(CELLS[::-1])[0].name == CELLS[0].name
    unknown = [Cell("b"), Cell("a")]
    assert in_order_of_cost(unknown) == unknown


def test_configs_belong_to_one_cell():
    cells = [Cell("a", {"n": 1}), Cell("b", {"n": 2})]
    assert cell_of({"n": 2, "lr": 1.0}, cells).name == "b"
    with pytest.raises(ValueError, match="belongs to 0 of the cells"):
        cell_of({"n": 3}, cells)

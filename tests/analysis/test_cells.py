import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis.cells import Cell, CellOptimum, fit_cells
from raylr.analysis.runs import Setting
from raylr.analysis.status import Status
from raylr.errors import InputError

LRS = np.geomspace(1e-4, 1e-2, 7)


def cell(
    params: float = 1e8, tokens: float = 2e9, batch: float | None = None, family: str = "", **changes: float
) -> Cell:
    """A cell whose optimum follows lr = 1e-3 (N/1e8)^-0.3 (D/2e9)^-0.1 (B/1e5)^0.4, with the best batch at 2e5."""
    best = changes.get("best", 1e-3) * (params / 1e8) ** -0.3 * (tokens / 2e9) ** -0.1 * ((batch or 1e5) / 1e5) ** 0.4
    floor = 2 + 10 * params**-0.1 + 0.02 * math.log((batch or 2e5) / 2e5) ** 2
    loss = floor + changes.get("curvature", 0.05) * np.log(LRS / best) ** 2
    return Cell(setting=Setting(params=params, tokens=tokens, batch=batch), lr=LRS, loss=loss, family=family)


def grid(batches: tuple[float | None, ...] = (None,)) -> list[Cell]:
    return [cell(n, d, b) for n in (1e8, 2e8, 4e8) for d in (2e9, 4e9, 8e9) for b in batches]


def test_a_law_from_cells_of_one_batch() -> None:
    (family,) = fit_cells(grid()).families
    assert family.law is not None
    assert family.law.ok
    assert family.law.alpha == pytest.approx(0.3, abs=0.05)
    assert family.law.beta == pytest.approx(0.1, abs=0.05)
    assert family.law.batch_unit is None
    assert family.loss_law is not None
    assert family.curvature_law is not None
    assert family.curvature_law.usable


def test_a_law_with_the_batch_and_the_best_batch() -> None:
    (family,) = fit_cells(grid((5e4, 1e5, 2e5, 4e5, 8e5))).families
    law = family.law
    assert law is not None
    assert law.delta == pytest.approx(0.4, abs=0.05)
    assert law.batch_law is not None
    assert float(law.batch_law.value(2e8, 4e9)) == pytest.approx(2e5, rel=0.1)
    assert law.predict(4e8, 8e9).batch == pytest.approx(2e5, rel=0.1)


def test_kinds_of_runs_have_laws_of_their_own() -> None:
    cells = [*grid(), *(cell(n, 2e9, family="optimizer muon", best=1e-2) for n in (1e8, 4e8))]
    families = fit_cells(cells).families
    assert [family.name for family in families] == ["", "optimizer muon"]
    assert [len(family.optima) for family in families] == [9, 2]


def test_without_parameters_there_are_optima_and_no_law() -> None:
    (family,) = fit_cells([Cell(setting=Setting(name="a"), lr=LRS, loss=cell().loss)]).families
    assert family.law is None
    assert "parameters" in family.why
    assert family.optima[0].fit.status is Status.OK


def test_edges_do_not_enter_a_law() -> None:
    fit = fit_cells([*grid(), cell(8e8, 2e9, best=1e-6)])
    assert [one.used for one in fit.optima] == [True] * 9 + [False]
    assert fit.families[0].law is not None
    assert fit.families[0].law.cells == 9


def test_what_a_factor_of_two_costs() -> None:
    (optimum,) = fit_cells([cell()]).optima
    assert optimum.cost() == pytest.approx(0.05 * math.log(2) ** 2, rel=0.25)
    diverged = Cell(setting=Setting(), lr=LRS, loss=np.full(7, math.nan))
    assert math.isnan(fit_cells([diverged]).optima[0].cost())


def test_a_metric_below_zero_has_optima() -> None:
    base = cell()
    shifted = Cell(setting=base.setting, lr=base.lr, loss=base.loss - 100)
    fit = fit_cells([shifted])
    assert fit.families[0].loss_law is None
    assert fit.optima[0].fit.lr == pytest.approx(1e-3, rel=0.1)


def test_no_cell_is_refused() -> None:
    with pytest.raises(InputError, match="no finished runs"):
        fit_cells([])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(LRS.tolist()), st.floats(1, 10) | st.just(math.nan)), min_size=1, max_size=8))
def test_any_losses_give_an_answer_with_a_status(runs: list[tuple[float, float]]) -> None:
    lr, loss = np.array(runs).T
    (found,) = fit_cells([Cell(setting=Setting(params=1e8, tokens=2e9), lr=lr, loss=loss)]).optima
    assert isinstance(found, CellOptimum)
    assert found.fit.status in Status
    assert not found.cost() < 0

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis.cells import Cell, fit_cells
from raylr.analysis.next_runs import first_lrs, missing_runs, next_in_cell, rounded
from raylr.analysis.runs import Setting
from raylr.errors import InputError

LRS = np.geomspace(1e-4, 1e-2, 7)


def cell(params: float, tokens: float, best: float, lrs: np.ndarray = LRS) -> Cell:
    setting = Setting(name=f"{params:g} at {tokens:g}", params=params, tokens=tokens)
    return Cell(setting=setting, lr=lrs, loss=3 + 0.05 * np.log(lrs / best) ** 2)


def test_nothing_is_missing_where_every_optimum_is_known() -> None:
    cells = [cell(n, d, 1e-3) for n in (1e8, 4e8) for d in (2e9, 8e9)]
    assert missing_runs(fit_cells(cells)) == []


@pytest.mark.parametrize(("best", "side"), [(1e-6, -1), (1e0, 1)])
def test_at_an_edge_the_next_lr_lies_beyond_it(best: float, side: int) -> None:
    (found,) = missing_runs(fit_cells([cell(1e8, 2e9, best)]))
    assert all((lr < LRS[0]) if side < 0 else (lr > LRS[-1]) for lr in found.lrs)
    assert "lowest loss is at or" in found.reason


def test_a_cell_with_few_lrs_is_searched_where_the_law_says() -> None:
    known = [cell(n, d, 1e-3 * (n / 1e8) ** -0.3) for n in (1e8, 2e8, 4e8) for d in (2e9, 4e9, 8e9)]
    sparse = cell(8e8, 8e9, 5.4e-4, np.array([1e-4]))
    found = missing_runs(fit_cells([*known, sparse]), each=3)
    assert found[0].setting.params == 8e8
    assert min(abs(math.log(lr / 5.4e-4)) for lr in found[0].lrs) < 0.7


def test_all_diverged_goes_lower() -> None:
    lost = Cell(setting=Setting(name="x"), lr=LRS, loss=np.full(7, math.nan))
    (found,) = missing_runs(fit_cells([lost]))
    assert max(found.lrs) < LRS[0]


def test_with_a_target_a_second_size_is_asked_for() -> None:
    fit = fit_cells([cell(4e8, d, 1e-3) for d in (2e9, 4e9, 8e9)])
    assert missing_runs(fit) == []
    (found,) = missing_runs(fit, target=(1.6e9, 3.2e10))
    assert found.setting.params == 1e8
    assert "second size" in found.reason
    assert len(found.lrs) == 3


def test_first_lrs_are_those_of_the_law() -> None:
    law = fit_cells([cell(n, d, 1e-3) for n in (1e8, 4e8) for d in (2e9, 8e9)]).families[0].law
    assert law is not None
    lrs = first_lrs(Setting(params=2e8, tokens=4e9), 5, law=law)
    assert lrs[0] == pytest.approx(1e-3, rel=0.2)
    assert len(set(lrs)) == 5
    with pytest.raises(InputError):
        first_lrs(Setting(tokens=4e9), 1, law=law)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1e-5, 1e-1), st.floats(1, 9) | st.just(math.nan)), min_size=1, max_size=6),
    st.integers(1, 4),
)
def test_next_lrs_are_positive_and_few(runs: list[tuple[float, float]], count: int) -> None:
    lr, loss = np.array(runs).T
    (one,) = fit_cells([Cell(setting=Setting(), lr=lr, loss=loss)]).optima
    found = next_in_cell(one, count)
    assert len(found) <= count
    assert all(0 < value < math.inf and value == rounded(value) for value in found)

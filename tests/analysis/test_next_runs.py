import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.analysis.cells import Cell, fit_cells
from raylr.analysis.next_runs import first_lrs, missing_runs, next_in_cell, rounded
from raylr.analysis.runs import Setting
from raylr.analysis.status import Status
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
    assert all(0 < value < math.inf for value in found)
    if one.fit.status in (Status.TWO_MINIMA, Status.CONTRADICTED):
        assert set(found) <= set(lr.tolist())  # runs to repeat, at the very LRs that they had
    else:
        assert all(value == rounded(value) for value in found)


@given(
    losses=st.lists(st.floats(1.0, 4.0), min_size=4, max_size=9),
    seeds=st.integers(1, 3),
)
@settings(max_examples=40)
def test_no_lr_is_suggested_where_no_run_was_and_the_optimum_is_not(losses: list[float], seeds: int) -> None:
    lrs = np.tile(np.geomspace(1e-4, 1e-1, len(losses)), seeds)
    rng = np.random.default_rng(seeds)
    runs = Cell(setting=Setting(name="a"), lr=lrs, loss=np.tile(losses, seeds) + 0.01 * rng.standard_normal(lrs.size))
    (optimum,) = fit_cells([runs]).optima
    found, fit = next_in_cell(optimum, 2), optimum.fit
    assert all(lr >= 0.99e-4 for lr in found) or fit.lr_low <= 1e-4 * 1.001
    assert all(lr <= 1.01e-1 for lr in found) or fit.lr_high >= 1e-1 * 0.999


def test_what_the_message_says_is_to_be_repeated_is_suggested() -> None:
    lrs = np.geomspace(1.2345e-4, 1e-1, 7)
    runs = Cell(setting=Setting(name="a"), lr=lrs, loss=np.array([3, 2.0, 3, 4, 3, 2.1, 3]))
    (optimum,) = fit_cells([runs]).optima
    assert optimum.fit.status is Status.TWO_MINIMA
    assert next_in_cell(optimum, 2) == [lrs[1], lrs[5]]


def test_what_diverged_has_no_cost() -> None:
    lrs = np.array([1e-4, 2e-4, 4e-4, 8e-4, 1.2e-3])
    runs = Cell(setting=Setting(name="a"), lr=lrs, loss=np.array([3.2, 3.0, 2.9, 2.95, math.nan]))
    (optimum,) = fit_cells([runs]).optima
    assert optimum.cost(4.0) == math.inf
    assert optimum.lowest_diverged == 1.2e-3
    assert optimum.cost(1.5) < math.inf

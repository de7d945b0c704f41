from dataclasses import replace

import pytest

from raylr.analysis.runs import RunEnd
from raylr.errors import DataError
from raylr.imports.run import ImportedRun
from raylr.imports.units import check_units, lr_notes

RUN = ImportedRun(where="row 1", lr=1e-3, loss=3.0, end=RunEnd.COMPLETED)


@pytest.mark.parametrize(
    ("params", "tokens"),
    [(124e6, 2.5e9), (128e3, 250e3), (8e9, 15e12), (5e5, 3e6), (None, 2e9), (124e6, None), (1e5, 2e8)],
)
def test_counts_of_real_studies_pass(params: float | None, tokens: float | None) -> None:
    check_units([replace(RUN, params=params, target_tokens=tokens)], "t")


@pytest.mark.parametrize(
    ("params", "tokens", "unit"),
    [
        (1.2, 26e9, "params=1e9"),
        (124.0, 2.5e9, "params=1e6"),
        (124e6, 2.5, "tokens=1e9"),
        (124e6, 2500.0, "tokens=1e6"),
        (1.2, 26.0, "params=1e9,tokens=1e9"),
    ],
)
def test_other_units_are_named(params: float, tokens: float, unit: str) -> None:
    with pytest.raises(DataError, match="--unit") as found:
        check_units([replace(RUN, params=params, target_tokens=tokens)], "t")
    assert unit in str(found.value)


@pytest.mark.parametrize(("lrs", "noted"), [((3.0, 24.0), True), ((1.0, 3.0), False), ((3e-4,), False), ((1.5,), True)])
def test_lrs_above_one_are_remarked(lrs: tuple[float, ...], noted: bool) -> None:
    found = lr_notes([replace(RUN, lr=lr) for lr in lrs])
    assert bool(found) == noted
    assert all("another unit" in note for note in found)

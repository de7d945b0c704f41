"""The run table of a small study that was measured once, and the fits that it gave then: the same table gives the same
law, to the last digit, whatever is rearranged around the fits."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pytest

from raylr.analysis.studyfit import StudyFit, check_prediction, fit_study

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return csv.read_csv(DATA / "quickstart_evaluations.csv")


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    fits: dict[str, Any] = json.loads((DATA / "quickstart_fits.json").read_text())
    return fits


@pytest.fixture(scope="module")
def fit(table: pa.Table, expected: dict[str, Any]) -> StudyFit:
    return fit_study(table, expected["budgets"], priors=None)  # the exponents had no prior then


def test_the_law_is_the_same_to_the_last_digit(fit: StudyFit, expected: dict[str, Any]) -> None:
    law = expected["law"]
    for name in ("c", "alpha", "beta", "r2", "cells"):
        assert getattr(fit.law, name) == law[name], name
    assert [list(row) for row in fit.law.covariance or ()] == law["covariance"]


def test_the_cells_are_the_same_to_the_last_digit(fit: StudyFit, expected: dict[str, Any]) -> None:
    assert len(fit.optima) == len(expected["cells"])
    for cell, known in zip(fit.optima, expected["cells"], strict=True):
        for name in ("size", "params", "tokens", "lr_opt", "lr_low", "lr_high", "loss", "loss_stderr", "status"):
            assert getattr(cell, name) == known[name], (cell.size, cell.tokens, name)


def test_the_prediction_and_its_check_are_the_same(table: pa.Table, fit: StudyFit, expected: dict[str, Any]) -> None:
    prediction = fit.law.predict(expected["target_params"], expected["target_tokens"])
    for name, value in expected["prediction"].items():
        assert getattr(prediction, name) == value, name
    check = check_prediction(table, prediction.lr, expected["target_tokens"])
    assert check is not None
    assert check.quadratic.lr_opt == expected["check_optimum"]

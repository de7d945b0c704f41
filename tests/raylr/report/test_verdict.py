import dataclasses
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import diverge, made_result, made_spec, rows_of

from raylr.analysis.laws.lr_fit import fit_lr_law
from raylr.analysis.laws.lr_law import LRLaw, LRPrediction
from raylr.analysis.optimum import fit_optimum
from raylr.analysis.status import Status
from raylr.analysis.studyfit import Check, FittedRun
from raylr.report.ending import ending, evidence_of
from raylr.report.verdict import Advice, Evidence, Judged, contradicted, verdict

LAW = fit_lr_law([1e8, 1e8, 4e8, 4e8], [2e9, 8e9, 2e9, 8e9], [1e-3, 8e-4, 7e-4, 6e-4], stderr=0.05)
LR = 5e-4


def optima(*statuses: Status) -> list[Judged]:
    return [Judged(f"S{i}", status, f"it is {status}") for i, status in enumerate(statuses)]


def predicted(**changes: Any) -> LRPrediction:
    base: dict[str, Any] = {
        "lr": LR, "lr_low": LR / 2, "lr_high": LR * 2, "level": 0.9, "params": 8e8, "tokens": 2e10,
        "params_beyond": 2.0, "tokens_beyond": 1.0, "status": Status.OK, "message": "a note",
    }  # fmt: skip
    return LRPrediction(**base | changes)


def checked(best: float, ratios: tuple[float, ...] = (1 / 3, 1.0, 3.0), *, lost: tuple[float, ...] = ()) -> Check:
    """The check of a target whose best LR is `best` times the predicted one; runs at `lost` multiples diverged."""
    lrs = [LR * ratio for ratio in ratios]
    loss = [
        math.nan if ratio in lost else 3 + 0.1 * math.log(ratio / best) ** 2 for ratio in ratios
    ]  # fmt: skip
    runs = [_run(lr, one) for lr, one in zip(lrs, loss, strict=True)]
    return Check(runs=runs, tokens=100, predicted_lr=LR, fit=fit_optimum(lrs, loss))


def _run(lr: float, loss: float) -> FittedRun:
    from raylr.analysis.curves.power_law import fit_power_law

    tokens, losses = np.array([50.0, 100.0]), np.array([4.0, loss])
    return FittedRun(
        trial=str(lr), size="XL", lr=lr, tokens=tokens, loss=losses, diverged=math.isnan(loss),
        power_law=fit_power_law(tokens, losses), current_lr=tokens * math.nan,
    )  # fmt: skip


OK, OPEN, LOW, HIGH = Status.OK, Status.UNCERTAIN, Status.EDGE_LOW, Status.EDGE_HIGH
NO_LAW = fit_lr_law([], [], [])


@pytest.mark.parametrize(
    ("given_", "advice", "words"),
    [
        ({"optima": []}, Advice.UNKNOWN, "no run has ended"),
        ({"optima": optima(OK)}, Advice.TRUST, "Trust it: the optimum is bracketed"),
        ({"optima": optima(Status.PLATEAU)}, Advice.TRUST, "Trust it: it is plateau"),
        ({"optima": optima(OPEN)}, Advice.MORE, "More runs: it is uncertain"),
        ({"optima": optima(Status.TOO_FEW)}, Advice.MORE, "More runs: it is too_few"),
        ({"optima": optima(LOW)}, Advice.WIDEN, "to lower LRs"),
        ({"optima": optima(HIGH)}, Advice.WIDEN, "to higher LRs"),
        ({"optima": optima(Status.DIVERGED)}, Advice.WIDEN, "to lower LRs: every run diverged"),
        ({"optima": optima(Status.TWO_MINIMA)}, Advice.UNKNOWN, "Cannot tell: it is two_minima"),
        ({"optima": optima(HIGH, HIGH, OK)}, Advice.WIDEN, "to higher LRs: at 2 of 3 settings"),
        ({"optima": optima(LOW, LOW, OK)}, Advice.WIDEN, "to lower LRs: at 2 of 3 settings"),
        ({"optima": optima(*[Status.DIVERGED] * 2, OK)}, Advice.WIDEN, "at 2 of 3 settings every run diverged"),
        ({"law": None, "why": "no N"}, Advice.TRUST, "There is no law: no N"),
        ({"law": None, "why": "no N", "optima": optima(OPEN, OPEN, OK)}, Advice.MORE, "1 of 3 optima are known"),
        ({"law": NO_LAW}, Advice.UNKNOWN, "they give no law"),
        ({"optima": optima(OPEN, OPEN, OK)}, Advice.MORE, "1 of 3 optima are known, too few"),
        ({}, Advice.TRUST, "between the settings measured: 3 of 4 optima are known"),
        ({"law": replace(LAW, status=Status.ONE_SIZE, message="one size")}, Advice.MORE, "more budget is needed: one"),
        ({"prediction": predicted()}, Advice.TRUST, "No run at the target has tested it"),
        ({"prediction": predicted()}, Advice.TRUST, "XL lies 2 times beyond the fitted parameters"),
        ({"prediction": predicted(params_beyond=1.0)}, Advice.TRUST, "XL lies inside the fitted range"),
        ({"prediction": predicted(lr_low=LR / 9)}, Advice.MORE, "reaches a factor 9 to one side"),
        ({"prediction": predicted(lr_low=math.nan, lr_high=math.nan)}, Advice.UNKNOWN, "has no interval"),
        ({"prediction": predicted(lr=math.nan)}, Advice.UNKNOWN, "no prediction at XL, because a note"),
        ({"prediction": predicted(status=Status.EXTRAPOLATED, tokens_beyond=30.0)}, Advice.MORE, "30 times beyond"),
        ({"prediction": predicted(status=Status.ONE_SIZE)}, Advice.MORE, "the law does not reach XL (a note)"),
        ({"prediction": predicted(), "check": checked(1.2)}, Advice.TRUST, "Trust it at XL: training there"),
        ({"prediction": predicted(lr_low=LR / 9), "check": checked(1.2)}, Advice.TRUST, "inside its interval"),
        ({"prediction": predicted(), "check": checked(2.9, (1 / 3, 1, 3, 9))}, Advice.UNKNOWN, "Do not trust the law"),
        ({"prediction": predicted(), "check": checked(90.0)}, Advice.UNKNOWN, "lowest at the highest LR tried"),
        ({"prediction": predicted(), "check": checked(0.01)}, Advice.UNKNOWN, "lowest at the lowest LR tried"),
        ({"prediction": predicted(), "check": checked(1.0, lost=(1.0, 3.0))}, Advice.UNKNOWN, "at LR 5.00e-4 diverged"),
        ({"prediction": predicted(), "check": checked(1.0, lost=(3.0,))}, Advice.TRUST, "do not decide"),
        ({"prediction": predicted(), "check": checked(1.0, (1.0,))}, Advice.TRUST, "do not decide"),
    ],
)  # fmt: skip
def test_every_case_has_its_verdict(given_: dict[str, Any], advice: Advice, words: str) -> None:
    evidence = Evidence(**{"optima": optima(OK, OK, OK, OPEN), "law": LAW, "target": "XL"} | given_)
    found = verdict(evidence)
    assert found.advice is advice, found
    assert words in found.text
    assert found.text.endswith(".")
    assert "\n" not in found.text


@given(
    st.lists(st.sampled_from(list(Status)), max_size=5),
    st.sampled_from([None, LAW, NO_LAW, replace(LAW, status=Status.COLLINEAR, message="a line")]),
    st.sampled_from([None, predicted(), predicted(lr_low=math.nan, lr_high=math.nan), predicted(lr=math.nan)]),
    st.floats(-5, 5),
    st.booleans(),
)
def test_there_is_always_a_verdict_and_a_contradicted_law_is_never_trusted(
    statuses: list[Status], law: LRLaw | None, prediction: LRPrediction | None, best: float, with_check: bool
) -> None:
    check = checked(math.exp(best)) if with_check and prediction is not None else None
    evidence = Evidence(optima=optima(*statuses), law=law, why="no N", prediction=prediction, check=check)
    found = verdict(evidence)
    assert found.text
    assert "nan" not in found.text
    if contradicted(evidence):
        assert found.advice is not Advice.TRUST
    if with_check and prediction is not None and prediction.lr > 0 and abs(best) > math.log(6):
        assert found.advice is not Advice.TRUST  # the loss still falls at the end of the check, outside the interval


@given(st.lists(st.sampled_from([OK, OK, OPEN, LOW, HIGH]), min_size=2, max_size=6))
def test_what_was_measured_is_trusted_as_a_whole_only_where_every_optimum_is_known(statuses: list[Status]) -> None:
    one_budget = fit_lr_law([1e8, 4e8], [2e9, 2e9], [1e-3, 7e-4], stderr=0.05)
    assert one_budget.usable
    assert not one_budget.ok
    text = str(verdict(Evidence(optima=optima(*statuses), law=one_budget)))
    assert ("Trust it at the sizes and budgets measured" in text) == (set(statuses) == {OK})


@pytest.mark.parametrize(
    ("change", "advice", "next_"),
    [
        (lambda row: row, Advice.TRUST, "raylr recipe"),
        (lambda row: diverge(row) if row["role"] == "search" else row, Advice.WIDEN, "set `lr: ["),
        (lambda row: row if row["role"] == "check" or row["lr"] < 5e-3 else None, Advice.WIDEN, "max_trials"),
        (lambda row: row if row["size"] == "S" else None, Advice.MORE, "add a second size"),
    ],
)
def test_a_study_ends_with_a_verdict_the_lr_and_what_to_do_next(
    tmp_path: Path, change: Any, advice: Advice, next_: str
) -> None:
    rows = [row for one in rows_of(tmp_path, {}) if (row := change(one)) is not None]
    result = made_result(tmp_path / "study", rows, made_spec())
    if advice is not Advice.TRUST:
        result = dataclasses.replace(result, check=None)
    lines = ending(result)
    assert verdict(evidence_of(result)).advice is advice, lines
    assert [line.heading for line in lines][:2] == ["Verdict", "LR"]
    assert any(next_ in line.text for line in lines), lines
    assert sum(line.heading == "Next" for line in lines) == 1

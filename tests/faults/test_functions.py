"""What a user's function may do besides training: it fails, and the user sees one sentence; or it disturbs the process
that it runs in. In both cases the study ends with the same law."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_study import assert_same, rows_of, spec_with
from odd_functions import FAILURES, HABITS

from raylr.analysis.units import format_lr
from raylr.store.check import check_study
from raylr.study import FittingStudy

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.usefixtures("cluster")]
HOW = "in a trial, after its third loss"
RUNS = 8
"""Runs of the study: each may do one thing."""

ELSEWHERE = ("leaves children", "prints megabytes", "returns a lock")
"""Habits that `test_programs` tries, with a Ray that ends."""


def batches(names: list[str]) -> list[list[str]]:
    return [names[first : first + RUNS] for first in range(0, len(names), RUNS)]


def disturbed(place: Path, names: list[str], undisturbed: FittingStudy) -> tuple[list[str], bool, str]:
    """Run the study with a run for each name that does this; return the messages, whether the law is the same, and what
    was measured."""
    (place / "marks").mkdir()
    for name in names:
        (place / "marks" / name).touch()
    heard: list[str] = []
    study = FittingStudy(spec_with(), place / "study")
    study.progress.message = heard.append  # type: ignore[method-assign]
    study.run()
    assert sorted(path.name for path in (place / "marks").iterdir()) == sorted(f".{name}" for name in names)
    same = assert_same(study, undisturbed)
    assert check_study(place / "study").whole
    return heard, same, f"{len(study.evaluations)} of {len(rows_of(undisturbed))} losses"


def message_of(place: Path, name: str, heard: list[str]) -> str:
    """What was said about the run that did this."""
    size, lr = (place / "marks" / f".{name}").read_text().split()[:2]
    return next((line for line in heard if line.startswith(f"{size}-lr{format_lr(float(lr))}: ")), "nothing")


@pytest.mark.parametrize(
    "names", [*batches(list(FAILURES)), *batches([name for name in HABITS if name not in ELSEWHERE])]
)
def test_a_function_that_fails_or_disturbs_its_process(
    names: list[str], tmp_path: Path, undisturbed: FittingStudy, record: Callable[..., Any]
) -> None:
    heard, same, survived = disturbed(tmp_path, names, undisturbed)
    for name in names:
        message = message_of(tmp_path, name, heard)
        assert "it is tried again" in message or name in HABITS, (name, heard)
        what = f"function {name}" if name in HABITS else f"function: {name}"
        record(what, how=HOW, message=message, survived=survived, same_law=same)

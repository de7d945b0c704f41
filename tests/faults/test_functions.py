"""What a user's function may do besides training: whatever it raises, the user sees one sentence; whatever it does to
the process that it runs in, the study ends with the same law."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_study import assert_same, rows_of, spec_with
from odd_functions import FAILURES, HABITS

from raylr.analysis.units import format_lr
from raylr.errors import TrainingError
from raylr.store.check import check_study
from raylr.study import FittingStudy

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.usefixtures("cluster")]
RUNS = 8
"""Runs of the study: each may do one thing."""
LEAVES = ("sys.exit(0)",)
"""Ways to end that are no failure of the process: the run lacks losses, and is trained again by the same command."""

ELSEWHERE = ("leaves children", "prints megabytes")
"""Habits that `test_programs` tries, with a Ray that ends."""


def batches(names: list[str]) -> list[list[str]]:
    return [names[first : first + RUNS] for first in range(0, len(names), RUNS)]


def disturbed(place: Path, names: list[str]) -> tuple[list[str], str]:
    """Run the study with a run for each name that does this; return the messages, and the error that it ended with."""
    (place / "marks").mkdir()
    for name in names:
        (place / "marks" / name).touch()
    heard: list[str] = []
    study = FittingStudy(spec_with(), place / "study")
    study.progress.message = heard.append  # type: ignore[method-assign]
    error = ""
    try:
        study.run()
    except TrainingError as failure:
        error = str(failure)
    assert sorted(path.name for path in (place / "marks").iterdir()) == sorted(f".{name}" for name in names)
    return heard, error


def message_of(place: Path, name: str, heard: list[str]) -> str:
    """What was said about the run that did this."""
    size, lr = (place / "marks" / f".{name}").read_text().split()[:2]
    return next((line for line in heard if line.startswith(f"{size}-lr{format_lr(float(lr))}: ")), "nothing")


@pytest.mark.parametrize("names", [*batches([name for name in FAILURES if name not in LEAVES]), list(LEAVES)])
def test_whatever_a_function_raises(
    names: list[str], tmp_path: Path, undisturbed: FittingStudy, record: Callable[..., Any]
) -> None:
    heard, error = disturbed(tmp_path, names)
    there, total = len(FittingStudy.open(tmp_path / "study").evaluations), len(rows_of(undisturbed))
    assert bool(error) == (there < total) == bool(set(names) & set(LEAVES)), (heard, error)
    study = FittingStudy(spec_with(), tmp_path / "study")
    study.run()
    same = assert_same(study, undisturbed)
    assert check_study(tmp_path / "study").whole
    for name in names:
        message = message_of(tmp_path, name, heard)
        assert message != "nothing", (name, heard)
        assert ("it is tried again" in message) == (name not in LEAVES), message
        record(f"function: {name}", how="in a trial, after its third loss", message=message,
               survived=f"{there} of {total} losses after the first command, {len(study.evaluations)} after it was "
               "repeated" if error else f"{there} of {total} losses", same_law=same)  # fmt: skip


@pytest.mark.parametrize("names", batches([name for name in HABITS if name not in ELSEWHERE]))
def test_whatever_a_function_does_to_its_process(
    names: list[str], tmp_path: Path, undisturbed: FittingStudy, record: Callable[..., Any]
) -> None:
    heard, error = disturbed(tmp_path, names)
    assert error == "", heard
    study = FittingStudy.open(tmp_path / "study")
    same = assert_same(study, undisturbed)
    assert check_study(tmp_path / "study").whole
    total = len(rows_of(undisturbed))
    for name in names:
        record(f"function {name}", how="in a trial, after its third loss", message=message_of(tmp_path, name, heard),
               survived=f"{len(study.evaluations)} of {total} losses", same_law=same)  # fmt: skip

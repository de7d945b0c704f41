"""The faults that a study survives. Each test gives `record` what the user saw and what survived; `make faults` runs
all of them and writes the table of docs/reliability.md. The part that starts no program runs in `make test`, too.

Faults of single parts have their tests beside those parts: fragments (`tests/raylr/store`), checkpoints
(`tests/trainables/training`), evaluations (`tests/raylr/evaluation`), commands (`tests/raylr/external`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from faulty_study import study_in

from raylr.study import FittingStudy

RESULTS = "RAYLR_FAULTS"
"""Environment variable with the file that takes the rows of the table; without it nothing is written."""
LONGEST = 500
"""Characters of what a user sees; more is no sentence."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what belongs to the suite, so that `make faults` finds it together with the marked tests elsewhere."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.table)


def note(line: dict[str, Any]) -> None:
    """Append a line to the results, whole: several processes of one test run write into the file."""
    if RESULTS in os.environ:
        file = os.open(os.environ[RESULTS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, (json.dumps(line) + "\n").encode())
        finally:
            os.close(file)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed or report.skipped:
        note({"not passed": item.nodeid, "why": report.outcome})
    return report


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> FittingStudy:
    """The study that nothing disturbs; not to be changed."""
    study = study_in(tmp_path_factory.mktemp("undisturbed") / "study")
    study.run()
    return study


@pytest.fixture
def record() -> Callable[..., None]:
    """Takes one row of the table: fault, how it was made, what the user saw, what survived, whether the law is equal.

    The message must be a sentence, and no traceback.
    """

    def take(fault: str, *, how: str, message: str, survived: str, same_law: bool | None) -> None:
        sentence = " ".join(message.split())
        assert sentence
        assert "|" not in fault
        assert "Traceback" not in sentence
        assert len(sentence) < LONGEST
        note({"fault": fault, "how": how, "message": sentence, "survived": survived, "same_law": same_law})

    return take

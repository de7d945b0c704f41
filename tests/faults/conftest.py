"""The faults that a study survives. Each test gives `record` what the user saw and what survived; `make faults` runs
all of them and writes the table of docs/reliability.md. The part that starts no program runs in `make test`, too.

Faults of single parts have their tests beside those parts: fragments (`tests/raylr/store`), checkpoints
(`tests/trainables/training`), evaluations (`tests/raylr/evaluation`), commands (`tests/raylr/external`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_study import study_in

from raylr.study import FittingStudy

RESULTS = "RAYLR_FAULTS"
"""Environment variable with the file that takes the rows of the table; without it nothing is written."""


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> FittingStudy:
    """The study that nothing disturbs; not to be changed."""
    study = study_in(tmp_path_factory.mktemp("undisturbed") / "study")
    study.run()
    return study


@pytest.fixture(scope="session")
def record() -> Iterator[Callable[..., None]]:
    """Takes one row of the table: fault, how it was made, what the user saw, what survived, whether the law is equal.

    The message must be a sentence, and no traceback.
    """
    rows: list[dict[str, Any]] = []

    def take(fault: str, *, how: str, message: str, survived: str, same_law: bool | None = True) -> None:
        sentence = " ".join(message.split())
        assert sentence
        assert "Traceback" not in sentence
        assert len(sentence) < 500
        rows.append({"fault": fault, "how": how, "message": sentence, "survived": survived, "same_law": same_law})

    yield take
    if RESULTS in os.environ:
        with Path(os.environ[RESULTS]).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

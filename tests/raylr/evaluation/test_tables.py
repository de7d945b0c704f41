from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from made_scores import scored

from raylr.errors import DamagedError
from raylr.evaluation.tables import Attempt, AttemptEnd, AttemptTable, QuestionTable, failures

ROWS: list[dict[str, Any]] = scored({"a": 0.0}, (100,), questions=2).to_pylist()


def test_questions_are_kept_once_and_written_as_one_file(tmp_path: Path) -> None:
    assert QuestionTable(tmp_path).read().num_rows == 0
    assert not list(tmp_path.iterdir())
    assert QuestionTable(tmp_path).append(ROWS[:2]) == 2
    assert QuestionTable(tmp_path).append(ROWS) == len(ROWS) - 2
    other = ROWS[0] | {"checkpoint": "other"}
    assert QuestionTable(tmp_path).append([other]) == 1
    path = QuestionTable(tmp_path).finish(ROWS[0])
    assert path == tmp_path / "evals.parquet"
    table = QuestionTable(tmp_path)
    assert pq.read_table(path).equals(table.read())
    assert table.read(ROWS[0]).to_pylist() == ROWS
    assert table.read(other).to_pylist() == [other]
    assert table.read(ROWS[0] | {"run": "none"}).num_rows == 0
    assert [len(part.fragments()) for part in table.tables()] == [1, 1]
    assert [part.problems() for part in table.tables()] == [[], []]


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    table = QuestionTable(tmp_path)
    table.append(ROWS)
    (fragment,) = table.tables()[0].fragments()
    content = bytearray(fragment.read_bytes())
    content[len(content) // 2] ^= 1
    fragment.write_bytes(content)
    with pytest.raises(DamagedError, match=fragment.name):
        QuestionTable(tmp_path).read()


def test_the_last_attempt_counts(tmp_path: Path) -> None:
    assert failures(tmp_path) == {}
    assert not list(tmp_path.iterdir())
    failed = Attempt(run="a", checkpoint="a/step-1", end=AttemptEnd.FAILED, reason="full")
    table = AttemptTable(tmp_path)
    table.append(failed, measurement="x", number=0)
    table.append(Attempt(run="b", checkpoint="b/step-1", end=AttemptEnd.FAILED, reason="no"), measurement="x", number=0)
    assert failures(tmp_path) == {"a/step-1": "full", "b/step-1": "no"}
    table.append(Attempt(run="a", checkpoint="a/step-1", end=AttemptEnd.SCORED), measurement="x", number=1)
    assert failures(tmp_path) == {"b/step-1": "no"}
    assert [row["attempt"] for row in AttemptTable(tmp_path).read().to_pylist()] == [0, 0, 1]

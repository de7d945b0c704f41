import io
import json
from pathlib import Path

import pytest

from raylr.errors import InputError
from raylr.finished import FinishedRuns, read_finished
from raylr.query import ask, write


@pytest.fixture
def runs(tmp_path: Path) -> FinishedRuns:
    pytest.importorskip("duckdb")
    rows = "".join(
        f"{lr},{loss}\n" for lr, loss in ((1e-4, 3.2), (3e-4, 3.1), (1e-3, 3.0), (3e-3, 3.05), (1e-2, "nan"))
    )
    (tmp_path / "a.csv").write_text("lr,loss\n" + rows)
    return read_finished(tmp_path / "a.csv")


def test_questions_about_runs_and_optima(runs: FinishedRuns) -> None:
    assert ask(runs, "SELECT count(*) AS n FROM runs WHERE isfinite(loss)").to_pylist() == [{"n": 4}]
    assert ask(runs, "SELECT count(*) AS n FROM evaluations").to_pylist() == [{"n": 0}]
    (found,) = ask(runs, "SELECT * FROM optima").to_pylist()
    assert 5e-4 < found["lr"] < 3e-3


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEKT 1", "cannot be answered"),
        ("SELECT x FROM runs", "cannot be answered"),
        ("COPY runs TO 'out.csv'", "disabled"),
        ("SELECT * FROM read_csv('a.csv')", "disabled"),
        ("INSTALL httpfs", "cannot be answered"),
        ("SET enable_external_access = true", "cannot be answered"),
    ],
)
def test_nothing_else_can_be_done(
    runs: FinishedRuns, sql: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        ask(runs, sql)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_forms_of_an_answer(runs: FinishedRuns) -> None:
    answer = ask(runs, "SELECT lr, loss, seed FROM runs ORDER BY lr DESC LIMIT 2")
    texts = {}
    for form in ("table", "csv", "json"):
        out = io.StringIO()
        write(answer, form, out)
        texts[form] = out.getvalue().splitlines()
    assert texts["table"][0].split() == ["lr", "loss", "seed"]
    assert texts["csv"][2] == "0.003,3.05,"
    assert json.loads(texts["json"][0]) == {"lr": 0.01, "loss": None, "seed": None}

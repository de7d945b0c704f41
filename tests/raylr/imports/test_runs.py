"""From rows to runs: what is recognised, what is refused by name, and that nothing else ever comes out."""

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared_data import DATA

from raylr.analysis.runs import RunEnd
from raylr.errors import DataError, RaylrError
from raylr.finished import cells_of, read_finished
from raylr.imports.options import parse_options
from raylr.imports.run import ImportedRuns, summary
from raylr.imports.sources import read_runs

LRS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def read(folder: Path, text: str, **options: str) -> ImportedRuns:
    file = folder / "sweep.csv"
    file.write_text(text)
    return read_runs([file], parse_options(**options))  # type: ignore[arg-type]


def sweep(*columns: str, extra: str = "", rows: int = 5) -> str:
    head = ",".join(["lr", "loss", *columns])
    return head + "\n" + "".join(f"{lr},{3 + 0.05 * math.log(lr / 1e-3) ** 2}{extra}\n" for lr in LRS[:rows])


def test_a_sweep_of_two_columns_is_enough(tmp_path: Path) -> None:
    found = read(tmp_path, sweep())
    assert [run.lr for run in found.runs] == list(LRS)
    assert {run.end for run in found.runs} == {RunEnd.COMPLETED}
    assert any("one model" in note for note in found.notes)


def test_units_that_cannot_be_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"params go from 0\.124 .* probably billions.*--unit params=1e9"):
        read(tmp_path, sweep("params", "tokens", extra=",0.124,2.5e9"))
    with pytest.raises(DataError, match=r"tokens go from 2\.5 .* probably billions"):
        read(tmp_path, sweep("params", "tokens", extra=",124e6,2.5"))
    found = read(tmp_path, sweep("params", "tokens", extra=",0.124,2.5"), unit="params=B,tokens=B")
    assert (found.runs[0].params, found.runs[0].tokens) == (124e6, 2.5e9)
    with pytest.raises(DataError, match="two units"):
        read(tmp_path, "lr,loss,params,tokens\n1e-3,3,124e6,2e9\n1e-3,3,0.5,2e9\n")


def test_runs_that_lack_what_others_have_are_left_out_by_name(tmp_path: Path) -> None:
    found = read(tmp_path, "lr,loss,params,tokens\n1e-3,3,1e8,2e9\n2e-3,3.1,,2e9\n3e-3,,1e8,2e9\n,3,1e8,2e9\n")
    assert [run.lr for run in found.runs] == [1e-3]
    text = "\n".join(summary(found))
    for words in (
        "no parameters, which other runs have: 1 (sweep.csv, line 3)",
        "no loss",
        "line 4",
        "no LR",
        "line 5",
    ):
        assert words in text


def test_diverged_unfinished_and_crashed_runs(tmp_path: Path) -> None:
    text = (
        "lr,loss,state,tokens,target_tokens\n1e-3,3.0,finished,2e9,2e9\n2e-3,nan,crashed,1e9,2e9\n"
        "3e-3,3.5,running,1e9,2e9\n4e-3,3.5,failed,1e9,2e9\n5e-3,3.2,,1e9,2e9\n"
    )
    found = read(tmp_path, text)
    ends = [RunEnd.COMPLETED, RunEnd.DIVERGED, RunEnd.PAUSED, RunEnd.FAILED, RunEnd.PAUSED]
    assert [run.end for run in found.runs] == ends
    lines = "\n".join(summary(found))
    assert "1 diverged" in lines
    assert "2 unfinished" in lines
    assert "1 crashed" in lines
    (cell,) = cells_of(read_finished(tmp_path / "sweep.csv").table)
    assert sorted(cell.lr) == [1e-3, 2e-3]


def test_an_empty_loss_is_what_the_user_says(tmp_path: Path) -> None:
    text = "lr,loss\n1e-3,3.0\n1e-2,\n"
    assert len(read(tmp_path, text).runs) == 1
    assert [run.end for run in read(tmp_path, text, missing_loss="diverged").runs][-1] is RunEnd.DIVERGED


def test_seeds_repetitions_and_rows_that_are_there_twice(tmp_path: Path) -> None:
    assert len(read(tmp_path, "lr,loss,seed\n1e-3,3.0,0\n1e-3,3.1,1\n").runs) == 2
    found = read(tmp_path, "lr,loss\n1e-3,3.0\n1e-3,3.1\n1e-3,3.0\n")
    assert len(found.runs) == 2
    assert any("in the source twice" in note for note in found.notes)
    assert any("further seeds" in note for note in found.notes)
    with pytest.raises(DataError, match="the same settings, LR and seed"):
        read(tmp_path, "lr,loss,seed\n1e-3,3.0,0\n1e-3,3.1,0\n")


def test_runs_of_several_kinds_are_never_mixed(tmp_path: Path) -> None:
    text = "lr,loss,kind\n" + "".join(
        f"{lr},{3 + i + j},{kind}\n" for (i, lr), (j, kind) in itertools.product(enumerate(LRS), enumerate("ab"))
    )
    with pytest.raises(DataError, match="differ in 'kind'; name it with --by kind"):
        read(tmp_path, text)
    cells = cells_of(read_finished(tmp_path / "sweep.csv", parse_options(by="kind")).table)
    assert [cell.family for cell in cells] == ["kind a", "kind b"]
    optimizers = cells_of(read_finished(_write(tmp_path, text.replace("kind", "optimizer"))).table)
    assert [cell.family for cell in optimizers] == ["optimizer a", "optimizer b"]


def _write(folder: Path, text: str) -> Path:
    (folder / "other.csv").write_text(text)
    return folder / "other.csv"


def test_a_batch_that_could_be_two_things_is_refused(tmp_path: Path) -> None:
    text = "lr,loss,batch\n" + "".join(f"{lr},3,{batch}\n" for lr in LRS for batch in (128, 256))
    with pytest.raises(DataError, match="--unit batch=tokens or --unit batch=sequences"):
        read(tmp_path, text)
    assert read(tmp_path, text, unit="batch=sequences").runs[0].batch_kind == "sequences"
    found = read(tmp_path, text, unit="batch=sequences", fixed="seq_len=2048").runs[0]
    assert (found.batch, found.batch_kind) == (128 * 2048, "tokens")


def curve(run: str = "") -> str:
    rows = [
        f"{run}{lr},{step},{step * 1e6},{3 + 0.05 * math.log(lr / 1e-3) ** 2 + 1 / step}"
        for lr in LRS for step in range(1, 21)
    ]  # fmt: skip
    return ("run," if run else "") + "lr,step,tokens,val_loss\n" + "\n".join(rows) + "\n"


def test_curves_are_evaluations_of_one_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--rows evaluations"):
        read(tmp_path, curve())
    found = read(tmp_path, curve(), rows="evaluations")
    assert [(run.lr, run.tokens, len(run.curve)) for run in found.runs] == [(lr, 2e7, 20) for lr in LRS]
    named = "run,lr,step,tokens,val_loss\n" + "".join(
        f"r{i},{lr * min(1, step / 3, (21 - step) / 5)},{step},{step * 1e6},{3 + i}\n"
        for i, lr in enumerate(LRS) for step in range(1, 21)
    )  # fmt: skip
    scheduled = read(tmp_path, named)
    assert [run.lr for run in scheduled.runs] == pytest.approx(LRS)  # the peak of the schedule
    assert scheduled.runs[0].curve[0].current_lr == pytest.approx(LRS[0] / 3)


def test_a_run_that_ended_alone_before_the_others_is_unfinished(tmp_path: Path) -> None:
    rows = [f"r{i},{lr},{s * 1e6},{3 + 1 / s}" for i, lr in enumerate(LRS) for s in range(1, 8 if i == 4 else 21)]
    found = read(tmp_path, "run,lr,tokens,val_loss\n" + "\n".join(rows) + "\n")
    assert [run.end for run in found.runs] == [RunEnd.COMPLETED] * 4 + [RunEnd.PAUSED]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr,accuracy\n1e-3,0.5\n", "no column that is known to be the loss"),
        ("lr,loss\n", "a header and no rows"),
        ("", "is empty"),
        ("lr,loss\n1e-3\n", "line 2: 1 cells where the header has 2"),
        ("lr,loss,loss\n1e-3,1,2\n", "the column 'loss' 2 times"),
        ("0.001,3.0\n0.002,3.1\n", "has no header"),
        ("lr,loss\n1e-3,nan\n2e-3,\n", None),
        ("lr,loss\nfast,3\n", "line 2: lr is 'fast'"),
        ("lr,loss\n0,3\n", "line 2: lr is 0, and must be"),
        ("lr,loss\n1e-3,\n", "holds no run that can be used"),
    ],
)
def test_a_wrong_table_is_one_sentence(tmp_path: Path, text: str, message: str | None) -> None:
    if message is None:
        assert len(read(tmp_path, text).runs) == 1
        return
    with pytest.raises(DataError, match=message) as found:
        read(tmp_path, text)
    assert "\n" not in str(found.value)


BASE = "run,lr,loss,params,tokens,batch_size,seed,state\n" + "".join(
    f"r{i},{lr},{3 + 0.05 * math.log(lr / 1e-3) ** 2},{size},2e9,256,0,finished\n"
    for i, (lr, size) in enumerate(itertools.product(LRS, ("124M", "350M")))
)
CELLS = st.sampled_from(
    ["", "nan", "inf", "-1", "0", "1e400", "diverged", "x", '"', "1,2", "\t", "ü", "124M", "true", "\0"]
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A table of runs with cells, lines and characters changed, moved and lost."""
    lines = [line.split(",") for line in BASE.strip().split("\n")]
    for _ in range(draw(st.integers(0, 4))):
        row = draw(st.integers(0, len(lines) - 1))
        kind = draw(st.sampled_from(["cell", "drop", "twice", "cut", "column"]))
        if kind == "cell":
            lines[row][draw(st.integers(0, len(lines[row]) - 1))] = draw(CELLS | st.text(max_size=5))
        elif kind == "drop" and len(lines) > 1:
            lines.pop(row)
        elif kind == "twice":
            lines.insert(row, list(lines[row]))
        elif kind == "cut" and len(lines[row]) > 1:
            lines[row] = lines[row][:-1]
        elif kind == "column":
            at = draw(st.integers(0, 7))
            lines = [line[:at] + line[at + 1 :] if len(line) > 1 else line for line in lines]
    text = "\n".join(",".join(line) for line in lines)
    return text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutated())
def test_any_table_gives_runs_or_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.csv").write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        cells = cells_of(read_finished(tmp_path / "sweep.csv").table)
    except RaylrError:
        return
    assert sum(cell.lr.size for cell in cells) > 0
    assert all((cell.lr > 0).all() and not (cell.loss == math.inf).any() for cell in cells)


@pytest.mark.skipif(not DATA.exists(), reason=f"no public data in {DATA}")
def test_a_public_grid_is_read_whole() -> None:
    options = parse_options(columns="params=N,tokens=D,batch=batch_seqs,loss=smooth_loss")
    found = read_runs([DATA / "lr_grid_dense.csv"], options)
    assert len(found.runs) == 1404
    assert found.left_out == {}

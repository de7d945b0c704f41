"""The commands for finished runs, from a table to the next LR, on files that the tests make."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from made_pages import is_self_contained

from raylr.cli.app import main

Run = Callable[..., tuple[int, str, str]]
LRS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command line in an empty folder; return its exit status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = 0
        try:
            main(list(arguments))
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capsys.readouterr()

    return run


def sweep(best: float = 1e-3, lrs: tuple[float, ...] = LRS) -> str:
    return "lr,val_loss\n" + "".join(f"{lr},{3 + 0.05 * math.log(lr / best) ** 2:.6f}\n" for lr in lrs)


def grid(batches: tuple[int, ...] = (128, 256)) -> str:
    return "N,D,batch_seqs,lr,smooth_loss\n" + "".join(
        f"{n},{d},{b},{lr},{2 + 10 * n**-0.1 + 0.05 * math.log(lr / (1e-3 * (n / 1e8) ** -0.3)) ** 2}\n"
        for n in (1e8, 4e8) for d in (2e9, 8e9) for b in batches for lr in LRS
    )  # fmt: skip


def test_one_sweep_is_answered_at_once(run: Run) -> None:
    Path("sweep.csv").write_text(sweep())
    status, out, err = run("fit", "sweep.csv")
    assert (status, err) == (0, "")
    for words in (
        "Verdict     Trust it",
        "90 % interval",
        "off by a factor of 2 costs",
        "no further run is worth it",
        "o run",
    ):
        assert words in out
    assert all(len(line) <= 120 for line in out.splitlines() if "|" in line)


@pytest.mark.parametrize(("best", "word"), [(1e-6, "to lower LRs"), (1.0, "to higher LRs")])
def test_an_edge_comes_first(run: Run, best: float, word: str) -> None:
    Path("sweep.csv").write_text(sweep(best))
    _, out, _ = run("fit", "sweep.csv")
    assert f"Verdict     Widen the range {word}" in out
    assert ("or lower" if best < 1e-3 else "or higher") in out
    assert "two more LRs" in out


def test_from_a_grid_to_a_recipe(run: Run) -> None:
    Path("grid.csv").write_text(grid())
    status, out, _ = run("import", "grid.csv", "--out", "runs", "--columns", "params=N,tokens=D,loss=smooth_loss")
    assert status == 0
    assert "40 runs added to runs" in out
    assert "0 runs added to runs, 40 were there before" in run("import", "grid.csv", "--out", "runs")[1]
    status, out, _ = run("fit", "runs", "--out", "law.json")
    assert status == 0
    assert "Verdict     Trust it" in out
    assert "8 of 8 optima are known" in out
    for law in ("runs", "law.json"):
        status, out, _ = run("predict", law, "--params", "8e8", "--tokens", "1.6e10", "--batch", "256")
        assert status == 0
        assert ", a batch of 256 sequences" in out
    ask = ("recipe", "runs", "--for", "megatron", "--params", "8e8", "--tokens", "1.6e10", "--batch", "256")
    assert "--seq-len" in run(*ask)[2]
    status, out, _ = run(*ask, "--seq-len", "2048")
    assert status == 0
    assert "--global-batch-size 256" in out
    status, _, err = run("recipe", "runs", "--for", "hf", "--params", "8e12", "--tokens", "1e12", "--batch", "256")
    assert status == 3
    assert "does not support this prediction" in err
    assert "no recipe for 'megatronn'; did you mean 'megatron'" in run("recipe", "runs", "--for", "megatronn",
                                                                      "--params", "1", "--tokens", "1")[2]  # fmt: skip


def test_ask_and_tell(run: Run) -> None:
    best = 8e-4
    for lr in (1e-4, 1e-2):
        loss = 3 + 0.05 * math.log(lr / best) ** 2
        assert run("tell", "runs", "--lr", str(lr), "--loss", str(loss), "--params", "1e8", "--tokens", "2e9")[0] == 0
    lrs = []
    for _ in range(6):
        status, out, _ = run("suggest", "runs", "-n", "1")
        assert status == 0
        if "No further run" in out:
            break
        lrs.append(float(out.split()[0]))
        loss = 3 + 0.05 * math.log(lrs[-1] / best) ** 2
        assert "Added" in run("tell", "runs", "--lr", str(lrs[-1]), "--loss", str(loss))[1]
    else:
        pytest.fail(f"not settled after {lrs}")
    assert "Verdict     Trust it" in run("fit", "runs")[1]
    assert "Known already" in run("tell", "runs", "--lr", str(lrs[-1]), "--loss", str(loss))[1]


def test_suggestions_for_a_setting(run: Run) -> None:
    Path("grid.csv").write_text(grid())
    options = ("--columns", "params=N,tokens=D,loss=smooth_loss")
    status, out, _ = run("suggest", "grid.csv", "--params", "2e8", "--tokens", "4e9", "--batch", "256", *options)
    assert status == 0
    assert "no run there yet" in out
    assert len(out.splitlines()) == 3
    status, _, err = run("suggest", "grid.csv", "--params", "1e8", "--tokens", "2e9", *options)
    assert (status, "give --batch" in err) == (2, True)
    assert "neither" in run("suggest", "grid.csv", "--params", "1e8")[2]


def test_the_report_is_one_file_and_figures(run: Run) -> None:
    Path("grid.csv").write_text(grid((256,)))
    options = ("--columns", "params=N,tokens=D,loss=smooth_loss")
    assert "give --out" in run("report", "grid.csv", *options)[2]
    status, out, _ = run("report", "grid.csv", "--out", "report", *options)
    assert (status, out) == (0, "Report: report/report.html\n")
    text = Path("report/report.html").read_text()
    for words in ("What to run next", "The law", "All optima", "20 runs from grid.csv"):
        assert words in text
    is_self_contained(Path("report/report.html"), figures={"loss-over-lr", "regret", "law"})
    assert {path.name for path in Path("report/figures").iterdir()} == {
        f"{name}.{kind}" for name in ("loss-over-lr", "law", "regret") for kind in ("svg", "png")
    }


def test_questions(run: Run) -> None:
    pytest.importorskip("duckdb")
    Path("sweep.csv").write_text(sweep())
    status, out, _ = run("query", "sweep.csv", "SELECT min(loss) AS least FROM runs", "--format", "json")
    assert (status, json.loads(out)) == (0, {"least": 3.0})
    assert "--format must be one of" in run("query", "sweep.csv", "SELECT 1", "--format", "xml")[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "none.csv", "--out", "runs"], "there is no none.csv"),
        (["import", ".", "--out", "runs"], "not a known kind of source"),
        (["fit", "none.csv"], "there is no none.csv"),
        (["suggest", "none"], "there is no none"),
        (["suggest", "none", "-n", "0"], "--n is a number of runs"),
        (["tell", "runs", "--lr", "0", "--loss", "3"], "lr is 0"),
        (["tell", "runs", "--lr", "1e-3", "--loss", "low"], "loss is 'low'"),
        (["query", "none", "SELECT 1"], "there is no none"),
    ],
)
def test_a_mistake_is_one_sentence(run: Run, arguments: list[str], message: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not list(Path().iterdir())

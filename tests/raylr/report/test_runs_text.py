import io
import math
from pathlib import Path

import pytest

from raylr.cli.console import make_console
from raylr.finished import read_finished
from raylr.imports.options import ImportOptions
from raylr.report.runs_html import write_runs_report
from raylr.report.runs_text import MOST_FAMILIES, RunsResult, ending, plot, result_of, show_runs

LRS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


def result(folder: Path, losses: dict[float, float], more: str = "") -> RunsResult:
    rows = "".join(f"{lr},{loss}\n" for lr, loss in losses.items())
    (folder / "a.csv").write_text("lr,loss\n" + rows + more)
    return result_of(read_finished(folder / "a.csv"))


def parabola(best: float, lrs: tuple[float, ...] = LRS) -> dict[float, float]:
    return {lr: 3 + 0.05 * math.log(lr / best) ** 2 for lr in lrs}


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        (parabola(1e-3), "Trust it"),
        (parabola(1e-6), "Widen the range to lower LRs"),
        (parabola(1.0), "Widen the range to higher LRs"),
        ({1e-4: 3.3, 1e-3: 3.0, 1e-2: 3.3}, "More runs"),
        (dict.fromkeys(LRS, math.nan), "Widen the range to lower LRs: every run diverged"),
    ],
)
def test_the_verdict_comes_first(tmp_path: Path, losses: dict[float, float], verdict: str) -> None:
    lines = ending(result(tmp_path, losses))
    assert lines[0].heading == "Verdict"
    assert lines[0].text.startswith(verdict)
    assert any(line.heading == "Next" for line in lines)


def test_diverged_runs_are_named(tmp_path: Path) -> None:
    lines = ending(result(tmp_path, parabola(1e-3), "0.03,nan\n"))
    assert any("1 of 6 runs diverged, from LR 3.00e-2 on" in line.text for line in lines)


def test_the_plot_shows_every_run(tmp_path: Path) -> None:
    rows = plot(result(tmp_path, parabola(1e-3), "0.03,nan\n").fit.optima[0])
    drawn = "".join(rows[:-3])
    assert drawn.count("o") + drawn.count("^") == 5
    assert drawn.count("x") == 1
    assert max(map(len, rows)) <= 80
    assert plot(result(tmp_path, {1e-3: 3.0}).fit.optima[0]) == []


def test_a_narrow_terminal_breaks_between_words(tmp_path: Path) -> None:
    out = io.StringIO()
    console = make_console(file=out, force_terminal=True, color_system=None, width=80)
    found = result(tmp_path, parabola(1e-6))
    show_runs(found, console)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    words = {word for line in ending(found) for word in line.text.split()}
    assert words <= set(out.getvalue().split())


def test_kinds_of_runs_are_told_apart_in_the_answer_and_in_the_table(tmp_path: Path) -> None:
    rows = "".join(f"{kind},{lr},{loss}\n" for kind in "abcdefgh" for lr, loss in parabola(1e-3).items())
    (tmp_path / "runs.csv").write_text("cell,lr,loss\n" + rows)
    found = result_of(read_finished(tmp_path / "runs.csv", ImportOptions(by=("cell",))))
    text = write_runs_report(found, tmp_path / "report").read_text().partition("<h2>")
    assert text[0].count("Trust it") == MOST_FAMILIES
    assert "2 more kinds of runs are in the table below" in text[0]
    assert "raylr report" not in text[0]
    table = text[2].partition("All optima")[2]
    assert all(f"<td>cell {kind}</td>" in table for kind in "abcdefgh")
    assert any("`raylr report` has all" in line.text for line in ending(found))


def test_a_column_that_is_asked_for_and_kept_apart_in_any_case_is_named_once(tmp_path: Path) -> None:
    rows = "".join(f"{kind},{lr},{loss}\n" for kind in ("adamw", "muon") for lr, loss in parabola(1e-3).items())
    (tmp_path / "runs.csv").write_text("optimizer,lr,loss\n" + rows)
    found = result_of(read_finished(tmp_path / "runs.csv", ImportOptions(by=("optimizer",))))
    assert [family.name for family in found.fit.families] == ["optimizer adamw", "optimizer muon"]

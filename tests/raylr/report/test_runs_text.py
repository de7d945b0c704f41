import io
import math
from pathlib import Path

import pytest

from raylr.cli.console import make_console
from raylr.finished import read_finished
from raylr.report.runs_text import RunsResult, ending, plot, result_of, show_runs

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

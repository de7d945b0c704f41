import io
from dataclasses import replace
from pathlib import Path

import pytest
from made_results import made_result, made_spec, rows_of

from raylr.cli.console import make_console
from raylr.report.ending import ending, show_result
from raylr.report.lines import HEADING, show_again
from raylr.report.text import law_lines, remarks
from raylr.study import StudyResult


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    folder = tmp_path_factory.mktemp("lines")
    return made_result(folder, rows_of(folder, {}), made_spec())


def printed(result: StudyResult, width: int, *, terminal: bool) -> str:
    out = io.StringIO()
    show_result(result, None, make_console(file=out, force_terminal=terminal, color_system=None, width=width))
    return out.getvalue()


def words(result: StudyResult) -> set[str]:
    lines = [*ending(result), *remarks(result), *law_lines(result.fit.law)]
    return {word for line in lines for word in line.text.split()}


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_word_is_cut_and_every_line_fits(result: StudyResult, width: int) -> None:
    text = printed(result, width, terminal=True)
    assert max(map(len, text.splitlines())) <= width or width < 80
    assert words(result) <= set(text.split())


def test_a_long_line_goes_on_under_its_text(result: StudyResult) -> None:
    lines = printed(result, 80, terminal=True).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("Verdict"))
    assert lines[first + 1].startswith(" " * HEADING)
    assert lines[first + 1][HEADING] != " "


def test_a_file_keeps_its_lines_whole_and_they_are_broken_when_shown_again(result: StudyResult) -> None:
    stored = printed(result, 120, terminal=False)
    assert any(len(line) > 120 for line in stored.splitlines())
    out = io.StringIO()
    show_again(stored, make_console(file=out, force_terminal=True, color_system=None, width=80))
    assert [line.rstrip() for line in out.getvalue().splitlines()] == [
        line.rstrip() for line in printed(result, 80, terminal=True).splitlines()
    ]


def test_a_long_name_is_folded_and_no_number_is_cut(result: StudyResult) -> None:
    optima = [replace(one, size="x" * 64) for one in result.fit.optima]
    text = printed(replace(result, fit=replace(result.fit, optima=optima)), 80, terminal=True)
    assert "…" not in text
    assert all(f"{one.loss:.4f}" in text for one in optima)


def test_columns_says_how_wide_a_file_is(result: StudyResult, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with (tmp_path / "log").open("w", encoding="utf-8") as file:
        show_result(result, None, make_console(file=file))
    assert max(map(len, (tmp_path / "log").read_text(encoding="utf-8").splitlines())) <= 80

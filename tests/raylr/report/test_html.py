import html.parser
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_pages import is_self_contained
from made_results import diverge, made_result, made_spec, rows_of

from raylr.analysis.figures.static import Rendered
from raylr.cli.console import make_console
from raylr.errors import StorageError
from raylr.report.ending import show_result
from raylr.report.html import write_report

Row = dict[str, Any]


FIGURES = {
    "figure-1a-loss-curves",
    "figure-1b-loss-over-lr",
    "figure-2-law",
    "figure-12-precision",
    "figure-14-all-loss-curves",
    "figure-15-over-tokens",
    "figure-16-surface",
    "figure-18-law",
    "regret",
    "runs",
    "check",
}


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are described and put into the page, and not drawn by matplotlib, which takes most of the time."""
    monkeypatch.setattr("raylr.report.page.render", lambda figure: Rendered(svg="<svg/>", png=b"", width=1.0))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a whole study."""
    folder = tmp_path_factory.mktemp("whole")
    return write_report(made_result(folder, rows_of(folder, {}), made_spec()))


class Page(html.parser.HTMLParser):
    """Tags and texts of a page; tags that are not closed are errors."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_whole_study_has_every_section_and_figure(whole: Path) -> None:
    page = Page(whole.read_text())
    for section in ("The optima", "What an LR beside the best costs", "The law", "The check", "The cost", "The runs"):
        assert section in page.texts
    assert {file.name for file in (whole.parent / "figures").iterdir()} == {
        f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")
    }
    assert not list(whole.parent.rglob(".*"))


def test_a_report_is_one_file_in_which_every_figure_has_both_forms(whole: Path) -> None:
    is_self_contained(whole, figures=FIGURES)


def test_sections_begin_with_what_the_data_show(whole: Path) -> None:
    text = whole.read_text()
    parts = re.split(r"<h2>(.*?)</h2>", text)[1:]
    for heading, body in zip(parts[::2], parts[1::2], strict=True):
        first = re.match(r'\s*<p class="lead">(.*?)</p>', body)
        assert first, heading
        assert re.search(r"\d", first[1]), first[1]


MISSING: dict[str, Callable[[Row], Row | None]] = {
    "no check": lambda row: row if row["role"] == "search" else None,
    "one size": lambda row: row if row["size"] == "S" else None,
    "one run": lambda row: row if row["trial"] == "search-S-0.004" else None,
    "one report": lambda row: row if row["trial"] == "search-S-0.004" and row["tokens"] == 50_000 else None,
    "everything diverged": diverge,
    "one size diverged": lambda row: diverge(row) if row["size"] == "M" else row,
    "short runs": lambda row: row if row["tokens"] <= 150_000 else None,
    "no FLOPs": lambda row: row | {"flops": None},
    "the check diverged": lambda row: diverge(row) if row["role"] == "check" else row,
    "one check": lambda row: row if row["role"] == "search" or row["lr"] == 3.3e-3 else None,
}


@pytest.mark.usefixtures("no_files")
@pytest.mark.parametrize("name", MISSING)
def test_a_study_with_missing_pieces_still_reports(tmp_path: Path, name: str) -> None:
    rows = [row for given in rows_of(tmp_path, {}) if (row := MISSING[name](given)) is not None]
    result = made_result(tmp_path / "study", rows, made_spec())
    path = write_report(result)
    page = Page(path.read_text())
    is_self_contained(path)
    out = io.StringIO()
    show_result(result, None, make_console(file=out, width=120))
    for text in ("".join(page.texts), out.getvalue()):
        assert not re.search(r"\bnan\b|\binf\b", text), text
        assert ("L: no run has ended yet" in text) == (name in ("one size", "one run", "one report"))


@pytest.mark.usefixtures("no_files")
def test_a_study_without_a_target_reports_its_law(tmp_path: Path) -> None:
    result = made_result(tmp_path, rows_of(tmp_path, {}), made_spec(target=None))
    assert "The spec names no target" in write_report(result).read_text()


NAMES = ("<b>&amp;", "[bold]", "$x_1", "_S", "{0}", "%s", "学习率", "😀", "'\"", "a:smile:", "$name")


@pytest.mark.usefixtures("no_files")
@pytest.mark.parametrize("first", range(0, len(NAMES), 4))
def test_names_are_shown_as_they_are(tmp_path: Path, first: int) -> None:
    names = tuple((*NAMES, *NAMES)[first : first + 4])
    sizes = dict(zip(("S", "M", "L", "XL"), names, strict=True))
    spec = made_spec(sizes=names[:3], target=names[3], name=names[0])
    result = made_result(tmp_path / "study", rows_of(tmp_path, sizes), spec)
    page = Page(write_report(result).read_text())
    text = "\n".join(page.texts)
    for name in names:
        assert name in text
    out = io.StringIO()
    show_result(result, Path("report.html"), make_console(file=out, width=200))
    for name in names[:3]:
        assert name in out.getvalue()


@pytest.mark.usefixtures("no_files")
def test_a_report_can_go_elsewhere_and_says_what_it_cannot_write(tmp_path: Path) -> None:
    result = made_result(tmp_path / "study", rows_of(tmp_path, {}), made_spec())
    assert write_report(result, tmp_path / "out" / "deep") == tmp_path / "out" / "deep" / "report.html"
    assert {path.name for path in (tmp_path / "study").iterdir()} == {"evaluations"}
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=str(tmp_path / "file")):
        write_report(result, tmp_path / "file")

"""Pages as a browser shows them, and the parts they are made of."""

from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from figure_marks import EVERY_MARK
from made_pages import data_of, is_self_contained

from raylr.report.lines import Line
from raylr.report.page import MOST_BYTES, Figures, lead, library, page, paragraph, table


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a figure of every mark, a wide table and a long word."""
    folder = tmp_path_factory.mktemp("page")
    figures = Figures({"every-mark": EVERY_MARK}, folder / "figures")
    wide = table(["column"] * 30, [["3.14159"] * 30, ["a text that is longer than forty characters " * 3] + [""] * 29])
    text = page(name="long" * 60, answer="", sections=[lead("1."), figures("every-mark"), wide], footer="f")
    (folder / "report.html").write_text(text)
    return folder / "report.html"


def test_a_page_has_both_forms_of_a_figure_and_the_library_once(made: Path) -> None:
    is_self_contained(made, figures={"every-mark"})
    text = made.read_text()
    assert text.count('id="library"') == 1
    assert "plotly.js" in text
    assert "Permission is hereby granted" in text
    (data,) = data_of(text).values()
    assert [panel["title"] for panel in data["panels"]] == ["flat", ""]
    assert "crosses at the upper edge are runs that diverged" in text.lower()


def test_the_library_leaves_room_for_figures() -> None:
    assert len(library()) < 0.7 * MOST_BYTES


def test_a_page_without_figures_has_no_library() -> None:
    assert "library" not in page(name="n", answer="", sections=["<p>x</p>"], footer="f").partition("<body>")[2]


def test_texts_are_escaped(tmp_path: Path) -> None:
    assert paragraph(Line("<b>", "Head")) == "<p>Head: &lt;b&gt;</p>"
    assert lead("a & b") == '<p class="lead">a &amp; b</p>'
    assert '<td class="long">' in table(["h"], [["<" * 41]])
    assert Figures({}, tmp_path / "figures")("nothing") == ""


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed: the page is not opened in a browser")
def test_a_browser_draws_every_figure_without_an_error_and_no_page_is_too_wide(made: Path, browser: Browser) -> None:
    page = browser.page(made.as_uri(), width=400, height=4000)
    page.until("document.querySelector('#library') && window.Plotly")
    if page.js("Boolean(document.createElement('canvas').getContext('webgl'))"):
        page.until("document.querySelectorAll('figure.drawn .js-plotly-plot').length === 2")
        buttons = "[...document.querySelectorAll('.legend button')]"
        assert set(page.js(f"{buttons}.map((one) => one.textContent)")) == {"a & <b>", "star", "box", "path", "runs"}
        traces = "document.querySelectorAll('.scatterlayer .trace').length"
        before = page.js(traces)
        assert before >= 5
        page.js(f"{buttons}.find((one) => one.textContent === 'a & <b>').click()")
        page.until(f"{traces} < {before}")
    for width in (400, 800, 1400):
        page.look(width)
        page.until("document.documentElement.scrollWidth <= innerWidth")
    page.look(400, dark=True)
    assert page.js("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 30)"
    page.look(800, media="print")
    assert page.js("getComputedStyle(document.querySelector('.static')).display") == "block"
    assert page.js("getComputedStyle(document.querySelector('.live')).display") == "none"
    assert page.errors == []
    page.close()

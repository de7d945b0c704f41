"""Pages as a browser shows them, and the parts they are made of."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from figure_marks import EVERY_MARK
from made_pages import data_of, is_self_contained

from raylr.report.lines import Line
from raylr.report.page import MOST_BYTES, Figures, lead, library, page, paragraph, table

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
WATCH = """<script>
const errors = [];
addEventListener("error", (event) => errors.push(String(event.message)));
addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)));
const log = console.error;
console.error = (...all) => { errors.push(all.join(" ")); log(...all); };
setInterval(() => {
  const all = [...document.querySelectorAll("figure[id]")];
  document.documentElement.dataset.seen = JSON.stringify({
    errors, figures: all.length, drawn: all.filter((one) => one.classList.contains("drawn")).map((one) => one.id),
    plots: document.querySelectorAll(".js-plotly-plot").length, width: innerWidth,
    over: document.documentElement.scrollWidth - innerWidth,
    traces: document.querySelectorAll(".scatterlayer .trace").length,
    buttons: [...document.querySelectorAll(".legend button")].map((one) => one.textContent),
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
  });
}, 200);
</script>"""
"""Writes what is on the page into an attribute of it."""


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
def test_a_browser_draws_every_figure_without_an_error_and_the_page_is_not_too_wide(made: Path, tmp_path: Path) -> None:
    watched = made.with_name("watched.html")
    watched.write_text(made.read_text().replace("<body>", f"<body>{WATCH}", 1))
    options = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-unsafe-swiftshader --virtual-time-budget=20000 --dump-dom "
        "--window-size=400,4000"
    )
    command = [CHROMIUM, *options.split(), f"--user-data-dir={tmp_path / 'profile'}", watched.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found, done.stderr
    seen = json.loads(html.unescape(found[1]))
    assert seen["errors"] == []
    assert seen["over"] <= 0
    assert seen["width"] <= 500  # the least that some versions have
    if seen["drawn"]:  # a machine without WebGL keeps the static form of a figure in three dimensions
        assert seen["plots"] == 2
        assert {"a & <b>", "star", "box", "path", "runs"} == set(seen["buttons"])
        assert seen["traces"] >= 5

import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest
from figure_marks import EVERY_MARK

from raylr.analysis.figures import static
from raylr.analysis.figures.description import Axis, Figure, Line, Panel
from raylr.analysis.figures.static import draw, render


@pytest.fixture(scope="module")
def rendered():
    return render(EVERY_MARK)


def test_all_marks_are_drawn_with_their_words(rendered):
    tree = ET.fromstring(rendered.svg)
    words = " ".join("".join(node.itertext()) for node in tree.iter("{http://www.w3.org/2000/svg}text"))
    for word in ("flat", "a & <b>", "star", "box", "path", "runs", "LR", "loss <nats>", "1e-3", "3.1", "a note"):
        assert word in words, word
    assert rendered.png.startswith(b"\x89PNG")
    assert rendered.width == pytest.approx(8.8)


def test_the_users_settings_do_not_matter_and_are_kept(rendered):
    with mpl.rc_context({"lines.linewidth": 9, "axes.facecolor": "black", "font.family": "monospace"}):
        assert draw(EVERY_MARK).axes[0].get_facecolor()[:3] == (1.0, 1.0, 1.0)
        assert mpl.rcParams["font.family"] == ["monospace"]


def test_large_figures_have_their_marks_as_one_picture(monkeypatch):
    line = Line(x=list(range(3000)), y=[i % 7 for i in range(3000)])
    figure = Figure(title="t", statement="1.", caption="c.", width=2, height=2,
                    panels=[Panel(x=Axis("a word"), y=Axis("y"), marks=[line])])  # fmt: skip
    large = render(figure).svg
    assert "<image" not in large
    monkeypatch.setattr(static, "_MOST_COORDINATES", 2000)
    small = render(figure).svg
    assert "<image" in small
    assert "a word" in small

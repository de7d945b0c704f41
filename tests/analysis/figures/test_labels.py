import html
from collections.abc import Iterator

import pytest
from matplotlib import font_manager

from raylr.analysis.figures import labels
from raylr.analysis.figures.description import Axis, Figure, Line, Panel
from raylr.analysis.figures.static import render


@pytest.fixture
def only_dejavu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without fonts for Chinese."""
    dejavu = [font for font in font_manager.fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", dejavu)
    labels._font_with.cache_clear()
    yield
    labels._font_with.cache_clear()


@pytest.mark.usefixtures("only_dejavu")
def test_names_without_a_font_are_numbers_that_the_caption_explains() -> None:
    names = ["S", "学习", "Größe", "速率"]
    assert labels.shown(names) == {"S": "S", "学习": "#1", "Größe": "Größe", "速率": "#2"}
    assert labels.replaced(names) == {"#1": "学习", "#2": "速率"}
    assert labels.families(names) == ["DejaVu Sans"]


def test_a_font_that_has_the_characters_is_used() -> None:
    """STIX, which comes with matplotlib, has characters that DejaVu lacks, as a Chinese font has on other machines."""
    point = min(labels._characters("STIXGeneral") - labels._characters("DejaVu Sans"))
    name = f"S{chr(point)}"
    default, found = labels.families([name])
    assert default == "DejaVu Sans"
    assert point in labels._characters(found)
    assert labels.shown([name]) == {name: name}
    assert labels.replaced([name]) == {}


def test_legends_show_names_with_an_underscore() -> None:
    assert labels.shown(["_S"]) == {"_S": " _S"}
    assert labels.replaced(["_S"]) == {}


@pytest.mark.usefixtures("only_dejavu")
def test_texts_that_hold_such_names_get_the_numbers_and_the_rest_a_question_mark() -> None:
    write = labels.writer(["学习"], ["size 学习, optimum 1e-3", "速\nline"])
    assert write("size 学习, optimum 1e-3") == "size #1, optimum 1e-3"
    assert write("速\nline") == "?\nline"
    assert write("_S") == " _S"


@pytest.mark.parametrize("name", ["$x", "$x_1$", "a$b$c$", "_S", "{x}", "%", "学习", "#1", "<b>&", "two\nlines"])
def test_every_name_is_drawn_without_a_warning(name: str) -> None:
    panel = Panel(x=Axis("x"), y=Axis("y"), marks=[Line(x=[1, 2], y=[1, 2], label=name)], title=f"size {name}")
    figure = Figure(title="t", statement="1.", caption="c.", panels=[panel], names=[name], width=2, height=2)
    svg = render(figure).svg  # warnings are errors in tests
    shown = labels.shown([name])[name].strip().split("\n")[0]
    assert f"size {html.escape(shown, quote=False)}" in svg
    import matplotlib as mpl

    assert mpl.rcParams["font.family"] == mpl.rcParamsDefault["font.family"]

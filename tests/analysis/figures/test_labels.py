from collections.abc import Iterator

import pytest
from matplotlib import font_manager

from raylr.analysis.figures import labels
from raylr.analysis.figures._drawing import labels_of, new_figure, styled


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


@pytest.mark.parametrize("name", ["$x", "$x_1$", "a$b$c$", "_S", "{x}", "%", "学习", "#1"])
def test_every_name_is_drawn_without_a_warning(name: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    @styled
    def draw() -> object:
        label = labels_of([name])[name]
        figure, (ax,) = new_figure(1, 1, width=2, height=2)
        ax.plot([1, 2], [1, 2], label=label)
        ax.legend()
        ax.set_title(f"Size {label}")
        return figure

    figure = draw()
    FigureCanvasAgg(figure).draw()  # warnings are errors in tests
    legend = figure.axes[0].get_legend()
    assert legend.get_texts()[0].get_text().strip() == labels.shown([name])[name].strip()
    import matplotlib as mpl

    assert mpl.rcParams["font.family"] == mpl.rcParamsDefault["font.family"]

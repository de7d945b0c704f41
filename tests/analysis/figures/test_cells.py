import math

import numpy as np
import pytest
from figure_marks import conforms, of_kind

from raylr.analysis.cells import Cell, fit_cells, names_of
from raylr.analysis.figures import cells as figures
from raylr.analysis.figures.description import Band, Boxes, Line, Points
from raylr.analysis.figures.placing import edge_note
from raylr.analysis.runs import Setting


def cell(params: float, tokens: float, *, lost: bool = False) -> Cell:
    best = 3e-3 * (params / 1e8) ** -0.3 * (tokens / 1e9) ** -0.2
    lr = best * np.array([0.25, 0.5, 1.1, 2.0, 4.0])
    loss = 3 + 0.05 * np.log(lr / best) ** 2
    loss[-1] = math.nan if lost else loss[-1]
    return Cell(setting=Setting(name=f"{params:g} {tokens:g}", params=params, tokens=tokens), lr=lr, loss=loss)


@pytest.fixture(scope="module")
def fit():
    return fit_cells([cell(n, d, lost=n == 1e8) for n in (1e8, 2e8, 4e8) for d in (1e9, 4e9)])


def test_cells_have_their_losses_curve_and_interval(fit):
    figure = figures.loss_over_lr(fit.optima)
    conforms(figure)
    assert len(figure.panels) == 6
    for panel, one in zip(figure.panels, fit.optima, strict=True):
        assert of_kind(panel, Boxes)[0].x_low[0] == one.fit.lr_low
        (points,) = of_kind(panel, Points)
        assert len(points.x) == 5
    assert figure.statement.startswith("The best LRs of 6 settings lie from ")
    assert figure.statement.endswith("; 6 of them are known within the tolerance.")
    assert "diverged" in edge_note(figure.panels)
    single = figures.loss_over_lr(fit.optima[:1])
    conforms(single)
    assert single.statement.startswith("The lowest loss, 3.0")


def test_many_cells_are_thinned_and_the_caption_says_so(fit):
    figure = figures.loss_over_lr(list(fit.optima) * 5)
    conforms(figure)
    assert len(figure.panels) == figures.MOST
    assert "12 of 30 settings are drawn" in figure.caption


def test_the_law_passes_the_optima(fit):
    (family,) = fit.families
    figure = figures.law(family)
    conforms(figure)
    assert [panel.x.label for panel in figure.panels] == ["parameters", "tokens"]
    for panel in figure.panels:
        (line,) = of_kind(panel, Line)
        for points in of_kind(panel, Points):
            at = np.exp(np.interp(np.log(points.x), np.log(line.x), np.log(line.y)))
            np.testing.assert_allclose(np.log(points.y), np.log(at), atol=0.2)


def test_cells_without_a_finite_loss():
    gone = Cell(setting=Setting(name="gone"), lr=np.array([1e-3, 2e-3]), loss=np.full(2, math.nan))
    figure = figures.loss_over_lr(fit_cells([gone]).optima)
    conforms(figure)
    assert figure.statement == "None of 1 settings has a known optimum."


def test_settings_of_several_families_have_names_of_their_own():
    def runs(size: str, family: str) -> Cell:
        lr = 3e-3 * np.array([0.25, 0.5, 1.1, 2.0, 4.0])
        return Cell(setting=Setting(name=size), lr=lr, loss=3 + 0.05 * np.log(lr / 3e-3) ** 2, family=family)

    both = fit_cells([runs(size, f"optimizer {name}") for name in "ab" for size in ("S", "M")])
    titles = [panel.title for panel in figures.loss_over_lr(both.optima).panels]
    assert len(set(titles)) == 4
    assert titles[1].startswith("M (optimizer a): ")
    assert names_of(fit_cells([runs("S", "optimizer a"), runs("M", "optimizer b")]).optima) == ["S", "M"]
    assert names_of(fit_cells([runs("S", "optimizer a"), runs("S", "optimizer b")]).optima)[1] == "optimizer b"


def test_the_line_ends_where_the_model_saw_losses_and_the_band_is_one_of_quantiles():
    lr = np.geomspace(1e-5, 1.0, 26)
    plain = 0.1 + np.minimum(0.15 * np.log(lr / 1e-2) ** 2, 2.2)
    plain[lr > 0.3] = 40.0  # a cliff: the standard deviation beside it is that of the jump
    (one,) = fit_cells([Cell(setting=Setting(name="S"), lr=lr, loss=plain)]).optima
    figure = figures.loss_over_lr([one])
    conforms(figure)
    (line,), (band,) = of_kind(figure.panels[0], Line), of_kind(figure.panels[0], Band)
    np.testing.assert_allclose([line.x[0], line.x[-1]], one.fit.fitted_range)
    assert lr[0] < line.x[0] < 1e-2 < line.x[-1] < lr[-1]
    assert "The line ends where the model does" in figure.caption
    assert np.all(band.low <= line.y)
    assert np.all(line.y <= band.high)
    assert min(band.low) > -1.0

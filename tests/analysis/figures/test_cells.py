import math

import numpy as np
import pytest
from figure_marks import conforms, of_kind

from raylr.analysis.cells import Cell, fit_cells
from raylr.analysis.figures import cells as figures
from raylr.analysis.figures.description import Boxes, Line, Points
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
    assert figure.statement.startswith("The optimal LR of 6 of 6 settings lies from ")
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

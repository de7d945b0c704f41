import math

import numpy as np
import pytest
from figure_marks import conforms, of_kind, texts_of

from raylr.analysis.figures.description import Boxes, Line, Points
from raylr.analysis.figures.transfer import contours, proxy_search
from raylr.analysis.optimum.response import fit_response


@pytest.fixture(scope="module")
def runs():
    lr, std = (values.ravel() for values in np.meshgrid([2e-3, 8e-3, 3.2e-2], [0.005, 0.02, 0.08]))
    loss = 3 + 0.05 * np.log(lr / 8e-3) ** 2 + 0.01 * np.log(std / 0.02) ** 2
    return {"lr": lr, "init_std": std}, loss


def test_runs_contours_and_the_best_place(runs):
    fit = fit_response(*runs)
    figure = proxy_search(fit, "init_std")
    conforms(figure)
    (panel,) = figure.panels
    assert len(of_kind(panel, Line)) >= 3
    assert of_kind(panel, Boxes)[0].x_low == [fit.low["lr"]]
    assert "3" in texts_of(panel)
    (star,) = of_kind(panel, Points, symbol="star")
    assert (star.x, star.y) == ([fit.at["lr"]], [fit.at["init_std"]])
    assert "diverged" not in figure.caption
    lost = proxy_search(fit_response(runs[0], np.where(runs[0]["lr"] > 3e-2, math.nan, runs[1])), "init_std")
    conforms(lost)
    assert "crosses diverged" in lost.caption


def test_contours_lie_where_the_loss_is_so_much_higher():
    x = y = np.linspace(-1.0, 1.0, 60)
    z = 4 + np.add.outer(y**2, x**2)
    for line in contours(x, y, z, 4.0):
        share = float(line.label[1:-1]) / 100
        radius = np.hypot(line.x, line.y)
        np.testing.assert_allclose(radius[np.isfinite(radius)] ** 2, 4 * share, atol=2e-3)

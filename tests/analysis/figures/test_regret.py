import math

import numpy as np
import pytest
import synthetic
from figure_marks import conforms, of_kind

from raylr.analysis.figures.description import Band, Line
from raylr.analysis.figures.regret import regret
from raylr.analysis.optimum.fit import fit_optimum


def test_what_twice_the_lr_costs_is_near_the_truth(study_fit, prediction):
    fits = {size: surface.at(float(synthetic.BUDGET)) for size, surface in study_fit.surfaces.items()}
    figure = regret(fits, law=study_fit.curvature_law, prediction=prediction)
    conforms(figure)
    (panel,) = figure.panels
    truth = 0.06 * math.log(2) ** 2
    (dashed,) = of_kind(panel, Line, style="dashed")
    assert np.interp(2.0, dashed.x, dashed.y) == pytest.approx(truth, rel=0.35)
    lines = of_kind(panel, Line, style="solid")
    assert len(lines) == 3
    for line in lines:
        assert np.interp(2.0, line.x, line.y) == pytest.approx(truth, rel=0.35)
        assert min(line.y) >= 0
    assert len(of_kind(panel, Band)) == 2
    assert figure.statement.startswith("At the target an LR off by a factor of 2 costs 0.02")
    alone = regret(fits)
    conforms(alone)
    assert "dashed" not in alone.caption
    assert alone.statement.startswith("At L, twice the recommended LR costs 0.0")


def test_no_curve_and_a_narrow_range():
    assert regret({}) is None
    assert regret({"a": fit_optimum([1e-3], [math.nan])}) is None
    narrow = regret({"a": fit_optimum([1e-3, 1.2e-3, 1.4e-3], [3.0, 2.99, 3.0])})
    conforms(narrow)
    assert "reach less than a factor of 2 from the recommended one, 1.2" in narrow.statement
    assert len(regret({str(i): fit_optimum([1e-3, 2e-3, 4e-3], [3.1, 3.0, 3.1]) for i in range(9)}).names) == 8
